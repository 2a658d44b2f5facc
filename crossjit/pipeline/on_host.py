"""What is different on an engine that isolates nothing: who may use it, and what its verdicts say."""

from __future__ import annotations

from collections.abc import Iterable

from crossjit.engine.base import EngineFacts, Feature
from crossjit.errors import UserError
from crossjit.model import Cell, Strategy
from crossjit.pipeline.context import CellRequest
from crossjit.sources import trust

UNISOLATED = "built and run without isolation, on this host"


def remarks(facts: EngineFacts) -> tuple[str, ...]:
    """Return what the reasons of each verdict say about the engine."""
    if Feature.ISOLATION not in facts.lacks:
        return ()
    return (UNISOLATED, *filter(None, (facts.platform.remark,)))


def require_cells(facts: EngineFacts, cells: Iterable[Cell]) -> None:
    """Raise UserError for a cell that the engine cannot build and run."""
    for cell in cells:
        if cell.platform is not facts.platform:
            raise UserError(
                f"{cell} needs an engine on {cell.platform}; this one is on {facts.platform}",
                hint="run crossjit there, with CROSSJIT_ENGINE=host" if cell.platform.remark else "leave --arch out",
            )
        if Feature.FOREIGN in facts.lacks and cell.arch is not facts.arch:
            raise UserError(
                f"{cell} cannot be built on this host: the host as an engine cannot {Feature.FOREIGN}",
                hint=f"use an engine of containers (CROSSJIT_ENGINE=docker), or --arch {facts.arch}",
            )


def require_trust(facts: EngineFacts, request: CellRequest) -> None:
    """Raise UserError for a stranger's source that the user has not said to trust, on an engine without isolation."""
    if Feature.ISOLATION not in facts.lacks or request.trusted or request.strategy is Strategy.INSTALLED:
        return
    if trust.is_stranger(trust.domain_of(request.built_from)):
        raise UserError(
            f"{request.cell}: its source is a stranger's, and nothing isolates it on this host",
            hint="use an engine of containers (CROSSJIT_ENGINE=docker), or add --trust: its code then runs as you",
        )
