"""Which foreign archs an engine's machine runs: a program of twelve bytes of each is started there.

This works where this machine's binfmt_misc says nothing: on engines elsewhere, and in Docker Desktop's virtual machine.
"""

from __future__ import annotations

import hashlib
import io
import re
import secrets
import struct
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from crossjit.engine import confinement
from crossjit.engine.base import ContainerOptions, ImageInfo
from crossjit.engine.cli_client import CliClient
from crossjit.model import Arch, Emulator

STATUS = 42  # what the program ends with
PROGRAM = "exit"
_VERSION = "QEMU_VERSION"  # as an option in its environment, QEMU prints its version instead of running a program
_BASE = 0x400000  # where the program is loaded


class Importer(Protocol):
    """The part of an engine that takes the images in."""

    def image(self, reference: str) -> ImageInfo | None:
        """Look up an image."""

    def import_image(self, tarball: Path, *, tag: str, arch: Arch, labels: Mapping[str, str]) -> ImageInfo:
        """Make an image."""


def emulators(engine: Importer, client: CliClient, own: Arch, labels: Mapping[str, str]) -> dict[Arch, Emulator]:
    """Return what runs each foreign arch that the machine of an engine of arch `own` runs. Raises EngineError."""
    found = {}
    for arch in own.others:
        if (version := _try(engine, client, arch, labels)) is not None:
            name = f"qemu-{arch}" if version else "unknown"
            found[arch] = Emulator(arch, name, "", version or None, fixed=True, enabled=True, cpu=arch.cpu)
    return found


def _try(engine: Importer, client: CliClient, arch: Arch, labels: Mapping[str, str]) -> str | None:
    """Return the version of the QEMU that runs an arch, empty for something else that does; None if nothing does."""
    name = f"crossjit-trial-{arch}-{secrets.token_hex(4)}"
    options = ContainerOptions(_image(engine, arch, labels), arch, name, labels, env={_VERSION: "1"})
    flags = ("--rm", *confinement.start_flags(options, client.name))
    result = client.try_call("run", *flags, options.image, f"/{PROGRAM}", env=confinement.without_proxies())
    if result.returncode == STATUS:
        return ""
    if match := re.search(r"^qemu-\S+ version (\d+(?:\.\d+)*)", result.stdout):
        return match[1]
    if re.search(r"exec format error|no such file or directory", result.stderr, re.IGNORECASE):
        return None  # nothing is registered for it, or an interpreter that containers cannot see
    raise client.error(f"start a program of {arch}", result.stderr or f"exit status {result.returncode}")


def _image(engine: Importer, arch: Arch, labels: Mapping[str, str]) -> str:
    """Return the image with the program, made if it is missing."""
    content = program(arch)
    tag = f"crossjit/trial-{arch.debian}:{hashlib.sha256(content).hexdigest()[:12]}"
    if engine.image(tag) is None:
        with tempfile.TemporaryDirectory(prefix="crossjit-") as folder:
            tarball = Path(folder) / "trial.tar"
            with tarfile.open(tarball, "w") as tar:
                member = tarfile.TarInfo(PROGRAM)
                member.size, member.mode = len(content), 0o755
                tar.addfile(member, io.BytesIO(content))
            engine.import_image(tarball, tag=tag, arch=arch, labels=labels)
    return tag


def program(arch: Arch) -> bytes:
    """Return a program that ends with STATUS: an ELF header, one segment, and a few instructions."""
    code = bytes.fromhex(arch.exit_42)
    header, segment = 64, 56
    start = header + segment
    return b"".join(
        (
            b"\x7fELF\x02\x01\x01" + bytes(9),
            struct.pack("<HHIQQQI", 2, arch.elf_number, 1, _BASE + start, header, 0, 0),
            struct.pack("<HHHHHH", header, segment, 1, 0, 0, 0),
            struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, start + len(code), start + len(code), 0x10000),
            code,
        )
    )
