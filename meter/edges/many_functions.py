"""Hundreds of small functions, each of them warm and none of them hot."""

import pyperf

FUNCTIONS = 400
ROUNDS = 240

TEMPLATE = """
def function_{number}(value):
    if value % {odd} == 0:
        return value + {number}
    for step in (1, 2):
        value ^= step * {number}
    return value
"""


def make(count=FUNCTIONS):
    """Make the functions, each with code of its own."""
    names = {}
    for number in range(count):
        exec(TEMPLATE.format(number=number, odd=number % 7 + 2), names)
    return [names[f"function_{number}"] for number in range(count)]


MADE = make()


def many_functions(rounds=ROUNDS):
    """Call them all, in turn."""
    value = 1
    for _ in range(rounds):
        for function in MADE:
            value = function(value) & 0xFFFF
    return value


if __name__ == "__main__":
    pyperf.Runner().bench_func("many_functions", many_functions)
