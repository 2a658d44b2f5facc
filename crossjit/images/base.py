"""The base image: one for each suite, of the host's own arch; from a registry, or bootstrapped where none answers."""

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

BASE = "crossjit.base"  # label: what an image stands on
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
"""Makes a tarball of a root file system of a suite and an arch, from a mirror (empty: the one that apt is set to).

Returns by which Release files, see `release`. Raises InfrastructureError where it cannot.
"""


@dataclass(frozen=True)
class BaseBuilder:
    """Has base images in an engine.

    `host_arch` is the arch of the engine's machine. Which base was decided on is recorded under `home`. `labels` go on
    all that is started on the way, so that it is found if this process dies; the run that they name is not in the
    images' own, which outlive it.
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
    def locked(self, name: str, what: str) -> Iterator[None]:
        """Hold a lock of this state folder, and say so where another process has it."""
        path = self.home / "locks" / f"{name}.lock"
        with locks.locked(
            path,
            errors=lambda: files.translate_os_errors(InfrastructureError, "cannot lock an image", path.parent),
            on_wait=lambda: self.progress.say(f"another process is making {what}; waiting to use its result"),
        ):
            yield

    def recorded(self, spec: ImageSpec) -> Base | None:
        """Return the base that was decided on before: with it an image's key is known without asking any registry.

        None if nothing was, or if the image's document asks for another one by now.
        """
        try:
            document = json.loads(self._record(spec).read_text(encoding="utf-8"))
            base = Base(BaseKind(document["kind"]), str(document["identity"]), str(document["reference"]))
            asked = document["asked"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return base if asked == _asked(spec) else None

    def decide(self, spec: ImageSpec, *, refresh: bool = False) -> Base:
        """Have a base image in the engine, and record which one it is.

        The registry is asked first; where it does not answer, or a snapshot is wanted, the base is bootstrapped on this
        host. One that was bootstrapped before is taken, unless it is to be made anew. Raises EngineError, and
        InfrastructureError where neither way works.
        """
        base = None if refresh else self._there(spec)
        if base is None:
            # One step for both ways: that no registry answers is no failure.
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
            self.engine.facts()  # raises where it is the engine that does not answer
            self.progress.say(f"no registry has {spec.document.base}: making the base from Debian's packages")
            return self._bootstrap(spec, step, refusal)

    def _keep(self, base: Base, spec: ImageSpec) -> None:
        record = self._record(spec)
        with files.translate_os_errors(InfrastructureError, "cannot record which base image is used", record.parent):
            record.parent.mkdir(parents=True, exist_ok=True)
            files.replace(record, json.dumps({**asdict(base), "asked": _asked(spec)}).encode())

    def require(self, base: Base, spec: ImageSpec) -> Base:
        """Have a base that was decided on in the engine again, if it was removed there since.

        Returns it; one that has to be bootstrapped again is another if the mirror has moved on.
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
        asked = _asked(spec)
        step.update(detail=f"pulling {asked}")
        identity = self.engine.pull(asked, arch=self.host_arch)
        tag = f"crossjit/base-{spec.suite}-{self.host_arch.debian}:{identity.rpartition(':')[2][:12]}"
        self.engine.tag(identity, tag)  # so that it is not taken for a left-over, and builds need not ask the registry
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
            if said := releases.remark(release, spec.suite):
                self.progress.say(said)
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
        """Make an empty folder; the base's lock is held, so what is there was left by a process that was killed."""
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
        """Return the name that the newest bootstrapped base has in the engine."""
        return f"crossjit/base-{spec.suite}-{self.host_arch.debian}:{_origin(spec)}"

    def _there(self, spec: ImageSpec) -> Base | None:
        """Return the newest base that was bootstrapped before, by any state folder; None if it is not in the engine."""
        newest = self._newest(spec)
        found = self.engine.image(newest)
        if found is None or BASE not in found.labels:
            return None
        return Base(BaseKind.BOOTSTRAP, found.labels[BASE], found.labels.get(REFERENCE, newest))

    def _record(self, spec: ImageSpec) -> Path:
        origin = f"-{_origin(spec)}" if spec.mirror else ""
        return self.home / "images" / f"base-{spec.suite}-{self.host_arch.debian}{origin}.json"


def _origin(spec: ImageSpec) -> str:
    """Name where a bootstrapped base is from: the mirror that apt is set to, or a snapshot."""
    return f"snapshot-{hashlib.sha256(spec.mirror.encode()).hexdigest()[:8]}" if spec.mirror else "bootstrap"


def _asked(spec: ImageSpec) -> str:
    """Return what is asked for: a reference by its tag, or by the digest that pins it; a snapshot's mirror."""
    if spec.mirror:
        return spec.mirror
    reference, digest = spec.document.base, spec.document.digest
    if digest is None:
        return reference
    name, colon, tag = reference.rpartition(":")
    return f"{name if colon and '/' not in tag else reference}@{digest}"


def bootstrap(suite: str, arch: Arch, tarball: Path, step: Step, mirror: str = "") -> str:
    """Make a minimal Debian with mmdebstrap, as root or as a user who may have user namespaces.

    A Release that has expired is refused first, and taken where there is no other. See `Bootstrapper`.
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
    ended = _mmdebstrap([*argv, suite, str(tarball), mirror], step)
    expired = bool(ended.status) and any(_EXPIRED.search(line) for line in ended.lines)
    if expired:
        ended = _mmdebstrap([*argv, '--aptopt=Acquire::Check-Valid-Until "false"', suite, str(tarball), mirror], step)
    if ended.status:
        raise InfrastructureError(
            f"mmdebstrap cannot make {suite}: exit status {ended.status}",
            hint="as a user it needs uidmap and user namespaces; the mirror must have the suite",
            details=tuple(ended.lines)[-20:],
        )
    found = sorted(f"{match[2]}={match[1]}" for line in ended.lines if (match := _SUM.fullmatch(line)))
    return releases.parse(" ".join(found) + (" expired" if expired else ""))


_EXPIRED = re.compile(r"^E: Release file for \S+ is expired")
_SUMS = 'cd "$1/var/lib/apt/lists" && sha256sum *Release >&2'  # while the lists are there
_SUM = re.compile(r"([0-9a-f]{64})  \S+_dists_(\S+)_(?:In)?Release")


@dataclass(frozen=True)
class _Ended:
    status: int
    lines: tuple[str, ...]


def _mmdebstrap(argv: list[str], step: Step) -> _Ended:
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
    return _Ended(process.returncode, tuple(last))


def mirror_of(listing: str) -> str | None:
    """Choose a Debian mirror from what apt is set to: rows of URI, origin and release with tabs between them.

    The origin is known only after an `apt-get update`; before, a mirror is known by its path.
    """
    plain = re.sub(r"\$\([A-Z_]+\)", "", listing)  # apt leaves the names of what it does not know
    rows = [[*line.split("\t"), "", ""][:3] for line in plain.splitlines()]
    usable = [
        (uri.rstrip("/"), origin)
        for uri, origin, release in rows
        if uri.startswith(("http://", "https://")) and not release.endswith("-security")
    ]
    certain = [uri for uri, origin in usable if origin == "Debian"]
    likely = [uri for uri, origin in usable if not origin and uri.rpartition("/")[2] == "debian"]
    return next(iter(certain + likely), None)
