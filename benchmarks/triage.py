"""Measures how often triage names the right layer: applies the defects of tests/defects, prints a confusion matrix.

    .venv/bin/python benchmarks/triage.py [--only NAME …] [--json FILE]

For each patch: a checkout of the release with it, `validate` of the cell and tests that it names (which must fail),
then `triage` of that run. Builds are real; with warm caches a defect takes some minutes, and its other builds about as
long. A wrong layer is worse than `unclear`: the exit status is 1 if there is one, or if a defect is not detected.
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

TRIES = 40  # runs to detect a flaky defect: one failing every fifth time is missed once in 7,500

sys.path.insert(0, str(PROJECT))

from benchmarks import commands, ending, trees
from benchmarks.commands import Done
from crossjit import settings, sources
from crossjit.config import recipes
from crossjit.progress import Silent
from crossjit.triage.decide import Layer

INTERMITTENT = (Layer.FLAKY, Layer.FREE_THREADING)  # layers whose defects may pass validation


@dataclass(frozen=True)
class Defect:
    """A patch and its header: the defect's layer, and the cell and tests that show it."""

    name: str
    layer: str
    cell: str
    tests: str
    patch: Path


@dataclass(frozen=True)
class Outcome:
    """The result of one defect: the number of tests by the layer that triage named; times in seconds.

    `tries` is the number of validations until one failed, `validate_seconds` the time of the last one.
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
    """Parse a patch's header."""
    head = path.read_text(encoding="utf-8").partition("\n---\n")[0]
    fields = dict(re.findall(r"^(\w+): (.+)$", head, re.MULTILINE))
    return Defect(path.stem, fields["Layer"], fields["Cell"], fields["Tests"], path)


def checkout(folder: Path, recipe: str) -> Path:
    """Unpack a recipe's release into a git repository, so that a patch is an uncommitted change."""
    source = recipes.find(recipe, PROJECT / "recipes")
    return trees.checkout(folder, sources.resolve(source.built_from, settings.load(), progress=Silent()), recipe)


def crossjit(*arguments: str) -> tuple[Done, Any]:
    """Run a command; return its exit status and its JSON output."""
    command = [sys.executable, "-m", "crossjit", *arguments, "--json"]
    result = commands.run(command, environ=dict(os.environ), cwd=PROJECT)
    try:
        return result, json.loads(result.stdout)
    except ValueError:
        return result, {}


def plant(defect: Defect, tree: Path) -> Outcome:
    """Build and validate a cell with a defect, and triage it."""
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
        status, validated = crossjit("validate", *selected)
        tries = 1
        while status.status == 0 and defect.layer in INTERMITTENT and tries < TRIES:
            status, validated = crossjit("validate", *selected)
            tries += 1
        cells = validated.get("cells") or [{"verdict": "none"}]
        named: dict[str, int] = {}
        whys = [] if status.status in (0, 1) else status.why()
        triaging = 0.0
        if status.status == 1:
            triaged, diagnosed = crossjit("triage", validated["run"])
            triaging = triaged.seconds
            diagnoses = diagnosed.get("diagnoses", [])
            named = dict(collections.Counter(item["layer"] for item in diagnoses))
            whys = sorted({f"{item['layer']}: {item['why']}" for item in diagnoses})
        verdict = cells[0]["verdict"]
        return Outcome(
            defect.name, defect.layer, verdict, named, whys, tries, round(status.seconds, 1), round(triaging, 1)
        )
    finally:
        trees.restore(tree)


def matrix(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield the confusion matrix of defects' layers and named layers, in tests, and the result of each defect."""
    layers = sorted({outcome.layer for outcome in outcomes} | {name for outcome in outcomes for name in outcome.named})
    width = max(map(len, [*layers, "planted in"]))
    yield "  ".join(["planted in".ljust(width), *layers, "unseen"])
    for layer in sorted({outcome.layer for outcome in outcomes}):
        in_layer = [outcome for outcome in outcomes if outcome.layer == layer]
        counts = [sum(outcome.named.get(name, 0) for outcome in in_layer) for name in layers]
        unseen = sum(outcome.verdict != "fail" for outcome in in_layer)
        cells = [str(count or ".").rjust(len(name)) for name, count in zip(layers, counts, strict=True)]
        yield "  ".join([layer.ljust(width), *cells, str(unseen or ".").rjust(len("unseen"))])
    yield ""
    for outcome in outcomes:
        yield from described(outcome)


def described(outcome: Outcome) -> Iterator[str]:
    """Describe the result of a defect."""
    named = ", ".join(f"{name} ({count})" for name, count in outcome.named.items()) or "nothing"
    tries = f"; red at try {outcome.tries}" if outcome.tries > 1 else ""
    took = f"{outcome.validate_seconds:.0f} s + {outcome.triage_seconds:.0f} s"
    yield f"{outcome.defect}: {outcome.verdict}; {named}{tries}; {took}"
    yield from (f"    {why}" for why in outcome.whys)


def measure(chosen: Sequence[Defect], into: Path | None) -> int:
    """Measure defects one after the other, and print the results."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="crossjit-defects-") as folder:
        checkouts: dict[str, Path] = {}
        for defect in chosen:
            recipe = defect.cell.partition("/")[0]
            if recipe not in checkouts:
                checkouts[recipe] = checkout(Path(folder), recipe)
            print(f"planting {defect.name} ({defect.layer})", file=sys.stderr, flush=True)
            outcomes.append(plant(defect, checkouts[recipe]))
            print("\n".join(described(outcomes[-1])), file=sys.stderr, flush=True)
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
    """Return the parser of the command line."""
    names = sorted(path.stem for path in DEFECTS.glob("*.patch"))
    result = argparse.ArgumentParser(description="How often triage names the right layer.")
    result.add_argument("--only", nargs="*", default=names, metavar="NAME", choices=names, help="some of them")
    result.add_argument("--json", type=Path, help="write the outcomes there")
    return result


def main() -> int:
    """Measure all defects, or the named ones."""
    arguments = parser().parse_args()
    ending.watch()
    try:
        return measure([read(DEFECTS / f"{name}.patch") for name in arguments.only], arguments.json)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
