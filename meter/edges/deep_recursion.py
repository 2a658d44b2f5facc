"""Recursion of two kinds: many calls of little depth, and hundreds of frames at a time."""

import pyperf

NUMBER = 21
DEPTH = 600
ROUNDS = 60


def fibonacci(number):
    """Return a Fibonacci number the slow way."""
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


def nested(depth):
    """Return the depth, counted by the frames."""
    return nested(depth - 1) + 1 if depth else 0


def deep_recursion(number=NUMBER, rounds=ROUNDS):
    """Recurse in both ways."""
    total = fibonacci(number)
    for _ in range(rounds):
        total += nested(DEPTH)
    return total


if __name__ == "__main__":
    pyperf.Runner().bench_func("deep_recursion", deep_recursion)
