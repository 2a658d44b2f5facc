"""A target's capabilities, as probed by `validate/capabilities.py`. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crossjit.channels.reading import Line, Name
from crossjit.config import documents


@documents.table
class Capability:
    """Whether something works in a target; None if unknown."""

    works: bool | None
    detail: Line = ""


@documents.table
class Capabilities:
    """A target's capabilities by name."""

    capabilities: Annotated[dict[Name, Capability], Field(max_length=500)]
