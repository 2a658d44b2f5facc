"""pycparser on a C program of some hundred lines: a parser in pure Python, which hardware shows slower with the JIT."""

import pycparser
import pyperf

FUNCTIONS = 40
TEMPLATE = """
struct node_{number} {{ int key; struct node_{number} *next; unsigned long weights[{number} + 1]; }};

static int insert_{number}(struct node_{number} *head, int key, const char *name)
{{
    int depth = 0, total = {number} * (3 + key) - (key << 2);
    for (struct node_{number} *node = head; node != 0; node = node->next) {{
        if (node->key == key && name[depth] != '\\\\0')
            return depth ? node->key : -1;
        else if (node->key > key)
            total += (int)sizeof(struct node_{number}) / 2, depth++;
        switch (total % 4) {{ case 0: total |= 0x{number}f; break; default: total ^= depth; }}
    }}
    while (depth-- > 0)
        total += head->weights[depth & {number}];
    return total;
}}
"""
SOURCE = "".join(TEMPLATE.format(number=number) for number in range(FUNCTIONS))


def c_parser():
    """Parse it, and return the number of declarations."""
    return len(pycparser.CParser().parse(SOURCE).ext)


if __name__ == "__main__":
    pyperf.Runner().bench_func("c_parser", c_parser)
