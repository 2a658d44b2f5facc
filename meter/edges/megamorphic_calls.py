"""Calls of a method that many classes have: no call site sees the same class twice in a row."""

import pyperf

ROUNDS = 12_000


def make(number):
    """Make a class whose method differs from that of all others."""

    class Shape:
        def __init__(self, size):
            self.size = size

        def area(self):
            return self.size * number + 1

    return Shape


SHAPES = [make(number)(number + 1) for number in range(16)]


def megamorphic_calls(rounds=ROUNDS):
    """Sum up what the methods of different classes return."""
    total = 0
    for _ in range(rounds):
        for shape in SHAPES:
            total += shape.area()
    return total


if __name__ == "__main__":
    pyperf.Runner().bench_func("megamorphic_calls", megamorphic_calls)
