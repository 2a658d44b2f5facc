"""What the reports of a change say, how large they are, and that nothing in them can do harm."""

from __future__ import annotations

import html as html_module
import json
import re
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from crossjit.effect import uops
from crossjit.effect.model import Effect, verdicts
from crossjit.errors import ExitCode
from crossjit.model import Verdict
from crossjit.report import effect as as_report
from crossjit.report import effect_listing, effect_markdown, effect_page
from crossjit.report.terminal_style import TerminalStyle
from crossjit.runs.model import exit_code_of
from crossjit.tasks.cells import schemas
from tests import example_effects as example
from tests.example_effects import ARM, X86
from tests.unit.test_page import Parsed

ABOUT = {"run": "20261130-190000-beef", "reproduce": "./inv effect --source ~/cpython"}
EFFECTS = {
    "few": example.few(),
    "none": example.none(),
    "many": example.many(),
    "broken": example.broken(),
    "broken base": example.broken_base(),
    "many, and broken": replace(example.many(), cells=(example.many().cells[0], example.broken().cells[1])),
    "hostile": example.hostile(),
}


def text(effect: Effect) -> list[str]:
    return [" ".join(line.split()) for line in as_report.as_text(effect, TerminalStyle()).splitlines()]


@pytest.mark.parametrize(
    ("name", "headline"),
    [
        (
            "few",
            "Machine code changed: 4 uops (1 new, 1 gone, as many instructions) on x86_64 and no uop on aarch64; small "
            "programs on x86_64: -6.89 % instructions of JIT code, -11.11 % guards, -11.11 % reference-count "
            "operations; small programs on aarch64: -6.89 % instructions of JIT code, -11.11 % guards, -11.11 % "
            "reference-count operations",
        ),
        ("none", "No machine code changed on either arch"),
        (
            "broken",
            "The change does not build on aarch64; machine code changed: 4 uops (1 new, 1 gone, as many instructions) "
            "on x86_64",
        ),
        ("broken base", "The base does not build on x86_64 and aarch64"),
    ],
)
def test_the_answer_is_one_sentence(name: str, headline: str) -> None:
    assert as_report.headline(EFFECTS[name]) == headline
    assert text(EFFECTS[name])[0] == f"{headline}."
    assert f"<h1>{headline}</h1>" in effect_page.page(EFFECTS[name], **ABOUT)


def test_builds_that_are_the_same_are_called_so() -> None:
    cells = [replace(each, after=each.before) for each in EFFECTS["none"].cells]
    assert (
        as_report.headline(example.effect(*cells)) == "No machine code changed on either arch: no build input differs"
    )
    cells[0] = EFFECTS["none"].cells[0]
    assert as_report.headline(example.effect(*cells)) == "No machine code changed on either arch"


def test_uops_that_are_all_new_are_called_so() -> None:
    before = example.named(_A_r00=3)
    found = [uops.compare(before, before | example.named(_NEW_r00=2, _OTHER_r00=1)), uops.compare(before, {})]
    effect = example.effect(*(example.cell(arch, each) for arch, each in zip((X86, ARM), found, strict=True)))
    parts = ["2 new uops (3 instructions more) on x86_64", "1 gone uop (3 instructions fewer) on aarch64"]
    assert as_report.headline(effect) == f"Machine code changed: {' and '.join(parts)}"


def test_relocations_alone_are_told_from_instructions() -> None:
    before, after = ({"_A_r00": example.stencil("_A_r00", 4, symbol=symbol)} for symbol in ("PyList_New", "PyDict_New"))
    effect = example.effect(*(example.cell(arch, uops.compare(before, after)) for arch in (X86, ARM)))
    assert as_report.headline(effect) == "No instruction changed on either arch, only relocations"
    assert "_A relocations 4 16 1 4 16 1" in text(effect)
    shown = "\n".join(effect_listing.as_text(effect, ["_A"]))
    assert "- 0: add x0, x0, #0x1  [PyList_New]" not in shown
    assert re.search(r"~ 0: add x0, x0, #0x1  \[PyList_New\] +0: add x0, x0, #0x1  \[PyDict_New\]", shown)


def test_other_data_alone_is_listed_as_a_relocation() -> None:
    before, after = ({"_A_r00": example.stencil("_A_r00", 4, data=data)} for data in (b"1", b"2"))
    effect = example.effect(example.cell(X86, uops.compare(before, after)))
    shown = list(effect_listing.as_text(effect, ["all"]))
    assert shown == ["3.15/x86_64/jit: _A_r00, before and after\n  its instructions are the same"]


def test_both_archs_are_in_one_table_worst_first() -> None:
    lines = text(EFFECTS["few"])
    start = lines.index(
        "uop what instructions, x86_64 bytes, x86_64 relocations, x86_64 instructions, aarch64 bytes, aarch64 "
        "relocations, aarch64"
    )
    assert lines[start + 1 : start + 5] == [
        "_NEW new 0 → 4 0 → 16 0 → 1 = = =",
        "_ADD changed 12 → 14 48 → 56 2 = = =",
        "_MERGE changed 9 → 6 36 → 24 1 = = =",
        "_OLD gone 3 → 0 12 → 0 1 → 0 = = =",
    ]
    assert "3.15/x86_64/jit python3.15 6,000,000 → 6,000,512 1,100,000 467,000" in lines


def test_what_it_cannot_tell_is_said() -> None:
    lines = text(EFFECTS["none"])
    assert any("whether tests newly fail" in line for line in lines)
    own = example.cell(X86, example.comparison())
    assert own.after
    assert own.stencils
    other = replace(own, after=replace(own.after, llvm="22.1.0"))
    assert any(
        "which differences are the compiler's: LLVM 21.1.8 before" in line for line in text(example.effect(other))
    )
    unread = replace(own.stencils, after=replace(own.stencils.after, instructions=None))
    lines = text(example.effect(replace(own, stencils=unread)))
    assert any("how many instructions there are" in line for line in lines)
    assert "? " in "\n".join(lines)


@pytest.mark.parametrize(
    ("effect", "code"),
    [
        (EFFECTS["few"], ExitCode.PASS),
        (EFFECTS["none"], ExitCode.PASS),
        (EFFECTS["broken"], ExitCode.PRODUCT),
        (EFFECTS["broken base"], ExitCode.VACUOUS),
        (example.effect(example.cell(X86, example.comparison(), example.failure(verdict=Verdict.INFRA))), ExitCode(3)),
    ],
)
def test_the_exit_code(effect: Effect, code: ExitCode) -> None:
    assert exit_code_of(verdicts(effect)) is code


@pytest.mark.parametrize("name", EFFECTS)
def test_reports_are_small(name: str) -> None:
    page = effect_page.page(EFFECTS[name], **ABOUT)
    assert len(page.encode("utf-8", "replace")) < 1_000_000
    parsed = Parsed(page)
    assert parsed.wrong == []
    assert {name for name, _ in parsed.elements} & {"script", "img", "iframe"} == set()
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(attributes["href"])[1:] for attributes in parsed.all("a")} <= set(ids)
    markdown = effect_markdown.as_markdown(EFFECTS[name], **ABOUT)
    assert len(markdown.splitlines()) < 60
    assert len(markdown) < 65_536


def test_the_page_has_the_worst_uops_in_full_and_counts_the_rest() -> None:
    page = effect_page.page(EFFECTS["many"], **ABOUT)
    assert page.count('<th scope="row">_MICRO_OPERATION') >= 300
    anchors = re.findall(r'<details id="(u\d+)"', page)
    assert 50 < len(anchors) < 600
    linked = re.findall(r'href="#(u\d+)"', page)
    assert set(linked) == set(anchors)
    shown = html_module.unescape(page)
    assert "more without a listing here" in shown
    crowd = effect_page.page(example.many(500), **ABOUT)
    assert len(crowd) < 1_000_000
    assert "And 100 uops more; " in crowd


def test_the_markdown_has_the_worst_uops() -> None:
    lines = effect_markdown.as_markdown(EFFECTS["many"], **ABOUT).splitlines()
    rows = [line for line in lines if line.startswith("| <code>")]
    assert len(rows) == effect_markdown.WORST
    assert f"And {350 - effect_markdown.WORST} uops more." in lines
    broken = effect_markdown.as_markdown(EFFECTS["broken"], **ABOUT)
    assert "**3.15/aarch64/jit: the change: make failed with status 2**" in broken
    assert broken.count("Python/ceval.c:1: error: no") == effect_markdown.DETAILS


def test_hostile_text_stays_text() -> None:
    page = effect_page.page(EFFECTS["hostile"], **ABOUT)
    assert "<script>document" not in page
    assert "<img src=x" not in page
    for document in (page, effect_markdown.as_markdown(EFFECTS["hostile"], **ABOUT)):
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", document)
        assert not re.search(r"^\s*::", document, re.MULTILINE)
        assert "##[" not in document


def test_the_schema_is_one_of_the_documents() -> None:
    schema = json.loads(schemas()["effect.json"])
    document = as_report.document(EFFECTS["few"], **ABOUT)
    assert set(schema["required"]) <= set(document)
    assert TypeAdapter(as_report.Document).validate_python(document).effect == EFFECTS["few"]
