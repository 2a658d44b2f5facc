"""Installed Pythons as cells: fetched or read, asked how they were built, probed, and put into the stash."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import crossjit
from crossjit import channels, images
from crossjit.build.container import container_name
from crossjit.channels import BuildFacts
from crossjit.config.pythons import DebianPython, InstalledPython, LocalPython, parse_debian
from crossjit.config.recipes import Recipe
from crossjit.errors import DownloadError, UserError
from crossjit.images import ImageSpec, Role
from crossjit.images.image import digest_of
from crossjit.model import Arch, Cell, Strategy
from crossjit.pipeline.build_steps import on_wait, probe_conditions
from crossjit.pipeline.context import BuildContext, CellRequest, PreparedPython
from crossjit.pythons import debian, local, traits
from crossjit.stash import manifest as manifests
from crossjit.stash.artifact import INSTALL, Artifact
from crossjit.stash.manifest import ArtifactKind, Manifest, PackageFacts, SourceFacts
from crossjit.stash.store import Staging
from crossjit.util.paths import full_path
from crossjit.validation import adopt, evidence
from crossjit.validation.target import Opener, Target

LAYOUT = 2  # of the trees; increase it when the same packages or files give a different tree


def find(text: str) -> InstalledPython:
    """Return what `--python` names. Raises UserError for an invalid name, and for a path without a Python."""
    return parse_debian(text) or local.inspect(full_path(text))


def recipe_of(python: InstalledPython, arches: Iterable[Arch] = ()) -> Recipe:
    """Return the recipe of an installed Python, whose only variant becomes known when it is prepared.

    Raises UserError if it is for a different arch than those requested.
    """
    if isinstance(python, LocalPython):
        local.require_arch(python, arches)
    variant = traits.unknown_variant(python.arches)
    return Recipe(python.name, str(python), python, {variant.name: variant}, (variant.name,), Path(), default=True)


def prepare(ctx: BuildContext, request: CellRequest) -> PreparedPython:
    """Put a Python into the stash if it is not there; return it with the variant of its build.

    Raises UserError if it does not exist or does not run, DownloadError if it cannot be fetched, and EngineErrors.
    """
    python = request.recipe.source
    assert isinstance(python, InstalledPython)
    image = _image(ctx, python)
    ctx.require_emulator(request.cell.arch)
    artifact, from_stash = ctx.pythons.get(request.cell), True
    if artifact is None:
        making = _Making(ctx, request, image)
        artifact, from_stash = (
            _of_debian(making, python) if isinstance(python, DebianPython) else _of_folder_or_archive(making, python)
        )
    facts = channels.read(BuildFacts, manifests.to_json(artifact.manifest.build_facts).decode())
    variant = traits.variant_of(facts, python.arches)
    return PreparedPython(replace(request, variant=variant), image, artifact, from_stash)


def of_debian(ctx: BuildContext, python: DebianPython, arch: Arch, cpu: str | None, *, fetch: bool) -> PreparedPython:
    """Prepare a package of Debian for comparison, without `fetch` one that is in the stash. Raises as `prepare`."""
    recipe = recipe_of(python)
    (variant,) = recipe.variants.values()
    cell = Cell(recipe.name, arch, variant.name)
    if not fetch:
        if (newest := _newest(ctx, python, arch)) is None:
            raise UserError(f"{python} is not in the stash, and fetching it was not allowed", hint="allow it")
        ctx = replace(ctx, pythons={cell: newest})
    return prepare(ctx, CellRequest(cell, recipe, variant, Strategy.INSTALLED, cpu=cpu))


def describe(artifact: Artifact) -> str:
    """Return one line for people about an installed Python."""
    manifest = artifact.manifest
    own = next((each for each in manifest.packages if manifest.source.origin.endswith(f"/{each.name}")), None)
    name = f"{own.name} {own.version}" if own else f"CPython {manifest.version}"
    return f"{name}, LLVM {manifest.llvm or 'unknown'}"


def _image(ctx: BuildContext, python: InstalledPython) -> ImageSpec:
    """Choose the image that a Python runs in: that of its suite, or the newest."""
    if isinstance(python, LocalPython):
        return images.spec_for(None, ctx.images)
    for spec in ctx.images:
        if spec.suite == python.suite:
            return spec
    suites = sorted({spec.suite for spec in ctx.images})
    raise UserError(f"there is no image of Debian {python.suite}", hint=f"choose from {', '.join(suites)}")


@dataclass(frozen=True)
class _Making:
    """What it takes to put a Python into the stash."""

    ctx: BuildContext
    request: CellRequest
    image: ImageSpec

    @property
    def subject(self) -> str:
        return str(self.request.cell)

    def stash(self, key: str, tree: Opener, prefix: str, manifest: Manifest) -> Artifact:
        """Ask and probe a Python, and stash it, unless another process did.

        `tree` opens a tar of a folder `tree`, in which the library is below `prefix`.
        """
        ctx = self.ctx
        with ctx.store.lock(key, on_wait=on_wait(ctx, self.subject)):
            if (artifact := ctx.store.find_intact(key)) is not None:
                return artifact
            with ctx.store.staging(key) as staging:
                target = self._target(key, lambda: staging.open(INSTALL))
                found, recorded = self._adopt(target, tree, prefix, staging)
                variant = traits.variant_of(found, self.request.variant.arches)
                request = replace(self.request, variant=variant)
                probe = evidence.probe(ctx.engine, ctx.facts, replace(target, variant=variant), (), ctx.progress)
                manifest = replace(
                    manifest,
                    version=found.version,
                    configure=found.configure,
                    compiler=found.compiler,
                    build_facts=recorded,
                    images={"target": target.image.facts()},
                    qemu=target.qemu,
                    cpu=target.emulation.get("QEMU_CPU"),
                    probe=probe,
                    probed_in=probe_conditions(ctx, request, target.image),
                )
                with ctx.progress.step("stash", self.subject):
                    return staging.commit(manifest)

    def _adopt(
        self, target: Target, tree: Opener, prefix: str, staging: Staging
    ) -> tuple[BuildFacts, dict[str, object]]:
        """Ask the Python, byte-compile its library, and pack it."""
        ctx = self.ctx
        with contextlib.ExitStack() as stack:
            with ctx.progress.step("inspect", self.subject) as step:
                step.update(detail="installing")
                container = stack.enter_context(adopt.installed(ctx.engine, ctx.facts, target, tree))
                step.update(detail="running")
                facts = adopt.ask(container, target)
            with ctx.progress.step("byte-compile", self.subject) as step:
                adopt.byte_compile(container, target, prefix, ctx.jobs, step)
            with ctx.progress.step("pack", self.subject), container.get(adopt.TREE) as tar:
                staging.add(INSTALL, tar)
        return facts

    def _target(self, key: str, tree: Opener) -> Target:
        cell, ctx = self.request.cell, self.ctx
        return Target(
            image=ctx.ensure_image(self.image, Role.TARGET, cell.arch),
            artifact=key,
            tree=tree,
            cell=cell,
            variant=self.request.variant,
            python=(3, 0),
            name=container_name(f"probe-{cell.slug}", ctx.run),
            labels=ctx.labels,
            emulation=ctx.emulation(cell.arch, self.request.cpu),
            qemu=ctx.qemu_version(cell.arch),
        )

    def manifest(self, key: str, source: SourceFacts, llvm: str | None, packages: tuple[PackageFacts, ...]) -> Manifest:
        """Return the manifest of what is known before it runs."""
        cell = self.request.cell
        return Manifest(
            kind=ArtifactKind.INSTALLED,
            build_key=key,
            version="",
            arch=cell.arch,
            source=source,
            strategy=Strategy.INSTALLED,
            configure="",
            cell=cell,
            recipe=cell.recipe,
            variant=cell.variant,
            llvm=llvm,
            packages=packages,
            crossjit=crossjit.__version__,
            schema=manifests.INSTALLED,
        )


def _of_debian(making: _Making, python: DebianPython) -> tuple[Artifact, bool]:
    """Return the mirror's present version of a package, or the stash's newest if the mirror does not answer."""
    ctx, arch = making.ctx, making.request.cell.arch
    installed = ctx.ensure_image(making.image, Role.TARGET, arch).packages
    options = debian.container_options(
        ctx.ensure_base(making.image),
        ctx.facts.arch,
        container_name(f"apt-{making.request.cell.slug}", ctx.run),
        ctx.labels,
    )
    with ctx.engine.container(options) as container:
        with ctx.progress.step("fetch", making.subject) as step:
            apt = debian.Apt(container, python, arch, step)
            try:
                expired = apt.update(installed)
            except DownloadError as error:
                if (newest := _newest(ctx, python, arch)) is None:
                    raise
                ctx.progress.say(f"{making.subject}: {error.message}; using the one in the stash")
                return newest, True
            packages = apt.resolve()
            key = digest_of({"packages": [vars(each) for each in packages], "arch": arch, "layout": LAYOUT})
            if (artifact := ctx.store.find_intact(key)) is not None:
                return artifact, True
            apt.require_current(packages, installed)
            apt.unpack(packages)
            llvm = apt.llvm(packages)
        if expired:
            ctx.progress.say(f"the mirror's Release of {python.suite} has expired and is used all the same")
        source = SourceFacts(kind="debian", digest=key, origin=str(python))
        tree = partial(container.get, debian.TREE)
        return making.stash(key, tree, "/usr", making.manifest(key, source, llvm, packages)), False


def _newest(ctx: BuildContext, python: DebianPython, arch: Arch) -> Artifact | None:
    """Return the newest artifact of a package."""
    matches = (
        artifact
        for artifact in ctx.store.artifacts()
        if artifact.manifest.source.origin == str(python) and artifact.manifest.arch is arch and artifact.is_intact()
    )
    return next(matches, None)


def _of_folder_or_archive(making: _Making, python: LocalPython) -> tuple[Artifact, bool]:
    """Return a Python's artifact, which is found again by the content of the whole folder or archive."""
    ctx = making.ctx
    with contextlib.ExitStack() as stack:
        with ctx.progress.step("read", making.subject) as step:
            step.update(detail=str(python))
            tar, digest = stack.enter_context(local.opened(python))
        key = digest_of({"tree": digest, "arch": python.arch, "layout": LAYOUT})
        if (artifact := ctx.store.find_intact(key)) is not None:
            return artifact, True
        source = SourceFacts(kind=python.kind.value, digest=digest, origin=str(python))

        @contextlib.contextmanager
        def tree() -> Iterator[BinaryIO]:
            tar.seek(0)
            yield tar

        llvm = local.exported_llvm(python, digest)
        manifest = making.manifest(key, source, llvm, ())
        return making.stash(key, tree, f"/{local.PREFIX}", manifest), False
