"""Checks that threads run without a lock around them."""

import os
import sys
import threading
import time

from ft_invariants import GIVE_UP, Broken, Skip, in_threads, require_equal


def handover(scale):
    """Two threads take turns by spinning, with nothing in the loop that releases a GIL.

    A GIL is released every switch interval, which is longer here than the check may take, so there is no progress.
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
    """Computing threads take more CPU time than wall time, so they ran in parallel. Skipped if that cannot be shown."""
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
        for _ in range(20 * scale):  # one good window is proof; other load on the host spoils some
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
