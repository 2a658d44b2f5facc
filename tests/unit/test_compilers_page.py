"""What the reports of several LLVMs say, how large they are, and that nothing in them can do harm."""

from __future__ import annotations

import json

import pytest

from crossjit.effect.compilers import Compilers, verdicts
from crossjit.errors import ExitCode
from crossjit.report import compilers as as_report
from crossjit.report import compilers_markdown, compilers_page
from crossjit.report.terminal_style import TerminalStyle
from crossjit.runs.model import exit_code_of
from crossjit.tasks.cells import schemas
from tests import example_compilers as example
from tests.unit.test_page import Parsed

ABOUT = {"run": "20261130-190000-beef", "reproduce": "./inv effect --llvm 21,22"}
EVERY = {"two": example.two(), "four": example.four(), "many": example.many(), "hostile": example.hostile()}


def text(found: Compilers) -> list[str]:
    return [" ".join(line.split()) for line in as_report.as_text(found, TerminalStyle()).splitlines()]


@pytest.mark.parametrize(
    ("name", "headline", "code"),
    [
        ("two", "LLVM 21 and 22 make the stencils of 3.15.0rc2, each the same bytes twice", ExitCode.PASS),
        (
            "four",
            "LLVM 21 and 22 make the stencils of 3.15.0rc2; LLVM 19 fails on x86_64 and aarch64; LLVM 23 could not be "
            "tried on x86_64 and aarch64; LLVM 22 makes other bytes the second time; the suites do not pass with "
            "LLVM 21",
            ExitCode.PRODUCT,
        ),
    ],
)
def test_the_answer_is_one_sentence(name: str, headline: str, code: ExitCode) -> None:
    assert as_report.headline(EVERY[name]) == headline
    assert text(EVERY[name])[0] == f"{headline}."
    assert f"<h1>{headline}</h1>" in compilers_page.page(EVERY[name], **ABOUT)
    assert exit_code_of(verdicts(EVERY[name])) is code


def test_the_table_has_each_llvm_on_each_arch() -> None:
    lines = text(EVERY["four"])
    place = lines.index("arch LLVM version image stencils instructions bytes data relocations result took")
    assert lines[place + 1 : place + 5] == [
        "x86_64 19 19.1.7 trixie - - - - - fails -",
        "x86_64 21 21.1.8 forky 5 29 116 0 5 the same bytes twice 24s",
        "x86_64 22 22.1.8 forky 5 29 116 0 5 other bytes the second time 24s",
        "x86_64 23 - - - - - - - not tried -",
    ]


def test_which_stencils_are_the_same_is_told_for_each_two() -> None:
    lines = text(EVERY["two"])
    assert "LLVM 21 - 2 of 7" in lines
    assert "LLVM 22 5 of 5 -" in lines
    place = lines.index("uops whose stencils differ the most on x86_64, LLVM 21 → 22:")
    assert lines[place + 2 : place + 7] == [
        "uop instructions bytes data",
        "_NEW 0 → 4 0 → 16 0",
        "_MERGE 9 → 6 36 → 24 0",
        "_OLD 3 → 0 12 → 0 0",
        "_ADD 12 → 14 48 → 56 0",
    ]
    assert not any("differ the most on aarch64" in line for line in lines)


def test_what_was_changed_to_take_an_llvm_is_told() -> None:
    told = "this source has no option for LLVM 22: the version in a copy of its Tools/jit/_llvm.py was changed"
    assert told in text(EVERY["four"])
    assert told in compilers_page.page(EVERY["four"], **ABOUT)
    assert not any("_llvm.py" in line for line in text(EVERY["two"]))


@pytest.mark.parametrize("name", EVERY)
def test_markdown_is_short_and_safe(name: str) -> None:
    lines = compilers_markdown.as_markdown(EVERY[name], **ABOUT).splitlines()
    assert len(lines) < 60
    assert not any("<script" in line or "\x1b" in line for line in lines)


@pytest.mark.parametrize("name", EVERY)
def test_the_page_is_whole_small_and_safe(name: str) -> None:
    page = compilers_page.page(EVERY[name], **ABOUT)
    assert len(page.encode()) < 1_000_000
    parsed = Parsed(page)
    assert parsed.wrong == []
    assert "script" not in {tag for tag, _ in parsed.elements}
    assert "\x1b" not in page


def test_the_schema_is_one_of_the_documents() -> None:
    schema = json.loads(schemas()["compilers.json"])
    document = as_report.document(EVERY["four"], **ABOUT)
    assert set(schema["required"]) <= set(document)
    assert json.loads(json.dumps(document))["headline"].startswith("LLVM 21 and 22")
