"""Packages from the index that pip is configured to use, for a Python that is not this one.

pip runs on this machine, where its configuration is: no address and no credentials of an index reach a container. It
takes only wheels, which are unpacked without running any code of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from crossjit.errors import InfrastructureError, UserError
from crossjit.host.shell import Shell
from crossjit.model import Arch
from crossjit.util.budget import BUDGET
from crossjit.util.files import translate_os_errors

SECONDS = 1800.0
LARGEST = 2 * BUDGET.file  # bytes of all files together, which are kept in memory

# pip takes a wheel's tags from options, but the markers of its requirements (`python_version < "3.12"`) are evaluated
# for the Python that runs pip: https://github.com/pypa/pip/issues/11664
_AS_TARGET = """\
import platform, runpy, sys
machine, version, *arguments = sys.argv[1:]
platform.machine = lambda: machine
platform.python_version = lambda: version
platform.python_version_tuple = lambda: tuple(version.split("."))
sys.argv = ["pip", *arguments]
runpy.run_module("pip", run_name="__main__")
"""
_DOWNLOAD = ("download", "--quiet", "--no-input", "--disable-pip-version-check", "--only-binary", ":all:")
_OLDEST_GLIBC = 17  # of the tags manylinux_2_N; older ones are those of manylinux2014
_ADDRESS = re.compile(r"\b[a-z+]+://[^\s'\"]+")


@dataclass(frozen=True)
class WheelTarget:
    """The Python that packages are for: (major, minor), and N of its glibc 2.N."""

    arch: Arch
    python: tuple[int, int]
    free_threaded: bool
    glibc: int

    @property
    def options(self) -> tuple[str, ...]:
        """Return pip's options for the wheels that it can use."""
        major, minor = self.python
        glibcs = range(self.glibc, _OLDEST_GLIBC - 1, -1)
        platforms = [*(f"manylinux_2_{number}" for number in glibcs), "manylinux2014", "linux"]
        return (
            *("--implementation", "cp", "--python-version", f"{major}.{minor}"),
            *("--abi", f"cp{major}{minor}{'t' if self.free_threaded else ''}"),
            *(word for platform in platforms for word in ("--platform", f"{platform}_{self.arch}")),
        )


@dataclass(frozen=True, order=True)
class Wheel:
    """A package's wheel: its name, its version, and the sha256 of the file."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Packages:
    """Wheels, and the contents of their files by path, for a folder in PYTHONPATH."""

    wheels: tuple[Wheel, ...]
    files: Mapping[str, bytes]


def parse(texts: Sequence[str]) -> tuple[str, ...]:
    """Check requirements. Raises UserError for the first that does not name a package of an index."""
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"invalid --with {text!r}: {reason}", hint="such as --with attrs==25.1") from error
        if requirement.url:
            raise UserError(f"invalid --with {text!r}: it has an address", hint="such as --with attrs==25.1")
    return tuple(dict.fromkeys(texts))


def fetch(requirements: Sequence[str], target: WheelTarget, shell: Shell) -> Packages:
    """Download wheels with all that they require, and read their files. Leaves nothing on disk but pip's own cache.

    Raises UserError if pip does not find them, with pip's own words.
    """
    version = ".".join(map(str, target.python))
    with (
        translate_os_errors(InfrastructureError, "cannot store packages", Path(tempfile.gettempdir())),
        tempfile.TemporaryDirectory(prefix="crossjit-wheels-") as folder,
    ):
        done = shell.run(
            (
                *(sys.executable, "-P", "-c", _AS_TARGET, target.arch.value, f"{version}.0"),
                *(*_DOWNLOAD, *target.options, "--dest", folder, "--", *requirements),
            ),
            timeout=SECONDS,
        )
        if done.returncode:
            python = f"{'free-threaded ' if target.free_threaded else ''}Python {version}"
            hint = f"check the name and the version; there must be a wheel for {python} on {target.arch}"
            raise _failure("--with", requirements, hint, done.last_lines())
        return _packages(sorted(Path(folder).iterdir()))


def fetch_pinned(wheels: Sequence[Wheel], folder: Path, shell: Shell) -> tuple[Path, ...]:
    """Download wheels that run on any Python into a folder; pip compares the digests. Return the files.

    Raises UserError if pip does not find them, with pip's own words.
    """
    lock = "".join(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wheels)
    requirements = folder / "requirements.txt"
    requirements.write_text(lock, encoding="utf-8")
    done = shell.run(
        (
            *(sys.executable, "-P", "-m", "pip", *_DOWNLOAD, "--no-deps", "--require-hashes"),
            *("--implementation", "py", "--abi", "none", "--platform", "any"),
            *("--dest", str(folder), "--requirement", str(requirements)),
        ),
        timeout=SECONDS,
    )
    if done.returncode:
        names = [f"{wheel.name}=={wheel.version}" for wheel in wheels]
        raise _failure("measuring", names, "the index must have these wheels, unchanged", done.last_lines())
    return tuple(sorted(folder.glob("*.whl")))


def _failure(what: str, requirements: Sequence[str], hint: str, lines: Sequence[str]) -> UserError:
    """Make the error, without addresses of indexes, which may contain passwords and are recorded with the run."""
    errors = [_ADDRESS.sub("…", line.removeprefix("ERROR: ")) for line in lines if line.startswith("ERROR: ")]
    if any("No module named pip" in line for line in lines):
        return UserError(
            f"{what} needs pip, and the Python that runs crossjit has none", hint=f"{sys.executable} -m ensurepip"
        )
    unreachable = any("Retrying" in line for line in lines)
    return UserError(
        f"pip cannot get {', '.join(requirements)}: {errors[-1] if errors else 'it did not say why'}",
        hint="the index did not answer: check the network and pip's configuration" if unreachable else hint,
        details=tuple(errors[:-1]),
    )


def _packages(paths: Sequence[Path]) -> Packages:
    """Read wheels. Raises UserError if one cannot be read, or they are too large together."""
    wheels: list[Wheel] = []
    files: dict[str, bytes] = {}
    left = LARGEST
    for path in paths:
        with _readable(path), zipfile.ZipFile(path) as archive:
            name, version, _, _ = parse_wheel_filename(path.name)
            left -= sum(member.file_size for member in archive.infolist())
            if left < 0:
                raise UserError(f"the packages have more than {LARGEST >> 20} MiB", hint="require fewer of them")
            files.update(_files(archive))
        wheels.append(Wheel(str(name), str(version), hashlib.sha256(path.read_bytes()).hexdigest()))
    return Packages(tuple(sorted(wheels)), files)


def unpack(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a wheel by their path. Raises UserError if it cannot be read."""
    with _readable(path), zipfile.ZipFile(path) as archive:
        yield from _files(archive)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged wheel into UserError."""
    try:
        yield
    except (InvalidWheelFilename, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path.name} is not a wheel that can be read: {error}", hint="require a different version"
        ) from error


def _files(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    """Yield the files that Python imports, by their path; a wheel's programs and headers are left out.

    https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    for member in archive.infolist():
        parts = PurePosixPath(member.filename).parts
        if parts and parts[0].endswith(".data"):
            parts = parts[2:] if parts[1:2] in (("purelib",), ("platlib",)) else ()
        if not parts or member.is_dir():
            continue
        if parts[0] == "/" or ".." in parts:
            raise zipfile.BadZipFile(f"the name {member.filename!r} leaves its folder")
        yield "/".join(parts), archive.read(member)
