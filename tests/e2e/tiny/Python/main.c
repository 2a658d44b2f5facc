/* The program that is installed as python3: knows the scripts of validate/ and toolchain/ by their names. */
#include <stdio.h>
#include <string.h>

#include "tiny.h"

static const char *option(int count, char **words, const char *name, const char *otherwise)
{
    for (int i = 1; i + 1 < count; i++) {
        if (strcmp(words[i], name) == 0) {
            return words[i + 1];
        }
    }
    return otherwise;
}

int main(int count, char **words)
{
    const char *script = count > 1 ? words[1] : "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(script, "--version") == 0) {
        puts("Python " PY_VERSION);
        return 0;
    }
    if (strstr(script, "/probe.py")) {
        return answer_probe(option(count, words, "--told", "{}"));
    }
    if (strstr(script, "/capabilities.py")) {
        puts("{\"capabilities\": {\"pty\": {\"works\": true, \"detail\": \"not tried, but said\"}}}");
        return 0;
    }
    if (strstr(script, "/runner.py")) {
        return answer_runner(option(count, words, "--suite-json", ""), option(count, words, "--output", "."));
    }
    if (strstr(script, "/list_tests.py")) {
        return answer_list();
    }
    if (strstr(script, "/compile_library.py")) {
        puts("{\"compiled\": 0, \"kept\": 0, \"left\": 0}");
        return 0;
    }
    if (strcmp(script, "-m") == 0 && TINY_CRASH) {
        puts("running a test");
        return crash();
    }
    fprintf(stderr, "tiny: I cannot run %s\n", script);
    return 2;
}
