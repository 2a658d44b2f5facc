"""Facts about a build and a host, each with a name and a text; and the changes between two sets of them."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from crossjit.model import SuiteResult
from crossjit.util.text import pluralize, size


@dataclass(frozen=True)
class Fact:
    """A fact, as text."""

    name: str
    value: str


@dataclass(frozen=True)
class Capability:
    """The result of a feature check in the target: whether something works there, None if unknown."""

    name: str
    works: bool | None
    detail: str


@dataclass(frozen=True)
class Change:
    """A changed fact; None where it is unknown."""

    name: str
    before: str | None
    after: str | None


def of_probe(probe: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Return the probe's facts, in an order for people, without unknown ones."""
    if "crashed" in probe:
        return (Fact("the probe", str(probe["crashed"])),)
    return _formatted(_PROBE, probe)


def of_run(facts: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Return a run record's facts about versions and the host."""
    return _formatted(_RUN, facts)


def capabilities(suite: SuiteResult) -> tuple[Capability, ...]:
    """Return the capabilities of a suite's target, those that do not work first."""
    recorded: Mapping[str, Any] = suite.capabilities
    listed = (
        Capability(str(name), fact.get("works"), str(fact.get("detail") or ""))
        for name, fact in recorded.items()
        if isinstance(fact, Mapping)
    )
    return tuple(sorted(listed, key=lambda item: (item.works is True, item.works is None, item.name)))


Formatter = Callable[[Mapping[str, Any]], str | None]


def _formatted(registry: Mapping[str, Formatter], facts: Mapping[str, Any]) -> tuple[Fact, ...]:
    formatted = []
    for name, formatter in registry.items():
        # the record may have a different version, or untrusted content
        with contextlib.suppress(KeyError, TypeError, AttributeError, ValueError, IndexError):
            value = formatter(facts)
            if value:
                formatted.append(Fact(name, value))
    return tuple(formatted)


def _version(probe: Mapping[str, Any]) -> str:
    return str(probe["version"]["text"]).replace("\n", " ")


def _machine_code(probe: Mapping[str, Any]) -> str:
    executors = [executor for workload in probe["workloads"] for executor in workload["executors"]]
    sizes = [executor["bytes"] for executor in executors if executor["kind"] == "machine code"]
    uops = len(executors) - len(sizes)
    parts = [f"{pluralize(len(sizes), 'executor')} with {sum(sizes):,} bytes of machine code"] if sizes else []
    parts += [f"{pluralize(uops, 'executor')} of the tier-2 interpreter"] if uops else []
    return ", ".join(parts) or "no machine code: the hot loops made no executor"


def _jit(probe: Mapping[str, Any]) -> str:
    if probe["jit"] is None:
        return "this version has no sys._jit to ask"
    available, enabled = probe["jit"]["available"], probe["jit"]["enabled"]
    return ("built in and on" if enabled else "built in, but off") if available else "not built in"


def _gil(probe: Mapping[str, Any]) -> str:
    built, on = not probe["gil"]["disabled_in_build"], probe["gil"]["enabled"]
    state = "on" if on else "off"
    again = probe.get("gil_after_imports") or {}
    if not built and not on and again.get("enabled"):
        state = "off, and on after all modules were imported"
    return f"part of the build, {state}" if built else f"a free-threaded build, {state}"


def _emulated(probe: Mapping[str, Any]) -> str:
    settings = probe["told"]
    if not settings["emulated"]:
        return "no: this ran on its own architecture"
    return "by QEMU" + (f", as {settings['cpu']}" if settings.get("cpu") else "")


def _environment(probe: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in probe["environment"].items())


def _modules(probe: Mapping[str, Any]) -> str:
    modules = probe["modules"]
    parts = [f"{len(modules['imported'])} imported"]
    parts += [f"failed: {', '.join(modules['failed'])}"] if modules["failed"] else []
    parts += [f"absent: {', '.join(modules['absent'])}"] if modules["absent"] else []
    return "; ".join(parts)


def _engine(facts: Mapping[str, Any]) -> str:
    if several := facts.get("engines"):
        return "; ".join(f"{name}: {_one_engine(each['engine'])}" for name, each in several.items())
    return _one_engine(facts["engine"])


def _one_engine(engine: Mapping[str, Any]) -> str:
    return (
        f"{engine['name']} {engine['version']}, {engine['arch']}, {pluralize(engine['cores'], 'core')}, "
        f"{size(engine['memory'])}"
    )


def _emulators(facts: Mapping[str, Any]) -> str:
    abilities = {f"{name}: ": each["ability"] for name, each in facts.get("engines", {}).items()}
    return ", ".join(
        f"{where}{arch}: QEMU {emulator['version'] or 'of an unknown version'}, by default as {emulator['cpu']}"
        for where, ability in (abilities or {"": facts["ability"]}).items()
        for arch, emulator in ability["emulators"].items()
    )


_PROBE: Mapping[str, Formatter] = {
    "Python": _version,
    "machine code": _machine_code,
    "JIT": _jit,
    "GIL": _gil,
    "executable": lambda probe: f"{probe['executable']['machine']}, {probe['executable']['bits']} bits",
    "emulated": _emulated,
    "debug build": lambda probe: "yes" if probe["debug"] else "no",
    "compiler": lambda probe: str(probe["compiler"]),
    "C library": lambda probe: str(probe["libc"]),
    "configured with": lambda probe: str(probe["configure"]),
    "environment": _environment,
    "extension modules": _modules,
    "unknown": lambda probe: ", ".join(probe["errors"]),
}

_RUN: Mapping[str, Formatter] = {
    "crossjit": lambda facts: str(facts["crossjit"]),
    "engine": _engine,
    "buildx": lambda facts: str(facts["engine"]["buildx"] or ""),
    "emulators": _emulators,
}

# Facts that differ between any two runs and are not compared.
VOLATILE = (
    "probe.workloads.*.seconds",
    "probe.steps_active",
    "probe.executable_memory.bytes",
    "probe.executable_memory.regions",
    "probe.errors.*",
    "probe.output.*",
    "run.engine.memory",
    "run.attempt",
    "run.merged",
)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Compare two trees of facts; return every changed leaf by its path, such as `probe.libc`.

    Lists of words are compared as sets, and shown as the words that only one of them has.
    """
    old, new = dict(_leaves(before)), dict(_leaves(after))
    changes = []
    for path in dict.fromkeys((*old, *new)):
        if old.get(path) == new.get(path) or any(fnmatch.fnmatchcase(path, pattern) for pattern in VOLATILE):
            continue
        changes.append(_change(path, old.get(path), new.get(path)))
    return tuple(changes)


def _change(path: str, before: object, after: object) -> Change:
    if isinstance(before, tuple) and isinstance(after, tuple):
        removed, added = sorted(set(before) - set(after)), sorted(set(after) - set(before))
        if removed or added:
            return Change(path, ", ".join(removed) or "without", ", ".join(added) or "without")
    return Change(path, _text(before), _text(after))


def _text(value: object) -> str | None:
    if value is None:
        return None
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield every leaf of a tree of JSON values with its path; a list of words is a leaf."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, (list, tuple)):
        if all(isinstance(item, str) for item in value):
            yield path, tuple(value)
        else:
            for number, inner in enumerate(value):
                yield from _leaves(inner, f"{path}.{number}")
    elif value is not None:
        yield path, value
