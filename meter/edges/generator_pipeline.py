"""Generators that take from generators: each value passes through six frames."""

import pyperf

VALUES = 40_000


def numbers(count):
    """Yield numbers."""
    yield from range(count)


def scaled(values, factor):
    """Yield multiples."""
    for value in values:
        yield value * factor


def odd(values):
    """Yield the odd ones."""
    for value in values:
        if value & 1:
            yield value


def generator_pipeline(count=VALUES):
    """Sum up what comes out of a chain of generators."""
    values = scaled(scaled(scaled(numbers(count), 3), 5), 7)
    return sum(value & 255 for value in odd(values))


if __name__ == "__main__":
    pyperf.Runner().bench_func("generator_pipeline", generator_pipeline)
