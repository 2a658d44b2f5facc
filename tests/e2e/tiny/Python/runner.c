/* The lines that validate/runner.py would print of two modules, and the reports that regrtest would write. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "tiny.h"

#define TESTS 300
#define RUNS 100

static const char *const NAMES[] = {"test_capi.test_opt", "test_generated_cases"};

/* What is left of a module that crashes: no report, and the end of its log. */
static int crashing(int number, const char *output, const char *name, const char *label)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%03d/%03d.log", output, number, number);
    FILE *log = fopen(path, "w");
    if (log == NULL) {
        return 1;
    }
    fprintf(log, "test_007 (test.%s.Tests.test_007) ... Fatal Python error: Segmentation fault\n\n", name);
    fprintf(log, "Current thread 0x0000000000000007 (most recent call first):\n  File \"%s.py\", line 7\n", name);
    fclose(log);
    printf("{\"event\": \"end\", \"id\": \"%03d\", \"name\": \"%s\", \"kind\": \"module\", ", number, name);
    printf("\"label\": \"%s\", ", label);
    printf("\"status\": -11, \"signal\": \"SIGSEGV\", \"timed_out\": false, \"memory_kills\": 0, \"seconds\": 0.3, ");
    printf("\"junit\": null, \"checks\": null, \"log\": \"%03d.log\", \"tail\": \"\", ", number);
    printf("\"command\": [\"python3\", \"-m\", \"test\", \"%s\"], \"env\": {\"A\": \"1\"}}\n", name);
    return 0;
}

static int module(int number, const char *output, const char *name, const char *label, int failed, int crashed)
{
    char path[4096], about[256];
    snprintf(about, sizeof about, "\"kind\": \"module\", \"label\": \"%s\"", label);
    printf("{\"event\": \"start\", \"id\": \"%03d\", \"name\": \"%s\", %s}\n", number, name, about);
    snprintf(path, sizeof path, "%s/%03d", output, number);
    if (mkdir(path, 0777) != 0) {
        return 1;
    }
    if (crashed) {
        return crashing(number, output, name, label);
    }
    snprintf(path, sizeof path, "%s/%03d/%03d.log", output, number, number);
    FILE *log = fopen(path, "w");
    snprintf(path, sizeof path, "%s/%03d/%03d.xml", output, number, number);
    FILE *report = fopen(path, "w");
    if (log == NULL || report == NULL) {
        return 1;
    }
    fprintf(log, "%d tests\n", TESTS);
    fclose(log);
    fprintf(report, "<testsuites><testsuite tests=\"%d\" errors=\"0\" failures=\"%d\">\n", TESTS, failed);
    for (int test = 0; test < TESTS; test++) {
        const char *result = failed && test == 7 ? "<failure>AssertionError: 7 is not lucky</failure>" : "";
        fprintf(report, "<testcase name=\"test.%s.Tests.test_%03d\" time=\"0.001\">%s</testcase>\n", name, test, result);
    }
    fprintf(report, "</testsuite></testsuites>\n");
    fclose(report);
    printf("{\"event\": \"end\", \"id\": \"%03d\", \"name\": \"%s\", %s, \"status\": %d, \"signal\": null, ", number, name,
           about, failed ? 2 : 0);
    printf("\"timed_out\": false, \"memory_kills\": 0, \"seconds\": 0.3, \"junit\": \"%03d.xml\", \"checks\": null, ", number);
    printf("\"log\": \"%03d.log\", \"tail\": \"\"}\n", number);
    return 0;
}

/* Whether the order says that a module was run before. */
static int is_done(const char *order, const char *name)
{
    static char text[1 << 16];
    FILE *file = fopen(order, "r");
    size_t length = file == NULL ? 0 : fread(text, 1, sizeof text - 1, file);
    if (file != NULL) {
        fclose(file);
    }
    text[length] = 0;
    const char *done = strstr(text, "\"done\": [");
    const char *end = done == NULL ? NULL : strchr(done, ']');
    const char *found = done == NULL ? NULL : strstr(done, name);
    return found != NULL && found < end;
}

/* Whether this run of a module fails: always with fail-test, one time in four with flaky-test. */
static int fails(void)
{
    unsigned char dice = 0;
    if (TINY_FLAKY && getrandom(&dice, 1, 0) != 1) {
        return 1;
    }
    return TINY_FAIL || (TINY_FLAKY && dice < 64);
}

/* Answer an order of single runs, whose items all have labels, such as 0.3: each is a run of the first module.
   Returns -1 for other orders. */
static int answer_items(const char *order, const char *output)
{
    static char text[1 << 16];
    FILE *file = fopen(order, "r");
    size_t length = file == NULL ? 0 : fread(text, 1, sizeof text - 1, file);
    if (file != NULL) {
        fclose(file);
    }
    text[length] = 0;
    static const char key[] = "\"label\": \"";
    const char *labels[RUNS];
    int runs = 0;
    for (char *label = strstr(text, key); label != NULL && runs < RUNS; label = strstr(label, key)) {
        label += sizeof key - 1;
        char *end = strchr(label, '"');
        if (end == NULL || end == label) {
            return -1;
        }
        *end = 0;
        labels[runs++] = label;
        label = end + 1;
    }
    if (runs == 0) {
        return -1;
    }
    printf("{\"event\": \"plan\", \"missing\": [], \"modules\": [");
    for (int number = 0; number < runs; number++) {
        printf("%s{\"id\": \"%03d\", \"name\": \"%s\", \"kind\": \"module\", \"label\": \"%s\"}", number ? ", " : "",
               number, NAMES[0], labels[number]);
    }
    puts("]}");
    for (int number = 0; number < runs; number++) {
        if (module(number, output, NAMES[0], labels[number], fails(), TINY_CRASH)) {
            perror(output);
            return 1;
        }
    }
    puts("{\"event\": \"done\"}");
    return 0;
}

int answer_runner(const char *order, const char *output)
{
    int status = answer_items(order, output);
    if (status >= 0) {
        return status;
    }
    printf("{\"event\": \"plan\", \"missing\": [], \"modules\": [");
    for (int number = 0; number < 2; number++) {
        printf("%s{\"id\": \"%03d\", \"name\": \"%s\", \"kind\": \"module\", \"label\": \"\"}", number ? ", " : "", number,
               NAMES[number]);
    }
    puts("]}");
    for (int number = 0; number < 2; number++) {
        int first = number == 0;
        if (!is_done(order, NAMES[number])
            && module(number, output, NAMES[number], "", first && fails(), first && TINY_CRASH)) {
            perror(output);
            return 1;
        }
        if (TINY_HOLD_SUITE && number == 0) {
            hold("suite");
        }
    }
    puts("{\"event\": \"done\"}");
    return 0;
}
