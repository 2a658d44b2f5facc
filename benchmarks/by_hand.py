"""Builds typed by hand instead of with crossjit: the engine's client, configure and make, in the same images."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.commands import LAST, MeasurementError
from benchmarks.figures import Pace
from crossjit import sources
from crossjit.build import spec
from crossjit.engine.process import feed, follow
from crossjit.images import Image
from crossjit.model import Arch, Variant
from crossjit.sources import Source

WORK = "/work"
SOURCE = f"{WORK}/source"
NATIVE = f"{WORK}/native"
CROSS = f"{WORK}/cross"
GRACE = 60.0


@dataclass(frozen=True)
class Hand:
    """Runs hand-typed commands: the client's name, the containers' labels, and make's parallelism."""

    client: str
    labels: Mapping[str, str]
    jobs: int

    @contextlib.contextmanager
    def container(self, image: Image, source: Source, environ: Mapping[str, str] | None = None) -> Iterator[str]:
        """Start a container with the unpacked source for the block; always remove it at the end."""
        name = f"crossjit-by-hand-{os.getpid()}-{os.urandom(2).hex()}"
        flags = [flag for key, value in self.labels.items() for flag in ("--label", f"{key}={value}")]
        flags += [flag for key, value in (environ or {}).items() for flag in ("--env", f"{key}={value}")]
        # no network, like crossjit's containers, so that only the commands differ
        flags += ["--detach", "--init", "--network", "none", "--platform", image.arch.platform, "--workdir", WORK]
        try:
            self.call("run", "--name", name, *flags, "--entrypoint", "sleep", image.reference, str(24 * 3600))
            self.call("exec", name, "mkdir", "-p", NATIVE, CROSS)
            with sources.open_tar(source) as tar:
                copied = feed([self.client, "cp", "-", f"{name}:{WORK}"], tar)
            if copied.returncode:
                raise MeasurementError(f"the source could not be copied into a container: {copied.stderr.strip()}")
            self.call("exec", name, "mv", f"{WORK}/{source.top}", SOURCE)
            yield name
        finally:
            subprocess.run([self.client, "rm", "--force", "--volumes", name], capture_output=True, check=False)

    def call(self, *arguments: str) -> str:
        """Run the client. Raises MeasurementError."""
        result = subprocess.run(
            [self.client, *arguments], capture_output=True, text=True, errors="replace", check=False
        )
        if result.returncode:
            raise MeasurementError(f"{self.client} {arguments[0]} failed: {result.stderr.strip()}")
        return result.stdout

    def type(
        self,
        container: str,
        *argv: str,
        cwd: str,
        environ: Mapping[str, str] | None = None,
        limit: float | None = None,
    ) -> Pace:
        """Run a command in a container for at most `limit` seconds; return its pace, which says whether it ended.

        Its steps are configure's checks, and the files that make starts to write. Raises MeasurementError if it fails.
        """
        flags = [flag for key, value in (environ or {}).items() for flag in ("--env", f"{key}={value}")]
        marks: list[float] = []
        last: deque[str] = deque(maxlen=LAST)

        def hear(line: str) -> None:
            last.append(line)
            if line.startswith("checking ") or " -o " in line:
                marks.append(time.perf_counter() - started)

        started = time.perf_counter()
        followed = follow(
            [self.client, "exec", *flags, "--workdir", cwd, container, *argv],
            on_line=hear,
            on_error_line=last.append,
            timeout=limit,
            on_timeout=lambda: self._end(container),
            grace=GRACE,
        )
        seconds = time.perf_counter() - started
        if followed.timed_out:
            return Pace(limit or seconds, tuple(marks), ended=False)
        if followed.returncode:
            raise MeasurementError(f"`{' '.join(argv)}` ended with {followed.returncode}:\n  " + "\n  ".join(last))
        return Pace(seconds, tuple(marks))

    def _end(self, container: str) -> None:
        """Kill all processes in a container."""
        subprocess.run([self.client, "kill", container], capture_output=True, timeout=GRACE, check=False)

    def native(self, image: Image, source: Source, variant: Variant) -> tuple[Pace, ...]:
        """Configure, make and install in an image of the machine's own arch: their sum is T."""
        with self.container(image, source) as container:
            return (
                self.type(container, f"{SOURCE}/configure", *options(variant), cwd=NATIVE),
                self.type(container, "make", f"-j{self.jobs}", cwd=NATIVE),
                self.type(container, "make", "install", f"DESTDIR={WORK}/install", cwd=NATIVE),
            )

    def cross(self, image: Image, source: Source, variant: Variant, arch: Arch) -> tuple[Pace, ...]:
        """Build for a foreign arch as in upstream's documentation: first a Python that runs here, then the target's."""
        environ = {"PKG_CONFIG_LIBDIR": f"/usr/lib/{arch.triple}/pkgconfig:/usr/share/pkgconfig"}
        configure = [
            f"--build={image.arch.triple}",
            f"--host={arch.triple}",
            f"--with-build-python={NATIVE}/python",
            f"CC={arch.triple}-gcc",
            f"CXX={arch.triple}-g++",
            *spec.CROSS_ANSWERS,
        ]
        with self.container(image, source) as container:
            return (
                self.type(container, f"{SOURCE}/configure", cwd=NATIVE),
                self.type(container, "make", f"-j{self.jobs}", cwd=NATIVE),
                self.type(
                    container,
                    f"{SOURCE}/configure",
                    *options(variant),
                    *configure,
                    cwd=CROSS,
                    environ=environ,
                ),
                self.type(container, "make", f"-j{self.jobs}", cwd=CROSS, environ=environ),
                self.type(container, "make", "install", f"DESTDIR={WORK}/install", cwd=CROSS, environ=environ),
            )

    def emulated(
        self, image: Image, source: Source, variant: Variant, *, limit: float, cpu: str | None = None
    ) -> tuple[Pace, ...]:
        """Configure and make in an image of a foreign arch, for `limit` seconds in all; return the paces so far.

        `cpu` is the CPU model that QEMU emulates, by default QEMU's own default.
        """
        phases = ((f"{SOURCE}/configure", *options(variant)), ("make", f"-j{self.jobs}"))
        paces: list[Pace] = []
        with self.container(image, source, {"QEMU_CPU": cpu} if cpu else None) as container:
            for argv in phases:
                remaining = limit - total(paces)
                if remaining <= 0 or (paces and not paces[-1].ended):
                    break
                paces.append(self.type(container, *argv, cwd=NATIVE, limit=remaining))
        return tuple(paces)


def options(variant: Variant) -> tuple[str, ...]:
    """Return the configure options of a cell of this variant."""
    return (*spec.CONFIGURE, *variant.configure)


def total(paces: Sequence[Pace]) -> float:
    """Return the sum of phases in seconds."""
    return sum(pace.seconds for pace in paces)
