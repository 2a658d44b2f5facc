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

from crossjit.engine.base import COPY, OWNED, ContainerOptions, EngineObject, ImageInfo, permanent_labels
from crossjit.errors import EngineError, InfrastructureError
from crossjit.images import release as releases
from crossjit.images.base import BASE, Base, BaseBuilder
from crossjit.images.image import Image, Package, digest_of, known_packages, parse_listing, remember
from crossjit.images.release import Choice
from crossjit.images.spec import DOCKERFILE, ImageSpec, Role
from crossjit.model import Arch
from crossjit.progress import Step

KEY = "crossjit.key"  # label: digest of all that an image was made from
CORE = "crossjit.core"  # label: digest of that without what the mirror had
MADE = "crossjit.made"  # label: when, in UTC

_NOT_USED = frozenset({".json", ".md", ".toml"})  # files of a context that builds never read

ATTEMPTS = 3  # a mirror changes a few times a day

LISTING = "/usr/share/crossjit/packages"


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


def _arguments(spec: ImageSpec, role: Role, arch: Arch, host_arch: Arch) -> dict[str, str]:
    packages, extra = spec.packages(role, arch, host_arch), spec.extra_packages(role, arch, host_arch)
    if role is not Role.TOOLCHAIN or arch is not host_arch:
        flags = {} if arch is host_arch else {"LIBRARY_CACHE_FLAGS": str(arch.library_cache_flags)}
        return {"ACCOUNT": role.account, "PACKAGES": " ".join((*packages, *extra)), **flags}
    # a layer of its own, so that the rest is there if the image without it was made
    more = {"EXTRA": " ".join(extra)} if extra else {}
    foreign = " ".join(each.debian for each in arch.others)
    return {"ACCOUNT": role.account, "FOREIGN": foreign, "PACKAGES": " ".join(packages), **more}


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


class ImageBuilder(BaseBuilder):
    """Has images in an engine, and the bases that they stand on."""

    def ensure(self, spec: ImageSpec, role: Role, arch: Arch, *, refresh: bool = False) -> Image:
        """Have an image of this role and arch in the engine; made if it is not there, by one process at a time.

        A toolchain of the engine's own arch has the cross compilers for the others too; of another arch it is what runs
        under emulation. Nothing foreign is run to make any of them. Base and image are recorded, so the second call
        asks no registry and no mirror, and starts nothing. With `refresh` it is the image of what the mirror has now.

        Raises EngineError with the end of the build's log, and InfrastructureError where there is no base to stand on.
        """
        base = self.recorded(spec)
        if base is None:
            with self.locked_base(spec):
                base = self.recorded(spec) or self.decide(spec)
        wanted = _Wanted(spec, role, arch, self.host_arch, base)
        if not refresh and (found := self._known(wanted)):
            return found
        with self.locked(f"image-{wanted.core[:12]}", f"the image {wanted.subject}"):
            if not refresh and (found := self._known(wanted)):
                return found
            with self.locked_base(spec):
                base = self.require(base, spec)
            return self._make(replace(wanted, base=base), refresh=refresh)

    def find(self, spec: ImageSpec, role: Role, arch: Arch) -> Image | None:
        """Return the image if `ensure` would not have to make it; nothing is started. Raises EngineError."""
        base = self.recorded(spec)
        return self._known(_Wanted(spec, role, arch, self.host_arch, base)) if base else None

    def ask(self, spec: ImageSpec, base: Base) -> str:
        """Ask the mirror what it has; see `release`. Raises EngineError where it does not answer."""
        for attempt in range(ATTEMPTS):
            with self._copy(spec, "release", {"BASE": base.reference, "ASKED": ""}) as copy:
                try:
                    return releases.parse(self._read_file(copy, releases.FILE))
                except EngineError:
                    # Docker 26, collecting its build cache's garbage while it builds, may leave an image without its
                    # base
                    self.engine.facts()  # raises where it is the engine that does not answer
                    if attempt + 1 == ATTEMPTS:
                        raise
        raise AssertionError("the last attempt returns or raises")

    def _make(self, wanted: _Wanted, *, refresh: bool) -> Image:
        """Build an image, or take one that another state folder had made and is not to be refreshed."""
        spec = wanted.spec
        with self.progress.step("image", wanted.subject) as step:
            release = None if refresh else self._made_before(wanted)
            info = self.engine.image(wanted.tag(release)) if release else None
            if release is None or info is None:
                release, info = self._build(wanted, step)
            step.update(detail="listing its packages")
            packages = self._read_packages(wanted, release)
        if said := releases.remark(release, spec.suite):
            self.progress.say(said)
        remember(self.home, info.id, packages)
        image = wanted.image(release, info.id, packages)
        choice = Choice(wanted.core, release, image.reference, spec.name, wanted.role, wanted.arch, spec.extra)
        releases.choose(self.home, choice)
        return image

    def _build(self, wanted: _Wanted, step: Step) -> tuple[str, ImageInfo]:
        """Build an image of what the mirror has now, if it is not there; asked again if that changes meanwhile."""
        spec, role, arch, host_arch, base = wanted.spec, wanted.role, wanted.arch, wanted.host_arch, wanted.base
        for attempt in range(ATTEMPTS):
            step.update(detail="asking the mirror for its release")
            release = self.ask(spec, base)
            tag = wanted.tag(release)
            if (info := self.engine.image(tag)) is not None:
                return release, info
            own = permanent_labels(self.labels)
            own |= {OWNED: "image", BASE: base.identity, KEY: wanted.key(release), CORE: wanted.core}
            own |= {releases.LABEL: release, MADE: datetime.now(UTC).isoformat(timespec="seconds")}
            moved: list[str] = []
            try:
                return release, self.engine.build_image(
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

    def _made_before(self, wanted: _Wanted) -> str | None:
        """Return by which Release files the newest image of this kind was made that is in the engine."""
        there = [
            thing.labels
            for thing in self.engine.owned({CORE: wanted.core})
            if thing.kind == "image" and COPY not in thing.labels and releases.LABEL in thing.labels
        ]
        newest = max(there, key=lambda labels: labels.get(MADE, ""), default=None)
        return releases.parse(newest[releases.LABEL]) if newest else None

    def _known(self, wanted: _Wanted) -> Image | None:
        """Return the image that was chosen if it is in the engine and what is in it is known."""
        choice = releases.chosen(self.home, wanted.core)
        info = self.engine.image(wanted.tag(choice.release)) if choice else None
        packages = known_packages(self.home, info.id) if info else None
        if choice is None or info is None or packages is None:
            return None
        return wanted.image(choice.release, info.id, packages)

    def _read_packages(self, wanted: _Wanted, release: str) -> tuple[Package, ...]:
        """Read the list of packages out of an image; that of a foreign arch is copied into one that can be started."""
        tag, host_arch = wanted.tag(release), wanted.host_arch
        if wanted.arch is host_arch:
            return parse_listing(self._read_file(tag, LISTING))
        arguments = {"BASE": wanted.base.reference, "IMAGE": tag, "IMAGE_PLATFORM": wanted.arch.platform}
        with self._copy(wanted.spec, "listing", arguments) as copy:
            return parse_listing(self._read_file(copy, LISTING))

    @contextlib.contextmanager
    def _copy(self, spec: ImageSpec, stage: str, arguments: Mapping[str, str]) -> Iterator[str]:
        """Build a stage that is only read from, once; its name, while the block runs."""
        token = secrets.token_hex(6)
        copy = f"crossjit/{stage}:{token}"
        info = self.engine.build_image(
            spec.context,
            target=stage,
            arch=self.host_arch,
            tag=copy,
            arguments={name: value or token for name, value in arguments.items()},
            # nobody else's copy has the same content id, so that none removes another's
            labels={**self.labels, OWNED: "image", COPY: token},
        )
        try:
            yield copy
        finally:
            self.engine.remove(EngineObject("image", info.id, copy, self.labels))

    def _read_file(self, reference: str, path: str) -> str:
        """Read a file out of an image."""
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
                what = "list of its packages" if path == LISTING else path
                raise InfrastructureError(
                    f"the image {reference} has no {what}", hint=f"the {DOCKERFILE} must write {path}"
                ) from None
            except tarfile.TarError as error:
                raise EngineError(f"a file copied out of {reference} is damaged: {error}") from error
