"""Having an image in the engine: its key, the build, and reading out what is in it."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import filelock

from crossjit import durable
from crossjit.engine.base import COPY, OWNED, RUN, Engine, Owned
from crossjit.errors import EngineError, InfrastructureError
from crossjit.images import base as bases
from crossjit.images.base import BASE, Base, Bootstrapper
from crossjit.images.image import Image, Package, digest_of, parse_listing, remember, remembered
from crossjit.images.spec import DOCKERFILE, ImageSpec, Role, other
from crossjit.model import Arch
from crossjit.progress import Progress, Step

KEY = "crossjit.key"  # label: digest of all that an image was made from

_NOT_USED = frozenset({".json", ".md", ".toml"})  # files of a context that builds never read

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
) -> Image:
    """Have an image of this role and arch in the engine; made if it is not there, by one process at a time.

    `host_arch` is the arch of the engine's machine. A toolchain of that arch has the cross compiler for the other one
    too; of the other arch it is what runs under emulation. Nothing foreign is run to make any of them. `labels` go on
    all that is started on the way, so that it is found if this process dies. The run that they name is not in the
    image's own, which outlives it. The base is recorded under `home`, so the second call asks no registry, and starts
    nothing.

    Raises EngineError with the end of the build's log, and InfrastructureError where there is no base to stand on.
    """
    labels = labels or {}
    lasting = {key: value for key, value in labels.items() if key != RUN}
    base = bases.recorded(spec, host_arch, home)
    if base is None:
        with _locked(home, f"base-{spec.suite}-{host_arch.debian}", f"the base image of {spec.suite}", progress):
            base = bases.recorded(spec, host_arch, home) or bases.decide(
                engine, spec, host_arch, home, labels=lasting, progress=progress, bootstrapper=bootstrapper
            )
    key = key_of(spec, role, arch, host_arch, base)
    tag = _tag(spec, role, arch, key)
    found = _known(engine, tag, key, role, arch, base, home)
    if found is not None:
        return found
    subject = f"{spec.name} {role} {arch}"
    with _locked(home, f"image-{key[:12]}", f"the image {subject}", progress):
        found = _known(engine, tag, key, role, arch, base, home)
        if found is not None:
            return found
        own = {**lasting, OWNED: "image", BASE: base.identity, KEY: key}
        with _locked(home, f"base-{spec.suite}-{host_arch.debian}", f"the base image of {spec.suite}", progress):
            bases.require(
                engine, base, spec, host_arch, home, labels=lasting, progress=progress, bootstrapper=bootstrapper
            )
        with progress.step("image", subject) as step:
            info = engine.image(tag) or engine.build_image(
                spec.context,
                target="toolchain" if role is Role.TOOLCHAIN and arch is host_arch else "target",
                arch=arch,
                tag=tag,
                arguments={"BASE": base.reference, **_arguments(spec, role, arch, host_arch)},
                labels=own,
                on_line=_follow(step),
            )
            step.update(detail="listing its packages")
            packages = _read_packages(engine, spec, tag, arch, host_arch, base, {**own, **labels, OWNED: "image"})
        remember(home, info.id, packages)
    return Image(tag, info.id, key, role, arch, base.identity, packages)


def find(engine: Engine, spec: ImageSpec, role: Role, arch: Arch, *, host_arch: Arch, home: Path) -> Image | None:
    """Return the image if `ensure` would not have to make it; nothing is started. Raises EngineError."""
    base = bases.recorded(spec, host_arch, home)
    if base is None:
        return None
    key = key_of(spec, role, arch, host_arch, base)
    return _known(engine, _tag(spec, role, arch, key), key, role, arch, base, home)


def _tag(spec: ImageSpec, role: Role, arch: Arch, key: str) -> str:
    return f"crossjit/{spec.name}-{role}-{arch.debian}:{key[:12]}"


def key_of(spec: ImageSpec, role: Role, arch: Arch, host_arch: Arch, base: Base) -> str:
    """Return the digest of all that goes into an image: 64 hex digits.

    The mirror's state is not in it: the same key may give newer packages after the image was removed, which is what
    an image's fingerprint is for.
    """
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
        return {"ACCOUNT": role.account, "PACKAGES": " ".join((*packages, *extra))}
    # a layer of its own, so that the rest is there if the image without it was made
    more = {"EXTRA": " ".join(extra)} if extra else {}
    return {"ACCOUNT": role.account, "FOREIGN": other(arch).debian, "PACKAGES": " ".join(packages), **more}


def _known(engine: Engine, tag: str, key: str, role: Role, arch: Arch, base: Base, home: Path) -> Image | None:
    """Return the image if it is in the engine and what is in it is known."""
    info = engine.image(tag)
    packages = remembered(home, info.id) if info else None
    if info is None or packages is None:
        return None
    return Image(tag, info.id, key, role, arch, base.identity, packages)


def _read_packages(
    engine: Engine, spec: ImageSpec, tag: str, arch: Arch, host_arch: Arch, base: Base, labels: Mapping[str, str]
) -> tuple[Package, ...]:
    """Read the list of packages out of an image; that of a foreign arch is copied into one that can be started."""
    if arch is host_arch:
        return _read_listing(engine, tag, host_arch, labels)
    token = secrets.token_hex(6)
    copy = f"crossjit/listing:{token}"
    info = engine.build_image(
        spec.context,
        target="listing",
        arch=host_arch,
        tag=copy,
        arguments={"BASE": base.reference, "IMAGE": tag, "IMAGE_PLATFORM": arch.platform},
        labels={**labels, COPY: token},  # nobody else's copy has the same content id, so that none removes another's
    )
    try:
        return _read_listing(engine, copy, host_arch, labels)
    finally:
        engine.remove(Owned("image", info.id, copy, labels))


def _read_listing(engine: Engine, reference: str, arch: Arch, labels: Mapping[str, str]) -> tuple[Package, ...]:
    name = f"crossjit-listing-{secrets.token_hex(4)}"
    with engine.container(reference, arch=arch, name=name, labels={**labels, OWNED: "container"}) as container:
        try:
            with container.get(LISTING) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                text = "".join(file.read().decode() for member in tar if (file := tar.extractfile(member)) is not None)
        except FileNotFoundError:
            raise InfrastructureError(
                f"the image {reference} has no list of its packages", hint=f"the {DOCKERFILE} must write {LISTING}"
            ) from None
        except tarfile.TarError as error:
            raise EngineError(f"what the engine copied out of {reference} is damaged: {error}") from error
    return parse_listing(text)


_STAGE = re.compile(r"#\d+ \[([^\]]+)\]")
_OUTPUT = re.compile(r"#\d+ [\d.]+ (?:I: )?((?:Get|Unpacking|Setting up|running|downloading|extracting)\b[^\n]*)")


def _follow(step: Step) -> Callable[[str], None]:
    """Pass a build's log on, and say what it is doing in a few words."""

    def on_line(line: str) -> None:
        step.line(line)
        if found := _STAGE.match(line) or _OUTPUT.match(line):
            step.update(detail=found[1])

    return on_line


@contextlib.contextmanager
def _locked(home: Path, name: str, what: str, progress: Progress) -> Iterator[None]:
    """Hold a lock of this state folder, and say so where another process has it."""
    folder = home / "locks"
    with durable.explained(InfrastructureError, "cannot lock an image", folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            progress.say(f"another process is making {what}; waiting to take its result")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
