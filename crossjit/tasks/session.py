"""Opening a run: the host's setup, the engine, the record, and the listeners."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import crossjit
from crossjit.errors import EngineError
from crossjit.model import Arch, Cell, EmulationSupport, Platform
from crossjit.settings import make_home
from crossjit.tasks.framework import asker, note, reporting_leftovers
from crossjit.tasks.options import Request, in_full, to_record
from crossjit.util.paths import full_path

if TYPE_CHECKING:
    from crossjit.config.recipes import Recipe
    from crossjit.engine.base import Engine, EngineFacts
    from crossjit.images import ImageSpec
    from crossjit.pipeline.context import BuildContext, CellRequest
    from crossjit.pipeline.forecast import PlannedCell
    from crossjit.progress import Progress
    from crossjit.remote.shared_stash import SharedStash
    from crossjit.runs.record import RunRecord
    from crossjit.settings import Settings


@dataclass(frozen=True)
class RunSession:
    """A run that has started."""

    ctx: BuildContext
    record: RunRecord
    requests: tuple[CellRequest, ...]


@contextlib.contextmanager
def opened(
    request: Request, *, one: bool = False, reproduce: str | None = None, looks: bool = False
) -> Iterator[RunSession]:
    """Start a run over the request's cells, or with `one` over the first of them.

    `reproduce` is the command that repeats the run, by default this command line; `looks` says that the cells get no
    verdicts. Errors in the request are raised before the host is changed or anything is recorded.
    """
    from crossjit import engine, images
    from crossjit.engine.recording import recording
    from crossjit.pipeline import cleanup, forecast, on_host, plan
    from crossjit.progress import Tee
    from crossjit.report.terminal import Terminal

    settings = _configured(request)
    make_home(settings)
    recipes = recipes_of(request)
    _require_tests(request, recipes)
    specs = images.configured(settings)
    host_ability = _able_host(request, settings)
    client = engine.connect(settings)
    facts = client.facts()
    ability = host_ability or EmulationSupport(facts.arch, {})
    selection = plan.select(recipes, request.selector, facts.arch, facts.platform)
    cells = selection.cells[:1] if one else selection.cells
    on_host.require_cells(facts, cells)
    requests = forecast.arranged([_cell_request(cell, recipes[cell.recipe], request, ability) for cell in cells])
    for each in requests:
        on_host.require_trust(facts, each)
    recorded = _record(settings, request, facts, ability, requests, reproduce, looks)
    with reporting_leftovers(client), Terminal() as terminal, recorded as record:
        progress = Tee(terminal, record.recorder)
        for remark in selection.notes:
            progress.say(remark)
        for line in cleanup.sweep(client, settings).lines:
            progress.say(f"removed leftovers of a run that died: {line}")
        listening = recording(client, record.recorder.command)
        ctx = _context(settings, listening, facts, ability, specs, record.id, progress)
        yield RunSession(replace(ctx, cached=request.cached), record, requests)


@contextlib.contextmanager
def looking(settings: Settings, arches: tuple[Arch, ...] = ()) -> Iterator[BuildContext]:
    """Make a context for using artifacts without a run record, on a host set up for these arches.

    Raises EngineErrors.
    """
    from crossjit import engine, host, images
    from crossjit.report.terminal import Terminal
    from crossjit.runs import history

    able = _able_host(Request(arches=arches), settings) if arches else None
    client = engine.connect(settings)
    facts = client.facts()
    able = able or host.inspect(settings, host.LocalShell()).ability
    ability = able or EmulationSupport(facts.arch, {})
    with reporting_leftovers(client), Terminal() as progress, history.presence(settings) as run:
        yield _context(settings, client, facts, ability, images.configured(settings), run, progress)


def _context(
    settings: Settings,
    client: Engine,
    facts: EngineFacts,
    ability: EmulationSupport,
    specs: tuple[ImageSpec, ...],
    run: str,
    progress: Progress,
) -> BuildContext:
    from crossjit import images
    from crossjit.pipeline import context
    from crossjit.stash.store import Store

    labels = context.labels(settings, run)
    builder = images.provider(client, facts.arch, settings.home, progress, labels)
    return context.BuildContext(
        settings=settings,
        engine=client,
        facts=facts,
        ability=ability,
        images=specs,
        ensure_image=builder.ensure,
        ensure_base=builder.ensure_base,
        store=Store(settings.stash, progress=progress),
        run=run,
        labels=labels,
        progress=progress,
        shared=_shared(settings, progress),
    )


def _shared(settings: Settings, progress: Progress) -> SharedStash | None:
    """Return the shared stash, if there is one. Raises DocumentError for an invalid trust file."""
    if not settings.stash_remote:
        return None
    from crossjit.remote import connect

    return connect.shared_stash(settings, progress)


def _require_tests(request: Request, recipes: Mapping[str, Recipe]) -> None:
    """Raise UserError for suites and tests that no cell of the request can have.

    The engine's arch may differ from this machine's, so the cells are selected again later.
    """
    from crossjit.config import suites
    from crossjit.pipeline import named_tests, plan

    cells = plan.select(recipes, request.selector, host_arch()).cells
    for name in request.selection.suites:
        suites.load(name)
    own = [name for cell in cells for name in recipes[cell.recipe].variants[cell.variant].suites]
    named_tests.require(request.selection.tests, request.selection.suites or own)


def _able_host(request: Request, settings: Settings) -> EmulationSupport | None:
    """Set up the host for the request's archs; return what it can run, None if unknown."""
    from crossjit import host

    arches = request.arches or (host_arch(),)
    # With apt, mmdebstrap can be installed; without it, the base image must come from a registry.
    bootstrap = settings.prepare and bool(shutil.which("apt-get"))
    return host.ensure(settings, asker(), note, arches=arches, bootstrap=bootstrap).host.ability


def _record(
    settings: Settings,
    request: Request,
    facts: EngineFacts,
    ability: EmulationSupport,
    requests: Sequence[CellRequest],
    reproduce: str | None,
    looks: bool,
) -> AbstractContextManager[RunRecord]:
    from crossjit.runs.record import RunRecord

    return RunRecord.start(
        settings,
        [program_path(), *in_full(sys.argv[1:])],
        {"crossjit": crossjit.__version__, "engine": asdict(facts), "ability": asdict(ability), **_attempt()},
        reproduce=reproduce,
        request=to_record(request),
        cells=tuple(cell_request.cell for cell_request in requests),
        looks=looks,
    )


def _attempt() -> dict[str, int]:
    """Return the number of this attempt of a workflow's run, where GitHub Actions tells it."""
    from crossjit.runs.model import ATTEMPT

    number = os.environ.get("GITHUB_RUN_ATTEMPT", "")
    return {ATTEMPT: int(number)} if number.isdecimal() else {}


def program_path() -> str:
    """Return the program that runs crossjit from any folder: the clone's `inv`, or the one of this process."""
    wrapper = crossjit.PROJECT / "inv"
    return str(wrapper if wrapper.is_file() else full_path(sys.argv[0]))


def forecast_cells(request: Request) -> tuple[tuple[PlannedCell, ...], EmulationSupport]:
    """Return what already exists for the request's cells. Starts nothing; works without an engine."""
    from crossjit import engine, host, images
    from crossjit.pipeline import forecast, plan
    from crossjit.stash.store import Store

    settings = _configured(request)
    recipes = recipes_of(request)
    connected = engine.connect(settings)
    client: Engine | None = connected
    try:
        facts = connected.facts()
        arch, system = facts.arch, facts.platform
    except EngineError:
        client, arch, system = None, host_arch(), Platform.LINUX
    ability = host.inspect(settings, host.LocalShell()).ability or EmulationSupport(arch, {})
    specs = images.configured(settings)
    store = Store(settings.stash)
    selection = plan.select(recipes, request.selector, arch, system)
    for remark in selection.notes:
        note(remark)
    requests = forecast.arranged(
        [_cell_request(cell, recipes[cell.recipe], request, ability) for cell in selection.cells]
    )
    return (
        tuple(
            forecast.forecast(cell_request, settings, arch, specs, store, client, before=requests[:number])
            for number, cell_request in enumerate(requests)
        ),
        ability,
    )


def recipes_of(request: Request) -> Mapping[str, Recipe]:
    """Load the recipes to choose from, including those that the request names by path, or an installed Python's."""
    from crossjit.config import recipes, suites

    if request.python:
        from crossjit.pipeline import installed

        recipe = installed.recipe_of(installed.find(request.python), request.arches)
        return {recipe.name: recipe}
    return recipes.gather(request.recipes, crossjit.PROJECT / "recipes", suites=suites.names())


def _configured(request: Request) -> Settings:
    """Read the settings, with those of the request. Raises DocumentError for an invalid trust file."""
    from crossjit import settings
    from crossjit.progress import Silent

    loaded = settings.load()
    _shared(loaded, Silent())
    return replace(loaded, jobs=request.jobs) if request.jobs else loaded


def _cell_request(cell: Cell, recipe: Recipe, request: Request, ability: EmulationSupport) -> CellRequest:
    from crossjit.host import emulation
    from crossjit.pipeline import context, plan

    if request.cpu is not None and cell.arch is not ability.arch:
        emulation.check_cpu(request.cpu, ability.emulators.get(cell.arch))
    return context.CellRequest(
        cell=cell,
        recipe=recipe,
        variant=recipe.variants[cell.variant],
        strategy=plan.strategy_of(recipe, request.strategy, ability, cell.arch),
        source=request.source,
        cpu=request.cpu,
        selection=request.selection,
        trusted=request.trust,
    )


def host_arch() -> Arch:
    """Return this machine's own arch. Raises UserError for an unknown one."""
    from crossjit.pipeline.plan import parse_arch

    machine = platform.machine()
    return Arch.of_machine(machine) or parse_arch(machine)
