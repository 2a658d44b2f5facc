"""How often triage names the right layer: plants the defects of tests/defects and prints a confusion matrix.

    .venv/bin/python benchmarks/triage.py [--only NAME …] [--json FILE]

For each patch: a checkout of the release with it, `validate` of the cell and tests that it names (which must be red),
then `triage` of that run. Builds are real; with warm caches a defect takes some minutes, and its other builds as many
again. A wrong layer is worse than `unclear`: the exit status is 1 if there is one, or if a defect goes unseen.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
DEFECTS = PROJECT / "tests" / "defects"

TRIES = 40  # runs until a flaky one must have been seen: failing one time in five, it hides for so long once in 7,500

sys.path.insert(0, str(PROJECT))

from benchmarks import commands, ending, trees
from benchmarks.commands import Done
from crossjit import settings, sources
from crossjit.config import recipes
from crossjit.progress import Silent
from crossjit.triage.decide import Layer

AT_TIMES = (Layer.FLAKY, Layer.FREE_THREADING)  # what may pass when it is validated


@dataclass(frozen=True)
class Defect:
    """A patch, and what its header says: the layer that it is in, and what shows it."""

    name: str
    layer: str
    cell: str
    tests: str
    patch: Path


@dataclass(frozen=True)
class Outcome:
    """What came of one defect: the layers that triage named, by how many tests; times in seconds.

    `tries` is how often the cell was validated until it was red, `validate_seconds` what the last one took.
    """

    defect: str
    layer: str
    verdict: str
    named: dict[str, int]
    whys: list[str]
    tries: int
    validate_seconds: float
    triage_seconds: float


def read(path: Path) -> Defect:
    """Read a patch's header."""
    head = path.read_text(encoding="utf-8").partition("\n---\n")[0]
    fields = dict(re.findall(r"^(\w+): (.+)$", head, re.MULTILINE))
    return Defect(path.stem, fields["Layer"], fields["Cell"], fields["Tests"], path)


def checkout(folder: Path, recipe: str) -> Path:
    """Unpack a recipe's release into a git repository, so that a patch on it is an uncommitted change."""
    found = recipes.find(recipe, PROJECT / "recipes")
    return trees.checkout(folder, sources.resolve(found.source, settings.load(), progress=Silent()), recipe)


def crossjit(*arguments: str) -> tuple[Done, Any]:
    """Run a command; return how it ended, and what it printed as JSON."""
    command = [sys.executable, "-m", "crossjit", *arguments, "--json"]
    done = commands.run(command, environ=dict(os.environ), cwd=PROJECT)
    try:
        return done, json.loads(done.stdout)
    except ValueError:
        return done, {}


def plant(defect: Defect, tree: Path) -> Outcome:
    """Build and validate a cell with a defect, and let triage say what it is."""
    recipe, arch, variant = defect.cell.split("/")
    trees.git(tree, "apply", str(defect.patch))
    try:
        selected = (
            "--recipe",
            recipe,
            "--arch",
            arch,
            "--variant",
            variant,
            "--source",
            str(tree),
            "--tests",
            defect.tests,
        )
        done, validated = crossjit("validate", *selected)
        tries = 1
        while done.status == 0 and defect.layer in AT_TIMES and tries < TRIES:
            done, validated = crossjit("validate", *selected)
            tries += 1
        cells = validated.get("cells") or [{"verdict": "none"}]
        named: dict[str, int] = {}
        whys = [] if done.status in (0, 1) else done.why()
        triaging = 0.0
        if done.status == 1:
            triaged, found = crossjit("triage", validated["run"])
            triaging = triaged.seconds
            diagnoses = found.get("diagnoses", [])
            named = dict(collections.Counter(each["layer"] for each in diagnoses))
            whys = sorted({f"{each['layer']}: {each['why']}" for each in diagnoses})
        verdict = cells[0]["verdict"]
        return Outcome(
            defect.name, defect.layer, verdict, named, whys, tries, round(done.seconds, 1), round(triaging, 1)
        )
    finally:
        trees.restore(tree)


def matrix(outcomes: list[Outcome]) -> Iterator[str]:
    """Lay out how often each layer was named for defects of each layer: tests, and one line for each defect."""
    layers = sorted({outcome.layer for outcome in outcomes} | {name for outcome in outcomes for name in outcome.named})
    width = max(map(len, [*layers, "planted in"]))
    yield "  ".join(["planted in".ljust(width), *layers, "unseen"])
    for layer in sorted({outcome.layer for outcome in outcomes}):
        mine = [outcome for outcome in outcomes if outcome.layer == layer]
        counts = [sum(outcome.named.get(name, 0) for outcome in mine) for name in layers]
        unseen = sum(outcome.verdict != "fail" for outcome in mine)
        cells = [str(count or ".").rjust(len(name)) for name, count in zip(layers, counts, strict=True)]
        yield "  ".join([layer.ljust(width), *cells, str(unseen or ".").rjust(len("unseen"))])
    yield ""
    for outcome in outcomes:
        yield from told(outcome)


def told(outcome: Outcome) -> Iterator[str]:
    """Say what came of one defect, and why."""
    said = ", ".join(f"{name} ({count})" for name, count in outcome.named.items()) or "nothing"
    tries = f"; red at try {outcome.tries}" if outcome.tries > 1 else ""
    took = f"{outcome.validate_seconds:.0f} s + {outcome.triage_seconds:.0f} s"
    yield f"{outcome.defect}: {outcome.verdict}; {said}{tries}; {took}"
    yield from (f"    {why}" for why in outcome.whys)


def measure(chosen: Sequence[Defect], into: Path | None) -> int:
    """Plant defects, one after the other, and print what came of it."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="crossjit-defects-") as folder:
        checkouts: dict[str, Path] = {}
        for defect in chosen:
            recipe = defect.cell.partition("/")[0]
            if recipe not in checkouts:
                checkouts[recipe] = checkout(Path(folder), recipe)
            print(f"planting {defect.name} ({defect.layer})", file=sys.stderr, flush=True)
            outcomes.append(plant(defect, checkouts[recipe]))
            print("\n".join(told(outcomes[-1])), file=sys.stderr, flush=True)
            if into:
                into.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    print("\n".join(matrix(outcomes)))
    wrong = [
        outcome.defect
        for outcome in outcomes
        if outcome.verdict != "fail" or set(outcome.named) - {outcome.layer, "unclear"}
    ]
    return int(bool(wrong))


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    names = sorted(path.stem for path in DEFECTS.glob("*.patch"))
    made = argparse.ArgumentParser(description="How often triage names the right layer.")
    made.add_argument("--only", nargs="*", default=names, metavar="NAME", choices=names, help="some of them")
    made.add_argument("--json", type=Path, help="write the outcomes there")
    return made


def main() -> int:
    """Plant them all, or those that are named."""
    arguments = parser().parse_args()
    ending.watch()
    try:
        return measure([read(DEFECTS / f"{name}.patch") for name in arguments.only], arguments.json)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
