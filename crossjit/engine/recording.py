"""An engine that tells of each command that ended in one of its containers; all else is the engine's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, cast

from crossjit.engine.base import Completed, Container, ContainerOptions, Engine

Hear = Callable[[Completed], None]


class _HeardContainer:
    def __init__(self, container: Container, hear: Hear) -> None:
        self._container = container
        self._hear = hear

    def __getattr__(self, name: str) -> object:
        return getattr(self._container, name)

    def run(self, *arguments: Any, **options: Any) -> Completed:
        """Run a command to its end and tell of it."""
        completed = self._container.run(*arguments, **options)
        self._hear(completed)
        return completed


class _HeardEngine:
    def __init__(self, engine: Engine, hear: Hear) -> None:
        self._engine = engine
        self._hear = hear

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    @contextlib.contextmanager
    def container(self, options: ContainerOptions) -> Iterator[Container]:
        """Start a container whose commands are told of."""
        with self._engine.container(options) as container:
            yield cast(Container, _HeardContainer(container, self._hear))


def recording(engine: Engine, hear: Hear) -> Engine:
    """Return the engine with `hear` called for each command that ended, in the thread that ran it."""
    return cast(Engine, _HeardEngine(engine, hear))
