"""Stands for the module `pyperf`: benchmarks written for it run in this process, a fixed number of times.

Nothing is timed. A benchmark's calls are between markers for QEMU's plugin (`count.c`), which counts instructions.
`launch.py` runs a benchmark with this module as its `pyperf`.
"""

import argparse
import functools
import os
import sys
import time

MARK, BEGIN, END, LAST = range(0x4A495400, 0x4A495404)  # the ops of markers, as in count.c
CALIBRATION = 0  # the label of windows with nothing in them; benchmarks have 1, 2, …
CALIBRATIONS = 40  # the last counts: until then, CPython has specialized its code

calls = 2  # of each benchmark; set by launch.py, as the next one
loops = 1  # in each call
names = []  # of the benchmarks that ran, in the order of their labels

_closerange = os.closerange
_now = time.perf_counter


class NotMeasuredError(Exception):
    """A benchmark does its work where nothing is counted."""


def mark(op, label=0):
    """Set a marker: a `close_range` system call that the kernel refuses, which nobody else makes."""
    _closerange(op, label + 1)


def perf_counter(_closerange=_closerange, _now=_now, _mark=MARK):
    """Return the time, and set a marker. A benchmark counts between the first and the second, the third and so on."""
    _closerange(_mark, 1)
    return _now()


def calibrate():
    """Set markers with nothing between them, so that their own instructions are known."""
    for _ in range(CALIBRATIONS):
        mark(BEGIN, CALIBRATION)
        started = perf_counter()
        perf_counter() - started
        mark(END, CALIBRATION)


def python_implementation():
    """Return the interpreter's name."""
    return sys.implementation.name


def python_has_jit():
    """Whether the JIT is on; None if this Python does not tell (before 3.14)."""
    jit = getattr(sys, "_jit", None)
    return jit.is_enabled() if jit else None


class Runner:
    """Runs benchmarks as `pyperf.Runner` does in a worker. What is about processes, values and warm-ups is ignored."""

    def __init__(self, *, add_cmdline_args=None, program_args=None, **options):
        self.argparser = argparse.ArgumentParser()
        self.metadata = {}
        self.args = None

    def parse_args(self, args=None):
        """Parse the benchmark's own arguments, once."""
        if self.args is None:
            self.args = self.argparser.parse_args(args)
        return self.args

    def bench_func(self, name, func, *args, inner_loops=None, metadata=None):
        """Measure calls of a function."""
        func = functools.partial(func, *args) if args else func

        def run(loops):
            if loops == 1:
                started = perf_counter()
                func()
                return perf_counter() - started
            rounds = range(loops)
            started = perf_counter()
            for _ in rounds:
                func()
            return perf_counter() - started

        self._measure(name, run)

    def bench_time_func(self, name, time_func, *args, inner_loops=None, metadata=None):
        """Measure a function that takes the number of loops, and calls `perf_counter` before and after its work."""
        self._measure(name, lambda loops: time_func(loops, *args))

    def bench_async_func(self, name, func, *args, loop_factory=None, inner_loops=None, metadata=None):
        """Measure calls of an asynchronous function in an event loop."""
        import asyncio

        async def run(loops):
            rounds = range(loops)
            started = perf_counter()
            for _ in rounds:
                await func(*args)
            return perf_counter() - started

        def in_event_loop(loops):
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                return runner.run(run(loops))

        self._measure(name, in_event_loop)

    def bench_command(self, name, command):
        """Refuse it: what another process does is not counted."""
        raise NotMeasuredError(f"{name} measures another process, whose instructions are not counted: {command[0]}")

    def _measure(self, name, run):
        self.parse_args()
        names.append(name)
        label = len(names)
        for _ in range(calls):
            mark(BEGIN, label)
            run(loops)
            mark(END, label)
