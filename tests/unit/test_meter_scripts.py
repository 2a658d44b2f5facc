"""What runs under the meter, run without it: the stand-in for pyperf, the launcher, and our own benchmarks."""

from __future__ import annotations

import ast
import ctypes
import ctypes.util
import importlib.util
import json
import mmap
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from crossjit.channels import ExecutorFacts, read
from crossjit.images.spec import METER
from crossjit.measure.benchmarks import EDGES

SCRIPT = """
import time
import pyperf

SIZE = 10

def work(size):
    print("work", size)

def timed(loops, size):
    started = time.perf_counter()
    for _ in range(loops):
        work(size)
    return time.perf_counter() - started

async def later(size):
    work(size)

if __name__ == "__main__":
    runner = pyperf.Runner(add_cmdline_args=None)
    runner.argparser.add_argument("--kind")
    args = runner.parse_args()
    runner.metadata["description"] = "a test"
    assert args is runner.args
    if args.kind == "func":
        runner.bench_func("one", work, SIZE)
    elif args.kind == "time":
        runner.bench_time_func("two", timed, SIZE, inner_loops=3)
    elif args.kind == "async":
        runner.bench_async_func("three", later, SIZE)
    elif args.kind == "command":
        runner.bench_command("four", ["true"])
    else:
        raise SystemExit(0)
"""

# What a marker is seen as: its op, and its label.
RECORD = """
import os, runpy, sys
seen = []
os.closerange = lambda first, last: seen.append(f"{first - 0x4a495400}:{last - 1}")
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
print("seen", *seen)
"""


def launch(script: Path, *arguments: str, recording: bool = False, **order: Any) -> subprocess.CompletedProcess[str]:
    whole = {"script": str(script), "arguments": arguments, "calls": 2, "loops": 1, "replaced": {}, **order}
    program = ["-c", RECORD] if recording else []
    return subprocess.run(
        [sys.executable, *program, str(METER / "launch.py"), json.dumps(whole)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def facts(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("facts "))
    return dict(json.loads(line.removeprefix("facts ")))


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "run_benchmark.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize(("kind", "name"), [("func", "one"), ("time", "two"), ("async", "three")])
def test_each_call_is_between_markers_and_its_work_between_two_more(script: Path, kind: str, name: str) -> None:
    done = launch(script, "--kind", kind, recording=True, calls=3, loops=2)
    assert facts(done)["names"] == [name]
    assert done.stdout.count("work 10") == 3 * 2
    markers = done.stdout.splitlines()[-1].split()[1:]
    own = markers[markers.index("1:1") :]
    assert own == ["1:1", "0:0", "0:0", "2:1"] * 3 + ["3:0"]
    calibration = markers[: markers.index("1:1")]
    assert calibration == ["1:0", "0:0", "0:0", "2:0"] * (len(calibration) // 4)


def test_what_another_process_does_is_refused(script: Path) -> None:
    done = launch(script, "--kind", "command")
    assert done.returncode == 1
    assert "NotMeasuredError: four measures another process" in done.stderr


def test_a_script_may_end_by_itself_but_not_fail(script: Path, tmp_path: Path) -> None:
    assert facts(launch(script))["names"] == []
    failing = tmp_path / "failing.py"
    failing.write_text("raise SystemExit('no data')")
    done = launch(failing)
    assert (done.returncode, done.stderr) == (1, "no data\n")


def test_definitions_are_replaced_without_being_evaluated(script: Path, tmp_path: Path) -> None:
    done = launch(script, "--kind", "func", replaced={"SIZE": "2 + 3", "work": "lambda size: print('other', size)"})
    assert done.stdout.count("other 5") == 2
    assert "does not define SIZES" in launch(script, replaced={"SIZES": "1"}).stderr
    costly = tmp_path / "costly.py"
    costly.write_text("DATA = 1 / 0\nprint('data', DATA)\n")
    assert "data 7" in launch(costly, replaced={"DATA": "7"}).stdout


def test_the_facts_name_what_was_loaded(script: Path) -> None:
    script.write_text(f"import ctypes\nctypes.CDLL({ctypes.util.find_library('z')!r})\n{SCRIPT}")
    found = facts(launch(script, "--kind", "func"))
    assert any(name.startswith("libz.so") for name in found["libraries"])
    assert not any(name.startswith("libc.so") for name in found["libraries"])
    assert "_ctypes" in found["extension_modules"]
    assert found["extension_modules"] == sorted(found["extension_modules"])
    assert not any("/" in name for name in (*found["libraries"], *found["extension_modules"]))


def test_executors_are_counted_with_their_side_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = load("launch")

    class Executor:
        def __init__(self, size: int, exits: list[Executor]) -> None:
            self.size, self.exits = size, exits

        def get_jit_code(self) -> bytes | None:
            if self.size < 0:
                raise RuntimeError("no JIT in this build")
            return bytes(self.size)

        def __iter__(self) -> Iterator[tuple[str, int, int, int]]:
            return iter([("_START_EXECUTOR", 0, 9, 0), ("_SET_IP", 0, self.size // 4096, 0), ("_SET_IP", 0, 8, 0)])

    side = Executor(4096, [])
    first = Executor(8192, [side, Executor(-1, []), Executor(0, [])])
    side.exits.append(first)
    code = compile("x = 1", "script", "exec")

    def get_executor(asked: object, offset: int) -> Executor:
        if asked is not code or offset:
            raise ValueError("no executor here")
        return first

    monkeypatch.setattr(launcher, "codes", lambda script: [code])
    monkeypatch.setitem(sys.modules, "_opcode", module(get_executor=get_executor))
    monkeypatch.setitem(sys.modules, "opcode", module(opmap={"ENTER_EXECUTOR": code.co_code[0]}))
    monkeypatch.setattr(launcher, "gc", module(get_referents=lambda executor: [*executor.exits, "other"]))
    found = launcher.executors(code)
    assert [(place, executor.size) for place, executor in found.items()] == [
        ("script.<module>:0", 8192),
        ("script.<module>:0 > 1", 4096),
        ("script.<module>:0 > -1", -1),
        ("script.<module>:0 > 0", 0),
    ]
    assert launcher.size_of(found.values()) == {"executors": 2, "bytes": 12288}


def test_executors_with_the_same_place_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = load("launch")
    code = compile("x = 1", "/a/bm_nbody/run_benchmark.py", "exec")
    monkeypatch.setattr(launcher, "entries", lambda script: [(code, 2, "one"), (code, 2, "two"), (code, 2, "three")])
    assert [*launcher.executors(code)] == ["bm_nbody.<module>:1", "bm_nbody.<module>:1 (2)", "bm_nbody.<module>:1 (3)"]


def test_executors_are_described_before_a_second_last_mark(script: Path, tmp_path: Path) -> None:
    path = tmp_path / "executors.jsonl"
    done = launch(script, "--kind", "func", recording=True, executors=str(path))
    assert done.returncode == 0, done.stderr
    assert path.read_text() == "", "this Python has no executors"
    assert done.stdout.splitlines()[-1].split()[-2:] == ["3:0", "3:0"]


CODE = bytes(range(1, 25)) + bytes(8)
OBJECT = 104 + 2 * 24  # an executor without exits, with two uops


class Executor:
    """An executor of which `id` says that it is at the beginning of `memory`."""

    __slots__ = ("code", "memory", "uops", *(f"other_{number}" for number in range(8)))  # 104 bytes, as the real one

    def __init__(self, code: ctypes.Array[ctypes.c_char], *, jump: bool = True) -> None:
        begin = bytearray(OBJECT)
        self.code, self.memory = code, (ctypes.c_char * OBJECT).from_buffer(begin)
        self.uops = [("_A", 7, 3 | 4 << 16, 0), ("_B", 1, 9, 0)]
        struct.pack_into("<QQ", begin, 16, 2 * 24, ctypes.addressof(self.memory) + 104)
        struct.pack_into("<QQ", begin, 72, len(code), ctypes.addressof(code))
        for number, (opcode, (_, oparg, target, _)) in enumerate(zip((700, 800), self.uops, strict=True)):
            struct.pack_into("<HHI", begin, 104 + number * 24, opcode | (not number and jump) << 15, oparg, target)

    def __len__(self) -> int:
        return len(self.uops)

    def __iter__(self) -> Iterator[tuple[str, int, int, int]]:
        return iter(self.uops)

    def get_jit_code(self) -> bytes | None:
        return self.code.raw or None


@pytest.fixture
def describer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    describer: ModuleType = load("machine_code")
    assert Executor.__basicsize__ == 104
    monkeypatch.setattr(describer, "id", lambda executor: ctypes.addressof(executor.memory), raising=False)
    return describer


@pytest.mark.parametrize(("jump", "jumps"), [(True, [3, 4]), (False, [])])
def test_what_is_written_about_an_executor(
    describer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: bool, jumps: list[int]
) -> None:
    code = ctypes.create_string_buffer(CODE, len(CODE))
    place = ctypes.addressof(code)
    monkeypatch.setattr(describer, "executable_memory", lambda: [(place, place + 4096)])
    none = Executor(ctypes.create_string_buffer(0))
    describer.write(tmp_path / "lines", {"m.f:1": Executor(code, jump=jump), "m.f:2": none})
    (line,) = (tmp_path / "lines").read_text().splitlines()
    assert json.loads(line) == {
        "place": "m.f:1",
        "address": place,
        "size": len(CODE),
        "code": CODE.rstrip(b"\0").hex(),
        "names": ["_A", "_B"],
        "opcodes": [700, 800],
        "jumps": jumps,
    }
    read(ExecutorFacts, line)


def test_an_executor_with_another_layout_is_an_error(
    describer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = ctypes.create_string_buffer(CODE, len(CODE))
    place = ctypes.addressof(code)
    executor = Executor(code)
    monkeypatch.setattr(describer, "executable_memory", lambda: [(place, place + 16)])
    with pytest.raises(describer.LayoutError, match="address of an executor's machine code is not in"):
        describer.write(tmp_path / "lines", {"m.f:1": executor})
    executor.uops[1] = ("_B", 2, 9, 0)
    with pytest.raises(describer.LayoutError, match="uops are not what the executor tells"):
        describer.write(tmp_path / "lines", {"m.f:1": executor})
    executor.uops.append(("_C", 0, 0, 0))
    with pytest.raises(describer.LayoutError, match="uops are not in the executor"):
        describer.write(tmp_path / "lines", {"m.f:1": executor})


def test_only_anonymous_memory_that_can_be_executed_has_jit_code(describer: ModuleType) -> None:
    memory = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)
    place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    plain = ctypes.create_string_buffer(16)
    found = describer.executable_memory()
    assert any(begin <= place < end for begin, end in found)
    assert not any(begin <= ctypes.addressof(plain) < end for begin, end in found)


@pytest.mark.parametrize("edge", sorted(EDGES.glob("*.py")), ids=lambda path: path.stem)
def test_our_own_benchmarks_run(edge: Path) -> None:
    """Each is one benchmark of its file's name, and gives the same result each time."""
    if edge.stem == "c_parser":
        pytest.importorskip("pycparser")
    assert facts(launch(edge))["names"] == [edge.stem]
    function = loaded(edge)
    assert function() == function()


@pytest.mark.parametrize("path", sorted(METER.glob("**/*.py")), ids=lambda path: path.name)
def test_what_runs_under_the_meter_needs_only_the_standard_library(path: Path) -> None:
    roots = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    allowed = {"pycparser"} if path.stem == "c_parser" else set()
    assert roots - sys.stdlib_module_names - {"machine_code", "pyperf"} == allowed


def module(**values: Any) -> ModuleType:
    made = ModuleType("made")
    vars(made).update(values)
    return made


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, METER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def loaded(edge: Path) -> Callable[[], object]:
    """Return an edge's function."""
    code = compile(edge.read_text(encoding="utf-8"), str(edge), "exec")
    names: dict[str, Any] = {"__name__": edge.stem}
    sys.modules["pyperf"] = module()
    try:
        exec(code, names)
    finally:
        del sys.modules["pyperf"]
    function: Callable[[], object] = names[edge.stem]
    return function
