"""The seam to a container engine: what the rest may ask of one. One contract suite holds every engine to it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from crossjit.errors import Leftover
from crossjit.model import Arch
from crossjit.util.budget import BUDGET

OWNED = "crossjit.owned"  # label on everything that crossjit makes; its value is the kind
HOME = "crossjit.home"  # label: digest of the state folder, so that two users of one engine leave each other alone
RUN = "crossjit.run"  # label: the run that started it
COPY = "crossjit.copy"  # label: an image that a run makes for itself; the value tells it apart from all others
READ_ONLY = ":ro"  # behind a volume's folder: it is mounted read-only

LineSink = Callable[[str], None]


def permanent_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels for what outlives the run that makes it: all but the run's own."""
    return {key: value for key, value in labels.items() if key != RUN}


@dataclass(frozen=True)
class Limits:
    """What a container may use: bytes of memory (no swap beyond it), processes, seconds until it ends by itself.

    `file_size` is the bytes of one file. What runs in the container may raise that for itself if
    `file_size_may_be_raised`: it is a limit against accidents then. `disk` is the bytes of its own files and of its
    writable volumes together; it is watched while commands run.
    """

    memory: int | None = None
    pids: int = 2048
    seconds: int = 6 * 3600
    file_size: int = BUDGET.tree
    file_size_may_be_raised: bool = False
    disk: int | None = None


@dataclass(frozen=True)
class ContainerOptions:
    """How a container is started.

    `env` and `user` are what its commands have unless they are run with others. Only with `network` the client's
    proxies get in. `writable=False` makes the root file system read-only; `tmpfs` are folders in memory; `volumes` are
    folders by the names of volumes that `ensure_volume` made, and stay when the container goes. A folder that ends in
    READ_ONLY (`:ro`) is mounted read-only.
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

    @property
    def in_memory(self) -> tuple[str, ...]:
        """The folders in memory, without their options."""
        return tuple(folder.partition(":")[0] for folder in self.tmpfs)

    @property
    def for_terminal(self) -> ContainerOptions:
        """These options for a shell: whoever is at the terminal may run tests that insist on large files."""
        return replace(self, limits=replace(self.limits, file_size_may_be_raised=True))


@dataclass(frozen=True)
class Completed:
    """One command that ended: its exit status (negative for a signal, as in subprocess) and wall seconds."""

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
    """What the engine is: for `doctor` and the run record.

    `arch` and `kernel` (its release) are the machine's that its containers run on.
    """

    name: str
    version: str
    buildx: str | None
    arch: Arch
    cores: int
    memory: int
    kernel: str = ""


@dataclass(frozen=True)
class EngineObject:
    """Something that crossjit made and left in the engine."""

    kind: Literal["container", "volume", "image"]
    id: str
    name: str
    labels: Mapping[str, str]


class Container(Protocol):
    """A running container. Its main process only waits; work is done by `run`."""

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
        """Run a command to its end and pass on its output (stdout and stderr as they come) line by line.

        `env` is added to the container's. A line is text without its newline, undecodable bytes replaced. A command
        that outlives `timeout` seconds is killed with all it started and comes back as -SIGKILL. One that does not
        exist comes back as 127. A line of more than `BUDGET.line` bytes loses its end, and says so in its place.

        Raises EngineError if the engine or the container is gone, OutOfMemoryError if the kernel killed something in
        the container for its memory and the command did not succeed, BudgetError if it says more than `BUDGET.log`
        bytes or the container comes to more than `Limits.disk`; it is killed then, with all it started.
        """

    def put(self, tar: BinaryIO, destination: str) -> None:
        """Unpack an uncompressed tar stream into an existing folder; owners and modes are the tar's."""

    def get(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a tar stream of a file or folder; members are named from its last component on.

        Raises FileNotFoundError where there is none; reading it raises BudgetError after `BUDGET.stream` bytes. What is
        in it is for the reader to bound (`TreeCount`).
        """


class Engine(Protocol):
    """A container engine. `leftovers` is what it could not remove when a container was left."""

    leftovers: list[Leftover]

    def facts(self) -> EngineFacts:
        """Ask the engine what it is. Raises EngineError with a hint if it does not answer."""

    def container(self, options: ContainerOptions) -> AbstractContextManager[Container]:
        """Start a container and remove it, with its processes and anonymous volumes, on the way out, however that is.

        The image must be in the engine already, with that arch (it is checked; nothing is pulled). All capabilities are
        dropped but those given; no new privileges; an init reaps, and nothing that runs in the container can end it.
        Nothing of the host is mounted.
        """

    def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a named volume if there is none of that name."""

    def image(self, reference: str) -> ImageInfo | None:
        """Look an image up; None where there is none."""

    def pull(self, reference: str, *, arch: Arch) -> str:
        """Pull an image and return its reference by digest. Raises EngineError if no registry has it."""

    def import_image(self, tarball: Path, *, tag: str, arch: Arch, labels: Mapping[str, str]) -> ImageInfo:
        """Make a one-layer image of a root file system's tarball."""

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

        The environment's proxies are given to it, and are in nothing that is made.

        Raises EngineError with the last lines of the log as details.
        """

    def tag(self, image: str, tag: str) -> None:
        """Give an image another name."""

    def owned(self, labels: Mapping[str, str | None]) -> Iterable[EngineObject]:
        """List containers (running or not), volumes and images that carry all these labels; None is any value."""

    def remove(self, thing: EngineObject) -> None:
        """Remove it; it is no error if it is gone already."""

    def shell(
        self,
        options: ContainerOptions,
        prepare: Callable[[Container], None],
        argv: Sequence[str],
        *,
        cwd: str | None = None,
    ) -> int:
        """Start a container, let `prepare` fill it, hand the terminal to a command in it, return its exit status."""
