"""The host as an engine, for machines without containers: folders instead of containers, and no isolation.

A container is a folder of the engine's, `N/fs` for the smallest free number N, so that what is built one after another
is built in the same place; `N/container.json` tells whose it is. Volumes are folders as well. The only image is the
machine itself. What other engines do for isolation, this one refuses (`Feature`), unless it is told that a container
need not be isolated.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psutil

from crossjit.engine import host_processes
from crossjit.engine.base import (
    HOST,
    OWNED,
    READ_ONLY,
    Container,
    ContainerOptions,
    EngineFacts,
    EngineObject,
    Feature,
    ImageInfo,
    LineSink,
    cannot,
)
from crossjit.engine.host_container import ABOUT, HostContainer, about, is_of
from crossjit.engine.host_paths import OWN, PathMap
from crossjit.engine.process import held_signals
from crossjit.errors import EngineError, InfrastructureError, Interrupted, Leftover, UserError
from crossjit.model import Arch, Emulator, Platform
from crossjit.util import files

_FILES = "fs"
_NEW = ".new-"  # a container's folder until it is complete
_VOLUMES = "volumes"
_NUMBERS = 1000  # containers at a time, at most
# make splits its lists at spaces, and its rules and PATH at colons; other characters mean something to shells
_SAFE = re.compile(r"[A-Za-z0-9_./+@%,=~^-]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class _Found:
    """A container's folder with what it says about itself."""

    folder: Path
    thing: EngineObject


class HostEngine:
    """This machine. Implements `engine.base.Engine`.

    `folder` is for its containers and volumes; `own` are the paths that containers can have for themselves; `more_path`
    are folders of the machine's programs besides the usual ones.
    """

    def __init__(self, folder: Path, own: Sequence[str] = OWN, more_path: Sequence[str] = ()) -> None:
        self.name = HOST
        self.leftovers: list[Leftover] = []
        self.lacks = tuple(Feature)
        self.folder = folder.resolve()
        self._own = tuple(own)
        self._more_path = tuple(folder for folder in more_path if Path(folder).is_dir())
        self._stopped = threading.Event()

    # -- queries

    def facts(self) -> EngineFacts:
        """Return the machine's properties. Raises EngineError if its architecture is unknown."""
        machine = platform.machine()
        arch, system = Arch.of_machine(machine), Platform.of_system(platform.system())
        if system is None:
            raise EngineError(
                f"the system of this machine is {platform.system()}",
                hint=f"crossjit knows {', '.join(each.system for each in Platform)}",
            )
        if arch is None:
            raise EngineError(
                f"the architecture of this machine is {machine}", hint=f"crossjit knows {', '.join(Arch)}"
            )
        return EngineFacts(
            HOST,
            platform.release(),
            None,
            arch,
            len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count() or 1,
            psutil.virtual_memory().total,
            platform.release(),
            lacks=self.lacks,
            platform=system,
        )

    def image(self, reference: str) -> ImageInfo | None:
        """Look up an image: there is one, this machine."""
        return ImageInfo(HOST, self.facts().arch) if reference == HOST else None

    def emulators(self, labels: Mapping[str, str]) -> dict[Arch, Emulator]:
        """Return nothing: what a folder holds runs on this machine's own arch."""
        return {}

    def stop(self) -> None:
        """Make other threads stop using it."""
        self._stopped.set()

    # -- what a machine without containers has not

    def pull(self, reference: str, *, arch: Arch) -> NoReturn:
        """Raise EngineError: there are no images."""
        raise cannot(Feature.IMAGES, f"such as {reference}")

    def import_image(self, tarball: Path, *, tag: str, arch: Arch, labels: Mapping[str, str]) -> NoReturn:
        """Raise EngineError: there are no images."""
        raise cannot(Feature.IMAGES, f"such as {tag}")

    def build_image(
        self,
        context: Path,
        *,
        target: str,
        arch: Arch,
        tag: str,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        on_line: LineSink | None = None,
    ) -> NoReturn:
        """Raise EngineError: there are no images."""
        raise cannot(Feature.IMAGES, f"such as {tag}")

    def tag(self, image: str, tag: str) -> NoReturn:
        """Raise EngineError: there are no images."""
        raise cannot(Feature.IMAGES, f"such as {tag}")

    # -- objects that crossjit made

    def owned(self, labels: Mapping[str, str | None]) -> list[EngineObject]:
        """List containers and volumes that carry all these labels, and `crossjit.owned`."""
        wanted = {OWNED: None, **labels}.items()
        things = [*(found.thing for found in self._containers()), *self._volumes()]
        return [
            thing
            for thing in things
            if all(key in thing.labels and value in (None, thing.labels[key]) for key, value in wanted)
        ]

    def remove(self, thing: EngineObject) -> None:
        """Remove an object, with its processes; it may be gone already."""
        with held_signals():
            if thing.kind == "container":
                for found in self._containers():
                    if found.thing.id == thing.id:
                        self._discard(found)
            elif thing.kind == "volume":
                if users := [
                    found.thing.name
                    for found in self._containers()
                    if thing.id in (about(found.folder) or {}).get("volumes", ())
                ]:
                    raise EngineError(f"cannot remove the volume {thing.name}", details=(f"{users[0]} uses it",))
                _remove_tree(self._volume(thing.id))
                self._record(thing.id).unlink(missing_ok=True)

    def _discard(self, found: _Found) -> None:
        if not host_processes.kill(host_processes.CONTAINER, found.thing.id):
            raise EngineError(f"cannot remove the container {found.thing.name}: its processes cannot be killed")
        if is_of(found.folder, found.thing.id):
            _remove_tree(found.folder)

    def _containers(self) -> Iterator[_Found]:
        for folder in _entries(self.folder):
            if (facts := about(folder)) is not None:
                yield _Found(folder, EngineObject("container", facts["id"], facts["name"], facts["labels"]))

    def _volumes(self) -> Iterator[EngineObject]:
        for path in _entries(self.folder / _VOLUMES):
            with contextlib.suppress(OSError, ValueError):
                if path.suffix == ".json":
                    yield EngineObject("volume", path.stem, path.stem, json.loads(path.read_text(encoding="utf-8")))

    # -- containers

    def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a named volume if it does not exist."""
        folder = self._volume(name)
        with self._disk_errors(f"make the volume {name}"):
            folder.mkdir(parents=True, exist_ok=True)
            record = self._record(name)
            if not record.exists():
                files.replace(record, json.dumps(dict(labels)).encode())

    def _volume(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise EngineError(f"invalid name of a volume: {name!r}")
        return self.folder / _VOLUMES / name

    def _record(self, name: str) -> Path:
        """Return the file with a volume's labels."""
        return self.folder / _VOLUMES / f"{name}.json"

    @contextlib.contextmanager
    def container(self, options: ContainerOptions) -> Iterator[Container]:
        """Make a folder for the block; always remove it at the end, with all processes."""
        if self._stopped.is_set():
            raise Interrupted("the run was interrupted")
        self._require_possible(options)
        made: list[_Found] = []
        try:
            with held_signals():
                made.append(self._make(options))
            yield self._opened(made[0], options)
        finally:
            for found in made:
                self._leave(found)

    def _require_possible(self, options: ContainerOptions) -> None:
        """Raise EngineError for a request that the host cannot meet, UserError if builds cannot work in its folder."""
        if (info := self.image(options.image)) is None:
            raise EngineError(f"there is no image {options.image} in {HOST}")
        if info.arch is not options.arch:
            raise cannot(Feature.FOREIGN, f"{options.arch} on {info.arch}")
        if options.isolated or not options.writable or options.tmpfs or options.capabilities:
            raise cannot(Feature.ISOLATION, f"as {options.name} needs")
        if options.limits.memory is not None:
            raise cannot(Feature.MEMORY, f"as {options.name} needs")
        if not _SAFE.fullmatch(str(self.folder)):
            raise UserError(
                f"CPython cannot be built below {self.folder}: make and shells treat some of its characters specially",
                hint="set CROSSJIT_HOME to a path of letters, digits, and the characters _ . + -",
            )
        if any(found.thing.name == options.name for found in self._containers()):
            raise EngineError(f"there is a container {options.name} already")

    def _make(self, options: ContainerOptions) -> _Found:
        """Make a container's folder, complete from the moment it has its name."""
        identity = secrets.token_hex(16)
        facts = {"id": identity, "name": options.name, "labels": dict(options.labels)}
        with self._disk_errors(f"make the container {options.name}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            new = self.folder / f"{_NEW}{identity}"
            new.mkdir(mode=0o700)
            try:
                text = json.dumps({**facts, "volumes": sorted(options.volumes)})
                (new / ABOUT).write_text(text, encoding="utf-8")
                for name in ("tmp", *([self._home_of(options)] if self._home_of(options) else ())):
                    (new / _FILES / name).mkdir(parents=True)
                folder = self._numbered(new)
            except BaseException:
                _remove_tree(new)
                raise
        return _Found(folder, EngineObject("container", identity, options.name, dict(options.labels)))

    @staticmethod
    def _home_of(options: ContainerOptions) -> str:
        """Return the home folder of the container's user, which images have; empty without one."""
        return options.env.get("HOME", "").strip("/")

    def _numbered(self, new: Path) -> Path:
        """Give a folder the smallest free number."""
        for number in range(_NUMBERS):
            folder = self.folder / str(number)
            if not folder.exists():
                with contextlib.suppress(OSError):  # another process was faster: it is not empty
                    return new.rename(folder)
        raise EngineError(f"there are {_NUMBERS} containers in {self.folder}", hint="remove what was left there")

    def _opened(self, found: _Found, options: ContainerOptions) -> HostContainer:
        volumes = {mount.removesuffix(READ_ONLY): self._volume(name) for name, mount in options.volumes.items()}
        if missing := [name for name in options.volumes if not self._volume(name).is_dir()]:
            raise EngineError(f"there is no volume {missing[0]}")
        paths = PathMap(found.folder / _FILES, volumes, self._own)
        return HostContainer(found.thing.id, options, found.folder, paths, self._more_path, self._stopped)

    def _leave(self, found: _Found) -> None:
        """Remove a container; note it as a leftover if that fails."""
        try:
            with held_signals():
                self._discard(found)
        except (EngineError, OSError) as error:
            reason = error.message if isinstance(error, EngineError) else str(error)
            name = found.thing.name
            self.leftovers.append(Leftover(f"the container {name}", reason, f"rm -r {found.folder}"))
            raise EngineError(f"cannot remove the container {name}: {reason}") from error

    def shell(
        self,
        options: ContainerOptions,
        prepare: Callable[[Container], None],
        argv: Sequence[str],
        *,
        cwd: str | None = None,
    ) -> int:
        """Start a container, let `prepare` fill it, hand the terminal to a command in it, return its exit status."""
        with self.container(options.for_terminal) as container:
            prepare(container)
            assert isinstance(container, HostContainer)
            return container.terminal(argv, cwd)

    @contextlib.contextmanager
    def _disk_errors(self, what: str) -> Iterator[None]:
        with files.translate_os_errors(InfrastructureError, f"cannot {what}", self.folder):
            yield


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, also what its owner may not read or write. It may be gone already."""

    def unlock(function: Callable[..., Any], path: str, error: object) -> None:
        for place in (Path(path).parent, Path(path)):
            with contextlib.suppress(OSError):
                if not place.is_symlink():
                    place.chmod(0o700)

    for _ in range(20):
        shutil.rmtree(folder, onerror=unlock)
        if not folder.exists():
            return
    shutil.rmtree(folder)
