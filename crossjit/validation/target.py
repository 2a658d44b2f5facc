"""What suites run in: a target container with an artifact installed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
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
from crossjit.util.tar import packed

TESTER = 1000  # uid and gid of `tester` in the target images
HOME = "/home/tester"
PYTHON = "/usr/local/bin/python3"
SCRIPTS = "/usr/local/libexec/validate"

# Where the installed tests look for CPython's Tools/: `basepath` in test/test_tools/__init__.py, four folders above it.
TOOLS_PARENT = "/usr/local/lib"
LDCONFIG = ("/usr/sbin/ldconfig", "-i")  # -i: it needs no cache of its own
NO_LIBRARY = 127  # the loader's exit status

# What a probe does without: it is two thirds of the install tree's files.
TESTS = re.compile(rb"usr/local/lib/python[^/]+/test/")
MEMORY = 4 << 30  # bytes, at least, where the machine has them
MEMORY_PER_JOB = 2 << 30
FILE_SIZE = 8 << 30  # bytes; test_mmap writes sparse files of 6 GiB
MARGIN = 900  # seconds that a container lives beyond its suite's time, for copying in and out
Opener = Callable[[], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Target:
    """A cell's CPython and what it runs in.

    `tree` opens the install tree (an uncompressed tar of `usr/local/…`), `artifact` is its id; `support` opens one with
    CPython's `Tools/`, without which the tests of the cases generator skip themselves; `python` is (major, minor);
    `emulation` is what QEMU is told by the environment, empty where nothing is emulated, and `qemu` its version, None
    where nothing is emulated or that is not known; `name` is the container's, and `labels` go on it; `packages` are the
    toolchain's, which tell what package a library that is missing is in.
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

    @property
    def environment(self) -> Mapping[str, str]:
        """What everything in it runs with."""
        return environment(self.variant, self.emulation)

    def options(self, limits: Limits | None = None) -> ContainerOptions:
        """Say how its container is started."""
        return container_options(self.image, self.name, self.labels, self.environment, limits)

    def install(self, container: Container) -> None:
        """Put all of it where it belongs, in a container of its image."""
        install(container, self.variant, self.tree, self.support)

    @property
    def conditions(self) -> TargetEnvironment:
        """In what the suites run, as far as it is known before the target is asked."""
        emulated = bool(self.emulation)
        cpu = self.emulation.get("QEMU_CPU")
        return TargetEnvironment(self.python, self.cell.arch, self.variant, emulated, cpu, self.qemu)

    @property
    def subject(self) -> dict[str, object]:
        """All that two halves of one result must have in common."""
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
    """Say how a container of a target image is started: as the unprivileged tester, without network."""
    return ContainerOptions(
        image.reference,
        arch=image.arch,
        name=name,
        labels=labels,
        env=env,
        user=f"{TESTER}:{TESTER}",
        limits=limits or Limits(),
    )


def environment(variant: Variant, emulation: Mapping[str, str]) -> Mapping[str, str]:
    """Return what everything in a target runs with, and nothing else; `emulation` is for QEMU."""
    ours = {"HOME": HOME, "LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    return {**ours, **variant.variables(f"{TOOLS_PARENT}/Tools"), **emulation}


def install(container: Container, variant: Variant, tree: Opener, support: Opener | None = None) -> None:
    """Put the install tree, CPython's Tools and our scripts where they belong, for the loader to find them.

    Raises InfrastructureError where that cannot be.
    """
    with tree() as tar:
        container.put(tar, "/")
    if variant.is_shared:  # the loader looks into /usr/local/lib by its cache alone, which the image's is not
        completed = container.run(LDCONFIG, user="0:0")
        if completed.returncode:
            raise InfrastructureError(f"ldconfig failed in the target: {completed.how}")
    if support is not None:
        with support() as tar:
            container.put(tar, TOOLS_PARENT)
    scripts = {f"{SCRIPTS}/{path.name}": path.read_bytes() for path in sorted(suites.VALIDATE.glob("*.py"))}
    if not scripts:
        raise InfrastructureError(
            f"there are no scripts in {suites.VALIDATE}",
            hint="install crossjit again, or run it in a clone of its repository",
        )
    container.put(packed(scripts), "/")


def _memory(facts: EngineFacts, jobs: int) -> int:
    """Return a container's memory in bytes: enough for the jobs, and no more than a suite's share of the machine's."""
    return min(max(MEMORY, jobs * MEMORY_PER_JOB), facts.memory * SUITE_MEMORY // 100)


def target_limits(memory: int, seconds: int) -> Limits:
    """Return what a target may use. Its tests may raise the limit on a file: test_resource insists that it can be."""
    return Limits(memory, seconds=seconds, file_size=FILE_SIZE, file_size_may_be_raised=True, disk=TARGET_DISK)
