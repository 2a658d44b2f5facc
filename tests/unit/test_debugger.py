"""Debugging without a gdb: what is run, how it is told to gdb, what gdb's report says, and where it is written."""

from __future__ import annotations

import importlib.util
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossjit.channels import Stop, Uop
from crossjit.config.conditions import TargetEnvironment
from crossjit.debugger import findings, session
from crossjit.debugger.findings import GdbReport
from crossjit.debugger.session import DebugTarget, Program
from crossjit.errors import InfrastructureError, UserError
from crossjit.images import Image, Role
from crossjit.model import Arch, Cell, Expectation, Variant
from crossjit.progress import SilentStep
from crossjit.report import gdb
from crossjit.sources import Kind, Source
from crossjit.stash import packing
from crossjit.stash.store import Store
from crossjit.triage.rerun import TestRerun
from crossjit.validation import target
from crossjit.validation.target import Target
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.fakes.files import FakeFiles
from tests.unit.trees import File, Node, manifest, stream

JIT = Variant("jit", "", ("--enable-experimental-jit",), ("jit",), Expectation.MACHINE_CODE)
CELL = Cell("3.15", Arch.AARCH64, "jit")
WHERE = TargetEnvironment((3, 15), Arch.AARCH64, JIT, emulated=True, cpu="cortex-a72")


# -- gdb/memory.py: what gdb's Python reads


def load_memory() -> Any:
    spec = importlib.util.spec_from_file_location("memory", session.SCRIPTS / "memory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


memory = load_memory()

MAPS = """\
5500000000-550062a000 r--p 00000000 00:54 2484964                        /usr/local/bin/python3.15
550062a000-550063b000 ---p 00000000 00:00 0\x20
550063b000-55006c0000 r--p 0062b000 00:54 2484964                        /usr/local/bin/python3.15
55039da000-55039dd000 r--p 00000000 00:00 0\x20
7f8f64200000-7f8f64428000 r--p 00000000 fe:00 2172200                    /usr/bin/a name with spaces
"""


@pytest.mark.parametrize(
    ("address", "place"),
    [
        (0x5500000000, "the program"),
        (0x55039DC000, "memory of no file"),
        (0x55039DD000, "unmapped memory"),
        (0x10, "unmapped memory"),
        (0x7F8F64200001, "/usr/bin/a name with spaces"),
    ],
)
def test_an_address_is_found_in_what_is_mapped(address: int, place: str) -> None:
    found = memory.mappings(MAPS)
    assert len(found) == 5
    assert memory.place(memory.at(found, address), "/usr/local/bin/python3.15") == place


def test_qemu_may_put_everything_elsewhere() -> None:
    base = memory.base(MAPS, "/usr/local/bin/python3.15")
    headers = memory.program_headers("3    AT_PHDR              Program headers for program    0x4000000040\n")
    offset = base - headers // 4096 * 4096
    assert memory.at(memory.mappings(MAPS, offset), 0x4000000040).path.endswith("python3.15")
    assert memory.base(MAPS, "/bin/other") is None
    assert memory.program_headers("there is no auxiliary vector") is None


def test_uops_lie_one_after_the_other() -> None:
    assert memory.stencil("0x3491b0 <emit__CONTAINS_OP_SET_r23>") == "_CONTAINS_OP_SET_r23"
    assert memory.stencil("0x3491b0") == ""
    uops = memory.uops(1000, [("_START", 20), ("_NOP", 0), ("_LOAD", 8)])
    assert [memory.uop_at(uops, address) for address in (999, 1028)] == [None, None]
    assert [memory.uop_at(uops, address).name for address in (1000, 1019, 1020, 1027)] == ["_START"] * 2 + ["_LOAD"] * 2
    assert memory.uop_at(uops, 1020).number == 2


def test_an_executor_in_words() -> None:
    found = {"number": 7, "uops": 19, "uop": "_LOAD_r01", "offset": 4, "level": 0, "function": "f (x.py:3)"}
    assert memory.executor(found) == "uop 7 of 19, _LOAD_r01 + 4, made for f (x.py:3)"
    assert memory.executor({**found, "level": 2}).startswith("called by frame #2, JIT code: uop 7")
    assert memory.executor({**found, "number": None, "function": ""}) == "behind its uops"


# -- what is run


def test_a_test_runs_alone_and_then_with_its_module() -> None:
    name = "test.test_dict.DictTest.test_x"
    test = TestRerun(name, "jit", "module", "test_dict", "stress", name, (("A", "1"),), ("--x",), 70)
    alone, whole = session.of_rerun(test, WHERE)
    assert (alone.about, whole.about) == (f"{name} [stress]", "all of test_dict")
    assert alone.argv[:4] == (target.PYTHON, "-m", "test", "--verbose")
    assert alone.argv[alone.argv.index("--match") + 1] == name
    assert "--match" not in whole.argv
    assert {alone.argv[-2:], whole.argv[-2:]} == {("--x", "test_dict")}
    assert not {"--timeout", "-j", "--junit-xml"} & {*alone.argv, *whole.argv}
    assert [(dict(each.env), each.seconds) for each in (alone, whole)] == [({"A": "1"}, 70)] * 2
    (module,) = session.of_rerun(replace(test, match=""), WHERE)
    assert module == whole


def test_a_script_runs_as_it_is() -> None:
    test = TestRerun("ft_workload.x", "ft-smoke", "script", "/x/ft_workload.py", arguments=("x",))
    (program,) = session.of_rerun(test, WHERE)
    assert program.argv == (target.PYTHON, "/x/ft_workload.py", "x")


def test_a_program_of_many_lines_has_a_name_of_one() -> None:
    program = session.of_arguments(("-c", "import x\nx.f('a  b')"), WHERE)
    assert program.argv == (target.PYTHON, "-c", "import x\nx.f('a  b')")
    assert "\n" not in program.about


LIB = "usr/local/lib/python3.15/test"
FILES = (
    "test_dis.py",
    "test_dict.py",
    "test_capi/__init__.py",
    "test_capi/test_opt.py",
    "test_capi/check.py",
    "support/testcase.py",
)


def test_modules_are_found_among_the_files() -> None:
    found = session.modules_of([*(f"{LIB}/{name}" for name in FILES), "usr/local/lib/python3.15/test_x.py"])
    assert found == {"test_dis", "test_dict", "test_capi", "test_capi.test_opt"}


# -- in containers: the fake engine


class Gdb:
    """Stands for gdb: keeps its command line, environment and order, and leaves a report."""

    def __init__(self, *events: Mapping[str, object], log: bytes = b"", status: int = 0) -> None:
        self.events, self.log, self.status = events, log, status
        self.argv: tuple[str, ...] = ()
        self.env: dict[str, str] = {}
        self.order: dict[str, Any] = {}
        self.files: FakeFiles | None = None

    def __call__(self, process: FakeProcess) -> int:
        self.argv, self.env, self.files = process.argv, dict(process.env), process.files.copy()
        self.order = json.loads(process.files.read(f"{session.TOOLS}/order.json"))
        if self.order["output"] is not None:
            lines = "".join(json.dumps(event) + "\n" for event in self.events)
            process.write_file(f"{self.order['output']}/report.jsonl", lines.encode())
            process.write_file(f"{self.order['output']}/program.log", self.log)
        process.write_line("said by gdb")
        return self.status


GENERATED: Mapping[str, Node] = {"python-gdb.py": File(b"import gdb\n"), "pyconfig.h": File()}
STOP = {
    "event": "stop",
    "signal": "SIGSEGV",
    "interrupted": False,
    "pc": "0x5503010",
    "place": "JIT code",
    "instruction": "str w9, [x8]",
    "function": "py::jit:executor",
    "source": "",
    "executor": {
        "address": "0x550092ac60",
        "code": "0x5503000",
        "size": 4096,
        "function": "f (x.py:3)",
        "uops": 19,
        "uop": "_LOAD_r01",
        "number": 7,
        "offset": 4,
        "level": 0,
    },
}
START = {"event": "start", "number": 0, "about": "a test"}
SECTIONS = (
    {"event": "section", "title": "Python stack", "text": '  File "x.py", line 4, in f\n'},
    {"event": "section", "title": "native stack", "text": "#0  f (a=<optimized out>) at x.c:3\n"},
)
DONE = {"event": "done"}


def make_bench(
    engine: FakeEngine, folder: Path, variant: Variant = JIT, generated: Mapping[str, Node] = GENERATED
) -> DebugTarget:
    def image(role: Role, arch: Arch) -> Image:
        files = FakeFiles.base()
        if role is Role.DEBUG:
            for path in ("bin/gdb-multiarch", f"lib/{arch.triple}/ld-linux-x86-64.so.2", "share/gdb/syscalls"):
                files.write(f"/usr/{path}", b"gdb's")
        reference = f"crossjit/forky-{role}"
        info = engine.add_image(reference, arch=arch, files=files)
        return Image(reference, info.id, "k", role, arch, "bootstrap:forky", ())

    store = Store(folder / "stash")
    tests: dict[str, Node] = {f"{LIB}/{name}": File(b"pass\n") for name in FILES}
    with store.staging("ab" * 32) as staging:
        staging.add("install", stream({"usr/local/bin/python3.15": File(b"\x7fELF"), **tests}))
        staging.add("generated", stream(generated, top="generated"))
        artifact = staging.commit(manifest("ab" * 32, CELL))
    archive = folder / "Python-3.15.0.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("Python-3.15.0/Python/jit.c")
        tar.addfile(member, io.BytesIO())
    packed = artifact.objects["install"]
    target = Target(
        image(Role.TARGET, Arch.AARCH64),
        artifact.full_id,
        lambda: packing.unpack_stream(packed),
        CELL,
        variant,
        (3, 15),
        "crossjit-debug",
        {"crossjit.run": "r"},
        emulation={"QEMU_CPU": "cortex-a72"},
    )
    source = Source(Kind.ARCHIVE, "3.15.0", (3, 15), "cd" * 32, archive, "Python-3.15.0", "x")
    return DebugTarget(engine, Arch.X86_64, 8 << 30, target, artifact, source, image(Role.DEBUG, Arch.X86_64))


def look(
    engine: FakeEngine, folder: Path, gdb: Gdb, *programs: Program, variant: Variant = JIT, **more: Any
) -> GdbReport:
    engine.programs["ld-linux-x86-64.so.2"] = gdb
    bench = make_bench(engine, folder, variant, **more)
    return session.batch(
        bench, programs or (Program("a test", ("python3", "-m", "test")),), folder=folder, step=SilentStep()
    )


def test_a_batch_runs_locked_in_beside_the_target(fake_engine: FakeEngine, tmp_path: Path) -> None:
    gdb = Gdb(START, STOP, *SECTIONS, DONE, log=b"running\n")
    programs = Program("one", ("python3", "-m", "test"), {"A": "1"}, 70), Program("two", ("python3",), seconds=30)
    found = look(fake_engine, tmp_path, gdb, *programs)
    assert found.stop is not None
    assert found.stop.executor is not None
    assert (found.about, found.stop.signal, found.stop.executor.uop, found.whole) == (
        "a test",
        "SIGSEGV",
        "_LOAD_r01",
        True,
    )
    assert (tmp_path / "program.log").read_bytes() == b"running\n"

    own, of_gdb = fake_engine.started
    assert (own.arch, own.user, own.network, own.capabilities) == (Arch.AARCH64, "1000:1000", False, ())
    assert own.env["QEMU_CPU"] == "cortex-a72"
    assert of_gdb.arch is Arch.X86_64
    assert not fake_engine.containers
    assert [command.timeout for command in fake_engine.commands] == [70 + 30 + session.MARGIN]

    loader, *options = gdb.argv
    assert loader == f"{session.GDB}/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    assert f"{session.GDB}/usr/bin/gdb-multiarch" in options
    assert {"-nx", "-batch"} <= set(options)
    assert gdb.env["PYTHONHOME"] == f"{session.GDB}/usr"
    assert gdb.files is not None
    for path in (
        loader,
        f"{session.GDB}/usr/share/gdb/syscalls",
        f"{session.TOOLS}/session.py",
        gdb.order["helper"],
    ):
        assert gdb.files.read(path)
    first, second = gdb.order["starts"]
    assert (gdb.order["emulated"], gdb.order["go"], gdb.order["program"]) == (True, True, target.PYTHON)
    assert (first["about"], first["seconds"], second["seconds"]) == ("one", 70, 30)
    assert first["env"]["A"] == "1"
    assert first["env"]["QEMU_CPU"] == "cortex-a72"
    assert "PYTHONHOME" not in first["env"]  # gdb's own
    assert "PYTHON_LLTRACE" not in first["env"]


def test_debug_builds_are_asked_what_the_jit_does(fake_engine: FakeEngine, tmp_path: Path) -> None:
    gdb = Gdb(START, STOP, DONE)
    look(fake_engine, tmp_path, gdb, variant=replace(JIT, debug=True))
    env = gdb.order["starts"][0]["env"]
    assert (env["PYTHON_LLTRACE"], env["PYTHON_OPT_DEBUG"]) == ("2", "1")


def test_an_artifact_without_the_helper(fake_engine: FakeEngine, tmp_path: Path) -> None:
    gdb = Gdb(START, STOP, DONE)
    look(fake_engine, tmp_path, gdb, generated={"pyconfig.h": File()})
    assert gdb.order["helper"] is None


def test_a_program_that_ends_has_nothing_to_show(fake_engine: FakeEngine, tmp_path: Path) -> None:
    ended = {"event": "exit", "code": 3}
    found = look(fake_engine, tmp_path, Gdb(START, ended, {**START, "about": "all of it"}, ended, DONE))
    assert (found.about, found.stop, found.ended, found.exit_code) == ("all of it", None, True, 3)
    shown = gdb.shown(CELL, found, program_log="one\n" * 100 + "SyntaxError: invalid syntax\n\n")
    assert "finished without a crash: exit status 3\n" in shown
    assert "\n  warning: it failed in a different way, or did not do what was asked" in shown
    assert shown.endswith("    SyntaxError: invalid syntax")
    assert shown.count("one") < 20
    assert gdb.as_json(CELL, found, program_log="a\nb\n")["output"] == ["a", "b"]
    assert "warning" not in gdb.shown(CELL, replace(found, exit_code=0))


@pytest.mark.parametrize("events", [(), (START,)])
def test_a_gdb_that_tells_nothing_is_ours(
    fake_engine: FakeEngine, tmp_path: Path, events: tuple[Mapping[str, object], ...]
) -> None:
    with pytest.raises(InfrastructureError, match="exit status 1") as caught:
        look(fake_engine, tmp_path, Gdb(*events, status=1))
    assert caught.value.details == ("said by gdb",)


def test_the_prompt_has_the_source_and_no_limit(fake_engine: FakeEngine, tmp_path: Path) -> None:
    gdb = Gdb(status=7)
    fake_engine.programs["ld-linux-x86-64.so.2"] = gdb
    bench = make_bench(fake_engine, tmp_path)
    assert session.prompt(bench, [Program("one", ("python3",))], go=False) == 7
    assert "-batch" not in gdb.argv
    assert (gdb.order["output"], gdb.order["go"], gdb.order["starts"][0]["seconds"]) == (None, False, None)
    assert gdb.files is not None
    assert gdb.files.exists("/crossjit/src/Python/jit.c")


def test_a_test_is_found_by_its_name(fake_engine: FakeEngine, tmp_path: Path) -> None:
    artifact = make_bench(fake_engine, tmp_path).artifact
    for name in ("test.test_capi.test_opt.T.test_x", "test_capi.test_opt.T.test_x"):
        test = session.find(name, artifact, WHERE, ("jit",))
        assert (test.module, test.suite, test.match) == (
            "test_capi.test_opt",
            "jit",
            "test.test_capi.test_opt.T.test_x",
        )
    assert session.find("test_dis", artifact, WHERE, ("jit",)).match == ""
    for name in ("test_dict", "test.test_dict [stress]"):
        test = session.find(name, artifact, WHERE, ("jit",))
        assert (test.label, dict(test.env)) == ("stress", {"PYTHON_JIT_STRESS": "1"})
    assert session.find("test_dict [other]", artifact, WHERE, ("jit",)).env == ()
    alone = session.find("test_dis.T", artifact, WHERE, ())
    assert (alone.suite, alone.module, alone.match) == ("", "test_dis", "test.test_dis.T")
    assert session.of_rerun(alone, WHERE)[0].argv[-1] == "test_dis"
    with pytest.raises(UserError, match="test_dsi"):
        session.find("test_dsi", artifact, WHERE, ("jit",))


# -- what gdb's report says


def test_half_a_line_does_not_hide_the_rest() -> None:
    lines = [json.dumps(each) for each in (START, STOP, *SECTIONS)]
    found = findings.read([*lines, '{"event": "section", "title": "regis', "not JSON", '{"event": "stop"}'])
    assert found is not None
    assert [title for title, _ in found.sections] == ["Python stack", "native stack"]
    assert (found.whole, found.ended) == (False, False)
    assert "gdb died" in gdb.shown(CELL, found)
    assert findings.read([]) is None


def test_the_most_telling_lines_come_first() -> None:
    found = findings.read(json.dumps(each) for each in (START, STOP, *SECTIONS, DONE))
    assert found is not None
    lines = gdb.shown(CELL, found).splitlines()
    assert lines[:4] == [
        "3.15/aarch64/jit: a test",
        "  SIGSEGV (Segmentation fault) in JIT code",
        "  => 0x5503010: str w9, [x8]",
        "  uop 7 of 19, _LOAD_r01, 4 bytes into it; compiled for f (x.py:3), 4,096 bytes at 0x5503000",
    ]
    assert '      File "x.py", line 4, in f' in lines
    assert "    #0  f at x.c:3" in lines
    text = gdb.written(CELL, found, program_log="a\n" * 500 + "the end\n")
    assert "== native stack\n\n#0  f (a=<optimized out>) at x.c:3\n" in text
    assert text.endswith("the end\n")
    assert text.count("\na") < 100
    told = json.loads(json.dumps(gdb.as_json(CELL, found)))
    assert told["stop"]["executor"]["number"] == 7
    assert told["sections"][0]["title"] == "Python stack"


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (
            Stop("SIGINT", True, "0x1", "the program", function="f", source="x.c:3"),
            "interrupted at its time limit, in the program, f (x.c:3)",
        ),
        (Stop("SIGNONE", False, "0x1", "/lib/x.so"), "SIGNONE in /lib/x.so"),
        (Stop("SIGSEGV", False, "0x0", "unmapped memory"), "=> 0x0: there is no code"),
        (
            Stop("SIGSEGV", False, "0x1", "the program", executor=Uop("0x1", "0x2", 8, "", 3, "", None, 5, 2)),
            "frame #2 is JIT code: code behind its uops, 5 bytes into it",
        ),
    ],
)
def test_other_stops_in_words(stop: Stop, said: str) -> None:
    assert said in "\n".join(gdb.summary(GdbReport("x", stop, whole=True)))
