"""Making a capsule: of a run's record, or of what was just seen in a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pydantic

import crossjit
from crossjit.capsule.document import (
    INSTALL,
    RECIPE,
    SCHEMA,
    SCRIPT,
    SUPPORT,
    VARIANTS,
    CapsuleDocument,
    MemberName,
    Place,
    Seen,
    SeenScript,
    SeenTest,
    Source,
    WheelFacts,
)
from crossjit.config import conditions
from crossjit.config.conditions import TargetEnvironment
from crossjit.config.recipes import VARIANTS as SHARED
from crossjit.config.recipes import Archive, Recipe
from crossjit.errors import InfrastructureError, UserError
from crossjit.images.image import known_packages
from crossjit.model import Arch, Cell, CellResult, Variant
from crossjit.pipeline.packages import ScriptPackages
from crossjit.stash.artifact import Artifact
from crossjit.stash.manifest import SourceFacts
from crossjit.triage import failure
from crossjit.triage.diagnosis import ExperimentResult
from crossjit.triage.odds import Count
from crossjit.triage.rerun import RerunCounts, TestRerun, of_results
from crossjit.triage.user_script import CONDITIONS, Reproduction, Script
from crossjit.util import files

MOST_TESTS = 50  # more have one reason
SEEN = "failure.json"  # in a cell's folder of a run of a script
CONTENT = "script"  # beside it


@dataclass(frozen=True)
class Subject:
    """What failed in a cell, and under which QEMU, None if natively. `content` is the script's."""

    cell: Cell
    artifact: str
    qemu: str | None
    cpu: str | None
    script: SeenScript | None = None
    content: bytes = b""
    tests: tuple[SeenTest, ...] = ()


@dataclass(frozen=True)
class _Record:
    """The record of a script's failure."""

    artifact: str
    qemu: str | None
    cpu: str | None
    script: SeenScript


def seen_of(result: ExperimentResult) -> Seen | None:
    """Describe how a test failed in an experiment; None if it passed."""
    found = failure.of_counts(RerunCounts(result.count, result.message))
    return Seen.of(found, result.count) if found else None


def seen_script(
    script: Script, test: TestRerun, result: ExperimentResult, packages: ScriptPackages, arch: Arch
) -> SeenScript | None:
    """Describe a script that failed, with the wheels of this arch; None if it passed."""
    seen = seen_of(result)
    if seen is None:
        return None
    wheels = {wheel for target, wheel in packages.wheels() if target.arch is arch}
    facts = tuple(WheelFacts(wheel.name, wheel.version, wheel.sha256) for wheel in sorted(wheels))
    return SeenScript.of(script, dict(test.env), seen, facts)


def record(folder: Path, subject: Subject) -> None:
    """Record a script's failure in a cell's folder of a run."""
    assert subject.script is not None
    value = _Record(subject.artifact, subject.qemu, subject.cpu, subject.script)
    content = json.dumps(pydantic.TypeAdapter(_Record).dump_python(value, mode="json"), indent=2) + "\n"
    with files.translate_os_errors(InfrastructureError, "cannot record the script", folder):
        folder.mkdir(parents=True, exist_ok=True)
        files.replace(folder / CONTENT, subject.content)
        files.replace(folder / SEEN, content.encode())


def record_reproduction(
    folder: Path, found: Reproduction, script: Script, artifact: str, env: TargetEnvironment, packages: ScriptPackages
) -> None:
    """Record how a script failed in a cell, under the first condition in which it did."""
    failing = next((result for result in found.results if result.count.failed), None)
    if failing is None:
        return
    test = replace(script.test, env=tuple(sorted(CONDITIONS[failing.experiment].items())))
    seen = seen_script(script, test, failing, packages, found.cell.arch)
    record(folder, Subject(found.cell, artifact, env.qemu, env.cpu, seen, script.content))


def recorded(folder: Path, cell: Cell) -> Subject | None:
    """Read the record of a script's failure; None if the cell's folder has none."""
    try:
        value = pydantic.TypeAdapter(_Record).validate_json((folder / SEEN).read_bytes())
        content = (folder / CONTENT).read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"the record of the script in {folder} is damaged", hint="reproduce it again") from error
    return Subject(cell, value.artifact, value.qemu, value.cpu, value.script, content)


def of_result(result: CellResult, variant: Variant) -> Subject | None:
    """Take the failed tests of a cell's result; None if there are none that can be run again."""
    tests: list[SeenTest] = []
    env = None
    for suite in result.suites:
        env = conditions.from_record(suite.conditions, {})
        if env is None:
            continue
        for test in [test for test in suite.results if test.failed][:MOST_TESTS]:
            seen = Seen.of(failure.of_result(test), Count(failed=1))
            reruns = of_results(suite, replace(env, variant=variant), [test.name])
            tests += [SeenTest.of(rerun, seen) for rerun in reruns]
    if not tests or result.artifact is None or env is None:
        return None
    return Subject(result.cell, result.artifact, env.qemu, env.cpu, tests=tuple(tests[:MOST_TESTS]))


def describe(
    subject: Subject, artifact: Artifact, recipe: Recipe, home: Path, *, shared: Path, with_artifact: bool
) -> tuple[CapsuleDocument, Mapping[MemberName, Path | bytes]]:
    """Describe a failure, and name the members of its capsule. `shared` is the folder with the recipes' variants.

    Raises UserError if the build is left out and its source is only here.
    """
    manifest = artifact.manifest
    again = source_again(manifest.source, recipe)
    if not with_artifact and not again:
        raise UserError(
            f"{subject.cell} was built from {manifest.source.origin}, which no other machine has",
            hint="leave out --without-artifact, so that the build is in the capsule",
        )
    target = manifest.images.get("target", {})
    recorded = (known_packages(place, str(target.get("id", ""))) for place in (home, *(home / "engines").glob("*")))
    packages = next(filter(None, recorded), ())
    document = CapsuleDocument(
        schema=SCHEMA,
        crossjit=crossjit.__version__,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=subject.cell.recipe,
        arch=subject.cell.arch,
        variant=subject.cell.variant,
        strategy=manifest.strategy.value,
        source=_source(manifest.source, manifest.version, again),
        configure=manifest.configure,
        compiler=manifest.compiler,
        build_key=artifact.key,
        artifact=artifact.full_id,
        toolchain={name: str(value) for name, value in manifest.images.get("toolchain", {}).items()},
        place=Place(
            image=str(target.get("reference", "")),
            key=str(target.get("key", "")),
            release=str(target.get("release", "")),
            packages=tuple(f"{each.name} {each.arch} {each.version}" for each in packages),
            qemu=subject.qemu,
            cpu=subject.cpu,
        ),
        members={},
        script=subject.script,
        tests=subject.tests,
    )
    members: dict[MemberName, Path | bytes] = {RECIPE: recipe.path, VARIANTS: shared / SHARED}
    if subject.script is not None:
        members[SCRIPT] = subject.content
    if with_artifact:
        members |= {INSTALL: artifact.objects["install"], SUPPORT: artifact.objects["support"]}
    return document, members


def source_again(source: SourceFacts, recipe: Recipe) -> str:
    """Return a value of --source that gets this source on any machine; empty if there is none."""
    if source.diff_digest is None and source.origin.startswith("https://"):
        return f"{source.origin}#{source.commit}" if source.commit else source.origin
    own = recipe.source
    if isinstance(own, Archive) and own.sha256 == source.digest:
        return next((place for place in own.places if place.startswith("https://")), "")
    return ""


def _source(facts: SourceFacts, version: str, again: str) -> Source:
    return Source(
        kind=facts.kind,
        version=version,
        origin=facts.origin,
        commit=facts.commit,
        digest=facts.digest,
        diff_digest=facts.diff_digest,
        llvm=facts.llvm,
        again=again,
    )


def python_of(version: str) -> tuple[int, int]:
    """Return (major, minor) of CPython's version, such as 3.15.0rc2."""
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def choose(subjects: Sequence[Subject], cell: Cell | None, run: str) -> Subject:
    """Choose a cell's failure. Raises UserError if there is none, or several."""
    fitting = [subject for subject in subjects if cell in (None, subject.cell)]
    if not fitting:
        where = f" in {cell}" if cell else ""
        raise UserError(f"nothing failed{where} in run {run}", hint="a capsule holds a failure; choose another run")
    if len(fitting) > 1:
        raise UserError(
            f"run {run} has failures in {len(fitting)} cells",
            hint=f"choose one: --cell {fitting[0].cell}",
            details=tuple(str(subject.cell) for subject in fitting),
        )
    return fitting[0]
