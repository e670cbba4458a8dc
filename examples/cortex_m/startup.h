/* Text to the debugger. */

#ifndef STARTUP_H
#define STARTUP_H

void print(const char *text);

#endif
