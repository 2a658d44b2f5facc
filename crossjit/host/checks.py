"""Turns the inspected host into a list of checks; pure functions."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from crossjit import PROGRAM
from crossjit.engine.base import DELEGATE, HOST
from crossjit.host import without_containers
from crossjit.host.check import Check, Status
from crossjit.host.inspect import HostInfo, number
from crossjit.model import Arch

BUILDX = (0, 10)  # has --provenance=false, without which the result is an image index
ENGINE = (23,)  # older versions ignore `docker import --platform`
ENGINE_DISK, STATE = "disk: engine", "disk: state"
GIB = 1 << 30
BUILD_BYTES = 3 * GIB  # one cell's build, with its images
EASY_BYTES = 10 * GIB
EASY_MEMORY = 4 * GIB
FIX = f"{PROGRAM} doctor --fix"
_NOT_THERE = "the engine's machine runs no programs of it"
_THERE = "register a static QEMU with binfmt and flag F on the engine's machine"


def checks(host: HostInfo) -> tuple[Check, ...]:
    """Return all checks of a host."""
    if host.engine.name == HOST:
        return (_python(), *_own_tools(host), _space(*_state_disk(host)))
    return (
        _python(),
        *_engine(host),
        *_updates(host),
        *(check for arch in host.foreign for check in _emulator(host, arch)),
        *_tools(host),
        *_room(host),
        *(_arch(host, arch) for arch in Arch),
    )


def checks_of_several(hosts: Mapping[str, HostInfo]) -> tuple[Check, ...]:
    """Return the checks of several engines by their names: this machine's once, each engine's, and each arch's.

    An emulator is only looked for where no engine is native.
    """
    first = next(iter(hosts.values()))
    native = {host.ability.arch for host in hosts.values() if host.ability and host.engine.version}
    room = _room(first)
    return (
        _python(),
        *_tools(first),
        *(check for check in room if check.name == STATE),
        *(
            replace(check, name=f"{name}: {check.name}")
            for name, host in hosts.items()
            for check in _of_engine(host, [arch for arch in host.foreign if arch not in native])
        ),
        *(_arch_of_several(hosts, arch) for arch in Arch),
    )


def _of_engine(host: HostInfo, emulated: Sequence[Arch]) -> Iterator[Check]:
    yield from _engine(host)
    if host.engine.version is not None:
        yield from (check for arch in emulated for check in _emulator(host, arch))
        yield from (check for check in _room(host) if check.name != STATE and not _is_hidden(host, check))


def _is_hidden(host: HostInfo, check: Check) -> bool:
    """Whether a check is about the disk of an engine on another machine, which cannot be seen from here."""
    return check.name == ENGINE_DISK and host.engine_free is None and bool(host.engine.elsewhere)


def _arch_of_several(hosts: Mapping[str, HostInfo], arch: Arch) -> Check:
    """Report what the engines together can do for an arch."""
    results = {name: _arch(host, arch) for name, host in hosts.items()}
    able = {name: check for name, check in results.items() if check.status is not Status.FAIL}
    shown = able or results
    found = "; ".join(f"{name}: {check.found}" for name, check in shown.items())
    remedies = dict.fromkeys(line for check in shown.values() for line in check.remedy)
    return Check(str(arch), Status.OK if able else Status.FAIL, found, tuple(remedies), "what the engines can do")


def missing(host: HostInfo, arches: tuple[Arch, ...], *, bootstrap: bool = False) -> tuple[Check, ...]:
    """Return the failed checks that prevent building and running these archs here, except disk and memory.

    `bootstrap` adds the tools for making a base image without a registry.
    """
    if host.engine.name == HOST:
        return tuple(check for check in _own_tools(host) if check.status is Status.FAIL and check.name not in _PARTIAL)
    results = [*_engine(host)]
    results += [check for arch in host.foreign if arch in arches for check in _emulator(host, arch)]
    if bootstrap:
        results += [
            Check(check.name, Status.FAIL, check.found, check.remedy, check.needed_for)
            if check.status is Status.WARN
            else check
            for check in _tools(host)
        ]
    return tuple(check for check in results if check.status is Status.FAIL)


_PARTIAL = ("LLVM",)  # some variants do without it; those that do not say so


def _own_tools(host: HostInfo) -> Iterator[Check]:
    """Check the host as an engine without containers."""
    if host.own_tools is None:
        found = f"crossjit does not support {host.distribution.name} on {host.machine}"
        yield Check("machine", Status.FAIL, found, ("use Linux or macOS on a machine that it knows",), "everything")
        return
    yield from without_containers.checks(host.own_tools)


def _python() -> Check:
    enough = sys.version_info >= (3, 11)
    return Check(
        "Python",
        Status.OK if enough else Status.FAIL,
        platform.python_version(),
        () if enough else ("install Python 3.11 or later",),
        "crossjit itself",
    )


def _engine(host: HostInfo) -> Iterator[Check]:
    engine = host.engine
    client, daemon, buildx = (f"{engine.name} client", f"{engine.name} engine", "buildx")
    if engine.client is None:
        yield Check(client, Status.FAIL, "not installed", _install(host, engine.name), "everything that runs")
    else:
        yield Check(client, Status.OK, engine.client, (), "everything that runs")
    if engine.version is None:
        yield Check(daemon, Status.FAIL, engine.problem or "not running", _start(host), "everything that runs")
    else:
        location = "" if host.ability is None or host.ability.local else f", on another machine ({engine.system})"
        parts = (engine.version, engine.arch or "unknown arch", f"cgroup v{engine.cgroup}", engine.storage)
        found = ", ".join((*parts, *engine.traits)) + location
        if engine.unlimited:
            found += f": cannot limit {' and '.join(engine.unlimited)}"
            yield Check(daemon, Status.FAIL, found, (DELEGATE,), "everything that runs")
        elif engine.arch is None:
            remedy: tuple[str, ...] = (f"use an engine on a machine of {' or '.join(Arch)}",)
            yield Check(daemon, Status.FAIL, found, remedy, "everything that runs")
        elif engine.name == "docker" and number(engine.version) < ENGINE:
            yield Check(
                daemon, Status.WARN, found, ("upgrade it to 23.0 or later: older versions are not tested",), "building"
            )
        elif engine.storage == "vfs":
            yield Check(
                daemon, Status.WARN, found, ("vfs copies every layer: use overlay2 where the kernel has it",), "speed"
            )
        else:
            yield Check(daemon, Status.OK, found, (), "everything that runs")
    if engine.name == "docker":
        if not number(engine.buildx):
            found = engine.buildx or "not installed"
            yield Check(buildx, Status.FAIL, found, _install(host, "buildx"), "building images")
        elif number(engine.buildx) < BUILDX:
            yield Check(
                buildx, Status.FAIL, f"{engine.buildx}: too old", ("upgrade it to 0.10 or later",), "building images"
            )
        else:
            yield Check(buildx, Status.OK, engine.buildx or "", (), "building images")


def _updates(host: HostInfo) -> Iterator[Check]:
    """Warn about engine packages that apt cannot update, because their suite is not one of its sources."""
    if host.no_updates:
        found = f"apt has no source for {', '.join(host.no_updates)}: no security update will come"
        remedy = (
            f"{PROGRAM} setup --updates: adds the suite they came from, pinned to them; or add their source by hand"
        )
        yield Check("engine updates", Status.WARN, found, (remedy,))


def _emulator(host: HostInfo, arch: Arch) -> Iterator[Check]:
    name, qemu, purpose = f"binfmt {arch}", f"QEMU {arch}", f"running {arch}: its probe, its suites, --strategy emulate"
    emulator = host.ability.emulators.get(arch) if host.ability else None
    if host.ability is None or not host.ability.local:
        found = f"QEMU {emulator.version or 'or an equal'}, tried in the engine" if emulator else _NOT_THERE
        yield Check(name, Status.OK if emulator else Status.WARN, found, () if emulator else (_THERE,), purpose)
        return
    if emulator is None:
        found = "no handler registered" if host.binfmt_mounted else "binfmt_misc is not mounted"
        yield Check(name, Status.FAIL, found, _install(host, "qemu"), purpose)
        return
    if not emulator.enabled:
        yield Check(name, Status.FAIL, "its handler is disabled", _fix(host, "enable it in binfmt_misc"), purpose)
    elif not emulator.fixed:
        found = "its handler has no flag F, so that containers look for QEMU inside themselves"
        yield Check(name, Status.FAIL, found, _fix(host, "register a static QEMU with flag F"), purpose)
    else:
        yield Check(name, Status.OK, f"{emulator.interpreter}, usable in containers", (), purpose)
    if emulator.version is None:
        found = f"of unknown version: {emulator.interpreter} cannot be seen from here"
        yield Check(qemu, Status.WARN, found, _install(host, "qemu"), "checking --cpu, recording the version")
    else:
        yield Check(qemu, Status.OK, f"{emulator.version}, emulates {emulator.cpu}", (), purpose)


def _tools(host: HostInfo) -> Iterator[Check]:
    for tool, path in host.tools.items():
        purpose = "base images where no image registry can be reached"
        if path:
            yield Check(tool, Status.OK, path, (), purpose)
        else:
            yield Check(tool, Status.WARN, "not installed", _install(host, tool), purpose)


def _room(host: HostInfo) -> Iterator[Check]:
    yield _space(ENGINE_DISK, host.engine_free, f"free some: {PROGRAM} clean, docker system df")
    yield _space(*_state_disk(host))
    engine = host.engine
    if engine.version is not None:
        low = engine.memory < EASY_MEMORY
        fewer = ("CROSSJIT_JOBS=1",) if low else ()
        yield Check("memory", Status.WARN if low else Status.OK, _size(engine.memory), fewer, "compiling in parallel")
        yield Check("cores", Status.OK, str(engine.cores), (), "compiling in parallel")


def _state_disk(host: HostInfo) -> tuple[str, int | None, str]:
    return STATE, host.home_free, f"free some ({PROGRAM} stash gc), or point CROSSJIT_HOME elsewhere"


def _space(name: str, free: int | None, remedy: str) -> Check:
    """Check the free bytes of a disk."""
    if free is None:
        return Check(name, Status.WARN, "unknown", (), "a build needs about 3 GiB")
    status = Status.FAIL if free < BUILD_BYTES else Status.WARN if free < EASY_BYTES else Status.OK
    fixes = () if status is Status.OK else (remedy,)
    return Check(name, status, f"{_size(free)} free", fixes, "a build needs about 3 GiB")


def _arch(host: HostInfo, arch: Arch) -> Check:
    """Report what this host can do for an arch, and why not the rest."""
    purpose = "what this host can do"
    blockers = [check.name for check in _engine(host) if check.status is Status.FAIL]
    if blockers or host.ability is None:
        why = f"needs {', '.join(blockers)}" if blockers else f"crossjit does not support {host.machine}"
        remedy: tuple[str, ...] = ("fix what fails above",) if blockers else ()
        return Check(str(arch), Status.FAIL, f"nothing: {why}", remedy, purpose)
    if arch is host.ability.arch:
        return Check(str(arch), Status.OK, "native (nothing to cross or emulate: it is the host's own)", (), purpose)
    if not host.ability.runs(arch):
        found = "cross, but without its probe and suites; not emulate: no binfmt handler that containers can use"
        remedy = _fix(host, "fix the failed checks above") if host.ability.local else (_THERE,)
        return Check(str(arch), Status.FAIL, found, remedy, purpose)
    found = f"cross, emulate (as {host.ability.emulators[arch].cpu}); not native: the host is {host.ability.arch}"
    return Check(str(arch), Status.OK, found, (), purpose)


def _fix(host: HostInfo, otherwise: str) -> tuple[str, ...]:
    return (FIX,) if host.distribution.apt else (otherwise,)


def _install(host: HostInfo, what: str) -> tuple[str, ...]:
    """Return how to install it: with crossjit on Debian and Ubuntu, elsewhere with the distribution's tools."""
    if host.engine.elsewhere and what in ("docker", "buildx"):
        return (f"install Docker's command line with its buildx plugin; the engine is at {host.engine.elsewhere}",)
    if host.distribution.apt:
        return (FIX,)
    if host.distribution.id == "fedora":
        packages = {"docker": "moby-engine docker-buildx", "buildx": "docker-buildx", "qemu": "qemu-user-static"}
        return (f"sudo dnf install {packages.get(what, what)}",)
    return {
        "docker": ("install Docker Engine 23 or later with buildx: https://docs.docker.com/engine/install/",),
        "buildx": ("install the buildx plugin: https://github.com/docker/buildx",),
        "qemu": ("install a static QEMU that registers itself with binfmt_misc and flag F (often `qemu-user-static`)",),
    }.get(what, (f"install {what} with the system's package manager",))


def _start(host: HostInfo) -> tuple[str, ...]:
    engine = host.engine
    if engine.elsewhere:
        return (f"the client talks to {engine.elsewhere}: {engine.endpoint.hint}",)
    if host.distribution.apt:
        return (FIX,)
    if engine.denied:
        return ("sudo usermod -aG docker $USER", "then log in again")
    if host.service_manager:
        return ("sudo systemctl enable --now docker",)
    return ("start it: Docker Desktop, or `dockerd` as root",)


def _size(number_of_bytes: int) -> str:
    return f"{number_of_bytes / GIB:.1f} GiB"
