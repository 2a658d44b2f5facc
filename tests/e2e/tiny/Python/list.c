/* The lines that validate/list_tests.py would print: of two modules; a third cannot be imported. */
#include <stdio.h>

#include "tiny.h"

int answer_list(void)
{
    static const char *const names[] = {"test_capi.test_opt", "test_generated_cases"};
    printf("{\"modules\": [\"test\", \"test.test_capi\", \"test.test_skipped\"");
    for (int number = 0; number < 2; number++) {
        printf(", \"test.%s\"", names[number]);
    }
    puts("]}");
    for (int number = 0; number < 2; number++) {
        printf("{\"tests\": [");
        for (int test = 0; test < 300; test++) {
            printf("%s\"test.%s.Tests.test_%03d\"", test ? ", " : "", names[number], test);
        }
        puts("]}");
    }
    return 0;
}
