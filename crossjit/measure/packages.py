"""The packages of the benchmarks: wheels that are pinned in `meter/packages.lock`, and kept in the state folder.

pip of this machine fetches them, once. Nothing of them runs here, and nothing is fetched while something is measured.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from crossjit.errors import DocumentError, InfrastructureError
from crossjit.host import LocalShell, Shell, wheels
from crossjit.host.wheels import Wheel
from crossjit.images.spec import METER
from crossjit.progress import Progress
from crossjit.util import files
from crossjit.util.text import pluralize

LOCK = METER / "packages.lock"
PYPERF = "pyperf"
PYPERFORMANCE = "pyperformance"
BENCHMARKS = f"{PYPERFORMANCE}/data-files/benchmarks"  # in its wheel
FOLDER = "/usr/local/libexec/packages"  # in a container; in PYTHONPATH of what is measured

_PINNED = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[A-Za-z0-9.]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})")


def pinned(lock: Path = LOCK) -> Mapping[str, Wheel]:
    """Read the lock file: the wheels by the names of their packages. Raises DocumentError with every error at once."""
    try:
        lines = lock.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DocumentError(f"{lock}: cannot be read: {error.strerror}", hint="install crossjit again") from None
    found: dict[str, Wheel] = {}
    details = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _PINNED.fullmatch(line)
        if match is None:
            details.append(f"{lock}:{number}:1: expected NAME==VERSION --hash=sha256:DIGEST")
        elif match["name"] in found:
            details.append(f"{lock}:{number}:1: {match['name']} is pinned twice")
        else:
            found[match["name"]] = Wheel(**match.groupdict())
    if details:
        hint = "correct these lines, then run the same command again"
        raise DocumentError(f"{lock}: {pluralize(len(details), 'error')}", hint=hint, details=tuple(details))
    return found


def ensure(names: Collection[str], home: Path, progress: Progress, shell: Shell | None = None) -> Mapping[str, Path]:
    """Return the wheels' files in the state folder, by the packages' names; fetch those that are not there.

    Raises UserError if pip does not get them, InfrastructureError if they cannot be stored.
    """
    needed = {name: wheel for name, wheel in pinned().items() if name in names}
    missing = [wheel for wheel in needed.values() if not _is_whole(_path(home, wheel), wheel)]
    if missing:
        with progress.step("packages", ", ".join(f"{wheel.name} {wheel.version}" for wheel in missing)):
            _fetch(missing, home, shell or LocalShell())
    return {name: _path(home, wheel) for name, wheel in needed.items()}


def contents(paths: Mapping[str, Path], scripts: Collection[str]) -> dict[str, bytes]:
    """Return what to install in a container: of pyperformance the folders of these benchmarks, all of the others.

    Raises UserError if a wheel cannot be read.
    """
    folders = tuple(f"{BENCHMARKS}/bm_{script}/" for script in scripts)

    def wanted(package: str) -> Callable[[str], bool]:
        return (lambda path: path.startswith(folders)) if package == PYPERFORMANCE else (lambda path: True)

    return {
        f"{FOLDER}/{path}": content
        for package, wheel in paths.items()
        for path, content in wheels.unpack(wheel)
        if wanted(package)(path)
    }


def _fetch(missing: Sequence[Wheel], home: Path, shell: Shell) -> None:
    """Let pip get the wheels, and store each under its digest."""
    folder = home / "wheels"
    with files.translate_os_errors(InfrastructureError, "cannot store packages", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as temporary:
            by_digest = {_digest(path): path for path in wheels.fetch_pinned(missing, Path(temporary), shell)}
            for wheel in missing:
                if wheel.sha256 not in by_digest:
                    raise InfrastructureError(
                        f"pip did not get the pinned wheel of {wheel.name} {wheel.version}",
                        hint="check pip's configuration; the lock file names the wheel's digest",
                    )
                by_digest[wheel.sha256].replace(_path(home, wheel))
        files.sync_folder(folder)


def _path(home: Path, wheel: Wheel) -> Path:
    return home / "wheels" / f"{wheel.sha256}.whl"


def _is_whole(path: Path, wheel: Wheel) -> bool:
    try:
        return _digest(path) == wheel.sha256
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
