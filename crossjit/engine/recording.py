"""An engine wrapper that reports each finished command of its containers; all else is passed through."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, cast

from crossjit.engine.base import Completed, Container, ContainerOptions, Engine

OnCommand = Callable[[Completed], None]


class _RecordedContainer:
    def __init__(self, container: Container, on_command: OnCommand) -> None:
        self._container = container
        self._on_command = on_command

    def __getattr__(self, name: str) -> object:
        return getattr(self._container, name)

    def run(self, *arguments: Any, **options: Any) -> Completed:
        """Run a command and report it."""
        completed = self._container.run(*arguments, **options)
        self._on_command(completed)
        return completed


class _RecordedEngine:
    def __init__(self, engine: Engine, on_command: OnCommand) -> None:
        self._engine = engine
        self._on_command = on_command

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    @contextlib.contextmanager
    def container(self, options: ContainerOptions) -> Iterator[Container]:
        """Start a container whose commands are reported."""
        with self._engine.container(options) as container:
            yield cast(Container, _RecordedContainer(container, self._on_command))


def recording(engine: Engine, on_command: OnCommand) -> Engine:
    """Return the engine with `on_command` called for each finished command, in the thread that ran it."""
    return cast(Engine, _RecordedEngine(engine, on_command))
