"""Opening a run: the engines, the record, and the listeners."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import crossjit
from crossjit.model import Arch, Cell, EmulationSupport, Strategy
from crossjit.settings import make_home
from crossjit.tasks import engines
from crossjit.tasks.framework import note, reporting_leftovers
from crossjit.tasks.options import Request, in_full, to_record
from crossjit.util.paths import full_path

if TYPE_CHECKING:
    from crossjit.config.recipes import Recipe
    from crossjit.images import ImageSpec
    from crossjit.pipeline.context import BuildContext, CellRequest
    from crossjit.pipeline.forecast import PlannedCell
    from crossjit.pipeline.schedule import Placement, Schedule
    from crossjit.progress import Progress
    from crossjit.remote.shared_stash import SharedStash
    from crossjit.runs.record import RunRecord
    from crossjit.settings import Settings
    from crossjit.tasks.engines import Connected, Machine


@dataclass(frozen=True)
class RunSession:
    """A run that has started. `contexts` are its engines' by their names, `requests` those for the best of these.

    `requested` is the strategy that the user asked for.
    """

    contexts: Mapping[str, BuildContext]
    record: RunRecord
    requests: tuple[CellRequest, ...]
    requested: Strategy | None = None

    @property
    def ctx(self) -> BuildContext:
        """The context of the first engine, or of the only one."""
        return next(iter(self.contexts.values()))

    def with_context(self, ctx: BuildContext) -> RunSession:
        """Return the session with another context for the first engine."""
        return replace(self, contexts={**self.contexts, next(iter(self.contexts)): ctx})

    def schedule(self, cells: Sequence[Cell]) -> Schedule:
        """Return a schedule for cells of the run on its engines."""
        from crossjit.pipeline.schedule import Schedule

        return Schedule(cells, {name: ctx.ability for name, ctx in self.contexts.items()}, self.requested)

    def requests_on(self, engine: str) -> Callable[[Cell], CellRequest]:
        """Return a function that makes a cell's request for an engine. It raises as `plan.choose_strategy`."""
        from crossjit.pipeline import plan

        requests = {request.cell: request for request in self.requests}
        ability = self.contexts[engine].ability

        def request_of(cell: Cell) -> CellRequest:
            request = requests[cell]
            return replace(request, strategy=plan.strategy_of(request.recipe, self.requested, ability, cell.arch))

        return request_of


@contextlib.contextmanager
def opened(
    request: Request, *, one: bool = False, reproduce: str | None = None, looks: bool = False, spread: bool = False
) -> Iterator[RunSession]:
    """Start a run over the request's cells, or with `one` over the first of them.

    `reproduce` is the command that repeats the run, by default this command line; `looks` says that the cells get no
    verdicts; `spread` that they may go to several engines. Errors in the request are raised before the host is changed
    or anything is recorded.
    """
    from crossjit import images
    from crossjit.engine.recording import recording
    from crossjit.pipeline import forecast, on_host
    from crossjit.progress import OnEngine, Tee
    from crossjit.report.terminal import Terminal

    settings = _configured(request)
    make_home(settings)
    recipes = recipes_of(request)
    _require_tests(request, recipes)
    arches = request.arches or (host_arch(),)
    connected = engines.connect_all(settings, arches) if spread else (engines.connect_one(settings, arches),)
    cells, notes = _selected(recipes, request, connected)
    requests = forecast.arranged([found for _, found in (cells[:1] if one else cells)])
    for found in requests:
        on_host.require_trust(connected[0].facts, found)
    recorded = _record(settings, request, connected, requests, reproduce, looks)
    with contextlib.ExitStack() as stack:
        for each in connected:
            stack.enter_context(reporting_leftovers(each.engine))
        terminal = stack.enter_context(Terminal())
        record = stack.enter_context(recorded)
        for remark in notes:
            Tee(terminal, record.recorder).say(remark)
        contexts = {}
        for each in connected:
            shown = OnEngine(terminal, each.name) if len(connected) > 1 else terminal
            progress = Tee(shown, record.recorder)
            _sweep(each, progress)
            each = replace(each, engine=recording(each.engine, record.recorder.command))
            ctx = _context(each, images.configured(settings), record.id, progress)
            name = each.name if len(connected) > 1 else None
            contexts[each.name] = replace(ctx, cached=request.cached, engine_name=name)
        yield RunSession(contexts, record, requests, request.strategy)


def _selected(
    recipes: Mapping[str, Recipe], request: Request, machines: Sequence[Machine]
) -> tuple[list[tuple[Placement, CellRequest]], tuple[str, ...]]:
    """Select cells; return where each goes, its request for the first engine there, and notes."""
    from crossjit.pipeline import on_host, plan, schedule

    abilities = {each.name: each.ability for each in machines}
    first = machines[0]
    selection = plan.select(recipes, request.selector, first.ability.arch, first.platform)
    if isinstance(first, engines.Connected):
        on_host.require_cells(first.facts, selection.cells)
    found = []
    for cell in selection.cells:
        placement = schedule.place(abilities, cell.arch, request.strategy)
        ability = abilities[placement.engines[0]]
        found.append((placement, _cell_request(cell, recipes[cell.recipe], request, ability)))
    return found, selection.notes


def _sweep(connected: Connected, progress: Progress) -> None:
    from crossjit.pipeline import cleanup

    for line in cleanup.sweep(connected.engine, connected.settings).lines:
        progress.say(f"removed leftovers of a run that died: {line}")


@contextlib.contextmanager
def looking(settings: Settings, arches: tuple[Arch, ...] = ()) -> Iterator[BuildContext]:
    """Make a context for using artifacts without a run record, on a host set up for these arches.

    Raises EngineErrors.
    """
    from crossjit import images
    from crossjit.report.terminal import Terminal
    from crossjit.runs import history

    connected = engines.connect_one(settings, arches) if arches else engines.connect_unprepared(settings)
    with (
        reporting_leftovers(connected.engine),
        Terminal() as progress,
        history.presence(settings) as run,
    ):
        yield _context(connected, images.configured(settings), run, progress)


def _context(connected: Connected, specs: tuple[ImageSpec, ...], run: str, progress: Progress) -> BuildContext:
    from crossjit import images
    from crossjit.pipeline import context
    from crossjit.stash.store import Store

    settings, client = connected.settings, connected.engine
    labels = context.labels(settings, run)
    builder = images.provider(client, connected.facts.arch, settings.engine_home, progress, labels)
    return context.BuildContext(
        settings=settings,
        engine=client,
        facts=connected.facts,
        ability=connected.ability,
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


def _record(
    settings: Settings,
    request: Request,
    connected: Sequence[Connected],
    requests: Sequence[CellRequest],
    reproduce: str | None,
    looks: bool,
) -> AbstractContextManager[RunRecord]:
    from crossjit.runs.record import RunRecord

    facts = {each.name: _engine_facts(each) for each in connected}
    first, *others = facts.values()
    return RunRecord.start(
        settings,
        [program_path(), *in_full(sys.argv[1:])],
        {"crossjit": crossjit.__version__, **first, **({"engines": facts} if others else {}), **_attempt()},
        reproduce=reproduce,
        request=to_record(request),
        cells=tuple(cell_request.cell for cell_request in requests),
        looks=looks,
    )


def _engine_facts(connected: Connected) -> dict[str, object]:
    """Return an engine's facts without its identity, which would make all machines' facts different."""
    facts = asdict(connected.facts)
    del facts["identity"]
    return {"engine": facts, "ability": asdict(connected.ability)}


def _attempt() -> dict[str, int]:
    """Return the number of this attempt of a workflow's run, where GitHub Actions tells it."""
    from crossjit.runs.model import ATTEMPT

    number = os.environ.get("GITHUB_RUN_ATTEMPT", "")
    return {ATTEMPT: int(number)} if number.isdecimal() else {}


def program_path() -> str:
    """Return the program that runs crossjit from any folder: the clone's `inv`, or the one of this process."""
    wrapper = crossjit.PROJECT / "inv"
    return str(wrapper if wrapper.is_file() else full_path(sys.argv[0]))


@dataclass(frozen=True)
class Forecast:
    """A planned cell: where it goes, of how many engines, and what the first engine there can run."""

    planned: PlannedCell
    placement: Placement
    engines: int
    ability: EmulationSupport

    @property
    def request(self) -> CellRequest:
        """The cell's request for that engine."""
        return self.planned.request

    @property
    def cell(self) -> Cell:
        """The cell."""
        return self.request.cell


def forecast_cells(request: Request) -> tuple[Forecast, ...]:
    """Return what already exists for the request's cells, and where they go. Works without an engine."""
    from crossjit import images
    from crossjit.pipeline import forecast
    from crossjit.stash.store import Store

    settings = _configured(request)
    recipes = recipes_of(request)
    machines = engines.reach(settings, host_arch())
    cells, notes = _selected(recipes, request, machines)
    for remark in notes:
        note(remark)
    placements = {found.cell: placement for placement, found in cells}
    requests = forecast.arranged([found for _, found in cells])
    specs, store = images.configured(settings), Store(settings.stash)
    forecasts = []
    for number, found in enumerate(requests):
        placement = placements[found.cell]
        at = next(each for each in machines if each.name == placement.engines[0])
        planned = forecast.forecast(
            found, at.settings, at.ability.arch, specs, store, at.client, before=requests[:number]
        )
        forecasts.append(Forecast(planned, placement, len(machines), at.ability))
    return tuple(forecasts)


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
