"""The compilers that a variant names, as configure's CC and CXX; in a cross build, they cross-compile."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from crossjit.errors import UserError
from crossjit.images import Image
from crossjit.model import Arch, Strategy, Variant

DEFAULT = "gcc"

_CXX = {"gcc": "g++", "clang": "clang++"}
_PROGRAM = re.compile(r"(?:(?P<triple>\w+-linux-gnu)-)?(?P<family>gcc|g\+\+|clang|clang\+\+)(?:-(?P<version>[0-9]+))?")


def named(variant: Variant, arch: Arch, strategy: Strategy, toolchain: Image, llvm: str | None) -> dict[str, str]:
    """Return configure's CC and CXX; empty if the variant names none and it is not a cross build.

    `CC=clang` selects the clang of the source's LLVM, or else the toolchain's newest. In a cross build, gcc becomes the
    cross compiler of the same version, and clang gets `--target`. Raises UserError for a compiler that is for another
    arch, is not in the toolchain, or is neither gcc nor clang in a cross build.
    """
    given = {name: value for name, value in map(_assignment, variant.configure) if name in ("CC", "CXX")}
    if "CC" not in given and strategy is not Strategy.CROSS and "CXX" not in given:
        return {}
    cc = given.get("CC", DEFAULT)
    cxx = given.get("CXX") or _cxx_of(cc)
    requested = {"CC": cc, **({"CXX": cxx} if cxx else {})}
    return {name: _resolved(name, value, arch, strategy, toolchain, llvm) for name, value in requested.items()}


def wrapped_clangs(compilers: Sequence[str]) -> tuple[str, ...]:
    """Return the clangs among the compilers' commands; toolchain/compiler.sh wraps them."""
    programs = (command.split()[0] for command in compilers if command.split())
    return tuple(dict.fromkeys(program for program in programs if re.fullmatch(r"clang(\+\+)?-[0-9]+", program)))


def other_arguments(variant: Variant) -> tuple[str, ...]:
    """Return a variant's arguments for configure without CC and CXX."""
    return tuple(argument for argument in variant.configure if _assignment(argument)[0] not in ("CC", "CXX"))


def _assignment(argument: str) -> tuple[str, str]:
    name, _, value = argument.partition("=")
    return name, value


def _cxx_of(cc: str) -> str | None:
    """Return the C++ compiler that belongs to a C compiler; None if it is unknown."""
    program, *options = _split("CC", cc)
    match = _PROGRAM.fullmatch(program)
    if match is None or match["family"] not in _CXX:
        return None
    start, end = match.span("family")
    return shlex.join([f"{program[:start]}{_CXX[match['family']]}{program[end:]}", *options])


def _split(name: str, command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"invalid {name}={command}: {error}", hint="quote it as a shell does") from None
    if not words:
        raise UserError(f"invalid {name}={command}: expected a compiler", hint=f"such as {name}=clang, or leave it out")
    return words


def _resolved(name: str, command: str, arch: Arch, strategy: Strategy, toolchain: Image, llvm: str | None) -> str:
    """Return a compiler's command for an arch: with clang's version, and as a cross compiler in a cross build."""
    program, *options = _split(name, command)
    match = _PROGRAM.fullmatch(program)
    _check_arch(name, command, arch, [match["triple"] if match else None, *map(_target, options)])
    if match is None:
        if strategy is Strategy.CROSS:
            raise UserError(
                f"{name}={command} cannot be used in a cross build for {arch}",
                hint="name gcc or clang, with or without a version (clang-21), or add --strategy emulate",
            )
        return command
    family, version = match["family"], match["version"]
    if family.startswith("clang"):
        version = version or _clang(toolchain, llvm)
        _require(toolchain, f"{name}={command}", f"clang-{version}", "clang")
        target = [f"--target={arch.triple}"] if strategy is Strategy.CROSS and not any(map(_target, options)) else []
        return shlex.join([f"{family}-{version}", *target, *options])
    prefix = f"{arch.triple}-" if strategy is Strategy.CROSS or match["triple"] else ""
    if version:
        suffix = f"-{arch.triple.replace('_', '-')}" if prefix else ""
        _require(toolchain, f"{name}={command}", f"{family}-{version}{suffix}", family)
    return shlex.join([f"{prefix}{family}{f'-{version}' if version else ''}", *options])


def _target(option: str) -> str | None:
    return option.partition("=")[2] if option.startswith("--target=") else None


def _check_arch(name: str, command: str, arch: Arch, triples: Sequence[str | None]) -> None:
    for triple in triples:
        if triple is not None and triple.partition("-")[0] != arch.value:
            raise UserError(
                f"{name}={command} compiles for {triple}, and the cell is for {arch}",
                hint=f"name the compiler alone, such as {name}=gcc or {name}=clang: crossjit uses its cross compiler",
            )


def _clang(toolchain: Image, llvm: str | None) -> str:
    """Choose the version for a clang named without one."""
    versions = _versions(toolchain, "clang")
    if llvm is not None and (llvm in versions or not versions):
        return llvm
    if not versions:
        raise UserError("the toolchain has no clang", hint="use an image that has one: see llvm in its image.toml")
    return max(versions, key=int)


def _versions(toolchain: Image, family: str) -> list[str]:
    matches = (re.fullmatch(rf"{re.escape(family)}-([0-9]+)", package.name) for package in toolchain.packages)
    return sorted({match[1] for match in matches if match})


def _require(toolchain: Image, what: str, package: str, family: str) -> None:
    if toolchain.packages and toolchain.version(package) is None:
        installed = " and ".join(f"{family}-{version}" for version in _versions(toolchain, family)) or f"no {family}"
        raise UserError(
            f"{what}: the toolchain has no {package}",
            hint=f"it has {installed}; a variant can add it: packages.toolchain = [{package!r}]",
        )
