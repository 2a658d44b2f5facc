"""How large the programs and libraries of a build are, without what only debuggers read."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from crossjit.errors import InfrastructureError
from crossjit.stash import packing
from crossjit.stash.artifact import INSTALL, Artifact

_FILES = re.compile(r"usr/local/(bin/python3\.\d+t?d?|lib/libpython3\.\d+t?d?\.so\.1\.0)")
SECTIONS = 10_000  # at most: a file that means harm can claim any number


@dataclass(frozen=True)
class Binary:
    """A program or a library. `text` are bytes that nobody writes to, `data` those that are written to, as in `size`.

    `bss` are zeros, which the file does not have.
    """

    name: str
    text: int
    data: int
    bss: int


def of(artifact: Artifact) -> tuple[Binary, ...]:
    """Return the sizes of a build's program, and of its libpython if it has one. Raises StashError, and as `read`."""
    paths = [path for path in artifact.files()[INSTALL] if _FILES.fullmatch(path)]
    contents = packing.read(artifact.objects[INSTALL], paths) if paths else {}
    return tuple(read(path.rpartition("/")[2], contents[path]) for path in sorted(contents))


def read(name: str, content: bytes) -> Binary:
    """Return the sizes of an ELF file. Raises InfrastructureError if it is not one. Pure."""
    sizes = {"text": 0, "data": 0, "bss": 0}
    try:
        elf = ELFFile(io.BytesIO(content))
        if elf.num_sections() > SECTIONS:
            raise ValueError(f"there are more than {SECTIONS:,}")
        for section in elf.iter_sections():
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC:
                writable = section["sh_flags"] & SH_FLAGS.SHF_WRITE
                kind = "bss" if section["sh_type"] == "SHT_NOBITS" else "data" if writable else "text"
                sizes[kind] += int(section["sh_size"])
    except (ELFError, ValueError, LookupError, ArithmeticError, AttributeError, TypeError, RecursionError) as error:
        raise InfrastructureError(
            f"the sections of {name} cannot be read: {error}", hint="the file is damaged: build it again"
        ) from error
    return Binary(name, **sizes)
