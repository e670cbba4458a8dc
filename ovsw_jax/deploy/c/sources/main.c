/* Classifies one image: @what@.
 *
 *     @name@ IMAGE
 */

#include "@name@.h"

#include <stdio.h>

@reading@
int main(int count, char **arguments)
{
    static @number@ input[@NAME@_INPUT_SIZE], output[@NAME@_OUTPUT_SIZE];
    int best = 0;
    if (count != 2) {
        fprintf(stderr, "usage: %s IMAGE, a file of %d @unit@\n", arguments[0],
                @NAME@_INPUT_SIZE);
        return 2;
    }
    if (!read_input(arguments[1], input)) {
        fprintf(stderr, "%s does not hold %d @unit@\n", arguments[1], @NAME@_INPUT_SIZE);
        return 1;
    }
    @name@_run(input, output);
    for (int i = 0; i < @NAME@_OUTPUT_SIZE; ++i) {
        printf("@format@%c", (@shown@)output[i], i + 1 < @NAME@_OUTPUT_SIZE ? ' ' : '\n');
        if (output[i] > output[best])
            best = i;
    }
    @print@
    return 0;
}
