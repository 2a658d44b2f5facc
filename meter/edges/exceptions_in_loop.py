"""A hot loop that raises and catches: in every third round, from a function that it calls."""

import pyperf

ROUNDS = 90_000


def checked(value):
    """Return the value unless it is a multiple of 3."""
    if value % 3 == 0:
        raise ValueError(value)
    return value


def exceptions_in_loop(rounds=ROUNDS):
    """Count how often the function raised."""
    raised = 0
    for number in range(rounds):
        try:
            checked(number)
        except ValueError:
            raised += 1
    return raised


if __name__ == "__main__":
    pyperf.Runner().bench_func("exceptions_in_loop", exceptions_in_loop)
