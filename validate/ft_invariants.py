"""What the checks of threads share: work in threads that start together, and what has to hold after it."""

import collections
import threading

WIDTH = 4  # threads in most checks: more than most hosts' QEMU gives cores, so that threads are also preempted
BRIEF = 200  # characters of a value that are told
GIVE_UP = 120.0  # seconds after which a handover that makes no progress has failed


class Broken(Exception):  # noqa: N818 - it is the finding, not an error of ours
    """An invariant does not hold."""


class Skip(str):
    """What a check returns that could not show anything: the reason."""


def require(condition, message):
    """Raise Broken unless the condition holds (an assert would go with -O)."""
    if not condition:
        raise Broken(message)


def require_equal(actual, expected, what):
    """Raise Broken unless both are equal."""
    require(actual == expected, f"{what}: {brief(actual)}, not {brief(expected)}")


def brief(value):
    """Return a value's repr, cut where it is too long to be of use."""
    text = repr(value)
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}…"


def in_threads(work, width=WIDTH):
    """Run `work(index)` in threads that start together. Return what they returned; raise what the first raised."""
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
    """Demand that the items in the lists of `taken` are exactly the expected ones, none lost and none twice."""
    counts = collections.Counter(item for items in taken for item in items)
    twice = [item for item, number in counts.items() if number > 1]
    require(not twice, f"{what}: {len(twice)} items came twice, such as {twice[:3]}")
    lost = set(expected) - set(counts)
    require(not lost, f"{what}: {len(lost)} items were lost, such as {sorted(lost)[:3]}")
    require_equal(len(counts), len(expected), f"{what}: number of items")
