"""What a change does as one self-contained HTML page: uops on each architecture, and their instructions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from crossjit.effect.listing import Row, Sign, pairs
from crossjit.effect.model import Build, CellEffect, Effect
from crossjit.effect.uops import Uop, Variant, rank
from crossjit.report import effect as text
from crossjit.report import effect_work, html, output
from crossjit.report.effect_listing import instruction
from crossjit.report.effect_work import ChangedTrace
from crossjit.report.facts import Fact
from crossjit.report.size_budget import LINE, SizeBudget
from crossjit.util.text import shortened

UOPS = 400  # lines of the table, at most; there are some three hundred uops
LISTINGS, TRACES = 450_000, 120_000  # bytes of instructions, and of traces
ROWS, LONGEST = 60, 200  # of the tables of what is executed, and uops of a trace
MARKUP, DETAIL = 90, 1000  # bytes around an instruction, and around those of a uop

Listing = tuple[str, tuple[Row, ...]]
"""A variant's name, and its instructions side by side."""

TraceRows = tuple[tuple[str, str, str], ...]
"""A sign, and a uop before and after."""

VARIANT_HEADERS = ("variant", "what", "instructions", "bytes", "relocations", "data")


@dataclass(frozen=True)
class Detail:
    """A uop that changed in a cell: its variants' figures, and those that are shown side by side."""

    anchor: str
    cell: CellEffect
    uop: Uop
    variants: tuple[tuple[str, ...], ...]
    listings: tuple[Listing, ...]
    more: int


def page(effect: Effect, *, run: str, reproduce: str) -> str:
    """Return the page. Its size is limited: the worst uops are shown in full."""
    found = text.lines(effect)
    details = tuple(_details(effect))
    traces = effect_work.traces(effect)
    shown = tuple(_shown_traces(traces))
    rendered = html.template("effect.html.j2").render(
        run=run,
        reproduce=reproduce,
        headline=text.headline(effect),
        effect=effect,
        text=text,
        lines=found[:UOPS],
        more=len(found) - len(found[:UOPS]),
        anchors={(each.cell.cell.arch, each.uop.name): each.anchor for each in details},
        details=details,
        work=effect_work.tables(effect, ROWS),
        traces=shown,
        more_traces=len(traces) - len(shown),
        tests=list(text.suite_lines(effect))[:UOPS],
        variant_headers=VARIANT_HEADERS,
        instruction=instruction,
        direction=direction,
        facts=facts,
    )
    return output.markup(rendered) + "\n"


def direction(uop: Uop | None) -> str:
    """Return the CSS class of a uop that needs more or fewer instructions."""
    more = uop.instructions if uop else None
    return "" if not more else "more" if more > 0 else "fewer"


def trace_rows(trace: ChangedTrace) -> TraceRows:
    """Return the uops of a trace side by side: a sign, before and after."""
    before, after = ((side or ())[:LONGEST] for side in (trace.movement.before, trace.movement.after))
    return tuple(
        (sign, *pair)
        for tag, start, end, first, last in SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        for sign, pair in _paired(tag, before[start:end], after[first:last])
    )


def _shown_traces(traces: Sequence[ChangedTrace]) -> Iterator[tuple[str, TraceRows]]:
    """Yield the title and the rows of traces for as long as there is room."""
    room = SizeBudget(TRACES)
    for trace in traces:
        title = f"{effect_work.trace_title(trace)}: {shortened(effect_work.trace_change(trace), LINE)}"
        rows = trace_rows(trace)
        if not room.holds(title, *(name for _, *names in rows for name in names), markup=DETAIL + MARKUP * len(rows)):
            return
        yield title, rows


def _paired(tag: str, before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    for old, new in itertools.zip_longest(before, after, fillvalue=""):
        yield (" " if tag == "equal" else "~" if old and new else "-" if old else "+"), (old, new)


def facts(build: Build) -> tuple[Fact, ...]:
    """Return how a side was built."""
    values = {
        "artifact": build.artifact[:12],
        "compiler": build.compiler,
        "LLVM": build.llvm,
        "build": text.build_time(build),
    }
    return tuple(Fact(name, shortened(value, LINE)) for name, value in values.items() if value)


def _details(effect: Effect) -> Iterator[Detail]:
    """Yield the uops of all cells, worst first, for as long as there is room.

    Each is shown with the variant that changed the most; the others follow if there is room for them.
    """
    found = [(each, uop) for each in text.compared_cells(effect) for uop in each.uops]
    found.sort(key=lambda pair: (rank(pair[1]), pair[1].name))
    room = SizeBudget(LISTINGS)
    listings: list[list[Listing]] = []
    for _, uop in found:
        figures = [value for variant in uop.variants for value in _figures(variant)]
        every = _listings(uop)
        if not all([room.holds(*figures, markup=DETAIL), *(_holds(room, listing) for listing in every[:1])]):
            break
        listings.append(every)
    for number, ((each, uop), every) in enumerate(zip(found, listings, strict=False)):
        shown = [*every[:1], *itertools.takewhile(lambda listing: _holds(room, listing), every[1:])]
        variants = tuple(_figures(variant) for variant in uop.variants)
        yield Detail(f"u{number}", each, uop, variants, tuple(shown), len(every) - len(shown))


def _listings(uop: Uop) -> list[Listing]:
    """Return a uop's variants side by side, the one that changed the most first."""
    found = [(pair.name, pair.rows) for pair in pairs(uop)]
    return sorted(found, key=lambda listing: -sum(row.sign is not Sign.SAME for row in listing[1]))


def _holds(room: SizeBudget, listing: Listing) -> bool:
    return room.holds(*_texts(listing[1]), markup=MARKUP * len(listing[1]))


def _texts(rows: tuple[Row, ...]) -> Iterator[str]:
    for row in rows:
        yield instruction(row.before)
        yield instruction(row.after)


def _figures(variant: Variant) -> tuple[str, ...]:
    before, after = (code.size if code else None for code in (variant.before, variant.after))
    names = ("instructions", "bytes", "relocations", "data")
    values = [tuple(getattr(size, name) if size else 0 for size in (before, after)) for name in names]
    return (variant.name, text.WORDS[variant.kind], *(effect_work.movement(*each) for each in values))
