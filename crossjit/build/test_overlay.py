"""A cell made of one in the stash whose source has other tests and is the same otherwise: nothing of it is compiled.

What a build does with Lib/test is to install it and to byte-compile it. So all else is the other artifact's, byte for
byte; the tests are installed by the rule of its Makefile (`toolchain/install_tests.py`), and byte-compiled by the
command that compiles a whole library. In a cross build the build Python runs that, as ever. In a native one it is the
Python just built, where it was built and beside its source; what it makes of a file depends on what it has imported,
and on whether that was compiled before (see `build`). So that very place is made anew, of what was installed from it.

Whatever is not as it is known to be makes an artifact `UnfitError` for this, and the cell is built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from crossjit import sources
from crossjit.build import execute, layout
from crossjit.build.execute import BuildResult
from crossjit.build.layout import BUILD, BUILD_PYTHON, BUILDER, CACHE, ROOT, SOURCE, TOOLS
from crossjit.build.spec import BuildSpec, Command, Phase
from crossjit.engine.base import Container
from crossjit.errors import BuildError, ScriptError, SourceError, StashError, TreeError
from crossjit.model import Strategy
from crossjit.progress import Progress
from crossjit.sources import Source
from crossjit.stash import packing
from crossjit.stash.artifact import GENERATED, INSTALL, SUPPORT, Artifact
from crossjit.stash.packing import Packed
from crossjit.stash.store import Rest, Staging
from crossjit.util.tar import packed

MAKEFILE = f"{BUILD}/installed.mk"  # not called as one of its targets is, lest make makes it anew
PYTHON = f"{BUILD}/python"
EXTENSIONS = "build/lib"  # in BUILD; the Python there finds the name in a file
SCRIPTS = ("install_tests.py", "compile_library.py")

_MAKEFILE = re.compile(r"(usr/local/lib/python[^/]+)/config-[^/]+/Makefile")
_LIBPYTHON = re.compile(r"usr/local/lib/(libpython[^/]*\.so\.[0-9][^/]*)")
# Else tests are run while it is built, for profiles to compile by: --enable-optimizations, --enable-bolt.
_PLAIN = re.compile(rb"^all:\s*build_all$", re.MULTILINE)


class UnfitError(Exception):
    """The cell cannot be made of that artifact, so it is to be built; the text is for a remark."""


@dataclass(frozen=True)
class Base:
    """An artifact that a cell is made of: where its tests are in the install tree, and what a container needs of it.

    `files` are contents by their place in the container.
    """

    artifact: Artifact
    tests: str
    files: Mapping[str, bytes]


def open_base(artifact: Artifact, spec: BuildSpec, source: Source) -> Base:
    """Read what is needed of an artifact that has the spec's core key. Raises UnfitError, also where it is damaged."""
    with _surprises():
        if not artifact.is_intact():
            raise UnfitError("it is damaged")
        paths = artifact.files()[INSTALL]
        found = [match for path in paths if (match := _MAKEFILE.fullmatch(path))]
        if len(found) != 1 or not {SUPPORT, GENERATED} <= set(artifact.objects):
            raise UnfitError("its layout is not that of a CPython build")
        library = found[0][1]
        places = {found[0][0]: MAKEFILE}
        if spec.strategy is not Strategy.CROSS:
            places[layout.python_of(source)] = PYTHON
            dynload = f"{library}/lib-dynload/"
            places |= {path: f"{BUILD}/{match[1]}" for path in paths if (match := _LIBPYTHON.fullmatch(path))}
            places |= {
                path: f"{BUILD}/{EXTENSIONS}/{path.removeprefix(dynload)}" for path in paths if path.startswith(dynload)
            }
        files = {places[path]: content for path, content in packing.read(artifact.objects[INSTALL], places).items()}
        if not _PLAIN.search(files[MAKEFILE]):
            raise UnfitError("its tests ran while it was built")
    return Base(artifact, f"{library}/test", files)


def fill(container: Container, source: Source, base: Base) -> None:
    """Put everything into its place in a fresh container: all but a cross build's own Python.

    The source stays root's, so that Python leaves no .pyc files there to be read.
    """
    folders = {SOURCE: 0, **dict.fromkeys((ROOT, BUILD, layout.INSTALL, BUILD_PYTHON, TOOLS, CACHE), BUILDER)}
    files = {f"{TOOLS}/{name}": (layout.SCRIPTS / name).read_bytes() for name in SCRIPTS}
    if PYTHON in base.files:
        files[f"{BUILD}/pybuilddir.txt"] = EXTENSIONS.encode()
    container.put(packed({**files, **base.files}, folders, owner=BUILDER, mode=0o755), "/")
    # what a native build's own Python imports is in the source's library
    with sources.subset_tar(source, ("Lib",) if PYTHON in base.files else ("Lib/test",)) as tar:
        container.put(tar, SOURCE)


def make(
    container: Container,
    spec: BuildSpec,
    *,
    unpack: Callable[[], None],
    base: Base,
    subject: str,
    jobs: int,
    log: TextIO,
    progress: Progress,
) -> BuildResult:
    """Leave the source's tests in INSTALL as building it would, in a toolchain container that `unpack` fills.

    Raises UnfitError; engine failures come through as they are.
    """
    script = f"{TOOLS}/install_tests.py"
    where = ("--makefile", MAKEFILE, "--source", SOURCE, "--root", layout.INSTALL, "--folder", base.tests)
    commands = [Command(Phase.TESTS, ("python3", script, *where))]
    commands += [command for command in spec.commands if command.phase is Phase.COMPILE]
    with _surprises():
        seconds = execute.run_commands(
            container, unpack, commands, subject=subject, jobs=jobs, log=log, progress=progress
        )
    return BuildResult(seconds, base.artifact.manifest.compiler or "")


def pack(container: Container, staging: Staging, *, base: Base) -> Packed:
    """Put the cell's trees into the staging: what `make` left, and the base's; return the first. Raises UnfitError."""
    with _surprises():
        with container.get(layout.INSTALL) as tar:
            packed = staging.add(INSTALL, tar, rest=Rest(base.artifact.objects[INSTALL], base.tests))
        for name in (SUPPORT, GENERATED):
            staging.take(name, base.artifact)
    return packed


@contextmanager
def _surprises() -> Iterator[None]:
    """Turn what only shows that the artifact or the source is other than it should be into `UnfitError`."""
    try:
        yield
    except (BuildError, ScriptError) as error:
        raise UnfitError(": ".join((error.message, *error.details[-1:]))) from error
    except (SourceError, StashError, TreeError) as error:
        raise UnfitError(error.message) from error
    except FileNotFoundError as error:
        raise UnfitError(f"{error.filename} is gone") from error
