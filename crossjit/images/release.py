"""What a mirror has: the digests of its Release files, as `images/release.sh` prints them, and which made an image.

A text such as `forky=caac9e… forky-updates=0f…`, with `expired` behind it where a Release is older than it says it may
be, and was taken all the same since the mirror has no other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from crossjit.errors import InfrastructureError
from crossjit.images.image import digest_of
from crossjit.images.spec import ImageSpec, Role
from crossjit.model import Arch, ExtraPackages
from crossjit.util import files

LABEL = "crossjit.release"
FILE = "/usr/share/crossjit/release"
MOVED = "crossjit: the mirror has other Release files"  # what images/update.sh says of it

_EXPIRED = " expired"
_SUITE = r"[A-Za-z0-9][\w.-]*=[0-9a-f]{64}"
_FORM = re.compile(rf"{_SUITE}(?: {_SUITE})*(?:{_EXPIRED})?")


def parse(text: str) -> str:
    """Read what release.sh printed. Raises InfrastructureError where it is not that."""
    line = text.strip()
    if not _FORM.fullmatch(line):
        raise InfrastructureError(
            "the mirror's Release files could not be read", hint="try again; the image's build log has more"
        )
    return line


def is_expired(release: str) -> bool:
    """Whether the check of Valid-Until was off."""
    return release.endswith(_EXPIRED)


def digests(release: str) -> str:
    """Return the digests alone, which say what a mirror has."""
    return release.removesuffix(_EXPIRED)


def short(release: str) -> str:
    """Return 12 hex digits for it: of its one digest, or a digest of several."""
    found = digests(release).split()
    return found[0].rpartition("=")[2][:12] if len(found) == 1 else digest_of({"release": found})[:12]


def remark(release: str, suite: str) -> str | None:
    """Say it where a Release has expired."""
    if not is_expired(release):
        return None
    return f"the mirror's Release of {suite} has expired and is used without the check of Valid-Until"


@dataclass(frozen=True)
class Choice:
    """Which image stands for what is asked for: its tag, and by which Release it was made. `core` is the key of all but
    that.
    """

    core: str
    release: str
    reference: str
    image: str
    role: Role
    arch: Arch
    extra: ExtraPackages

    def spec(self, specs: tuple[ImageSpec, ...]) -> ImageSpec | None:
        """Return what it was made of, as that is now; None if there is no such image any more."""
        found = next((spec for spec in specs if spec.name == self.image), None)
        return found.having(self.extra) if found else None


def choose(home: Path, choice: Choice) -> None:
    """Record that an image stands for what is asked for, until another does."""
    path = _path(home, choice.core)
    with files.translate_os_errors(InfrastructureError, "cannot record which image is used", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, json.dumps(asdict(choice)).encode())


def chosen(home: Path, core: str) -> Choice | None:
    """Return what was recorded; None where nothing was."""
    return _read(_path(home, core))


def all_chosen(home: Path) -> Iterator[Choice]:
    """Yield all that was recorded for a state folder."""
    for path in sorted((home / "images").glob("*.choice")):
        if (choice := _read(path)) is not None:
            yield choice


def invalidate(home: Path, choice: Choice) -> None:
    """Remove what was recorded."""
    with files.translate_os_errors(InfrastructureError, "cannot remove the record of an image", home / "images"):
        _path(home, choice.core).unlink(missing_ok=True)


def _path(home: Path, core: str) -> Path:
    return home / "images" / f"{core[:16]}.choice"


def _read(path: Path) -> Choice | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        extra = ExtraPackages(**{name: tuple(map(str, names)) for name, names in found["extra"].items()})
        return Choice(
            core=str(found["core"]),
            release=parse(str(found["release"])),
            reference=str(found["reference"]),
            image=str(found["image"]),
            role=Role(found["role"]),
            arch=Arch(found["arch"]),
            extra=extra,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InfrastructureError):
        return None
