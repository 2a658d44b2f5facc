"""Building an image in the engine: its key, the build, and reading its list of packages."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from crossjit.engine.base import COPY, OWNED, ContainerOptions, EngineObject, ImageInfo, permanent_labels
from crossjit.errors import EngineError, InfrastructureError
from crossjit.images import release as releases
from crossjit.images.base import BASE, Base, BaseBuilder
from crossjit.images.image import Image, Package, digest_of, known_packages, parse_listing, remember
from crossjit.images.release import Choice
from crossjit.images.spec import DOCKERFILE, FILE, ImageSpec, Role
from crossjit.model import Arch
from crossjit.progress import Step
from crossjit.util.text import join_words

KEY = "crossjit.key"  # label: digest of all of an image's inputs
CORE = "crossjit.core"  # label: digest of the inputs except the mirror's Release files
MADE = "crossjit.made"  # label: the time of the build, in UTC

ATTEMPTS = 3  # a mirror changes a few times a day

LISTING = "/usr/share/crossjit/packages"


@dataclass(frozen=True)
class _ImageRequest:
    """A requested image. `core` is the digest of its inputs except the mirror's Release files: 64 hex digits."""

    spec: ImageSpec
    role: Role
    arch: Arch
    host_arch: Arch
    base: Base

    @property
    def subject(self) -> str:
        """Its name in progress messages."""
        return f"{self.spec.name} {self.role} {self.arch}"

    @property
    def core(self) -> str:
        return core_of(self.spec, self.role, self.arch, self.host_arch, self.base)

    def key(self, release: str) -> str:
        """Return the digest of its inputs, with the mirror's Release files: 64 hex digits."""
        return digest_of({"core": self.core, "release": releases.digests(release)})

    def tag(self, release: str) -> str:
        """Return its tag in the engine."""
        return f"crossjit/{self.spec.name}-{self.role}-{self.arch.debian}:{self.key(release)[:12]}"

    def image(self, release: str, image_id: str, packages: tuple[Package, ...]) -> Image:
        """Return the built image."""
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
    """Return the digest of an image's inputs except the mirror's Release files: 64 hex digits."""
    files = spec.files(role)
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


def _arguments(spec: ImageSpec, role: Role, arch: Arch, host_arch: Arch) -> dict[str, str]:
    if role is Role.METER:
        files = " ".join(f"{name}={digest}" for name, digest in sorted(spec.meter.files.items()))
        listed = " ".join(spec.meter.packages)
        return {"PACKAGES": listed, "SOURCE": spec.meter.source, "FILES": files, "GUESTS": " ".join(Arch)}
    packages, extra = spec.packages(role, arch, host_arch), spec.extra_packages(role, arch, host_arch)
    if role is not Role.TOOLCHAIN or arch is not host_arch:
        flags = {} if arch is host_arch else {"LIBRARY_CACHE_FLAGS": str(arch.library_cache_flags)}
        return {"ACCOUNT": role.account, "PACKAGES": " ".join((*packages, *extra)), **flags}
    # a separate layer, so that the others are cached from the image without it
    more = {"EXTRA": " ".join(extra)} if extra else {}
    foreign = " ".join(other.debian for other in arch.others)
    return {"ACCOUNT": role.account, "FOREIGN": foreign, "PACKAGES": " ".join(packages), **more}


def _stage(role: Role, arch: Arch, host_arch: Arch) -> str:
    """Return the Dockerfile's stage: a toolchain of a foreign arch is unpacked as a target is."""
    if role is Role.METER or (role is Role.TOOLCHAIN and arch is host_arch):
        return str(role)
    return "target"


@contextlib.contextmanager
def _context(spec: ImageSpec, role: Role) -> Iterator[Path]:
    """Yield the build context; the meter's is put together, because its files are in several folders."""
    if role is not Role.METER:
        yield spec.context
        return
    with tempfile.TemporaryDirectory(prefix="crossjit-") as folder:
        for path in spec.files(role):
            shutil.copy(path, folder)
        yield Path(folder)


_STAGE = re.compile(r"#\d+ \[([^\]]+)\]")
_OUTPUT = re.compile(r"#\d+ [\d.]+ (?:I: )?((?:Get|Unpacking|Setting up|running|downloading|extracting)\b[^\n]*)")


_MISSING = re.compile(r"E: Unable to locate package (\S+)$")


@dataclass(frozen=True)
class _Trouble:
    """What a build's log says of the mirror: that it has changed meanwhile, and the packages that it does not have."""

    moved: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def _follow(step: Step, trouble: _Trouble) -> Callable[[str], None]:
    """Pass on a build's log, show its current action, and record what it says of the mirror."""

    def on_line(line: str) -> None:
        step.line(line)
        if releases.MOVED in line:
            trouble.moved.append(line)
        if match := _MISSING.search(line):
            trouble.missing.append(match[1])
        if match := _STAGE.match(line) or _OUTPUT.match(line):
            step.update(detail=match[1])

    return on_line


class ImageBuilder(BaseBuilder):
    """Provides images and their bases in an engine."""

    def ensure(self, spec: ImageSpec, role: Role, arch: Arch, *, refresh: bool = False) -> Image:
        """Return the image of this role and arch; build it if it is not in the engine, one process at a time.

        A toolchain of the engine's own arch also has the cross compilers for the others; one of a foreign arch runs
        under emulation. No foreign program is run to build an image. Base and image are recorded, so the second call
        needs no registry and no mirror, and starts nothing. With `refresh` it is the image of the mirror's present
        packages.

        Raises EngineError with the end of the build's log, and InfrastructureError if there is no base image.
        """
        base = self._recorded_or_decided(spec)
        request = _ImageRequest(spec, role, arch, self.host_arch, base)
        if not refresh and (image := self._known(request)):
            return image
        with self.locked(f"image-{request.core[:12]}", f"the image {request.subject}"):
            if not refresh and (image := self._known(request)):
                return image
            with self.locked_base(spec):
                base = self.require(base, spec)
            return self._make(replace(request, base=base), refresh=refresh)

    def ensure_base(self, spec: ImageSpec) -> str:
        """Return the reference of a suite's base image, which is made if it is missing. Raises as `ensure`."""
        base = self._recorded_or_decided(spec)
        with self.locked_base(spec):
            return self.require(base, spec).reference

    def _recorded_or_decided(self, spec: ImageSpec) -> Base:
        if (base := self.recorded(spec)) is not None:
            return base
        with self.locked_base(spec):
            return self.recorded(spec) or self.decide(spec)

    def find(self, spec: ImageSpec, role: Role, arch: Arch) -> Image | None:
        """Return the image if `ensure` would not have to build it; nothing is started. Raises EngineError."""
        base = self.recorded(spec)
        return self._known(_ImageRequest(spec, role, arch, self.host_arch, base)) if base else None

    def ask(self, spec: ImageSpec, base: Base) -> str:
        """Return the mirror's Release files; see `release`. Raises EngineError if it does not answer."""
        for attempt in range(ATTEMPTS):
            with self._copy(spec, "release", {"BASE": base.reference, "ASKED": ""}) as copy:
                try:
                    return releases.parse(self._read_file(copy, releases.FILE))
                except EngineError:
                    # Docker 26 may lose an image's base if it collects garbage in the build cache during a build
                    self.engine.facts()  # raises if it is the engine that does not answer
                    if attempt + 1 == ATTEMPTS:
                        raise
        raise AssertionError("the last attempt returns or raises")

    def _make(self, request: _ImageRequest, *, refresh: bool) -> Image:
        """Build an image, or without `refresh` use one that was built from a different state folder."""
        spec = request.spec
        with self.progress.step("image", request.subject) as step:
            release = None if refresh else self._made_before(request)
            info = self.engine.image(request.tag(release)) if release else None
            if release is None or info is None:
                release, info = self._build(request, step)
            step.update(detail="listing its packages")
            packages = self._read_packages(request, release)
        if remark := releases.remark(release, spec.suite):
            self.progress.say(remark)
        remember(self.home, info.id, packages)
        image = request.image(release, info.id, packages)
        about = (spec.name, request.role, request.arch, spec.extra, spec.more_llvm)
        releases.choose(self.home, Choice(request.core, release, image.reference, *about))
        return image

    def _build(self, request: _ImageRequest, step: Step) -> tuple[str, ImageInfo]:
        """Build the image of the mirror's present packages, unless it exists; retry if the mirror changes meanwhile."""
        spec, role, arch, host_arch, base = request.spec, request.role, request.arch, request.host_arch, request.base
        for attempt in range(ATTEMPTS):
            step.update(detail="asking the mirror for its release")
            release = self.ask(spec, base)
            tag = request.tag(release)
            if (info := self.engine.image(tag)) is not None:
                return release, info
            own = permanent_labels(self.labels)
            own |= {OWNED: "image", BASE: base.identity, KEY: request.key(release), CORE: request.core}
            own |= {releases.LABEL: release, MADE: datetime.now(UTC).isoformat(timespec="seconds")}
            trouble = _Trouble()
            arguments = {"BASE": base.reference, "RELEASE": release, **_arguments(spec, role, arch, host_arch)}
            try:
                with _context(spec, role) as context:
                    info = self.engine.build_image(
                        context,
                        target=_stage(role, arch, host_arch),
                        arch=arch,
                        tag=tag,
                        arguments=arguments,
                        labels=own,
                        on_line=_follow(step, trouble),
                    )
                return release, info
            except EngineError as error:
                if trouble.missing:
                    raise EngineError(
                        f"the mirror's {spec.suite} has no package {join_words([*dict.fromkeys(trouble.missing)])}",
                        hint=f"a newer mirror may have it; images/{spec.name}/{FILE} asks for it",
                        details=error.details,
                    ) from error
                if not trouble.moved or attempt + 1 == ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _made_before(self, request: _ImageRequest) -> str | None:
        """Return the Release files of the newest image in the engine with these inputs."""
        candidates = [
            thing.labels
            for thing in self.engine.owned({CORE: request.core})
            if thing.kind == "image" and COPY not in thing.labels and releases.LABEL in thing.labels
        ]
        newest = max(candidates, key=lambda labels: labels.get(MADE, ""), default=None)
        return releases.parse(newest[releases.LABEL]) if newest else None

    def _known(self, request: _ImageRequest) -> Image | None:
        """Return the recorded image if it is in the engine and its packages are known."""
        choice = releases.chosen(self.home, request.core)
        info = self.engine.image(request.tag(choice.release)) if choice else None
        packages = known_packages(self.home, info.id) if info else None
        if choice is None or info is None or packages is None:
            return None
        return request.image(choice.release, info.id, packages)

    def _read_packages(self, request: _ImageRequest, release: str) -> tuple[Package, ...]:
        """Read an image's list of packages; a foreign arch's is copied into an image that can be started."""
        tag, host_arch = request.tag(release), request.host_arch
        if request.arch is host_arch:
            return parse_listing(self._read_file(tag, LISTING))
        arguments = {"BASE": request.base.reference, "IMAGE": tag, "IMAGE_PLATFORM": request.arch.platform}
        with self._copy(request.spec, "listing", arguments) as copy:
            return parse_listing(self._read_file(copy, LISTING))

    @contextlib.contextmanager
    def _copy(self, spec: ImageSpec, stage: str, arguments: Mapping[str, str]) -> Iterator[str]:
        """Build a temporary image of a stage for the block, and yield its tag."""
        token = secrets.token_hex(6)
        copy = f"crossjit/{stage}:{token}"
        info = self.engine.build_image(
            spec.context,
            target=stage,
            arch=self.host_arch,
            tag=copy,
            arguments={name: value or token for name, value in arguments.items()},
            # the unique label gives each copy its own content id, so that nobody removes another's
            labels={**self.labels, OWNED: "image", COPY: token},
        )
        try:
            yield copy
        finally:
            self.engine.remove(EngineObject("image", info.id, copy, self.labels))

    def _read_file(self, reference: str, path: str) -> str:
        """Read a file of an image."""
        name = f"crossjit-listing-{secrets.token_hex(4)}"
        labels = {**self.labels, OWNED: "container"}
        options = ContainerOptions(reference, arch=self.host_arch, name=name, labels=labels)
        with self.engine.container(options) as container:
            try:
                with container.get(path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                    return "".join(
                        file.read().decode() for member in tar if (file := tar.extractfile(member)) is not None
                    )
            except FileNotFoundError:
                subject = "list of its packages" if path == LISTING else path
                raise InfrastructureError(
                    f"the image {reference} has no {subject}", hint=f"the {DOCKERFILE} must write {path}"
                ) from None
            except tarfile.TarError as error:
                raise EngineError(f"a file copied out of {reference} is damaged: {error}") from error
