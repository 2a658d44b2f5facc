"""Docker and podman as engines. Only this module and `cli_client` import python-on-whales.

python-on-whales is used for queries. Commands that are followed, streamed, or must end despite a Ctrl-C use the
client's command line directly, since the library can do none of these.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import tenacity
from python_on_whales import ClientNotFoundError
from python_on_whales.components.image.cli_wrapper import Image
from python_on_whales.exceptions import DockerException

from crossjit import PROGRAM
from crossjit.config.engines import NamedEngine
from crossjit.engine import cli_text, confinement, podman_build, trial
from crossjit.engine.base import OWNED, Container, ContainerOptions, EngineFacts, EngineObject, ImageInfo, LineSink
from crossjit.engine.cli_client import CliClient, is_transient
from crossjit.engine.cli_container import CliContainer
from crossjit.engine.image_stage import Stage
from crossjit.engine.process import held_signals
from crossjit.errors import EngineError, Leftover
from crossjit.model import Arch, Emulator

PULL_TIMEOUT = 1800.0  # seconds for pulling an image
# Seconds between attempts to remove a container. On a busy machine it takes long if another process is removing it.
REMOVAL = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 0.0)


class _Transient(Exception):  # noqa: N818 - never leaves this module
    """A pull failed, but another try may succeed."""


class CliEngine:
    """Docker or podman, by its command-line client. Implements `engine.base.Engine`."""

    def __init__(self, name: str = "docker", at: NamedEngine | None = None) -> None:
        self.cli = CliClient(name, at)
        self.name = self.cli.name
        self.leftovers: list[Leftover] = []
        self.lacks = ()

    # -- queries

    def facts(self) -> EngineFacts:
        """Return the engine's properties."""
        info = self.cli.info()
        if self.name == "podman":
            version, machine = info["version"]["Version"], info["host"]["arch"]
            cores, memory, kernel = info["host"]["cpus"], info["host"]["memTotal"], info["host"].get("kernel", "")
            buildx = None  # it builds by itself
        else:
            version, machine = info["ServerVersion"], info.get("Architecture", "unknown")
            cores, memory, kernel = info.get("NCPU", 1), info.get("MemTotal", 0), info.get("KernelVersion", "")
            plugins = (info.get("ClientInfo") or {}).get("Plugins") or ()  # asking buildx itself takes another process
            versions = {plugin.get("Name"): plugin.get("Version") for plugin in plugins}
            buildx = cli_text.version(versions["buildx"]) if versions.get("buildx") else None
        identity = str(info.get("ID", ""))
        return EngineFacts(
            self.name, version, buildx, self._arch(machine, "the engine"), cores, memory, kernel, identity
        )

    def emulators(self, labels: Mapping[str, str]) -> Mapping[Arch, Emulator]:
        """Try which foreign archs the engine's machine runs."""
        return trial.emulators(self, self.cli, self.facts().arch, labels)

    def stop(self) -> None:
        """Make other threads stop using it."""
        self.cli.stop()

    def buildx(self) -> str | None:
        """Return the version of buildx, None without it."""
        try:
            output = self.cli.library.buildx.version()
        except (ClientNotFoundError, DockerException, UnicodeDecodeError):
            return None
        return cli_text.version(output)

    def _arch(self, machine: str, whose: str) -> Arch:
        arch = Arch.of_machine(machine)
        if arch is None:
            raise EngineError(f"the architecture of {whose} is {machine}", hint=f"crossjit knows {', '.join(Arch)}")
        return arch

    def image(self, reference: str) -> ImageInfo | None:
        """Look up an image; None if it does not exist."""
        try:
            with self.cli.translated_errors(f"look up the image {reference}"):
                return self._info(self.cli.library.image.inspect(reference), reference)
        except EngineError as error:
            # the client exits with 1 both for a missing image and for an engine that does not answer
            if isinstance(error.__cause__, DockerException) and self.cli.try_call("version").returncode == 0:
                return None
            raise

    def _info(self, image: Image, reference: str) -> ImageInfo:
        config = image.config
        labels = (config.labels if config else None) or {}
        return ImageInfo(
            cli_text.digest(image.id), self._arch(image.architecture, f"the image {reference}"), dict(labels)
        )

    def _expect(self, reference: str, arch: Arch) -> ImageInfo:
        """Look up an image that must exist and be for `arch`."""
        info = self.image(reference)
        if info is None:
            raise EngineError(f"there is no image {reference} in {self.name}")
        if info.arch is not arch:
            raise EngineError(f"the image {reference} is for {info.arch}, not for {arch}")
        return info

    # -- making images

    def pull(self, reference: str, *, arch: Arch) -> str:
        """Pull an image and return its reference by digest."""
        output = self._pull(reference, arch)
        self._expect(reference, arch)
        repository = re.sub(r"(@.*|:[^:/]*)$", "", reference)
        if match := re.search(r"^Digest: (sha256:[0-9a-f]{64})\s*$", output, re.MULTILINE):
            by_digest = f"{repository}@{match[1]}"
        else:  # podman prints the image's id only
            with self.cli.translated_errors(f"look up the image {reference}"):
                digests = self.cli.library.image.inspect(reference).repo_digests or [reference]
            by_digest = next((digest for digest in digests if digest.startswith(f"{repository}@")), digests[0])
        known = self.image(by_digest)
        if known is None or known.arch is not arch:
            # one digest may name images for several archs, and the engine keeps the first that it pulled
            self.cli.try_call("image", "rm", by_digest)
            self._pull(by_digest, arch)
            self._expect(by_digest, arch)
        return by_digest

    def _pull(self, reference: str, arch: Arch) -> str:
        """Pull, with up to three attempts if another try may succeed; return the client's output."""
        command = ("image", "pull", "--platform", arch.platform, reference)
        try:
            for attempt in tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(_Transient),
                stop=tenacity.stop_after_attempt(3),
                wait=tenacity.wait_exponential_jitter(multiplier=0.5, max=5.0),
                reraise=True,
            ):
                with attempt:
                    result = self.cli.try_call(*command, timeout=PULL_TIMEOUT)
                    if result.returncode != 0 and is_transient(result.stderr):
                        raise _Transient(result.stderr)
        except _Transient as error:
            raise self.cli.error(f"pull {reference}, three times over", str(error)) from error
        if result.returncode != 0:
            raise self.cli.error(f"pull {reference}", result.stderr)
        return result.stdout

    def import_image(self, tarball: Path, *, tag: str, arch: Arch, labels: Mapping[str, str]) -> ImageInfo:
        """Make a one-layer image from a root file system's tarball."""
        system, _, machine = arch.platform.partition("/")
        flags = ["--os", system, "--arch", machine] if self.name == "podman" else ["--platform", arch.platform]
        quoted = podman_build.quoted if self.name == "podman" else cli_text.quoted
        for key, value in labels.items():
            flags += ["--change", f"LABEL {quoted(key)}={quoted(value)}"]
        result = self.cli.try_call("image", "import", *flags, str(tarball), tag, timeout=PULL_TIMEOUT)
        if result.returncode != 0:
            raise self.cli.error(f"import {tarball}", result.stderr)
        info = self.image(tag)
        if info is not None and info.arch is arch:
            return info
        # engines up to 20.10 ignore --platform; buildx does not, and this build runs no command
        if info is not None:
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
        """Build a stage of the Dockerfile in `context`, for the platform of `arch`."""
        stage = Stage(context, target, arch, tag, arguments, labels)
        if self.name == "podman":
            podman_build.build(self.cli, stage, own=self.facts().arch, on_line=on_line)
        else:
            if self.cli.command and self.buildx() is None:
                raise EngineError(
                    f"{self.name} has no buildx", hint=f"install docker-buildx, or let crossjit do it: {PROGRAM} setup"
                )
            # the engine's own builder has its context's name; other builders do not see the engine's images
            builder = self.cli.call("show its context", "context", "inspect", "--format", "{{.Name}}").strip()
            flags = ("--builder", builder, "--load", "--progress", "plain", "--provenance=false")
            stage.build(self.cli, "buildx", "build", *flags, "--platform", arch.platform, on_line=on_line)
        return self._expect(tag, arch)

    def tag(self, image: str, tag: str) -> None:
        """Give an image another name."""
        self.cli.call(f"tag {image} as {tag}", "image", "tag", image, tag)

    # -- objects that crossjit made

    def owned(self, labels: Mapping[str, str | None]) -> list[EngineObject]:
        """List containers (running or not), volumes and images that carry all these labels, and `crossjit.owned`."""
        selectors = (key if value is None else f"{key}={value}" for key, value in labels.items())
        filters = [("label", OWNED), *(("label", label) for label in selectors)]
        things: list[EngineObject] = []
        with self.cli.translated_errors("list crossjit's objects"):
            containers = self.cli.library.container.list(all=True, filters=filters)  # type: ignore[arg-type]
            volumes = self.cli.library.volume.list(filters=filters)  # type: ignore[arg-type]
            images = self.cli.library.image.list(filters=filters)  # type: ignore[arg-type]
        # a listed object may be gone before it is inspected: another run removes its own
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
                digest = cli_text.digest(image.id)
                things.append(EngineObject("image", digest, tags[0] if tags else digest, dict(labels_of)))
        wanted = {OWNED: None, **labels}.items()  # podman 4 also lists images with only one of several labels
        return [
            thing
            for thing in things
            if all(key in thing.labels and value in (None, thing.labels[key]) for key, value in wanted)
        ]

    def remove(self, thing: EngineObject) -> None:
        """Remove an object; it may be gone already."""
        if thing.kind == "container":
            self._discard(thing.id)
            return
        force = ("--force",) if thing.kind == "image" else ()
        with held_signals():
            result = self.cli.try_call(thing.kind, "rm", *force, thing.id)
        if result.returncode == 0:
            return
        if thing.kind == "image":
            exists = self.image(thing.id) is not None
        else:
            exists = thing.id in self.cli.call("list volumes", "volume", "ls", "--quiet").split()
        if exists:
            raise self.cli.error(f"remove the {thing.kind} {thing.name}", result.stderr)

    # -- containers

    @contextlib.contextmanager
    def container(self, options: ContainerOptions) -> Iterator[Container]:
        """Start a container for the block; always remove it at the end."""
        name = options.name
        self.cli.check()
        info = self._expect(options.image, options.arch)
        flags = confinement.start_flags(options, self.name)
        # the program by its absolute path: PATH may begin with folders that commands can write to
        flags += ["--entrypoint", "/bin/sleep", info.id, str(options.limits.seconds)]
        created: list[str] = []
        try:
            with held_signals(), self._noting(name):
                output = self.cli.call(
                    f"create the container {name}", "container", "create", *flags, env=confinement.without_proxies()
                )
                created.append(output.split()[-1])
            self.cli.call(f"start the container {name}", "container", "start", created[0])
            yield CliContainer(self.cli, created[0], options)
        except BaseException:
            with contextlib.suppress(EngineError):  # report the first error; the leftover is noted
                self._leave(created, name)
            raise
        self._leave(created, name)

    @contextlib.contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        """Note a possible leftover if creating the container timed out."""
        try:
            yield
        except EngineError as error:
            if isinstance(error.__cause__, subprocess.TimeoutExpired):
                self._note(name, error)
            raise

    def _note(self, name: str, reason: EngineError) -> None:
        remedy = shlex.join((*self.cli.words, "rm", "--force", "--volumes", name))
        self.leftovers.append(Leftover(f"the container {name}", reason.message, remedy))

    def _leave(self, created: Sequence[str], name: str) -> None:
        """Remove the container if it was created; note it as a leftover if that fails."""
        for container in created:
            try:
                self._discard(container)
            except EngineError as error:
                self._note(name, error)
                raise

    def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a named volume if it does not exist; for the engine, an existing name is not an error."""
        flags = cli_text.label_flags(labels)
        if self.name == "podman":  # else its first user, which is the container's, becomes its owner
            flags += ["--opt", "o=uid=0,gid=0"]
        if self.cli.try_call("volume", "inspect", name).returncode != 0:
            self.cli.call(f"make the volume {name}", "volume", "create", *flags, name)

    def _discard(self, container: str) -> None:
        """Remove a container, even if signals arrive meanwhile; it may be gone already."""
        removed = False
        try:
            with held_signals():
                self._remove_container(container)
                removed = True
        except BaseException:
            if not removed:  # a second Ctrl-C arrived just before signals were held back
                with held_signals():
                    self._remove_container(container)
            raise

    def _remove_container(self, container: str) -> None:
        for wait in REMOVAL:
            result = self.cli.try_call("container", "rm", "--force", "--volumes", container)
            if result.returncode == 0:
                return
            # it may be gone, or another process may be removing it
            listed = self.cli.call(
                "list containers", "ps", "--all", "--quiet", "--no-trunc", "--filter", f"id={container}"
            )
            if not listed.strip():
                return
            time.sleep(wait)
        raise self.cli.error(f"remove the container {container[:12]}", result.stderr)

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
            workdir = ("--workdir", cwd) if cwd is not None else ()
            assert isinstance(container, CliContainer)
            status = subprocess.call((*container.exec(*terminal, *workdir), *argv), env=container.environment)
            if status != 0:
                self.cli.require_running(container.id, options.name)
            return status
