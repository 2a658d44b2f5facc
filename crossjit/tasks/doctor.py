"""`doctor` and `setup`: checking what this host can do, and setting it up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit.errors import EngineError, ExitCode
from crossjit.tasks.framework import asker, command, note, show, show_json, show_table
from crossjit.tasks.options import describe

if TYPE_CHECKING:
    from crossjit.host import Check, HostInfo
    from crossjit.settings import Settings


@command(help=describe("json", fix="install and configure what is missing (Debian and Ubuntu); default: only look"))
def doctor(context: Context, fix: bool = False, json: bool = False) -> ExitCode:
    """Say what this host can build and run: natively, with a cross compiler, and emulated; with several engines, each.

    An engine on a different machine is asked by starting a tiny program of each architecture in a container. Each line
    that fails comes with its remedy. Ends with 3 if anything fails.
    """
    from crossjit import host, settings

    if fix:
        return _fix(json)
    checks = (_settings(), *host.check(settings.load(), ask=_asked))
    if json:
        show_json({"checks": [check.to_json() for check in checks]})
    else:
        _show_checks(checks)
    return _judge(checks)


@command(
    help=describe(
        "json",
        updates="if the engine was installed from a newer suite of Debian, add that suite to apt's sources, pinned to "
        "the engine's packages, so that it gets updates; default: leave apt's sources alone",
    )
)
def setup(context: Context, json: bool = False, updates: bool = False) -> ExitCode:
    """Install and configure what is missing on this host, as `doctor --fix` does.

    On Debian and Ubuntu it installs an engine with buildx, and QEMU with binfmt, and starts the engine if no service
    manager does. As root, or with a sudo that needs no password, it prints each command and runs it; at a terminal it
    asks first; otherwise it prints the commands and stops. An engine that works is left alone.
    """
    return _fix(json, updates=updates)


def _asked(settings: Settings, info: HostInfo) -> HostInfo:
    """Ask an engine elsewhere what it can run; one that fails at that can run nothing but its own arch."""
    from crossjit import engine
    from crossjit.tasks import engines

    try:
        return engines.asked(settings, engine.connect(settings), info)
    except EngineError as error:
        note(error.message)
        return info


def _settings() -> Check:
    """Report the configuration files that are read."""
    from crossjit import settings
    from crossjit.host import Check, Status

    read = [str(file.path) for file in settings.files() if file.exists]
    return Check("settings", Status.OK, ", ".join(read) or "no configuration file; `config show` lists them")


def _fix(json: bool, *, updates: bool = False) -> ExitCode:
    from crossjit import host, settings

    each = settings.load().each_engine
    own = next((one for one in each if not (one.engines and one.engines[0].address)), each[0])
    repair = host.setup(own, asker(), note, updates=updates)
    repair = replace(repair, host=_asked(own, repair.host))
    if json:
        show_json(repair.to_json())
    else:
        _show_checks(repair.checks)
    return _judge(repair.checks)


def _judge(checks: Iterable[Check]) -> ExitCode:
    from crossjit.host import Status

    return ExitCode.INFRASTRUCTURE if any(check.status is Status.FAIL for check in checks) else ExitCode.PASS


def _show_checks(checks: Iterable[Check]) -> None:
    from crossjit.host import Status

    listed = tuple(checks)
    show_table(("what", "is", "found"), [(check.name, check.status.value, check.found) for check in listed])
    for check in listed:
        if check.status is not Status.OK:
            needed = f", needed for {check.needed_for}" if check.needed_for else ""
            show(f"\n{check.name}: {check.found}{needed}")
            for line in check.remedy:
                show(f"    {line}")
