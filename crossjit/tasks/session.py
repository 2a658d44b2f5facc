"""Opening the machine's side of a run: the host made able, the engine, the record, and who listens."""

from __future__ import annotations

import contextlib
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import crossjit
from crossjit.errors import EngineError
from crossjit.model import Arch, Cell, EmulationSupport
from crossjit.settings import make_home
from crossjit.tasks.framework import asker, note, telling
from crossjit.tasks.options import Request, in_full, to_record
from crossjit.util.paths import full_path

if TYPE_CHECKING:
    from crossjit.config.recipes import Recipe
    from crossjit.engine.base import EngineFacts
    from crossjit.pipeline.context import BuildContext, CellRequest
    from crossjit.pipeline.forecast import PlannedCell
    from crossjit.runs.record import RunRecord
    from crossjit.settings import Settings


@dataclass(frozen=True)
class RunSession:
    """A run that has begun."""

    ctx: BuildContext
    record: RunRecord
    orders: tuple[CellRequest, ...]


@contextlib.contextmanager
def opened(
    request: Request, *, one: bool = False, reproduce: str | None = None, looks: bool = False
) -> Iterator[RunSession]:
    """Begin a run over the request's cells, or over the first of them where `one` is all that is wanted.

    `reproduce` is the line that does the same again, where that is not the command line; `looks` says that the cells
    get no verdicts. What is wrong with the request is said before the host is touched or anything is recorded.
    """
    from crossjit import engine, images
    from crossjit.engine.recording import recording
    from crossjit.pipeline import cleanup, context, forecast, plan
    from crossjit.progress import Tee
    from crossjit.report.terminal import Terminal
    from crossjit.stash.store import Store

    settings = _configured(request)
    make_home(settings)
    recipes = _recipes(request)
    _require_tests(request, recipes)
    specs = images.configured(settings)
    host_ability = _able_host(request, settings)
    client = engine.connect(settings)
    facts = client.facts()
    ability = host_ability or EmulationSupport(facts.arch, {})
    selection = plan.select(recipes, request.selector, facts.arch)
    cells = selection.cells[:1] if one else selection.cells
    orders = forecast.arranged([_order(cell, recipes[cell.recipe], request, ability) for cell in cells])
    recorded = _record(settings, request, facts, ability, orders, reproduce, looks)
    with telling(client), Terminal() as terminal, recorded as record:
        progress = Tee(terminal, record.recorder)
        for remark in selection.notes:
            progress.say(remark)
        for line in cleanup.sweep(client, settings).lines:
            progress.say(f"removed leftovers of a run that died: {line}")
        listening = recording(client, record.recorder.command)
        labels = context.labels(settings, record.id)
        ctx = context.BuildContext(
            settings=settings,
            engine=listening,
            facts=facts,
            ability=ability,
            images=specs,
            ensure_image=images.ImageBuilder(listening, facts.arch, settings.home, progress, labels).ensure,
            store=Store(settings.stash, progress=progress),
            run=record.id,
            labels=labels,
            progress=progress,
            cached=request.cached,
        )
        yield RunSession(ctx, record, orders)


@contextlib.contextmanager
def looking(settings: Settings) -> Iterator[BuildContext]:
    """Make a context for using artifacts without a run record. Raises EngineError and its kin."""
    from crossjit import engine, host, images
    from crossjit.pipeline import context
    from crossjit.report.terminal import Terminal
    from crossjit.runs import history
    from crossjit.stash.store import Store

    client = engine.connect(settings)
    facts = client.facts()
    ability = host.inspect(settings, host.LocalShell()).ability or EmulationSupport(facts.arch, {})
    with telling(client), Terminal() as progress, history.presence(settings) as run:
        labels = context.labels(settings, run)
        yield context.BuildContext(
            settings=settings,
            engine=client,
            facts=facts,
            ability=ability,
            images=images.configured(settings),
            ensure_image=images.ImageBuilder(client, facts.arch, settings.home, progress, labels).ensure,
            store=Store(settings.stash, progress=progress),
            run=run,
            labels=labels,
            progress=progress,
        )


def _require_tests(request: Request, recipes: Mapping[str, Recipe]) -> None:
    """Raise UserError for suites and tests that no cell of the request can have.

    The engine may be of another arch than this machine, so the cells are chosen again when it has been asked.
    """
    from crossjit.config import suites
    from crossjit.pipeline import named_tests, plan

    cells = plan.select(recipes, request.selector, _host_arch()).cells
    for name in request.selection.suites:
        suites.load(name)
    own = [name for cell in cells for name in recipes[cell.recipe].variants[cell.variant].suites]
    named_tests.require(request.selection.tests, request.selection.suites or own)


def _able_host(request: Request, settings: Settings) -> EmulationSupport | None:
    """Have the host set up for the request's archs; return what it can run, None where that is not known."""
    from crossjit import host

    arches = request.arches or (_host_arch(),)
    # Where apt is, mmdebstrap is to be had; elsewhere the base image must come from a registry.
    bootstrap = settings.prepare and bool(shutil.which("apt-get"))
    return host.ensure(settings, asker(), note, arches=arches, bootstrap=bootstrap).host.ability


def _record(
    settings: Settings,
    request: Request,
    facts: EngineFacts,
    ability: EmulationSupport,
    orders: Sequence[CellRequest],
    reproduce: str | None,
    looks: bool,
) -> AbstractContextManager[RunRecord]:
    from crossjit.runs.record import RunRecord

    return RunRecord.start(
        settings,
        [program_path(), *in_full(sys.argv[1:])],
        {"crossjit": crossjit.__version__, "engine": asdict(facts), "ability": asdict(ability)},
        reproduce=reproduce,
        request=to_record(request),
        cells=tuple(order.cell for order in orders),
        looks=looks,
    )


def program_path() -> str:
    """Return what runs crossjit from any folder: `inv` of the clone, or whatever this process was started by."""
    wrapper = crossjit.PROJECT / "inv"
    return str(wrapper if wrapper.is_file() else full_path(sys.argv[0]))


def forecast_cells(request: Request) -> tuple[tuple[PlannedCell, ...], EmulationSupport]:
    """Look at what is there for the request's cells already. Starts nothing; an engine that does not answer is none."""
    from crossjit import engine, host, images
    from crossjit.engine.base import Engine
    from crossjit.pipeline import forecast, plan
    from crossjit.stash.store import Store

    settings = _configured(request)
    recipes = _recipes(request)
    client: Engine | None = engine.connect(settings)
    try:
        arch = client.facts().arch if client is not None else _host_arch()
    except EngineError:
        client, arch = None, _host_arch()
    ability = host.inspect(settings, host.LocalShell()).ability or EmulationSupport(arch, {})
    specs = images.configured(settings)
    store = Store(settings.stash)
    selection = plan.select(recipes, request.selector, arch)
    for remark in selection.notes:
        note(remark)
    orders = forecast.arranged([_order(cell, recipes[cell.recipe], request, ability) for cell in selection.cells])
    return (
        tuple(
            forecast.forecast(order, settings, arch, specs, store, client, before=orders[:number])
            for number, order in enumerate(orders)
        ),
        ability,
    )


def _recipes(request: Request) -> Mapping[str, Recipe]:
    """Load the recipes to choose from, those that the request names by path among them."""
    from crossjit.config import recipes, suites

    return recipes.gather(request.recipes, crossjit.PROJECT / "recipes", suites=suites.names())


def _configured(request: Request) -> Settings:
    """Read the settings, with what the request says of them."""
    from crossjit import settings

    loaded = settings.load()
    return replace(loaded, jobs=request.jobs) if request.jobs else loaded


def _order(cell: Cell, recipe: Recipe, request: Request, ability: EmulationSupport) -> CellRequest:
    from crossjit.host import emulation
    from crossjit.pipeline import context, plan

    if request.cpu is not None and cell.arch is not ability.arch:
        emulation.check_cpu(request.cpu, ability.emulators.get(cell.arch))
    return context.CellRequest(
        cell=cell,
        recipe=recipe,
        variant=recipe.variants[cell.variant],
        strategy=plan.choose_strategy(request.strategy, ability, cell.arch),
        source=request.source,
        cpu=request.cpu,
        selection=request.selection,
    )


def _host_arch() -> Arch:
    """Return this machine's own arch; an unknown one is told by whoever needs an engine for it."""
    from crossjit.pipeline.plan import parse_arch

    machine = platform.machine()
    return Arch.of_machine(machine) or parse_arch(machine)
