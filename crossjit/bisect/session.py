"""A bisection from its ends to its answer. What builds and runs commits is behind a protocol."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from crossjit.bisect import history
from crossjit.bisect.failure import Symptom
from crossjit.bisect.history import Commit, History
from crossjit.bisect.journal import Entry, Journal, Plan
from crossjit.bisect.search import Judgement, Search, passes_needed
from crossjit.bisect.trial import Observation, UnfitError
from crossjit.errors import CrossjitError, Interrupted, UserError
from crossjit.progress import Progress
from crossjit.triage.odds import MAX_RUNS, MIN_FAILURES, REPEATS_FLAKY, REPEATS_STABLE, Count
from crossjit.util.text import duration, pluralize

PHASES = ("source", "toolchain", "build", "test")
SHOWN = 100  # commits of an answer that are described, at most
RARE_RUNS = 200  # runs of a rare failure at the bad end, at most, until it was seen MIN_FAILURES times


class Trials(Protocol):
    """What builds commits and runs the test there."""

    @property
    def jobs(self) -> int:
        """How many runs take place at a time."""

    def expect(self, commits: Sequence[str]) -> None:
        """Say which commits may be next."""

    def run(self, commit: str, times: int, *, together: bool = False) -> Observation:
        """Build a commit and run the test, `together` several times at once. Raises UnfitError."""


@dataclass(frozen=True)
class Elsewhere:
    """How the failing commit's test ends under another condition. `fails` is None if that is not known."""

    condition: str
    fails: bool | None
    said: str


@dataclass(frozen=True)
class Result:
    """The answer: `search` holds the commits that may have made the change, `suspects` describes up to SHOWN of them.

    `files` are those that the commit changed, if it is only one. `rate` are the runs at the bad end, `needed` is the
    number of passes in a row after which a commit counts as passing. `elsewhere` is about the failing commit at the
    change.
    """

    plan: Plan
    history: History
    search: Search
    entries: Mapping[str, Entry]
    symptom: Symptom
    rate: Count
    needed: int
    elsewhere: tuple[Elsewhere, ...] = ()
    suspects: tuple[Commit, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def last_good(self) -> Entry:
        """The last good commit before the change, or with `find_fix` the first one after it."""
        return self.entries[self.search.commits[self._edge(new=self.plan.find_fix)]]

    @property
    def first_bad(self) -> Entry:
        """The first bad commit after the change, or with `find_fix` the last one before it."""
        return self.entries[self.search.commits[self._edge(new=not self.plan.find_fix)]]

    def _edge(self, *, new: bool) -> int:
        return self.search.first_new if new else self.search.last_old

    @property
    def skipped(self) -> tuple[Entry, ...]:
        """The skipped commits within the answer."""
        found = (self.entries.get(commit) for commit in self.search.suspects)
        return tuple(entry for entry in found if entry is not None and entry.judgement is Judgement.SKIPPED)

    @property
    def steps(self) -> tuple[Entry, ...]:
        """The judged commits between the ends."""
        inner = set(self.search.commits[1:-1])
        return tuple(entry for entry in self.entries.values() if entry.commit in inner)


@dataclass
class Session:
    """A bisection. What its journal has from an earlier one is not judged again.

    `judgements` is the number of commits to judge, which share the accepted error.
    """

    journal: Journal
    trials: Trials
    progress: Progress
    clock: Callable[[], float] = time.monotonic
    symptom: Symptom = field(default_factory=lambda: Symptom(()))
    rate: Count = field(default_factory=Count)
    judgements: int = 1

    @property
    def plan(self) -> Plan:
        """What is searched for."""
        return self.journal.plan

    @property
    def needed(self) -> int:
        """How many passes show that a commit does not have the failure."""
        error = self.plan.error / self.judgements
        return 1 if self.plan.once else passes_needed(self.rate.failed, self.rate.ran, error)

    @property
    def _together(self) -> bool:
        """Whether runs may take place side by side: not if the failure may depend on timing."""
        return self.rate.fails and all(failure.how == "failed" for failure in self.symptom.failures)

    # The ends

    def verify_bad(self, following: str = "") -> None:
        """Find out what the bad end's failure is, and how often it fails. Raises UserError if it passes."""
        plan = self.plan
        entry = self.journal.entries.get(plan.bad)
        if entry is None:
            self.progress.say(f"the bad end, {_called(plan.bad_ref, plan.bad)}:")
            self.trials.expect([following] if following else [])
            entry = self._observed(plan.bad)
            if not entry.failures:
                raise UserError(
                    f"{plan.what} passes at the bad end, {plan.bad_ref}: {pluralize(len(entry.runs), 'run')}",
                    hint="check the refs, --arch, --variant and --env; both ends are good",
                )
            self.journal.add(entry)
        self._learn(Symptom(entry.failures))
        self.progress.say(f"it is bad: {self.rate}, {self.symptom}")

    def verify_good(self, line: History) -> None:
        """Check that the good end passes. Raises UserError if it does not."""
        plan, search = self.plan, Search(line.commits)
        self.judgements = search.steps_left + 1
        first = search.next()
        following = [] if first is None else [line.commits[first]]
        entry = self.journal.entries.get(plan.good)
        if entry is None:
            self.progress.say(f"the good end, {_called(plan.good_ref, plan.good)}:")
            self.trials.expect(following)
            entry = self._passing(plan.good)
            if entry.judgement is not self._judgement(fails=False):
                hint = "give another --good, or check the other options"
                raise UserError(f"the good end, {plan.good_ref}, {entry.why}", hint=hint)
            self.journal.add(entry)
        self._learn(self._symptom_without(entry))
        self.progress.say(f"it is good: passed {len(entry.runs)} of {len(entry.runs)}")

    def find_good(self, releases: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """Return the tag and the commit of the newest of these releases that passes. Raises UserError if none does."""
        for tag, commit in releases:
            self.progress.say(f"is {tag} good?")
            entry = self.journal.entries.get(commit) or self._passing(commit)
            if commit not in self.journal.entries:
                self.journal.add(entry)
            if entry.judgement is self._judgement(fails=False):
                return tag, commit
            self.progress.say(f"{tag} {entry.why}")
        raise UserError(
            f"no release before {self.plan.bad_ref} passes: {', '.join(tag for tag, _ in releases) or 'there is none'}",
            hint="give a good commit with --good",
        )

    def _observed(self, commit: str) -> Entry:
        """Run the test at the bad end until it is known how often it fails. Raises CrossjitErrors."""
        count, entry = Count(), Entry(commit, self._judgement(fails=True))
        wanted = 1 if self.plan.once else runs_wanted(count)
        while wanted:
            try:
                seen = self.trials.run(commit, wanted)
            except UnfitError as error:
                raise _cause(error, f"the bad end, {self.plan.bad_ref}, cannot be judged") from error
            entry = _joined(entry, seen)
            failed = sum(1 for run in entry.runs if run)
            count = Count(failed=failed, passed=len(entry.runs) - failed)
            wanted = 0 if self.plan.once else runs_wanted(count)
        return entry

    def _passing(self, commit: str) -> Entry:
        """Return the judgement of a commit that should pass, with the reason if it does not.

        Failures that it shares with the bad end are none that is searched for, if the bad end has others.
        """
        entry = Entry(commit, Judgement.SKIPPED)
        while len(entry.runs) < self.needed:
            try:
                seen = self.trials.run(commit, self.needed - len(entry.runs), together=self._together)
            except UnfitError as error:
                return replace(entry, why=f"cannot be judged: {error}")
            entry = _joined(entry, seen)
            symptom = self._symptom_without(entry)
            if not symptom.failures:
                return replace(entry, judgement=self._judgement(fails=True), why=f"fails, too: {self.symptom}")
            hiding = [each for each in entry.failures if Symptom(symptom.failures).hides(each)]
            if hiding:
                return replace(entry, why=f"fails differently: {hiding[0]}")
            self._learn(symptom)
        return replace(entry, judgement=self._judgement(fails=False))

    def _symptom_without(self, entry: Entry) -> Symptom:
        return Symptom(self.journal.entries[self.plan.bad].failures).without(entry.failures)

    def _learn(self, symptom: Symptom) -> None:
        bad = self.journal.entries[self.plan.bad]
        failed = bad.failed(symptom)
        self.symptom, self.rate = symptom, Count(failed=failed, passed=len(bad.runs) - failed)

    # The steps

    def search(self, line: History) -> Search:
        """Judge commits until nothing between the last old and the first new one can be judged any more."""
        search = Search(line.commits)
        for place, commit in enumerate(line.commits[1:-1], 1):
            if commit in self.journal.entries:
                search = search.judged(place, self.journal.entries[commit].judgement)
        number = first = len(search.judgements)
        began = self.clock()
        while (index := search.next()) is not None:
            number += 1
            commit = search.commits[index]
            (about,) = history.describe(line.path, [commit])
            mean = (self.clock() - began) / (number - 1 - first) if number - 1 > first else None
            self.progress.say(f"step {number}: {commit[:12]} {about.subject}; {_left(search, mean)}")
            self.trials.expect([search.commits[each] for each in search.ahead()])
            entry = self.judge(commit)
            self.journal.add(entry)
            self.progress.say(f"{commit[:12]} {self._told(entry)}")
            search = search.judged(index, entry.judgement)
        return search

    def judge(self, commit: str, trials: Trials | None = None) -> Entry:
        """Run the test at a commit until it fails as at the bad end, or has passed often enough.

        A failure that hides whether there is the other one, and whatever keeps the test from running, are reasons to
        skip the commit. Raises EngineErrors.
        """
        trials = trials or self.trials
        entry = Entry(commit, Judgement.SKIPPED)
        batch, needed = trials.jobs if self._together else 1, self.needed
        while len(entry.runs) < needed:
            try:
                seen = trials.run(commit, min(batch, needed - len(entry.runs)), together=self._together)
            except UnfitError as error:
                return replace(entry, why=str(error))
            entry = _joined(entry, seen)
            if entry.failed(self.symptom):
                return replace(entry, judgement=self._judgement(fails=True))
            hiding = [each for each in entry.failures if self.symptom.hides(each)]
            if hiding:
                return replace(entry, why=f"fails differently: {hiding[0]}")
            batch *= 2
        return replace(entry, judgement=self._judgement(fails=False))

    def elsewhere(self, commit: str, conditions: Mapping[str, Trials | str]) -> tuple[Elsewhere, ...]:
        """Run the failing commit's test under other conditions, by their name, unless one is not possible."""
        found = []
        for condition, trials in conditions.items():
            if isinstance(trials, str):
                found.append(Elsewhere(condition, None, trials))
                continue
            self.progress.say(f"{commit[:12]} {condition}:")
            try:
                entry = self.judge(commit, trials)
            except Interrupted:
                raise
            except CrossjitError as error:
                found.append(Elsewhere(condition, None, error.message))
                continue
            fails = None if entry.judgement is Judgement.SKIPPED else entry.judgement is self._judgement(fails=True)
            found.append(Elsewhere(condition, fails, self._told(entry)))
        return tuple(found)

    def result(self, line: History, search: Search) -> Result:
        """Return the answer. Raises SourceError."""
        return Result(
            self.plan,
            line,
            search,
            self.journal.entries,
            self.symptom,
            self.rate,
            self.needed,
            suspects=history.describe(line.path, search.suspects[-SHOWN:]),
            files=history.files(line.path, search.suspects[0]) if len(search.suspects) == 1 else (),
        )

    def _judgement(self, *, fails: bool) -> Judgement:
        return Judgement.OLD if fails is self.plan.old_fails else Judgement.NEW

    def _told(self, entry: Entry) -> str:
        if entry.judgement is Judgement.SKIPPED:
            return f"is skipped: {entry.why}"
        if entry.judgement is self._judgement(fails=True):
            return "is bad" if self.plan.once else f"is bad: failed in run {len(entry.runs)}"
        return "is good" if self.plan.once else f"is good: passed {len(entry.runs)} of {len(entry.runs)}"


def runs_wanted(count: Count) -> int:
    """Return how many more runs at the bad end it takes to know its failure's rate; 0 if that is known well enough.

    >>> [runs_wanted(Count(failed, ran - failed)) for failed, ran in ((5, 5), (2, 5), (1, 40), (4, 160), (0, 40))]
    [0, 5, 40, 0, 0]
    """
    if not count.ran or count.fails:
        return max(REPEATS_STABLE - count.ran, 0)
    if not count.failed:
        return min(REPEATS_FLAKY, MAX_RUNS - count.ran)
    if count.ran < REPEATS_FLAKY:
        return REPEATS_FLAKY - count.ran
    return min(count.ran, RARE_RUNS - count.ran) if count.failed < MIN_FAILURES else 0


def _joined(entry: Entry, seen: Observation) -> Entry:
    """Add what was seen to an entry."""
    seconds = Counter(entry.seconds)
    seconds.update(Counter(seen.seconds))
    return replace(
        entry, runs=(*entry.runs, *seen.runs), artifact=seen.artifact or entry.artifact, seconds=dict(seconds)
    )


def _called(ref: str, commit: str) -> str:
    return commit[:12] if commit.startswith(ref) else f"{ref} ({commit[:12]})"


def _cause(error: UnfitError, what: str) -> CrossjitError:
    """Return the error that made an end unfit, or one of its own."""
    if isinstance(error.__cause__, CrossjitError):
        cause = error.__cause__
        return type(cause)(f"{what}: {cause.message}", hint=cause.hint, details=cause.details)
    return UserError(f"{what}: {error}", hint="give another commit")


def _left(search: Search, mean: float | None) -> str:
    text = f"at most {pluralize(search.steps_left, 'step')} left"
    return text if mean is None else f"{text}, about {duration(mean * search.steps_left)}"
