"""`stencils build|verify`: the stencils of a source alone, for those who ship them, and for those who check them."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

import crossjit
from crossjit import PROGRAM
from crossjit.errors import ExitCode, UserError
from crossjit.model import Arch
from crossjit.report import terminal_style
from crossjit.tasks.compilers import require_llvms
from crossjit.tasks.framework import show, show_json
from crossjit.tasks.options import MAKING, SELECTORS, VARIANTS, Request, cell_command, describe, in_full
from crossjit.tasks.session import RunSession, opened, program_path
from crossjit.util.paths import full_path

if TYPE_CHECKING:
    from crossjit.distribution.archive import Description, Shipped
    from crossjit.distribution.check import Check
    from crossjit.pipeline.context import CellRequest, PreparedBuild
    from crossjit.pipeline.stencils import Configuration, StencilFiles
    from crossjit.sources import Source

_LLVM = "the LLVM version that makes them, such as 22; default: "


@cell_command(
    *SELECTORS,
    name="build",
    short={"output": "o"},
    help=describe(
        "json",
        variant=f"{VARIANTS}, or all; can be repeated, or given as A,B; default: jit",
        llvm=f"{_LLVM}the source's own",
        output="the folder that gets an archive for each cell; required",
    ),
)
def build(context: Context, request: Request, llvm: str = "", output: str = "", json: bool = False) -> ExitCode:
    """Make the stencils of a source alone: `stencils build -o FOLDER`.

    Each archive has the files that CPython's Tools/jit/build.py writes, pyconfig.h, and a description with a digest of
    all inputs, LLVM's version among them. `stencils verify` makes them again.
    """
    from crossjit.pipeline import prepare
    from crossjit.report import answers
    from crossjit.report import stencils as as_report
    from crossjit.runs.model import to_json

    if not output:
        raise UserError("-o is missing: the folder to write to", hint=f"such as {PROGRAM} stencils build -o stencils")
    require_llvms((llvm,) if llvm else ())
    folder = full_path(output)
    with opened(request.with_jit(), looks=True) as session:
        session = _resolved(session)
        written = []
        for each in session.requests:
            source = prepare.resolve(session.ctx, each)
            chosen = llvm or str(source.llvm)
            prepared, configuration, made = _make(session, each, chosen, fresh=False)
            written.append(_write(folder, each, source, prepared, configuration, made))
        about = {"run": session.record.run.id, "reproduce": session.record.run.reproduce}
        document = {"archives": as_report.archives_json(written), **about}
        plain = as_report.archives_text(written)
        answers.write(session.record.folder, answers.STENCILS, {"json": to_json(document).decode(), "text": plain})
        session.record.finish(ExitCode.PASS)
    if json:
        show_json(document)
    else:
        show(plain)
    return ExitCode.PASS


@cell_command(
    *("recipe", "variant", *MAKING),
    name="verify",
    iterable=["path"],
    rest="path",
    help=describe(
        "json",
        path="a header such as jit_stencils-x86_64-unknown-linux-gnu.h, or an archive with one; can be given without "
        "--path; required",
        recipe="3.13, 3.14, 3.15, main, or the path of a recipe's file; default: that of the version, or 3.15",
        variant=f"one of {VARIANTS}; default: that of the archive, or jit, or jit-debug if the header says --debug",
        llvm=f"{_LLVM}the one that they say, or the source's own",
        pyconfig="the pyconfig.h that they were made with; default: that of the archive, or what configure writes here",
    ),
)
def verify(
    context: Context,
    request: Request,
    path: list[str] | None = None,
    llvm: str = "",
    pyconfig: str = "",
    json: bool = False,
) -> ExitCode:
    """Check whether shipped stencils are those of their source: `stencils verify HEADER|ARCHIVE`.

    Makes them again without caches, and compares byte by byte. Comments may differ. Ends with 1 if they are not those
    of the source, and with 4 if another version of LLVM is said to have made them, so that nothing is proved.
    """
    from crossjit.distribution import archive
    from crossjit.report import answers
    from crossjit.report import stencils as as_report
    from crossjit.runs.model import exit_code_of, to_json

    if not path or len(path) > 1:
        raise UserError("stencils verify takes one header or archive", hint=archive.HINT)
    require_llvms((llvm,) if llvm else ())
    shipped = archive.read(full_path(path[0]))
    if pyconfig:
        shipped = replace(shipped, pyconfig=_read(full_path(pyconfig)))
    reproduce = _reproduction((path[0], pyconfig))
    with opened(_completed(request, shipped), looks=True, reproduce=reproduce) as session:
        session = _resolved(session)
        (each,) = session.requests
        found = _check(session, each, shipped, llvm)
        about = {"run": session.record.run.id, "reproduce": session.record.run.reproduce}
        document = as_report.as_json(found, path=str(full_path(path[0])), **about)
        plain = as_report.as_text(found, terminal_style.TerminalStyle())
        code = exit_code_of([found.verdict])
        answers.write(session.record.folder, answers.STENCILS, {"json": to_json(document).decode(), "text": plain})
        session.record.finish(code)
    if json:
        show_json(document)
    else:
        show(as_report.as_text(found, terminal_style.style_of(sys.stdout)))
        show(f"\nrun:       {about['run']}\nreproduce: {about['reproduce']}")
    return code


def _reproduction(files: tuple[str, ...]) -> str:
    """Return this command line with absolute paths."""
    from crossjit import settings
    from crossjit.runs.command_line import reproduction

    full = {name: str(full_path(name)) for name in files if name}
    split = ((word, *word.partition("=")) for word in sys.argv[1:])
    words = [f"{option}={full[value]}" if value in full else full.get(word, word) for word, option, _, value in split]
    return reproduction(settings.load(), [program_path(), *in_full(words)])


def _read(path: Path) -> bytes:
    from crossjit.pipeline.stencils import LARGEST

    try:
        with path.open("rb") as file:
            return file.read(LARGEST)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {(error.strerror or '').lower()}", hint="give a pyconfig.h") from error


def _completed(request: Request, shipped: Shipped) -> Request:
    """Return the request with what the shipped stencils say: arch, recipe and variant. Raises UserError."""
    from crossjit.bisect.trial import recipe_for
    from crossjit.effect import base
    from crossjit.tasks.session import recipes_of

    if len(request.variants) > 1 or len(request.recipes) > 1 or "all" in (*request.variants, *request.recipes):
        raise UserError("stencils verify takes one variant and one recipe", hint="name one, or leave them out")
    if shipped.arch is None:
        names = " or ".join(f"jit_stencils-{arch}-unknown-linux-gnu.h" for arch in Arch)
        raise UserError("the header does not say which architecture it is for", hint=f"name it {names}")
    described, recipes = shipped.description, request.recipes
    version = base.version(request.source) if request.source else described.python if described else None
    if not recipes and version:
        recipes = (recipe_for(version, recipes_of(request)).name,)
    own = described.variant if described else "jit-debug" if shipped.debug else "jit"
    return replace(request, arches=(shipped.arch,), recipes=recipes or ("3.15",), variants=request.variants or (own,))


def _resolved(session: RunSession) -> RunSession:
    """Return the session with its sources, so that each is had once.

    Raises UserError for a variant or a source without stencils.
    """
    from crossjit.effect import cell
    from crossjit.pipeline import prepare

    ctx = session.ctx
    for request in session.requests:
        cell.require_stencils(request)
        source = prepare.resolve(ctx, request)
        if source.llvm is None:
            prepare.choose_image(ctx.images, request, source)  # raises: it has no JIT
        ctx = replace(ctx, pinned={**ctx.pinned, request.wanted: source})
    return session.with_context(ctx)


def _check(session: RunSession, request: CellRequest, shipped: Shipped, llvm: str) -> Check:
    from crossjit.distribution import check
    from crossjit.pipeline import prepare

    source = prepare.resolve(session.ctx, request)
    chosen = llvm or shipped.llvm or str(source.llvm)
    require_llvms((chosen,))
    prepared, configuration, made = _make(session, request, chosen, fresh=True, pyconfig=shipped.pyconfig)
    version = prepared.toolchain.llvm_version(chosen) or chosen
    return check.check(shipped, made, configuration, request.cell, source.version, version, source.digest)


def _make(
    session: RunSession, request: CellRequest, llvm: str, *, fresh: bool, pyconfig: bytes | None = None
) -> tuple[PreparedBuild, Configuration, StencilFiles]:
    """Make the stencils of a cell with an LLVM, and another pyconfig.h if there is one."""
    from crossjit.pipeline import prepare, stencils

    ctx, folder = session.ctx, session.record.cell_folder(request.cell)
    source = prepare.resolve(ctx, request)
    known = any(source.llvm in spec.available_llvm for spec in ctx.images)
    own = stencils.with_llvm(ctx, request, source, str(source.llvm) if known else llvm)
    prepared = stencils.with_llvm(ctx, request, source, llvm)
    configuration = stencils.configure(ctx, own, log=folder / "configure.log")
    used = configuration if pyconfig is None else replace(configuration, pyconfig=pyconfig)
    made = stencils.make(ctx, prepared, used, log=folder / "stencils.log", fresh=fresh)
    return prepared, configuration, made


def _write(
    folder: Path,
    request: CellRequest,
    source: Source,
    prepared: PreparedBuild,
    configuration: Configuration,
    made: StencilFiles,
) -> tuple[Path, Description]:
    from crossjit.distribution import archive
    from crossjit.pipeline import build_steps

    llvm = str(prepared.spec.llvm)
    description = archive.Description(
        variant=request.variant.name,
        version=source.version,
        arch=request.cell.arch,
        source=build_steps.source_facts(source),
        llvm=prepared.toolchain.llvm_version(llvm) or llvm,
        libc=prepared.toolchain.version("libc6") or "",
        image=prepared.image.name,
        configure=prepared.spec.configure_line,
        command=configuration.argv(llvm),
        pyconfig=hashlib.sha256(configuration.pyconfig).hexdigest(),
        crossjit=crossjit.__version__,
    )
    return archive.write(folder, description, made.files, configuration.pyconfig), description
