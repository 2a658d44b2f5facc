"""CPython's generated files that a checkout's changes make stale, by the rules of toolchain/regenerate.toml."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from fnmatch import fnmatchcase
from functools import cache

import crossjit
from crossjit.config import documents

RULES = crossjit.PROJECT / "toolchain" / "regenerate.toml"
MAKEFILE = "Makefile.pre.in"


@documents.table
class Rule:
    """Generated files of one target of CPython's Makefile."""

    make: str
    """Make's arguments: a target, and variables."""
    inputs: tuple[str, ...]
    """Patterns of the paths of their inputs; * also matches slashes."""
    passages: tuple[str, ...] = ()
    """Regular expressions: an input counts as changed only if their matches in it differ from those in HEAD's."""

    @property
    def target(self) -> str:
        """The target's name."""
        return self.make.split()[0]


@documents.table
class ByHand:
    """Generated files that cannot be made in a build."""

    run: str
    """The command that makes them, in the checkout."""
    inputs: tuple[str, ...]
    """Patterns of the paths of their inputs."""
    outputs: tuple[str, ...]
    """Their paths, or some of them."""


@documents.table
class Rules:
    """toolchain/regenerate.toml."""

    rules: tuple[Rule, ...]
    """Generated files that a build regenerates first if they are stale."""
    by_hand: tuple[ByHand, ...] = field(default=())
    """Generated files that only get a warning if they are stale."""


Read = Callable[[str], bytes]
"""Returns a file's content by its path; nothing for a missing file."""


def stale(changed: Iterable[str], now: Read, before: Read) -> tuple[str, ...]:
    """Return make's arguments, a call each, that regenerate the files that the changed paths make stale.

    `now` reads the changed tree, `before` the tree that the generated files match. A target that the tree's Makefile
    does not have is skipped.
    """
    paths = sorted(changed)
    targets = set(re.findall(rb"^([A-Za-z][\w-]*)\s*:(?!=)", now(MAKEFILE), re.MULTILINE))

    def applies(rule: Rule) -> bool:
        matches = matching(rule.inputs, paths)
        return rule.target.encode() in targets and any(
            not rule.passages or passages(rule, now(path)) != passages(rule, before(path)) for path in matches
        )

    return tuple(dict.fromkeys(rule.make for rule in _rules().rules if applies(rule)))


def left_to_do(changed: Iterable[str]) -> Iterator[str]:
    """Yield warnings about files that the changes may make stale and that builds do not regenerate."""
    paths = sorted(changed)
    for rule in _rules().by_hand:
        matches = list(matching(rule.inputs, paths))
        if matches and not any(matching(rule.outputs, paths)):
            yield f"{matches[0]} has changed, but files generated from it have not: run `{rule.run}` there if needed"


def matching(patterns: Iterable[str], paths: Iterable[str]) -> Iterator[str]:
    """Yield the paths that match one of the patterns."""
    patterns = tuple(patterns)
    return (path for path in paths if any(fnmatchcase(path, pattern) for pattern in patterns))


def passages(rule: Rule, content: bytes) -> list[list[str]]:
    """Return the matches of a rule's expressions in a file."""
    text = content.decode("utf-8", "surrogateescape")
    return [re.findall(expression, text) for expression in rule.passages]


@cache
def _rules() -> Rules:
    return documents.load(RULES, Rules)
