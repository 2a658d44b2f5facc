"""The dependency rule: which module may import which. It reads the sources, so that nothing has to be imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From left to right: a module imports from its own group and from groups before it. A package stands for all in it,
# unless a module of it is named itself. A new module has to be entered here, which is when its place is decided.
GROUPS: dict[str, tuple[str, ...]] = {
    "foundation": (
        "crossjit",
        "crossjit.model",
        "crossjit.errors",
        "crossjit.budget",
        "crossjit.paths",
        "crossjit.odds",
        "crossjit.reason",
        "crossjit.progress",
        "crossjit.tars",
        "crossjit.wording",
        "crossjit.settings",
        "crossjit.documents",
        "crossjit.bugs",
        "crossjit.durable",
        "crossjit.sequence",
        "crossjit.channels",
        "crossjit.junit_report",
        "crossjit.safe_files",
    ),
    "recipes": (
        "crossjit.recipe_tables",
        "crossjit.recipes",
        "crossjit.plan",
        "crossjit.portion",
        "crossjit.circumstances",
        "crossjit.known_failures",
        "crossjit.suites",
    ),
    "seam": ("crossjit.engine.base", "crossjit.engine.endpoint"),
    "machine": (
        "crossjit.sources",
        "crossjit.images",
        "crossjit.emulation",
        "crossjit.host",
        "crossjit.store",
        "crossjit.manifest",
        "crossjit.packing",
        "crossjit.inventory",
        "crossjit.trust",
        "crossjit.verified",
    ),
    "work": (
        "crossjit.answers",
        "crossjit.build",
        "crossjit.build_logic",
        "crossjit.build_python",
        "crossjit.caches",
        "crossjit.compilers",
        "crossjit.crashes",
        "crossjit.debugging",
        "crossjit.capabilities",
        "crossjit.diagnosis",
        "crossjit.durations",
        "crossjit.evidence",
        "crossjit.flow",
        "crossjit.forecast",
        "crossjit.ladder",
        "crossjit.named_tests",
        "crossjit.loading",
        "crossjit.outcomes",
        "crossjit.renewal",
        "crossjit.runner_events",
        "crossjit.sighting",
        "crossjit.suite_folder",
        "crossjit.suite_result",
        "crossjit.triage",
        "crossjit.trials",
        "crossjit.validation",
        "crossjit.verdict",
    ),
    "record": ("crossjit.runs", "crossjit.earlier", "crossjit.cleaning", "crossjit.report", "crossjit.upkeep"),
    "tasks": ("crossjit.tasks", "crossjit.__main__"),
}
ORDER = list(GROUPS)

# The engines stand apart: they know the seam, and only the tasks know them.
ENGINES = "crossjit.engine"
ENGINES_KNOW = ("foundation", "recipes", "seam")

# What a library is for, and where alone it is imported.
ONLY_IN = {
    "python_on_whales": ("crossjit.engine.whales",),
    "invoke": ("crossjit.tasks",),
    "rich": ("crossjit.report",),
    "jinja2": ("crossjit.report",),
}


def modules() -> dict[str, ast.Module]:
    """Return every module of the package, by its name, parsed."""
    found = {}
    for path in sorted((ROOT / "crossjit").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


MODULES = modules()


def group_of(module: str) -> str | None:
    """Return a module's group: the one that names it, or else the innermost package it is in."""
    name = module
    while name:
        for group, members in GROUPS.items():
            if name in members and (name == module or name != "crossjit"):
                return group
        if name == ENGINES:
            return "engines"
        name = name.rpartition(".")[0]
    return None


def imports(module: str, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield what a module imports, wherever it does, with the line; modules of ours by their own name."""
    package = module if module in PACKAGES else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if full in MODULES else base, node.lineno)


PACKAGES = {name for name in MODULES if any(other.startswith(f"{name}.") for other in MODULES)}


def may_import(module: str, other: str) -> bool:
    own, others = group_of(module), group_of(other)
    if own == others:
        return True
    if own == "engines":
        return others in ENGINES_KNOW
    if others == "engines":
        return own == "tasks"
    return own is not None and others is not None and ORDER.index(others) < ORDER.index(own)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_group(module: str) -> None:
    assert group_of(module), f"{module}: enter it in GROUPS, at its place"


def test_every_group_member_exists() -> None:
    assert [member for members in GROUPS.values() for member in members if member not in MODULES] == []


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    wrong = [
        f"{module}:{line} imports {other}: {group_of(module)} may not import from {group_of(other)}"
        for other, line in imports(module, MODULES[module])
        if other.partition(".")[0] == "crossjit" and not may_import(module, other)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "other", "allowed"),
    [
        ("crossjit.store", "crossjit.errors", True),
        ("crossjit.errors", "crossjit.store", False),
        ("crossjit.images.making", "crossjit.engine.base", True),
        ("crossjit.images.making", "crossjit.engine", False),
        ("crossjit.images.making", "crossjit.engine.whales", False),
        ("crossjit.engine.whales", "crossjit.store", False),
        ("crossjit.tasks.doctor", "crossjit.engine", True),
        ("crossjit.build", "crossjit.tasks.options", False),
        ("crossjit.build", "crossjit.sources.model", True),
    ],
)
def test_the_rule_itself(module: str, other: str, allowed: bool) -> None:
    assert may_import(module, other) is allowed


def test_a_module_nobody_entered_has_no_group() -> None:
    assert group_of("crossjit.novelty") is None


@pytest.mark.parametrize(("library", "places"), ONLY_IN.items())
def test_libraries_stay_where_they_belong(library: str, places: tuple[str, ...]) -> None:
    users = [
        f"{module}:{line}"
        for module, tree in MODULES.items()
        for other, line in imports(module, tree)
        if other.partition(".")[0] == library and not any(_within(module, place) for place in places)
    ]
    assert users == []


def _within(module: str, place: str) -> bool:
    return module == place or module.startswith((f"{place}.", f"{place}_"))


def calls(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the dotted names of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


@pytest.mark.parametrize("function", ["print", "sys.exit", "exit", "quit", "os._exit", "logging.getLogger"])
def test_only_tasks_print_and_exit(function: str) -> None:
    users = [
        f"{module}:{line}"
        for module, tree in MODULES.items()
        for name, line in calls(tree)
        if name == function and not _within(module, "crossjit.tasks")
    ]
    assert users == []


SCRIPTS = sorted((ROOT / "validate").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_what_runs_in_the_target_is_stdlib_only(script: Path) -> None:
    siblings = {path.stem for path in SCRIPTS}
    tree = ast.parse(script.read_text(encoding="utf-8"))
    roots = {name.partition(".")[0] for name, _ in imports("script", tree) if name}
    # `test` is CPython's own test package, which is in every install tree
    foreign = {root for root in roots if root not in sys.stdlib_module_names | siblings | {"test"}}
    assert foreign == set()
    assert "crossjit" not in roots


GDB_SCRIPTS = sorted((ROOT / "debug").glob("*.py"))


@pytest.mark.parametrize("script", GDB_SCRIPTS, ids=lambda path: path.name)
def test_what_runs_in_gdb_is_stdlib_and_gdb_only(script: Path) -> None:
    siblings = {path.stem for path in GDB_SCRIPTS}
    tree = ast.parse(script.read_text(encoding="utf-8"))
    roots = {name.partition(".")[0] for name, _ in imports("script", tree) if name}
    assert {root for root in roots if root not in sys.stdlib_module_names | siblings | {"gdb"}} == set()
    assert not siblings & sys.stdlib_module_names


def test_there_are_scripts_to_look_at() -> None:
    assert SCRIPTS
    assert GDB_SCRIPTS
