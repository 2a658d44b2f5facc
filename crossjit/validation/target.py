"""The environment of suites: a target container with an artifact installed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO

from crossjit.config import suites
from crossjit.config.conditions import TargetEnvironment
from crossjit.engine.base import Container, ContainerOptions, EngineFacts, Limits
from crossjit.errors import InfrastructureError
from crossjit.images import Image, Package
from crossjit.model import Cell, Variant
from crossjit.util.budget import SUITE_MEMORY, TARGET_DISK
from crossjit.util.tar import packed, without

TESTER = 1000  # uid and gid of `tester` in the target images
HOME = "/home/tester"
PYTHON = "/usr/local/bin/python3"
SCRIPTS = "/usr/local/libexec/validate"

# The installed tests expect CPython's Tools/ here: `basepath` in test/test_tools/__init__.py, four folders above it.
TOOLS_PARENT = "/usr/local/lib"
LDCONFIG = ("/usr/sbin/ldconfig", "-i")  # -i: without its auxiliary cache
NO_LIBRARY = 127  # the loader's exit status

# Probes and measurements do not need them, and they are two thirds of the install tree's files.
TESTS = re.compile(rb"usr/(?:local/)?lib/python[^/]+/test/")
MEMORY = 4 << 30  # bytes, at least, if the machine has them
MEMORY_PER_JOB = 2 << 30
FILE_SIZE = 8 << 30  # bytes; test_mmap writes sparse files of 6 GiB
MARGIN = 900  # seconds of a container in addition to its suite's limit, for copying in and out
Opener = Callable[[], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Target:
    """A cell's CPython and its environment.

    `tree` opens the install tree (an uncompressed tar of `usr/local/…`), `artifact` is its id. `support` opens a tar
    with CPython's `Tools/`, without which the tests of the cases generator skip themselves. `python` is (major, minor).
    `emulation` are QEMU's environment variables, empty without emulation; `qemu` is its version, None without emulation
    or if unknown. `name` and `labels` are the container's. `packages` are the toolchain's, to find the package of a
    missing library. `files` are further files to install, by their path.
    """

    image: Image
    artifact: str
    tree: Opener
    cell: Cell
    variant: Variant
    python: tuple[int, int]
    name: str
    labels: Mapping[str, str]
    support: Opener | None = None
    emulation: Mapping[str, str] = field(default_factory=dict)
    qemu: str | None = None
    packages: tuple[Package, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables of all its processes."""
        return environment(self.variant, self.emulation)

    def options(self, limits: Limits | None = None) -> ContainerOptions:
        """Return the options of its container."""
        return container_options(self.image, self.name, self.labels, self.environment, limits)

    def install(self, container: Container) -> None:
        """Install all of it in a container of its image."""
        install(container, self.variant, self.tree, self.support)
        if self.files:
            container.put(packed(self.files), "/")

    @property
    def conditions(self) -> TargetEnvironment:
        """The environment of its suites, without the capabilities, which are probed later."""
        emulated = bool(self.emulation)
        cpu = self.emulation.get("QEMU_CPU")
        return TargetEnvironment(self.python, self.cell.arch, self.variant, emulated, cpu, self.qemu)

    @property
    def subject(self) -> dict[str, object]:
        """The facts that must be equal to resume a run."""
        return {
            "cell": str(self.cell),
            "artifact": self.artifact,
            "image": self.image.key,
            "emulation": dict(self.emulation),
            "qemu": self.qemu,
        }


def container_options(
    image: Image, name: str, labels: Mapping[str, str], env: Mapping[str, str], limits: Limits | None = None
) -> ContainerOptions:
    """Return the options of a target image's container: as the unprivileged tester, without network."""
    return ContainerOptions(
        image.reference,
        arch=image.arch,
        name=name,
        labels=labels,
        env=env,
        user=f"{TESTER}:{TESTER}",
        limits=limits or Limits(),
        isolated=not image.is_host,
    )


def environment(variant: Variant, emulation: Mapping[str, str]) -> Mapping[str, str]:
    """Return the whole environment of a target's processes; `emulation` is for QEMU."""
    base = {"HOME": HOME, "LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    return {**base, **variant.variables(f"{TOOLS_PARENT}/Tools"), **emulation}


def install(container: Container, variant: Variant, tree: Opener, support: Opener | None = None) -> None:
    """Install the tree, CPython's Tools and our scripts in a container, and update the loader's cache if needed.

    Raises InfrastructureError if that fails.
    """
    with tree() as tar:
        container.put(tar, "/")
    find_libraries(container, variant)
    if support is not None:
        with support() as tar:
            container.put(tar, TOOLS_PARENT)
    install_scripts(container)


@contextlib.contextmanager
def without_tests(tree: Opener) -> Iterator[BinaryIO]:
    """Open a tree without CPython's tests."""
    with tree() as tar:
        yield without(tar, TESTS)


def find_libraries(container: Container, variant: Variant) -> None:
    """Update the loader's cache after an installation, if needed. Raises InfrastructureError if that fails."""
    if variant.is_shared:  # the loader finds /usr/local/lib only through its cache, and the image's does not have it
        completed = container.run(LDCONFIG, user="0:0")
        if completed.returncode:
            raise InfrastructureError(f"ldconfig failed in the target: {completed.how}")


def install_scripts(container: Container) -> None:
    """Install our scripts in a container. Raises InfrastructureError if there are none."""
    scripts = {f"{SCRIPTS}/{path.name}": path.read_bytes() for path in sorted(suites.VALIDATE.glob("*.py"))}
    if not scripts:
        raise InfrastructureError(
            f"there are no scripts in {suites.VALIDATE}",
            hint="install crossjit again, or run it in a clone of its repository",
        )
    container.put(packed(scripts), "/")


def memory_for(facts: EngineFacts, jobs: int) -> int | None:
    """Return a container's memory in bytes: enough for the jobs, at most a suite's share of the machine's.

    None if the engine cannot limit it.
    """
    return facts.memory_limit(min(max(MEMORY, jobs * MEMORY_PER_JOB), facts.memory * SUITE_MEMORY // 100))


def target_limits(memory: int | None, seconds: int) -> Limits:
    """Return a target's limits. The limit on file sizes can be raised, because test_resource requires it."""
    return Limits(memory, seconds=seconds, file_size=FILE_SIZE, file_size_may_be_raised=True, disk=TARGET_DISK)
