"""An engine in memory, for tests: real images, containers, files and labels, commands that are Python functions.

It keeps to the same contract as the real ones (`tests/contract`), records what it was asked to start, and can be told
to die or to run out of memory. Time is virtual: a program that sleeps costs nothing, and time-outs work all the same.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import BinaryIO, cast

from crossjit.engine.base import (
    OWNED,
    READ_ONLY,
    Completed,
    Container,
    ContainerOptions,
    EngineFacts,
    EngineObject,
    Feature,
    ImageInfo,
    LineSink,
)
from crossjit.engine.process import Lines
from crossjit.errors import EngineError, Interrupted, Leftover, OutOfMemoryError
from crossjit.model import Arch, Emulator
from crossjit.util.budget import BUDGET, BoundedReader, BudgetError, LogCount, disk_exceeded
from tests.fakes.files import Entry, FakeFiles
from tests.fakes.programs import BUILT_IN

Program = Callable[["FakeProcess"], int]


class Fault(Enum):
    """What can befall a command: the engine dies, its container vanishes, the kernel kills it for its memory."""

    ENGINE_DIES = "engine dies"
    CONTAINER_VANISHES = "container vanishes"
    OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Command:
    """What a container was asked to run. `env` is what was added to the container's."""

    container: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None
    user: str | None
    timeout: float | None


@dataclass(frozen=True)
class Build:
    """What an image was built with."""

    context: Path
    target: str
    arch: Arch
    tag: str
    arguments: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass
class FakeImage:
    """An image: its content id, arch, labels and files."""

    id: str
    arch: Arch
    labels: dict[str, str]
    files: FakeFiles

    @property
    def info(self) -> ImageInfo:
        """What the engine says of it."""
        return ImageInfo(self.id, self.arch, dict(self.labels))


class _Killed(BaseException):
    """Ends a program as a signal would, past its exception handlers."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class _TimeIsUp(BaseException):
    """Ends a program whose time-out has come."""


@dataclass
class FakeProcess:
    """What a program sees: its command line, environment, user, files, and ways to speak, wait and die."""

    container: FakeContainer
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    uid: int
    gid: int
    write_line: LineSink
    deadline: float | None

    @property
    def files(self) -> FakeFiles:
        """The container's files."""
        return self.container.files

    def path(self, name: str) -> str:
        """Make a path absolute, by the working folder."""
        return os.path.normpath(f"{self.cwd}/{name}") if not name.startswith("/") else os.path.normpath(name)

    def write_file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file as the process's user."""
        self.files.write(self.path(name), data, mode=mode, uid=self.uid, gid=self.gid)

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass; a time-out or the container's end may come meanwhile."""
        container = self.container
        container.clock += seconds
        if self.deadline is not None and container.clock > self.deadline:
            container.clock = self.deadline
            raise _TimeIsUp
        if container.clock > container.started.limits.seconds:
            container.vanish()
            raise EngineError(f"the container {container.started.name} reached its time limit")

    def start(self, argv: Sequence[str]) -> None:
        """Start a child that goes on until it is killed."""
        self.container.children.append(tuple(argv))

    def run(self, argv: Sequence[str]) -> int:
        """Run another program to its end, as this process's child."""
        child = FakeProcess(
            self.container, tuple(argv), self.env, self.cwd, self.uid, self.gid, self.write_line, self.deadline
        )
        return self.container.engine.execute(child)

    def use_memory(self, size: int) -> None:
        """Take some memory; the kernel kills the process if it is more than the container's limit."""
        limit = self.container.started.limits.memory
        if limit is not None and size > limit:
            self.memory_kill()
            raise _Killed(9)

    def use_disk(self, size: int) -> None:
        """Write some bytes to the engine's disk; crossjit ends the command if it is more than the container's limit."""
        container = self.container
        container.disk += size
        limit = container.started.limits.disk
        if limit is not None and container.disk > limit:
            raise disk_exceeded(self.argv[0], limit)

    def memory_kill(self) -> None:
        """Let the kernel kill something in the container for its memory, not necessarily this process."""
        self.container.memory_kills += 1

    def suffer(self, fault: Fault) -> None:
        """Let the fault happen in the middle of the command."""
        engine, container = self.container.engine, self.container
        if fault is Fault.OUT_OF_MEMORY:
            self.memory_kill()
            raise _Killed(9)
        if fault is Fault.ENGINE_DIES:
            engine.die()
        else:
            container.vanish()
        container.check()

    def kill(self, signal: int) -> None:
        """End this process by a signal."""
        raise _Killed(signal)


class FakeContainer:
    """A running container. Implements `engine.base.Container`."""

    def __init__(
        self, engine: FakeEngine, identity: str, started: ContainerOptions, labels: Mapping[str, str], files: FakeFiles
    ) -> None:
        self.id = identity
        self.engine = engine
        self.started = started
        self.labels = labels
        self.files = files
        self.children: list[tuple[str, ...]] = []
        self.clock = 0.0
        self.memory_kills = 0
        self.disk = 0

    def check(self) -> None:
        """Raise EngineError if the engine or the container is gone."""
        self.engine.check()
        if self.id not in self.engine.containers:
            raise EngineError(f"docker cannot find the container {self.started.name} any more")

    def vanish(self) -> None:
        """Let something other than crossjit remove the container."""
        self.engine.containers.pop(self.id, None)

    def hurry(self) -> None:
        """Give it the usual share of processor time."""
        self.check()
        self.started = replace(self.started, limits=replace(self.started.limits, idle=False))

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        on_line: LineSink | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """Run a program to its end and pass on its output line by line."""
        self.check()
        self.engine.commands.append(Command(self.started.name, tuple(argv), dict(env or {}), cwd, user, timeout))
        if cwd is not None and not self.files.is_folder(cwd):
            raise EngineError(f"docker cannot start {argv[0]} in {self.started.name}", details=(f"no folder {cwd}",))
        uid, gid = self._user(user if user is not None else self.started.user)
        began, kills, children = self.clock, self.memory_kills, len(self.children)
        count, lines = LogCount(argv[0]), Lines(on_line or (lambda line: None))

        def write_line(line: str) -> None:
            data = line.encode() + b"\n"
            count.add(len(data))
            lines.feed(data)

        process = FakeProcess(
            container=self,
            argv=tuple(argv),
            env={**self.started.env, **(env or {})},
            cwd=cwd or "/",
            uid=uid,
            gid=gid,
            write_line=write_line,
            deadline=None if timeout is None else began + timeout,
        )
        try:
            if (fault := self.engine.faults.pop(argv[0], None)) is not None:
                process.suffer(fault)
            returncode = self.engine.execute(process)
        except _Killed as killed:
            returncode = -killed.signal
        except _TimeIsUp:
            returncode = -9
            del self.children[children:]
        except BudgetError:
            del self.children[children:]
            raise
        self.check()
        if returncode != 0 and self.memory_kills > kills:
            raise OutOfMemoryError(
                f"the kernel killed something in {self.started.name} for its memory while {argv[0]} ran",
                hint="give it more memory, or run fewer jobs at a time: CROSSJIT_JOBS=1",
            )
        if 128 < returncode < 160:
            returncode = 128 - returncode
        return Completed(tuple(argv), returncode, self.clock - began)

    def _user(self, user: str | None) -> tuple[int, int]:
        name, _, group = (user or "0").partition(":")
        if not name.isdecimal() and name not in self.engine.users:
            raise EngineError(f"docker cannot start a command as {name}", details=("no matching entry in passwd",))
        uid = int(name) if name.isdecimal() else self.engine.users[name]
        return uid, int(group) if group else (uid if not name.isdecimal() else 0)

    def put(self, tar: BinaryIO, destination: str) -> None:
        """Unpack a tar stream into an existing folder."""
        self.check()
        if not self.files.is_folder(destination):
            raise EngineError(f"docker cannot copy into {destination} of {self.started.name}")
        try:
            self.files.unpack(tar, destination)
        except (tarfile.TarError, OSError) as error:
            raise EngineError(
                f"docker cannot copy into {destination} of {self.started.name}", details=(str(error),)
            ) from error

    @contextlib.contextmanager
    def get(self, path: str) -> Iterator[BinaryIO]:
        """Open a tar stream of a file or folder."""
        self.check()
        if not self.files.exists(path):
            raise FileNotFoundError(errno.ENOENT, f"there is no such file in {self.started.name}", path)
        with io.BytesIO(self.files.pack(path)) as stream:
            yield cast(BinaryIO, BoundedReader(stream, f"{path} of {self.started.name}", BUDGET.stream))


@dataclass
class FakeEngine:
    """An engine in memory. Implements `engine.base.Engine`.

    `programs` are found by name, before the built-in ones (`fake_programs`); `registry` is what `pull` finds, by
    reference and arch; `stages` gives built images their files, by stage; `broken_stages` are stages whose build fails,
    with the lines of their log; `faults` befall the next command whose program has that name.
    """

    programs: dict[str, Program] = field(default_factory=dict)
    arch: Arch = Arch.X86_64
    cores: int = 2
    memory: int = 8 << 30
    users: dict[str, int] = field(default_factory=lambda: {"root": 0})
    registry: dict[tuple[str, Arch], FakeFiles] = field(default_factory=dict)
    stages: dict[str, FakeFiles] = field(default_factory=dict)
    broken_stages: dict[str, tuple[str, ...]] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    dead: bool = False
    images: dict[str, FakeImage] = field(default_factory=dict)  # by tag
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    volumes: dict[str, dict[str, str]] = field(default_factory=dict)  # labels by name
    kept: dict[str, dict[str, Entry]] = field(default_factory=dict)  # volumes' files by name and path within
    started: list[ContainerOptions] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    builds: list[Build] = field(default_factory=list)
    pulls: list[str] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    emulated: dict[Arch, Emulator] = field(default_factory=dict)
    stopped: bool = False
    identity: str = ""
    lacks: tuple[Feature, ...] = ()
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def die(self) -> None:
        """From now on nothing answers; containers stay where they are."""
        self.dead = True

    def revive(self) -> None:
        """Answer again, as a restarted engine does: containers are there, but nothing runs in them."""
        self.dead = False
        for container in self.containers.values():
            container.children.clear()

    def check(self) -> None:
        """Raise EngineError if the engine is dead, Interrupted if it was stopped."""
        self.answer()
        if self.stopped:
            raise Interrupted("the run was interrupted")

    def answer(self) -> None:
        """Raise EngineError if the engine is dead."""
        if self.dead:
            raise EngineError(
                "the container engine (docker) does not answer",
                hint="start it, or let crossjit do it: ./inv setup",
            )

    def execute(self, process: FakeProcess) -> int:
        """Run a program, as a shell would: 127 where there is none."""
        name = process.argv[0].rpartition("/")[2]
        program = self.programs.get(name) or BUILT_IN.get(name)
        if program is None:
            process.write_line(f"sh: {process.argv[0]}: not found")
            return 127
        return program(process)

    def add_image(
        self, tag: str, *, arch: Arch, files: FakeFiles | None = None, labels: Mapping[str, str] | None = None
    ) -> ImageInfo:
        """Put an image into the engine."""
        files = files.copy() if files is not None else FakeFiles.base()
        said = json.dumps([arch, sorted((labels or {}).items()), files.digest()])
        identity = "sha256:" + hashlib.sha256(said.encode()).hexdigest()
        self.images[tag] = FakeImage(identity, arch, dict(labels or {}), files)
        return self.images[tag].info

    def facts(self) -> EngineFacts:
        """Say what it is."""
        self.check()
        return EngineFacts("docker", "26.1.5", "0.13.1", self.arch, self.cores, self.memory, identity=self.identity)

    def emulators(self, labels: Mapping[str, str]) -> Mapping[Arch, Emulator]:
        """Say what runs foreign archs."""
        self.check()
        return dict(self.emulated)

    def stop(self) -> None:
        """Let nobody go on with it."""
        self.stopped = True

    def _find(self, reference: str) -> FakeImage | None:
        if reference in self.images:
            return self.images[reference]
        return next((image for image in self.images.values() if image.id == reference), None)

    def image(self, reference: str) -> ImageInfo | None:
        """Look an image up."""
        self.check()
        found = self._find(reference)
        return found.info if found else None

    def pull(self, reference: str, *, arch: Arch) -> str:
        """Take an image from `registry`."""
        self.check()
        self.pulls.append(reference)
        files = self.registry.get((reference, arch))
        if files is None:
            raise EngineError(f"docker cannot pull {reference}", details=("no such host",))
        info = self.add_image(reference, arch=arch, files=files)
        repository = re.sub(r"(@.*|:[^:/]*)$", "", reference)
        digest = f"{repository}@{info.id}"
        self.images[digest] = self.images[reference]
        return digest

    def import_image(self, tarball: Path, *, tag: str, arch: Arch, labels: Mapping[str, str]) -> ImageInfo:
        """Make an image of a tarball's files."""
        self.check()
        files = FakeFiles()
        try:
            with tarball.open("rb") as stream:
                files.unpack(stream, "/")
        except (OSError, tarfile.TarError) as error:
            raise EngineError(f"docker cannot import {tarball}", details=(str(error),)) from error
        return self.add_image(tag, arch=arch, files=files, labels=labels)

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
    ) -> ImageInfo:
        """Check a Dockerfile's stages and bases, and make an image with the stage's files from `stages`.

        Of its instructions only ADD of tarballs is carried out; nothing is run.
        """
        self.check()
        failure = f"docker cannot build the image {tag} (stage {target} of {context})"
        dockerfile = context / "Dockerfile"
        if not dockerfile.is_file():
            raise EngineError(failure, details=("failed to read dockerfile",))
        values = dict(arguments)
        stages: dict[str, FakeFiles] = {}
        current = ""
        for line in dockerfile.read_text().replace("\\\n", " ").splitlines():
            instruction, _, rest = line.strip().partition(" ")
            instruction = instruction.upper()
            if instruction == "ARG":
                name, _, default = rest.partition("=")
                values.setdefault(name.strip(), default.strip().strip('"'))
            rest = re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], found[0]), rest)
            if instruction == "FROM" and target not in stages:
                base, _, current = (word.strip() for word in re.sub(r"\s(?i:as)\s", "\0", rest).partition("\0"))
                base = re.sub(r"^--platform=\S+\s+", "", base)
                image = self._find(base)
                if base not in stages and base != "scratch" and image is None:
                    raise EngineError(failure, details=(f"{base}: failed to resolve source metadata",))
                stages[current] = (
                    stages[base].copy() if base in stages else image.files.copy() if image else FakeFiles()
                )
            elif instruction == "ADD" and current:
                words = json.loads(rest) if rest.startswith("[") else rest.split()
                source = context / words[-2]
                if not source.exists():
                    raise EngineError(failure, details=(f"{words[-2]}: not found",))
                with source.open("rb") as stream:
                    stages[current].unpack(stream, words[-1])
            if current == target and on_line is not None:
                on_line(f"#1 {line.strip()}")
            if current == target and target in self.broken_stages and instruction == "RUN":
                for text in self.broken_stages[target]:
                    if on_line is not None:
                        on_line(text)
                raise EngineError(failure, details=self.broken_stages[target])
        if target not in stages:
            raise EngineError(failure, details=(f"target stage {target} could not be found",))
        self.builds.append(Build(context, target, arch, tag, dict(arguments), dict(labels)))
        files = self.stages.get(target, stages[target])
        return self.add_image(tag, arch=arch, files=files, labels=labels)

    def tag(self, image: str, tag: str) -> None:
        """Give an image another name."""
        self.check()
        found = self._find(image)
        if found is None:
            raise EngineError(f"docker cannot tag {image} as {tag}", details=("no such image",))
        self.images[tag] = found

    @contextlib.contextmanager
    def container(self, options: ContainerOptions) -> Iterator[Container]:
        """Start a container and remove it on the way out."""
        self.check()
        found = self._find(options.image)
        if found is None:
            raise EngineError(f"there is no image {options.image} in docker")
        if found.arch is not options.arch:
            raise EngineError(f"the image {options.image} is for {found.arch}, not for {options.arch}")
        if any(other.started.name == options.name for other in self.containers.values()):
            raise EngineError(
                f"docker cannot create the container {options.name}", details=("the name is in use already",)
            )
        self.started.append(options)
        files = found.files.copy()
        _describe(files, options)
        for folder in options.in_memory:
            files.make_folder(folder, mode=0o1777)
        writable_volumes = {name: place for name, place in options.volumes.items() if not place.endswith(READ_ONLY)}
        for volume, place in options.volumes.items():
            if volume not in self.volumes:
                raise EngineError(f"there is no volume {volume} in docker")
            folder = place.removesuffix(READ_ONLY)
            files.make_folder(folder)
            for path, entry in self.kept.get(volume, {}).items():
                files.entries[folder + path] = entry
        read_only = (place for place in options.volumes.values() if place.endswith(READ_ONLY))
        files.unwritable = tuple(place.removesuffix(READ_ONLY) for place in read_only)
        files.read_only = not options.writable
        files.writable_anyway = options.in_memory
        # an image's labels are its containers', too
        container = FakeContainer(
            self, f"{next(self._numbers):064x}", options, found.labels | dict(options.labels), files
        )
        self.containers[container.id] = container
        try:
            try:
                yield container
            finally:
                for volume, folder in writable_volumes.items():
                    within = {path for path in files.entries if path == folder or path.startswith(folder + "/")}
                    self.kept[volume] = {path[len(folder) :]: files.entries[path] for path in within}
        finally:
            if self.dead:
                reason = "the container engine (docker) does not answer"
                self.leftovers.append(
                    Leftover(f"the container {options.name}", reason, f"docker rm --force --volumes {options.name}")
                )
            else:
                self.containers.pop(container.id, None)
        self.check()

    def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a named volume if there is none of that name."""
        self.check()
        if name not in self.volumes:
            self.volumes[name] = dict(labels)
            self.kept[name] = {}

    def owned(self, labels: Mapping[str, str | None]) -> list[EngineObject]:
        """List what carries all these labels, and `crossjit.owned`."""
        self.answer()
        things = [EngineObject("container", one.id, one.started.name, one.labels) for one in self.containers.values()]
        things += [EngineObject("volume", name, name, labels_of) for name, labels_of in self.volumes.items()]
        seen: set[str] = set()
        for tag, image in self.images.items():
            if image.id not in seen:
                seen.add(image.id)
                things.append(EngineObject("image", image.id, tag, image.labels))
        wanted = {OWNED: None, **labels}
        return [
            one
            for one in things
            if all(key in one.labels and value in (None, one.labels[key]) for key, value in wanted.items())
        ]

    def remove(self, thing: EngineObject) -> None:
        """Remove it; it is no error if it is gone already."""
        self.answer()
        if thing.kind == "container":
            self.containers.pop(thing.id, None)
        elif thing.kind == "volume":
            self.volumes.pop(thing.id, None)
            self.kept.pop(thing.id, None)
        else:
            for tag in [tag for tag, image in self.images.items() if image.id == thing.id]:
                del self.images[tag]

    def shell(
        self,
        options: ContainerOptions,
        prepare: Callable[[Container], None],
        argv: Sequence[str],
        *,
        cwd: str | None = None,
    ) -> int:
        """Start a container, let `prepare` fill it, run a command in it without a terminal, return its exit status."""
        with self.container(options.for_terminal) as container:
            prepare(container)
            status = container.run(argv, cwd=cwd).returncode
            return status if status >= 0 else 128 - status


def _describe(files: FakeFiles, started: ContainerOptions) -> None:
    """Write what the kernel would say of the container, where its programs and tests look for it."""
    lines = ["Inter-|   Receive", " face |bytes", "    lo: 0"]
    if started.network:
        lines.append("  eth0: 0")
    files.write("/proc/net/dev", "".join(f"{line}\n" for line in lines).encode())
    # CAP_… numbers are not modelled: any capability shows as one bit
    effective = (1 << len(started.capabilities)) - 1
    status = f"Name:\tcat\nCapEff:\t{effective:016x}\nCapBnd:\t{effective:016x}\nNoNewPrivs:\t1\n"
    files.write("/proc/self/status", status.encode())
    size = started.limits.file_size
    most = "unlimited" if started.limits.file_size_may_be_raised else size
    limits = f"Max file size {size} {most} bytes\nMax core file size 0 0 bytes\nMax open files 4096 4096 files\n"
    files.write("/proc/self/limits", limits.encode())
