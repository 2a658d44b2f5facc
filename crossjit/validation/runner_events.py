"""The runner's events: which jobs run, how they end, and which lines are invalid. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crossjit.channels import (
    Done,
    Job,
    MalformedError,
    MissingRequirement,
    ModuleExit,
    NotStarted,
    Plan,
    Start,
    read_event,
)
from crossjit.util.budget import BUDGET
from crossjit.util.text import pluralize

SHOWN = 5  # problems of a kind that are reported one by one
BRIEF = 160  # characters shown of an invalid line

Event = Plan | Start | ModuleExit | NotStarted | Done


class RunnerEvents:
    """The runner's events so far. A line that contradicts them is a problem, and is ignored."""

    def __init__(self, resumed: Sequence[ModuleExit] = ()) -> None:
        """`resumed` are modules that ended in an earlier run, and do not run again."""
        self.ended = list(resumed)
        self.left: list[NotStarted] = []
        self.missing: list[MissingRequirement] = []
        self.running: dict[str, Job] = {}
        self.done = False
        self.resumed = len(resumed)
        self._resumed = {job.key for job in resumed}
        self._has_plan = False
        self._planned: dict[str, Job] = {}
        self._waiting: dict[str, Job] = {}
        self._refused: list[str] = []
        self._number = 0

    @property
    def total(self) -> int:
        """The number of jobs, including those of the earlier run."""
        return len(self._planned)

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems with invalid lines."""
        more = self._number - len(self._refused)
        summary = f"{pluralize(more, 'more line')} of the runner cannot be used"
        return (*self._refused, *([summary] if more else []))

    @property
    def waiting(self) -> Iterable[Job]:
        """The jobs that have not started, in their order."""
        return self._waiting.values()

    @property
    def unended(self) -> tuple[Job, ...]:
        """The planned jobs that have not ended."""
        return (*self.running.values(), *self._waiting.values())

    def understand(self, line: str) -> Event | None:
        """Parse a line: None for one that is not an event. Raises MalformedError for an invalid or impossible one."""
        if not line.startswith("{"):
            return None
        event = read_event(line)
        if self.done:
            raise MalformedError("it comes after the end")
        match event:
            case Plan():
                self._check_plan(event)
            case Start() | NotStarted():
                self._check_job(event, self._waiting)
            case ModuleExit():
                self._check_job(event, self.running)
                if not event.has_own_names:
                    raise MalformedError(f"{event.id} names a file of a different module")
            case Done() if self.unended or not self._has_plan:
                reason = f"{names(self.unended)} did not end" if self.unended else "there was no plan"
                raise MalformedError(f"it reports that all is done, but {reason}")
        return event

    def refuse(self, line: str, reason: str) -> None:
        """Record an invalid line."""
        self._number += 1
        if len(self._refused) < SHOWN:
            self._refused.append(f"a line of the runner cannot be used ({reason}): {line[:BRIEF]!r}")

    def accept(self, event: Event) -> None:
        """Update the state with a valid event."""
        match event:
            case Plan():
                self._has_plan = True
                self.missing += event.missing
                self._planned |= {job.id: job for job in event.modules}
                self._waiting |= {job.id: job for job in event.modules if job.key not in self._resumed}
            case Start():
                self.running[event.id] = self._waiting.pop(event.id)
            case ModuleExit():
                del self.running[event.id]
                self.ended.append(event)
            case NotStarted():
                del self._waiting[event.id]
                self.left.append(event)
            case Done():
                self.done = True

    def _check_plan(self, plan: Plan) -> None:
        identities = [job.id for job in plan.modules]
        if self.running or self.left or len(self.ended) > self.resumed:
            raise MalformedError("a plan comes after the first module")
        if len({*identities, *self._planned}) < len(identities) + len(self._planned):
            raise MalformedError("a plan names a module twice")
        if len(self._planned) + len(identities) + len(plan.missing) + len(self.missing) > BUDGET.tests:
            raise MalformedError("a plan has too many modules")

    @staticmethod
    def _check_job(job: Job, jobs: dict[str, Job]) -> None:
        planned = jobs.get(job.id)
        if planned is None or (planned.kind, planned.name, planned.label) != (job.kind, job.name, job.label):
            raise MalformedError(f"{job.id} was not expected now")


def names(jobs: Iterable[Job]) -> str:
    """Name a few jobs."""
    several = list(jobs)
    more = f" and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
    return ", ".join(map(str, several[:SHOWN])) + more or "nothing"
