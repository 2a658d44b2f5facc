"""Reducing a script: which failure and which contrast, what is told to the container, and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from crossjit.engine.base import EngineFacts
from crossjit.errors import ExitCode, InfrastructureError, Interrupted, UserError
from crossjit.host.wheels import Packages
from crossjit.images import Image, Package, Role
from crossjit.model import Arch, Cell, Expectation, Variant
from crossjit.reduction import script as reduction
from crossjit.reduction.script import CONTRAST, ORDER, WORK, End, Reduction
from crossjit.report import reduction as report
from crossjit.tasks import reduce as task
from crossjit.tasks.scripts import require_free
from crossjit.triage.decide import Experiment, Next, Subject
from crossjit.triage.diagnosis import ExperimentResult
from crossjit.triage.experiments import STRESS, Experiments
from crossjit.triage.odds import Count
from crossjit.triage.rerun import TestRerun
from crossjit.triage.user_script import CONDITIONS, Script
from crossjit.validation.failure import Failure
from crossjit.validation.target import Target
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.unit.build_fakes import RecordingProgress

CELL = Cell("3.15", Arch.AARCH64, "jit")
JIT = Variant("jit", "", ("--enable-experimental-jit",), ("jit",), Expectation.MACHINE_CODE)
SCRIPT = Script("bug.py", b"first = 1\nassert first == 2\n", ("--size", "4"), seconds=40)
SMALL = b"assert 0\n"
MESSAGE = "AssertionError: x"
FAILS, PASSES = Count(failed=5), Count(passed=5)


@contextlib.contextmanager
def tree() -> Iterator[BinaryIO]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("usr/local/bin/python3"), io.BytesIO())
    stream.seek(0)
    yield stream


class World(Experiments):
    """A script's experiments: it fails where the counts say so, and passes anywhere else."""

    def __init__(self, target: Target, counts: Mapping[Experiment, Count], *, emulated: bool = True) -> None:
        self.counts, self._own, self.emulated = counts, target, emulated
        self.ran: list[Experiment] = []
        self.message = MESSAGE

    @property
    def subject(self) -> Subject:
        can = {Experiment.JIT_OFF, Experiment.STRESS, Experiment.LOW_THRESHOLDS, Experiment.OTHER_ARCH}
        can |= {Experiment.NATIVE} if self.emulated else set()
        return Subject(CELL.arch, jit=True, free_threaded=False, emulated=self.emulated, can=frozenset(can))

    def run(self, tests: Sequence[TestRerun], then: Next) -> dict[TestRerun, ExperimentResult]:
        (test,) = tests
        (condition,) = (each for each, variables in CONDITIONS.items() if variables == dict(test.env))
        experiment = condition if then.experiment is Experiment.AGAIN else then.experiment
        self.ran.append(experiment)
        count = self.counts.get(experiment, PASSES)
        return {test: ExperimentResult(experiment, CELL, "", count, self.message if count.failed else "", 1.0)}

    def target(self, experiment: Experiment) -> tuple[Target, Mapping[str, str]]:
        native = experiment in (Experiment.NATIVE, Experiment.OTHER_ARCH)
        target = replace(self._own, emulation={}) if native else self._own
        return target, {"PYTHON_JIT": "0"} if experiment is Experiment.JIT_OFF else {}


class Bench:
    """A machine with a toolchain image, in which the container's script ends as told."""

    def __init__(self, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = engine
        info = engine.add_image("toolchain", arch=Arch.X86_64)
        packages = (Package("python3", "amd64", "3.14.2-1"), Package("libc6", "amd64", "2.42-1"))
        image = Image("toolchain", info.id, "k", Role.TOOLCHAIN, Arch.X86_64, "b", packages)
        own = Image("target", "t", "k", Role.TARGET, Arch.AARCH64, "b", ())
        self.target = Target(
            own, "a", tree, CELL, JIT, (3, 15), "t", {}, emulation={"QEMU_CPU": "max"}, files=SCRIPT.files
        )
        facts = EngineFacts("fake", "1", None, Arch.X86_64, 2, 8 << 30)
        self.ctx: Any = SimpleNamespace(
            engine=engine,
            facts=facts,
            jobs=2,
            run="20261130-1",
            labels={},
            progress=RecordingProgress(),
            ensure_image=lambda spec, role, arch: image,
        )
        self.asked: list[tuple[Sequence[str], Any]] = []
        self.order: dict[str, Any] = {}
        self.files: list[str] = []
        monkeypatch.setattr(reduction, "fetch", self.fetch)

    def fetch(self, requirements: Sequence[str], target: Any, shell: object) -> Packages:
        self.asked.append((requirements, target))
        return Packages((), {"shrinkray/__main__.py": b""})

    def ends(self, *lines: Mapping[str, object], left: bytes = SMALL, error: BaseException | None = None) -> None:
        """Let the container's script say these lines, and leave this."""

        def program(process: FakeProcess) -> int:
            self.order = json.loads(process.files.read(ORDER))
            assert process.files.read(self.order["script"]) == SCRIPT.content
            process.write_file(f"{WORK}/bug.py", left)
            for line in lines:
                process.write_line(json.dumps(line))
            if error:
                raise error
            return 0

        self.engine.programs["/usr/bin/python3"] = program
        self.engine.programs["python3"] = program

    def reduce(self, world: World, after: World | None = None) -> Reduction:
        def make(script: Script, builds: bool) -> Experiments:
            self.builds = [*getattr(self, "builds", []), builds]
            return world if script == SCRIPT else after or world

        prepared: Any = SimpleNamespace(cell=CELL, image="spec")
        done = reduction.reduce(self.ctx, prepared, SCRIPT, make, minutes=3)
        return done if done.end is End.INTERRUPTED else reduction.verify(done, make(done.after, True))


@pytest.fixture
def bench(fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(fake_engine, monkeypatch)


SMALLEST = {"ended": "smallest", "tried": 7, "said": ""}


def test_a_script_is_reduced_and_verified(bench: Bench) -> None:
    bench.ends({"size": 20, "lines": 1, "tried": 3}, SMALLEST)
    world = World(bench.target, {Experiment.AGAIN: FAILS})
    done = bench.reduce(world)
    assert (done.after.content, done.end, done.tried, done.count) == (SMALL, End.SMALLEST, 7, FAILS)
    assert done.failure == Failure.of("failed", MESSAGE)
    assert world.ran == [Experiment.AGAIN, Experiment.JIT_OFF, Experiment.NATIVE, Experiment.AGAIN]
    assert bench.builds == [True, True, False, False, True], "a second contrast is not built"
    (requirements, wheels) = bench.asked[0]
    assert requirements == (reduction.SHRINKRAY,)
    assert (wheels.python, wheels.arch, wheels.glibc) == ((3, 14), Arch.X86_64, 42)
    order = bench.order
    assert order["order"] == {"arguments": ["--size", "4"], "status": None, "text": ""}
    assert order["runs"] == 1
    assert [each["python"] for each in order["passing"]] == [
        f"{CONTRAST}/usr/local/bin/python3",
        "/usr/local/bin/python3",
    ]
    assert order["cheap"] == 1
    assert order["passing"][1]["env"]["PYTHON_JIT"] == "0"
    assert order["failing"]["env"]["QEMU_CPU"] == "max"
    assert "PYTHON_JIT" not in order["failing"]["env"]
    text = report.as_text(done, Path("/x/bug.reduced.py"))
    assert "2 lines (28 bytes) → 1 line (9 bytes)" in text
    assert "verified:  failed 5 of 5 in the target" in text
    whole = report.as_json(done)
    assert whole["after"] == {"bytes": 9, "lines": 1}
    assert whole["verified"] == {"failed": 5, "passed": 0}
    assert whole["passes"] == [
        "3.15/aarch64/jit: native, on the host's arch",
        "3.15/aarch64/jit: JIT off",
    ]


def test_the_first_condition_that_fails_counts(bench: Bench) -> None:
    bench.ends(SMALLEST)
    done = bench.reduce(World(bench.target, {Experiment.STRESS: Count(failed=1, passed=4)}))
    assert dict(done.env) == STRESS
    assert bench.order["failing"]["env"].items() >= STRESS.items()
    assert bench.order["runs"] == 14, "four of five runs pass: in 14 runs one fails, but for one time in twenty"


def test_a_failure_without_a_contrast(bench: Bench) -> None:
    bench.ends(SMALLEST)
    everywhere = dict.fromkeys((Experiment.AGAIN, Experiment.JIT_OFF, Experiment.NATIVE, Experiment.OTHER_ARCH), FAILS)
    world = World(bench.target, everywhere)
    done = bench.reduce(world)
    assert world.ran[:4] == [Experiment.AGAIN, Experiment.JIT_OFF, Experiment.NATIVE, Experiment.OTHER_ARCH]
    assert (done.passes, bench.order["passing"], bench.order["cheap"]) == ((), [], 0)
    assert "nowhere that was tried" in report.as_text(done, Path("x"))


def test_a_native_failure_is_compared_with_the_other_arch_last(bench: Bench) -> None:
    bench.ends(SMALLEST)
    world = World(bench.target, dict.fromkeys((Experiment.AGAIN, Experiment.JIT_OFF), FAILS), emulated=False)
    bench.reduce(world)
    assert world.ran[:3] == [Experiment.AGAIN, Experiment.JIT_OFF, Experiment.OTHER_ARCH]
    assert bench.order["cheap"] == 0, "a foreign CPython is slow"
    assert bench.order["passing"][0]["python"].startswith(CONTRAST)


def test_a_script_that_passes_everywhere(bench: Bench) -> None:
    with pytest.raises(UserError, match=r"passes in 3\.15/aarch64/jit under every condition") as refused:
        bench.reduce(World(bench.target, {}))
    assert refused.value.exit_code == ExitCode.USER
    assert "--cell" in refused.value.hint
    assert bench.asked == []


@pytest.mark.parametrize("how", ["passes", "fails everywhere"])
def test_a_script_that_needs_its_container(bench: Bench, how: str) -> None:
    bench.ends({"ended": how})
    with pytest.raises(UserError, match=f"beside the compilers it {how}"):
        bench.reduce(World(bench.target, {Experiment.AGAIN: FAILS}))


def test_the_time_is_up(bench: Bench) -> None:
    bench.ends({"ended": "time", "tried": 2, "said": ""})
    done = bench.reduce(World(bench.target, {Experiment.AGAIN: FAILS}))
    assert (done.end, done.after.content, done.count) == (End.TIME, SMALL, FAILS)


@pytest.mark.parametrize("error", [Interrupted("Ctrl-C"), KeyboardInterrupt()])
def test_an_interruption_keeps_the_smallest_so_far(bench: Bench, error: BaseException) -> None:
    bench.ends({"size": 9, "lines": 1, "tried": 4}, error=error)
    world = World(bench.target, {Experiment.AGAIN: FAILS})
    done = bench.reduce(world)
    assert (done.end, done.after.content, done.tried, done.count) == (End.INTERRUPTED, SMALL, 4, None)
    assert world.ran.count(Experiment.AGAIN) == 1, "it is not run again"


@pytest.mark.parametrize("lines", [[{"ended": "failed", "tried": 0, "said": "a\nno grammar"}], [], [{"ended": []}]])
def test_shrinkray_fails(bench: Bench, lines: list[Mapping[str, object]]) -> None:
    bench.ends(*lines)
    with pytest.raises(InfrastructureError, match="shrinkray failed") as failed:
        bench.reduce(World(bench.target, {Experiment.AGAIN: FAILS}))
    assert failed.value.details == (("a", "no grammar") if lines and lines[0]["ended"] == "failed" else ())


def test_a_script_that_does_not_fail_in_the_target(bench: Bench) -> None:
    bench.ends(SMALLEST)
    with pytest.raises(InfrastructureError, match=r"does not fail in 3\.15/aarch64/jit as it did"):
        bench.reduce(World(bench.target, {Experiment.AGAIN: FAILS}), World(bench.target, {}))
    other = World(bench.target, {Experiment.AGAIN: FAILS})
    other.message = "NameError: name 'x' is not defined"
    with pytest.raises(InfrastructureError, match="does not fail"):
        bench.reduce(World(bench.target, {Experiment.AGAIN: FAILS}), other)


# The command


def test_a_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    require_free(path, force=False)
    path.touch()
    with pytest.raises(UserError, match="exists") as refused:
        require_free(path, force=False)
    assert "--force" in refused.value.hint
    require_free(path, force=True)
    with pytest.raises(UserError, match="exists"):
        require_free(tmp_path, force=True)
    with pytest.raises(UserError, match="there is no folder"):
        require_free(tmp_path / "a/b.py", force=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "reduce needs either a script or --tests"),
        ({"tests": ["test_a"]}, "reduce needs either a script or --tests"),
        ({"script": None, "tests": ["test_a"], "expect": "x"}, "are about a script"),
        ({"script": ["/nowhere/x.py"]}, "cannot be read"),
        ({"script": ["a", "b"]}, "only one script"),
        ({"minutes": "0"}, "invalid --minutes '0'"),
        ({"cell": "jit"}, "invalid --cell 'jit'"),
        ({"with_": ["-x"]}, "invalid --with"),
    ],
)
def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str) -> None:
    monkeypatch.setattr("sys.argv", ["crossjit", "reduce"])
    script = tmp_path / "bug.py"
    script.touch()
    given = {"script": [str(script)]} if options else {}
    context: Any = SimpleNamespace(remainder="")
    with pytest.raises(UserError, match=message):
        task.reduce.body(context, **{**given, **options})
    assert [*tmp_path.iterdir()] == [script]
