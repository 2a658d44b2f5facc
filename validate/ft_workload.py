"""Threads that share things, with invariants that break if a race is lost. For a free-threaded CPython.

Runs inside the target with nothing but the CPython under test. Prints one JSON line for each check: {"check",
"outcome": "passed" | "failed" | "error" | "skipped", "seconds", "message"}, and before it {"check", "outcome":
"started"}, so that of a crash it is known in which check. With the GIL on nothing would be shown, so each check but
`gil_is_off` is skipped and says so; with FT_WORKLOAD_ANYWAY in the environment they run all the same.

Only what CPython promises of single operations on shared objects is relied upon
(https://docs.python.org/3/library/threadsafety.html); iterators and generators are never shared.
"""

import argparse
import collections
import contextlib
import gc
import json
import os
import queue
import sys
import threading
import time
import traceback
import weakref

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


# -- that threads run without a lock around them


def handover(scale):
    """Two threads hand a turn to and fro by spinning, with nothing in the loop that would release a GIL.

    A GIL is given up every switch interval, here longer than the check may take: so with one there is no progress.
    """
    turns = 200 * scale
    turn = [0]
    deadline = time.monotonic() + GIVE_UP
    interval = sys.getswitchinterval()

    def work(index):
        done = 0
        while done < turns:
            if turn[0] == index:
                turn[0] = 1 - index
                done += 1
            elif time.monotonic() > deadline:
                raise Broken(f"after {GIVE_UP:.0f} s only {done} of {turns} turns were handed over")
        return done

    sys.setswitchinterval(2 * GIVE_UP)
    try:
        require_equal(in_threads(work, 2), [turns, turns], "turns")
    finally:
        sys.setswitchinterval(interval)
    return f"{2 * turns} turns were handed over"


def parallel_time(scale):
    """Threads that compute take more CPU time than wall time: they truly ran at once. Skipped where it cannot show."""
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        return Skip("there is only one core, so no two threads can run at once")
    stop = False

    def spin():
        while not stop:
            sum(range(100))

    threads = [threading.Thread(target=spin, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    best = 0.0
    try:
        for _ in range(20 * scale):  # one good window is proof; other loads on the host spoil some
            wall, cpu = time.monotonic(), time.process_time()
            time.sleep(0.1)
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
            best = max(best, cpu / wall)
            if best > 1.3:
                break
    finally:
        stop = True
        for thread in threads:
            thread.join()
    if best <= 1.3:
        return Skip(f"at most {best:.2f} s of CPU time in a second on {cores} cores: the host may be too busy to tell")
    return f"{best:.2f} s of CPU time in a second on {cores} cores"


# -- containers


def list_append(scale, make=list):
    """Appended items are all there, once, each thread's in their order."""
    shared, number = make(), 3000 * scale

    def work(index):
        for step in range(number):
            shared.append((index, step))

    in_threads(work)
    require_each_once([shared], [(index, step) for index in range(WIDTH) for step in range(number)], "list")
    for index in range(WIDTH):
        mine = [step for owner, step in shared if owner == index]
        require(mine == sorted(mine), f"thread {index}'s items are out of order")


def list_pop(scale, make=list):
    """Each item of a list is popped by one thread."""
    number = 10_000 * scale
    shared = make(range(number))

    def work(_index):
        taken = []
        while True:
            try:
                taken.append(shared.pop())
            except IndexError:
                return taken

    require_each_once(in_threads(work), range(number), "popped")
    require_equal(len(shared), 0, "length at the end")


def list_assign(scale, make=list):
    """Slots of one list that belong to different threads do not disturb each other while others resize and read."""
    number = 3000 * scale
    shared = make([0] * WIDTH)

    def work(index):
        for step in range(1, number + 1):
            require_equal(shared[index], step - 1, f"slot {index}")
            shared[index] = step
            shared.append(step)
            copy = shared[:WIDTH]
            require_equal(copy[index], step, f"slot {index} in a copy")
            shared.pop()

    in_threads(work)
    require_equal(list(shared), [number] * WIDTH, "list")


def dict_setdefault(scale, make=dict):
    """All threads see the same winner of `setdefault`."""
    shared, keys = make(), range(3000 * scale)

    def work(_index):
        return [shared.setdefault(key, object()) for key in keys]

    seen = in_threads(work)
    for key in keys:
        winners = {id(objects[key]) for objects in seen}
        require_equal(len(winners), 1, f"number of winners for key {key}")
        require(shared[key] is seen[0][key], f"key {key} holds another object than all threads were given")
    require_equal(len(shared), len(keys), "number of keys")


def dict_resize(scale, make=dict):
    """Threads insert and delete keys of their own while the table grows, shrinks and is copied."""
    shared, number = make(), 1500 * scale

    def work(index):
        for step in range(number):
            shared[index, step] = step
            require_equal(shared.get((index, step)), step, f"key {(index, step)}")
            if step % 3 == 2:
                require_equal(shared.pop((index, step - 1)), step - 1, f"popped key {(index, step - 1)}")
            if step % 250 == 0:
                for (_, key), value in shared.copy().items():
                    require_equal(value, key, "a value in a copy")

    in_threads(work)
    expected = {
        (index, step): step
        for index in range(WIDTH)
        for step in range(number)
        if not (step % 3 == 1 and step + 1 < number)
    }
    require(shared == expected, f"the dictionary has {len(shared)} keys, and they are not the {len(expected)} expected")


def dict_pop(scale, make=dict):
    """Each key is popped by one thread."""
    number = 8000 * scale
    shared = make.fromkeys(range(number))

    def work(index):
        missing = object()
        order = range(number) if index % 2 else range(number - 1, -1, -1)
        return [key for key in order if shared.pop(key, missing) is not missing]

    require_each_once(in_threads(work), range(number), "popped")
    require_equal(len(shared), 0, "length at the end")


def dict_popitem(scale, make=dict):
    """Each item is popped by one thread, and keys come with their values."""
    number = 8000 * scale
    shared = make((key, -key) for key in range(number))

    def work(_index):
        taken = []
        while True:
            try:
                key, value = shared.popitem()
            except KeyError:
                return taken
            require_equal(value, -key, f"value of {key}")
            taken.append(key)

    require_each_once(in_threads(work), range(number), "popped")


def set_add_pop(scale, make=set):
    """Added once, popped once; `discard` of other threads' elements never takes another."""
    shared, number = make(), 4000 * scale

    def work(index):
        taken = []
        for step in range(number):
            shared.add((index, step))
            shared.discard((index, -1 - step))
            if step % 2:
                taken.append(shared.pop())
        return taken

    taken = in_threads(work)
    expected = [(index, step) for index in range(WIDTH) for step in range(number)]
    require_each_once([*taken, list(shared)], expected, "set")


def set_same(scale, make=set):
    """Threads that add equal elements end with one of each."""
    number = 5000 * scale
    shared = make()

    def work(index):
        for step in range(number):
            element = f"{(step + index * 7) % number}"
            shared.add(element)
            require(element in shared, f"{element} is not there after it was added")

    in_threads(work)
    require_each_once([list(shared)], [str(step) for step in range(number)], "set")


def deque_hand_over(scale, make=collections.deque):
    """What goes in on the one side comes out on the other once, each producer's in their order."""
    shared, number, producers = make(), 4000 * scale, WIDTH // 2
    finished = []

    def work(index):
        if index < producers:
            for step in range(number):
                shared.append((index, step))
            finished.append(index)
            return []
        taken = []
        while True:
            done = len(finished) == producers  # before looking: what they appended is there by now
            try:
                taken.append(shared.popleft())
            except IndexError:
                if done:
                    return taken

    taken = in_threads(work)
    require_each_once(taken, [(index, step) for index in range(producers) for step in range(number)], "deque")
    for items in taken:
        for index in range(producers):
            mine = [step for owner, step in items if owner == index]
            require(mine == sorted(mine), f"producer {index}'s items are out of order")


def queue_hand_over(scale, make=queue.SimpleQueue):
    """A queue gives each item to one consumer."""
    shared, number, producers = make(), 2000 * scale, WIDTH // 2

    def work(index):
        if index < producers:
            for step in range(number):
                shared.put((index, step))
            shared.put(None)
            return []
        return list(iter(shared.get, None))

    taken = in_threads(work)
    require_each_once(taken, [(index, step) for index in range(producers) for step in range(number)], "queue")


def locked_queue_hand_over(scale):
    """The same through `queue.Queue`, with a bound that makes both sides wait."""
    queue_hand_over(max(1, scale // 4), lambda: queue.Queue(maxsize=8))


def lock_counter(scale, make=threading.Lock):
    """A counter under a lock loses nothing."""
    number, lock, total = 5000 * scale, make(), 0

    def work(_index):
        nonlocal total
        for _ in range(number):
            with lock:
                total += 1

    in_threads(work)
    require_equal(total, WIDTH * number, "counter")


def barrier_phases(scale):
    """Nobody is in a later phase than anybody else behind a barrier."""
    phases, reached = 100 * scale, [0] * WIDTH
    barrier = threading.Barrier(WIDTH, timeout=GIVE_UP)

    def work(index):
        for phase in range(1, phases + 1):
            reached[index] = phase
            barrier.wait()
            require_equal(list(reached), [phase] * WIDTH, "phases behind the barrier")
            barrier.wait()

    in_threads(work)


# -- attributes and types


def attributes(scale):
    """Attributes of one object, in place and in a `__dict__` that others bring into being."""

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
    """One thread writes rising numbers to `written.value`; the others read `read.value`, which may never fall."""
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
            made = type(f"T{index}", (Base,), {"mark": (index, step), "get": lambda self: self.mark})
            require_equal(made().get(), (index, step), "a method of a new type")

    in_threads(work)
    gc.collect()
    # 3.13's free-threaded build makes types immortal once there is a second thread, so here is no second round of them:
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
        require(all(each is same[0] for each in same), f"{same[0]!r} was interned more than once")


# -- references, weak references, the collector


class Node:
    """Something that can be referred to weakly and be part of a cycle."""


def reference_counts(scale):
    """After threads stored and dropped an object many times, its reference count is what it was."""
    box = [Node()]
    before = sys.getrefcount(box[0])

    def work(index):
        for step in range(5000 * scale):
            shared = box[0]
            kept = [shared] * 3
            held = {index: shared, step: kept}
            del shared, kept, held

    in_threads(work)
    gc.collect()
    require_equal(sys.getrefcount(box[0]), before, "reference count")
    gone = weakref.ref(box[0])
    box.clear()
    gc.collect()
    require(gone() is None, "the object lives on though nobody refers to it")


def weak_callbacks(scale):
    """Each weak reference's callback is called once, whoever drops the object."""
    number, called = 1200 * scale, []
    boxes = [[Node()] for _ in range(number)]
    references = [[] for _ in range(WIDTH)]
    ready = threading.Barrier(WIDTH, timeout=GIVE_UP)

    def refer(index, step):
        node = boxes[step][0]
        references[index].append(weakref.ref(node, lambda _, key=(index, step): called.append(key)))

    def work(index):
        for step in range(number):
            refer(index, step)
        ready.wait()
        for step in range(number):
            box = boxes[(step * (index * 2 + 1)) % number]
            if box:
                with contextlib.suppress(IndexError):  # another was first
                    box.pop()

    in_threads(work)
    for box in boxes:
        box.clear()
    gc.collect()
    require_each_once([called], [(index, step) for index in range(WIDTH) for step in range(number)], "callbacks")
    require(all(reference() is None for each in references for reference in each), "a weak reference is not dead")


def weak_races(scale):
    """While one thread drops objects, others follow weak references to them: to the live object or to None."""
    number = 5000 * scale
    nodes = [Node() for _ in range(number)]
    for step, node in enumerate(nodes):
        node.number = step
    references = [weakref.ref(node) for node in nodes]
    del node

    def work(index):
        if index == 0:
            for step in range(number):
                nodes[step] = None
            return
        for step, reference in enumerate(references):
            other = reference()
            if other is not None:
                require_equal(other.number, step, "number of the object behind a weak reference")
                require(weakref.ref(other) is reference, "an object has two weak references without callback")

    in_threads(work)
    gc.collect()
    require_equal(sum(reference() is not None for reference in references), 0, "objects that are still alive")


def weak_dictionary(scale):
    """A WeakValueDictionary gives an object or nothing, and is empty when all are gone."""
    shared, number = weakref.WeakValueDictionary(), 300 * scale

    def work(index):
        for step in range(number):
            node = Node()
            node.key = (index, step)
            shared[index, step] = node
            require(shared.get((index, step)) is node, "an object that is alive is not in the dictionary")
            other = shared.get(((index + 1) % WIDTH, step))
            require(other is None or other.key == ((index + 1) % WIDTH, step), "another key's object")
            del node, other

    in_threads(work)
    gc.collect()
    require_equal(len(shared), 0, "entries at the end")


class Finalized:
    """Part of a cycle; notes its end."""

    def __init__(self, key, ended):
        self.key = key
        self.ended = ended
        self.me = self

    def __del__(self):
        self.ended.append(self.key)


def collections_done():
    """Count the collections that really ran: `gc.collect()` returns at once while another thread collects."""
    return sum(generation["collections"] for generation in gc.get_stats())


def collector(scale):
    """With one thread always collecting, each cycle is finalized once and nothing that is alive is touched."""
    running = [WIDTH - 1]

    def collect():
        while running[0]:
            gc.collect()

    gc.disable()  # so that it is always that thread's collection that the others meet
    try:
        return make_cycles(1000 * scale, collect, running)
    finally:
        gc.enable()


def automatic_collections(scale):
    """The same with collections that come by themselves, in whatever thread, very often."""
    before = gc.get_threshold()
    gc.set_threshold(200, 2, 2)
    try:
        return make_cycles(1000 * scale, lambda: None, [WIDTH - 1])
    finally:
        gc.set_threshold(*before)


def make_cycles(number, collect, running):
    """Let threads make cycles, most of them garbage, while one calls `collect`.

    Each makes at least `number`, and goes on until some collections ran: on a busy machine the threads may be done
    before the collecting one gets a turn.
    """
    ended, kept, made = [], [], [0] * WIDTH
    lock = threading.Lock()
    before, deadline = collections_done(), time.monotonic() + GIVE_UP

    def work(index):
        if index == 0:
            collect()
            return
        try:
            while made[index] < number or (collections_done() - before < 2 and time.monotonic() < deadline):
                for step in range(made[index], made[index] + 50):
                    node = Finalized((index, step), ended)
                    node.other = [node, {"back": node}]
                    if step % 10 == 0:
                        alive = Node()
                        alive.me, alive.key = alive, (index, step)
                        kept.append(alive)
                made[index] += 50
        finally:
            with lock:
                running[0] -= 1

    in_threads(work)
    done = collections_done() - before
    gc.collect()
    expected = [(index, step) for index in range(1, WIDTH) for step in range(made[index])]
    require_each_once([ended], expected, "finalizers")
    require_each_once([[node.key for node in kept]], [key for key in expected if key[1] % 10 == 0], "live objects")
    require(all(node.me is node for node in kept), "the collector cleared an object that was alive")
    require(done >= 2, f"only {done} collections ran meanwhile")
    return f"{done} collections meanwhile"


def resurrection(scale):
    """An object that its finalizer brings back is whole, and is finalized only once (PEP 442)."""
    number, back = 400 * scale, []

    class Undead:
        def __init__(self, key):
            self.key = key
            self.me = self

        def __del__(self):
            back.append(self)

    def work(index):
        for step in range(number):
            Undead((index, step))
            if step % 50 == 0:
                gc.collect()

    in_threads(work)
    gc.collect()
    require_each_once([[each.key for each in back]], [(i, s) for i in range(WIDTH) for s in range(number)], "returned")
    require(all(each.me is each for each in back), "an object came back without its attributes")
    references = [weakref.ref(each) for each in back]
    back.clear()
    gc.collect()
    require_equal(len(back), 0, "objects that were finalized twice")
    require_equal(sum(each() is not None for each in references), 0, "objects that are still alive")


CHECKS = (
    handover,
    parallel_time,
    list_append,
    list_pop,
    list_assign,
    dict_setdefault,
    dict_resize,
    dict_pop,
    dict_popitem,
    set_add_pop,
    set_same,
    deque_hand_over,
    queue_hand_over,
    locked_queue_hand_over,
    lock_counter,
    barrier_phases,
    attributes,
    slots,
    class_attribute,
    subclasses,
    interned,
    reference_counts,
    weak_callbacks,
    weak_races,
    weak_dictionary,
    collector,
    automatic_collections,
    resurrection,
)


PRESS = 1.0  # seconds that a check goes on for at least: most take some ms, and few rounds lose a race
ANYWAY = "FT_WORKLOAD_ANYWAY"  # set where somebody wants to see what the checks do with the GIL on


def gil_is_off():
    """Whether this interpreter runs without a GIL at this moment."""
    ask = getattr(sys, "_is_gil_enabled", None)
    return ask is not None and not ask()


def run(check, scale):
    """Run one check, again and again for a while unless it says something, and describe what came of it."""
    started = time.perf_counter()
    try:
        said = check(scale)
        while said is None and time.perf_counter() - started < PRESS:
            said = check(scale)
        outcome, message = ("skipped" if isinstance(said, Skip) else "passed"), str(said or "")
    except Broken as error:
        outcome, message = "failed", str(error)
    except Exception:
        outcome, message = "error", traceback.format_exc()
    return {
        "check": check.__name__,
        "outcome": outcome,
        "seconds": round(time.perf_counter() - started, 3),
        "message": message,
    }


def gil_line(name):
    """Describe the check that the GIL is off."""
    off = gil_is_off()
    message = "" if off else "the GIL is on: threads take turns, and nothing here would show a race"
    return {"check": name, "outcome": "passed" if off else "failed", "seconds": 0.0, "message": message}


def main():
    """Run all checks, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=2, help="how much work; 2 takes a few seconds (default: 2)")
    parser.add_argument("checks", nargs="*", help="names of checks (default: all)")
    arguments = parser.parse_args()
    unknown = set(arguments.checks) - {check.__name__ for check in CHECKS}
    if unknown:
        parser.error(f"no such check: {', '.join(sorted(unknown))}")
    chosen = [check for check in CHECKS if not arguments.checks or check.__name__ in arguments.checks]
    first = gil_line("gil_is_off_before")
    print(json.dumps(first), flush=True)
    for check in chosen:
        if gil_is_off() or ANYWAY in os.environ:
            print(json.dumps({"check": check.__name__, "outcome": "started"}), flush=True)
            line = run(check, arguments.scale)
        else:
            line = {"check": check.__name__, "outcome": "skipped", "seconds": 0.0, "message": "the GIL is on"}
        print(json.dumps(line), flush=True)
    print(json.dumps(gil_line("gil_is_off_after")), flush=True)


if __name__ == "__main__":
    main()
