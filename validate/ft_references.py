"""Checks of references, weak references and the garbage collector."""

import contextlib
import gc
import sys
import threading
import time
import weakref

from ft_invariants import GIVE_UP, WIDTH, in_threads, require, require_each_once, require_equal


class Node:
    """An object that supports weak references and cycles."""


def reference_counts(scale):
    """After threads stored and dropped an object many times, its reference count is unchanged."""
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
    """Each weak reference's callback is called once, independent of the thread that drops the object."""
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
                with contextlib.suppress(IndexError):  # a different thread was first
                    box.pop()

    in_threads(work)
    for box in boxes:
        box.clear()
    gc.collect()
    require_each_once([called], [(index, step) for index in range(WIDTH) for step in range(number)], "callbacks")
    require(all(reference() is None for each in references for reference in each), "a weak reference is not dead")


def weak_races(scale):
    """While one thread drops objects, others dereference weak references to them: they get the object or None."""
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
    """A WeakValueDictionary returns an object or nothing, and is empty when all are gone."""
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
    """Part of a cycle; records its finalization."""

    def __init__(self, key, ended):
        self.key = key
        self.ended = ended
        self.me = self

    def __del__(self):
        self.ended.append(self.key)


def collections_done():
    """Count the collections that ran: `gc.collect()` returns at once while a different thread collects."""
    return sum(generation["collections"] for generation in gc.get_stats())


def collector(scale):
    """With one thread always collecting, each cycle is finalized once, and live objects are not affected."""
    running = [WIDTH - 1]

    def collect():
        while running[0]:
            gc.collect()

    gc.disable()  # so that only that thread collects
    try:
        return make_cycles(1000 * scale, collect, running)
    finally:
        gc.enable()


def automatic_collections(scale):
    """The same with very frequent automatic collections, in any thread."""
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
    """An object resurrected by its finalizer is intact, and is finalized only once (PEP 442)."""
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
