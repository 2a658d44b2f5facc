"""Connecting to the user's engines: the host's setup, and what each engine is and can run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crossjit.errors import EngineError, UserError
from crossjit.model import Arch, EmulationSupport, Platform
from crossjit.tasks.framework import asker, note

if TYPE_CHECKING:
    from crossjit.engine.base import Engine, EngineFacts
    from crossjit.host import HostInfo
    from crossjit.settings import Settings


@dataclass(frozen=True)
class Machine:
    """An engine's machine. `settings` have only this engine; `ability` is what the machine can run."""

    settings: Settings
    ability: EmulationSupport

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.settings.engine_name

    @property
    def client(self) -> Engine | None:
        """The engine; None if it does not answer."""
        return None

    @property
    def platform(self) -> Platform:
        """The platform of cells without one."""
        return Platform.LINUX


@dataclass(frozen=True)
class Connected(Machine):
    """The same with an engine that answers."""

    engine: Engine
    facts: EngineFacts

    @property
    def client(self) -> Engine:
        """The engine."""
        return self.engine

    @property
    def platform(self) -> Platform:
        """The platform of the engine's machine."""
        return self.facts.platform


def connect_all(settings: Settings, arches: Sequence[Arch]) -> tuple[Connected, ...]:
    """Connect to all engines, so that each of the archs is run by one; sets up this machine for what no other runs.

    Raises EngineError for an engine that does not answer, InfrastructureError for a machine that lacks something,
    UserError if two addresses are one engine's.
    """
    if len(settings.each_engine) == 1:
        return (_prepared(settings, arches),)
    connected = [_prepared(each, ()) for each in settings.each_engine]
    _require_different(connected)
    lacking = [arch for arch in arches if not any(each.ability.runs(arch) for each in connected)]
    if lacking:
        connected = [_prepared(each.settings, lacking) if each.ability.local else each for each in connected]
    return tuple(connected)


def connect_one(settings: Settings, arches: Sequence[Arch]) -> Connected:
    """Connect to the first engine that runs the archs natively, or else to the first. Raises as `connect_all`."""
    first, *others = settings.each_engine
    if others:
        for each in (first, *others):
            connected = _prepared(each, ())
            if all(arch is connected.facts.arch for arch in arches):
                return connected
    return _prepared(first, arches)


def connect_unprepared(settings: Settings) -> Connected:
    """Connect to the first engine without setting up anything. Raises EngineError."""
    from crossjit import host

    first = settings.each_engine[0]
    return _connected(first, host.inspect(first, host.LocalShell()))


def reach(settings: Settings, own: Arch) -> tuple[Machine, ...]:
    """Connect to the engines that answer, and set up nothing; say which of several do not.

    If none does, the first is returned all the same, for this machine's arch.
    """
    from crossjit import host

    reached: list[Machine] = []
    for each in settings.each_engine:
        try:
            reached.append(_connected(each, host.inspect(each, host.LocalShell())))
        except EngineError as error:
            if len(settings.each_engine) > 1:
                note(f"{each.engine_name} is left out: {error.message}")
    if not reached:
        first = settings.each_engine[0]
        ability = host.inspect(first, host.LocalShell()).ability
        reached.append(Machine(first, ability or EmulationSupport(own, {})))
    return tuple(reached)


def _prepared(settings: Settings, arches: Sequence[Arch]) -> Connected:
    """Set up the host for archs, and connect to the engine."""
    from crossjit import host

    # With apt, mmdebstrap can be installed; without it, the base image must come from a registry.
    bootstrap = settings.prepare and bool(shutil.which("apt-get"))
    repair = host.ensure(settings, asker(), note, arches=tuple(arches), bootstrap=bootstrap)
    return _connected(settings, repair.host)


def _connected(settings: Settings, info: HostInfo) -> Connected:
    from crossjit import engine

    client = engine.connect(settings)
    facts = client.facts()
    ability = asked(settings, client, info).ability or EmulationSupport(facts.arch, {})
    return Connected(settings, ability, client, facts)


def asked(settings: Settings, client: Engine, info: HostInfo) -> HostInfo:
    """Return a host with what its engine can run, which is asked for it if it is on a different machine.

    Raises EngineError.
    """
    from crossjit.engine.base import HOME, OWNED

    if info.ability is None or info.ability.local or info.engine.version is None:
        return info
    emulators = client.emulators({OWNED: "trial", HOME: settings.identity})
    return replace(info, ability=replace(info.ability, emulators=emulators))


def _require_different(connected: Sequence[Connected]) -> None:
    for number, each in enumerate(connected):
        for other in connected[:number]:
            if each.facts.identity and each.facts.identity == other.facts.identity:
                raise UserError(
                    f"{other.name!r} and {each.name!r} are the same engine",
                    hint="leave one of them out of CROSSJIT_ENGINES",
                )
