"""The stencils of a source alone: configure, and then CPython's Tools/jit/build.py, without building the rest.

Which LLVM makes them is up to Tools/jit/_llvm.py. Since 3.15, build.py has an option for another one, which configure
takes from LLVM_VERSION. Before that there is none, so the version in a copy of _llvm.py is changed.

All LLVMs of a cell get the same source, the same pyconfig.h and the same command, which configure writes in the image
of the source's own LLVM. Each image has its own libc, whose headers stencils include.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shlex
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from crossjit.build import execute, layout
from crossjit.build.container import cache_environment, populate, require_success
from crossjit.build.spec import Phase
from crossjit.engine.base import Container
from crossjit.errors import BuildError, InfrastructureError
from crossjit.model import Arch, Variant
from crossjit.pipeline import prepare
from crossjit.pipeline.build_python import ensure_build_python, put_build_python
from crossjit.pipeline.build_steps import build_container
from crossjit.pipeline.context import BuildContext, CellRequest, PreparedBuild
from crossjit.sources import Source
from crossjit.util.safe_files import whole_file
from crossjit.util.tar import packed
from crossjit.util.text import shortened

CONFIG = "pyconfig.h"
OPTION = "--llvm-version"
BUILD_SCRIPT = "Tools/jit/build.py"
_LLVM = f"{layout.SOURCE}/Tools/jit/_llvm.py"

LARGEST = 64 << 20  # bytes of a file; 3.15's largest has 6 MB
_NAMES = ("jit_stencils.h", "jit_stencils-{}.h", "jit_unwind_info.h", "jit_unwind_info-{}.h", "jit_shim-{}.o")
_COMMAND = re.compile(rf"^\t@?\$\(PYTHON_FOR_REGEN\) (\$\(srcdir\)/{re.escape(BUILD_SCRIPT)} .*)$", re.MULTILINE)
_FOLDERS = ("Include", "Python")  # of the source, with the generated files that stencils are made of
_VERSION = re.compile(rb"^(_LLVM_VERSION\b[^=\n]*=\s*[\"']?)[0-9]+", re.MULTILINE)
_HINT = "the whole log is in the run record; CPython may not support this LLVM"


@dataclass(frozen=True)
class Configuration:
    """What stencils depend on besides source and LLVM: pyconfig.h, and the command's words after Python.

    `regenerated` are tars of the source's folders that have regenerated files.
    """

    pyconfig: bytes
    command: tuple[str, ...]
    regenerated: tuple[bytes, ...] = ()

    @property
    def has_option(self) -> bool:
        """Whether build.py takes the LLVM version as an option."""
        return any(word.startswith(OPTION) for word in self.command)

    def argv(self, llvm: str) -> tuple[str, ...]:
        """Return the command for an LLVM."""
        return ("python3", *(f"{OPTION}={llvm}" if word.startswith(OPTION) else word for word in self.command))


@dataclass(frozen=True)
class StencilFiles:
    """Files that build.py wrote, by name, and the wall seconds that it took."""

    files: Mapping[str, bytes]
    seconds: float

    @property
    def digest(self) -> str:
        """The digest of the files' names and contents: 64 hex digits."""
        lines = (f"{name} {hashlib.sha256(self.files[name]).hexdigest()}\n" for name in sorted(self.files))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def with_llvm(ctx: BuildContext, request: CellRequest, source: Source, llvm: str) -> PreparedBuild:
    """Prepare a cell of a source for an LLVM version, with a variant of its own for another than the source's.

    Raises UserError if no image has that LLVM, EngineError if the image cannot be made.
    """
    if llvm != source.llvm:
        variant = _variant(request.variant, llvm)
        request = replace(request, variant=variant, cell=replace(request.cell, variant=variant.name))
        source = replace(source, llvm=llvm)
    ctx = replace(ctx, pinned={**ctx.pinned, request.wanted: source})
    (prepared,) = prepare.prepare(ctx, [request])
    assert isinstance(prepared, PreparedBuild)
    return prepared


def _variant(variant: Variant, llvm: str) -> Variant:
    return replace(variant, name=f"{variant.name}-llvm{llvm}", summary=f"{variant.summary}, stencils by LLVM {llvm}")


def configure(ctx: BuildContext, prepared: PreparedBuild, *, log: Path) -> Configuration:
    """Run configure, and regenerate files if the source needs that. Raises BuildError, EngineError."""
    spec, source = prepared.spec, prepared.source
    commands = [each for each in spec.commands if each.phase in (Phase.CONFIGURE, Phase.REGENERATE)]
    with (
        log.open("a", encoding="utf-8") as output,
        build_container(ctx, prepared, spec, f"configure-{prepared.cell}") as container,
    ):
        python = ensure_build_python(ctx, prepared, log)

        def unpack() -> None:
            populate(container, spec, source)
            if python is not None:
                put_build_python(container, python)

        execute.run_commands(
            container, unpack, commands, subject=str(prepared.cell), jobs=ctx.jobs, log=output, progress=ctx.progress
        )
        makefile = _read(container, f"{layout.BUILD}/Makefile").decode("utf-8", "replace")
        regenerated = tuple(_tar(container, f"{layout.SOURCE}/{name}") for name in _FOLDERS if source.regenerate)
        return Configuration(_read(container, f"{layout.BUILD}/{CONFIG}"), _command(makefile), regenerated)


def make(
    ctx: BuildContext, prepared: PreparedBuild, configuration: Configuration, *, log: Path, fresh: bool = False
) -> StencilFiles:
    """Make the stencils with the LLVM of a prepared cell; with `fresh` without anything that was cached before.

    Raises BuildError if build.py fails, EngineError.
    """
    spec = prepared.spec
    if fresh:
        # what is cached in the container itself only makes it fast: there is nothing at its start
        ctx = replace(ctx, cached=False)
        spec = replace(spec, environment={**spec.environment, **cache_environment(spec, cached=True)})
    with (
        log.open("a", encoding="utf-8") as output,
        build_container(ctx, prepared, spec, f"stencils-{prepared.cell}") as container,
    ):
        with ctx.progress.step("unpack", str(prepared.cell)):
            populate(container, spec, prepared.source)
            _put(container, configuration, str(spec.llvm))
        argv = configuration.argv(str(spec.llvm))
        lines: deque[str] = deque(maxlen=400)
        started = time.monotonic()
        with ctx.progress.step("stencils", str(prepared.cell)) as step:
            require_success(container, (*layout.CACHE_SCRIPT, "before-make"), cwd=layout.BUILD)
            shown = f"$ cd {layout.BUILD} && {shlex.join(argv)}"
            output.write(f"{shown}\n")

            def take(line: str) -> None:
                output.write(f"{line}\n")
                lines.append(line)
                step.line(line)

            completed = container.run(argv, cwd=layout.BUILD, on_line=take)
            output.write(f"# {completed.how} after {completed.seconds:.1f} s\n")
            if completed.returncode:
                raise BuildError(
                    f"LLVM {spec.llvm} does not make the stencils: {_reason(lines) or completed.how}",
                    hint=_HINT,
                    details=(shown, *execute.relevant_lines(lines)),
                )
            require_success(container, (*layout.CACHE_SCRIPT, "after-make"), cwd=layout.BUILD)
        seconds = time.monotonic() - started
        return StencilFiles(dict(_written(container, prepared.cell.arch)), round(seconds, 1))


def _reason(lines: Iterable[str]) -> str | None:
    """Return the first error of LLVM or of a Python program.

    >>> _reason(["  | ExceptionGroup: unhandled errors", "    | AssertionError: no frame pointer", "OSError: more"])
    'AssertionError: no frame pointer'
    """
    found = (re.search(r"\b(?:\w*Error|fatal error|error): \S.*", line) for line in lines)
    return next((shortened(match[0], 200) for match in found if match), None)


def _put(container: Container, configuration: Configuration, llvm: str) -> None:
    """Put the configuration into a build folder, and change _llvm.py if there is no option."""
    # build_cache.py finds the command in the Makefile: it is part of its key
    makefile = f"stencils:\n\t{shlex.join(configuration.argv(llvm))}\n"
    files = {CONFIG: configuration.pyconfig, "Makefile": makefile.encode()}
    container.put(packed(files, owner=layout.BUILDER), layout.BUILD)
    for tar in configuration.regenerated:
        container.put(io.BytesIO(tar), layout.SOURCE)
    if not configuration.has_option:
        changed = _VERSION.sub(rb"\g<1>" + llvm.encode(), _read(container, _LLVM))
        container.put(packed({_LLVM: changed}, owner=layout.BUILDER), "/")


def file_names(arch: Arch) -> tuple[str, ...]:
    """Return the names of the files that build.py may write: up to 3.14, with configure's own triple for the host."""
    triples = (f"{arch}-{vendor}-linux-gnu" for vendor in ("unknown", "pc"))
    return tuple(dict.fromkeys(name.format(triple) for triple in triples for name in _NAMES))


def _written(container: Container, arch: Arch) -> Mapping[str, bytes]:
    found = {}
    for name in file_names(arch):
        with contextlib.suppress(FileNotFoundError):
            found[name] = _read(container, f"{layout.BUILD}/{name}")
    if not any(name.startswith("jit_stencils") for name in found):
        raise InfrastructureError(f"{BUILD_SCRIPT} wrote no stencils", hint=_CHANGED)
    return found


def _read(container: Container, path: str) -> bytes:
    with container.get(path) as tar:
        return whole_file(tar, most=LARGEST, what=f"{path.rpartition('/')[2]} has")


def _tar(container: Container, path: str) -> bytes:
    """Return a folder of the source as a tar."""
    with container.get(path) as tar:
        content = tar.read(2 * LARGEST + 1)
    if len(content) > 2 * LARGEST:
        raise BuildError(f"{path.rpartition('/')[2]} of the source is larger than {2 * LARGEST:,} bytes", hint=_HINT)
    return content


_CHANGED = "CPython's build has changed: crossjit/pipeline/stencils.py must follow"


def _command(makefile: str) -> tuple[str, ...]:
    r"""Return the words after Python of the Makefile's command for stencils. Raises InfrastructureError.

    >>> _command("\t$(PYTHON_FOR_REGEN) $(srcdir)/Tools/jit/build.py x86_64-pc-linux-gnu --cflags=\"-O1 -g\"")
    ('/crossjit/src/Tools/jit/build.py', 'x86_64-pc-linux-gnu', '--cflags=-O1 -g')
    """
    found = _COMMAND.search(makefile)
    with contextlib.suppress(ValueError):  # an open quote
        words = shlex.split(found[1].replace("$(srcdir)", layout.SOURCE)) if found else []
        if len(words) > 1 and not words[1].startswith("-"):
            return tuple(words)
    raise InfrastructureError("the Makefile has no known command for stencils", hint=_CHANGED)
