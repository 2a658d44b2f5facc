"""Having an image in the engine: its key, the build, and reading out what is in it."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from crossjit.engine.base import COPY, OWNED, ContainerOptions, Engine, EngineObject, ImageInfo, permanent_labels
from crossjit.errors import EngineError, InfrastructureError
from crossjit.images import base as bases
from crossjit.images import release as releases
from crossjit.images.base import BASE, Base, Bootstrapper
from crossjit.images.image import Image, Package, digest_of, parse_listing, remember, to_record
from crossjit.images.release import Choice
from crossjit.images.spec import DOCKERFILE, ImageSpec, Role
from crossjit.model import Arch
from crossjit.progress import Progress, Step
from crossjit.util import files, locks

KEY = "crossjit.key"  # label: digest of all that an image was made from
CORE = "crossjit.core"  # label: digest of that without what the mirror had
MADE = "crossjit.made"  # label: when, in UTC

_NOT_USED = frozenset({".json", ".md", ".toml"})  # files of a context that builds never read

ATTEMPTS = 3  # a mirror changes a few times a day

LISTING = "/usr/share/crossjit/packages"


def ensure(
    engine: Engine,
    spec: ImageSpec,
    role: Role,
    arch: Arch,
    *,
    host_arch: Arch,
    home: Path,
    progress: Progress,
    labels: Mapping[str, str] | None = None,
    bootstrapper: Bootstrapper = bases.bootstrap,
    refresh: bool = False,
) -> Image:
    """Have an image of this role and arch in the engine; made if it is not there, by one process at a time.

    `host_arch` is the arch of the engine's machine. A toolchain of that arch has the cross compilers for the others
    too; of another arch it is what runs under emulation. Nothing foreign is run to make any of them. `labels` go on
    all that is started on the way, so that it is found if this process dies. The run that they name is not in the
    image's own, which outlives it. Base and image are recorded under `home`, so the second call asks no registry and no
    mirror, and starts nothing. With `refresh` it is the image of what the mirror has now.

    Raises EngineError with the end of the build's log, and InfrastructureError where there is no base to stand on.
    """
    labels = labels or {}
    base = bases.recorded(spec, host_arch, home)
    if base is None:
        with locked_base(spec, host_arch, home, progress):
            base = bases.recorded(spec, host_arch, home) or bases.decide(
                engine, spec, host_arch, home, labels=labels, progress=progress, bootstrapper=bootstrapper
            )
    wanted = _Wanted(spec, role, arch, host_arch, base)
    if not refresh and (found := _known(engine, wanted, home)):
        return found
    with _locked(home, f"image-{wanted.core[:12]}", f"the image {wanted.subject}", progress):
        if not refresh and (found := _known(engine, wanted, home)):
            return found
        with locked_base(spec, host_arch, home, progress):
            base = bases.require(
                engine, base, spec, host_arch, home, labels=labels, progress=progress, bootstrapper=bootstrapper
            )
        return _make(engine, replace(wanted, base=base), home, progress, labels, refresh=refresh)


def find(engine: Engine, spec: ImageSpec, role: Role, arch: Arch, *, host_arch: Arch, home: Path) -> Image | None:
    """Return the image if `ensure` would not have to make it; nothing is started. Raises EngineError."""
    base = bases.recorded(spec, host_arch, home)
    return _known(engine, _Wanted(spec, role, arch, host_arch, base), home) if base else None


@dataclass(frozen=True)
class _Wanted:
    """What an image is to be. `core` is the digest of all that goes into it but what the mirror has: 64 hex digits."""

    spec: ImageSpec
    role: Role
    arch: Arch
    host_arch: Arch
    base: Base

    @property
    def subject(self) -> str:
        """What it is called where work on it is told."""
        return f"{self.spec.name} {self.role} {self.arch}"

    @property
    def core(self) -> str:
        return core_of(self.spec, self.role, self.arch, self.host_arch, self.base)

    def key(self, release: str) -> str:
        """Return the digest of all that goes into it, the mirror's Release files included: 64 hex digits."""
        return digest_of({"core": self.core, "release": releases.digests(release)})

    def tag(self, release: str) -> str:
        """Return the name that it has in the engine."""
        return f"crossjit/{self.spec.name}-{self.role}-{self.arch.debian}:{self.key(release)[:12]}"

    def image(self, release: str, image_id: str, packages: tuple[Package, ...]) -> Image:
        """Return it, now that it is there."""
        key, reference = self.key(release), self.tag(release)
        return Image(
            reference=reference,
            id=image_id,
            key=key,
            role=self.role,
            arch=self.arch,
            base=self.base.identity,
            packages=packages,
            release=release,
            core=self.core,
        )


def core_of(spec: ImageSpec, role: Role, arch: Arch, host_arch: Arch, base: Base) -> str:
    """Return the digest of all that goes into an image but what the mirror has: 64 hex digits."""
    files = sorted(path for path in spec.context.iterdir() if path.is_file() and path.suffix not in _NOT_USED)
    return digest_of(
        {
            "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
            "arguments": _arguments(spec, role, arch, host_arch),
            "suite": spec.suite,
            "role": role,
            "arch": arch,
            "host": host_arch,
            "base": base.identity,
        }
    )


def _make(
    engine: Engine, wanted: _Wanted, home: Path, progress: Progress, labels: Mapping[str, str], *, refresh: bool
) -> Image:
    """Build an image, or take one that another state folder had made, unless it is to be of what the mirror has now."""
    spec = wanted.spec
    with progress.step("image", wanted.subject) as step:
        release = None if refresh else _made_before(engine, wanted)
        info = engine.image(wanted.tag(release)) if release else None
        if release is None or info is None:
            release, info = _build(engine, wanted, labels, step)
        step.update(detail="listing its packages")
        packages = _read_packages(engine, wanted, release, labels)
    if said := releases.remark(release, spec.suite):
        progress.say(said)
    remember(home, info.id, packages)
    image = wanted.image(release, info.id, packages)
    choice = Choice(wanted.core, release, image.reference, spec.name, wanted.role, wanted.arch, spec.extra)
    releases.choose(home, choice)
    return image


def _build(engine: Engine, wanted: _Wanted, labels: Mapping[str, str], step: Step) -> tuple[str, ImageInfo]:
    """Build an image of what the mirror has now, if it is not there; if that changes meanwhile, it is asked again."""
    spec, role, arch, host_arch, base = wanted.spec, wanted.role, wanted.arch, wanted.host_arch, wanted.base
    for attempt in range(ATTEMPTS):
        step.update(detail="asking the mirror what it has")
        release = ask(engine, spec, host_arch, base, labels)
        tag = wanted.tag(release)
        if (info := engine.image(tag)) is not None:
            return release, info
        own = permanent_labels(labels)
        own |= {OWNED: "image", BASE: base.identity, KEY: wanted.key(release), CORE: wanted.core}
        own |= {releases.LABEL: release, MADE: datetime.now(UTC).isoformat(timespec="seconds")}
        moved: list[str] = []
        try:
            return release, engine.build_image(
                spec.context,
                target="toolchain" if role is Role.TOOLCHAIN and arch is host_arch else "target",
                arch=arch,
                tag=tag,
                arguments={"BASE": base.reference, "RELEASE": release, **_arguments(spec, role, arch, host_arch)},
                labels=own,
                on_line=_follow(step, moved),
            )
        except EngineError:
            if not moved or attempt + 1 == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def ask(engine: Engine, spec: ImageSpec, host_arch: Arch, base: Base, labels: Mapping[str, str]) -> str:
    """Ask the mirror what it has; see `release`. Raises EngineError where it does not answer."""
    for attempt in range(ATTEMPTS):
        with _copy(engine, spec, "release", host_arch, {"BASE": base.reference, "ASKED": ""}, labels) as copy:
            try:
                return releases.parse(_read_file(engine, copy, releases.FILE, host_arch, labels))
            except EngineError:
                # Docker 26, collecting its build cache's garbage while it builds, may leave an image without its base
                engine.facts()  # raises where it is the engine that does not answer
                if attempt + 1 == ATTEMPTS:
                    raise
    raise AssertionError("the last attempt returns or raises")


def _made_before(engine: Engine, wanted: _Wanted) -> str | None:
    """Return by which Release files the newest image of this kind was made that is in the engine."""
    there = [
        thing.labels
        for thing in engine.owned({CORE: wanted.core})
        if thing.kind == "image" and COPY not in thing.labels and releases.LABEL in thing.labels
    ]
    newest = max(there, key=lambda labels: labels.get(MADE, ""), default=None)
    return releases.parse(newest[releases.LABEL]) if newest else None


def _arguments(spec: ImageSpec, role: Role, arch: Arch, host_arch: Arch) -> dict[str, str]:
    packages, extra = spec.packages(role, arch, host_arch), spec.extra_packages(role, arch, host_arch)
    if role is not Role.TOOLCHAIN or arch is not host_arch:
        flags = {} if arch is host_arch else {"LIBRARY_CACHE_FLAGS": str(arch.library_cache_flags)}
        return {"ACCOUNT": role.account, "PACKAGES": " ".join((*packages, *extra)), **flags}
    # a layer of its own, so that the rest is there if the image without it was made
    more = {"EXTRA": " ".join(extra)} if extra else {}
    foreign = " ".join(each.debian for each in arch.others)
    return {"ACCOUNT": role.account, "FOREIGN": foreign, "PACKAGES": " ".join(packages), **more}


def _known(engine: Engine, wanted: _Wanted, home: Path) -> Image | None:
    """Return the image that was chosen if it is in the engine and what is in it is known."""
    choice = releases.chosen(home, wanted.core)
    info = engine.image(wanted.tag(choice.release)) if choice else None
    packages = to_record(home, info.id) if info else None
    if choice is None or info is None or packages is None:
        return None
    return wanted.image(choice.release, info.id, packages)


def _read_packages(engine: Engine, wanted: _Wanted, release: str, labels: Mapping[str, str]) -> tuple[Package, ...]:
    """Read the list of packages out of an image; that of a foreign arch is copied into one that can be started."""
    tag, host_arch = wanted.tag(release), wanted.host_arch
    if wanted.arch is host_arch:
        return parse_listing(_read_file(engine, tag, LISTING, host_arch, labels))
    arguments = {"BASE": wanted.base.reference, "IMAGE": tag, "IMAGE_PLATFORM": wanted.arch.platform}
    with _copy(engine, wanted.spec, "listing", host_arch, arguments, labels) as copy:
        return parse_listing(_read_file(engine, copy, LISTING, host_arch, labels))


@contextlib.contextmanager
def _copy(
    engine: Engine, spec: ImageSpec, stage: str, host_arch: Arch, arguments: dict[str, str], labels: Mapping[str, str]
) -> Iterator[str]:
    """Build a stage that is only read from, once; its name, while the block runs."""
    token = secrets.token_hex(6)
    copy = f"crossjit/{stage}:{token}"
    info = engine.build_image(
        spec.context,
        target=stage,
        arch=host_arch,
        tag=copy,
        arguments={name: value or token for name, value in arguments.items()},
        # nobody else's copy has the same content id, so that none removes another's
        labels={**labels, OWNED: "image", COPY: token},
    )
    try:
        yield copy
    finally:
        engine.remove(EngineObject("image", info.id, copy, labels))


def _read_file(engine: Engine, reference: str, path: str, arch: Arch, labels: Mapping[str, str]) -> str:
    """Read a file out of an image."""
    name = f"crossjit-listing-{secrets.token_hex(4)}"
    with engine.container(
        ContainerOptions(reference, arch=arch, name=name, labels={**labels, OWNED: "container"})
    ) as container:
        try:
            with container.get(path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                return "".join(file.read().decode() for member in tar if (file := tar.extractfile(member)) is not None)
        except FileNotFoundError:
            what = "list of its packages" if path == LISTING else path
            raise InfrastructureError(
                f"the image {reference} has no {what}", hint=f"the {DOCKERFILE} must write {path}"
            ) from None
        except tarfile.TarError as error:
            raise EngineError(f"what the engine copied out of {reference} is damaged: {error}") from error


_STAGE = re.compile(r"#\d+ \[([^\]]+)\]")
_OUTPUT = re.compile(r"#\d+ [\d.]+ (?:I: )?((?:Get|Unpacking|Setting up|running|downloading|extracting)\b[^\n]*)")


def _follow(step: Step, moved: list[str]) -> Callable[[str], None]:
    """Pass a build's log on, and say what it is doing in a few words; keep in `moved` that the mirror has moved on."""

    def on_line(line: str) -> None:
        step.line(line)
        if releases.MOVED in line:
            moved.append(line)
        if found := _STAGE.match(line) or _OUTPUT.match(line):
            step.update(detail=found[1])

    return on_line


def locked_base(
    spec: ImageSpec, host_arch: Arch, home: Path, progress: Progress
) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of a suite's base image."""
    return _locked(home, f"base-{spec.suite}-{host_arch.debian}", f"the base image of {spec.suite}", progress)


@contextlib.contextmanager
def _locked(home: Path, name: str, what: str, progress: Progress) -> Iterator[None]:
    """Hold a lock of this state folder, and say so where another process has it."""
    path = home / "locks" / f"{name}.lock"
    with locks.locked(
        path,
        errors=lambda: files.translate_os_errors(InfrastructureError, "cannot lock an image", path.parent),
        on_wait=lambda: progress.say(f"another process is making {what}; waiting to take its result"),
    ):
        yield
