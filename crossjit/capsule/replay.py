"""Replaying a capsule: its build, its script or tests, and whether the same happens here.

The build in a capsule comes from a stranger: it runs in a target container, as every build does, and is unpacked only
for that. It never gets into the stash. A capsule without it is built again from its source, in a trust domain of its
own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

from crossjit.build.container import container_name
from crossjit.capsule.archive import Capsule
from crossjit.capsule.collect import python_of
from crossjit.capsule.document import INSTALL, RECIPE, SCRIPT, SUPPORT, VARIANTS, CapsuleDocument, Seen, SeenScript
from crossjit.config import recipes
from crossjit.config.recipes import Recipe
from crossjit.errors import UserError
from crossjit.host import LocalShell, Shell
from crossjit.host.wheels import WheelTarget, fetch
from crossjit.images import ImageSpec, Role
from crossjit.pipeline import build_cell, plan, prepare, validate_cell
from crossjit.pipeline.context import BuildContext, CellRequest
from crossjit.pipeline.packages import FOLDER as PACKAGES
from crossjit.stash.packing import unpack_stream
from crossjit.triage import rerun
from crossjit.triage.failure import of_counts
from crossjit.triage.odds import REPEATS_STABLE, Count, passes_wanted
from crossjit.triage.rerun import RerunCounts, TestRerun
from crossjit.triage.user_script import SUITE
from crossjit.util.text import pluralize
from crossjit.validation.failure import Failure
from crossjit.validation.target import Target

_REFERENCE = re.compile(r"crossjit/(?P<name>[\w.-]+)-target-\w+:")
MOST_PACKAGES = 10  # named in a difference


class Answer(StrEnum):
    """Whether the same happens here."""

    SAME = "the same"
    DIFFERENT = "a different failure"
    PASSES = "it passes here"
    ABSENT = "it did not run"


@dataclass(frozen=True)
class Replayed:
    """A test, or the script: how it failed there, and what happened here."""

    name: str
    there: Seen
    here: Failure | None
    count: Count

    @property
    def answer(self) -> Answer:
        """Whether that is the same."""
        if not self.count.ran:
            return Answer.ABSENT
        if self.here is None:
            return Answer.PASSES
        return Answer.SAME if self.here.is_same(self.there.failure) else Answer.DIFFERENT


@dataclass(frozen=True)
class Difference:
    """What is different here."""

    what: str
    there: str
    here: str


def replay(
    ctx: BuildContext, capsule: Capsule, folder: Path, shell: Shell | None = None
) -> Iterator[Difference | Replayed]:
    """Run what failed; yield the Differences of this machine, then a Replayed for each test.

    `folder` gets the logs. Raises UserError if this crossjit lacks the capsule's image, BuildError, EngineErrors.
    """
    document = capsule.document
    ctx.require_emulator(document.arch)
    recipe = _recipe(capsule)
    target, source = _target(ctx, capsule, recipe, folder)
    tests = [(each.test, each.seen) for each in document.tests]
    if document.script is not None:
        content = capsule.member(SCRIPT).read_bytes()
        script = document.script.script(content)
        packages = _packages(document.script, target, shell or LocalShell())
        target = replace(target, files={**script.files, **packages})
        env = tuple(sorted(document.script.env.items()))
        tests = [(replace(script.test, env=env), document.script.seen)]
    yield from _differences(document, target, source)
    for number, (test, seen) in enumerate(tests):
        slower = rerun.factor(test.suite or SUITE, target.conditions)
        if target.emulation and document.place.cpu is None:  # the limit is for real hardware
            test = replace(test, seconds=test.seconds * slower)
        counts = _run(ctx, target, test, seen, folder / f"test-{number}")
        yield Replayed(str(test), seen, of_counts(counts), counts.count)


def _run(ctx: BuildContext, target: Target, test: TestRerun, seen: Seen, folder: Path) -> RerunCounts:
    """Run a test until it failed, or passed so often that it does not fail here as often as there."""
    wanted = REPEATS_STABLE if seen.count.fails else max(REPEATS_STABLE, passes_wanted(seen.count))
    counts = RerunCounts()
    with ctx.progress.step("replay", f"{target.cell}: {test}") as step:
        while not counts.count.failed and (left := wanted - counts.count.ran - counts.count.absent) > 0:
            place = folder / str(counts.count.ran + counts.count.absent)
            times = min(left, REPEATS_STABLE)
            ran = rerun.run(ctx.engine, target, [test], times, env={}, jobs=1, folder=place, step=step)[test]
            counts = replace(ran, count=counts.count + ran.count, message=counts.message or ran.message)
    return counts


def _recipe(capsule: Capsule) -> Recipe:
    """Read the capsule's recipe. Raises DocumentError for an invalid one, UserError if it lacks the variant."""
    document = capsule.document
    folder = capsule.folder / "recipes"
    folder.mkdir()
    path = folder / f"{document.recipe}.toml"
    if path.name == VARIANTS:
        raise UserError(f"invalid name of a recipe: {document.recipe!r}", hint="name it differently")
    shutil.copyfile(capsule.member(RECIPE), path)
    shutil.copyfile(capsule.member(VARIANTS), folder / VARIANTS)
    recipe = recipes.find(str(path), folder)
    if document.variant not in recipe.variants:
        raise UserError(f"the capsule's recipe has no variant {document.variant!r}", hint="the capsule is invalid")
    return recipe


def _image(ctx: BuildContext, document: CapsuleDocument) -> ImageSpec:
    match = _REFERENCE.match(document.place.image)
    names = {spec.name: spec for spec in ctx.images}
    if match is None or match["name"] not in names:
        raise UserError(
            f"the capsule's target image is not known here: {document.place.image!r}",
            hint=f"there are images of {', '.join(names)}; see docs/extend/image.md for adding one",
        )
    return names[match["name"]]


def _target(ctx: BuildContext, capsule: Capsule, recipe: Recipe, folder: Path) -> tuple[Target, str]:
    """Return the target, and the digest of the source that it was built from."""
    document = capsule.document
    variant = recipe.variants[document.variant]
    spec = _image(ctx, document).having(variant.packages)
    cell, cpu = document.cell, document.place.cpu
    if not document.has_artifact:
        strategy = plan.choose_strategy(None, ctx.ability, cell.arch)
        request = CellRequest(cell, recipe, variant, strategy, source=document.source.again, cpu=cpu, image=spec.name)
        (prepared,) = prepare.prepare(ctx, [request])
        built = build_cell.build_cell(ctx, prepared, log=folder / "build.log")
        return validate_cell.target_of(ctx, prepared, built, "replay"), built.artifact.manifest.source.digest
    target = Target(
        image=ctx.ensure_image(spec, Role.TARGET, cell.arch),
        artifact=document.artifact,
        tree=partial(unpack_stream, capsule.member(INSTALL)),
        cell=cell,
        variant=variant,
        python=python_of(document.source.version),
        name=container_name(f"replay-{cell.slug}", ctx.run),
        labels=ctx.labels,
        support=partial(unpack_stream, capsule.member(SUPPORT)),
        emulation=ctx.emulation(cell.arch, cpu),
        qemu=ctx.qemu_version(cell.arch),
    )
    return target, document.source.digest


def _packages(script: SeenScript, target: Target, shell: Shell) -> Mapping[str, bytes]:
    """Get a script's packages in the versions that it failed with. Raises UserError for different wheels."""
    if not script.packages:
        return {}
    glibc = int((target.image.version("libc6") or "2.0").split(".")[1])
    wanted = WheelTarget(target.cell.arch, target.python, target.variant.free_threaded, glibc)
    found = fetch([f"{wheel.name}=={wheel.version}" for wheel in script.packages], wanted, shell)
    digests = {wheel.name: wheel.sha256 for wheel in found.wheels}
    changed = [wheel.name for wheel in script.packages if digests.get(wheel.name) != wheel.sha256]
    if changed:
        raise UserError(
            f"the index has different wheels of {', '.join(changed)} than the capsule names",
            hint="let pip use the index that they were from",
        )
    return {f"{PACKAGES}/{path}": content for path, content in found.files.items()}


def _differences(document: CapsuleDocument, target: Target, source: str) -> Iterator[Difference]:
    """Yield what is different here."""
    place, image = document.place, target.image
    pairs = (
        ("QEMU", place.qemu or "native", target.qemu or "native"),
        ("CPU model", place.cpu or "the machine's", target.emulation.get("QEMU_CPU") or "the machine's"),
        ("target image", place.key, image.key),
        ("source", document.source.digest, source),
    )
    yield from (Difference(what, there, here) for what, there, here in pairs if there != here)
    there = dict(_versions(place.packages))
    here = dict(_versions(f"{each.name} {each.arch} {each.version}" for each in image.packages))
    changed = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if changed:
        named = [f"{name} {there.get(name, 'none')} → {here.get(name, 'none')}" for name in changed[:MOST_PACKAGES]]
        more = f", and {len(changed) - MOST_PACKAGES} more" if len(changed) > MOST_PACKAGES else ""
        yield Difference(
            "packages of the target image", "", f"{pluralize(len(changed), 'package')}: {', '.join(named)}{more}"
        )


def _versions(packages: Sequence[str] | Iterator[str]) -> Iterator[tuple[str, str]]:
    for package in packages:
        name, _, version = package.rpartition(" ")
        yield name, version
