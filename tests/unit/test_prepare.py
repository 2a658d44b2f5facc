"""Choosing the image of a cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossjit import images
from crossjit.config import recipes, suites
from crossjit.errors import UserError
from crossjit.model import Arch, Cell, Strategy
from crossjit.pipeline.context import CellRequest
from crossjit.pipeline.prepare import choose_image
from crossjit.sources import Kind, Source

ROOT = Path(__file__).resolve().parents[2]
IMAGES = images.load_all(ROOT / "images")
RECIPE = recipes.gather([], ROOT / "recipes", suites=suites.names())["3.15"]


def request(variant: str) -> CellRequest:
    return CellRequest(Cell("3.15", Arch.X86_64, variant), RECIPE, RECIPE.variants[variant], Strategy.NATIVE)


def source(llvm: str | None) -> Source:
    return Source(Kind.GIT, "3.16.0a0+", (3, 16), "d" * 64, Path("tree"), "cpython", "x", llvm=llvm)


@pytest.mark.parametrize("variant", ["jit", "interp"])
def test_a_source_that_lost_the_jit_is_told_so(variant: str) -> None:
    with pytest.raises(UserError, match=r"3\.16\.0a0\+ has no JIT: its configure has no --enable-exp") as caught:
        choose_image(IMAGES, request(variant), source(None))
    assert "choose a variant without the JIT" in caught.value.hint


@pytest.mark.parametrize("variant", ["nojit", "ft"])
def test_a_source_without_the_jit_can_be_built_without_it(variant: str) -> None:
    assert choose_image(IMAGES, request(variant), source(None)) in IMAGES


def test_an_unknown_llvm_matters_only_where_clang_is_needed() -> None:
    assert choose_image(IMAGES, request("interp"), source("99")) in IMAGES
    with pytest.raises(UserError, match="99"):
        choose_image(IMAGES, request("jit"), source("99"))
