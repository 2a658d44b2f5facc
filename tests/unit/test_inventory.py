from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from crossjit.known_failures import test_inventory
from crossjit.known_failures.test_inventory import Inventory
from crossjit.stash.artifact import INSTALL
from crossjit.stash.store import Store
from tests.unit.trees import File, manifest, stream

KEY = "c0ffee" + "0" * 58

PLAIN = """
import unittest
from unittest import TestCase as Base
from test import support, mixins
from test.mixins import Shared as Common
from . import mixins as again

class Plain(unittest.TestCase):
    def setUp(self): pass
    def test_a(self): pass
    @support.requires_subprocess()
    async def test_b(self): pass
    test_c = test_a
    if support.verbose:
        def test_d(self): pass
    def helper(self): pass

@unittest.skipIf(True, "not now")
class Child(Common, Plain):
    def test_a(self): pass

class Through(mixins.Deep.Inner, again.Shared, Base):
    pass

class NoTest(mixins.Shared):
    pass

class Generic(Base, list[int]):
    def runTest(self): pass

Alias = Plain
class Aliased(Alias):
    def test_e(self): pass
"""

MIXINS = """
class Shared:
    def test_shared(self): pass
class Deep:
    class Inner:
        def test_inner(self): pass
"""

SUPPORT = """
verbose = True
def requires_subprocess():
    return unittest.skipUnless(True, "")
def parameterize(cls):
    for name in list(vars(cls)):
        setattr(cls, name, None)
    return cls
def make(base):
    return type(base.__name__, (base,), {})
def indirectly(base):
    return make(base)
def fill(namespace):
    namespace["Made"] = None
"""

SOURCES = {"test": "", "test.test_plain": PLAIN, "test.mixins": MIXINS, "test.support": SUPPORT}


def of(*patterns: str, **modules: str) -> Inventory:
    sources = {**SOURCES, **{f"test.{name}": text for name, text in modules.items()}}
    return test_inventory.of_sources({name: text.encode() for name, text in sources.items()}, patterns)


def test_tests_are_told_with_what_they_inherit() -> None:
    found = of("test.test_plain.*")
    tests = {
        name.removeprefix("test.test_plain.")
        for name in found.names
        if not name.endswith(("Class", "Module")) and name.count(".") > 1
    }
    assert tests == {
        *(f"Plain.test_{letter}" for letter in "abcd"),
        *(f"Child.test_{letter}" for letter in "abcd"),
        "Child.test_shared",
        "Through.test_inner",
        "Through.test_shared",
        "Generic.runTest",
        *(f"Aliased.test_{letter}" for letter in "abcde"),
    }
    assert not found.open


@pytest.mark.parametrize(
    ("pattern", "there"),
    [
        ("test.test_plain.Plain.test_a", True),
        ("test.test_plain.Child.test_shared", True),
        ("test.test_plain.Plain.*", True),
        ("test.test_plain.*.test_inner", True),
        ("test.test_plain", True),
        ("test.test_plain.setUpModule", True),
        ("test.test_plain.Plain.setUpClass", True),
        ("test.*.Plain.test_[ab]", True),
        ("*shared*", True),
        ("test.test_plain.Plain.test_x", False),
        ("test.test_plain.Plian.*", False),
        ("test.test_plain.NoTest.test_shared", False),
        ("test.test_plain.Plain.helper", False),
        ("test.test_plian.Plain.test_a", False),
        ("test.test_plain.Plain", False),
        ("test.mixins.Shared.test_shared", False),
        ("test_plain.Plain.test_a", False),
    ],
)
def test_a_pattern_means_tests_or_none(pattern: str, there: bool) -> None:
    assert of(pattern).may_have(pattern) is there


OPEN_MODULES = {
    "globals are filled": "from test import support\nsupport.fill(globals())",
    "a class is made": "X = type('X', (object,), {})",
    "a function makes classes": "from test.support import make\nX, Y = make(object), 1",
    "a function has classes made": "import test.support\nX = test.support.indirectly(object)",
    "a function of its own makes classes": "def build():\n    class X: pass\n    return X\nX = build()",
    "methods are set": "class X: pass\nfor name in 'ab':\n    setattr(X, name, None)",
    "tests are loaded": (
        "import doctest\n"
        "def load_tests(loader, tests, pattern):\n    tests.addTest(doctest.DocTestSuite())\n    return tests"
    ),
    "newer grammar than ours": "class X[T: !?]: pass",
    "exec": "exec('class X: pass')",
}


@pytest.mark.parametrize("text", OPEN_MODULES.values(), ids=OPEN_MODULES.keys())
def test_a_module_that_builds_tests_may_have_any(text: str) -> None:
    found = of("test.test_open.*", test_open=text)
    assert found.may_have("test.test_open.Whatever.test_x")
    assert found.may_have("test.test_open.What*")
    assert not found.may_have("test.test_opened.Whatever.test_x")


OPEN_CLASSES = {
    "a decorator adds methods": "@support.parameterize\nclass X(unittest.TestCase): pass",
    "a base is made": "class X(unknown(), unittest.TestCase): pass",
    "a base is unknown": "class X(Unknown, unittest.TestCase): pass",
    "a metaclass": "class Meta(type): pass\nclass X(unittest.TestCase, metaclass=Meta): pass",
    "a decorator is unknown": "@decorate\nclass X(unittest.TestCase): pass",
    "subclasses get methods": (
        "class B:\n    def __init_subclass__(cls):\n        setattr(cls, 'test_x', None)\n"
        "class X(B, unittest.TestCase): pass"
    ),
    "its names are set": "class X(unittest.TestCase):\n    for name in 'ab':\n        locals()[name] = None",
}


@pytest.mark.parametrize("text", OPEN_CLASSES.values(), ids=OPEN_CLASSES.keys())
def test_a_class_that_builds_tests_may_have_any(text: str) -> None:
    found = of("test.test_open.*", test_open=f"import unittest\nfrom test import support\n{text}\nclass Z: pass")
    assert found.may_have("test.test_open.X.test_whatever")
    assert not found.may_have("test.test_open.Y.test_whatever")


ONE = "class T(unittest.TestCase):\n    def test_a(self): "

CLOSED = {
    "what builds is not called at import": f"def build():\n    class X: pass\n{ONE}build()",
    "a test may do what it likes": f"{ONE}exec('x'); setattr(self, 'y', 1)",
    "a package loads its own": f"def load_tests(*args):\n    return load_package_tests(*args)\n{ONE}pass",
    "an abstract class": f"{ONE}pass".replace("TestCase", "TestCase, metaclass=abc.ABCMeta"),
    "loops of names": f"a = b\nb = a\n{ONE}pass",
}


@pytest.mark.parametrize("text", CLOSED.values(), ids=CLOSED.keys())
def test_a_typo_is_told_where_nothing_is_built(text: str) -> None:
    found = of("test.test_closed.*", test_closed=f"import abc, unittest\n{text}")
    assert found.may_have("test.test_closed.T.test_a")
    assert not found.may_have("test.test_closed.T.test_b")
    assert not found.may_have("test.test_closed.U.*")


def test_names_come_through_stars_and_relative_imports() -> None:
    found = of(
        "test.test_pack.test_in.*",
        **{
            "test_pack": "",
            "test_pack.util": "from ..mixins import *",
            "test_pack.test_in": "from .util import *\nimport unittest\nclass T(Shared, unittest.TestCase): pass",
        },
    )
    assert found.may_have("test.test_pack.test_in.T.test_shared")
    assert not found.open


def test_no_more_is_read_than_has_to_be() -> None:
    assert of("test.test_plain.Plain.test_a", test_broken="class (").open == frozenset()
    assert of("test.*", test_broken="class (").open == {"test.test_broken.", "test.support."}


def test_an_artifacts_sources_are_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "stash")
    files: Mapping[str, File] = {
        "usr/local/lib/python3.15/os.py": File(b"class (not read"),
        "usr/local/lib/python3.15/test/__init__.py": File(),
        "usr/local/lib/python3.15/test/mixins.py": File(MIXINS.encode()),
        "usr/local/lib/python3.15/test/support/__init__.py": File(SUPPORT.encode()),
        "usr/local/lib/python3.15/test/test_plain.py": File(PLAIN.encode()),
        "usr/local/lib/python3.15/test/data.txt": File(b"class Data: pass"),
    }
    with store.lock(KEY), store.staging(KEY) as staging:
        staging.add(INSTALL, stream(files))
        artifact = staging.commit(manifest(KEY))
    found = test_inventory.of_artifact(artifact, ["test.test_plain.Plain.*"])
    assert found.may_have("test.test_plain.Child.test_shared")
    assert not found.may_have("test.test_plain.Child.test_x")
