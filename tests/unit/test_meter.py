"""Running a program under the meter, without one: what is run, what is made of its output, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crossjit.engine.base import Container, ContainerOptions
from crossjit.errors import InfrastructureError
from crossjit.images import Image, Role
from crossjit.images.spec import METER
from crossjit.measure import marks, meter
from crossjit.measure.meter import Meter, Options
from crossjit.model import Arch
from crossjit.util import safe_files
from crossjit.util.budget import BudgetError
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.unit import metered
from tests.unit.metered import PretendedMeter, elf, line, self_test_lines

WHOLE = line("start") + line("begin", 1) + line("end", 1) + line("exit")


@pytest.fixture
def pretended(fake_engine: FakeEngine) -> PretendedMeter:
    return metered.install(fake_engine)


@pytest.fixture
def container(fake_engine: FakeEngine, pretended: PretendedMeter) -> Iterator[Container]:
    with metered.container(fake_engine) as started:
        yield started


@pytest.fixture
def ready(container: Container) -> Meter:
    return meter.prepare(container, host=Arch.X86_64, arch=Arch.AARCH64)


def run(ready: Meter, container: Container, script: str = "script.py", timeout: float = 60) -> meter.Metered:
    return meter.run(ready, container, (script, "-x"), jit=True, timeout=timeout)


def test_prepared_are_the_symbols_and_the_self_test(ready: Meter, fake_engine: FakeEngine) -> None:
    assert ready == Meter(Arch.X86_64, Arch.AARCH64, "cortex-a72", metered.BINARY, symbols=True)
    (container,) = fake_engine.containers.values()
    assert container.files.read(meter.SYMBOLS).decode().splitlines()[1] == "0 40 interpreter _PyEval_EvalFrameDefault"
    assert container.files.read(metered.SELF_TEST) == (METER / "selftest.py").read_bytes()
    assert container.files.stat(meter.WORK).uid == 1000


def test_qemu_is_native_and_everything_that_could_differ_is_fixed(ready: Meter) -> None:
    command = ready.command(("-c", "pass"), "/out", Options(threads=True, blocks=True))
    assert command == (
        "/opt/meter/lib/ld-linux-x86-64.so.2",
        "--library-path",
        "/opt/meter/lib",
        "/opt/meter/bin/qemu-aarch64",
        *("-cpu", "cortex-a72", "-R", "0x4000000000", "-seed", "1"),
        "-plugin",
        f"/opt/meter/lib/libcount.so,out=/out,symbols={meter.SYMBOLS},threads=on,blocks=on,still=on",
        "/usr/local/bin/python3.15",
        *("-c", "pass"),
    )


def test_a_run_gives_its_marks_and_the_end_of_its_output(
    ready: Meter, container: Container, pretended: PretendedMeter
) -> None:
    def script(process: FakeProcess) -> tuple[str, int]:
        for number in range(100):
            process.write_line(f"line {number}")
        return WHOLE, 0

    pretended.scripts["script.py"] = script
    heard: list[str] = []
    result = meter.run(
        ready, container, ("script.py",), jit=False, timeout=60, env={"A": "b", "PYTHON_JIT": "1"}, on_line=heard.append
    )
    assert result.problem is None
    assert [window.label for window in marks.windows(result.marks)] == [1]
    assert result.output == tuple(f"line {number}" for number in range(60, 100))
    assert len(heard) == 100
    plugin, arguments, env = pretended.runs[-1]
    assert arguments == ("script.py",)
    assert (env["PYTHON_JIT"], env["PYTHONHASHSEED"], env["A"]) == ("0", "0", "b")
    assert ",still=on" in plugin


def test_two_runs_write_to_different_files(ready: Meter, container: Container, pretended: PretendedMeter) -> None:
    pretended.add("script.py", WHOLE)
    run(ready, container)
    run(ready, container)
    assert pretended.runs[-1][0] != pretended.runs[-2][0]


def test_a_failure_of_the_program_is_told_with_the_marks_that_there_are(
    ready: Meter, container: Container, pretended: PretendedMeter
) -> None:
    pretended.add("script.py", line("start") + line("mark")[:30], 3)
    result = run(ready, container)
    assert result.problem == "exit status 3"
    assert [mark.op for mark in result.marks] == ["start"]


def test_so_is_one_that_does_not_finish(ready: Meter, container: Container, pretended: PretendedMeter) -> None:
    def script(process: FakeProcess) -> tuple[str, int]:
        process.write_file(dict(o.split("=", 1) for o in pretended.runs[-1][0].split(",")[1:])["out"], WHOLE.encode())
        process.sleep(1000)
        return "", 0

    pretended.scripts["script.py"] = script
    assert run(ready, container, timeout=30).problem == "not finished in 30 s"


def test_a_meter_that_does_not_start_is_an_error(ready: Meter, container: Container, pretended: PretendedMeter) -> None:
    def script(process: FakeProcess) -> tuple[str, int]:
        process.write_line("cannot open the plugin")
        return "", 1

    pretended.scripts["script.py"] = script
    with pytest.raises(InfrastructureError, match="the meter did not start: exit status 1") as raised:
        run(ready, container)
    assert raised.value.details == ("cannot open the plugin",)
    assert "clean" in raised.value.hint


@pytest.mark.parametrize("text", [WHOLE[:-1], WHOLE.replace("begin", "bgin"), line("start")])
def test_damaged_output_is_an_error(ready: Meter, container: Container, pretended: PretendedMeter, text: str) -> None:
    pretended.add("script.py", text)
    with pytest.raises(InfrastructureError, match="the meter's output is damaged") as raised:
        run(ready, container)
    assert raised.value.hint


def test_output_is_limited(
    ready: Meter, container: Container, pretended: PretendedMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "OUTPUT", 100)
    pretended.add("script.py", WHOLE)
    with pytest.raises(BudgetError, match="the meter wrote more than 100 bytes") as raised:
        run(ready, container)
    assert raised.value.hint


def test_no_python_is_an_error(container: Container) -> None:
    with pytest.raises(InfrastructureError, match=r"there is no /usr/local/bin/python3\.9 to measure") as raised:
        meter.prepare(container, host=Arch.X86_64, arch=Arch.AARCH64, python="/usr/local/bin/python3.9")
    assert raised.value.hint


def test_a_stripped_python_has_no_symbols(fake_engine: FakeEngine) -> None:
    files = metered.files(elf({"main": 16}, stripped=True))
    fake_engine.add_image("meter", arch=Arch.X86_64, files=files)
    metered.install(fake_engine)
    with fake_engine.container(ContainerOptions("meter", arch=Arch.X86_64, name="measure", labels={})) as container:
        assert not meter.prepare(container, host=Arch.X86_64, arch=Arch.X86_64, cpu="max").symbols


# -- the self-test


def test_the_self_test_calibrates_the_markers(ready: Meter, container: Container, pretended: PretendedMeter) -> None:
    assert meter.self_test(ready, container).marker == {"python": 1069}
    assert pretended.runs[-1][2]["PYTHON_JIT"] == "0"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (self_test_lines(wrong=1), "loops of 2,003, 4,003, 6,003 instructions were counted as 2,004, 4,004, 6,004"),
        (line("start") + line("exit"), "were counted as nothing"),
        (self_test_lines(jit=5), "5 instructions of JIT code ran with the JIT off"),
        (self_test_lines(marker=(1069, 1070)), "two markers in a row do not always cost the same"),
        (self_test_lines(marker=(1069,)), "two markers in a row do not always cost the same"),
    ],
)
def test_a_meter_that_counts_wrongly_is_not_used(
    ready: Meter, container: Container, pretended: PretendedMeter, text: str, problem: str
) -> None:
    pretended.add(metered.SELF_TEST, text)
    with pytest.raises(InfrastructureError, match="the meter counts wrongly") as raised:
        meter.self_test(ready, container)
    assert problem in raised.value.message
    assert raised.value.hint
    assert raised.value.exit_code == 3


def test_a_self_test_that_fails_shows_its_output(ready: Meter, container: Container, pretended: PretendedMeter) -> None:
    def script(process: FakeProcess) -> tuple[str, int]:
        process.write_line("ModuleNotFoundError: No module named '_ctypes'")
        return WHOLE, 1

    pretended.scripts[metered.SELF_TEST] = script
    with pytest.raises(InfrastructureError, match="the meter's self-test failed: exit status 1") as raised:
        meter.self_test(ready, container)
    assert raised.value.details == ("ModuleNotFoundError: No module named '_ctypes'",)
    assert "ctypes" in raised.value.hint


def test_the_self_test_and_its_reader_agree() -> None:
    script = (METER / "selftest.py").read_text(encoding="utf-8")
    assert f"LOOPS = {meter.LOOPS}" in script
    assert f"MARKER = 0x{meter.MARKER:08X}" in script
    assert f"MARKER = 0x{meter.MARKER:08x}" in (METER / "count.c").read_text(encoding="utf-8")


# -- installing it


def test_the_meter_is_copied_from_its_image(container: Container, fake_engine: FakeEngine) -> None:
    info = fake_engine.add_image("crossjit/forky-meter-amd64", arch=Arch.X86_64, files=metered.meter_files())
    image = Image("crossjit/forky-meter-amd64", info.id, "k", Role.METER, Arch.X86_64, "b", ())
    meter.install(fake_engine, image, container, name="copy", labels={"a": "b"})
    with container.get(f"{meter.FOLDER}/bin/qemu-aarch64") as stream:
        assert safe_files.first_file(stream) == b"qemu"
    assert [options.name for options in fake_engine.started] == ["measure", "copy"]
    assert dict(fake_engine.started[-1].labels) == {"a": "b"}
