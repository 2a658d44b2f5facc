"""The interface of container engines. One contract suite tests every implementation."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

from crossjit.errors import EngineError, Leftover
from crossjit.model import Arch, Emulator, Platform
from crossjit.util.budget import BUDGET

OWNED = "crossjit.owned"  # label on everything that crossjit makes; its value is the kind
HOME = "crossjit.home"  # label: digest of the state folder; separates the users of one engine
RUN = "crossjit.run"  # label: the run that started it
COPY = "crossjit.copy"  # label: an image that a run makes for itself; the value is unique
HOST = "host"  # the engine without containers, and its only image: this machine
READ_ONLY = ":ro"  # suffix of a volume's folder that is mounted read-only

LineSink = Callable[[str], None]


def permanent_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels for objects that outlive their run: all but the run's own."""
    return {key: value for key, value in labels.items() if key != RUN}


@dataclass(frozen=True)
class Limits:
    """A container's limits: bytes of memory (without swap), processes, seconds until it ends by itself.

    `file_size` is the bytes of one file. With `file_size_may_be_raised`, processes may raise it: it then only guards
    against accidents. `disk` is the bytes of its own files and its writable volumes together; it is checked while
    commands run. With `idle`, it gets processor time that no other container wants.
    """

    memory: int | None = None
    pids: int = 2048
    seconds: int = 6 * 3600
    file_size: int = BUDGET.tree
    file_size_may_be_raised: bool = False
    disk: int | None = None
    idle: bool = False


class Feature(StrEnum):
    """What engines of containers can do, and the host as an engine cannot: see `EngineFacts.lacks`."""

    ISOLATION = "run anything apart from this machine's files, processes, users and network"
    MEMORY = "limit memory"
    IMAGES = "make or get images"
    FOREIGN = "run programs of a different architecture"


def cannot(feature: Feature, what: str = "") -> EngineError:
    """Make the error for a request that needs a feature which the host as an engine lacks."""
    return EngineError(
        f"the host as an engine cannot {feature}{what and f', {what}'}",
        hint="use an engine of containers: CROSSJIT_ENGINE=docker, or podman",
    )


@dataclass(frozen=True)
class ContainerOptions:
    """How a container is started.

    `env` and `user` are the defaults for its commands. The client's proxies are passed on only with `network`.
    `writable=False` makes the root file system read-only; `tmpfs` are folders in memory; `volumes` are folders by the
    names of volumes from `ensure_volume`, which outlive the container. A folder that ends in READ_ONLY (`:ro`) is
    mounted read-only.

    Without `isolated`, an engine that lacks `Feature.ISOLATION` may run it: as the user who runs crossjit, with the
    machine's network, and with volumes that are all writable.
    """

    image: str
    arch: Arch
    name: str
    labels: Mapping[str, str]
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    network: bool = False
    limits: Limits = field(default_factory=Limits)
    capabilities: tuple[str, ...] = ()
    writable: bool = True
    tmpfs: tuple[str, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=dict)
    isolated: bool = True

    @property
    def in_memory(self) -> tuple[str, ...]:
        """The folders in memory, without their options."""
        return tuple(folder.partition(":")[0] for folder in self.tmpfs)

    @property
    def for_terminal(self) -> ContainerOptions:
        """These options for an interactive shell, whose user may run tests that need large files."""
        return replace(self, limits=replace(self.limits, file_size_may_be_raised=True))


@dataclass(frozen=True)
class Completed:
    """A finished command: its exit status (negative for a signal, as in subprocess) and wall seconds."""

    argv: tuple[str, ...]
    returncode: int
    seconds: float

    @property
    def how(self) -> str:
        """How it ended, in words: `exit status 2`, `killed by SIGKILL`."""
        if self.returncode >= 0:
            return f"exit status {self.returncode}"
        try:
            return f"killed by {signal.Signals(-self.returncode).name}"
        except ValueError:
            return f"killed by signal {-self.returncode}"


@dataclass(frozen=True)
class ImageInfo:
    """An image in the engine: its content id, its architecture, and its labels."""

    id: str
    arch: Arch
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineFacts:
    """An engine's properties, for `doctor` and the run record.

    `arch` and `kernel` (its release) are those of the machine that its containers run on. `identity` is the engine's
    own, by which two addresses of one engine are recognized; empty if it has none. What the engine `lacks`, it refuses
    with an EngineError.
    """

    name: str
    version: str
    buildx: str | None
    arch: Arch
    cores: int
    memory: int
    kernel: str = ""
    identity: str = ""
    lacks: tuple[Feature, ...] = ()
    platform: Platform = Platform.LINUX

    def memory_limit(self, size: int) -> int | None:
        """Return a container's limit of memory; None if this engine cannot limit it."""
        return None if Feature.MEMORY in self.lacks else size


@dataclass(frozen=True)
class EngineObject:
    """An object in the engine that crossjit made."""

    kind: Literal["container", "volume", "image"]
    id: str
    name: str
    labels: Mapping[str, str]


class Container(Protocol):
    """A running container. Its main process only waits; `run` does the work."""

    id: str

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
        """Run a command and pass on its output (stdout and stderr together) line by line as it arrives.

        `env` is added to the container's. A line is text without its newline, undecodable bytes replaced. After
        `timeout` seconds the command and all that it started is killed, and the status is -SIGKILL. The status of a
        command that does not exist is 127. A line of more than `BUDGET.line` bytes is cut, with a note at its end.

        Raises EngineError if the engine or the container is gone, OutOfMemoryError if the command failed and the kernel
        killed a process in the container because memory ran out, BudgetError if its output exceeds `BUDGET.log` bytes
        or the container exceeds `Limits.disk`; the command and all that it started is then killed.
        """

    def hurry(self) -> None:
        """Give a container that was started as `idle` the usual share of processor time. Raises EngineError."""

    def put(self, tar: BinaryIO, destination: str) -> None:
        """Unpack an uncompressed tar stream into an existing folder; owners and modes are the tar's."""

    def get(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a tar stream of a file or folder; members' names start with its last component.

        Owners mean nothing: podman makes the container's user the owner of everything, and an engine with user
        namespaces adds an offset.
        Raises FileNotFoundError if it does not exist; reading raises BudgetError after `BUDGET.stream` bytes. Limits on
        the members are up to the reader (`TreeCount`).
        """


DELEGATE = "run it as root, or with cgroup v2 whose controllers memory and pids systemd delegates to this user"


def is_rootless(info: Mapping[str, Any]) -> bool:
    """Whether an engine runs without root, by its `info` as docker or podman gives it."""
    security = (info.get("host") or {}).get("security") or {}
    return bool(security.get("rootless")) or any("name=rootless" in text for text in info.get("SecurityOptions") or ())


def traits(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is unusual about an engine, in words, by its `info` as docker or podman gives it."""
    found = ["rootless"] if is_rootless(info) else []
    found += ["user namespaces"] if any("name=userns" in text for text in info.get("SecurityOptions") or ()) else []
    store = dict(row for row in info.get("DriverStatus") or () if len(row) == 2)
    found += ["containerd image store"] if "containerd" in str(store.get("driver-type", "")) else []
    return tuple(found)


def unlimited(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what an engine without root cannot limit, by its `info`: it ignores these limits without a word.

    It can limit what the kernel's controllers of cgroup v2 that are delegated to the user can.
    """
    if not is_rootless(info):
        return ()
    if "host" in info:
        controllers = info["host"].get("cgroupControllers") or ()
        return tuple(name for name in ("memory", "pids") if name not in controllers)
    return tuple(name for name, key in (("memory", "MemoryLimit"), ("pids", "PidsLimit")) if not info.get(key))


class Engine(Protocol):
    """A container engine. `leftovers` are the containers that it could not remove."""

    leftovers: list[Leftover]

    @property
    def lacks(self) -> tuple[Feature, ...]:
        """What it refuses."""

    def facts(self) -> EngineFacts:
        """Return the engine's properties. Raises EngineError with a hint if it does not answer."""

    def emulators(self, labels: Mapping[str, str]) -> Mapping[Arch, Emulator]:
        """Try which foreign archs the engine's machine runs, with a tiny program of each; return by what.

        What that leaves in the engine carries the labels. Raises EngineError.
        """

    def stop(self) -> None:
        """Make other threads stop using it: what they wait for ends, and they get Interrupted.

        From then on containers can only be removed.
        """

    def container(self, options: ContainerOptions) -> AbstractContextManager[Container]:
        """Start a container for the block; always remove it at the end, with its processes and anonymous volumes.

        The image must be in the engine already and have the given arch: this is checked, and nothing is pulled. All
        other capabilities are dropped, new privileges are not possible. Nothing of the host is mounted. An init reaps
        processes, and no process in the container can kill its main process.
        """

    def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a named volume if it does not exist."""

    def image(self, reference: str) -> ImageInfo | None:
        """Look up an image; None if it does not exist."""

    def pull(self, reference: str, *, arch: Arch) -> str:
        """Pull an image and return its reference by digest. Raises EngineError if no registry has it."""

    def import_image(self, tarball: Path, *, tag: str, arch: Arch, labels: Mapping[str, str]) -> ImageInfo:
        """Make a one-layer image from a root file system's tarball."""

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
        """Build a stage of the Dockerfile in `context` with buildx, for the platform of `arch`.

        The build gets the environment's proxies; the image does not contain them. Raises EngineError with the last
        lines of the log as details.
        """

    def tag(self, image: str, tag: str) -> None:
        """Give an image another name."""

    def owned(self, labels: Mapping[str, str | None]) -> Iterable[EngineObject]:
        """List containers (running or not), volumes and images that carry all these labels; None is any value."""

    def remove(self, thing: EngineObject) -> None:
        """Remove an object; it may be gone already."""

    def shell(
        self,
        options: ContainerOptions,
        prepare: Callable[[Container], None],
        argv: Sequence[str],
        *,
        cwd: str | None = None,
    ) -> int:
        """Start a container, let `prepare` fill it, hand the terminal to a command in it, return its exit status."""
