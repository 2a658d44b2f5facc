"""The meter counts: each architecture's CPython 3.15 under the real QEMU and plugin.

The cells are taken from the user's own stash, and built if they are not in it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from crossjit import PROJECT, engine, images, settings
from crossjit.engine.base import Container, ContainerOptions
from crossjit.errors import InfrastructureError
from crossjit.images import ImageBuilder, Role
from crossjit.images.spec import METER
from crossjit.measure import marks, meter
from crossjit.measure.meter import Meter, Metered, Options
from crossjit.model import Arch, Variant
from crossjit.validation.target import HOME, TESTER, Opener, environment, install
from tests.e2e.test_real_cpython import artifact, living_run

pytestmark = pytest.mark.engine

PLAIN = Variant("jit", "", (), ())
MARK = "import os\ndef mark(op, label=0): os.closerange(0x4a495400 + op, label + 1)\n"
HOT = (
    MARK
    + """
def work(n):
    total = 0
    for i in range(n):
        total += i % 7
    return total
work(20000)
mark(1, 5); work(20000); mark(2, 5)
"""
)


@dataclass(frozen=True)
class Bench:
    """A container with a CPython and the meter."""

    container: Container
    meter: Meter

    def run(self, script: str, *, jit: bool = True, timeout: float = 120, **options: bool) -> Metered:
        """Run a script under the meter."""
        return meter.run(
            self.meter, self.container, ("-c", script), jit=jit, timeout=timeout, options=Options(**options)
        )

    def whole(self, script: str, **options: bool) -> Metered:
        """Run a script that ends without a problem."""
        result = self.run(script, **options)
        assert result.problem is None, result.output
        return result


@contextlib.contextmanager
def metered(builder: ImageBuilder, target: str, arch: Arch, tree: Opener) -> Iterator[tuple[Container, Meter]]:
    """Start a container of a target image with a CPython, and the meter in it."""
    engine, labels = builder.engine, builder.labels
    image = builder.ensure(images.spec_with_meter(images.load_all(PROJECT / "images")), Role.METER, builder.host_arch)
    name = f"crossjit-test-meter-{arch}-{os.getpid()}"
    user, env = f"{TESTER}:{TESTER}", environment(PLAIN, {})
    options = ContainerOptions(target, arch=arch, name=name, labels=labels, env=env, user=user)
    with engine.container(options) as container:
        install(container, PLAIN, tree)
        meter.install(engine, image, container, name=f"{name}-image", labels=labels)
        yield container, meter.prepare(container, host=builder.host_arch, arch=arch)


@pytest.fixture(scope="module", params=list(Arch), ids=str)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    arch: Arch = request.param
    built = artifact(f"3.15/{arch}/jit")
    loaded = settings.load()
    client = engine.connect(loaded)
    host = client.facts().arch
    reference = str(built.manifest.images["target"]["reference"])
    with living_run() as labels:
        builder = ImageBuilder(client, host, loaded.home, labels=labels)
        with metered(builder, reference, arch, built.open) as (container, made):
            yield Bench(container, made)


def only(result: Metered) -> marks.Window:
    (window,) = marks.windows(result.marks)
    return window


def test_loops_of_known_length_are_counted_exactly(bench: Bench) -> None:
    calibration = meter.self_test(bench.meter, bench.container)
    assert 500 < marks.total(calibration.marker) < 3000
    assert calibration.marker.keys() >= {"python", "interpreter"}
    assert calibration == meter.self_test(bench.meter, bench.container)


@pytest.mark.parametrize("jit", [False, True])
def test_counts_repeat_to_the_instruction(bench: Bench, jit: bool) -> None:
    script = (
        MARK + "import json, re, decimal; mark(1); json.dumps([{'a': 1.5}] * 50); re.sub('a+', 'b', 'xaay'); mark(2)"
    )
    runs = [bench.whole(script, jit=jit) for _ in range(3)]
    assert len({repr([(mark.op, mark.counts, mark.jit) for mark in run.marks]) for run in runs}) == 1


def test_jit_code_and_the_interpreters_loop_are_told_apart(bench: Bench) -> None:
    on, off = only(bench.whole(HOT)).counts, only(bench.whole(HOT, jit=False)).counts
    assert off["jit"] == 0
    assert off["interpreter"] > 0.3 * marks.total(off)
    assert on["jit"] > 0.3 * marks.total(on)
    assert on["interpreter"] < 0.05 * off["interpreter"]
    assert marks.total(on) < marks.total(off)
    whole = bench.whole(HOT).marks[-1]
    assert whole.jit.maps >= 1
    assert whole.jit.bytes >= 4096
    assert whole.counts.keys() >= {"gc", "memory", "python", "lib:libc", "lib:libm", "other"}


def test_what_else_is_asked_for_adds_up(bench: Bench) -> None:
    window = only(bench.whole(HOT, threads=True, accesses=True, functions=True, blocks=True))
    assert window.counts == only(bench.whole(HOT)).counts, "asking for more changes nothing"
    assert window.threads == ({name: count for name, count in window.counts.items() if name in window.threads[0]},)
    assert sum(window.functions.values()) == marks.total(window.counts)
    assert window.functions["_PyEval_EvalFrameDefault"] == window.counts["interpreter"]
    assert sum(len(block.sizes) * times for block, times in window.blocks.items()) == window.counts["jit"]
    assert 0 < window.loads["jit"] < window.counts["jit"]
    assert 0 < window.stores["jit"] < window.counts["jit"]


def test_blocks_tell_the_sizes_of_instructions_and_which_memory_they_were_in(bench: Bench) -> None:
    """The self-test has three loops in a row at one address, each in memory of its own."""
    made = meter.run(
        bench.meter, bench.container, (meter.SELF_TEST,), jit=False, timeout=120, options=Options(blocks=True)
    )
    loops = [window for window in marks.windows(made.marks) if window.label]
    for window in loops:
        sizes = Counter[str]()
        for block, times in window.blocks.items():
            sizes[block.sizes] += times
        rounds = window.label
        if bench.meter.arch is Arch.AARCH64:
            assert sizes == {"444": 1, "44": rounds}
        else:
            assert sizes == {"522": 1, "22": rounds - 1, "51": 1}
        (number,) = {block.mapping for block in window.blocks}
        ((begin, end, living),) = window.end.mappings
        assert number == living
        assert all(begin <= block.address < end for block in window.blocks)
    assert len({mapping for window in loops for _, _, mapping in window.end.mappings}) == len(loops) == 3
    assert made.marks[-1].mappings == ()


def test_modules_and_libraries_have_classes_of_their_own(bench: Bench) -> None:
    counts = bench.whole("import _json, zlib, _ctypes; zlib.compress(b'a' * 9999)").marks[-1].counts
    assert counts["lib:libz"] > 1000
    assert counts["ext:_ctypes"] > 0
    assert not [name for name in counts if ".so" in name or "cpython" in name]


def test_threads_are_counted(bench: Bench) -> None:
    script = MARK + (
        "import threading\ndef work():\n    for i in range(5000): pass\n"
        "mark(1)\nthread = threading.Thread(target=work)\nthread.start(); thread.join()\nmark(2)"
    )
    window = only(bench.whole(script, jit=False, threads=True))
    assert len(window.threads) == 2
    assert window.threads[1]["interpreter"] > 5000
    assert sum(marks.total(thread) for thread in window.threads) == marks.total(window.counts)


# -- the clock


def test_the_clock_and_random_bytes_are_the_same_in_each_run(bench: Bench) -> None:
    script = (
        "import os, time; print(time.time(), time.monotonic(), time.perf_counter_ns(), os.urandom(20), os.urandom(3))"
    )
    first, second = bench.whole(script), bench.whole(script)
    assert first.output == second.output
    assert bench.whole(script, still=False).output != first.output
    values = first.output[-1].split()
    assert 1_790_000_000 <= float(values[0]) < float(values[1]) < 1_790_000_001


WAITS = {
    "sleep": "time.sleep(0.2)",
    "lock": "lock = threading.Lock(); lock.acquire(); assert not lock.acquire(timeout=0.2)",
    "condition": "c = threading.Condition(); c.acquire(); assert not c.wait(0.2)",
    "select": "assert select.select([reader], [], [], 0.2) == ([], [], [])",
    "poll": "p = select.poll(); p.register(reader); assert p.poll(200) == []",
    "epoll": "e = select.epoll(); e.register(reader); assert e.poll(0.2) == []",
    "asyncio": "asyncio.run(asyncio.sleep(0.2))",
}


@pytest.mark.parametrize("wait", WAITS)
def test_who_waits_sees_the_time_go_on_by_that(bench: Bench, wait: str) -> None:
    script = (
        "import asyncio, os, select, threading, time\nreader, writer = os.pipe()\n"
        f"start = time.monotonic()\n{WAITS[wait]}\nprint('waited', time.monotonic() - start)"
    )
    began = time.monotonic()
    result = bench.whole(script)
    assert time.monotonic() - began < 60
    assert 0.2 <= float(result.output[-1].split()[1]) < 0.25


def test_threads_take_turns_though_the_clock_is_still(bench: Bench) -> None:
    script = (
        "import threading\ndone = False\ndef finish():\n    global done\n    done = True\n"
        "threading.Thread(target=finish).start()\nwhile not done: pass\nprint('ended')"
    )
    assert bench.whole(script, jit=False).output[-1] == "ended"


# -- other processes, and the end


def test_a_forked_process_counts_for_itself(bench: Bench) -> None:
    script = MARK + (
        "sum(range(1000000))\nmark(1)\npid = os.fork()\nif not pid:\n    mark(0, 9)\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\nmark(2)"
    )
    result = bench.whole(script, jit=False)
    (child,) = (mark for mark in result.marks if mark.label == 9)
    parent = result.marks[0].pid
    assert child.pid != parent
    assert 0 < marks.total(child.counts) < 1_000_000
    assert [mark.op for mark in result.marks if mark.pid == child.pid] == ["mark", "exit"]
    assert only(result).execs == 0


def test_programs_that_are_started_are_told(bench: Bench) -> None:
    script = MARK + (
        "import subprocess\nos.environ['PATH'] = '/nowhere:/also/nowhere:/usr/bin'\n"
        "mark(1)\nsubprocess.run(['true'], check=True)\nmark(2)\nmark(1, 1)\nmark(2, 1)\n"
        "try: subprocess.run(['no-such-program'])\nexcept FileNotFoundError: pass\nmark(1, 2); mark(2, 2); mark(3)"
    )
    result = bench.whole(script)
    assert [window.execs for window in marks.windows(result.marks)] == [1, 0, 0]
    assert next(mark for mark in result.marks if mark.op == "last").execs == 1, (
        "what could not be started is not counted"
    )


def test_a_program_that_does_not_end_is_killed_with_qemu(bench: Bench) -> None:
    result = bench.run(MARK + "mark(1)\nwhile True: pass", timeout=5)
    assert result.problem == "not finished in 5 s"
    assert [str(mark.op) for mark in result.marks] == ["start", "begin"]
    assert not processes(bench.container, "qemu-")


def test_so_is_one_that_left_a_child_and_a_session(bench: Bench) -> None:
    script = "import os\nif not os.fork():\n    os.setsid()\n    os.fork()\nwhile True: pass"
    assert bench.run(script, timeout=5).problem == "not finished in 5 s"
    assert not processes(bench.container, "qemu-")


def test_a_crash_is_told_with_what_was_counted(bench: Bench) -> None:
    result = bench.run(MARK + "mark(1)\nimport signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert result.problem == "killed by SIGSEGV"
    assert "begin" in [str(mark.op) for mark in result.marks]


def processes(container: Container, name: str) -> list[str]:
    found: list[str] = []
    look = "for each in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$each; echo; done 2>/dev/null"
    container.run(("/bin/sh", "-c", look), on_line=found.append)
    return [line for line in found if f"/opt/meter/bin/{name}" in line]


# -- what the plugin refuses


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (lambda options: options.replace("still=on", "stil=on"), "count: invalid argument stil=on"),
        (lambda options: options.replace("still=on", "still=perhaps"), "count: invalid argument still=perhaps"),
        (lambda options: options.replace(f"symbols={meter.SYMBOLS}", "symbols=/nowhere"), "No such file or directory"),
        (lambda options: options.replace(f"symbols={meter.SYMBOLS}", f"symbols={HOME}/bad"), "line 2 is invalid: x y"),
        (lambda options: options.replace("out=", "nothing="), "count: invalid argument nothing="),
        (lambda options: options.replace(f"out={meter.WORK}", "out=/nowhere"), "count: cannot write /nowhere/"),
    ],
)
def test_wrong_arguments_are_told(
    bench: Bench, break_it: Callable[[str], str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = Meter.command

    def broken(self: Meter, *args: object) -> tuple[str, ...]:
        return tuple(
            break_it(word) if word.startswith("/opt/meter/lib/libcount.so") else word
            for word in command(self, *args)  # type: ignore[arg-type]
        )

    bench.container.run(("/bin/sh", "-c", f"printf 'object main\\nx y\\n' >{HOME}/bad"))
    monkeypatch.setattr(Meter, "command", broken)
    with pytest.raises(InfrastructureError, match="the meter did not start") as raised:
        bench.run("pass")
    assert any(problem in line for line in raised.value.details), raised.value.details


def test_the_documented_command_is_the_one_that_is_run(bench: Bench) -> None:
    text = Path(METER / "README.md").read_text(encoding="utf-8")
    for word in bench.meter.command((), "/tmp/marks.jsonl")[3:9]:
        assert word.replace(str(bench.meter.arch), "aarch64").replace("Nehalem", "cortex-a72") in text
