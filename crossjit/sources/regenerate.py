"""Which of CPython's generated files a checkout's changes make stale, by the rules of toolchain/regenerate.toml."""

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
    """Generated files that one target of CPython's Makefile makes."""

    make: str
    """What make is called with: a target, and variables."""
    inputs: tuple[str, ...]
    """Patterns of the paths that the files are made of; * matches slashes, too."""
    passages: tuple[str, ...] = ()
    """Regular expressions: an input counts as changed if what they find in it is not what they find in HEAD's."""

    @property
    def target(self) -> str:
        """The target's name."""
        return self.make.split()[0]


@documents.table
class ByHand:
    """Generated files that cannot be made in a build."""

    run: str
    """What makes them, in the checkout."""
    inputs: tuple[str, ...]
    """Patterns of the paths that they are made of."""
    outputs: tuple[str, ...]
    """Their paths, or some of them."""


@documents.table
class Rules:
    """toolchain/regenerate.toml."""

    rules: tuple[Rule, ...]
    """Generated files that are made anew before a build where they have to be."""
    by_hand: tuple[ByHand, ...] = field(default=())
    """Generated files whose staleness is only told."""


Read = Callable[[str], bytes]
"""Gives a file's content by its path, and nothing for a file that is not there."""


def stale(changed: Iterable[str], now: Read, before: Read) -> tuple[str, ...]:
    """Return what make is to be called with, one after the other, so that generated files fit the changed paths.

    `now` reads the changed tree, `before` the one that its generated files fit. A target that the tree's Makefile does
    not have is left out.
    """
    paths = sorted(changed)
    targets = set(re.findall(rb"^([A-Za-z][\w-]*)\s*:(?!=)", now(MAKEFILE), re.MULTILINE))

    def applies(rule: Rule) -> bool:
        found = matching(rule.inputs, paths)
        return rule.target.encode() in targets and any(
            not rule.passages or passages(rule, now(path)) != passages(rule, before(path)) for path in found
        )

    return tuple(dict.fromkeys(rule.make for rule in _rules().rules if applies(rule)))


def left_to_do(changed: Iterable[str]) -> Iterator[str]:
    """Say what the changes make stale, as far as anybody can tell, and no build makes anew."""
    paths = sorted(changed)
    for rule in _rules().by_hand:
        found = list(matching(rule.inputs, paths))
        if found and not any(matching(rule.outputs, paths)):
            yield f"{found[0]} has changed, but files generated from it have not: run `{rule.run}` there if needed"


def matching(patterns: Iterable[str], paths: Iterable[str]) -> Iterator[str]:
    """Yield the paths that match one of the patterns."""
    patterns = tuple(patterns)
    return (path for path in paths if any(fnmatchcase(path, pattern) for pattern in patterns))


def passages(rule: Rule, content: bytes) -> list[list[str]]:
    """Return what a rule's expressions find in a file."""
    text = content.decode("utf-8", "surrogateescape")
    return [re.findall(expression, text) for expression in rule.passages]


@cache
def _rules() -> Rules:
    return documents.load(RULES, Rules)
