"""One direction: source, toolchain image, build, probe, stash, target image, suites, verdict; no step reaches back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import crossjit
from crossjit import (
    answers,
    bugs,
    build,
    build_python,
    caches,
    durations,
    emulation,
    evidence,
    images,
    named_tests,
    packing,
    renewal,
    sources,
    trust,
    validation,
)
from crossjit.budget import BUILD_MEMORY, CONFIGURE_MEMORY
from crossjit.build import BuildSpec, Built
from crossjit.build_python import BuildPython
from crossjit.engine.base import HOME, OWNED, RUN, Container, Engine, EngineFacts
from crossjit.errors import InfrastructureError, Interrupted, UserError
from crossjit.images import Image, ImageSpec, Role
from crossjit.manifest import ArtifactKind, Manifest, SourceFacts
from crossjit.model import Arch, Cell, CellResult, HostAbility, Strategy, SuiteResult, Variant, Verdict
from crossjit.portion import WHOLE, Portion
from crossjit.progress import Progress
from crossjit.recipes import Archive, Git, Recipe
from crossjit.settings import Settings
from crossjit.sources import Source
from crossjit.store import GENERATED, INSTALL, SUPPORT, Artifact, Packed, Staging, Store

T = TypeVar("T")


@dataclass(frozen=True)
class Workshop:
    """What the steps work with: the machine's side of a run.

    `labels` go on whatever is started in the engine; `cached` says whether builds use what earlier ones kept; `pinned`
    are sources that are taken as they were, by what asks for them (`Order.wanted`).
    """

    settings: Settings
    engine: Engine
    facts: EngineFacts
    ability: HostAbility
    images: tuple[ImageSpec, ...]
    store: Store
    run: str
    labels: Mapping[str, str]
    progress: Progress
    cached: bool = True
    pinned: Mapping[object, Source] = field(default_factory=dict)

    @property
    def jobs(self) -> int:
        """How many processes make and the suites may use at a time."""
        return build.jobs_for(self.facts, self.settings.jobs)

    def emulated(self, arch: Arch) -> bool:
        """Whether what is built for this arch runs under QEMU here."""
        return arch is not self.facts.arch

    def emulation(self, arch: Arch, cpu: str | None) -> Mapping[str, str]:
        """Return what a container of this arch needs in its environment."""
        return emulation.environment(self.facts.arch, arch, cpu)


@dataclass(frozen=True)
class Order:
    """What is to be done for one cell, before anything is: the recipe's variant, and what the user asked for.

    `source` is what `--source` said, None for the recipe's own; `image` an image's name where the user chose it;
    `portion` which part of the suites is to run.
    """

    cell: Cell
    recipe: Recipe
    variant: Variant
    strategy: Strategy
    source: str | None = None
    cpu: str | None = None
    image: str | None = None
    portion: Portion = WHOLE

    @property
    def wanted(self) -> Archive | Git | str:
        """What is asked for as the source."""
        return self.source or self.recipe.source

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites to run, in order."""
        return self.portion.suites or self.variant.suites


@dataclass(frozen=True)
class Prepared:
    """An order with its source and its toolchain: now its build key is known.

    `trusted` is the same as the recipes' own trust domain would build it, whose artifacts serve; None in that domain.
    """

    order: Order
    source: Source
    image: ImageSpec
    toolchain: Image
    spec: BuildSpec
    build_python: BuildPython | None = None
    trusted: Prepared | None = None

    @property
    def cell(self) -> Cell:
        """The cell that this is about."""
        return self.order.cell

    @property
    def key(self) -> str:
        """The build key."""
        return self.spec.key


@dataclass(frozen=True)
class BuiltCell:
    """A cell that is in the stash. `from_stash` says that it was there before; `seconds` is what this run spent.

    `caches` says how often each cache had an answer and how often not, by its name: (hits, misses).
    """

    artifact: Artifact
    from_stash: bool
    seconds: Mapping[str, float] = field(default_factory=dict)
    caches: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def labels(settings: Settings, run: str) -> Mapping[str, str]:
    """Return what everything that a run starts in the engine carries, so that it is found if the run dies."""
    return {OWNED: "container", HOME: settings.identity, RUN: run}


def resolve(shop: Workshop, order: Order) -> Source:
    """Get the order's source: what the user asked for, or the recipe's. Raises SourceError, DownloadError."""
    if order.wanted in shop.pinned:
        return shop.pinned[order.wanted]
    return sources.resolve(
        order.wanted,
        shop.settings,
        progress=shop.progress,
        pool_mirrors=sources.host_pool_mirrors,
    )


def choose_image(specs: tuple[ImageSpec, ...], order: Order, source: Source) -> ImageSpec:
    """Choose the image by the LLVM that the source names. Raises UserError where a variant needs it and none has it.

    A variant without LLVM is built in the same image as its siblings, so that they can be compared.
    """
    llvm = source.llvm
    if order.variant.needs_llvm:
        if llvm is None:
            raise UserError(
                f"{order.cell}: {source.version} has no JIT: there is no Tools/jit/_llvm.py in it",
                hint="take a variant without the JIT (nojit, ft), or a source of 3.13 or later",
            )
    elif not any(llvm in spec.llvm for spec in specs):
        llvm = None
    return images.spec_for(llvm, specs, name=order.image).having(order.variant.packages)


def prepare(shop: Workshop, orders: Sequence[Order]) -> tuple[Prepared, ...]:
    """Get the orders' sources and toolchain images, each once, and say how each cell is built."""
    resolved: dict[object, Source] = {}
    for order in orders:
        if order.wanted not in resolved:
            resolved[order.wanted] = resolve(shop, order)
    _require_tests(orders, resolved.values())
    return tuple(_prepare(shop, order, resolved[order.wanted]) for order in orders)


def _require_tests(orders: Sequence[Order], resolved: Collection[Source]) -> None:
    """Raise UserError for tests that are asked for by names which nothing can have."""
    suites = [suite for order in orders for suite in order.suites]
    for portion in dict.fromkeys(order.portion for order in orders):
        named_tests.require_modules(portion.tests, suites, resolved)


def prepare_each(shop: Workshop, orders: Sequence[Order]) -> tuple[Prepared | CellResult, ...]:
    """Prepare the orders as `prepare` does. What is ours and goes wrong on the way is the result of those it befalls.

    Raises UserError where an order's source or image is wrong: before hours go into others.
    """
    sources_of: dict[object, Source] = {}
    failures: dict[object, Exception] = {}
    done: list[Prepared | CellResult] = []
    for order in orders:
        try:
            if order.wanted not in {*sources_of, *failures}:
                sources_of[order.wanted] = resolve(shop, order)
        except (Interrupted, UserError):
            raise
        except Exception as error:
            failures[order.wanted] = error
    _require_tests(orders, sources_of.values())
    for order in orders:
        common = (order.wanted, compiler_arch(order, shop.facts.arch))
        try:
            if failure := failures.get(order.wanted) or failures.get(common):
                raise failure
            done.append(_prepare(shop, order, sources_of[order.wanted]))
        except (Interrupted, UserError):
            raise
        except Exception as error:
            failures[common] = error
            result = CellResult(order.cell, Verdict.INFRA, (), strategy=order.strategy)
            done.append(bugs.result_of(shop.settings.home, result, error))
    return tuple(done)


def compiler_arch(order: Order, host_arch: Arch) -> Arch:
    """Return the arch that a cell's compilers run as."""
    return order.cell.arch if order.strategy is Strategy.EMULATE else host_arch


def _prepare(shop: Workshop, order: Order, source: Source) -> Prepared:
    image = choose_image(shop.images, order, source)
    toolchain = ensure_image(shop, image, Role.TOOLCHAIN, compiler_arch(order, shop.facts.arch))
    return specified(order, source, image, toolchain, shop.facts.arch, _emulator(shop, order))


def _emulator(shop: Workshop, order: Order) -> str:
    """Say which QEMU the compilers of an emulated build run under, and as which CPU model."""
    arch = order.cell.arch
    return f"QEMU {_qemu(shop, arch)} as {shop.emulation(arch, order.cpu).get('QEMU_CPU')}"


def specified(
    order: Order, source: Source, image: ImageSpec, toolchain: Image, host_arch: Arch, emulator: str = ""
) -> Prepared:
    """Say how the cell is built, now that its source and its toolchain are there."""
    domains = trust.serving(trust.domain_of(order.wanted))
    own, *below = (_in_domain(each, order, source, image, toolchain, host_arch, emulator) for each in domains)
    return replace(own, trusted=below[0]) if below else own


def _in_domain(
    domain: str, order: Order, source: Source, image: ImageSpec, toolchain: Image, host_arch: Arch, emulator: str
) -> Prepared:
    own_python = None
    if order.strategy is Strategy.CROSS:
        own_python = build_python.specify(order.recipe, source, host_arch, toolchain, domain)
    spec = build.specify(
        source,
        order.variant,
        order.cell.arch,
        order.strategy,
        toolchain,
        build_python=own_python.own.key if own_python else None,
        domain=domain,
        emulator=emulator,
    )
    return Prepared(order, source, image, toolchain, spec, own_python)


def ensure_image(shop: Workshop, spec: ImageSpec, role: Role, arch: Arch) -> Image:
    """Have an image of this role and arch, made if it is not there."""
    return images.ensure(
        shop.engine,
        spec,
        role,
        arch,
        host_arch=shop.facts.arch,
        home=shop.settings.home,
        progress=shop.progress,
        labels=shop.labels,
    )


def require_emulator(shop: Workshop, arch: Arch) -> None:
    """Raise InfrastructureError where nothing here can run this arch."""
    if shop.ability.runs(arch) is False:
        raise InfrastructureError(
            f"nothing on this machine can run {arch} programs",
            hint="./inv setup installs QEMU and registers it; ./inv doctor says what is missing",
        )


def stashed(store: Store, prepared: Prepared) -> Artifact | None:
    """Return what the stash has for a cell, intact: of its own trust domain, or of the recipes' own sources."""
    found = store.find_intact(prepared.key)
    return found or (stashed(store, prepared.trusted) if prepared.trusted else None)


def build_cell(
    shop: Workshop, prepared: Prepared, *, log: Path, rebuild: bool = False, following: Prepared | None = None
) -> BuiltCell:
    """Take the cell from the stash, or build, probe and stash it. `log` is where the build's whole output goes.

    Where only tests differ from what is in the stash, it is made of that, unless nothing kept is to be used. Two
    processes that want the same cell build it once. While one is built, configure answers for the `following` one.
    Raises BuildError, EngineError, StashError.
    """
    found = None if rebuild else stashed(shop.store, prepared)
    if found is not None:
        if remark := _other_source(found.manifest, prepared):
            shop.progress.say(remark)
        return BuiltCell(found, from_stash=True)
    require_emulator(shop, prepared.cell.arch)
    with shop.store.lock(prepared.key, on_wait=_waits(shop, str(prepared.cell))):
        found = None if rebuild else stashed(shop.store, prepared)
        if found is not None:
            return BuiltCell(found, from_stash=True)
        target = ensure_image(shop, prepared.image, Role.TARGET, prepared.cell.arch)
        if shop.cached and not rebuild and (alike := _alike(shop, prepared)):
            try:
                return _make(shop, prepared, _renewing(shop, prepared, alike), target, log)
            except renewal.UnfitError as reason:
                shop.progress.say(f"{prepared.cell}: {alike.id} will not do, so it is built: {reason}")
        return _make(shop, prepared, _building(shop, prepared), target, log, following)


def _alike(shop: Workshop, prepared: Prepared) -> Artifact | None:
    """Return an artifact of a source that differs in its tests only, if there is one."""
    found = shop.store.find_by_core(prepared.spec.core_key) if prepared.spec.core_key else None
    return found or (_alike(shop, prepared.trusted) if prepared.trusted else None)


@dataclass(frozen=True)
class _Way:
    """How a cell is made in a toolchain container.

    `fill` puts into a fresh one all but a cross build's own Python; `make` is called as `build.compile_in` is; `pack`
    takes the trees and returns the install tree; `report` asks how often the caches had an answer. `made_of` is the
    artifact that most of it is taken from, if it is.
    """

    fill: Callable[[Container], None]
    make: Callable[..., Built]
    pack: Callable[[Container, Staging], Packed]
    report: Callable[[Container], Mapping[str, tuple[int, int]]] = lambda container: {}
    made_of: Artifact | None = None


def _building(shop: Workshop, prepared: Prepared) -> _Way:
    """Build it from its source."""
    fill = partial(build.fill, spec=prepared.spec, source=prepared.source)
    report = partial(build.cache_report, remark=lambda said: shop.progress.say(f"{prepared.cell}: {said}"))
    return _Way(fill, build.compile_in, _pack, report)


def _renewing(shop: Workshop, prepared: Prepared, alike: Artifact) -> _Way:
    """Make it of an artifact that differs in its tests only. Raises UnfitError."""
    base = renewal.open_base(alike, prepared.spec, prepared.source)
    shop.progress.say(f"{prepared.cell}: nothing but tests differs from {alike.id}, so it is made of that")
    fill = partial(renewal.fill, source=prepared.source, base=base)
    return _Way(fill, partial(renewal.make, base=base), partial(renewal.pack, base=base), made_of=alike)


def _make(
    shop: Workshop, prepared: Prepared, way: _Way, target: Image, log: Path, following: Prepared | None = None
) -> BuiltCell:
    """Make the cell in a container, pack and probe what came of it, and put it into the stash.

    Raises UnfitError where the way is not a build.
    """
    order, subject = prepared.order, str(prepared.cell)
    emulation = shop.emulation(prepared.cell.arch, order.cpu)
    with contextlib.ExitStack() as asking, contextlib.ExitStack() as building:
        beside = building.enter_context(ThreadPoolExecutor(1))
        container = building.enter_context(_build_container(shop, prepared, prepared.spec, f"build-{subject}"))
        filling = beside.submit(way.fill, container)  # ends with its container, if nobody waits for it
        own_python = _ensure_build_python(shop, prepared, log, following=prepared)

        def unpack() -> None:
            filling.result()
            if own_python is not None:
                _put_build_python(container, own_python)

        asking.enter_context(_asked(shop, following))
        built = _run(shop, container, prepared.spec, way.make, unpack, subject, log)
        with (
            shop.store.staging(prepared.key) as staging,
            contextlib.ExitStack() as probing,
            # Containers take a second to come and to go, and the caches to count. What is given to the threads has
            # ended before the stacks are left, which close what was entered even where no thread came to it.
            ThreadPoolExecutor(2) as aside,
        ):
            its_container = validation.probing(
                shop.engine,
                shop.facts,
                target,
                variant=order.variant,
                emulation=emulation,
                name=build.container_name(f"probe-{prepared.cell.slug}", shop.run),
                labels=shop.labels,
            )
            opening = aside.submit(probing.enter_context, its_container)
            reporting = aside.submit(_optional, shop, "counting what came from the caches", way.report, container)
            started = time.monotonic()
            with shop.progress.step("pack", subject):
                packed = way.pack(container, staging)
                found = reporting.result() or {}
            leaving = [aside.submit(building.close)]
            built = built.after("pack", time.monotonic() - started)
            started = time.monotonic()
            facts = validation.probe(
                opening.result(),
                lambda: packing.unpack_stream(packed.path),
                cell=prepared.cell,
                variant=order.variant,
                emulation=emulation,
                progress=shop.progress,
                support=partial(staging.open, SUPPORT),
                packages=prepared.toolchain.packages,
            )
            leaving.append(aside.submit(probing.close))
            built = built.after("probe", time.monotonic() - started)
            manifest = replace(
                _manifest(shop, prepared, prepared.spec, ArtifactKind.CELL, built),
                cell=prepared.cell,
                recipe=order.recipe.name,
                variant=order.variant.name,
                images={"toolchain": prepared.toolchain.facts(), "target": target.facts()},
                build_python=own_python.full_id if own_python else None,
                made_of=way.made_of.full_id if way.made_of else None,
                qemu=_qemu(shop, prepared.cell.arch),
                cpu=emulation.get("QEMU_CPU"),
                probe=dict(facts),
                probed_in=_probed_in(shop, prepared, target),
            )
            with shop.progress.step("stash", subject):
                artifact = staging.commit(manifest)
            for each in leaving:
                each.result()
    return BuiltCell(artifact, from_stash=False, seconds=built.seconds, caches=found)


def _run(
    shop: Workshop,
    container: Container,
    spec: BuildSpec,
    make: Callable[..., Built],
    unpack: Callable[[], None],
    subject: str,
    log: Path,
) -> Built:
    """Have something made in a container, as `build.compile_in` does, with its whole output in `log`."""
    with log.open("w", encoding="utf-8", buffering=1) as output:
        return make(container, spec, unpack=unpack, subject=subject, jobs=shop.jobs, log=output, progress=shop.progress)


def _put_build_python(container: Container, python: Artifact) -> None:
    with python.open() as tar:
        container.put(tar, build.BUILD_PYTHON)


def _pack(container: Container, staging: Staging) -> Packed:
    """Take the trees that a build leaves; return the install tree."""
    packed = _pack_tree(container, staging, INSTALL, build.INSTALL, below=build.PREFIX)
    for name, folder in ((SUPPORT, build.SUPPORT), (GENERATED, build.GENERATED)):
        _pack_tree(container, staging, name, folder)
    return packed


def _pack_tree(container: Container, staging: Staging, name: str, folder: str, *, below: str = "") -> Packed:
    with container.get(folder) as tar:
        return staging.add(name, tar, below=below)


def _other_source(manifest: Manifest, prepared: Prepared) -> str | None:
    """Say it where an artifact is of another commit or other changes, and still what this source would be built to."""
    source = prepared.source
    if (manifest.source.commit, manifest.source.diff_digest) == (source.commit, source.diff_digest):
        return None
    other = f"commit {manifest.source.commit[:12]}" if manifest.source.commit else manifest.source.origin
    if manifest.source.diff_digest:
        other += " with changes"
    return f"{prepared.cell}: built before, from {other}; it differs from this source in nothing that a build reads"


def validate_cell(
    shop: Workshop, prepared: Prepared, built: BuiltCell, *, folder: Path, earlier: Path | None = None
) -> tuple[SuiteResult, ...]:
    """Run the order's suites on a built cell, in order. `folder` gets what the suites wrote.

    `earlier` is the cell's folder in a run that died: what its suites got done is not done again.
    """
    portion = prepared.order.portion
    results = []
    for name in prepared.order.suites:
        target = target_of(shop, prepared, built, name)
        result = validation.run_suite(
            shop.engine,
            target,
            name,
            jobs=shop.jobs,
            folder=folder,
            progress=shop.progress,
            portion=portion,
            earlier=earlier,
            durations=durations.load(shop.settings.home, name, target.circumstances),
        )
        if not portion.tests:
            told = (shop.settings.home, name, target.circumstances, result.modules)
            _optional(shop, "remembering how long modules took", durations.record, *told)
        results.append(result)
    return tuple(results)


def target_of(shop: Workshop, prepared: Prepared, built: BuiltCell, purpose: str) -> validation.Target:
    """Return what a built cell's suites run in; its image is made if it is not there. `purpose` names the container."""
    require_emulator(shop, prepared.cell.arch)
    return validation.Target(
        image=ensure_image(shop, prepared.image, Role.TARGET, prepared.cell.arch),
        artifact=built.artifact.full_id,
        tree=built.artifact.open,
        cell=prepared.cell,
        variant=prepared.order.variant,
        python=prepared.source.python,
        name=build.container_name(f"{purpose}-{prepared.cell.slug}", shop.run),
        labels=shop.labels,
        support=partial(built.artifact.open, SUPPORT),
        emulation=shop.emulation(prepared.cell.arch, prepared.order.cpu),
        qemu=_qemu(shop, prepared.cell.arch),
        packages=prepared.toolchain.packages,
    )


def run_cell(
    shop: Workshop,
    prepared: Prepared,
    *,
    folder: Path,
    validate: bool,
    rebuild: bool = False,
    earlier: Path | None = None,
    following: Prepared | None = None,
) -> CellResult:
    """Take one cell from nothing to its verdict; what goes wrong on the way is the verdict, with its reason.

    A build that fails is CPython's failure; an engine that fails is ours, and so is whatever else goes wrong. Only an
    interruption gets through, and what is wrong with the request: an earlier run that cannot be taken up.
    """
    cell = prepared.cell
    result = CellResult(cell, Verdict.INFRA, (), build_key=prepared.key, strategy=prepared.order.strategy)
    seconds: dict[str, float] = {}
    try:
        built = build_cell(shop, prepared, log=folder / "build.log", rebuild=rebuild, following=following)
        seconds.update(built.seconds)
        manifest = built.artifact.manifest
        probe = _current_probe(shop, prepared, built)
        result = replace(
            result,
            artifact=built.artifact.id,
            from_stash=built.from_stash,
            strategy=manifest.strategy,
            probe=probe,
            seconds=seconds,
            caches=dict(built.caches),
            made_of=manifest.made_of,
        )
        suite_results: tuple[SuiteResult, ...] = ()
        if validate:
            suite_results = validate_cell(shop, prepared, built, folder=folder, earlier=earlier)
            seconds.update({suite.suite: suite.seconds for suite in suite_results})
        verdict, reasons = validation.judge(cell, prepared.order.variant, probe, suite_results)
        return replace(result, verdict=verdict, reasons=reasons, suites=suite_results, seconds=seconds)
    except (Interrupted, UserError):
        raise
    except Exception as error:
        return replace(bugs.result_of(shop.settings.home, result, error), seconds=seconds)


def _optional(shop: Workshop, what: str, step: Callable[..., T], *arguments: object) -> T | None:
    """Take a step that nothing depends on: what goes wrong in it is told, and is no cell's failure."""
    try:
        return step(*arguments)
    except Interrupted:
        raise
    except Exception as error:
        shop.progress.say(f"{what} failed: {error}")
        return None


def _current_probe(shop: Workshop, prepared: Prepared, built: BuiltCell) -> dict[str, object]:
    """Return the facts of a probe that ran in what a probe would run in now: the build's, or those of a new one."""
    manifest = built.artifact.manifest
    if not built.from_stash:
        return manifest.probe
    target = target_of(shop, prepared, built, "probe")
    now = _probed_in(shop, prepared, target.image)
    changed = evidence.changed(manifest.probed_in, now)
    if not changed and "unfinished" not in manifest.probe:
        return manifest.probe
    shop.progress.say(f"{prepared.cell}: it is probed again ({changed or 'it did not finish'})")
    return evidence.probe(shop.engine, shop.facts, target, prepared.toolchain.packages, shop.progress)


def _probed_in(shop: Workshop, prepared: Prepared, image: Image) -> evidence.Conditions:
    arch, order = prepared.cell.arch, prepared.order
    environment = validation.environment(order.variant, shop.emulation(arch, order.cpu))
    return evidence.conditions(image, environment, _qemu(shop, arch), shop.facts)


def target_shell(shop: Workshop, prepared: Prepared, built: BuiltCell) -> int:
    """Open a shell in the cell's target image with its artifact installed; return the shell's exit status."""
    cell = prepared.cell
    target = target_of(shop, prepared, built, "shell")
    return shop.engine.shell(
        target.image.reference,
        arch=cell.arch,
        name=target.name,
        labels=target.labels,
        prepare=target.install,
        argv=("bash",),
        env=target.environment,
        user=f"{validation.TESTER}:{validation.TESTER}",
        cwd=validation.HOME,
    )


def toolchain_shell(shop: Workshop, prepared: Prepared) -> int:
    """Open a shell in the toolchain image, with the source, the build Python and the build's environment in place.

    A build Python is built first if there is none in the stash. Returns the shell's exit status.
    """
    subject = str(prepared.cell)
    own_python = _ensure_build_python(shop, prepared, shop.settings.runs / shop.run / "build.log")

    def prepare(container: Container) -> None:
        build.fill(container, prepared.spec, prepared.source)
        if own_python is not None:
            _put_build_python(container, own_python)

    return shop.engine.shell(
        prepared.toolchain.reference,
        arch=prepared.toolchain.arch,
        name=build.container_name(f"shell-{subject}", shop.run),
        labels=shop.labels,
        prepare=prepare,
        argv=("bash",),
        env={
            **prepared.spec.environment,
            **build.bookkeeping(prepared.spec, cached=False),
            **shop.emulation(prepared.toolchain.arch, prepared.order.cpu),
        },
        user=f"{build.BUILDER}:{build.BUILDER}",
        cwd=build.BUILD,
    )


def _ensure_build_python(
    shop: Workshop, prepared: Prepared, log: Path, *, following: Prepared | None = None
) -> Artifact | None:
    """Have the Python that runs CPython's own tools in a cross build: a native cell's, or made once and kept.

    While one is made, configure answers for the `following` cell.
    """
    wanted = prepared.build_python
    if wanted is None:
        return None
    if found := _found_build_python(shop, prepared):
        return found
    spec = wanted.own
    subject = f"build Python {prepared.source.version}"
    with shop.store.lock(spec.key, on_wait=_waits(shop, subject)):
        if found := _found_build_python(shop, prepared):
            return found
        own_log = log.with_name("build-python.log")
        with (
            _asked(shop, following),
            _build_container(shop, prepared, spec, f"build-{subject}") as container,
            shop.store.staging(spec.key) as staging,
        ):
            unpack = partial(build.fill, container, spec, prepared.source)
            built = _run(shop, container, spec, build.compile_in, unpack, subject, own_log)
            with shop.progress.step("pack", subject):
                _pack_tree(container, staging, INSTALL, build.INSTALL, below=build.PREFIX)
            return staging.commit(
                replace(
                    _manifest(shop, prepared, spec, ArtifactKind.BUILD_PYTHON, built),
                    images={"toolchain": prepared.toolchain.facts()},
                )
            )


def find_build_python(store: Store, prepared: Prepared) -> Artifact | None:
    """Return what the stash has as a cross build's Python: of its own trust domain, or of the recipes' own sources."""
    found = build_python.find(store, prepared.build_python) if prepared.build_python else None
    return found or (find_build_python(store, prepared.trusted) if prepared.trusted else None)


def _found_build_python(shop: Workshop, prepared: Prepared) -> Artifact | None:
    found = find_build_python(shop.store, prepared)
    if found is not None and found.manifest.kind is ArtifactKind.CELL:
        shop.progress.say(f"{prepared.cell}: {found.manifest.subject} ({found.id}) is its build Python")
    return found


@contextlib.contextmanager
def _build_container(
    shop: Workshop, prepared: Prepared, spec: BuildSpec, purpose: str, memory: int = BUILD_MEMORY
) -> Iterator[Container]:
    """Start the container of a build, with its trust domain's caches; what a stranger's leaves there is bounded."""
    cache = below = mark = None
    if shop.cached:
        if trust.is_stranger(spec.domain):
            mark = caches.mark(shop.settings, spec.domain, shop.run)
        cache, *others = (
            caches.ensure(shop.engine, shop.settings, domain, prepared.source.origin if domain == spec.domain else "")
            for domain in trust.serving(spec.domain)
        )
        below = others[0] if others else None
    with (
        contextlib.ExitStack() as after,
        build.open_container(
            shop.engine,
            prepared.toolchain,
            spec,
            facts=shop.facts,
            name=build.container_name(purpose, shop.run),
            labels=shop.labels,
            emulation=shop.emulation(prepared.toolchain.arch, prepared.order.cpu),
            cache=cache,
            below=below,
            memory=memory,
        ) as container,
    ):
        if cache is not None and mark is not None:
            after.push(partial(_bound, shop, prepared.toolchain, cache, spec.domain, mark))
        yield container


def _bound(
    shop: Workshop, image: Image, volume: str, domain: str, mark: Path, kind: type[BaseException] | None, *_: object
) -> None:
    """Bound a stranger's cache behind its build, unless that was interrupted: then the next command removes it."""
    if kind is None or issubclass(kind, Exception):
        name = build.container_name("cache", shop.run)
        about = (shop.engine, image, volume, domain, name, shop.labels, mark)
        _optional(shop, f"bounding {volume}", partial(caches.bound, *about))


def _asked(shop: Workshop, prepared: Prepared | None) -> AbstractContextManager[None]:
    """Have configure answer for a build to come while the block runs, where that may save time."""
    worth = prepared and shop.cached and shop.jobs > 1 and answers.are_new(prepared.spec, prepared.source, shop.store)
    if prepared is None or not worth:
        return contextlib.nullcontext()
    spec, source = prepared.spec, prepared.source
    opened = _build_container(shop, prepared, spec, f"configure-{prepared.cell.slug}", CONFIGURE_MEMORY)
    return answers.asked(opened, lambda container: build.ask(container, spec, source))


def _manifest(shop: Workshop, prepared: Prepared, spec: BuildSpec, kind: ArtifactKind, built: Built) -> Manifest:
    source = prepared.source
    return Manifest(
        kind=kind,
        build_key=spec.key,
        version=source.version,
        arch=spec.arch,
        source=SourceFacts(
            kind=str(source.kind),
            digest=source.digest,
            origin=source.origin,
            commit=source.commit,
            diff_digest=source.diff_digest,
            llvm=source.llvm,
            regenerate=source.regenerate,
        ),
        strategy=spec.strategy,
        configure=spec.configure_line,
        llvm=prepared.toolchain.llvm_version(spec.llvm) if spec.llvm else None,
        compiler=built.compiler,
        core_key=spec.core_key,
        domain=spec.domain,
        seconds={name: round(value, 3) for name, value in built.seconds.items()},
        crossjit=crossjit.__version__,
    )


def _qemu(shop: Workshop, arch: Arch) -> str | None:
    emulator = shop.ability.emulators.get(arch)
    return emulator.version if emulator and shop.emulated(arch) else None


def _waits(shop: Workshop, subject: str) -> Callable[[], None]:
    return lambda: shop.progress.say(f"{subject}: another process is building it; waiting to take its result")
