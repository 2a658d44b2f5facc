"""Checks of attributes and types that threads share."""

import gc
import sys
import time

from ft_invariants import GIVE_UP, WIDTH, in_threads, require, require_equal


def attributes(scale):
    """Attributes of one object, inline and in a `__dict__` that other threads create."""

    class Thing:
        pass

    for round_ in range(15 * scale):
        thing = Thing()

        def work(index, thing=thing, round_=round_):
            for step in range(20):
                setattr(thing, f"a{index}", (round_, step))
                if step == 10 and index == 0:
                    vars(thing)["by_dict"] = round_
                require_equal(getattr(thing, f"a{index}"), (round_, step), f"attribute a{index}")
            setattr(thing, f"b{index}", index)
            delattr(thing, f"a{index}")

        in_threads(work)
        expected = {f"b{index}": index for index in range(WIDTH)} | {"by_dict": round_}
        require_equal(vars(thing), expected, "attributes at the end")


def slots(scale):
    """Readers of a slot see a writer's values in order."""

    class Slotted:
        __slots__ = ("value",)

    watch_rising(scale, Slotted())


def class_attribute(scale):
    """Readers of a class's attribute, through instances and caches, see a writer's values in order."""

    class Base:
        value = 0

    class Derived(Base):
        pass

    watch_rising(scale, Base, Derived())


def watch_rising(scale, written, read=None):
    """One thread writes increasing numbers to `written.value`; others read `read.value`, which must not decrease."""
    number = 10_000 * scale
    read = written if read is None else read
    written.value = 0

    def work(index):
        if index == 0:
            for step in range(1, number + 1):
                written.value = step
            return
        last, deadline = 0, time.monotonic() + GIVE_UP
        while last < number:
            now = read.value
            require(now >= last, f"read {now} after {last}")
            require(time.monotonic() < deadline, f"{last} of {number} writes were seen in {GIVE_UP:.0f} s")
            last = now

    in_threads(work)


def subclasses(scale):
    """Types made and dropped in threads leave their base as it was, and never see each other's attributes."""

    class Base:
        pass

    def work(index):
        for step in range(60 * scale):
            created = type(f"T{index}", (Base,), {"mark": (index, step), "get": lambda self: self.mark})
            require_equal(created().get(), (index, step), "a method of a new type")

    in_threads(work)
    gc.collect()
    # 3.13's free-threaded build makes types immortal once there is a second thread, so this check is not repeated:
    # https://docs.python.org/3.13/howto/free-threading-python.html#immortalization
    if sys.version_info < (3, 14):
        return "types are immortal in 3.13"
    require_equal(Base.__subclasses__(), [], "subclasses at the end")
    return None


def interned(scale):
    """Threads that intern equal strings get the same object."""
    number = 2000 * scale

    def work(_index):
        return [sys.intern("".join(("crossjit ", str(step)))) for step in range(number)]

    strings = in_threads(work)
    for same in zip(*strings, strict=True):
        require(all(text is same[0] for text in same), f"{same[0]!r} was interned more than once")
