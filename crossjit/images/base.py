"""The base image: one for each suite, of the host's own arch; from a registry, or bootstrapped where none answers."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from crossjit import durable
from crossjit.engine.base import OWNED, Engine
from crossjit.errors import EngineError, InfrastructureError
from crossjit.images.spec import ImageSpec
from crossjit.model import Arch
from crossjit.progress import Progress, Step

BASE = "crossjit.base"  # label: what an image stands on


class BaseKind(StrEnum):
    """Where a base image comes from."""

    REGISTRY = "registry"
    BOOTSTRAP = "bootstrap"


@dataclass(frozen=True)
class Base:
    """A base image: `identity` is the reference by digest or `bootstrap:<suite>`, `reference` its tag in the engine."""

    kind: BaseKind
    identity: str
    reference: str


Bootstrapper = Callable[[str, Arch, Path, Step], None]
"""Makes a tarball of a root file system of a suite and an arch; raises InfrastructureError where it cannot."""


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
) -> Base:
    """Have a base image in the engine, and record which one it is.

    The registry is asked first; where it does not answer, the base is bootstrapped on this host, from the mirror that
    its apt is set to. Raises EngineError, and InfrastructureError where neither way works.
    """
    bootstrapped = _bootstrapped(spec, arch)
    if engine.image(bootstrapped.reference) is not None:
        base = bootstrapped
    else:
        # One step for both ways: that no registry answers is no failure.
        with progress.step("base", spec.suite) as step:
            try:
                base = _pull(engine, spec, arch, step)
            except EngineError as refusal:
                engine.facts()  # raises where it is the engine that does not answer
                progress.say(f"no registry gives {spec.document.base}: making the base from Debian's packages")
                base = _bootstrap(engine, spec, arch, home, labels, step, bootstrapper, refusal)
    record = _record(spec, arch, home)
    with durable.explained(InfrastructureError, "cannot record which base image is used", record.parent):
        record.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(record, json.dumps({**asdict(base), "asked": _asked(spec)}).encode())
    return base


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
) -> None:
    """Have a base that was decided on in the engine again, if it was removed there since."""
    if engine.image(base.reference) is not None:
        return
    if base.kind is BaseKind.BOOTSTRAP:
        with progress.step("base", spec.suite) as step:
            _bootstrap(engine, spec, arch, home, labels, step, bootstrapper, None)
        return
    try:
        with progress.step("base", spec.suite) as step:
            step.update(detail=f"pulling {base.identity}")
            engine.pull(base.identity, arch=arch)
            engine.tag(base.identity, base.reference)
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
    step: Step,
    bootstrapper: Bootstrapper,
    refusal: EngineError | None,
) -> Base:
    base = _bootstrapped(spec, arch)
    with _scratch(home, spec, arch) as folder:
        tarball = folder / "base.tar"
        try:
            bootstrapper(spec.suite, arch, tarball, step)
        except InfrastructureError as error:
            if refusal is None:
                raise
            raise InfrastructureError(
                f"there is no base image: {refusal.message}, and {error.message}",
                hint=error.hint,
                details=(*refusal.details, *error.details),
            ) from error
        step.update(detail="importing it")
        own = {**labels, OWNED: "image", BASE: base.identity}
        engine.import_image(tarball, tag=base.reference, arch=arch, labels=own)
    return base


@contextlib.contextmanager
def _scratch(home: Path, spec: ImageSpec, arch: Arch) -> Iterator[Path]:
    """Make an empty folder; the base's lock is held, so what is there was left by a process that was killed."""
    folder = home / "images" / f".base-{spec.suite}-{arch.debian}"
    with durable.explained(InfrastructureError, "cannot make a base image", folder.parent):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _bootstrapped(spec: ImageSpec, arch: Arch) -> Base:
    reference = f"crossjit/base-{spec.suite}-{arch.debian}:bootstrap"
    return Base(BaseKind.BOOTSTRAP, f"bootstrap:{spec.suite}", reference)


def _record(spec: ImageSpec, arch: Arch, home: Path) -> Path:
    return home / "images" / f"base-{spec.suite}-{arch.debian}.json"


def _asked(spec: ImageSpec) -> str:
    """Return the reference that the registry is asked for: by its tag, or by the digest that pins it."""
    reference, digest = spec.document.base, spec.document.digest
    if digest is None:
        return reference
    name, colon, tag = reference.rpartition(":")
    return f"{name if colon and '/' not in tag else reference}@{digest}"


def bootstrap(suite: str, arch: Arch, tarball: Path, step: Step) -> None:
    """Make a minimal Debian with mmdebstrap, as root or as a user who may have user namespaces."""
    for program in ("apt-get", "mmdebstrap"):
        if shutil.which(program) is None:
            raise InfrastructureError(
                f"this host has no {program} to make one with",
                hint="make an image registry reachable for the engine; on Debian, ./inv setup installs what is missing",
            )
    mirror = mirror_of(_repositories())
    if mirror is None:
        raise InfrastructureError(
            "apt names no Debian mirror here to make one from",
            hint="make an image registry reachable for the engine, or add a Debian mirror to apt's sources",
        )
    argv = ["mmdebstrap", "--variant=minbase", f"--architectures={arch.debian}", "--format=tar"]
    argv += ['--aptopt=Acquire::Check-Valid-Until "false"']
    if mirror.startswith("https:"):
        argv.append("--include=ca-certificates")
    argv += [suite, str(tarball), mirror]
    last: deque[str] = deque(maxlen=20)
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
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
    if process.returncode:
        raise InfrastructureError(
            f"mmdebstrap cannot make {suite}: exit status {process.returncode}",
            hint="as a user it needs uidmap and user namespaces; the mirror must have the suite",
            details=tuple(last),
        )


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
