"""The environment that a suite runs in, and conditions on it: versions, archs, variants, emulation, capabilities."""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

import pydantic
from packaging.specifiers import SpecifierSet

import crossjit
from crossjit.config import documents
from crossjit.errors import did_you_mean
from crossjit.model import NO_OPTIMIZER, Arch, Expectation, Variant

Version = tuple[int, ...]

_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*\d+(\.\d+)+\s*")


@dataclass(frozen=True)
class TargetEnvironment:
    """The environment that a suite runs in.

    `cpu` is the model that QEMU emulates, None without emulation. `qemu` is its version (`7.2.22`), None without
    emulation or if unknown. `capabilities` are those probed in the target: whether it has them.
    """

    python: tuple[int, int]
    arch: Arch
    variant: Variant
    emulated: bool = False
    cpu: str | None = None
    qemu: str | None = None
    capabilities: Mapping[str, bool] = field(default_factory=dict)

    def facts(self) -> dict[str, object]:
        """Return all but the capabilities as JSON values, for `from_record`."""
        return {
            "python": ".".join(map(str, self.python)),
            "arch": self.arch.value,
            "variant": self.variant.name,
            "expects": self.variant.expects.value,
            "debug": self.variant.debug,
            "free_threaded": self.variant.free_threaded,
            "optimizer": self.variant.optimizer,
            "packaged": self.variant.packaged,
            "emulated": self.emulated,
            "cpu": self.cpu,
            "qemu": self.qemu,
        }


def from_record(facts: Mapping[str, Any], capabilities: Mapping[str, bool]) -> TargetEnvironment | None:
    """Rebuild an environment from `facts()`; its variant has only what conditions check. None for invalid facts."""
    try:
        major, minor = numbers(facts["python"])
        variant = Variant(
            facts["variant"],
            summary="",
            configure=(),
            suites=(),
            expects=Expectation(facts["expects"]),
            debug=facts["debug"],
            free_threaded=facts["free_threaded"],
            test_environment={} if facts.get("optimizer", True) else NO_OPTIMIZER,
            packaged=facts.get("packaged", False),
        )
        env = TargetEnvironment((major, minor), Arch(facts["arch"]), variant, facts["emulated"], facts["cpu"])
        return dataclasses.replace(env, qemu=facts["qemu"], capabilities=capabilities)
    except (KeyError, ValueError, TypeError):
        return None


def numbers(version: str) -> Version:
    """Return a version's numbers: (7, 2, 22) of `7.2.22`."""
    return tuple(map(int, version.split(".")))


def in_range(version: Version, spec: str) -> bool:
    """Return whether a version is in a range such as `>=3.14, <3.16`. Raises ValueError for an invalid range.

    The version is cut to as many numbers as the range has: 8.2.3 is in `==8.2` and `<=8.2`, not in `>8.2`.
    """
    for part in spec.split(","):
        if _CLAUSE.fullmatch(part) is None:
            raise ValueError(f"invalid version range {part.strip()!r}: expected one such as '>=3.14, <3.16'")
    return all(
        clause.contains(".".join(map(str, version[: clause.version.count(".") + 1]))) for clause in SpecifierSet(spec)
    )


def _check_range(spec: str) -> str:
    in_range((0,), spec)
    return spec


def _check_python(spec: str) -> str:
    if re.search(r"\d\.\d+\.", spec):
        raise ValueError(f"invalid range {spec!r}: expected Python versions of two numbers, such as '>=3.14, <3.16'")
    return spec


@cache
def capability_names() -> tuple[str, ...]:
    """Return the names of all capabilities that the scripts in `validate/` check.

    They are read from the scripts' source, because the scripts are programs for a different Python and machine.
    """
    sources = (path.read_text(encoding="utf-8") for path in sorted(crossjit.VALIDATE.glob("feature_checks_*.py")))
    return tuple(name.replace("_", "-") for source in sources for name in _table(ast.parse(source)))


def _table(tree: ast.Module) -> Iterator[str]:
    """Read the names in a module's `FEATURE_CHECKS = (…)`."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="FEATURE_CHECKS")], value=ast.Tuple(elts=elements)):
                yield from (element.id for element in elements if isinstance(element, ast.Name))


def _check_capability(name: str) -> str:
    if name not in capability_names():
        raise ValueError(f"{name!r} is not a probed capability{did_you_mean(name, capability_names())}")
    return name


def _describe_capability(schema: dict[str, Any]) -> None:
    schema["enum"] = list(capability_names())


PythonRange = Annotated[str, pydantic.AfterValidator(_check_range), pydantic.AfterValidator(_check_python)]
QemuRange = Annotated[str, pydantic.AfterValidator(_check_range)]
Capability = Annotated[
    str, pydantic.AfterValidator(_check_capability), pydantic.Field(json_schema_extra=_describe_capability)
]


@documents.table
class When:
    """Conditions; all that are given must hold."""

    python: PythonRange | None = None
    """A range of Python's versions: `>=3.14, <3.16`."""
    arch: tuple[Arch, ...] = ()
    """One of these archs."""
    variant: tuple[str, ...] = ()
    """One of these variants."""
    expects: tuple[Expectation, ...] = ()
    """A variant whose probe must find one of these."""
    emulated: bool | None = None
    """Whether the target runs under QEMU."""
    free_threaded: bool | None = None
    """Whether the variant is free-threaded."""
    optimizer: bool | None = None
    """Whether the variant's suites run with the JIT's optimizer, which PYTHON_UOPS_OPTIMIZE=0 turns off."""
    packaged: bool | None = None
    """Whether the Python was built elsewhere, so that it comes without CPython's Tools/."""
    cpu: tuple[str, ...] = ()
    """QEMU emulates a CPU model that matches one of these patterns."""
    qemu: QemuRange | None = None
    """The target runs under a QEMU of these versions: `<8.2`, `>=7.2.5, <8.1`."""
    lacks: tuple[Capability, ...] = ()
    """The target has none of these capabilities; one that was not probed does not count as missing."""

    def holds(self, env: TargetEnvironment) -> bool:
        """Return whether all conditions hold."""
        return all(
            (
                self.python is None or in_range(env.python, self.python),
                not self.arch or env.arch in self.arch,
                not self.variant or env.variant.name in self.variant,
                not self.expects or env.variant.expects in self.expects,
                self.emulated is None or env.emulated is self.emulated,
                self.free_threaded is None or env.variant.free_threaded is self.free_threaded,
                self.optimizer is None or env.variant.optimizer is self.optimizer,
                self.packaged is None or env.variant.packaged is self.packaged,
                not self.cpu or any(fnmatch.fnmatchcase(env.cpu or "", pattern) for pattern in self.cpu),
                self.qemu is None or (env.qemu is not None and in_range(numbers(env.qemu), self.qemu)),
                all(env.capabilities.get(name) is False for name in self.lacks),
            )
        )

    @property
    def words(self) -> str:
        """The conditions as text: `QEMU <8.2, without pty`; empty if there are none."""
        yes_no = {True: "", False: "not "}
        return ", ".join(
            filter(
                None,
                (
                    f"Python {self.python}" if self.python else "",
                    " or ".join(self.arch),
                    " or ".join(self.variant),
                    f"expecting {' or '.join(self.expects)}" if self.expects else "",
                    "" if self.emulated is None else f"{yes_no[self.emulated]}emulated",
                    "" if self.free_threaded is None else f"{yes_no[self.free_threaded]}free-threaded",
                    "" if self.optimizer is None else f"with{'' if self.optimizer else 'out'} the optimizer",
                    "" if self.packaged is None else f"built {'elsewhere' if self.packaged else 'here'}",
                    f"CPU model {' or '.join(self.cpu)}" if self.cpu else "",
                    f"QEMU {self.qemu}" if self.qemu else "",
                    f"without {' and '.join(self.lacks)}" if self.lacks else "",
                ),
            )
        )
