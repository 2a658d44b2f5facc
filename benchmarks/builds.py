"""Measures crossjit's builds against builds typed by hand: prints a table, and JSON on request.

    .venv/bin/python benchmarks/builds.py [--rounds N] [--only LINE …] [--json FILE] [--list]

T is the wall time of a native build typed by hand (configure, make, install) in the same toolchain image with the same
options. A line's value is a ratio within one round; the median over the rounds is compared with its bound. Cold means
an empty state folder, except for the records of the images; images and the release's archive are made before the
measurements. A line's prerequisites are measured with it.

An emulated build takes hours. By default it is stopped at eight times the time of the same round's cross build: the
line is then marked as a lower bound. `--emulated-sample SECONDS` stops it after that time, and estimates the rest from
the native build's time at the same step.

A round takes about 25 times T, ten of them for the emulated build. Containers, volumes and state folders are removed at
the end, even after Ctrl-C. The exit status is 1 if a line misses its bound or a command fails, and 2 for bad usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

sys.path.insert(0, str(PROJECT))

from benchmarks import ending, figures, lines, machine, trees
from benchmarks.bench import Bench, Choice, Round
from benchmarks.commands import MeasurementError
from benchmarks.figures import LineResult, Sample
from benchmarks.lines import Measurement
from crossjit import engine, host, images, settings, sources
from crossjit.build import container
from crossjit.config import recipes
from crossjit.config.recipes import (
    Archive,
    Recipe,
)
from crossjit.errors import CrossjitError
from crossjit.images import Role
from crossjit.model import Arch
from crossjit.progress import SilentStep, Step


class ProgressLog:
    """Reports the progress on stderr, with the time since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line."""
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        print(f"[{minutes // 60}:{minutes % 60:02d}:{seconds:02d}] {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[Step]:
        """Report a step of the preparations."""
        self.say(f"before: {name} {subject}")
        yield SilentStep()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(description="How fast crossjit builds, compared with what one would type instead.")
    result.add_argument("--rounds", type=positive, default=1, help="medians are over so many; default: 1")
    result.add_argument("--only", nargs="+", default=[], metavar="LINE", help="only these lines, and what they need")
    result.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, after each measurement")
    result.add_argument("--list", action="store_true", help="list the lines with their bounds, and end")
    result.add_argument("--recipe", default="3.15", help="the release: a recipe, or its file; default: 3.15")
    result.add_argument("--variant", default="jit", help="what is built; default: jit")
    result.add_argument("--other-variant", default="jit-debug", help="what line `variant` builds; default: jit-debug")
    result.add_argument("--suite", default="jit", help="what line `suites` runs; default: jit")
    result.add_argument(
        "--edits", type=Path, default=PROJECT / "benchmarks" / "edits.toml", help="the changes, for another source"
    )
    result.add_argument(
        "--history", type=Path, metavar="REPO", help="a local repository to walk over; default: made up"
    )
    result.add_argument("--commits", default="", metavar="RANGE", help="with --history: A..B, of which the last ten")
    result.add_argument(
        "--emulated-sample",
        type=positive,
        metavar="SECONDS",
        help="stop the emulated build then, and estimate the rest",
    )
    result.add_argument(
        "--folder", type=Path, help="where state folders are made; default: the system's for temporaries"
    )
    return result


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def prepare(
    arguments: argparse.Namespace, recipe: Recipe, edits: trees.Edits, folder: Path, emulated: bool, log: ProgressLog
) -> tuple[Bench, dict[str, object]]:
    """Make images and source, which are not measured, and describe the machine. Raises CrossjitError."""
    loaded = settings.load()
    client = engine.connect(loaded)
    facts = client.facts()
    ability = host.inspect(loaded, host.LocalShell()).ability
    described = machine.describe(facts, ability)
    source = sources.resolve(recipe.built_from, loaded, progress=log)
    spec = images.spec_for(source.llvm, images.load_all(PROJECT / "images"))
    foreign = facts.arch.others[0]

    labels = {engine.base.HOME: loaded.identity}
    image = partial(images.ImageBuilder(client, facts.arch, loaded.home, log, labels).ensure, spec)

    for arch in Arch:
        image(Role.TARGET, arch)
    bench = Bench(
        choice=Choice(
            recipe=arguments.recipe if arguments.recipe == recipe.name else str(recipe.path.resolve()),
            variant=recipe.variants[arguments.variant],
            other=arguments.other_variant,
            suite=arguments.suite,
            edits=edits,
            history=arguments.history.resolve() if arguments.history else None,
            commits=arguments.commits,
            sample=arguments.emulated_sample,
        ),
        settings=loaded,
        jobs=container.jobs_for(facts, loaded.jobs),
        arch=facts.arch,
        foreign=foreign,
        emulated_cpu=foreign.cpu,
        source=source,
        toolchain=image(Role.TOOLCHAIN, facts.arch),
        emulated=image(Role.TOOLCHAIN, foreign) if emulated else None,
        folder=folder,
    )
    return bench, described | {"jobs": bench.jobs, "source": source.version, "variant": arguments.variant}


class Results:
    """The results so far, by line."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._lines = [line for measurement in measurements for line in measurement.lines]
        self._samples: dict[str, list[Sample]] = {line.name: [] for line in self._lines}
        self._errors: dict[str, list[str]] = {line.name: [] for line in self._lines}

    def add(self, line: str, sample: Sample) -> None:
        """Add a round's sample."""
        self._samples[line].append(sample)

    def fail(self, line: str, error: str) -> None:
        """Add an error."""
        self._errors[line].append(error)

    @property
    def by_line(self) -> list[LineResult]:
        """All lines, in order."""
        return [
            LineResult(line, tuple(self._samples[line.name]), tuple(dict.fromkeys(self._errors[line.name])))
            for line in self._lines
        ]


def take(measurement: Measurement, round_: Round, results: Results, log: ProgressLog, position: str) -> None:
    """Take a measurement of a round; if it fails, those that need it fail as well, and no others."""
    log.say(f"{position}: {measurement.name}: {measurement.lines[0].title}")
    try:
        if missing := [name for name in measurement.needs if name in round_.failed]:
            raise MeasurementError(f"it needs {missing[0]}, which failed")
        samples = measurement.take(round_)
    except Exception as error:  # any error is this line's only
        round_.failed.add(measurement.name)
        for line in measurement.lines:
            results.fail(line.name, explained(error))
        log.say(f"{position}: {measurement.name}: failed: {explained(error)}")
        return
    round_.taken.update(samples)
    for line in measurement.lines:
        sample = samples[line.name]
        results.add(line.name, sample)
        log.say(f"{position}: {line.name}: {figures.shown(sample.value, line.unit)}, {sample.seconds:.1f} s")


def explained(error: Exception) -> str:
    """Describe an error, with its hint if there is one."""
    if isinstance(error, MeasurementError):
        return str(error)
    if isinstance(error, CrossjitError):
        return "\n  ".join([error.message, *([error.hint] if error.hint else []), *error.details[-12:]])
    return f"{type(error).__name__}: {error}"


def measure(arguments: argparse.Namespace, recipe: Recipe, edits: trees.Edits, chosen: Sequence[Measurement]) -> int:
    """Take all rounds, print the table, and return the exit status."""
    log, results = ProgressLog(), Results(chosen)
    described: dict[str, object] = {}

    def write() -> None:
        if arguments.json:
            arguments.json.write_text(json.dumps(figures.document(results.by_line, described), indent=2) + "\n")

    with (
        contextlib.ExitStack() as stack,
        tempfile.TemporaryDirectory(prefix="crossjit-benchmark-", dir=arguments.folder) as name,
    ):
        emulated = any(measurement.emulated for measurement in chosen)
        bench, facts = prepare(arguments, recipe, edits, Path(name), emulated, log)
        described.update(facts)
        stack.callback(lambda: print("\n".join([*machine.lines(described), "", *figures.table(results.by_line)])))
        for number in range(1, arguments.rounds + 1):
            folder = bench.folder / f"round-{number}"
            folder.mkdir()
            round_ = Round(bench, folder)
            try:
                for measurement in chosen:
                    take(measurement, round_, results, log, f"round {number} of {arguments.rounds}")
                    write()
            finally:
                ending.uninterrupted(round_.remove)
    return int(any(item.status.is_failure for item in results.by_line))


def main() -> int:
    """Parse the command line, and measure."""
    reader = parser()
    arguments = reader.parse_args()
    if arguments.list:
        listed = [LineResult(entry) for measurement in lines.MEASUREMENTS for entry in measurement.lines]
        width = max(len(entry.line.name) for entry in listed)
        print("\n".join(f"{entry.line.name:{width}}  {entry.line.demand:11}  {entry.line.title}" for entry in listed))
        return 0
    try:
        chosen = lines.chosen(arguments.only)
        recipe = recipes.find(arguments.recipe, PROJECT / "recipes")
        edits = trees.load_edits(arguments.edits)
    except KeyError as error:
        reader.error(f"there is no line {error}: --list shows them")
    except CrossjitError as error:
        reader.error(explained(error))
    except (OSError, ValueError, TypeError) as error:
        reader.error(f"{arguments.edits}: {error}")
    if not isinstance(recipe.source, Archive):
        reader.error(f"{recipe.name} is no release: its source would be another one tomorrow")
    if unknown := {arguments.variant, arguments.other_variant} - set(recipe.variants):
        reader.error(f"{recipe.name} has no variant {', '.join(sorted(unknown))}")
    if bool(arguments.history) != bool(arguments.commits):
        reader.error("--history and --commits go together")
    ending.watch()
    try:
        return measure(arguments, recipe, edits, chosen)
    except CrossjitError as error:
        print(explained(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
