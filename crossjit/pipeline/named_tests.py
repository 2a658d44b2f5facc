"""Checks of `--tests` before anything is built: a module that is in no suite of the run would run nothing."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Collection, Iterable
from pathlib import PurePath

from crossjit import PROGRAM, sources
from crossjit.config import suites
from crossjit.errors import UserError
from crossjit.sources import Source


def require(patterns: Iterable[str], chosen: Iterable[str]) -> None:
    """Raise UserError for a pattern that no test of the suites can match, judging by their documents alone.

    A single word such as `test_opmap` may be a method of any module, so it passes here; see `require_modules`.
    """
    names = tuple(dict.fromkeys(chosen))
    for pattern in patterns:
        if not _is_word(pattern) and not any(_has(name, pattern) for name in names):
            raise _missing(pattern, names)


def require_modules(patterns: Iterable[str], chosen: Iterable[str], resolved: Collection[Source]) -> None:
    """Raise UserError for a pattern that no test of the sources can match: its module is missing, or in no suite.

    The sources are read only if the suites' documents do not settle it.
    """
    names = tuple(dict.fromkeys(chosen))
    firsts = {pattern: first for pattern in patterns if (first := _first(pattern)) and first.startswith("test_")}
    for word in [word for word in firsts if _is_word(word) and any(_has(name, word) for name in names)]:
        del firsts[word]
    modules = {module for source in resolved for module in _modules(source)} if firsts else set()
    versions = ", ".join(dict.fromkeys(source.version for source in resolved))
    for pattern, first in firsts.items():
        if first in modules and _is_word(pattern):
            raise _missing(pattern, names)
        if modules and first not in modules and not _is_word(pattern):
            raise UserError(
                f"CPython {versions} has no module {first!r}, which --tests {pattern!r} begins with",
                hint=f"give a module, such as test_dict, or a test's full name as `{PROGRAM} runs show` has it",
            )


def _is_word(pattern: str) -> bool:
    """Whether a pattern has no dots, so that it may name a module or a method."""
    return "." not in pattern.removeprefix("test.")


def _missing(pattern: str, names: tuple[str, ...]) -> UserError:
    first = _first(pattern) or pattern
    what = f"the suite {names[0]} has no" if len(names) == 1 else f"none of the suites {', '.join(names)} has"
    having = [name for name in sorted(suites.names(), key=_is_full) if _has(name, pattern)]
    hint = f"add --suite {having[0]}" if having else "begin with the module, as in test_dis.DisTests"
    return UserError(f"{what} {first}", hint=hint)


def _is_full(name: str) -> bool:
    return any("*" in group.modules for group in suites.load(name).groups)


def _first(pattern: str) -> str | None:
    """Return a pattern's first name, None if it has wildcards."""
    first = pattern.removeprefix("test.").partition(".")[0]
    return None if re.search(r"[*?\[]", first) else first


def _has(name: str, pattern: str) -> bool:
    """Whether a suite may have a test that a pattern names, ignoring the conditions of its groups."""
    first = _first(pattern)
    suite = suites.load(name)
    if first is None or first in {PurePath(script.file).stem for script in suite.scripts}:
        return True
    words = pattern.removeprefix("test.").split(".")
    for module in (module for group in suite.groups for module in group.modules):
        parts = module.removesuffix(".*").split(".")
        if module == "*" and first.startswith("test_"):
            return True
        if all(part == word or re.search(r"[*?\[]", word) for part, word in zip(parts, words, strict=False)):
            return True
    return False


def _modules(source: Source) -> frozenset[str]:
    """Return the names of a source's test modules and packages."""
    modules = set()
    with sources.open_tar(source) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            match member.name.split("/"):
                case [_, "Lib", "test", name] if name.endswith(".py"):
                    modules.add(name.removesuffix(".py"))
                case [_, "Lib", "test", name, "__init__.py"]:
                    modules.add(name)
    return frozenset(name for name in modules if name.startswith("test_"))
