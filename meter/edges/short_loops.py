"""Inner loops of three rounds, entered again and again: a trace is left as soon as it is entered."""

import pyperf

ROUNDS = 40_000


def row(start):
    """Sum up three numbers."""
    total = 0
    for number in range(start, start + 3):
        total += number
    return total


def short_loops(rounds=ROUNDS):
    """Run two short loops in each round of a long one."""
    total = 0
    for number in range(rounds):
        total += row(number)
        for digit in (1, 2, 3):
            total ^= digit
    return total


if __name__ == "__main__":
    pyperf.Runner().bench_func("short_loops", short_loops)
