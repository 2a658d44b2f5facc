"""Docker and podman behind the engine seam: the only module that imports python-on-whales.

python-on-whales answers questions (what is there, what is it). What must be followed as it runs, streamed, or brought
to its end through a Ctrl-C goes to the same client's command line directly: the library can do none of these.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import tenacity
from python_on_whales import ClientNotFoundError
from python_on_whales.components.image.cli_wrapper import Image
from python_on_whales.exceptions import DockerException

from crossjit import PROGRAM
from crossjit.engine import confinement
from crossjit.engine.base import OWNED, Container, ContainerOptions, EngineFacts, EngineObject, ImageInfo, LineSink
from crossjit.engine.cli_client import CliClient
from crossjit.engine.cli_container import CliContainer
from crossjit.engine.process import follow, held_signals
from crossjit.errors import EngineError, Leftover
from crossjit.model import Arch

PULL_PATIENCE = 1800.0  # seconds that pulling a whole image may take


class _Transient(Exception):  # noqa: N818 - never leaves this module
    """A pull failed in a way that may pass."""


def is_transient(said: str) -> bool:
    """Tell whether a failed pull is worth another try, by what the client said: it has only one exit status for all.

    A host that cannot be resolved is final: a machine without a registry should learn it at once.
    """
    text = said.lower()
    if "no such host" in text or "name resolution" in text or "not found" in text:
        return False
    return bool(
        re.search(
            r"time-?d? ?out|deadline exceeded|connection (reset|refused by peer)|unexpected eof|\b50[0234]\b"
            r"|internal server error|bad gateway|service unavailable|too ?many ?requests",
            text,
        )
    )


class CliEngine:
    """Docker or podman, by its command-line client. Implements `engine.base.Engine`."""

    def __init__(self, name: str = "docker") -> None:
        self.cli = CliClient(name)
        self.name = self.cli.name
        self.leftovers: list[Leftover] = []

    # -- what is it, what is there

    def facts(self) -> EngineFacts:
        """Ask the engine what it is."""
        said = self.cli.info()
        if self.name == "podman":
            version, machine = said["version"]["Version"], said["host"]["arch"]
            cores, memory, kernel = said["host"]["cpus"], said["host"]["memTotal"], said["host"].get("kernel", "")
            buildx = self.buildx()
        else:
            version, machine = said["ServerVersion"], said.get("Architecture", "unknown")
            cores, memory, kernel = said.get("NCPU", 1), said.get("MemTotal", 0), said.get("KernelVersion", "")
            plugins = (said.get("ClientInfo") or {}).get("Plugins") or ()  # asking buildx itself costs another client
            versions = {plugin.get("Name"): plugin.get("Version") for plugin in plugins}
            buildx = _version(versions["buildx"]) if versions.get("buildx") else None
        return EngineFacts(self.name, version, buildx, self._arch(machine, "the engine"), cores, memory, kernel)

    def buildx(self) -> str | None:
        """Return the version of buildx, None where there is none."""
        try:
            said = self.cli.library.buildx.version()
        except (ClientNotFoundError, DockerException, UnicodeDecodeError):
            return None
        return _version(said)

    def _arch(self, machine: str, whose: str) -> Arch:
        arch = Arch.of_machine(machine)
        if arch is None:
            raise EngineError(f"the architecture of {whose} is {machine}", hint=f"crossjit knows {', '.join(Arch)}")
        return arch

    def image(self, reference: str) -> ImageInfo | None:
        """Look an image up; None where there is none."""
        try:
            with self.cli.translated_errors(f"look up the image {reference}"):
                return self._info(self.cli.library.image.inspect(reference), reference)
        except EngineError as error:
            # an engine that answers and does not have it: the client exits with 1 for both
            if isinstance(error.__cause__, DockerException) and self.cli.try_call("version").returncode == 0:
                return None
            raise

    def _info(self, image: Image, reference: str) -> ImageInfo:
        config = image.config
        labels = (config.labels if config else None) or {}
        return ImageInfo(image.id, self._arch(image.architecture, f"the image {reference}"), dict(labels))

    def _expect(self, reference: str, arch: Arch) -> ImageInfo:
        """Look up an image that must be there and be for `arch`."""
        info = self.image(reference)
        if info is None:
            raise EngineError(f"there is no image {reference} in {self.name}")
        if info.arch is not arch:
            raise EngineError(f"the image {reference} is for {info.arch}, not for {arch}")
        return info

    # -- making images

    def pull(self, reference: str, *, arch: Arch) -> str:
        """Pull an image and return its reference by digest."""
        said = self._pull(reference, arch)
        self._expect(reference, arch)
        repository = re.sub(r"(@.*|:[^:/]*)$", "", reference)
        if found := re.search(r"^Digest: (sha256:[0-9a-f]{64})\s*$", said, re.MULTILINE):
            by_digest = f"{repository}@{found[1]}"
        else:  # podman says the image's id only
            with self.cli.translated_errors(f"look up the image {reference}"):
                digests = self.cli.library.image.inspect(reference).repo_digests or [reference]
            by_digest = next((digest for digest in digests if digest.startswith(f"{repository}@")), digests[0])
        known = self.image(by_digest)
        if known is None or known.arch is not arch:
            # one digest may stand for several arches, and the engine leaves it with the first that it pulled
            self.cli.try_call("image", "rm", by_digest)
            self._pull(by_digest, arch)
            self._expect(by_digest, arch)
        return by_digest

    def _pull(self, reference: str, arch: Arch) -> str:
        """Pull, three times if what fails may pass; return what the client said."""
        command = ("image", "pull", "--platform", arch.platform, reference)
        try:
            for attempt in tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(_Transient),
                stop=tenacity.stop_after_attempt(3),
                wait=tenacity.wait_exponential_jitter(multiplier=0.5, max=5.0),
                reraise=True,
            ):
                with attempt:
                    ended = self.cli.try_call(*command, timeout=PULL_PATIENCE)
                    if ended.returncode != 0 and is_transient(ended.stderr):
                        raise _Transient(ended.stderr)
        except _Transient as error:
            raise self.cli.error(f"pull {reference}, three times over", str(error)) from error
        if ended.returncode != 0:
            raise self.cli.error(f"pull {reference}", ended.stderr)
        return ended.stdout

    def import_image(self, tarball: Path, *, tag: str, arch: Arch, labels: Mapping[str, str]) -> ImageInfo:
        """Make a one-layer image of a root file system's tarball."""
        changes = [f"LABEL {_quoted(key)}={_quoted(value)}" for key, value in labels.items()]
        with self.cli.translated_errors(f"import {tarball}"):
            made = self.cli.library.image.import_(tarball, tag=tag, changes=changes, platform=arch.platform)
            info = self._info(made, tag)
        if info.arch is arch:
            return info
        # engines up to 20.10 do not heed --platform; buildx does, and nothing has to run for it
        self.remove(EngineObject("image", info.id, tag, labels))
        with tempfile.TemporaryDirectory(dir=tarball.parent, prefix=".import-") as folder:
            context = Path(folder)
            name = "rootfs" + "".join(tarball.suffixes[-2:])
            try:
                os.link(tarball, context / name)
            except OSError:
                (context / name).write_bytes(tarball.read_bytes())
            (context / "Dockerfile").write_text(f"FROM scratch AS rootfs\nADD {json.dumps([name, '/'])}\n")
            return self.build_image(context, target="rootfs", arch=arch, tag=tag, arguments={}, labels=labels)

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
        """Build a stage of the Dockerfile in `context` with buildx, for the platform of `arch`."""
        if self.name == "podman":
            flags = ["build"]
        else:
            if self.cli.command and self.buildx() is None:
                raise EngineError(
                    f"{self.name} has no buildx", hint=f"install docker-buildx, or let crossjit do it: {PROGRAM} setup"
                )
            # the engine's own builder, which bears its context's name: another would not see the engine's images
            builder = self.cli.call("show its context", "context", "inspect", "--format", "{{.Name}}").strip()
            flags = ["buildx", "build", "--builder", builder, "--load", "--progress", "plain", "--provenance=false"]
        flags += ["--target", target, "--platform", arch.platform, "--tag", tag]
        flags += confinement.build_proxies()
        for key, value in arguments.items():
            flags += ["--build-arg", f"{key}={value}"]
        for key, value in labels.items():
            flags += ["--label", f"{key}={value}"]
        last: deque[str] = deque(maxlen=30)

        def take(line: str) -> None:
            if line.strip():
                last.append(line)
            if on_line is not None:
                on_line(line)

        done = follow((*self.cli.command, *flags, str(context)), on_line=take, on_error_line=take)
        if done.returncode != 0:
            raise self.cli.error(f"build the image {tag} (stage {target} of {context})", "\n".join(last))
        return self._expect(tag, arch)

    def tag(self, image: str, tag: str) -> None:
        """Give an image another name."""
        self.cli.call(f"tag {image} as {tag}", "image", "tag", image, tag)

    # -- what crossjit left

    def owned(self, labels: Mapping[str, str | None]) -> list[EngineObject]:
        """List containers (running or not), volumes and images that carry all these labels, and `crossjit.owned`."""
        wanted = (key if value is None else f"{key}={value}" for key, value in labels.items())
        filters = [("label", OWNED), *(("label", label) for label in wanted)]
        things: list[EngineObject] = []
        with self.cli.translated_errors("list crossjit's objects"):
            containers = self.cli.library.container.list(all=True, filters=filters)  # type: ignore[arg-type]
            volumes = self.cli.library.volume.list(filters=filters)  # type: ignore[arg-type]
            images = self.cli.library.image.list(filters=filters)  # type: ignore[arg-type]
        # what is listed may be gone before it is looked at: another run removes its own
        for container in containers:
            with contextlib.suppress(DockerException):
                things.append(
                    EngineObject("container", container.id, container.name, dict(container.config.labels or {}))
                )
        for volume in volumes:
            with contextlib.suppress(DockerException):
                things.append(EngineObject("volume", volume.name, volume.name, dict(volume.labels or {})))
        for image in images:
            with contextlib.suppress(DockerException):
                tags = image.repo_tags
                config = image.config
                labels_of = (config.labels if config else None) or {}
                things.append(EngineObject("image", image.id, tags[0] if tags else image.id, dict(labels_of)))
        return things

    def remove(self, thing: EngineObject) -> None:
        """Remove it; it is no error if it is gone already."""
        if thing.kind == "container":
            self._discard(thing.id)
            return
        force = ("--force",) if thing.kind == "image" else ()
        with held_signals():
            ended = self.cli.try_call(thing.kind, "rm", *force, thing.id)
        if ended.returncode == 0:
            return
        if thing.kind == "image":
            there = self.image(thing.id) is not None
        else:
            there = thing.id in self.cli.call("list volumes", "volume", "ls", "--quiet").split()
        if there:
            raise self.cli.error(f"remove the {thing.kind} {thing.name}", ended.stderr)

    # -- containers

    @contextlib.contextmanager
    def container(self, options: ContainerOptions) -> Iterator[Container]:
        """Start a container and remove it on the way out, however that is."""
        name = options.name
        info = self._expect(options.image, options.arch)
        flags = ["--name", name, "--pull", "never", "--platform", options.arch.platform]
        for key, value in options.labels.items():
            flags += ["--label", f"{key}={value}"]
        if not options.network:
            flags += confinement.no_proxies(self.name)
        for key, value in options.env.items():
            flags += ["--env", f"{key}={value}"]
        flags += confinement.flags(options)
        # the program by its path: PATH may begin with folders that commands can write to
        flags += ["--entrypoint", "/bin/sleep", info.id, str(options.limits.seconds)]
        created: list[str] = []
        try:
            with held_signals(), self._noting(name):
                said = self.cli.call(
                    f"create the container {name}", "container", "create", *flags, env=confinement.without_proxies()
                )
                created.append(said.split()[-1])
            self.cli.call(f"start the container {name}", "container", "start", created[0])
            yield CliContainer(self.cli, created[0], options)
        except BaseException:
            with contextlib.suppress(EngineError):  # the first error is the one to tell; what is left is noted
                self._leave(created, name)
            raise
        self._leave(created, name)

    @contextlib.contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        """Note that a container may be left if the engine does not say what became of it."""
        try:
            yield
        except EngineError as error:
            if isinstance(error.__cause__, subprocess.TimeoutExpired):
                self._note(name, error)
            raise

    def _note(self, name: str, reason: EngineError) -> None:
        remedy = f"{self.name} rm --force --volumes {name}"
        self.leftovers.append(Leftover(f"the container {name}", reason.message, remedy))

    def _leave(self, created: Sequence[str], name: str) -> None:
        """Remove the container if there is one; note it where that fails."""
        for container in created:
            try:
                self._discard(container)
            except EngineError as error:
                self._note(name, error)
                raise

    def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a named volume if there is none of that name; the engine takes a name that it has for done."""
        flags = [flag for key, value in labels.items() for flag in ("--label", f"{key}={value}")]
        if self.cli.try_call("volume", "inspect", name).returncode != 0:
            self.cli.call(f"make the volume {name}", "volume", "create", *flags, name)

    def _discard(self, container: str) -> None:
        """Remove a container, whatever signals come meanwhile; being gone already is no error."""
        removed = False
        try:
            with held_signals():
                self._remove_container(container)
                removed = True
        except BaseException:
            if not removed:  # a second Ctrl-C came just before signals were held back
                with held_signals():
                    self._remove_container(container)
            raise

    def _remove_container(self, container: str) -> None:
        for wait in (0.2, 0.5, 1.0, 2.0, 0.0):
            ended = self.cli.try_call("container", "rm", "--force", "--volumes", container)
            if ended.returncode == 0:
                return
            # gone, or on its way: another process may be removing the same one
            listed = self.cli.call(
                "list containers", "ps", "--all", "--quiet", "--no-trunc", "--filter", f"id={container}"
            )
            if not listed.strip():
                return
            time.sleep(wait)
        raise self.cli.error(f"remove the container {container[:12]}", ended.stderr)

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
            terminal = ("--interactive", "--tty") if os.isatty(0) and os.isatty(1) else ("--interactive",)
            where = ("--workdir", cwd) if cwd is not None else ()
            assert isinstance(container, CliContainer)
            status = subprocess.call((*container.exec(*terminal, *where), *argv), env=container.environment)
            if status != 0:
                self.cli.require_running(container.id, options.name)
            return status


def _version(said: str) -> str:
    """Return what looks like a version in what a program says of itself."""
    found = re.search(r"\d+\.\d+[^\s]*", said)
    return found.group() if found else said


def _quoted(text: str) -> str:
    """Quote a word for a Dockerfile instruction, in which variables are replaced."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'
