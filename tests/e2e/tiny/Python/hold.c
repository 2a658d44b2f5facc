/* Waits until somebody lets go, as Tools/tiny/hold.sh does. */
#include <stdio.h>
#include <unistd.h>

#include "tiny.h"

void hold(const char *phase)
{
    printf("holding in %s\n", phase);
    for (int rounds = 0; rounds < 12000 && access("/tmp/go", F_OK) != 0; rounds++) {
        usleep(50000);
    }
}
