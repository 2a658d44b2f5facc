"""A cell derived from an artifact whose source differs only in its tests: nothing is compiled.

A build only installs Lib/test and byte-compiles it. So all other files are the base artifact's, byte for byte. The
tests are installed by the rule of its Makefile (`toolchain/install_tests.py`), and byte-compiled by the command that
compiles a whole library. The build Python runs this command in a cross build. In a native build, the newly built Python
runs it in the build folder; its .pyc files depend on the modules that it has imported, and on whether these were
compiled before (see `spec.identify_python`). So the build folder is recreated from the installed files.

An artifact that differs from these expectations raises `UnfitError`, and the cell is built.
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

MAKEFILE = f"{BUILD}/installed.mk"  # `Makefile` is one of its targets, which make would remake
EXTENSIONS = "build/lib"  # in BUILD; named in pybuilddir.txt
SCRIPTS = ("install_tests.py", "compile_library.py")

_MAKEFILE = re.compile(r"(usr/local/lib/python[^/]+)/config-[^/]+/Makefile")
_LIBPYTHON = re.compile(r"usr/local/lib/(libpython[^/]*\.so\.[0-9][^/]*)")
# Otherwise the build runs tests to profile itself: --enable-optimizations, --enable-bolt.
_UNPROFILED = re.compile(rb"^all:\s*build_all$", re.MULTILINE)


class UnfitError(Exception):
    """The cell cannot be derived from this artifact and has to be built; the text is for a remark."""


@dataclass(frozen=True)
class Base:
    """An artifact that a cell is derived from.

    `is_native` says that its own Python compiles the tests, `tests` is the path of its tests in the install tree.
    `files` are the contents of its files that a container needs, by their path there.
    """

    artifact: Artifact
    tests: str
    files: Mapping[str, bytes]
    is_native: bool


def open_base(artifact: Artifact, spec: BuildSpec, source: Source) -> Base:
    """Read the needed files of an artifact that has the spec's base key. Raises UnfitError, also if it is damaged."""
    with _unfit_errors():
        if not artifact.is_intact():
            raise UnfitError("it is damaged")
        paths = artifact.files()[INSTALL]
        makefiles = [match for path in paths if (match := _MAKEFILE.fullmatch(path))]
        if len(makefiles) != 1 or not {SUPPORT, GENERATED} <= set(artifact.objects):
            raise UnfitError("its layout is not that of a CPython build")
        library = makefiles[0][1]
        places = {makefiles[0][0]: MAKEFILE}
        if spec.strategy is not Strategy.CROSS:
            places[layout.python_of(source)] = f"{BUILD}/{spec.platform.program}"
            dynload = f"{library}/lib-dynload/"
            places |= {path: f"{BUILD}/{match[1]}" for path in paths if (match := _LIBPYTHON.fullmatch(path))}
            places |= {
                path: f"{BUILD}/{EXTENSIONS}/{path.removeprefix(dynload)}" for path in paths if path.startswith(dynload)
            }
        files = {places[path]: content for path, content in packing.read(artifact.objects[INSTALL], places).items()}
        if not _UNPROFILED.search(files[MAKEFILE]):
            raise UnfitError("its tests ran while it was built")
    return Base(artifact, f"{library}/test", files, is_native=spec.strategy is not Strategy.CROSS)


def fill(container: Container, source: Source, base: Base) -> None:
    """Populate a fresh container, except for a cross build's own Python.

    The source belongs to root, so that Python cannot write .pyc files there.
    """
    folders = {SOURCE: 0, **dict.fromkeys((ROOT, BUILD, layout.INSTALL, BUILD_PYTHON, TOOLS, CACHE), BUILDER)}
    files = {f"{TOOLS}/{name}": (layout.SCRIPTS / name).read_bytes() for name in SCRIPTS}
    if base.is_native:
        files[f"{BUILD}/pybuilddir.txt"] = EXTENSIONS.encode()
    container.put(packed({**files, **base.files}, folders, owner=BUILDER, mode=0o755), "/")
    # a native build's own Python imports from the source's library
    with sources.subset_tar(source, ("Lib",) if base.is_native else ("Lib/test",)) as tar:
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
    """Install the source's tests into INSTALL as a build would, in a toolchain container that `unpack` populates.

    Raises UnfitError; engine errors pass unchanged.
    """
    script = f"{TOOLS}/install_tests.py"
    arguments = ("--makefile", MAKEFILE, "--source", SOURCE, "--root", layout.INSTALL, "--folder", base.tests)
    commands = [Command(Phase.TESTS, ("python3", script, *arguments))]
    commands += [command for command in spec.commands if command.phase is Phase.COMPILE]
    with _unfit_errors():
        seconds = execute.run_commands(
            container, unpack, commands, subject=subject, jobs=jobs, log=log, progress=progress
        )
    return BuildResult(seconds, base.artifact.manifest.compiler or "")


def pack(container: Container, staging: Staging, *, base: Base) -> Packed:
    """Put the cell's trees into the staging, from the container and the base; return the install tree.

    Raises UnfitError.
    """
    with _unfit_errors():
        with container.get(layout.INSTALL) as tar:
            packed = staging.add(INSTALL, tar, rest=Rest(base.artifact.objects[INSTALL], base.tests))
        for name in (SUPPORT, GENERATED):
            staging.take(name, base.artifact)
    return packed


@contextmanager
def _unfit_errors() -> Iterator[None]:
    """Turn errors caused by an unexpected artifact or source into `UnfitError`."""
    try:
        yield
    except (BuildError, ScriptError) as error:
        raise UnfitError(": ".join((error.message, *error.details[-1:]))) from error
    except (SourceError, StashError, TreeError) as error:
        raise UnfitError(error.message) from error
    except FileNotFoundError as error:
        raise UnfitError(f"{error.filename} is gone") from error
