"""The tests that a CPython has, read from the sources of its test package; nothing of it is imported or run.

What is built while a module is imported (classes by `type` or by a function, methods by `setattr`, `load_tests`) cannot
be told from its source. Such a module or class is *open*: it may have any test, and only what it is called is known. So
what an inventory does not have, CPython does not have either; the other way round it may be wrong.
"""

from __future__ import annotations

import ast
import bisect
import builtins
import fnmatch
import re
import tarfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from crossjit.known_failures.entries import literal_head, may_begin
from crossjit.stash.artifact import Artifact

_TESTS = re.compile(r"usr/local/lib/python3\.\d+t?/(test/.*)\.py")

# What builds classes, methods and names that no source shows.
_BUILDERS = frozenset({"exec", "globals", "locals", "new_class", "setattr", "vars"})
_FIXTURES = ("setUpClass", "tearDownClass")
_MODULE_FIXTURES = ("setUpModule", "tearDownModule")


@dataclass(frozen=True)
class Inventory:
    """The tests of one CPython, as far as they were looked for.

    `names` are full names (`test.test_os.test_posix.PosixTester.test_x`), with those of modules and of `setUpClass` and
    its like, which fail under such names; `open` are beginnings of names of which nothing more is known.
    """

    names: frozenset[str]
    open: frozenset[str] = frozenset()

    def may_have(self, pattern: str) -> bool:
        """Tell whether there is, or may be, a test whose name matches."""
        return any(may_begin(pattern, beginning) for beginning in self.open) or bool(self.matching(pattern))

    def matching(self, pattern: str) -> tuple[str, ...]:
        """Return the names that match, sorted."""
        return matching(self._sorted, pattern)

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.names)


def matching(names: Sequence[str], pattern: str) -> tuple[str, ...]:
    """Return of sorted names those that match a pattern."""
    head = literal_head(pattern)
    start = bisect.bisect_left(names, head)
    end = bisect.bisect_left(names, head + "\U0010ffff", start)
    return tuple(name for name in names[start:end] if fnmatch.fnmatchcase(name, pattern))


def family(name: str) -> str:
    """Return the module or package right below `test` that a name or pattern is about: `test.test_os`."""
    return ".".join(literal_head(name).split(".")[:2])


def of_artifact(artifact: Artifact, patterns: Iterable[str]) -> Inventory:
    """Look in the sources that are in an artifact for tests that match. Raises StashError where it is damaged."""
    sources: dict[str, bytes] = {}
    with artifact.open() as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            found = _TESTS.fullmatch(member.name)
            if found and member.isreg() and (content := tar.extractfile(member)):
                sources[found[1].replace("/", ".").removesuffix(".__init__")] = content.read()
    return of_sources(sources, patterns)


def of_sources(sources: Mapping[str, bytes], patterns: Iterable[str]) -> Inventory:
    """Look for tests that match, in sources by their modules' names; no more of them is read than has to be.

    Of a package that a pattern is about everything is read, for what has moved within it.
    """
    patterns = tuple(patterns)
    packages = {family(pattern) for pattern in patterns}
    package = _Package(sources)
    names: set[str] = set()
    opened: set[str] = set()
    for name in sources:
        asked = any(pattern == name or may_begin(pattern, f"{name}.") for pattern in patterns)
        if asked or family(name) in packages:
            module = package.module(name)
            if module is None or package.is_open(module):
                opened.add(f"{name}.")
            names.update((name, *(f"{name}.{fixture}" for fixture in _MODULE_FIXTURES)))
            for each in module.classes.values() if module else ():
                methods = package.tests(each)
                if methods is None:
                    opened.add(f"{name}.{each.name}.")
                else:
                    names.update(f"{name}.{each.name}.{method}" for method in methods)
    return Inventory(frozenset(names), frozenset(opened))


@dataclass
class _Class:
    """A class: `name` is qualified; `odd` means that its methods cannot be told from its source."""

    module: _Module
    name: str
    bases: list[ast.expr]
    decorators: list[ast.expr]
    methods: set[str] = field(default_factory=set)
    odd: bool = False


@dataclass(frozen=True, eq=False)
class _Function:
    """A function at a module's top."""

    module: _Module
    node: ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class _Module:
    """What the source of a module shows. `calls` and `builds` are those of code that runs while it is imported."""

    name: str
    classes: dict[str, _Class] = field(default_factory=dict)
    functions: dict[str, _Function] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    aliases: dict[str, ast.expr] = field(default_factory=dict)
    calls: list[ast.expr] = field(default_factory=list)
    builds: bool = False


@dataclass(frozen=True)
class _Outside:
    """Something that is not of the test package, by its dotted name."""

    name: str


_Found = _Class | _Function | _Module | _Outside | None


class _Package:
    """A test package's modules, parsed when they are asked for."""

    def __init__(self, sources: Mapping[str, bytes]) -> None:
        self._sources = sources
        self._modules: dict[str, _Module | None] = {}
        self._suspicious: dict[_Function, bool] = {}

    def module(self, name: str) -> _Module | None:
        """Return a module; None for one that is not there or is no Python that this Python can read."""
        if name not in self._modules:
            self._modules[name] = None
            try:
                with warnings.catch_warnings(action="ignore"):
                    tree = ast.parse(self._sources[name])
            except (KeyError, SyntaxError, ValueError):
                return None
            package = name if self._is_package(name) else name.rpartition(".")[0]
            self._modules[name] = _read(name, package, tree)
        return self._modules[name]

    def _is_package(self, name: str) -> bool:
        return any(other.startswith(f"{name}.") for other in self._sources)

    def is_open(self, module: _Module) -> bool:
        """Tell whether a module may have classes or names of tests that its source does not show."""
        if module.builds or any(self._is_suspicious(self.resolve(module, called)) for called in module.calls):
            return True
        load_tests = module.functions.get("load_tests")
        if load_tests is not None and "load_package_tests" not in ast.dump(load_tests.node):
            return True
        # a class is told by the module that makes it, though another's import may have asked for it
        is_helper = not module.name.rpartition(".")[2].startswith("test")
        return is_helper and any(map(self._is_suspicious, module.functions.values()))

    def _is_suspicious(self, called: _Found) -> bool:
        """Tell whether what is called is a function of the test package that builds classes or methods."""
        if not isinstance(called, _Function):
            return False
        if called not in self._suspicious:
            self._suspicious[called] = False  # for functions that call each other
            self._suspicious[called] = any(
                isinstance(node, ast.ClassDef)
                or (
                    isinstance(node, ast.Call)
                    and (_is_builder(node) or self._is_suspicious(self.resolve(called.module, node.func)))
                )
                for node in ast.walk(called.node)
            )
        return self._suspicious[called]

    def tests(self, cls: _Class) -> set[str] | None:
        """Return the names of a class's tests, inherited ones too; None where they cannot be told, {} for no tests."""
        methods: set[str] = set()
        is_test = False
        waiting, seen = [cls], {id(cls)}
        while waiting:
            each = waiting.pop()
            if each.odd or any(self._adds(each.module, decorator) for decorator in each.decorators):
                return None
            methods |= each.methods
            for base in each.bases:
                match self.resolve(each.module, base):
                    case _Class() as found:
                        if id(found) not in seen:
                            seen.add(id(found))
                            waiting.append(found)
                    case _Outside(name):
                        is_test |= name.endswith("TestCase")
                    case _:
                        return None
        return {*methods, *_FIXTURES} if is_test else set()

    def _adds(self, module: _Module, decorator: ast.expr) -> bool:
        """Tell whether a class's decorator may add methods: one of the test package's that does, or an unknown one."""
        found = self.resolve(module, decorator.func if isinstance(decorator, ast.Call) else decorator)
        return self._is_suspicious(found) or not isinstance(found, _Function | _Outside)

    def resolve(self, module: _Module, expression: ast.expr, seen: frozenset[tuple[str, str]] = frozenset()) -> _Found:
        """Find what an expression at a module's top means; None where that cannot be told.

        `seen` are the names, by module, that led here: they are not looked up again.
        """
        match expression:
            case ast.Name(id=name):
                return self._lookup(module, name, seen)
            case ast.Attribute(value=value, attr=name):
                match self.resolve(module, value, seen):
                    case _Module() as found:
                        return self._member(found, name, seen)
                    case _Class() as found:
                        return found.module.classes.get(f"{found.name}.{name}")
                    case _Outside(outer):
                        return _Outside(f"{outer}.{name}")
            case ast.Subscript(value=value):  # Generic[T]
                return self.resolve(module, value, seen)
        return None

    def _lookup(self, module: _Module, name: str, seen: frozenset[tuple[str, str]]) -> _Found:
        if (module.name, name) in seen:
            return None
        seen |= {(module.name, name)}
        if name in module.classes:
            return module.classes[name]
        if name in module.functions:
            return module.functions[name]
        if name in module.imports:
            return self._dotted(module.imports[name], seen)
        if name in module.aliases:
            return self.resolve(module, module.aliases[name], seen)
        for star in module.stars:
            found = self._dotted(star, seen)
            if isinstance(found, _Module) and (member := self._member(found, name, seen)) is not None:
                return member
        return _Outside(name) if hasattr(builtins, name) else None

    def _member(self, module: _Module, name: str, seen: frozenset[tuple[str, str]]) -> _Found:
        return self._lookup(module, name, seen) or self.module(f"{module.name}.{name}")

    def _dotted(self, name: str, seen: frozenset[tuple[str, str]]) -> _Found:
        """Find what a dotted name of an import means: a module, or something in one."""
        if name.partition(".")[0] != "test":
            return _Outside(name)
        if name in self._sources:
            return self.module(name)
        home, _, member = name.rpartition(".")
        found = self._dotted(home, seen) if home else None
        return self._member(found, member, seen) if isinstance(found, _Module) else None


def _is_builder(call: ast.Call) -> bool:
    """Whether a call can build what no source shows: `setattr` and its like, and `type` with three arguments."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in _BUILDERS or (name == "type" and len(call.args) == 3)


def _read(name: str, package: str, tree: ast.Module) -> _Module:
    """Collect what a module's source shows."""
    module = _Module(name)
    for node in _importing(tree.body):
        match node:
            case ast.ClassDef():
                _read_class(module, node, "")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                module.functions[node.name] = _Function(module, node)
                module.calls += (each.func if isinstance(each, ast.Call) else each for each in node.decorator_list)
            case ast.Import(names=names):
                for alias in names:
                    top = alias.name.partition(".")[0]
                    module.imports[alias.asname or top] = alias.name if alias.asname else top
            case ast.ImportFrom(names=names):
                source = _absolute(package, node)
                module.stars += (source for alias in names if alias.name == "*")
                module.imports |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in names}
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Name() | ast.Attribute() as value):
                module.aliases[target] = value
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=target), attr=method)]) if (
                target in module.classes
            ):
                module.classes[target].methods |= _test_names([method])
            case ast.Call():
                module.calls.append(node.func)
                module.builds |= _is_builder(node)
    return module


def _importing(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield what runs while a module is imported, outside of classes and functions, which are yielded whole."""
    for node in body:
        yield node
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _importing(ast.iter_child_nodes(node))


def _absolute(package: str, node: ast.ImportFrom) -> str:
    """Return the full name of the module that is imported from."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def _read_class(module: _Module, node: ast.ClassDef, outer: str) -> None:
    name = f"{outer}{node.name}"
    found = _Class(module, name, node.bases, node.decorator_list)
    metaclass = next((keyword.value for keyword in node.keywords if keyword.arg == "metaclass"), None)
    found.odd = metaclass is not None and not ast.unparse(metaclass).endswith("ABCMeta")
    for inner in _importing(node.body):
        match inner:
            case ast.ClassDef():
                _read_class(module, inner, f"{name}.")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.methods |= _test_names([inner.name])
                if inner.name == "__init_subclass__":
                    found.odd |= any(isinstance(each, ast.Call) and _is_builder(each) for each in ast.walk(inner))
            case ast.Assign(targets=targets):
                found.methods |= _test_names(each.id for each in targets if isinstance(each, ast.Name))
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found.methods |= _test_names(alias.asname or alias.name for alias in names)
            case ast.Call():
                found.odd |= _is_builder(inner)
    if name in module.classes:  # of two in an `if`, either may be it
        found.methods |= module.classes[name].methods
        found.odd |= module.classes[name].odd
    module.classes[name] = found


def _test_names(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.startswith("test") or name == "runTest"}
