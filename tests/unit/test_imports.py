"""The dependency rule: which module may import which. It reads the sources, so that nothing has to be imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From the bottom up: a module imports from its own room and from those before it. A new room is entered here.
ROOMS = (
    "errors",
    "progress",
    "util",
    "model",
    "config",
    "settings",
    "channels",
    "engine.base",
    "engine.endpoint",
    "stash",
    "host",
    "sources",
    "remote",
    "upstream",
    "images",
    "pythons",
    "runs",
    "known_failures",
    "build",
    "validation",
    "pipeline",
    "triage",
    "measure",
    "bisect",
    "effect",
    "distribution",
    "reduction",
    "capsule",
    "debugger",
    "report",
    "engine",
    "tasks",
    "__main__",
)
# The engines stand apart: they know what is below the seam and the seam, and only the tasks know them.
BELOW_THE_ENGINES = (*ROOMS[: ROOMS.index("engine.base")], "engine.base", "engine.endpoint", "engine")

# What a library is for, and where alone it is imported.
ONLY_IN = {
    "python_on_whales": ("crossjit.engine.cli_client", "crossjit.engine.cli_engine"),
    "invoke": ("crossjit.tasks",),
    "psutil": ("crossjit.engine",),
    "rich": ("crossjit.report",),
    "jinja2": ("crossjit.report",),
    "cryptography": ("crossjit.remote",),
    "lark": ("crossjit.upstream.expressions",),
    "ruamel.yaml": ("crossjit.upstream.workflows",),
    "tree_sitter": ("crossjit.upstream.shell",),
    "tree_sitter_bash": ("crossjit.upstream.shell",),
}


def modules() -> dict[str, ast.Module]:
    """Return every module of the package, by its name, parsed."""
    found = {}
    for path in sorted((ROOT / "crossjit").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


MODULES = modules()


def room_of(module: str) -> str | None:
    """Return a module's room: the module itself where it is one, or else the folder that it is in."""
    name = module.removeprefix("crossjit.")
    return name if name in ROOMS else (name.partition(".")[0] if name.partition(".")[0] in ROOMS else None)


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
    if other == "crossjit":
        return True
    own, others = room_of(module), room_of(other)
    if own is None or others is None:
        return False
    if own == "engine":
        return others in BELOW_THE_ENGINES
    return ROOMS.index(others) <= ROOMS.index(own)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"crossjit"}))
def test_every_module_has_a_room(module: str) -> None:
    assert room_of(module), f"{module}: enter its room in ROOMS, at its place"


def test_every_room_exists() -> None:
    assert [room for room in ROOMS if f"crossjit.{room}" not in MODULES] == []


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    wrong = [
        f"{module}:{line} imports {other}: {room_of(module)} may not import from {room_of(other)}"
        for other, line in imports(module, MODULES[module])
        if other.partition(".")[0] == "crossjit" and not may_import(module, other)
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {other for other, _ in imports(module, tree) if other in MODULES} - {module}
        for module, tree in MODULES.items()
    }
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize(
    ("module", "other", "allowed"),
    [
        ("crossjit.stash.store", "crossjit.errors", True),
        ("crossjit.errors", "crossjit.stash.store", False),
        ("crossjit.images.builder", "crossjit.engine.base", True),
        ("crossjit.images.builder", "crossjit.engine", False),
        ("crossjit.images.builder", "crossjit.engine.cli_engine", False),
        ("crossjit.engine.cli_engine", "crossjit.stash.store", False),
        ("crossjit.tasks.doctor", "crossjit.engine", True),
        ("crossjit.build.spec", "crossjit.tasks.options", False),
        ("crossjit.build.spec", "crossjit.sources.model", True),
    ],
)
def test_the_rule_itself(module: str, other: str, allowed: bool) -> None:
    assert may_import(module, other) is allowed


def test_a_room_nobody_entered_is_none() -> None:
    assert room_of("crossjit.novelty") is None
    assert room_of("crossjit.novelty.item") is None


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


CODE = sorted(
    path.relative_to(ROOT)
    for folder in ("crossjit", "toolchain", "validate", "gdb", "meter", "reducer", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
MODULE_LINES, FUNCTION_LINES = 400, 50


@pytest.mark.parametrize("path", CODE, ids=str)
def test_modules_and_functions_are_short(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    functions = (
        node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    long = [
        f"{path}:{node.lineno} {node.name}: {lines}" for node in functions if (lines := _lines(node)) > FUNCTION_LINES
    ]
    if len(text.splitlines()) > MODULE_LINES:
        long.append(f"{path}: {len(text.splitlines())}")
    assert long == []


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


GDB_SCRIPTS = sorted((ROOT / "gdb").glob("*.py"))


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
