"""Making a Debian or Ubuntu host able: whom to ask, doing it stage by stage, and waiting for the engine."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import filelock

from crossjit import PROGRAM
from crossjit.errors import InfrastructureError
from crossjit.host import actions
from crossjit.host.actions import Action
from crossjit.host.checks import FIX, Check, Status, checks, missing
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
    SUDO = "sudo"  # asks nothing
    ASK = "ask"  # sudo asks for a password, and there is somebody to ask
    NONE = "none"


@dataclass(frozen=True)
class Repair:
    """What was done to the host (commands, in order; none if nothing had to be) and how it is now."""

    commands: tuple[str, ...]
    host: HostInfo

    @property
    def checks(self) -> tuple[Check, ...]:
        """What is to be said of it."""
        return checks(self.host)

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return bool(self.commands)

    @property
    def able(self) -> bool:
        """Whether no check fails now."""
        return all(check.status is not Status.FAIL for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """Return it as JSON's types."""
        return {"commands": list(self.commands), "checks": [check.to_json() for check in self.checks]}


def check(settings: Settings, *, shell: Shell | None = None) -> tuple[Check, ...]:
    """Look at the host and judge it; changes nothing and raises nothing."""
    shell = shell or LocalShell()
    return checks(with_updates(inspect(settings, shell), shell))


def ensure(
    settings: Settings,
    consent: Confirm | None,
    say: Say,
    *,
    arches: Sequence[Arch] = tuple(Arch),
    bootstrap: bool = False,
    shell: Shell | None = None,
) -> Repair:
    """See to it that `arches` can be built and run here; `bootstrap` that base images can be made without a registry.

    Takes a tenth of a second where all is well. Else it repairs if `settings.prepare`, with `consent` (None: nobody can
    be asked). Raises InfrastructureError if something is missing and is not to be, or cannot be, mended.
    """
    shell = shell or LocalShell()
    host = inspect(settings, shell)
    lacks = missing(host, tuple(arches), bootstrap=bootstrap)
    if not lacks:
        return Repair((), host)
    _require_an_engine_of_ours(host)
    if not settings.prepare:
        raise _not_able(lacks, hint=f"{FIX} fixes it on Debian and Ubuntu; {PROGRAM} doctor has details")
    done = setup(settings, consent, say, shell=shell)
    lacks = missing(done.host, tuple(arches), bootstrap=bootstrap)
    if lacks:
        raise _not_able(lacks, hint=f"{PROGRAM} doctor has details")
    return done


def setup(
    settings: Settings, consent: Confirm | None, say: Say, *, updates: bool = False, shell: Shell | None = None
) -> Repair:
    """Make the host able to build and run everything, on Debian and Ubuntu; do nothing where it is already.

    `consent` is asked once, with the commands, where sudo would want a password; None means that nobody can be asked.
    `say` gets every command that is run. An engine that works is never replaced or restarted. `updates` has apt told
    where updates of an engine come from that was installed from a newer suite. What an interrupted repair left is
    taken up again. Raises InfrastructureError with the commands as details where they may
    not be run here, or with the last lines of the one that failed.
    """
    shell = shell or LocalShell()
    host = with_updates(inspect(settings, shell), shell)
    _require_an_engine_of_ours(host)
    stages = (*actions.STAGES, *([actions.updates] if updates else []))
    if not _work(host, shell) and not (updates and host.no_updates):
        say("nothing to do: this host has everything that crossjit needs")
        return Repair((), host)
    if not host.distribution.apt:
        lacks = tuple(each for each in checks(host) if each.status is Status.FAIL and each.name not in tuple(Arch))
        raise _not_able(lacks, hint=f"crossjit sets up Debian and Ubuntu by itself; this is {host.distribution.name}")
    offered = actions.catalogue(shell, host.distribution.codename)
    prefix = _authority(host, offered, shell, consent, stages)
    with _alone(settings, say):
        commands = _carry_out(settings, shell, prefix, say, stages)
    after = with_updates(inspect(settings, shell), shell)
    lacks = tuple(each for each in missing(after, tuple(Arch), bootstrap=True))
    if lacks:
        raise _not_able(lacks, hint=f"the steps done so far are kept; {PROGRAM} doctor has details")
    return Repair(commands, after)


def _require_an_engine_of_ours(host: HostInfo) -> None:
    """Raise InfrastructureError if the client is set to an engine elsewhere that does not answer.

    Nothing that could be installed or started here would help.
    """
    engine = host.engine
    if engine.elsewhere and engine.client is not None and engine.version is None:
        raise InfrastructureError(
            f"the container engine ({engine.name} at {engine.elsewhere}) does not answer",
            hint=engine.endpoint.hint,
            details=(engine.problem,) if engine.problem else (),
        )


def rights(shell: Shell, consent: Confirm | None) -> Rights:
    """Find out how commands that change the host can be run."""
    if shell.is_root:
        return Rights.ROOT
    if shell.which("sudo") is None:
        return Rights.NONE
    if shell.run(["sudo", "-n", "true"], timeout=10).ok:
        return Rights.SUDO
    return Rights.ASK if consent else Rights.NONE


def _work(host: HostInfo, shell: Shell) -> bool:
    """Whether there is anything that a repair would do."""
    return bool(missing(host, tuple(Arch), bootstrap=True)) or actions.wants_packages(host, shell)


def _authority(
    host: HostInfo, offered: actions.AptIndex, shell: Shell, consent: Confirm | None, stages: Sequence[actions.Stage]
) -> tuple[str, ...]:
    """Return what to put before each command. Raises InfrastructureError with the commands if nobody lets us."""
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
    if not consent("To set this host up, crossjit would run:\n" + "\n".join(f"  {each}" for each in commands)):
        raise InfrastructureError("setup declined", hint="these commands would set up this host", details=commands)
    output = shell.run(["sudo", "-v"])  # asks for the password on the terminal
    if not output.ok:
        raise _failed("getting root access", "sudo -v", output.how, output.last_lines())
    return ("sudo",)


def _forecast(host: HostInfo, offered: actions.AptIndex, shell: Shell, stages: Sequence[actions.Stage]) -> list[Action]:
    """List what would be done as things are now; later stages may find that an earlier one did their part."""
    planned = [*actions.recovery(shell), *actions.update()] if actions.wants_packages(host, shell) else []
    for stage in stages:
        planned += stage(host, offered, shell)
    return planned


def _carry_out(
    settings: Settings, shell: Shell, prefix: tuple[str, ...], say: Say, stages: Sequence[actions.Stage]
) -> tuple[str, ...]:
    done: list[str] = []

    def perform(action: Action) -> None:
        command = action.command(prefix)
        say(f"setting up: {action.title}\n    $ {command}")
        done.append(command)
        for _ in range(action.attempts):
            output = shell.run([*prefix, *action.argv], text=action.text, timeout=_LOCK_SECONDS)
            if output.ok or action.optional:
                return
            shell.sleep(_PAUSE_SECONDS)
        raise _failed(action.title, command, output.how, output.last_lines())

    host = inspect(settings, shell)
    if actions.wants_packages(host, shell):
        # An apt that outlived the crossjit that started it may hold the lock in the first round, and die of its closed
        # standard output just then, which leaves dpkg interrupted again.
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
    if any("usermod" in command for command in done):
        say(
            f"{shell.user} is in the group docker from the next login on; until then the engine's socket is open to you"
        )
    return tuple(done)


def _perform_all(planned: Sequence[Action], perform: Callable[[Action], None]) -> None:
    """Perform actions in order; where one fails, those that clean up after it are left to do."""
    for number, action in enumerate(planned):
        try:
            perform(action)
        except InfrastructureError:
            for left in planned[number + 1 :]:
                if left.cleanup:
                    perform(replace(left, optional=True))
            raise


def _await_engine(settings: Settings, shell: Shell, prefix: tuple[str, ...], say: Say) -> None:
    """Wait until the engine answers, or denies access, which it only does when it is there."""
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
    where = ["journalctl", "-u", "docker", "-n", "15", "--no-pager"]
    command = where if host.service_manager else ["tail", "-n", "15", actions.DAEMON_LOG]
    log = shell.run([*prefix, *command], timeout=30)
    raise InfrastructureError(
        f"the engine does not answer {_ANSWER_SECONDS:.0f} s after it was started",
        hint=f"see {shlex.join(command)}",
        details=log.last_lines(),
    )


@contextlib.contextmanager
def _alone(settings: Settings, say: Say) -> Iterator[None]:
    """Take the lock that keeps two repairs of one user apart (apt and dpkg have their own against the others)."""
    with locks.locked(
        settings.locks / "host.lock",
        errors=lambda: _locking(settings.locks),
        on_wait=lambda: say("another crossjit is setting this host up; waiting for it"),
        timeout=_LOCK_SECONDS,
    ):
        yield


@contextlib.contextmanager
def _locking(folder: Path) -> Iterator[None]:
    """Turn what keeps us from locking into our errors."""
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


def _not_able(lacks: Sequence[Check], *, hint: str) -> InfrastructureError:
    lines = tuple(f"{each.name}: {each.found}" + "".join(f"\n    {line}" for line in each.remedy) for each in lacks)
    return InfrastructureError(f"this host lacks {', '.join(each.name for each in lacks)}", hint=hint, details=lines)
