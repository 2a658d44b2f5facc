"""Helpers of the checks of threads: running work in threads that start together, and checking invariants."""

import collections
import threading

WIDTH = 4  # threads in most checks: more than most hosts' QEMU gives cores, so that threads are also preempted
BRIEF = 200  # characters of a value in a message
GIVE_UP = 120.0  # seconds after which a handover that makes no progress has failed


class Broken(Exception):  # noqa: N818 - a finding, not an error of ours
    """An invariant does not hold."""


class Skip(str):
    """The result of a check that could not show anything: the reason."""


def require(condition, message):
    """Raise Broken unless the condition holds (-O removes asserts)."""
    if not condition:
        raise Broken(message)


def require_equal(actual, expected, what):
    """Raise Broken unless both are equal."""
    require(actual == expected, f"{what}: {brief(actual)}, not {brief(expected)}")


def brief(value):
    """Return a value's repr, shortened."""
    text = repr(value)
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}…"


def in_threads(work, width=WIDTH):
    """Run `work(index)` in threads that start together. Return their results; raise the first one's exception."""
    barrier = threading.Barrier(width)
    results, errors = [None] * width, []

    def body(index):
        try:
            barrier.wait()
            results[index] = work(index)
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=body, args=(index,), daemon=True) for index in range(width)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return results


def require_each_once(taken, expected, what):
    """Raise Broken unless the items in the lists of `taken` are exactly the expected ones, none lost and none twice."""
    counts = collections.Counter(item for items in taken for item in items)
    twice = [item for item, number in counts.items() if number > 1]
    require(not twice, f"{what}: {len(twice)} items came twice, such as {twice[:3]}")
    lost = set(expected) - set(counts)
    require(not lost, f"{what}: {len(lost)} items were lost, such as {sorted(lost)[:3]}")
    require_equal(len(counts), len(expected), f"{what}: number of items")
