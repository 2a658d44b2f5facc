"""Sequences taken apart and put together: tuples, lists, stars, keyword arguments, dictionaries."""

import pyperf

ROUNDS = 30_000


def taking(first, *rest, scale=1, **others):
    """Return something of each kind of argument."""
    return first + len(rest) * scale + len(others)


def unpacking(rounds=ROUNDS):
    """Unpack in many ways."""
    total = 0
    values, options = [1, 2, 3, 4], {"scale": 2, "shape": 3}
    for number in range(rounds):
        first, second, third, fourth = values
        head, *tail = (number, second, third)
        (inner, _), last = (first, fourth), head
        total += taking(*tail, **options) + inner + last
        merged = {**options, "number": number}
        total += len([*values, *tail, *merged])
    return total


if __name__ == "__main__":
    pyperf.Runner().bench_func("unpacking", unpacking)
