"""Which generated files a checkout's changes make stale."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import pytest

from crossjit.config import documents
from crossjit.sources.regenerate import RULES, Rules, left_to_do, stale

TARGETS = (
    "regen-cases", "regen-slots", "regen-token", "regen-ast", "regen-pegen-metaparser", "regen-pegen", "regen-keyword",
    "regen-sre", "regen-frozen", "regen-global-objects",
)  # fmt: skip
CLINIC = "/*[clinic input]\n{}\n[clinic start generated code]*/\n{}\n/*[clinic end generated code: output=1]*/\n"


def made(
    changed: Iterable[str],
    now: Mapping[str, str] | None = None,
    before: Mapping[str, str] | None = None,
    *,
    targets: Iterable[str] = TARGETS,
) -> tuple[str, ...]:
    """Ask about a tree whose Makefile has these targets, and in which these files are."""
    makefile = "srcdir := .\n" + "".join(f".PHONY: {target}\n{target}: x\n\techo\n" for target in targets)
    trees = ({"Makefile.pre.in": makefile, **(now or {})}, before or {})
    first, second = (lambda name, tree=tree: tree.get(name, "").encode() for tree in trees)
    return stale(changed, first, second)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("Python/bytecodes.c", ["regen-cases"]),
        ("Python/optimizer_bytecodes.c", ["regen-cases"]),
        ("Modules/_testinternalcapi/testbytecodes.c", ["regen-cases"]),
        ("Tools/cases_generator/tier2_generator.py", ["regen-cases"]),
        ("Python/slots.toml", ["regen-slots"]),
        ("Grammar/Tokens", ["regen-token", "regen-pegen", "regen-keyword"]),
        ("Grammar/python.gram", ["regen-pegen", "regen-keyword"]),
        ("Tools/peg_generator/pegen/metagrammar.gram", ["regen-pegen-metaparser", "regen-pegen", "regen-keyword"]),
        ("Parser/Python.asdl", ["regen-ast"]),
        ("Lib/re/_constants.py", ["regen-sre"]),
        ("Tools/build/freeze_modules.py", ["regen-frozen FREEZE_MODULE="]),
        ("Tools/clinic/libclinic/parser.py", ["regen-global-objects"]),
        ("Python/executor_cases.c.h", []),
        ("Lib/os.py", []),
        ("Lib/test/Python/bytecodes.c", []),
    ],
)
def test_inputs_and_what_is_made_of_them(changed: str, expected: list[str]) -> None:
    assert list(made([changed, "README.rst"])) == expected


def test_each_target_once_and_in_order_whatever_was_changed() -> None:
    changed = {"Tools/peg_generator/pegen/build.py", "Grammar/Tokens", "Python/bytecodes.c", "Grammar/python.gram"}
    assert made(changed) == ("regen-cases", "regen-token", "regen-pegen-metaparser", "regen-pegen", "regen-keyword")


def test_a_target_that_the_version_lacks_is_left_out() -> None:
    changed = ["Include/typeslots.h", "Python/slots.toml"]
    assert made(changed) == ("regen-slots",)
    assert made(changed, targets=["regen-typeslots"]) == ("regen-typeslots",)
    assert made(["Python/bytecodes.c"], targets=[]) == ()


class TestGlobalObjects:
    """Nearly all C files have clinic's input or global strings in them; what counts is whether those were changed."""

    NAME = "Objects/x.c"

    def made(self, before: str, now: str) -> tuple[str, ...]:
        return made([self.NAME], {self.NAME: now}, {self.NAME: before})

    def test_code_is_no_input(self) -> None:
        both = CLINIC.format("f\n  x: int", "generated") + "a = &_Py_ID(name);\n"
        assert self.made(both, f"int n;\n{both}int m;\n") == ()
        assert self.made(both, both.replace("\ngenerated\n", "\nby hand\n")) == ()

    def test_clinics_input_is(self) -> None:
        before = CLINIC.format("f\n  x: int", "generated")
        assert self.made(before, before.replace("x: int", "x: bool")) == ("regen-global-objects",)
        assert self.made("", before) == ("regen-global-objects",), "a new file"

    def test_global_strings_are(self) -> None:
        before = "a = &_Py_ID(name);\n"
        assert self.made(before, before + "b = &_Py_ID(other);\n") == ("regen-global-objects",)
        assert self.made(before, before + '_Py_DECLARE_STR(x, "y");\n') == ("regen-global-objects",)
        assert self.made(before, "") == ("regen-global-objects",)


def test_what_no_build_can_make_is_told_unless_it_was_made() -> None:
    (said,) = left_to_do(["configure.ac", "Lib/os.py"])
    assert (
        said
        == "configure.ac has changed, but files generated from it have not: run `make regen-configure` there if needed"
    )
    assert list(left_to_do(["configure.ac", "configure"])) == []
    assert list(left_to_do(["Lib/os.py", "Python/bytecodes.c"])) == []


def test_no_rule_needs_the_finished_python() -> None:
    """Such targets would build all of CPython first: what they make is only told."""
    rules = documents.load(RULES, Rules)
    needing = {"regen-re", "regen-test-frozenmain", "regen-stdlib-module-names", "regen-limited-abi", "regen-abidump"}
    assert not needing & {rule.target for rule in rules.rules}
    for rule in rules.rules:
        assert all(re.compile(expression) for expression in rule.passages)
