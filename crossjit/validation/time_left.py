"""Estimates a suite's remaining time, from modules' earlier durations or weights, at the pace of this run."""

from __future__ import annotations

import fnmatch
import heapq
import time
from collections.abc import Callable, Mapping
from typing import Any

from crossjit.channels import Job, ModuleExit, Plan, Start
from crossjit.validation.runner_events import Event, RunnerEvents

TRUST = 0.05  # the share of the work, done at the expected pace, that earlier runs count as


class TimeLeft:
    """Follows a suite as the runner works through it, `slots` modules at a time."""

    def __init__(self, order: Mapping[str, Any], slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`order` is the runner's input."""
        self._items: list[Mapping[str, Any]] = order["items"]
        # modules without a weight are assumed to be lighter than all others
        self._light = min((weight for item in self._items for weight in item["weights"].values()), default=2.0) / 2
        self._known: Mapping[str, float] = order.get("seconds", {})
        self._slots = slots
        self._clock = clock
        self._began: dict[str, float] = {}
        self._jobs: dict[str, Job] = {}
        self._weights: dict[str, float] = {}
        self._second = 1.0  # seconds per weight, for modules without a recorded duration
        self._trust = 0.0
        self._took = 0.0
        self._expected = 0.0

    def take(self, event: Event) -> None:
        """Handle a runner's event. Times are this clock's, not the runner's."""
        match event:
            case Plan():
                self._jobs |= {job.id: job for job in event.modules}
                self._weights |= {job.id: self._weight(job) for job in event.modules}
                recorded = [job for job in self._jobs.values() if job.key in self._known]
                weight = sum(self._weights[job.id] for job in recorded)
                if weight:
                    seconds = sum(self._known[job.key] for job in recorded)
                    self._second = seconds / weight
                    self._trust = seconds * TRUST
            case Start():
                self._began[event.id] = self._clock()
            case ModuleExit():
                self._took += self._clock() - self._began.pop(event.id)
                self._expected += self._of(self._jobs[event.id])

    def seconds(self, events: RunnerEvents) -> float | None:
        """Estimate the seconds until the last module ends; None while this target's pace is unknown."""
        spent, expected = self._took + self._trust, self._expected + self._trust
        if not spent or not expected:
            return None
        now = self._clock()
        running = [(self._of(job), now - self._began[identity]) for identity, job in events.running.items()]
        overdue = [(length, elapsed) for length, elapsed in running if elapsed > length * spent / expected]
        pace = (spent + sum(elapsed for _, elapsed in overdue)) / (expected + sum(length for length, _ in overdue))
        slots = [max(0.0, length * pace - elapsed) for length, elapsed in running]
        slots += [0.0] * (self._slots - len(slots))
        heapq.heapify(slots)
        for job in events.waiting:  # in the order in which the runner takes them
            heapq.heapreplace(slots, slots[0] + self._of(job) * pace)
        return max(slots)

    def _of(self, job: Job) -> float:
        return self._known.get(job.key, self._weights[job.id] * self._second)

    def _weight(self, job: Job) -> float:
        for item in self._items:
            if (item["kind"], item["label"]) == (job.kind, job.label) and fnmatch.fnmatchcase(job.name, item["name"]):
                return float(item["weights"].get(job.name, item["weight"] if job.kind == "script" else self._light))
        return self._light
