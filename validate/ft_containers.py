"""Checks of containers, queues and locks that threads share."""

import collections
import queue
import threading

from ft_invariants import GIVE_UP, WIDTH, in_threads, require, require_each_once, require_equal


def list_append(scale, make=list):
    """All appended items are there once, each thread's in order."""
    shared, number = make(), 3000 * scale

    def work(index):
        for step in range(number):
            shared.append((index, step))

    in_threads(work)
    require_each_once([shared], [(index, step) for index in range(WIDTH) for step in range(number)], "list")
    for index in range(WIDTH):
        own = [step for owner, step in shared if owner == index]
        require(own == sorted(own), f"thread {index}'s items are out of order")


def list_pop(scale, make=list):
    """Each item of a list is popped by one thread."""
    number = 10_000 * scale
    shared = make(range(number))

    def work(_index):
        popped = []
        while True:
            try:
                popped.append(shared.pop())
            except IndexError:
                return popped

    require_each_once(in_threads(work), range(number), "popped")
    require_equal(len(shared), 0, "length at the end")


def list_assign(scale, make=list):
    """Threads that assign to their own slots of one list do not interfere while others resize and read it."""
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
    """Threads insert and delete their own keys while the table grows, shrinks and is copied."""
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
        popped = []
        while True:
            try:
                key, value = shared.popitem()
            except KeyError:
                return popped
            require_equal(value, -key, f"value of {key}")
            popped.append(key)

    require_each_once(in_threads(work), range(number), "popped")


def set_add_pop(scale, make=set):
    """Each added element is popped once; `discard` of other threads' elements never removes a different one."""
    shared, number = make(), 4000 * scale

    def work(index):
        popped = []
        for step in range(number):
            shared.add((index, step))
            shared.discard((index, -1 - step))
            if step % 2:
                popped.append(shared.pop())
        return popped

    popped = in_threads(work)
    expected = [(index, step) for index in range(WIDTH) for step in range(number)]
    require_each_once([*popped, list(shared)], expected, "set")


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
    """Items appended on one side are popped once on the other, each producer's in order."""
    shared, number, producers = make(), 4000 * scale, WIDTH // 2
    finished = []

    def work(index):
        if index < producers:
            for step in range(number):
                shared.append((index, step))
            finished.append(index)
            return []
        received = []
        while True:
            done = len(finished) == producers  # checked before the deque, so that it has all their items
            try:
                received.append(shared.popleft())
            except IndexError:
                if done:
                    return received

    received = in_threads(work)
    require_each_once(received, [(index, step) for index in range(producers) for step in range(number)], "deque")
    for items in received:
        for index in range(producers):
            own = [step for owner, step in items if owner == index]
            require(own == sorted(own), f"producer {index}'s items are out of order")


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

    received = in_threads(work)
    require_each_once(received, [(index, step) for index in range(producers) for step in range(number)], "queue")


def locked_queue_hand_over(scale):
    """The same through `queue.Queue`, with a size limit that makes both sides wait."""
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
    """After a barrier, no thread is in a later phase than another."""
    phases, reached = 100 * scale, [0] * WIDTH
    barrier = threading.Barrier(WIDTH, timeout=GIVE_UP)

    def work(index):
        for phase in range(1, phases + 1):
            reached[index] = phase
            barrier.wait()
            require_equal(list(reached), [phase] * WIDTH, "phases behind the barrier")
            barrier.wait()

    in_threads(work)
