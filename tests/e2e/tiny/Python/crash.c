/* Crashes, as CPython may in a test. */
#include "tiny.h"

static int *volatile nowhere = (int *)16;

static __attribute__((noinline)) void fall(void)
{
    *nowhere = 7;
}

int crash(void)
{
    fall();
    return 1;
}
