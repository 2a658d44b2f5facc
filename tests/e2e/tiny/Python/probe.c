/* The facts that validate/probe.py would print. */
#include <elf.h>
#include <stdio.h>

#include "tiny.h"

static const char *machine(void)
{
    Elf64_Ehdr header = {0};
    FILE *file = fopen("/proc/self/exe", "rb");
    if (file == NULL || fread(&header, sizeof header, 1, file) != 1) {
        return "unreadable";
    }
    fclose(file);
    return header.e_machine == EM_X86_64 ? "EM_X86_64" : header.e_machine == EM_AARCH64 ? "EM_AARCH64" : "EM_OTHER";
}

int answer_probe(const char *told)
{
    if (TINY_HOLD_PROBE) {
        hold("probe");
    }
    printf("{\"told\": %s, \"executable\": {\"machine\": \"%s\"}, ", told, machine());
    printf("\"gil\": {\"disabled_in_build\": %s, \"enabled\": %s}, ", Py_GIL_DISABLED ? "true" : "false",
           Py_GIL_DISABLED ? "false" : "true");
    printf("\"debug\": %s, \"jit\": {\"available\": true, \"enabled\": %s}, ", TINY_DEBUG ? "true" : "false",
           TINY_JIT ? "true" : "false");
    printf("\"workloads\": [{\"name\": \"loop\", \"correct\": true, \"unavailable\": null, \"executors\": [%s]}], ",
           TINY_JIT ? "{\"function\": \"count\", \"offset\": 8, \"kind\": \"machine code\", \"bytes\": 4096}" : "");
    printf("\"executable_memory\": {\"machine_code_in_it\": %d}, ", TINY_JIT);
    printf("\"modules\": {\"imported\": [\"zlib\"], \"failed\": {}, \"absent\": {}}, \"errors\": {}}\n");
    return 0;
}
