"""Builds that may be needed next, made while tests run, on processors that are idle. They can be given up at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Generic, TypeVar, cast

from crossjit.engine.base import Container, ContainerOptions, Engine, EngineObject
from crossjit.errors import CrossjitError, EngineError
from crossjit.images import Image, ImageSpec, Role
from crossjit.model import Arch
from crossjit.pipeline.context import EnsureImage

T = TypeVar("T")


class _EndableEngine:
    """An engine whose containers get only idle processors until `hurry`, and can be removed while they work."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Container, EngineObject]] = {}
        self._idle = True
        self._ended = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    @contextlib.contextmanager
    def container(self, options: ContainerOptions) -> Iterator[Container]:
        """Start a container. Raises EngineError if this was ended."""
        if self._ended:
            raise EngineError("it is not needed any more")
        idle = self._idle
        with self._engine.container(replace(options, limits=replace(options.limits, idle=idle))) as container:
            with self._lock:
                thing = EngineObject("container", container.id, options.name, options.labels)
                self._open[container.id] = container, thing
            if self._ended:
                raise EngineError("it is not needed any more")
            if idle and not self._idle:
                container.hurry()
            try:
                yield container
            finally:
                with self._lock:
                    del self._open[container.id]

    def hurry(self) -> None:
        """Let its containers have the usual share of the processors, because somebody waits for them."""
        self._idle = False
        for container, _ in self._containers():
            with contextlib.suppress(EngineError):
                container.hurry()

    def end(self) -> None:
        """Remove its containers, so that what works there fails, and start no others."""
        self._ended = True
        for _, thing in self._containers():
            with contextlib.suppress(EngineError):
                self._engine.remove(thing)

    def _containers(self) -> list[tuple[Container, EngineObject]]:
        with self._lock:
            return [*self._open.values()]


class KnownImages:
    """Remembers the images that were used, so that nobody makes one on the side, which could not be ended."""

    def __init__(self, ensure: EnsureImage) -> None:
        self._ensure = ensure
        self._images: dict[object, Image] = {}

    def ensure(self, spec: ImageSpec, role: Role, arch: Arch) -> Image:
        """Return an image, made if it is missing."""
        image = self._images[_key(spec, role, arch)] = self._ensure(spec, role, arch)
        return image

    def known(self, spec: ImageSpec, role: Role, arch: Arch) -> Image:
        """Return an image that was used before. Raises EngineError for others."""
        image = self._images.get(_key(spec, role, arch))
        if image is None:
            raise EngineError(f"the image {spec.name} was not used before")
        return image


def _key(spec: ImageSpec, role: Role, arch: Arch) -> object:
    return spec.name, spec.extra, spec.mirror, role, arch


class Ahead(Generic[T]):
    """Makes things ahead, one at a time, in a thread. Use it as a context manager; nothing goes on after its end.

    `make` makes a thing by its name, with the given engine.
    """

    def __init__(self, engine: Engine, make: Callable[[str, Engine], T]) -> None:
        self._engine = engine
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._making: dict[str, tuple[Future[T], _EndableEngine]] = {}

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._give_up(self._making)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def start(self, names: tuple[str, ...]) -> None:
        """Make things in this order, unless they are in the making."""
        for name in names:
            if name not in self._making:
                engine = _EndableEngine(self._engine)
                made = self._pool.submit(self._make, name, cast(Engine, engine))
                self._making[name] = made, engine

    def is_making(self, name: str) -> bool:
        """Whether a thing was begun, so that `take` waits for it."""
        future, _ = self._making.get(name, (None, None))
        return future is not None and (future.running() or future.done())

    def take(self, name: str) -> T | None:
        """Give up all others, and return a thing if it was begun before; None if it could not be made here.

        Raises the CrossjitError of the thing itself; failures of the engine are taken as a reason to try again.
        """
        future, engine = self._making.get(name, (None, None))
        self._give_up({other: making for other, making in self._making.items() if other != name})
        self._making = {}
        if future is None or engine is None or future.cancel():
            return None
        self._making[name] = future, engine
        engine.hurry()
        try:
            return future.result()
        except (EngineError, CancelledError):
            return None
        except CrossjitError:
            raise
        except Exception:
            return None
        finally:
            if future.done():  # else the wait was interrupted, and the end of the block gives it up
                del self._making[name]

    def _give_up(self, making: Mapping[str, tuple[Future[Any], _EndableEngine]]) -> None:
        for future, engine in making.values():
            if not future.cancel():
                engine.end()
