"""Threads that share objects, with invariants that a data race breaks. For a free-threaded CPython.

Runs inside the target with the CPython under test only. Prints a JSON line for each check: {"check", "outcome":
"passed" | "failed" | "error" | "skipped", "seconds", "message"}, and before it {"check", "outcome": "started"}, which
shows the check that crashed. With the GIL on the checks would show nothing, so all but `gil_is_off` are skipped, unless
FT_WORKLOAD_ANYWAY is in the environment.

The checks rely only on CPython's guarantees for single operations on shared objects
(https://docs.python.org/3/library/threadsafety.html); iterators and generators are never shared.
"""

import argparse
import json
import os
import sys
import time
import traceback

import ft_attributes
import ft_containers
import ft_parallel
import ft_references
from ft_invariants import Broken, Skip

CHECKS = (
    ft_parallel.handover,
    ft_parallel.parallel_time,
    ft_containers.list_append,
    ft_containers.list_pop,
    ft_containers.list_assign,
    ft_containers.dict_setdefault,
    ft_containers.dict_resize,
    ft_containers.dict_pop,
    ft_containers.dict_popitem,
    ft_containers.set_add_pop,
    ft_containers.set_same,
    ft_containers.deque_hand_over,
    ft_containers.queue_hand_over,
    ft_containers.locked_queue_hand_over,
    ft_containers.lock_counter,
    ft_containers.barrier_phases,
    ft_attributes.attributes,
    ft_attributes.slots,
    ft_attributes.class_attribute,
    ft_attributes.subclasses,
    ft_attributes.interned,
    ft_references.reference_counts,
    ft_references.weak_callbacks,
    ft_references.weak_races,
    ft_references.weak_dictionary,
    ft_references.collector,
    ft_references.automatic_collections,
    ft_references.resurrection,
)


PRESS = 1.0  # seconds that a check is repeated at least: a round takes some ms, and few rounds show a race
ANYWAY = "FT_WORKLOAD_ANYWAY"  # set to run the checks with the GIL on


def gil_is_off():
    """Whether this interpreter runs without a GIL now."""
    is_gil_enabled = getattr(sys, "_is_gil_enabled", None)
    return is_gil_enabled is not None and not is_gil_enabled()


def run(check, scale):
    """Run a check repeatedly for a while, unless it fails or returns something, and return its result."""
    started = time.perf_counter()
    try:
        result = check(scale)
        while result is None and time.perf_counter() - started < PRESS:
            result = check(scale)
        outcome, message = ("skipped" if isinstance(result, Skip) else "passed"), str(result or "")
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
    """Return the result of the check that the GIL is off."""
    off = gil_is_off()
    message = "" if off else "the GIL is on: threads take turns, and nothing here would show a race"
    return {"check": name, "outcome": "passed" if off else "failed", "seconds": 0.0, "message": message}


def main():
    """Run all checks, or the named ones."""
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
