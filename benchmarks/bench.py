"""The measurements of a round: shared images and sources, and state folders of its own."""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks import figures, trees
from benchmarks.by_hand import Hand
from benchmarks.commands import Built, Home, MeasurementError
from benchmarks.figures import Kind, Pace, Sample, per_baseline
from benchmarks.trees import Edit, Edits
from crossjit.images import Image
from crossjit.model import Arch, Variant
from crossjit.settings import Settings
from crossjit.sources import Source
from crossjit.stash.store import Store

FASTER = 8  # required factor of a cross build's speed over the emulated build's


@dataclass(frozen=True)
class Choice:
    """The options of the command line about what is measured."""

    recipe: str
    variant: Variant
    other: str
    suite: str
    edits: Edits
    history: Path | None = None
    commits: str = ""
    sample: float | None = None


@dataclass(frozen=True)
class Bench:
    """The values that all rounds share. `images` has the emulated toolchain only if a chosen line needs it."""

    choice: Choice
    settings: Settings
    jobs: int
    arch: Arch
    foreign: Arch
    emulated_cpu: str
    source: Source
    toolchain: Image
    emulated: Image | None
    folder: Path

    @cached_property
    def tree(self) -> Path:
        """The release as a checkout; the rounds share it."""
        folder = self.folder / "checkout"
        folder.mkdir()
        return trees.checkout(folder, self.source, self.source.version)

    @cached_property
    def commits(self) -> tuple[Path, str, tuple[str, ...]]:
        """A repository, the commit before the first, and the commits to build."""
        choice = self.choice
        if choice.history is None:
            head = trees.git(self.tree, "rev-parse", "HEAD").strip()
            return self.tree, head, tuple(trees.make_history(self.tree, choice.edits.walk))
        picked = trees.history(choice.history, choice.commits, 10)
        return choice.history, trees.git(choice.history, "rev-parse", f"{picked[0]}^").strip(), tuple(picked)


# The state folder in which a checkout is built, by strategy. Without a native cell a cross build needs its own build
# Python, which the measurement `cross` has made in its folder.
ALONE = {"native": "one", "cross": "two"}


@dataclass
class Round:
    """One round: its state folders by name, its samples by line, and the failed measurements.

    `unchanged` has the digests of the unchanged checkout's trees, by strategy.
    """

    bench: Bench
    folder: Path
    homes: dict[str, Home] = field(default_factory=dict)
    taken: dict[str, Sample] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    unchanged: dict[str, Mapping[str, str]] = field(default_factory=dict)
    paces: tuple[Pace, ...] = ()
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def home(self, name: str) -> Home:
        """Return the state folder of this name, which is empty at first."""
        if name not in self.homes:
            bench = self.bench
            mirror = bench.source.archive.parent
            self.homes[name] = Home.fresh(self.folder / name, bench.settings, mirror, bench.jobs)
        return self.homes[name]

    @cached_property
    def hand(self) -> Hand:
        """The runner of hand-typed commands, with labels by which the round finds leftovers."""
        return Hand(self.bench.settings.engine, self.home("hand").labels, self.bench.jobs)

    @property
    def baseline(self) -> float:
        """T: the hand-typed native build of this round, in seconds."""
        return self.taken["hand-native"].seconds

    def build(self, home: str, *arches: Arch, variant: str | None = None, source: str | None = None) -> Built:
        """Run `./inv build` in a state folder."""
        options = ("--source", source) if source else ()
        return self.home(home).build(*self.selected(*arches, variant=variant), *options)

    def selected(self, *arches: Arch, variant: str | None = None) -> tuple[str, ...]:
        """Return the options that select cells."""
        choice = self.bench.choice
        options = [word for arch in arches for word in ("--arch", arch.value)]
        return ("--recipe", choice.recipe, "--variant", variant or choice.variant.name, *options)

    def remove(self) -> None:
        """Remove the state folders with all that belongs to them in the engine."""
        for home in self.homes.values():
            try:
                home.remove()
            except (MeasurementError, OSError) as error:
                print(f"{home.settings.home}: {error}", file=sys.stderr)
        self.homes.clear()

    # -- the measurements: each returns its samples by line

    def hand_native(self) -> Mapping[str, Sample]:
        """Build natively by hand: T."""
        bench = self.bench
        self.paces = self.hand.native(bench.toolchain, bench.source, bench.choice.variant)
        seconds = dict(zip(("configure", "make", "install"), (pace.seconds for pace in self.paces), strict=True))
        total = sum(seconds.values())
        return {"hand-native": Sample(total, total, details=seconds)}

    def hand_cross(self) -> Mapping[str, Sample]:
        """Build by hand with upstream's recipe for cross-compiling."""
        bench = self.bench
        paces = self.hand.cross(bench.toolchain, bench.source, bench.choice.variant, bench.foreign)
        names = ("configure build Python", "make build Python", "configure", "make", "install")
        seconds = dict(zip(names, (pace.seconds for pace in paces), strict=True))
        return {"hand-cross": per_baseline(sum(seconds.values()), self.baseline, details=seconds)}

    def native(self) -> Mapping[str, Sample]:
        """Build the native cell with images only."""
        return self._cold("native", self.build("one", self.bench.arch))

    def cross(self) -> Mapping[str, Sample]:
        """Build the cross cell with images only, including its build Python."""
        return self._cold("cross", self.build("two", self.bench.foreign))

    def both(self) -> Mapping[str, Sample]:
        """Build both with images only, with one command."""
        return {"both": self._timed(self.build("three", self.bench.arch, self.bench.foreign))}

    def cross_second(self) -> Mapping[str, Sample]:
        """Build the cross cell with the native one in the stash."""
        return {"cross-second": self._timed(self.build("one", self.bench.foreign))}

    def variant(self) -> Mapping[str, Sample]:
        """Build a different variant of the same source."""
        return {"variant": self._timed(self.build("one", self.bench.arch, variant=self.bench.choice.other))}

    def nothing(self) -> Mapping[str, Sample]:
        """Build a cell that is in the stash."""
        return {"nothing": self._from_stash()}

    def checkout(self, strategy: str) -> Mapping[str, Sample]:
        """Build the release as a checkout, after its archive was built."""
        built = self._of_tree(strategy)
        self.unchanged[strategy] = self._trees(strategy, built)
        return {f"checkout-{strategy}": self._timed(built)}

    def nothing_checkout(self) -> Mapping[str, Sample]:
        """Build a checkout that is in the stash."""
        return {"nothing-checkout": self._from_stash(str(self.bench.tree))}

    def edited(self, line: str) -> Mapping[str, Sample]:
        """Make a new change in the checkout, and build it: the line `uop-cross` changes a uop and builds cross.

        Raises MeasurementError if the result is the same as before: the build ignored the change then.
        """
        name, _, strategy = line.partition("-")
        edit: Edit = getattr(self.bench.choice.edits, name)
        try:
            edit.apply(self.bench.tree, next(self._numbers))
            built = self._of_tree(strategy)
        finally:
            trees.restore(self.bench.tree)
        before, after = self.unchanged[strategy], self._trees(strategy, built)
        if same := [tree for tree in edit.changes if before.get(tree) == after.get(tree)]:
            raise MeasurementError(
                f"{edit.path} was changed, and what is built is as before: {', '.join(same)} ({built.seconds:.1f} s)"
            )
        return {line: self._timed(built)}

    def walk(self) -> Mapping[str, Sample]:
        """Build commits one after the other, as bisecting does, each for both archs."""
        repository, before, commits = self.bench.commits
        both = (self.bench.arch, self.bench.foreign)
        self.build("one", *both, source=f"{repository}#{before}")
        times = {commit[:12]: self.build("one", *both, source=f"{repository}#{commit}").seconds for commit in commits}
        mean = statistics.mean(times.values()) / len(both)
        kind = "made-up commits of one change each" if self.bench.choice.history is None else "commits"
        note = f"mean over {len(commits)} {kind} and {len(both)} archs, each commit one `build` of both"
        return {"walk": per_baseline(mean, self.baseline, note=note, details=times)}

    def suites(self) -> Mapping[str, Sample]:
        """Run the suite on both archs."""
        seconds: dict[str, float] = {}
        for arch in (self.bench.arch, self.bench.foreign):
            suite = self.bench.choice.suite
            arguments = (*self.selected(arch), "--suite", suite)
            # a failing test does not affect the time of the others
            built = self.home("one").build(*arguments, command="validate", accept=(0, 1))
            (result,) = built.run.results()
            seconds[arch.value] = sum(module.seconds for module in result.suites if module.suite == suite)
            if not seconds[arch.value]:
                raise MeasurementError(f"{result.cell}: the suite did not run: {'; '.join(result.reasons)}")
        native, emulated = seconds[self.bench.arch.value], seconds[self.bench.foreign.value]
        note = (
            f"the suite's own time, no durations known before: {native:.1f} s native, "
            f"{emulated:.1f} s with QEMU as {self.bench.emulated_cpu}"
        )
        return {"suites": Sample(emulated / native, emulated, note=note, details=seconds)}

    def counted(self, line: str, option: str) -> Mapping[str, Sample]:
        """Count benchmarks on both archs, whose cells are in the stash: `option` says which benchmarks."""
        selected = self.selected(self.bench.arch, self.bench.foreign)
        seconds = self.home("one").invoke("measure", *selected, option).seconds
        return {line: per_baseline(seconds, self.baseline, note="on both archs, the first time: wheels are fetched")}

    def effect(self, line: str, *options: str) -> Mapping[str, Sample]:
        """Say what a new change to a uop does, on both archs. Its base is in the stash."""
        tree, both = self.bench.tree, (self.bench.arch, self.bench.foreign)
        self.build("one", *both, source=f"{tree}#HEAD")
        try:
            self.bench.choice.edits.uop.apply(tree, next(self._numbers))
            found = self.home("one").invoke(
                "effect", "--source", str(tree), "--base", "HEAD", *self.selected(*both), *options
            )
        finally:
            trees.restore(tree)
        return {line: per_baseline(found.seconds, self.baseline, note="both archs; the change is built")}

    def emulated(self, line: str, cpu: str | None) -> Mapping[str, Sample]:
        """Build under QEMU until the required factor is reached, or for the time of a sample."""
        bench, cross = self.bench, self.taken["cross"].seconds
        assert bench.emulated is not None
        limit = bench.choice.sample or FASTER * cross
        paces = self.hand.emulated(bench.emulated, bench.source, bench.choice.variant, limit=limit, cpu=cpu)
        seconds = sum(pace.seconds for pace in paces)
        reached = f"{len(paces[-1].marks)} steps into {('configure', 'make')[len(paces) - 1]}"
        if len(paces) == 2 and paces[-1].ended:
            return {line: Sample(seconds / cross, seconds, note="configure and make, to their end")}
        if bench.choice.sample is None:
            note = f"configure and make, stopped after {seconds:.0f} s, {reached}: a lower bound"
            return {line: Sample(seconds / cross, seconds, Kind.STOPPED, note=note)}
        whole = figures.extrapolated(paces, self.paces[:2], bench.jobs)
        note = (
            f"measured for {seconds:.0f} s, {reached}; the rest estimated from the pace of the "
            f"hand-typed native build: {whole:.0f} s"
        )
        return {line: Sample(whole / cross, whole, Kind.EXTRAPOLATED, note=note, details={"sampled": seconds})}

    def listing(self) -> Mapping[str, Sample]:
        """List the tasks."""
        return {"list": self._often("--list")}

    def completion(self) -> Mapping[str, Sample]:
        """Complete a word of a command line, as for a shell."""
        return {"completion": self._often("--complete", "--", "crossjit build --a")}

    # -- helpers

    def _timed(self, built: Built) -> Sample:
        own, _ = built.own()
        phases = {f"{step}": seconds for result in built.run.results() for step, seconds in result.seconds.items()}
        return per_baseline(built.seconds, self.baseline, details={**phases, "no command in a container": own})

    def _cold(self, line: str, built: Built) -> Mapping[str, Sample]:
        own, where = built.own()
        largest = sorted(where.items(), key=lambda item: -item[1])[:4]
        note = "most of it in " + ", ".join(f"{step} ({seconds:.1f} s)" for step, seconds in largest)
        share = Sample(100 * own / built.seconds, own, note=note, details=where)
        return {line: self._timed(built), f"share-{line}": share}

    def _of_tree(self, strategy: str) -> Built:
        arch = self.bench.arch if strategy == "native" else self.bench.foreign
        return self.build(ALONE[strategy], arch, source=str(self.bench.tree))

    def _trees(self, strategy: str, built: Built) -> Mapping[str, str]:
        """Return the digests of the trees that were built."""
        (result,) = built.run.results()
        artifact = Store(self.home(ALONE[strategy]).settings.stash).find(result.build_key or "")
        return {name: tree.digest for name, tree in artifact.manifest.trees.items()} if artifact else {}

    def _from_stash(self, source: str | None = None) -> Sample:
        """Build a cell from the stash three times. Raises MeasurementError if it builds or creates a container."""
        times = []
        for _ in range(3):
            with self.home("one").without_containers():
                built = self.build("one", self.bench.arch, source=source)
            if not all(result.from_stash for result in built.run.results()):
                raise MeasurementError("it was built again")
            times.append(built.seconds)
        return _median(times)

    def _often(self, *arguments: str) -> Sample:
        home = self.home("hand")
        home.invoke(*arguments)  # the first call fills Python's own caches
        return _median([home.invoke(*arguments).seconds for _ in range(7)])


def _median(times: list[float]) -> Sample:
    seconds = statistics.median(times)
    return Sample(seconds, seconds, details={str(number): sample for number, sample in enumerate(times, 1)})
