"""`effect --llvm`: the stencils that several LLVMs make of one source, on both architectures."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crossjit.errors import ExitCode, UserError
from crossjit.report import terminal_style
from crossjit.tasks import report
from crossjit.tasks.framework import show, show_json
from crossjit.tasks.session import RunSession, opened

if TYPE_CHECKING:
    from crossjit.effect.compilers import Compilers
    from crossjit.tasks.options import Request


def require_llvms(llvms: tuple[str, ...]) -> None:
    """Raise UserError for what is not a major version, or what no image can have."""
    from crossjit import images, settings

    for llvm in llvms:
        if not re.fullmatch("[1-9][0-9]{0,2}", llvm):
            raise UserError(f"invalid --llvm {llvm!r}: expected LLVM's major versions", hint="such as --llvm 21,22")
    images.require_llvm(llvms, images.configured(settings.load()))


def compare(
    request: Request, llvms: tuple[str, ...], *, html: str = "", markdown: str = "", json: bool = False
) -> ExitCode:
    """Make the stencils of each of the request's cells with each LLVM, and report them."""
    from crossjit.effect import compilers
    from crossjit.report import answers
    from crossjit.report import compilers as as_report
    from crossjit.runs.model import exit_code_of

    files = report.places(json=json, html=html, markdown=markdown)
    require_llvms(llvms)
    with opened(request, looks=True) as session:
        result = _compilers(session, llvms)
        about = {"run": session.record.run.id, "reproduce": session.record.run.reproduce}
        document = as_report.document(result, **about)
        texts = _texts(result, document, about)
        code = exit_code_of(compilers.verdicts(result))
        answers.write(session.record.folder, answers.COMPILERS, texts)
        session.record.finish(code)
    if json:
        show_json(document)
    elif report.STDOUT not in files.values():
        show(as_report.as_text(result, terminal_style.style_of(sys.stdout)))
        show(f"\nrun:       {about['run']}\nreproduce: {about['reproduce']}")
    report.write_all(files, texts)
    return code


def _compilers(session: RunSession, llvms: tuple[str, ...]) -> Compilers:
    from crossjit.effect import cell, compilers
    from crossjit.effect.llvms import CellMaker
    from crossjit.effect.model import Side
    from crossjit.pipeline import prepare

    ctx, requests = session.ctx, session.requests
    for each in requests:
        cell.require_stencils(each)
    source = prepare.resolve(ctx, requests[0])
    if source.llvm is None:
        prepare.choose_image(ctx.images, requests[0], source)  # raises: it has no JIT
    own = str(source.llvm)
    home = own if any(own in spec.available_llvm for spec in ctx.images) else llvms[0]
    makers = [CellMaker(ctx, each, source, home, session.record.cell_folder) for each in requests]
    cells = tuple(maker.make(llvms) for maker in makers)
    what = "with uncommitted changes" if source.diff_digest else ""
    side = Side(requests[0].source or f"the recipe {requests[0].recipe.name}", source.commit, source.version, what)
    return compilers.Compilers(side, own, llvms, cells, tuple(compilers.unknown(own, cells)))


def _texts(result: Compilers, document: dict[str, Any], about: Mapping[str, str]) -> dict[str, str]:
    """Return the answer in each form, as `answers.write` takes them."""
    from crossjit.report import compilers as as_report
    from crossjit.report import compilers_markdown, compilers_page
    from crossjit.runs.model import to_json

    return {
        "json": to_json(document).decode(),
        "text": as_report.as_text(result, terminal_style.TerminalStyle()),
        "markdown": compilers_markdown.as_markdown(result, **about),
        "html": compilers_page.page(result, **about),
    }
