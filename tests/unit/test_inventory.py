"""The tests that a CPython lists: the script in the target, what is made of its lines, and how that is kept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit.channels import MalformedError, TestList, TestListReader
from crossjit.config.suites import VALIDATE
from crossjit.errors import ProductError
from crossjit.known_failures import test_inventory
from crossjit.known_failures.test_inventory import Inventory
from crossjit.stash import test_lists
from crossjit.stash.artifact import INSTALL, Artifact
from crossjit.stash.store import Store
from crossjit.util.budget import BUDGET
from crossjit.validation.list_tests import list_tests
from crossjit.validation.target import Target
from tests.fakes.engine import FakeEngine, FakeProcess, Program
from tests.unit.build_fakes import RecordingProgress
from tests.unit.test_validation import target as target_fixture
from tests.unit.trees import File, manifest, stream

target = target_fixture

KEY = "c0ffee" + "0" * 58

# What 3.15.0rc2 lists, some of it.
LISTED = TestList(
    modules=(
        "test",
        "test.datetimetester",
        "test.pickletester",
        "test.test_abc",
        "test.test_capi",
        "test.test_capi.test_abstract",
        "test.test_capi.test_emscripten",
        "test.test_datetime",
        "test.test_generators",
        "test.test_os",
        "test.test_os.test_posix",
        "test.test_os.test_windows",
        "test.test_winreg",
    ),
    tests=(
        "builtins.float.hex",
        "doctest.__test__.bool-int equivalence",
        "test.datetimetester.TestDate_Fast.test_bad_constructor_arguments",
        "test.test_abc.test_factory.<locals>.TestABC.test_ABC_helper",
        "test.test_capi.test_abstract.CAPITest.test_object_str",
        "test.test_generators",
        "test.test_generators.GeneratorTest.test_copy",
        "test.test_generators.__test__.coroutine",
        "test.test_os.test_posix.PosixTester.test_fexecve",
        "test.test_os.test_posix.PosixTester.test_fork_warns",
        "unittest.loader.ModuleSkipped.test.test_capi.test_emscripten",
    ),
)


@pytest.mark.parametrize(
    ("pattern", "there"),
    [
        ("test.test_os.test_posix.PosixTester.test_fexecve", True),
        ("test.test_os.test_posix.PosixTester.*", True),
        ("test.test_os.*.test_fork*", True),
        ("test.*.PosixTester.test_f[eo]*", True),
        ("*fexecve*", True),
        ("builtins.float.hex", True),
        ("doctest.__test__.bool-int equivalence", True),
        ("test.test_generators", True),
        ("test.test_generators.__test__.coroutine", True),
        ("test.test_abc.test_factory.*.test_ABC_helper", True),
        ("test.datetimetester.TestDate_Fast.test_bad_constructor_arguments", True),
        # where fixtures and crashes of modules are told
        ("test.test_os.test_posix.PosixTester.setUpClass", True),
        ("test.test_os.test_posix.PosixTester.tearDownClass", True),
        ("test.test_os.test_posix.setUpModule", True),
        ("test.test_os.test_posix.tearDownModule", True),
        ("test.test_os.test_posix", True),
        ("test.test_os", True),
        ("test.test_winreg", True),
        # of what was skipped nothing is known
        ("test.test_winreg.AnyTests.test_any", True),
        ("test.test_capi.test_emscripten.Any.*", True),
        ("test.test_os.test_windows.*", True),
        ("test.test_datetime.TestDate_Fast.test_x", True),
        ("test.test_win*", True),
        # and these are not there
        ("test.test_os.test_posix.PosixTester.test_fexecvee", False),
        ("test.test_os.test_posix.PosixTest.*", False),
        ("test.test_os.PosixTester.test_fexecve", False),
        ("test.test_os.test_posix.PosixTester", False),
        ("test.test_capi.test_abstract.CAPITest.setUpModule", False),
        ("test.test_winregistry.Tests.test_x", False),
        ("test.test_poxis", False),
        ("test_os.test_posix.PosixTester.test_fexecve", False),
    ],
)
def test_a_pattern_means_tests_or_none(pattern: str, there: bool) -> None:
    assert test_inventory.of_list(LISTED).may_have(pattern) is there


def test_what_nothing_is_listed_of_is_open() -> None:
    assert test_inventory.of_list(LISTED).open == {
        "test.pickletester.",
        "test.test_capi.test_emscripten.",
        "test.test_datetime.",
        "test.test_os.test_windows.",
        "test.test_winreg.",
    }
    assert test_inventory.of_list(TestList()) == Inventory(frozenset())


# -- the script, for real: with this Python's regrtest over a test package of a few modules

MODULES = {
    "test_plain.py": (
        "import unittest\nclass Plain(unittest.TestCase):\n    def test_a(self): pass\n    def test_b(self): pass\n"
    ),
    "test_writes.py": (
        "import os, pathlib, unittest\npathlib.Path('tried').write_text('')\nassert os.environ['PYTHON_JIT'] == '0'\n"
        "print('said as it is imported', file=__import__('sys').stderr)\n"
        "class Writes(unittest.TestCase):\n    def test_w(self): pass\n"
    ),
    "test_skipped.py": "import unittest\nraise unittest.SkipTest('not here')\n",
    "test_denied.py": "from test import support\nraise support.ResourceDenied('no network')\n",
    "test_lacks.py": "import no_such_module\n",
    "test_pack/__init__.py": (
        "import os\nfrom test.support import load_package_tests\n"
        "def load_tests(*args): return load_package_tests(os.path.dirname(__file__), *args)\n"
    ),
    "test_pack/test_in.py": "import unittest\nclass In(unittest.TestCase):\n    def test_i(self): pass\n",
    "test_pack/test_out.py": "import unittest\nraise unittest.SkipTest('not here')\n",
    "test_pack/test_lacking.py": "import no_such_module\n",
    "not-a-module.py": "",
}
FILES = ["__init__.py", "__main__.py", "regrtest.py"]


def list_for_real(tmp_path: Path, modules: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the script with a test package that has regrtest and these modules."""
    own = Path(sysconfig.get_path("stdlib")) / "test"
    if not (own / "libregrtest").is_dir():
        pytest.skip("this Python has no test package")
    folder = tmp_path / "lib" / "test"
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(own / name, folder / name)
    for name in ("libregrtest", "support"):
        shutil.copytree(own / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in modules.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return subprocess.run(
        [sys.executable, str(VALIDATE / "list_tests.py")],
        cwd="/",
        env={"PYTHONPATH": str(tmp_path / "lib"), "PYTHON_JIT": "0", "PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def read(output: str) -> TestList:
    reader = TestListReader()
    for line in output.splitlines():
        reader.take(line)
    return reader.whole()


def test_the_script_lists_what_regrtest_does(tmp_path: Path) -> None:
    ended = list_for_real(tmp_path, MODULES)
    assert (ended.returncode, ended.stderr) == (0, "")
    listed = read(ended.stdout)
    assert listed.tests == (
        "test.test_pack.test_in.In.test_i",
        "test.test_plain.Plain.test_a",
        "test.test_plain.Plain.test_b",
        "test.test_writes.Writes.test_w",
        "unittest.loader.ModuleSkipped.test.test_pack.test_out",
    )
    own = {name for name in listed.modules if name.startswith("test.test_")}
    assert own == {
        *("test.test_plain", "test.test_writes", "test.test_skipped", "test.test_denied", "test.test_lacks"),
        *("test.test_pack", "test.test_pack.test_in", "test.test_pack.test_out", "test.test_pack.test_lacking"),
    }
    assert {"test", "test.regrtest", "test.support"} < set(listed.modules)
    assert "test.not-a-module" not in listed.modules
    opened = {name for name in test_inventory.of_list(listed).open if name.startswith("test.test_")}
    assert opened == {
        *("test.test_skipped.", "test.test_denied.", "test.test_lacks."),
        *("test.test_pack.test_out.", "test.test_pack.test_lacking."),
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "lib"]  # what a module wrote is gone


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise OSError('no such device')\n", "regrtest ended with exit status 1: OSError: no such device"),
        ("import os\nos.kill(os.getpid(), 11)\n", "regrtest ended with signal 11: "),
    ],
)
def test_a_module_that_ends_regrtest_is_told(tmp_path: Path, text: str, said: str) -> None:
    ended = list_for_real(tmp_path, {**MODULES, "test_odd.py": text})
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(said)


def test_many_names_are_told_in_lines_of_a_bounded_length(tmp_path: Path) -> None:
    methods = "".join(f"    def test_{number:04}(self): pass\n" for number in range(3000))
    ended = list_for_real(tmp_path, {"test_many.py": f"import unittest\nclass Many(unittest.TestCase):\n{methods}"})
    lines = ended.stdout.splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) < BUDGET.line // 2
    assert len(read(ended.stdout).tests) == 3000


# -- having it run in a target


def saying(*lines: str, status: int = 0) -> Program:
    def program(process: FakeProcess) -> int:
        assert process.argv[1].endswith("/list_tests.py")
        assert process.env["PYTHON_JIT"] == "0"
        assert process.uid == 1000
        for line in lines:
            process.write_line(line)
        return status

    return program


MODULES_LINE = json.dumps({"modules": ["test", "test.test_a"]})
TESTS_LINE = json.dumps({"tests": ["test.test_a.C.test_y", "test.test_a.C.test_x", "test.test_a.C.test_x"]})


def test_a_target_lists_its_tests(fake_engine: FakeEngine, target: Target) -> None:
    fake_engine.programs["python3"] = saying(MODULES_LINE, "a warning", TESTS_LINE, '{"tests": ["test.test_b.D.test"]}')
    progress = RecordingProgress()
    listed = list_tests(fake_engine, target, progress)
    assert listed == TestList(
        ("test", "test.test_a"), ("test.test_a.C.test_x", "test.test_a.C.test_y", "test.test_b.D.test")
    )
    assert progress.steps == ["list tests"]
    (started,) = fake_engine.started
    assert not started.network
    assert started.limits.memory
    assert fake_engine.containers == {}


LONG = "x" * 4001
MANY = [json.dumps({"tests": [f"test.test_a.C.test_{part}_{number}" for number in range(1500)]}) for part in range(140)]
MORE = [json.dumps({"modules": [f"test.m{part}_{number}" for number in range(2000)]}) for part in range(6)]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (saying(MODULES_LINE, TESTS_LINE, "regrtest ended with exit status 1: OSError: x", status=1), "OSError: x"),
        (saying(status=1), "cannot list its tests: exit status 1"),
        (lambda process: process.kill(11), "killed by SIGSEGV"),
        (lambda process: process.sleep(1e6), "within 6,000 s"),
        (saying(MODULES_LINE), "names no tests"),
        (saying("some words"), "names no tests"),
        (saying(MODULES_LINE, '{"tests": [7]}', TESTS_LINE), "tests.0: Input should be a valid string"),
        (saying('{"tests": [""]}', TESTS_LINE), "tests.0"),
        (saying(json.dumps({"tests": [LONG]})), "at most 4000 characters"),
        (saying('{"tests": ["a"], "more": 1}'), "more: Unexpected keyword argument"),
        (saying('{"tests": ["a"]', TESTS_LINE), "Invalid JSON"),
        (saying(*MANY), "too many tests"),
        (saying(*MORE, TESTS_LINE), "too many tests"),
    ],
)
def test_what_is_no_whole_list_is_told_in_words(
    fake_engine: FakeEngine, target: Target, program: Program, words: str
) -> None:
    fake_engine.programs["python3"] = program
    with pytest.raises(ProductError, match=words):
        list_tests(fake_engine, target, RecordingProgress())


def test_names_may_not_come_to_more_than_tests_may_say() -> None:
    reader = TestListReader()
    for number in range(2 + BUDGET.messages // 60_000):
        reader.take(json.dumps({"tests": [f"{number:05}{'x' * 3990}" for _ in range(15)]}))
    with pytest.raises(MalformedError, match="too many"):
        reader.whole()


# -- in the stash


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "stash")


def stashed(store: Store, key: str = KEY, content: bytes = b"x") -> Artifact:
    with store.lock(key), store.staging(key) as staging:
        staging.add(INSTALL, stream({"usr/local/bin/python3": File(content)}))
        return staging.commit(manifest(key))


def test_a_list_is_kept_beside_its_artifact(store: Store) -> None:
    artifact = stashed(store)
    assert test_lists.find(store.path, artifact) is None
    test_lists.keep(store.path, artifact, LISTED)
    assert test_lists.find(store.path, artifact) == LISTED
    assert store.verify_all() == {KEY: []}
    test_lists.keep(store.path, artifact, replace(LISTED, tests=("test.test_a.C.test_x",)))
    found = test_lists.find(store.path, artifact)
    assert found is not None
    assert found.tests == ("test.test_a.C.test_x",)


def test_a_damaged_list_is_none(store: Store) -> None:
    artifact = stashed(store)
    test_lists.keep(store.path, artifact, LISTED)
    (path,) = (store.path / "tests").iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:70], whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], whole[1:], b"\n"):
        path.write_bytes(damaged)
        assert test_lists.find(store.path, artifact) is None
    path.write_bytes(whole)
    assert test_lists.find(store.path, artifact) == LISTED


def test_a_list_is_of_one_build_alone(store: Store) -> None:
    test_lists.keep(store.path, stashed(store), LISTED)
    again = stashed(store, content=b"built again, and otherwise")
    assert test_lists.find(store.path, again) is None
    other = stashed(store, "1" * 64)
    shutil.copy(store.path / "tests" / KEY, store.path / "tests" / other.key)
    assert test_lists.find(store.path, other) is None


def test_a_list_of_another_version_is_none(store: Store) -> None:
    artifact = stashed(store)
    test_lists.keep(store.path, artifact, LISTED)
    (path,) = (store.path / "tests").iterdir()
    packed = zlib.compress(b'{"modules": [], "tests": [], "groups": []}')
    path.write_bytes(test_lists._seal(artifact, packed) + b"\n" + packed)
    assert test_lists.find(store.path, artifact) is None


def test_where_nothing_can_be_kept_nothing_is(store: Store) -> None:
    artifact = stashed(store)
    (store.path / "tests").write_text("a file is in the way")
    test_lists.keep(store.path, artifact, LISTED)
    assert test_lists.find(store.path, artifact) is None


def test_gc_removes_a_list_with_its_artifact(store: Store) -> None:
    old, new = stashed(store), stashed(store, "1" * 64)
    for each in (old, new):
        test_lists.keep(store.path, each, LISTED)
    left = store.path / "tests" / ("2" * 64)
    left.write_bytes(b"of an artifact that was removed as it listed its tests")
    store.gc(keep_last=1, dry_run=True)
    assert len(list((store.path / "tests").iterdir())) == 3
    store.gc(keep_last=1)
    assert [path.name for path in (store.path / "tests").iterdir()] == [new.key]
    assert test_lists.find(store.path, new) == LISTED
