"""The base image: one for each suite, of the host's own arch; from a registry, or bootstrapped if none answers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from crossjit import PROGRAM
from crossjit.engine.base import OWNED, Engine, permanent_labels
from crossjit.errors import EngineError, InfrastructureError
from crossjit.images import release as releases
from crossjit.images.spec import ImageSpec
from crossjit.model import Arch
from crossjit.progress import Progress, Silent, Step
from crossjit.util import apt, files, locks

BASE = "crossjit.base"  # label: an image's base
REFERENCE = "crossjit.reference"  # label: the name that a bootstrapped base keeps


class BaseKind(StrEnum):
    """Where a base image comes from."""

    REGISTRY = "registry"
    BOOTSTRAP = "bootstrap"


@dataclass(frozen=True)
class Base:
    """A base image: `identity` is the reference by digest or `bootstrap:<suite>@<Release>`, `reference` its tag."""

    kind: BaseKind
    identity: str
    reference: str


Bootstrapper = Callable[[str, Arch, Path, Step, str], str]
"""Makes a tarball of a suite's root file system for an arch, from a mirror (empty: apt's).

Returns its Release files, see `release`. Raises InfrastructureError if it cannot be made.
"""


@dataclass(frozen=True)
class BaseBuilder:
    """Provides base images in an engine.

    `host_arch` is the arch of the engine's machine. The chosen base is recorded under `home`. `labels` are set on all
    containers and temporary images, so that they can be found if this process dies; images that outlive the run are
    labelled without it.
    """

    engine: Engine
    host_arch: Arch
    home: Path
    progress: Progress = field(default_factory=Silent)
    labels: Mapping[str, str] = field(default_factory=dict)
    bootstrapper: Bootstrapper = field(default_factory=lambda: bootstrap)

    def locked_base(self, spec: ImageSpec) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of a suite's base image."""
        return self.locked(f"base-{spec.suite}-{self.host_arch.debian}", f"the base image of {spec.suite}")

    @contextlib.contextmanager
    def locked(self, name: str, subject: str) -> Iterator[None]:
        """Hold a lock of this state folder; report it if another process has it."""
        path = self.home / "locks" / f"{name}.lock"
        with locks.locked(
            path,
            errors=lambda: files.translate_os_errors(InfrastructureError, "cannot lock an image", path.parent),
            on_wait=lambda: self.progress.say(f"another process is making {subject}; waiting to use its result"),
        ):
            yield

    def recorded(self, spec: ImageSpec) -> Base | None:
        """Return the recorded base: with it an image's key is known without a registry.

        None if there is none, or the image's document names a different one by now.
        """
        try:
            document = json.loads(self._record(spec).read_text(encoding="utf-8"))
            base = Base(BaseKind(document["kind"]), str(document["identity"]), str(document["reference"]))
            requested = document["asked"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return base if requested == _requested(spec) else None

    def decide(self, spec: ImageSpec, *, refresh: bool = False) -> Base:
        """Choose a base image, make it available in the engine, and record it.

        It is pulled from the registry; if that does not answer, or for a snapshot, it is bootstrapped on this host. One
        bootstrapped before is reused, unless `refresh`. Raises EngineError, and InfrastructureError if neither way
        works.
        """
        base = None if refresh else self._there(spec)
        if base is None:
            # One step for both ways: a registry that does not answer is not a failure.
            with self.progress.step("base", spec.suite) as step:
                base = self._had(spec, step)
        self._keep(base, spec)
        return base

    def _had(self, spec: ImageSpec, step: Step) -> Base:
        """Pull a base, or bootstrap one."""
        if spec.mirror:
            return self._bootstrap(spec, step, None)
        try:
            return self._pull(spec, step)
        except EngineError as refusal:
            self.engine.facts()  # raises if it is the engine that does not answer
            self.progress.say(f"no registry has {spec.document.base}: making the base from Debian's packages")
            return self._bootstrap(spec, step, refusal)

    def _keep(self, base: Base, spec: ImageSpec) -> None:
        record = self._record(spec)
        with files.translate_os_errors(InfrastructureError, "cannot record which base image is used", record.parent):
            record.parent.mkdir(parents=True, exist_ok=True)
            files.replace(record, json.dumps({**asdict(base), "asked": _requested(spec)}).encode())

    def require(self, base: Base, spec: ImageSpec) -> Base:
        """Make a recorded base available in the engine again if it was removed.

        Returns it; if it is bootstrapped again, the result differs if the mirror has changed.
        """
        if self.engine.image(base.reference) is not None:
            return base
        if base.kind is BaseKind.BOOTSTRAP:
            with self.progress.step("base", spec.suite) as step:
                base = self._bootstrap(spec, step, None)
            self._keep(base, spec)
            return base
        try:
            with self.progress.step("base", spec.suite) as step:
                step.update(detail=f"pulling {base.identity}")
                self.engine.pull(base.identity, arch=self.host_arch)
                self.engine.tag(base.identity, base.reference)
            return base
        except EngineError as error:
            raise EngineError(
                f"the base image {base.identity} cannot be pulled again",
                hint=f"make the registry reachable, or remove {self._record(spec)} to choose a new base",
                details=(error.message, *error.details),
            ) from error

    def _pull(self, spec: ImageSpec, step: Step) -> Base:
        requested = _requested(spec)
        step.update(detail=f"pulling {requested}")
        identity = self.engine.pull(requested, arch=self.host_arch)
        tag = f"crossjit/base-{spec.suite}-{self.host_arch.debian}:{identity.rpartition(':')[2][:12]}"
        self.engine.tag(identity, tag)  # so that it is not removed as a leftover, and builds need no registry
        return Base(BaseKind.REGISTRY, identity, tag)

    def _bootstrap(self, spec: ImageSpec, step: Step, refusal: EngineError | None) -> Base:
        with self._scratch(spec) as folder:
            tarball = folder / "base.tar"
            try:
                release = self.bootstrapper(spec.suite, self.host_arch, tarball, step, spec.mirror)
            except InfrastructureError as error:
                if refusal is None:
                    raise
                raise InfrastructureError(
                    f"there is no base image: {refusal.message}, and {error.message}",
                    hint=error.hint,
                    details=(*refusal.details, *error.details),
                ) from error
            if remark := releases.remark(release, spec.suite):
                self.progress.say(remark)
            base = self._bootstrapped(spec, release)
            step.update(detail="importing it")
            about = {
                OWNED: "image",
                BASE: base.identity,
                REFERENCE: base.reference,
                releases.LABEL: release,
            }
            self.engine.import_image(
                tarball, tag=base.reference, arch=self.host_arch, labels={**permanent_labels(self.labels), **about}
            )
            self.engine.tag(base.reference, self._newest(spec))
        return base

    @contextlib.contextmanager
    def _scratch(self, spec: ImageSpec) -> Iterator[Path]:
        """Make an empty folder; since the base's lock is held, an existing one is a killed process's."""
        folder = self.home / "images" / f".base-{spec.suite}-{self.host_arch.debian}"
        with files.translate_os_errors(InfrastructureError, "cannot make a base image", folder.parent):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _bootstrapped(self, spec: ImageSpec, release: str) -> Base:
        short = releases.short(release)
        reference = f"{self._newest(spec)}-{short}"
        return Base(BaseKind.BOOTSTRAP, f"bootstrap:{spec.suite}@{short}", reference)

    def _newest(self, spec: ImageSpec) -> str:
        """Return the newest bootstrapped base's tag."""
        return f"crossjit/base-{spec.suite}-{self.host_arch.debian}:{_origin(spec)}"

    def _there(self, spec: ImageSpec) -> Base | None:
        """Return the newest bootstrapped base in the engine, made from any state folder; None if there is none."""
        newest = self._newest(spec)
        info = self.engine.image(newest)
        if info is None or BASE not in info.labels:
            return None
        return Base(BaseKind.BOOTSTRAP, info.labels[BASE], info.labels.get(REFERENCE, newest))

    def _record(self, spec: ImageSpec) -> Path:
        origin = f"-{_origin(spec)}" if spec.mirror else ""
        return self.home / "images" / f"base-{spec.suite}-{self.host_arch.debian}{origin}.json"


def _origin(spec: ImageSpec) -> str:
    """Name the origin of a bootstrapped base: apt's mirror, or a snapshot."""
    return f"snapshot-{hashlib.sha256(spec.mirror.encode()).hexdigest()[:8]}" if spec.mirror else "bootstrap"


def _requested(spec: ImageSpec) -> str:
    """Return the requested base: a reference by tag, or by the pinned digest; or a snapshot's mirror."""
    if spec.mirror:
        return spec.mirror
    reference, digest = spec.document.base, spec.document.digest
    if digest is None:
        return reference
    name, colon, tag = reference.rpartition(":")
    return f"{name if colon and '/' not in tag else reference}@{digest}"


def bootstrap(suite: str, arch: Arch, tarball: Path, step: Step, mirror: str = "") -> str:
    """Make a minimal Debian with mmdebstrap, as root or as a user with user namespaces.

    An expired Release is used only if the mirror has no valid one. See `Bootstrapper`.
    """
    for program in ("apt-get", "mmdebstrap"):
        if shutil.which(program) is None:
            raise InfrastructureError(
                f"this host has no {program} to make one with",
                hint=f"make a registry reachable for the engine; on Debian, {PROGRAM} setup installs what is missing",
            )
    mirror = mirror or mirror_of(apt.repositories("$(REPO_URI)\t$(ORIGIN)\t$(RELEASE)", release=True)) or ""
    if not mirror:
        raise InfrastructureError(
            "apt's sources have no Debian mirror to make one from",
            hint="make an image registry reachable for the engine, or add a Debian mirror to apt's sources",
        )
    argv = ["mmdebstrap", "--variant=minbase", f"--architectures={arch.debian}", "--format=tar"]
    argv.append(f"--customize-hook={_SUMS}")
    if mirror.startswith("https:"):
        argv.append("--include=ca-certificates")
    result = _mmdebstrap([*argv, suite, str(tarball), mirror], step)
    expired = bool(result.status) and any(_EXPIRED.search(line) for line in result.lines)
    if expired:
        result = _mmdebstrap([*argv, '--aptopt=Acquire::Check-Valid-Until "false"', suite, str(tarball), mirror], step)
    if result.status:
        raise InfrastructureError(
            f"mmdebstrap cannot make {suite}: exit status {result.status}",
            hint="as a user it needs uidmap and user namespaces; the mirror must have the suite",
            details=tuple(result.lines)[-20:],
        )
    digests = sorted(f"{match[2]}={match[1]}" for line in result.lines if (match := _SUM.fullmatch(line)))
    return releases.parse(" ".join(digests) + (" expired" if expired else ""))


_EXPIRED = re.compile(r"^E: Release file for \S+ is expired")
_SUMS = 'cd "$1/var/lib/apt/lists" && sha256sum *Release >&2'  # while the lists are there
_SUM = re.compile(r"([0-9a-f]{64})  \S+_dists_(\S+)_(?:In)?Release")


@dataclass(frozen=True)
class _Result:
    status: int
    lines: tuple[str, ...]


def _mmdebstrap(argv: list[str], step: Step) -> _Result:
    last: deque[str] = deque(maxlen=200)
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                text = line.strip().removeprefix("I: ")
                last.append(text)
                step.line(text)
                step.update(detail=text)
        except BaseException:
            process.terminate()  # it unmounts what it mounted
            raise
    return _Result(process.returncode, tuple(last))


def mirror_of(listing: str) -> str | None:
    """Choose a Debian mirror from apt's repositories: rows of URI, origin and release, separated by tabs.

    The origin is known only after an `apt-get update`; without it, a mirror is recognized by its path.
    """
    plain = re.sub(r"\$\([A-Z_]+\)", "", listing)  # apt leaves unknown fields unexpanded
    rows = [[*line.split("\t"), "", ""][:3] for line in plain.splitlines()]
    usable = [
        (uri.rstrip("/"), origin)
        for uri, origin, release in rows
        if uri.startswith(("http://", "https://")) and not release.endswith("-security")
    ]
    certain = [uri for uri, origin in usable if origin == "Debian"]
    likely = [uri for uri, origin in usable if not origin and uri.rpartition("/")[2] == "debian"]
    return next(iter(certain + likely), None)
