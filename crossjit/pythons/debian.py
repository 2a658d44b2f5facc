"""Debian's packages of Python, fetched with apt in a container. Nothing of them is run: they are only unpacked.

apt verifies them as always, by the signature of the mirror's Release file. It has a state of its own, in which the
target image's packages are installed, so that only what these lack is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from crossjit import PROGRAM
from crossjit.config.pythons import DebianPython
from crossjit.engine.base import Completed, Container, ContainerOptions, Limits
from crossjit.errors import DownloadError, InfrastructureError, UserError, did_you_mean
from crossjit.images import Package
from crossjit.model import Arch
from crossjit.progress import Step
from crossjit.stash.manifest import PackageFacts
from crossjit.util.tar import packed

USER = 1000
FOLDER = "/tmp/apt"  # noqa: S108 - of a container of its own
TREE = f"{FOLDER}/tree"
SECONDS = 600  # of one command
MEMORY = 2 << 30

_FOLDERS = ("", "/lists", "/lists/partial", "/cache", "/cache/archives", "/cache/archives/partial")
_ROW = re.compile(
    r"'[^']*' (?P<name>[a-z0-9][a-z0-9+.-]*)_(?P<version>[^_\s]+)_(?P<arch>[a-z0-9]+)\.deb [0-9]+ "
    r"SHA256:(?P<sha256>[0-9a-f]{64})"
)
_EXPIRED = re.compile(r"^E: Release file for \S+ is expired")
_SERIES = re.compile(r"python3\.[0-9]+")
_LLVM = re.compile(r"\b(?:clang|llvm)-([0-9]+)\b")

# apt's list of sources, with source packages instead of binary ones, in both of its formats.
_SOURCES = f"""\
mkdir -p {FOLDER}/parts
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    if [ -s "$list" ]; then
        sed 's/^deb /deb-src /; s/^Types:.*/Types: deb-src/' "$list" >"{FOLDER}/parts/${{list##*/}}"
    fi
done"""
_OF_SOURCES = (f"Dir::Etc::sourceparts={FOLDER}/parts", "Dir::Etc::sourcelist=/dev/null")

# Absolute links are made relative, so that the tree is self-contained. Programs are found in /usr/local first.
_UNPACK = f"""\
for deb in {FOLDER}/cache/archives/*.deb; do dpkg-deb --extract "$deb" {TREE} || exit; done
find {TREE} -type l -lname '/*' | while read -r link; do
    ln --symbolic --relative --force --no-dereference "{TREE}$(readlink "$link")" "$link" || exit
done
mkdir -p {TREE}/usr/local/bin
if [ ! -e "{TREE}/usr/bin/$1" ]; then exit 3; fi
ln -s "../../bin/$1" {TREE}/usr/local/bin/python3"""


def container_options(image: str, arch: Arch, name: str, labels: Mapping[str, str]) -> ContainerOptions:
    """Return the options of apt's container: of a suite's base image, unprivileged, with network."""
    limits = Limits(memory=MEMORY, seconds=4 * SECONDS)
    return ContainerOptions(
        image, arch=arch, name=name, labels=labels, user=f"{USER}:{USER}", network=True, limits=limits
    )


@dataclass(frozen=True)
class Apt:
    """apt for packages of one arch, in a container of the suite's base image. Call `update` first."""

    container: Container
    python: DebianPython
    arch: Arch
    step: Step

    def update(self, installed: Iterable[Package]) -> bool:
        """Fetch the mirror's lists; return whether its Release has expired and is used all the same.

        `installed` are the target image's packages. Raises DownloadError if the mirror does not answer.
        """
        status = "".join(
            f"Package: {package.name}\nStatus: install ok installed\nVersion: {package.version}\n"
            f"Architecture: {package.arch}\nMaintainer: nobody\nDescription: -\n\n"
            for package in installed
        )
        folders = {f"{FOLDER}{folder}": USER for folder in _FOLDERS}
        self.container.put(packed({f"{FOLDER}/status": status.encode()}, folders), "/")
        self.step.update(detail="asking the mirror")
        return self._update()

    def _update(self, *more: str) -> bool:
        update = ("update", "-o", "APT::Update::Error-Mode=any")
        completed, lines = self._run("apt-get", *update, options=("Acquire::Check-Valid-Until=true", *more))
        expired = bool(completed.returncode) and any(_EXPIRED.match(line) for line in lines)
        if expired:
            completed, lines = self._run("apt-get", *update, options=("Acquire::Check-Valid-Until=false", *more))
        if completed.returncode:
            raise DownloadError(
                f"Debian's mirror gives no list of {self.python.suite}'s packages: {completed.how}",
                hint="check the network, and the mirror that apt is configured with",
                details=tuple(lines[-10:]),
            )
        return expired

    def resolve(self) -> tuple[PackageFacts, ...]:
        """Return the packages to fetch: the Python with its tests, if there are any, and what the target lacks.

        Raises UserError if the suite has no such Python for the arch.
        """
        package = self.python.package
        series = _SERIES.match(package)
        if series and (found := self._solve(package, f"lib{series[0]}-testsuite")):
            return found
        names = frozenset(self._run("apt-cache", "pkgnames", "python3")[1])
        if package not in names:
            pythons = sorted(name for name in names if _SERIES.fullmatch(name))
            raise UserError(
                f"{self.python.suite} has no package {package} for {self.arch}{did_you_mean(package, pythons)}",
                hint=f"it has {', '.join(pythons)}" if pythons else "give a different suite",
            )
        if not (found := self._solve(package)):
            raise InfrastructureError(
                f"apt finds no way to install {package} of {self.python.suite} for {self.arch}",
                hint="the mirror may be changing: try again later",
            )
        tests = {f"lib{match[0]}-testsuite" for each in found if (match := _SERIES.match(each.name))}
        return self._solve(package, *sorted(tests)) or found

    def _solve(self, *names: str) -> tuple[PackageFacts, ...]:
        """Return the packages to fetch for these; none if apt finds no way to install them."""
        completed, lines = self._install("--print-uris", *names)
        if completed.returncode:
            return ()
        rows = [line for line in lines if line.startswith("'")]
        matches = [match for row in rows if (match := _ROW.fullmatch(row))]
        if not matches or len(matches) < len(rows):
            raise InfrastructureError(
                f"apt gives no SHA256 of {names[0]}'s packages", hint="crossjit needs one of Debian's mirrors"
            )
        return tuple(
            sorted(
                PackageFacts(match["name"], match["arch"], unquote(match["version"]), match["sha256"])
                for match in matches
            )
        )

    def require_current(self, packages: Sequence[PackageFacts], installed: Iterable[Package]) -> None:
        """Raise InfrastructureError if the target image's own packages are too old for these."""
        old = sorted({package.name for package in installed} & {package.name for package in packages})
        if old:
            raise InfrastructureError(
                f"{self.python.package} needs newer packages than the target image has: {', '.join(old)}",
                hint=f"`{PROGRAM} images update` makes the images of the mirror's present packages",
            )

    def unpack(self, packages: Sequence[PackageFacts]) -> None:
        """Fetch the packages and unpack them into TREE, with a link to the interpreter."""
        self.step.update(detail="fetching the packages")
        completed, lines = self._install("--download-only", *(f"{each.name}={each.version}" for each in packages))
        if completed.returncode:
            raise DownloadError(
                f"the packages of {self.python} cannot be fetched: {completed.how}",
                hint="check the network, and the mirror that apt is configured with",
                details=tuple(lines[-10:]),
            )
        self.step.update(detail="unpacking the packages")
        lines.clear()
        completed = self.container.run(
            ("/bin/sh", "-c", _UNPACK, "sh", self.python.package), on_line=lines.append, timeout=SECONDS
        )
        if completed.returncode:
            raise InfrastructureError(
                f"the packages of {self.python} have no program {self.python.package}"
                if completed.returncode == 3
                else f"the packages of {self.python} cannot be unpacked: {completed.how}",
                hint="give the package of an interpreter, such as python3.15",
                details=tuple(lines[-10:]),
            )

    def llvm(self, packages: Sequence[PackageFacts]) -> str | None:
        """Return the LLVM that the source package is built with, by its Build-Depends; None if it cannot be told."""
        self.step.update(detail="asking which LLVM it is built with")
        try:
            if self.container.run(("/bin/sh", "-c", _SOURCES), timeout=SECONDS).returncode:
                return None
            self._update(*_OF_SOURCES)
        except DownloadError:
            return None
        series = next((match[0] for each in packages if (match := _SERIES.match(each.name))), self.python.package)
        version = next((each.version for each in packages if each.name.startswith(series)), "")
        _, lines = self._run("apt-cache", "showsrc", "--only-source", series, options=_OF_SOURCES)
        text = "\n".join(lines)
        stanzas = [stanza for stanza in text.split("\n\n") if f"\nVersion: {version}\n" in f"\n{stanza}\n"]
        majors = {
            major
            for stanza in stanzas
            for line in stanza.splitlines()
            if _builds(line)
            for major in _LLVM.findall(line)
        }
        return f"{majors.pop()} (by Build-Depends of {series} {version})" if len(majors) == 1 else None

    def _install(self, *arguments: str) -> tuple[Completed, list[str]]:
        return self._run(
            "apt-get", "install", "--yes", "--quiet=2", *arguments, options=("APT::Install-Recommends=false",)
        )

    def _run(self, program: str, *arguments: str, options: Sequence[str] = ()) -> tuple[Completed, list[str]]:
        settings = (
            f"Dir::State={FOLDER}",
            f"Dir::State::status={FOLDER}/status",
            f"Dir::Cache={FOLDER}/cache",
            f"APT::Architecture={self.arch.debian}",
            f"APT::Architectures={self.arch.debian}",
            "APT::Sandbox::User=",
            "APT::Get::AllowUnauthenticated=false",
            "Acquire::AllowInsecureRepositories=false",
            "Acquire::ForceHash=SHA256",
            "Acquire::Languages=none",
            "Debug::NoLocking=true",
            *options,
        )
        lines: list[str] = []

        def on_line(line: str) -> None:
            lines.append(line)
            self.step.line(line)

        argv = (program, *arguments, *(word for setting in settings for word in ("-o", setting)))
        return self.container.run(argv, env={"LC_ALL": "C.UTF-8"}, on_line=on_line, timeout=SECONDS), lines


def _builds(line: str) -> bool:
    return line.startswith(("Build-Depends", "Build-Depends-Arch"))
