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
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from crossjit import PROGRAM
from crossjit.engine.base import OWNED, Engine, permanent_labels
from crossjit.errors import EngineError, InfrastructureError
from crossjit.images import release as releases
from crossjit.images.spec import ImageSpec
from crossjit.model import Arch
from crossjit.progress import Progress, Step
from crossjit.util import files

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


def recorded(spec: ImageSpec, arch: Arch, home: Path) -> Base | None:
    """Return the base that was decided on before: with it an image's key is known without asking any registry.

    None if nothing was, or if the image's document asks for another one by now.
    """
    try:
        document = json.loads(_record(spec, arch, home).read_text(encoding="utf-8"))
        base = Base(BaseKind(document["kind"]), str(document["identity"]), str(document["reference"]))
        asked = document["asked"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return base if asked == _asked(spec) else None


def decide(
    engine: Engine,
    spec: ImageSpec,
    arch: Arch,
    home: Path,
    *,
    labels: Mapping[str, str],
    progress: Progress,
    bootstrapper: Bootstrapper,
    refresh: bool = False,
) -> Base:
    """Have a base image in the engine, and record which one it is.

    The registry is asked first; where it does not answer, or a snapshot is wanted, the base is bootstrapped on this
    host. One that was bootstrapped before is taken, unless it is to be made anew. Raises EngineError, and
    InfrastructureError where neither way works.
    """
    base = None if refresh else _there(engine, spec, arch)
    if base is None:
        # One step for both ways: that no registry answers is no failure.
        with progress.step("base", spec.suite) as step:
            base = _had(engine, spec, arch, home, labels, progress, step, bootstrapper)
    _keep(base, spec, arch, home)
    return base


def _had(
    engine: Engine,
    spec: ImageSpec,
    arch: Arch,
    home: Path,
    labels: Mapping[str, str],
    progress: Progress,
    step: Step,
    bootstrapper: Bootstrapper,
) -> Base:
    """Pull a base, or bootstrap one."""
    if spec.mirror:
        return _bootstrap(engine, spec, arch, home, labels, progress, step, bootstrapper, None)
    try:
        return _pull(engine, spec, arch, step)
    except EngineError as refusal:
        engine.facts()  # raises where it is the engine that does not answer
        progress.say(f"no registry gives {spec.document.base}: making the base from Debian's packages")
        return _bootstrap(engine, spec, arch, home, labels, progress, step, bootstrapper, refusal)


def _keep(base: Base, spec: ImageSpec, arch: Arch, home: Path) -> None:
    record = _record(spec, arch, home)
    with files.translate_os_errors(InfrastructureError, "cannot record which base image is used", record.parent):
        record.parent.mkdir(parents=True, exist_ok=True)
        files.replace(record, json.dumps({**asdict(base), "asked": _asked(spec)}).encode())


def require(
    engine: Engine,
    base: Base,
    spec: ImageSpec,
    arch: Arch,
    home: Path,
    *,
    labels: Mapping[str, str],
    progress: Progress,
    bootstrapper: Bootstrapper,
) -> Base:
    """Have a base that was decided on in the engine again, if it was removed there since.

    Returns it; one that has to be bootstrapped again is another if the mirror has moved on.
    """
    if engine.image(base.reference) is not None:
        return base
    if base.kind is BaseKind.BOOTSTRAP:
        with progress.step("base", spec.suite) as step:
            base = _bootstrap(engine, spec, arch, home, labels, progress, step, bootstrapper, None)
        _keep(base, spec, arch, home)
        return base
    try:
        with progress.step("base", spec.suite) as step:
            step.update(detail=f"pulling {base.identity}")
            engine.pull(base.identity, arch=arch)
            engine.tag(base.identity, base.reference)
        return base
    except EngineError as error:
        raise EngineError(
            f"the base image {base.identity} cannot be had again",
            hint=f"make the registry reachable, or remove {_record(spec, arch, home)} to have another base chosen",
            details=(error.message, *error.details),
        ) from error


def _pull(engine: Engine, spec: ImageSpec, arch: Arch, step: Step) -> Base:
    asked = _asked(spec)
    step.update(detail=f"pulling {asked}")
    identity = engine.pull(asked, arch=arch)
    tag = f"crossjit/base-{spec.suite}-{arch.debian}:{identity.rpartition(':')[2][:12]}"
    engine.tag(identity, tag)  # so that it is not taken for a left-over, and builds need not ask the registry
    return Base(BaseKind.REGISTRY, identity, tag)


def _bootstrap(
    engine: Engine,
    spec: ImageSpec,
    arch: Arch,
    home: Path,
    labels: Mapping[str, str],
    progress: Progress,
    step: Step,
    bootstrapper: Bootstrapper,
    refusal: EngineError | None,
) -> Base:
    with _scratch(home, spec, arch) as folder:
        tarball = folder / "base.tar"
        try:
            release = bootstrapper(spec.suite, arch, tarball, step, spec.mirror)
        except InfrastructureError as error:
            if refusal is None:
                raise
            raise InfrastructureError(
                f"there is no base image: {refusal.message}, and {error.message}",
                hint=error.hint,
                details=(*refusal.details, *error.details),
            ) from error
        if said := releases.remark(release, spec.suite):
            progress.say(said)
        base = _bootstrapped(spec, arch, release)
        step.update(detail="importing it")
        about = {
            OWNED: "image",
            BASE: base.identity,
            REFERENCE: base.reference,
            releases.LABEL: release,
        }
        engine.import_image(tarball, tag=base.reference, arch=arch, labels={**permanent_labels(labels), **about})
        engine.tag(base.reference, _newest(spec, arch))
    return base


@contextlib.contextmanager
def _scratch(home: Path, spec: ImageSpec, arch: Arch) -> Iterator[Path]:
    """Make an empty folder; the base's lock is held, so what is there was left by a process that was killed."""
    folder = home / "images" / f".base-{spec.suite}-{arch.debian}"
    with files.translate_os_errors(InfrastructureError, "cannot make a base image", folder.parent):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _bootstrapped(spec: ImageSpec, arch: Arch, release: str) -> Base:
    short = releases.short(release)
    reference = f"{_newest(spec, arch)}-{short}"
    return Base(BaseKind.BOOTSTRAP, f"bootstrap:{spec.suite}@{short}", reference)


def _newest(spec: ImageSpec, arch: Arch) -> str:
    """Return the name that the newest bootstrapped base has in the engine."""
    return f"crossjit/base-{spec.suite}-{arch.debian}:{_origin(spec)}"


def _there(engine: Engine, spec: ImageSpec, arch: Arch) -> Base | None:
    """Return the newest base that was bootstrapped before, by any state folder; None if it is not in the engine."""
    newest = _newest(spec, arch)
    found = engine.image(newest)
    if found is None or BASE not in found.labels:
        return None
    return Base(BaseKind.BOOTSTRAP, found.labels[BASE], found.labels.get(REFERENCE, newest))


def _origin(spec: ImageSpec) -> str:
    """Name where a bootstrapped base is from: the mirror that apt is set to, or a snapshot."""
    return f"snapshot-{hashlib.sha256(spec.mirror.encode()).hexdigest()[:8]}" if spec.mirror else "bootstrap"


def _record(spec: ImageSpec, arch: Arch, home: Path) -> Path:
    origin = f"-{_origin(spec)}" if spec.mirror else ""
    return home / "images" / f"base-{spec.suite}-{arch.debian}{origin}.json"


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
    mirror = mirror or mirror_of(_repositories()) or ""
    if not mirror:
        raise InfrastructureError(
            "apt names no Debian mirror here to make one from",
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


def _repositories() -> str:
    """Ask apt for its repositories, in the form that `mirror_of` takes; empty if it does not answer."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)\t$(ORIGIN)\t$(RELEASE)", "Created-By: Packages"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
