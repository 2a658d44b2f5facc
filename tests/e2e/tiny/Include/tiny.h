/* What stands in for CPython. */
#include "patchlevel.h"
#include "pyconfig.h"

int answer_probe(const char *told);
int answer_list(void);
int answer_runner(const char *order, const char *output);
int crash(void);
void hold(const char *phase);
