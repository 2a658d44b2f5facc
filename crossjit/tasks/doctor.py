"""`doctor` and `setup`: what this host can do, and making it able."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit.errors import ExitCode
from crossjit.tasks.framework import asker, command, note, show, show_json, show_table
from crossjit.tasks.options import describe

if TYPE_CHECKING:
    from crossjit.host import Check


@command(help=describe("json", fix="make this host able (Debian and Ubuntu); default: only look"))
def doctor(context: Context, fix: bool = False, json: bool = False) -> ExitCode:
    """Tell what this host can build and run.

    Natively, cross and emulated, and why not. Each failing line comes with its remedy. Ends with 3 if anything fails.
    """
    from crossjit import host, settings

    if fix:
        return _mend(json)
    found = host.check(settings.load())
    if json:
        show_json({"checks": [check.to_json() for check in found]})
    else:
        _show_checks(found)
    return _judge(found)


@command(
    help=describe(
        "json",
        updates="have apt know where updates of an engine come from that was installed from a newer suite of Debian "
        "(a source, pinned to its packages); default: leave apt's sources alone",
    )
)
def setup(context: Context, json: bool = False, updates: bool = False) -> ExitCode:
    """Make this host able: `doctor --fix`.

    On Debian and Ubuntu it installs an engine with buildx and QEMU with binfmt, and starts the engine where no service
    manager does. As root, or with sudo that asks nothing, it goes ahead and says what it does; at a terminal it asks
    first; else it prints the commands and stops. An engine that works is left alone.
    """
    return _mend(json, updates=updates)


def _mend(json: bool, *, updates: bool = False) -> ExitCode:
    from crossjit import host, settings

    done = host.setup(settings.load(), asker(), note, updates=updates)
    if json:
        show_json(done.to_json())
    else:
        _show_checks(done.checks)
    return _judge(done.checks)


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
