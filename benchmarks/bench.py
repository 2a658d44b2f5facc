"""What the measurements work with: images and sources that are there before, and a round with folders of its own."""

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

FASTER = 8  # how many times as fast as the emulated build a cross build has to be


@dataclass(frozen=True)
class Choice:
    """What is measured, as the command line says it."""

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
    """All that the rounds share. `images` has the emulated toolchain only if a chosen line needs it."""

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
        """The release as a checkout; the rounds share it, each has state folders of its own."""
        folder = self.folder / "checkout"
        folder.mkdir()
        return trees.checkout(folder, self.source, self.source.version)

    @cached_property
    def commits(self) -> tuple[Path, str, tuple[str, ...]]:
        """A repository, the commit to begin after, and those to walk over."""
        choice = self.choice
        if choice.history is None:
            head = trees.git(self.tree, "rev-parse", "HEAD").strip()
            return self.tree, head, tuple(trees.make_history(self.tree, choice.edits.walk))
        found = trees.history(choice.history, choice.commits, 10)
        return choice.history, trees.git(choice.history, "rev-parse", f"{found[0]}^").strip(), tuple(found)


# In which state folder a checkout is built and changed. Whoever is after the other arch alone has no native cell to
# serve as its build Python: where `cross` was built, one was made for it.
ALONE = {"native": "one", "cross": "two"}


@dataclass
class Round:
    """One round: its state folders by name, what it has found by line, and the measurements that failed.

    `unchanged` has the digests of what comes of the checkout as it is, by strategy.
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
        """Return the state folder of this name, which is fresh at the first use."""
        if name not in self.homes:
            bench = self.bench
            mirror = bench.source.archive.parent
            self.homes[name] = Home.fresh(self.folder / name, bench.settings, mirror, bench.jobs)
        return self.homes[name]

    @cached_property
    def hand(self) -> Hand:
        """Who types, with labels by which the round finds whatever is left."""
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

    # -- what the lines are: each returns what it found, by line

    def hand_native(self) -> Mapping[str, Sample]:
        """Type the native build: T."""
        bench = self.bench
        self.paces = self.hand.native(bench.toolchain, bench.source, bench.choice.variant)
        seconds = dict(zip(("configure", "make", "install"), (pace.seconds for pace in self.paces), strict=True))
        total = sum(seconds.values())
        return {"hand-native": Sample(total, total, details=seconds)}

    def hand_cross(self) -> Mapping[str, Sample]:
        """Type upstream's cross recipe."""
        bench = self.bench
        paces = self.hand.cross(bench.toolchain, bench.source, bench.choice.variant, bench.foreign)
        names = ("configure build Python", "make build Python", "configure", "make", "install")
        seconds = dict(zip(names, (pace.seconds for pace in paces), strict=True))
        return {"hand-cross": per_baseline(sum(seconds.values()), self.baseline, details=seconds)}

    def native(self) -> Mapping[str, Sample]:
        """Build the native cell, with nothing there but images."""
        return self._cold("native", self.build("one", self.bench.arch))

    def cross(self) -> Mapping[str, Sample]:
        """Build the cross cell likewise, the build Python included."""
        return self._cold("cross", self.build("two", self.bench.foreign))

    def both(self) -> Mapping[str, Sample]:
        """Build both likewise, by one command."""
        return {"both": self._timed(self.build("three", self.bench.arch, self.bench.foreign))}

    def cross_second(self) -> Mapping[str, Sample]:
        """Build the cross cell where the native one is in the stash."""
        return {"cross-second": self._timed(self.build("one", self.bench.foreign))}

    def variant(self) -> Mapping[str, Sample]:
        """Build another variant of what was built."""
        return {"variant": self._timed(self.build("one", self.bench.arch, variant=self.bench.choice.other))}

    def nothing(self) -> Mapping[str, Sample]:
        """Build what is there."""
        return {"nothing": self._from_stash()}

    def checkout(self, strategy: str) -> Mapping[str, Sample]:
        """Build the release as a checkout, where its archive was built."""
        built = self._of_tree(strategy)
        self.unchanged[strategy] = self._trees(strategy, built)
        return {f"checkout-{strategy}": self._timed(built)}

    def nothing_checkout(self) -> Mapping[str, Sample]:
        """Build a checkout that is there."""
        return {"nothing-checkout": self._from_stash(str(self.bench.tree))}

    def edited(self, line: str) -> Mapping[str, Sample]:
        """Change something in the checkout as it was not changed before, and build it: line `uop-cross` a uop, cross.

        Raises MeasurementError if what comes out is what came out before: then a build took no notice of the change.
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
        """Walk over commits, as bisecting does, and build each for both archs."""
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
            # a test that fails changes nothing about how long the others take
            done = self.home("one").build(*arguments, command="validate", accept=(0, 1))
            (result,) = done.run.results()
            seconds[arch.value] = sum(each.seconds for each in result.suites if each.suite == suite)
            if not seconds[arch.value]:
                raise MeasurementError(f"{result.cell}: the suite did not run: {'; '.join(result.reasons)}")
        native, emulated = seconds[self.bench.arch.value], seconds[self.bench.foreign.value]
        note = (
            f"the suite's own time, no durations known before: {native:.1f} s native, "
            f"{emulated:.1f} s with QEMU as {self.bench.emulated_cpu}"
        )
        return {"suites": Sample(emulated / native, emulated, note=note, details=seconds)}

    def emulated(self, line: str, cpu: str | None) -> Mapping[str, Sample]:
        """Build under QEMU until it is known to take as many times as long as it must, or for a sample's time."""
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
            f"measured for {seconds:.0f} s, {reached}; the rest reckoned by the pace of the "
            f"hand-typed native build: {whole:.0f} s"
        )
        return {line: Sample(whole / cross, whole, Kind.EXTRAPOLATED, note=note, details={"sampled": seconds})}

    def listing(self) -> Mapping[str, Sample]:
        """List the tasks."""
        return {"list": self._often("--list")}

    def completion(self) -> Mapping[str, Sample]:
        """Complete a word of a command line, as a shell asks for it."""
        return {"completion": self._often("--complete", "--", "crossjit build --a")}

    # -- how

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
        """Build what is there, three times. Raises MeasurementError if anything is built, or a container created."""
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
        home.invoke(*arguments)  # Python's own caches are there for everybody but the first
        return _median([home.invoke(*arguments).seconds for _ in range(7)])


def _median(times: list[float]) -> Sample:
    seconds = statistics.median(times)
    return Sample(seconds, seconds, details={str(number): each for number, each in enumerate(times, 1)})
