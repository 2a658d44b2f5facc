"""Tar streams of small trees, as an engine gives them, for the tests of the stash."""

from __future__ import annotations

import io
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from crossjit.model import Arch, Cell, Strategy
from crossjit.stash.manifest import ArtifactKind, Manifest, SourceFacts, key_of


@dataclass(frozen=True)
class File:
    content: bytes = b""
    mode: int = 0o644


@dataclass(frozen=True)
class Folder:
    mode: int = 0o755


@dataclass(frozen=True)
class Symlink:
    target: str


@dataclass(frozen=True)
class Hardlink:
    target: str


Node = File | Folder | Symlink | Hardlink

INSTALL: Mapping[str, Node] = {
    "bin": Folder(),
    "bin/python3": Symlink("python3.15"),
    "bin/python3.15": File(b"\x7fELF" + bytes(range(256)) * 40, 0o755),
    "lib": Folder(),
    "lib/os.py": File(b"import posix\n" * 300),
    "lib/empty": File(),
}

SUPPORT: Mapping[str, Node] = {"Tools": Folder(), "Tools/jit.py": File(b"print()\n" * 50)}


def tar(
    nodes: Mapping[str, Node],
    *,
    top: str = "install",
    order: Sequence[str] | None = None,
    mtime: float = 1.5,
    uid: int = 1000,
    names: str = "builder",
    format: int = tarfile.PAX_FORMAT,
) -> bytes:
    """Make a stream whose members begin with `top`, in the order given."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=format, errors="surrogateescape") as archive:
        for path in ("", *(order if order is not None else nodes)):
            node = nodes[path] if path else Folder()
            info = tarfile.TarInfo(f"{top}/{path}".rstrip("/"))
            info.mtime = mtime if format == tarfile.PAX_FORMAT else int(mtime)
            info.uid = info.gid = uid
            info.uname = info.gname = names
            match node:
                case File(content, mode):
                    info.size = len(content)
                    info.mode = mode
                    archive.addfile(info, io.BytesIO(content))
                    continue
                case Folder(mode):
                    info.type = tarfile.DIRTYPE
                    info.mode = mode
                case Symlink(target):
                    info.type = tarfile.SYMTYPE
                    info.linkname = target
                case Hardlink(target):
                    info.type = tarfile.LNKTYPE
                    info.linkname = f"{top}/{target}"
            archive.addfile(info)
    return output.getvalue()


def stream(nodes: Mapping[str, Node] = INSTALL, *, top: str = "install") -> io.BytesIO:
    return io.BytesIO(tar(nodes, top=top))


def manifest(key: str, cell: Cell | None = None) -> Manifest:
    return Manifest(
        kind=ArtifactKind.CELL,
        build_key=key,
        version="3.15.0rc2",
        arch=Arch.AARCH64,
        source=SourceFacts("archive", "ab" * 32, "Python-3.15.0rc2.tar.xz", llvm="21"),
        strategy=Strategy.CROSS,
        configure="configure --enable-experimental-jit",
        cell=cell or Cell("3.15", Arch.AARCH64, "jit"),
        recipe="3.15",
        variant="jit",
        images={"toolchain": {"id": "sha256:1"}},
        llvm="21.1.8",
        seconds={"make": 259.5},
        probe={"executors": [{"bytes": 4096}], "gil": True},
    )


def shareable(made: Manifest) -> Manifest:
    """Return a manifest with recorded inputs and the build key that they give, so that the artifact can be pushed."""
    inputs: dict[str, object] = {
        "core": "",
        "arch": made.arch.value,
        "strategy": made.strategy.value,
        "source": made.source.digest,
        "domain": made.domain,
        "commands": [{"phase": "configure", "argv": shlex.split(made.configure)}],
    }
    return replace(made, inputs=inputs, build_key=key_of(inputs))
