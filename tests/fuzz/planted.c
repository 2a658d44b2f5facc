/* A target with a mistake that the driver has to find. */
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 4 && data[0] == 'b' && data[1] == 'u')
        if (data[2] == 'g' && data[3] == 's')
            return data[size];
    return 0;
}
