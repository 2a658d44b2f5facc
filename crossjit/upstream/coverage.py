"""Compare a recipe's variants with the jobs of CPython's CI."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crossjit.model import Variant
from crossjit.upstream.jobs import UpstreamJob
from crossjit.upstream.variant import variant_of


@dataclass(frozen=True)
class Coverage:
    """The jobs that can be run here, each with the variant that configures alike, None without one.

    `unmatched` are the variants that no job configures.
    """

    jobs: Sequence[tuple[UpstreamJob, str | None]]
    unmatched: tuple[str, ...]


def compare(jobs: Iterable[UpstreamJob], variants: Mapping[str, Variant]) -> Coverage:
    """Match jobs and variants by their configure lines."""
    matched = [(job, _match(job, variants)) for job in jobs if job.arch and not job.obstacle]
    used = {name for _, name in matched}
    return Coverage(matched, tuple(name for name in variants if name not in used))


def _match(job: UpstreamJob, variants: Mapping[str, Variant]) -> str | None:
    options = _options(variant_of(job).table["configure"])
    offered = {name: variant for name, variant in variants.items() if job.arch in variant.arches}
    return next((name for name, variant in offered.items() if _options(variant.configure) == options), None)


def _options(configure: Iterable[str]) -> frozenset[str]:
    """Return what decides a build: without order, defaults written out, and compilers without their version."""
    return frozenset(
        "--enable-experimental-jit=yes"
        if argument == "--enable-experimental-jit"
        else re.sub(r"^((?:CC|CXX)=[a-z+]+)-\d+$", r"\1", argument)
        for argument in configure
    )
