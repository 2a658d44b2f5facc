"""A hot loop under a trace function, as debuggers and coverage tools set one."""

import sys

import pyperf

ROUNDS = 12_000


def work(rounds):
    """Do a little in each round."""
    total = 0
    for number in range(rounds):
        if number & 1:
            total += number
        else:
            total -= 1
    return total


def tracing_on(rounds=ROUNDS):
    """Count the lines that run."""
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return trace

    sys.settrace(trace)
    try:
        work(rounds)
    finally:
        sys.settrace(None)
    return lines


if __name__ == "__main__":
    pyperf.Runner().bench_func("tracing_on", tracing_on)
