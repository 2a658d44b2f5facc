from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossjit.config.recipes import Git, Recipe
from crossjit.errors import ExitCode, InfrastructureError, UserError
from crossjit.model import Arch, Cell, EmulationSupport, Emulator, Strategy, Variant
from crossjit.pipeline import plan
from crossjit.pipeline.plan import Available, PlannedStep, Selector

X86, ARM = Arch.X86_64, Arch.AARCH64


def recipe(name: str, *variants: str, default: bool = False) -> Recipe:
    return Recipe(
        name=name,
        summary=name,
        source=Git("https://example.org/x", "main"),
        variants={variant: Variant(variant, variant, (), ("ft-smoke", "jit")) for variant in variants},
        default_variants=variants[:2],
        path=Path(f"{name}.toml"),
        default=default,
    )


RECIPES = {
    each.name: each
    for each in (
        recipe("3.14", "jit", "ft", "nojit"),
        recipe("3.15", "jit", "ft", "ft-jit", default=True),
        recipe("main", "ft", "jit"),
    )
}


def emulator(arch: Arch, *, fixed: bool = True, enabled: bool = True) -> Emulator:
    return Emulator(arch, f"qemu-{arch}", "/usr/bin/qemu", "7.2", fixed=fixed, enabled=enabled, cpu="max")


def host(*emulators: Emulator, arch: Arch = X86, local: bool = True) -> EmulationSupport:
    return EmulationSupport(arch, {each.arch: each for each in emulators}, local)


def chosen(recipes: tuple[str, ...] = (), arches: tuple[Arch, ...] = (), variants: tuple[str, ...] = ()) -> list[str]:
    selection = plan.select(RECIPES, Selector(recipes, arches, variants), X86)
    return [str(cell) for cell in selection.cells]


# Selecting


def test_nothing_asked_for_is_the_default_of_everything() -> None:
    assert chosen() == ["3.15/x86_64/jit", "3.15/x86_64/ft"]


def all_cells(recipes: Mapping[str, Recipe]) -> tuple[Cell, ...]:
    return plan.select(recipes, Selector(("all",), tuple(Arch), ("all",)), X86).cells


def test_the_order_is_the_recipes_and_not_the_askers() -> None:
    assert chosen(("main", "3.14"), (ARM, X86), ("jit", "ft")) == [
        "3.14/x86_64/jit",
        "3.14/x86_64/ft",
        "3.14/aarch64/jit",
        "3.14/aarch64/ft",
        "main/x86_64/ft",
        "main/x86_64/jit",
        "main/aarch64/ft",
        "main/aarch64/jit",
    ]


def test_all_is_all() -> None:
    assert chosen(("all",), (ARM,), ("all",)) == [str(cell) for cell in all_cells(RECIPES) if cell.arch is ARM]
    assert len(all_cells(RECIPES)) == 2 * (3 + 3 + 2)


def test_a_recipe_is_named_by_its_files_path_too() -> None:
    assert chosen(("./some/where/main.toml",), (), ("ft",)) == ["main/x86_64/ft"]


def test_a_variant_that_one_recipe_lacks_is_left_out_there_with_a_note() -> None:
    selection = plan.select(RECIPES, Selector(("all",), (), ("ft-jit", "ft")), X86)
    assert [str(cell) for cell in selection.cells] == [
        "3.14/x86_64/ft",
        "3.15/x86_64/ft",
        "3.15/x86_64/ft-jit",
        "main/x86_64/ft",
    ]
    assert selection.notes == (
        "3.14 does not offer ft-jit: skipped there",
        "main does not offer ft-jit: skipped there",
    )


def test_a_variant_of_one_arch_is_left_out_for_the_other_with_a_note() -> None:
    whole = RECIPES["3.14"]
    narrow = replace(whole, variants={**whole.variants, "ft": replace(whole.variants["ft"], arches=(X86,))})
    recipes = {"3.14": narrow}
    selection = plan.select(recipes, Selector(("3.14",), (X86, ARM), ("ft", "jit")), X86)
    assert [str(cell) for cell in selection.cells] == ["3.14/x86_64/jit", "3.14/x86_64/ft", "3.14/aarch64/jit"]
    assert selection.notes == ("3.14 does not offer ft for aarch64: skipped there",)
    assert len(all_cells(recipes)) == 2 * 3 - 1
    with pytest.raises(UserError, match=r"3\.14 offers none of these variants for aarch64"):
        plan.select(recipes, Selector(("3.14",), (ARM,), ("ft",)), X86)


def test_variants_that_no_chosen_recipe_has_are_errors() -> None:
    with pytest.raises(UserError, match="there is no variant 'jti'; did you mean 'jit'") as caught:
        chosen(("3.14", "main"), (), ("jti", "ft-jit", "jit"))
    assert caught.value.details == ("there is no variant 'ft-jit'; did you mean 'jit'?",)
    assert caught.value.hint == "3.14, main: choose from jit, ft, nojit"
    assert caught.value.exit_code is ExitCode.USER


def test_an_unknown_recipe_is_an_error() -> None:
    with pytest.raises(UserError, match=r"there is no recipe '3\.51'; did you mean '3\.15'\?") as caught:
        chosen(("3.51",))
    assert "3.14, 3.15, main" in caught.value.hint


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(st.sampled_from(sorted(RECIPES))),
    st.lists(st.sampled_from(list(Arch))),
    st.lists(st.sampled_from(["jit", "ft"])),
    st.randoms(use_true_random=False),
)
def test_the_same_request_in_any_order_gives_the_same_cells(
    recipes: list[str], arches: list[Arch], variants: list[str], random: Random
) -> None:
    cells = plan.select(RECIPES, Selector(tuple(recipes), tuple(arches), tuple(variants)), ARM).cells
    assert len(set(cells)) == len(cells) > 0
    assert {cell.arch for cell in cells} == set(arches or [ARM])
    assert {cell.recipe for cell in cells} == set(recipes or ["3.15"])
    assert {cell.variant for cell in cells} == set(variants or ["jit", "ft"])
    for asked in (recipes, arches, variants):
        random.shuffle(asked)
    assert plan.select(RECIPES, Selector(tuple(recipes), tuple(arches), tuple(variants)), ARM).cells == cells


# Reading


def test_archs_are_read_with_commas_and_all() -> None:
    assert plan.parse_arches(["aarch64, x86_64", "aarch64"]) == (ARM, X86)
    assert plan.parse_arches(["aarch64,all"]) == tuple(Arch)
    assert plan.parse_arches([]) == ()


@pytest.mark.parametrize(
    ("text", "meant"),
    [("aarch46", "aarch64"), ("arm64", "aarch64"), ("ARMv8", "aarch64"), ("amd64", "x86_64"), ("x86", "x86_64")],
)
def test_an_unknown_arch_gets_a_suggestion(text: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"there is no arch {text!r}; did you mean {meant!r}") as caught:
        plan.parse_arch(text)
    assert caught.value.hint == "choose from x86_64, aarch64"


def test_strategies_are_read() -> None:
    assert plan.parse_strategy("auto") is None
    assert [plan.parse_strategy(name) for name in ("native", "cross", "emulate")] == list(Strategy)[:3]
    with pytest.raises(UserError, match="there is no strategy 'installed'") as raised:
        plan.parse_strategy("installed")
    assert raised.value.hint == "choose from auto, native, cross, emulate"
    with pytest.raises(UserError, match="there is no strategy 'corss'; did you mean 'cross'"):
        plan.parse_strategy("corss")
    with pytest.raises(UserError, match=r"there is no strategy ''$"):
        plan.parse_strategy("")


def test_cells_are_read_as_they_are_written() -> None:
    for cell in all_cells(RECIPES):
        assert plan.parse_cell(str(cell)) == cell
    for text in ("3.15", "3.15/aarch64", "3.15//jit", "a/b/c/d", ""):
        with pytest.raises(UserError, match="invalid cell"):
            plan.parse_cell(text)
    with pytest.raises(UserError, match="there is no arch"):
        plan.parse_cell("3.15/arm/jit")


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (plan.parse_arch, plan.parse_strategy, plan.parse_cell):
        try:
            read(text)
        except UserError as error:
            assert error.hint


# Strategies


def test_auto_is_native_where_that_works_else_cross() -> None:
    for own in Arch:
        for arch in Arch:
            expected = Strategy.NATIVE if arch is own else Strategy.CROSS
            assert plan.choose_strategy(None, host(arch=own), arch) is expected


def test_a_strategy_that_makes_no_sense_is_the_users_error() -> None:
    with pytest.raises(UserError, match="aarch64 cannot be built natively: the engine's machine is x86_64"):
        plan.choose_strategy(Strategy.NATIVE, host(emulator(ARM)), ARM)
    for strategy in (Strategy.CROSS, Strategy.EMULATE):
        with pytest.raises(UserError, match="x86_64 cannot be") as caught:
            plan.choose_strategy(strategy, host(emulator(ARM)), X86)
        assert "native" in caught.value.hint
    assert plan.choose_strategy(Strategy.NATIVE, host(), X86) is Strategy.NATIVE
    assert plan.choose_strategy(Strategy.CROSS, host(), ARM) is Strategy.CROSS


@pytest.mark.parametrize(
    ("ability", "reason"),
    [
        (host(), "no emulator is registered for aarch64"),
        (host(emulator(ARM, enabled=False)), "registered but disabled"),
        (host(emulator(ARM, fixed=False)), "without the flag F"),
    ],
)
def test_emulating_needs_an_emulator(ability: EmulationSupport, reason: str) -> None:
    with pytest.raises(InfrastructureError, match=reason) as caught:
        plan.choose_strategy(Strategy.EMULATE, ability, ARM)
    assert "setup" in caught.value.hint
    assert reason in (plan.obstacle(ability, ARM) or "")


def test_emulating_is_tried_where_it_may_work() -> None:
    assert plan.choose_strategy(Strategy.EMULATE, host(emulator(ARM)), ARM) is Strategy.EMULATE
    assert plan.choose_strategy(Strategy.EMULATE, host(emulator(ARM), local=False), ARM) is Strategy.EMULATE
    assert plan.obstacle(host(), X86) is None


# Steps


def planned(
    strategy: Strategy, known: Available | None = None, *, validate: bool = True, able: bool = True
) -> list[PlannedStep]:
    arch = X86 if strategy is Strategy.NATIVE else ARM
    variant = RECIPES["3.15"].variants["jit"]
    ability = host(emulator(ARM)) if able else host()
    return list(plan.steps(Cell("3.15", arch, "jit"), variant, strategy, ability, known, validate=validate))


def test_a_native_cells_steps() -> None:
    steps = planned(Strategy.NATIVE)
    assert [step.name for step in steps] == [
        "source",
        "toolchain image",
        "target image",
        "configure",
        "make",
        "install",
        "probe",
        "stash",
        "suite ft-smoke",
        "suite jit",
    ]
    assert not any(step.emulated or step.satisfied or step.obstacle for step in steps)


def test_a_cross_cell_needs_a_build_python_and_emulates_only_what_it_built() -> None:
    steps = planned(Strategy.CROSS)
    names = [step.name for step in steps]
    assert names.index("toolchain image") < names.index("build Python") < names.index("configure")
    assert [step.name for step in steps if step.emulated] == ["probe", "suite ft-smoke", "suite jit"]
    assert all((step.arch is ARM) is step.emulated for step in steps)


def test_an_emulated_cell_compiles_under_emulation() -> None:
    emulated = [step.name for step in planned(Strategy.EMULATE) if step.emulated]
    assert emulated == ["toolchain image", "configure", "make", "install", "probe", "suite ft-smoke", "suite jit"]


def test_without_an_emulator_a_cross_cell_compiles_and_then_is_stuck() -> None:
    steps = planned(Strategy.CROSS, able=False)
    assert {step.name for step in steps if step.obstacle} == {"probe", "suite ft-smoke", "suite jit"}
    stashed = planned(Strategy.CROSS, Available(artifact=True), able=False, validate=False)
    assert not any(step.obstacle for step in stashed)


def test_what_is_there_is_not_made_again() -> None:
    left = [step.name for step in planned(Strategy.CROSS, Available(True, True, artifact=True)) if not step.satisfied]
    assert left == ["target image", "suite ft-smoke", "suite jit"]
    steps = planned(Strategy.CROSS, Available(True, True, artifact=True), validate=False)
    assert all(step.satisfied for step in steps)
    steps = planned(Strategy.CROSS, Available(build_python="3.15/x86_64/jit"), validate=False)
    assert {step.name: step.by for step in steps if step.by} == {"build Python": "3.15/x86_64/jit"}
    left = [step.name for step in steps if not step.satisfied]
    assert left == ["source", "toolchain image", "target image", "configure", "make", "install", "probe", "stash"]
