"""Entry point for invoke; everything lives in crossjit.tasks."""

from crossjit.tasks import namespace

__all__ = ["namespace"]
