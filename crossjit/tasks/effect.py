"""`effect`: what a change to CPython does to the JIT's machine code and to the build, on both architectures."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from invoke.context import Context

from crossjit.errors import CrossjitError, ExitCode, InfrastructureError, ProductError, UserError
from crossjit.model import Arch
from crossjit.report import terminal_style
from crossjit.tasks import compilers, report
from crossjit.tasks.framework import show, show_json
from crossjit.tasks.options import (
    MAKING,
    REPEATABLE,
    SUITES,
    VARIANTS,
    Request,
    base_in_full,
    cell_command,
    describe,
    words,
)
from crossjit.tasks.session import RunSession, opened, recipes_of

if TYPE_CHECKING:
    from crossjit.effect.base import Base
    from crossjit.effect.cell import Outcome
    from crossjit.effect.model import CellEffect, Effect, Side
    from crossjit.measure.benchmarks import Benchmark
    from crossjit.pipeline.context import PreparedCell

FIRST_JIT = (3, 13)


@cell_command(
    *("arch", "recipe", "variant", "suite", *MAKING),
    iterable=["disassembly", "llvm", "only"],
    help=describe(
        *("json", "html"),
        arch=f"{', '.join(Arch)} or all; {REPEATABLE}; default: all",
        recipe="3.13, 3.14, 3.15, main, or the path of a recipe's file; default: that of the source's version, "
        "or 3.15 if the source is not a repository on this machine",
        variant=f"one of {VARIANTS}; default: jit",
        source="the change: a local repository with #REF (branch, tag or commit), a checkout with its uncommitted "
        "changes, a git URL with #REF, a pull request's address on GitHub, or an archive; required, but with --llvm",
        base="what the change is compared with: a ref of the source's repository, or another source; default: where "
        "the change left main or a branch such as 3.15",
        suite="also run these suites on the change, and what fails on its base, or with the stencils of each LLVM: "
        f"{', '.join(SUITES)}; {REPEATABLE}; default: none",
        only=f"also run these benchmarks; {REPEATABLE}; default: none",
        fast="also run a dozen light benchmarks; default: off",
        full="also run all benchmarks; default: off",
        disassembly="also show the instructions of these uops side by side, such as _BINARY_OP_ADD_INT, or of all "
        f"that changed; {REPEATABLE}; default: none",
        llvm="compare the stencils that these LLVM versions make of the source, such as 21,22, instead of a change; "
        f"{REPEATABLE}; default: compare a change",
        markdown="also write a summary for a pull request to this file, - for stdout; default: none",
    ),
)
def effect(
    context: Context,
    request: Request,
    base: str = "",
    only: list[str] | None = None,
    fast: bool = False,
    full: bool = False,
    disassembly: list[str] | None = None,
    llvm: list[str] | None = None,
    html: str = "",
    markdown: str = "",
    json: bool = False,
) -> ExitCode:
    """Show what a change does: `effect --source ~/cpython`.

    Builds the change and its base on both architectures. Compares the machine code of each uop, the sizes of the
    builds, and what small programs and benchmarks execute: their traces, uops and instructions. No effect is a result,
    too. Ends with 1 if the change does not build or a test newly fails, and with 4 if the base does not build.
    """
    if llvms := words(llvm):
        _require_no_change(base=base, disassembly=disassembly, only=only, fast=fast, full=full)
        return compilers.compare(_completed(request), llvms, html=html, markdown=markdown, json=json)
    from crossjit.effect import base as bases
    from crossjit.effect.model import verdicts
    from crossjit.measure import benchmarks
    from crossjit.report import answers
    from crossjit.report import effect as as_report
    from crossjit.runs.model import exit_code_of

    files = report.places(json=json, html=html, markdown=markdown)
    if not request.source:
        raise UserError("effect needs --source", hint="name the change, such as --source ~/cpython#my-branch")
    chosen = benchmarks.select(benchmarks.load(), words(only), fast=fast, full=full) if only or fast or full else ()
    found = bases.find(request.source, base_in_full(base))
    request = _completed(request)
    with opened(request, looks=True) as session:
        result = _effect(session, found, chosen)
        about = {"run": session.record.run.id, "reproduce": session.record.run.reproduce}
        document = as_report.document(result, **about)
        texts = _texts(result, document, about)
        code = exit_code_of(verdicts(result))
        answers.write(session.record.folder, answers.EFFECT, texts)
        session.record.finish(code)
    if json:
        show_json(document)
    elif report.STDOUT not in files.values():
        _show(result, words(disassembly), about)
    for kind, place in files.items():
        report.write(place, texts[kind].encode("utf-8", "replace"))
    return code


def _show(result: Effect, disassembly: Sequence[str], about: Mapping[str, str]) -> None:
    """Print the answer, and the instructions of the named uops side by side."""
    from crossjit.report import effect as as_report
    from crossjit.report import effect_listing

    style = terminal_style.style_of(sys.stdout)
    show("\n\n".join([as_report.as_text(result, style), *effect_listing.as_text(result, disassembly)]))
    show(f"\nrun:       {about['run']}\nreproduce: {about['reproduce']}")


def _require_no_change(**given: object) -> None:
    """Raise UserError if something was given that is about a change, with --llvm."""
    for name, value in given.items():
        if value:
            raise UserError(
                f"--llvm cannot be combined with --{name}: it compares no change", hint="leave one of them out"
            )


def _completed(request: Request) -> Request:
    """Return the request with both archs, the variant, and the recipe of the source's version. Raises UserError."""
    from crossjit.bisect.trial import recipe_for
    from crossjit.effect import base as bases

    if len(request.variants) > 1 or len(request.recipes) > 1 or "all" in (*request.variants, *request.recipes):
        raise UserError("effect takes one variant and one recipe", hint="name one, or leave them out")
    recipes = request.recipes
    if not recipes and request.source and (version := bases.version(request.source)):
        if version < FIRST_JIT:
            raise UserError(
                f"{request.source} has no JIT: it is CPython {version[0]}.{version[1]}", hint="there is one since 3.13"
            )
        recipes = (recipe_for(version, recipes_of(request)).name,)
    return replace(
        request,
        arches=request.arches or tuple(Arch),
        recipes=recipes or ("3.15",),
    ).with_jit()


def _effect(session: RunSession, found: Base | None, chosen: Sequence[Benchmark]) -> Effect:
    """Build both sides, cell by cell, and compare them and what they execute."""
    from crossjit.effect import base as bases
    from crossjit.effect import cell
    from crossjit.effect.model import Effect
    from crossjit.measure import benchmarks
    from crossjit.pipeline import prepare

    for each in session.requests:
        cell.require_stencils(each)
    ctx = session.ctx
    count = len(session.requests)
    found = found or bases.fetched(session.requests[0].source or "", ctx.settings, ctx.progress)
    requests = [*(replace(each, source=found.source) for each in session.requests), *session.requests]
    prepared = prepare.prepare(ctx, requests)
    before, after = prepared[:count], prepared[count:]
    base, change = _side(before[0], found.what), _side(after[0])
    _require_different(before[0], after[0])
    contents = benchmarks.contents(chosen, ctx.settings.home, ctx.progress)
    cells = tuple(_compare(session, *pair, chosen, contents) for pair in zip(before, after, strict=True))
    return Effect(base, change, cells, tuple(cell.unknown(cells)))


def _side(prepared: PreparedCell, what: str = "") -> Side:
    from crossjit.effect.model import Side

    source = prepared.source
    commit = source.commit if source else None
    if source and source.diff_digest:
        what = "with uncommitted changes"
    return Side(prepared.request.source or "", commit, prepared.version, what)


def _require_different(before: PreparedCell, after: PreparedCell) -> None:
    """Raise UserError if a change and its base are the same."""
    old, new = before.source, after.source
    if old and new and (old.digest, old.commit, old.diff_digest) == (new.digest, new.commit, new.diff_digest):
        raise UserError(
            f"{after.request.source} and its base are the same source: there is no change to compare",
            hint="change or commit something, or name an earlier base, such as --base HEAD^",
        )


def _compare(
    session: RunSession,
    before: PreparedCell,
    after: PreparedCell,
    chosen: Sequence[Benchmark],
    contents: Mapping[str, bytes],
) -> CellEffect:
    """Build both sides of a cell, compare them, what programs and benchmarks execute in them, and their tests."""
    from crossjit.effect import cell, regressions

    base, change = _build(session, before, "build-base.log"), _build(session, after, "build.log")
    found = cell.compare(after.cell, base, change)
    if isinstance(base, CrossjitError) or isinstance(change, CrossjitError) or not found.stencils:
        return found
    sides = (before, base), (after, change)
    found = cell.executed(session.ctx, found, *sides, chosen, contents)
    if not after.request.selection.suites:
        return found
    return replace(found, tests=regressions.find(session.ctx, *sides, session.record.cell_folder(after.cell)))


def _build(session: RunSession, prepared: PreparedCell, log: str) -> Outcome:
    """Build a side of a cell; what fails is its outcome, so that the other cells go on."""
    from crossjit.pipeline import build_cell

    try:
        return build_cell.build_cell(session.ctx, prepared, log=session.record.cell_folder(prepared.cell) / log)
    except (ProductError, InfrastructureError) as error:
        return error


def _texts(result: Effect, document: dict[str, Any], about: Mapping[str, str]) -> dict[str, str]:
    """Return the answer in each form, as `answers.write` takes them."""
    from crossjit.report import effect as as_report
    from crossjit.report import effect_markdown, effect_page
    from crossjit.runs.model import to_json

    return {
        "json": to_json(document).decode(),
        "text": as_report.as_text(result, terminal_style.TerminalStyle()),
        "markdown": effect_markdown.as_markdown(result, **about),
        "html": effect_page.page(result, **about),
    }
