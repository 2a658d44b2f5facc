"""A mirror's state: the digests of its Release files, as `images/release.sh` prints them, and the image of each.

A text such as `forky=caac9e… forky-updates=0f…`, followed by `expired` if a Release is past its Valid-Until date and
was used because the mirror has no other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from crossjit.errors import InfrastructureError
from crossjit.images.image import digest_of
from crossjit.images.spec import ImageSpec, Role
from crossjit.model import Arch, ExtraPackages
from crossjit.util import files

LABEL = "crossjit.release"
FILE = "/usr/share/crossjit/release"
MOVED = "crossjit: the mirror has other Release files"  # the message of images/update.sh

_EXPIRED = " expired"
_SUITE = r"[A-Za-z0-9][\w.-]*=[0-9a-f]{64}"
_FORM = re.compile(rf"{_SUITE}(?: {_SUITE})*(?:{_EXPIRED})?")


def parse(text: str) -> str:
    """Parse the output of release.sh. Raises InfrastructureError if it is invalid."""
    line = text.strip()
    if not _FORM.fullmatch(line):
        raise InfrastructureError(
            "the mirror's Release files could not be read", hint="try again; the image's build log has more"
        )
    return line


def is_expired(release: str) -> bool:
    """Whether the check of Valid-Until was turned off."""
    return release.endswith(_EXPIRED)


def digests(release: str) -> str:
    """Return the digests alone, which identify a mirror's state."""
    return release.removesuffix(_EXPIRED)


def short(release: str) -> str:
    """Return 12 hex digits: of its only digest, or of a digest of several."""
    values = digests(release).split()
    return values[0].rpartition("=")[2][:12] if len(values) == 1 else digest_of({"release": values})[:12]


def remark(release: str, suite: str) -> str | None:
    """Return a remark if a Release has expired."""
    if not is_expired(release):
        return None
    return f"the mirror's Release of {suite} has expired and is used without the check of Valid-Until"


@dataclass(frozen=True)
class Choice:
    """The recorded image of a request: its tag, and its Release files. `core` is the digest of all other inputs.

    `more_llvm` are the LLVM versions that were requested for it.
    """

    core: str
    release: str
    reference: str
    image: str
    role: Role
    arch: Arch
    extra: ExtraPackages
    more_llvm: tuple[str, ...] = ()

    def spec(self, specs: tuple[ImageSpec, ...]) -> ImageSpec | None:
        """Return its current spec; None if there is no such image any more."""
        current = next((spec for spec in specs if spec.name == self.image), None)
        return replace(current.having(self.extra), more_llvm=self.more_llvm) if current else None


def choose(home: Path, choice: Choice) -> None:
    """Record the image of a request, in place of an earlier one."""
    path = _path(home, choice.core)
    with files.translate_os_errors(InfrastructureError, "cannot record which image is used", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, json.dumps(asdict(choice)).encode())


def chosen(home: Path, core: str) -> Choice | None:
    """Return the record; None if there is none."""
    return _read(_path(home, core))


def all_chosen(home: Path) -> Iterator[Choice]:
    """Yield all records of a state folder."""
    for path in sorted((home / "images").glob("*.choice")):
        if (choice := _read(path)) is not None:
            yield choice


def invalidate(home: Path, choice: Choice) -> None:
    """Remove a record."""
    with files.translate_os_errors(InfrastructureError, "cannot remove the record of an image", home / "images"):
        _path(home, choice.core).unlink(missing_ok=True)


def _path(home: Path, core: str) -> Path:
    return home / "images" / f"{core[:16]}.choice"


def _read(path: Path) -> Choice | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        extra = ExtraPackages(**{name: tuple(map(str, names)) for name, names in record["extra"].items()})
        return Choice(
            core=str(record["core"]),
            release=parse(str(record["release"])),
            reference=str(record["reference"]),
            image=str(record["image"]),
            role=Role(record["role"]),
            arch=Arch(record["arch"]),
            extra=extra,
            more_llvm=tuple(map(str, record.get("more_llvm", ()))),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InfrastructureError):
        return None
