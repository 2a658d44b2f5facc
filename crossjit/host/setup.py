"""Setting up a Debian or Ubuntu host: asking for consent, running the actions by stage, waiting for the engine."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import filelock

from crossjit import PROGRAM
from crossjit.engine.base import HOST
from crossjit.errors import InfrastructureError
from crossjit.host import actions
from crossjit.host.actions import Action
from crossjit.host.check import Check, Status
from crossjit.host.checks import FIX, checks, checks_of_several, missing
from crossjit.host.inspect import HostInfo, inspect, with_updates
from crossjit.host.shell import LocalShell, Shell
from crossjit.model import Arch
from crossjit.settings import Settings
from crossjit.util import locks

Confirm = Callable[[str], bool]
"""Asks the user a question that lists the commands, and returns whether to go ahead."""

Say = Callable[[str], None]

_ANSWER_SECONDS = 60.0
_LOCK_SECONDS = 1800.0
_PAUSE_SECONDS = 2.0


class Rights(StrEnum):
    """How commands that change the host can be run."""

    ROOT = "root"
    SUDO = "sudo"  # without a password
    ASK = "ask"  # sudo needs a password, and there is a terminal to ask
    NONE = "none"


@dataclass(frozen=True)
class Repair:
    """The commands run on the host, in order, and the host afterwards."""

    commands: tuple[str, ...]
    host: HostInfo

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks of the host."""
        return checks(self.host)

    @property
    def changed(self) -> bool:
        """Whether any command was run."""
        return bool(self.commands)

    @property
    def able(self) -> bool:
        """Whether no check of the host fails."""
        return all(check.status is not Status.FAIL for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {"commands": list(self.commands), "checks": [check.to_json() for check in self.checks]}


def check(
    settings: Settings, *, shell: Shell | None = None, ask: Callable[[Settings, HostInfo], HostInfo] | None = None
) -> tuple[Check, ...]:
    """Return the checks of the host and of all engines. Changes nothing and raises nothing.

    `ask` adds what an engine on a different machine can run.
    """
    shell = shell or LocalShell()
    hosts = {}
    for each in settings.each_engine:
        host = with_updates(inspect(each, shell), shell)
        hosts[each.engine_name] = ask(each, host) if ask else host
    return checks_of_several(hosts) if len(hosts) > 1 else checks(*hosts.values())


def ensure(
    settings: Settings,
    consent: Confirm | None,
    say: Say,
    *,
    arches: Sequence[Arch] = tuple(Arch),
    bootstrap: bool = False,
    shell: Shell | None = None,
) -> Repair:
    """Ensure that `arches` can be built and run here, and with `bootstrap` that base images need no registry.

    Takes a tenth of a second if nothing is missing. Otherwise it sets up the host if `settings.prepare`, with `consent`
    (None: nobody can be asked). Raises InfrastructureError if something is still missing.
    """
    shell = shell or LocalShell()
    host = inspect(settings, shell)
    lacks = missing(host, tuple(arches), bootstrap=bootstrap)
    if not lacks:
        return Repair((), host)
    _require_an_engine_of_ours(host)
    if settings.engine == HOST:
        raise _not_able(lacks, hint=_BY_HAND)
    if not settings.prepare:
        raise _not_able(lacks, _place(host), hint=f"{FIX} fixes it on Debian and Ubuntu; {PROGRAM} doctor has details")
    repair = setup(settings, consent, say, shell=shell)
    lacks = missing(repair.host, tuple(arches), bootstrap=bootstrap)
    if lacks:
        raise _not_able(lacks, hint=f"{PROGRAM} doctor has details")
    return repair


def setup(
    settings: Settings, consent: Confirm | None, say: Say, *, updates: bool = False, shell: Shell | None = None
) -> Repair:
    """Set up a Debian or Ubuntu host to build and run everything, unless it is already.

    `consent` is called once, with the commands, if sudo needs a password; None means that nobody can be asked. `say`
    gets every command that is run. A working engine is never replaced or restarted. `updates` adds an apt source for
    an engine that was installed from a newer suite. An interrupted setup is continued. Raises InfrastructureError with
    the commands as details if they may not be run here, or with the last lines of the one that failed.
    """
    shell = shell or LocalShell()
    if settings.engine == HOST:
        return _setup_nothing(settings, say, shell)
    host = with_updates(inspect(settings, shell), shell)
    _require_an_engine_of_ours(host)
    stages = (*actions.STAGES, *([actions.updates] if updates else []))
    if not _work(host, shell) and not (updates and host.no_updates):
        say("nothing to do: this host has everything that crossjit needs")
        return Repair((), host)
    if not host.distribution.apt:
        lacks = tuple(check for check in checks(host) if check.status is Status.FAIL and check.name not in tuple(Arch))
        raise _not_able(lacks, hint=f"crossjit sets up Debian and Ubuntu by itself; this is {host.distribution.name}")
    offered = actions.catalogue(shell, host.distribution.codename)
    prefix = _authority(host, offered, shell, consent, stages)
    with _alone(settings, say):
        commands = _carry_out(settings, shell, prefix, say, stages)
    result = with_updates(inspect(settings, shell), shell)
    lacks = missing(result, tuple(Arch), bootstrap=True)
    if lacks:
        raise _not_able(lacks, hint=f"the steps done so far are kept; {PROGRAM} doctor has details")
    return Repair(commands, result)


_BY_HAND = f"crossjit installs nothing for the host as an engine: {PROGRAM} doctor says what to install"


def _setup_nothing(settings: Settings, say: Say, shell: Shell) -> Repair:
    """Report what the host lacks as an engine: there is no container engine to install for it."""
    host = inspect(settings, shell)
    if lacks := tuple(check for check in checks(host) if check.status is Status.FAIL):
        raise _not_able(lacks, hint=_BY_HAND)
    say("nothing to do: this host has everything that crossjit needs to build on it without containers")
    return Repair((), host)


def _require_an_engine_of_ours(host: HostInfo) -> None:
    """Raise InfrastructureError if the client uses a different machine's engine that does not answer, or is unfit.

    Nothing that setup could install or start here would help.
    """
    engine = host.engine
    if engine.elsewhere and engine.client is not None and engine.version is None:
        raise InfrastructureError(
            f"the container engine ({engine.name} at {engine.elsewhere}) does not answer",
            hint=engine.endpoint.hint,
            details=(engine.problem,) if engine.problem else (),
        )
    if engine.elsewhere and (unfit := [check for check in missing(host, ()) if check.name == f"{engine.name} engine"]):
        raise _not_able(unfit, _place(host), hint=f"use a different engine, or {engine.endpoint.undo}")


def rights(shell: Shell, consent: Confirm | None) -> Rights:
    """Return how commands that change the host can be run."""
    if shell.is_root:
        return Rights.ROOT
    if shell.which("sudo") is None:
        return Rights.NONE
    if shell.run(["sudo", "-n", "true"], timeout=10).ok:
        return Rights.SUDO
    return Rights.ASK if consent else Rights.NONE


def _work(host: HostInfo, shell: Shell) -> bool:
    """Whether setup has anything to do."""
    return bool(missing(host, tuple(Arch), bootstrap=True)) or actions.wants_packages(host, shell)


def _authority(
    host: HostInfo, offered: actions.AptIndex, shell: Shell, consent: Confirm | None, stages: Sequence[actions.Stage]
) -> tuple[str, ...]:
    """Return the prefix of each command. Raises InfrastructureError with the commands if they may not be run."""
    allowed = rights(shell, consent)
    if allowed is Rights.ROOT:
        return ()
    if allowed is Rights.SUDO:
        return ("sudo", "-n")
    commands = tuple(action.command(("sudo",)) for action in _forecast(host, offered, shell, stages))
    if allowed is Rights.NONE or consent is None:
        raise InfrastructureError(
            "this host is not set up yet, and there is neither root access nor a terminal to ask for it",
            hint=f"run these as root, or {FIX} at a terminal",
            details=commands,
        )
    if not consent("To set this host up, crossjit would run:\n" + "\n".join(f"  {command}" for command in commands)):
        raise InfrastructureError("setup declined", hint="these commands would set up this host", details=commands)
    output = shell.run(["sudo", "-v"])  # asks for the password on the terminal
    if not output.ok:
        raise _failed("getting root access", "sudo -v", output.how, output.last_lines())
    return ("sudo",)


def _forecast(host: HostInfo, offered: actions.AptIndex, shell: Shell, stages: Sequence[actions.Stage]) -> list[Action]:
    """List the actions for the host as it is now; earlier stages may make some of the later ones unnecessary."""
    planned = [*actions.recovery(shell), *actions.update()] if actions.wants_packages(host, shell) else []
    for stage in stages:
        planned += stage(host, offered, shell)
    return planned


def _carry_out(
    settings: Settings, shell: Shell, prefix: tuple[str, ...], say: Say, stages: Sequence[actions.Stage]
) -> tuple[str, ...]:
    commands: list[str] = []

    def perform(action: Action) -> None:
        command = action.command(prefix)
        say(f"setting up: {action.title}\n    $ {command}")
        commands.append(command)
        for _ in range(action.attempts):
            output = shell.run([*prefix, *action.argv], text=action.text, timeout=_LOCK_SECONDS)
            if output.ok or action.optional:
                return
            shell.sleep(_PAUSE_SECONDS)
        raise _failed(action.title, command, output.how, output.last_lines())

    host = inspect(settings, shell)
    if actions.wants_packages(host, shell):
        # An apt that outlived its crossjit may hold the lock in the first round and then die of its closed standard
        # output, which leaves dpkg interrupted again.
        for last in (False, False, True):
            for action in actions.recovery(shell):
                perform(action if last else replace(action, optional=True))
        for action in actions.update():
            perform(action)
    offered = actions.catalogue(shell, host.distribution.codename)
    for stage in stages:
        host = inspect(settings, shell)
        if stage is actions.updates:
            host = with_updates(host, shell)
        _perform_all(stage(host, offered, shell), perform)
        if stage in (actions.daemon, actions.access):
            _await_engine(settings, shell, prefix, say)
    if any("usermod" in command for command in commands):
        say(
            f"{shell.user} is in the group docker from the next login on; until then the engine's socket is open to you"
        )
    return tuple(commands)


def _perform_all(planned: Sequence[Action], perform: Callable[[Action], None]) -> None:
    """Perform actions in order; if one fails, perform only the cleanup actions after it."""
    for number, action in enumerate(planned):
        try:
            perform(action)
        except InfrastructureError:
            for later in planned[number + 1 :]:
                if later.cleanup:
                    perform(replace(later, optional=True))
            raise


def _await_engine(settings: Settings, shell: Shell, prefix: tuple[str, ...], say: Say) -> None:
    """Wait until the engine answers or denies access, which shows that it is running."""
    host = inspect(settings, shell)
    engine = host.engine
    if engine.version or engine.denied or engine.elsewhere or engine.name != "docker" or engine.client is None:
        return
    say("waiting for the engine to answer")
    waited, pause = 0.0, 0.25
    while waited < _ANSWER_SECONDS:
        shell.sleep(pause)
        waited += pause
        pause = min(pause * 1.5, 2.0)
        engine = inspect(settings, shell).engine
        if engine.version or engine.denied:
            return
    journal = ["journalctl", "-u", "docker", "-n", "15", "--no-pager"]
    command = journal if host.service_manager else ["tail", "-n", "15", actions.DAEMON_LOG]
    log = shell.run([*prefix, *command], timeout=30)
    raise InfrastructureError(
        f"the engine does not answer {_ANSWER_SECONDS:.0f} s after it was started",
        hint=f"see {shlex.join(command)}",
        details=log.last_lines(),
    )


@contextlib.contextmanager
def _alone(settings: Settings, say: Say) -> Iterator[None]:
    """Hold the lock against a second setup of the same user (apt and dpkg have their own locks against others)."""
    with locks.locked(
        settings.locks / "host.lock",
        errors=lambda: _locking(settings.locks),
        on_wait=lambda: say("another crossjit is setting this host up; waiting for it"),
        timeout=_LOCK_SECONDS,
    ):
        yield


@contextlib.contextmanager
def _locking(folder: Path) -> Iterator[None]:
    """Turn errors in locking into InfrastructureErrors."""
    try:
        yield
    except filelock.Timeout as error:
        raise InfrastructureError(
            f"another crossjit has been setting this host up for {_LOCK_SECONDS:.0f} s", hint="stop it"
        ) from error
    except OSError as error:
        raise InfrastructureError(
            f"{folder} cannot be written: {error.strerror}", hint="set CROSSJIT_HOME to a folder of yours"
        ) from error


def _failed(title: str, command: str, how: str, lines: tuple[str, ...]) -> InfrastructureError:
    return InfrastructureError(
        f"{title} failed: {how}",
        hint=f"fix the cause, then run {FIX} again: it continues where it stopped",
        details=(f"$ {command}", *lines),
    )


def _not_able(lacks: Sequence[Check], where: str = "this host", *, hint: str) -> InfrastructureError:
    lines = tuple(f"{check.name}: {check.found}" + "".join(f"\n    {line}" for line in check.remedy) for check in lacks)
    names = ", ".join(check.name for check in lacks)
    return InfrastructureError(f"{where} lacks {names}", hint=hint, details=lines)


def _place(host: HostInfo) -> str:
    """Name where the engine is."""
    return f"{host.engine.name} at {host.engine.elsewhere}" if host.engine.elsewhere else "this host"
