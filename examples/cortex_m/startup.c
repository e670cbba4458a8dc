/* From reset to main, and text to the debugger, which an emulator shows: Arm's semihosting. */

#include "startup.h"

#include <stdint.h>
#include <string.h>

extern uint8_t data_in_flash[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];
int main(void);
void reset(void);

static int ask_debugger(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void print(const char *text)
{
    ask_debugger(0x04, text);
}

static void stop(int failed)
{
    ask_debugger(0x18, (const void *)(failed ? 0x20023u : 0x20026u));
    for (;;)
        ;
}

static void fault(void)
{
    print("fault\n");
    stop(1);
}

static const struct {
    void *stack;
    void (*handlers[15])(void);
} vectors __attribute__((used, section(".vectors"))) = {
    stack_top, {reset, fault, fault, fault, fault, fault}};

void reset(void)
{
#if defined(__ARM_FP)
    *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20; /* CPACR: the floating-point unit is on */
    __asm__ volatile("dsb\n\tisb");
#endif
    memcpy(data_start, data_in_flash, (size_t)(data_end - data_start));
    memset(bss_start, 0, (size_t)(bss_end - bss_start));
    stop(main());
}
