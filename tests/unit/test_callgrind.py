"""callgrind's dumps: what is read from them, and compared with the meter's windows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crossjit import PROJECT
from crossjit.engine.base import Container, ContainerOptions
from crossjit.errors import InfrastructureError
from crossjit.images import load_all
from crossjit.measure import callgrind, marks
from crossjit.measure.meter import RESERVED, Meter
from crossjit.model import Arch, ExtraPackages
from crossjit.util.budget import BudgetError
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.fakes.files import FakeFiles
from tests.unit.metered import line

DUMP = """\
# callgrind format
positions: line
events: Ir
summary: 1060

ob=/usr/local/bin/python3.15
fl=/src/ceval.c
fn=_PyEval_EvalFrameDefault
7497 500
cfi=/src/object.c
cfn=_Py_Dealloc
calls=1 691
7505 34
fi=/src/other.h
7506 3
fn=list_dealloc.cold
1 40
fn=0x00001234
0 1

ob=/usr/lib/x86_64-linux-gnu/libc.so.6
fn=malloc
0 30

ob=/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
fn=_dl_runtime_resolve
0 5

ob=/usr/local/lib/python3.15/lib-dynload/_json.cpython-315-x86_64-linux-gnu.so
fn=scan_once
10 70

ob=???
fn=0x0000000005656000
0 400
cob=/usr/lib/x86_64-linux-gnu/libc.so.6
cfn=free
calls=3 800
0 90
fn=0x0000000005656010
0 4
cob=/usr/local/bin/python3.15
cfn=PyLong_FromLong
calls=4 800
0 90

fn=0x00000000040ad820
0 7
cob=/usr/lib/x86_64-linux-gnu/libc.so.6
cfn=malloc
calls=7 1269
0 900
"""


def test_a_dump_is_read_by_class() -> None:
    found = callgrind.parse(DUMP)
    assert found == {
        "interpreter": 503,
        "memory": 40,
        "python": 1,
        "lib:libc": 30,
        "other": 12,
        "ext:_json": 70,
        "jit": 404,
    }
    assert sum(found.values()) == 1060, "as its summary says"


def test_windows_are_compared_by_the_order_of_their_markers() -> None:
    text = "".join(
        [
            *(line("start"), line("mark", counts={"jit": 5})),
            *(line("begin", 3, counts={"jit": 10}), line("mark", counts={"jit": 12}), line("mark", 9, pid=8)),
            *(line("end", 3, counts={"jit": 110, "python": 100}), line("exit")),
        ]
    )
    found = marks.read_whole(text)
    (window,) = callgrind.compare(found, [{"jit": 5}, {"jit": 5}, {"jit": 2}, {"jit": 97, "python": 100}])
    assert (window.label, window.callgrind) == (3, {"jit": 99, "python": 100})
    assert window.differs("jit") == 0.01
    assert window.differs("python") == 0
    assert window.differs() == 0.005
    assert window.differs("gc") == 0
    with pytest.raises(InfrastructureError, match="the meter saw 4 markers, callgrind 3") as raised:
        callgrind.compare(found, [{}, {}, {}])
    assert raised.value.hint


def test_the_meter_is_made_like_valgrind() -> None:
    plain = Meter(Arch.X86_64, Arch.X86_64, "Nehalem", "/usr/local/bin/python3.15", symbols=True)
    assert plain.reserved == RESERVED
    command = callgrind.alike(plain).command(("-V",), "/out")
    assert command[4:8] == ("-cpu", "Haswell-noTSX", "-R", "0x80000000")


def test_valgrind_comes_with_a_variants_own_packages() -> None:
    spec = load_all(PROJECT / "images")[0].having(ExtraPackages(toolchain=("a",), target=("libb1",)))
    assert callgrind.with_valgrind(spec).extra == ExtraPackages(("a",), (), ("libb1", "valgrind", "libc6-dbg"))


# -- running it


@pytest.fixture
def container(fake_engine: FakeEngine) -> Iterator[Container]:
    files = FakeFiles.base()
    fake_engine.add_image("target", arch=Arch.X86_64, files=files)
    fake_engine.programs["find"] = lambda process: 0
    with fake_engine.container(ContainerOptions("target", arch=Arch.X86_64, name="check", labels={})) as container:
        yield container


def run(container: Container) -> tuple[object, ...]:
    return callgrind.run(container, "/usr/local/bin/python3.15", ("script.py",), jit=True, timeout=60)


def test_each_marker_has_a_dump(container: Container, fake_engine: FakeEngine) -> None:
    def valgrind(process: FakeProcess) -> int:
        assert process.env["PYTHON_JIT"] == "1"
        assert process.argv[-2:] == ("/usr/local/bin/python3.15", "script.py")
        process.write_file(f"{callgrind.FOLDER}/out.1", DUMP.encode())
        process.write_file(f"{callgrind.FOLDER}/out.2", DUMP.replace(" 400", " 300").encode())
        process.write_file(f"{callgrind.FOLDER}/out", b"what ran after the last marker")
        return 0

    fake_engine.programs["valgrind"] = valgrind
    first, second = run(container)
    assert first == callgrind.parse(DUMP)
    assert second == {**callgrind.parse(DUMP), "jit": 304}


def test_a_dump_that_is_too_large_is_not_read_in_part(
    container: Container, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def valgrind(process: FakeProcess) -> int:
        process.write_file(f"{callgrind.FOLDER}/out.1", DUMP.encode())
        return 0

    fake_engine.programs["valgrind"] = valgrind
    monkeypatch.setattr(callgrind, "LARGEST", len(DUMP))
    assert run(container) == (callgrind.parse(DUMP),)
    monkeypatch.setattr(callgrind, "LARGEST", len(DUMP) - 1)
    with pytest.raises(BudgetError, match=f"callgrind wrote more than {len(DUMP) - 1:,} bytes"):
        run(container)


def test_no_valgrind_is_an_error_in_words(container: Container) -> None:
    with pytest.raises(InfrastructureError, match="callgrind failed: exit status 127") as raised:
        run(container)
    assert "valgrind" in raised.value.hint
    assert raised.value.details == ("sh: valgrind: not found",)
