"""Run records to report on: one that has every verdict and outcome, and one as large as all of CPython's tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from crossjit.errors import ExitCode
from crossjit.model import (
    Arch,
    Cell,
    CellResult,
    ModuleRun,
    Outcome,
    Strategy,
    SuiteResult,
    TestResult,
    Verdict,
)
from crossjit.runs import history, model
from crossjit.runs.model import Run
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.triage.decide import Conclusion, Experiment, Layer
from crossjit.triage.diagnosis import Diagnosis, ExperimentResult, save
from crossjit.triage.odds import Count

# What tests can be called and can say, if they want to do harm; the control characters are those of a terminal.
HOSTILE = (
    "</script><script>document.title = 'taken over'</script>",
    "<img src=x onerror=\"document.title = 'taken over'\"><b>bold</b>",
    "\x1b[31mred\x1b[0m \x00\x07\x9b2J \r over the line",
    "half of a pair: \ud83d, no character: \ufffe\uffff",
    "turned \u202e round, ]]> & {{ 7 * 7 }} {% raw %}",
    "\x1b]0;a title\x07 \x1b]52;c;Y2xpcGJvYXJk\x07 \x1b[8mhidden\x1b[6n",
    "::error file=README.md,line=1::not ours",
    "  ::set-output name=verdict::pass\n::add-mask::e\n::stop-commands::guessed",
    "words, and then ##[add-mask]e ##[error]not ours",
    "| a | table | `code` *stars* _lines_ [link](javascript:alert(1)) @someone #1",
)

NO_TIMERFD = "QEMU's user mode does not implement timerfd_create"
NO_PTRACE = "QEMU's user mode has no ptrace, so nothing can look into another process"

TRACEBACK = """Traceback (most recent call last):
  File "/usr/local/lib/python3.15/test/test_capi/test_opt.py", line 2113, in test_guard_is_folded
    self.assertNotIn("_GUARD_TOS_INT", uops)
    ~~~~~~~~~~~~~~~~^^^^^^^^^^^^^^^^^^^^^^^^
AssertionError: '_GUARD_TOS_INT' unexpectedly found in ['_START_EXECUTOR', '_GUARD_TOS_INT', '_EXIT_TRACE']
"""

CRASH = """test_deep_recursion (test.test_sys_settrace.RaisingTraceFuncTestCase.test_deep_recursion) ...
Fatal Python error: Segmentation fault

Current thread 0x0000ffff8f6c4020 [python3] (most recent call first):
  File "/usr/local/lib/python3.15/test/test_sys_settrace.py", line 1211 in trace
  File "/usr/local/lib/python3.15/test/test_sys_settrace.py", line 1220 in f
  <truncated rest of calls>

test.test_sys_settrace: killed by SIGSEGV, Fatal Python error: Segmentation fault"""


def probe(
    *, emulated: bool = False, machine: str = "EM_X86_64", code: bool = True, gil: bool = True
) -> dict[str, object]:
    """Facts as `validate/probe.py` finds them."""
    executor = {"function": "count", "offset": 24, "kind": "machine code", "bytes": 4096}
    return {
        "told": {"emulated": emulated, "cpu": "cortex-a72" if emulated else None},
        "executable": {"path": "/usr/local/bin/python3.15", "machine": machine, "bits": 64, "order": "little"},
        "version": {"text": "3.15.0rc2 (main, Nov 23 2026, 05:40:00) [GCC 16.1.0]", "hex": "0x030f00c2"},
        "configure": "'--enable-experimental-jit=yes' '--build=x86_64-linux-gnu'",
        "debug": False,
        "compiler": "GCC 16.1.0",
        "libc": "glibc 2.43",
        "environment": {"QEMU_CPU": "cortex-a72"} if emulated else {},
        "gil": {"disabled_in_build": not gil, "enabled": gil},
        "jit": {"available": code, "enabled": code},
        "workloads": [{"name": "loop", "correct": True, "executors": [executor] if code else [], "seconds": 0.21}],
        "steps_active": 15_999,
        "modules": {"imported": ["_bz2", "_ssl"], "failed": {}, "absent": {"_tkinter": "missing"}},
        "gil_after_imports": {"disabled_in_build": not gil, "enabled": gil},
        "errors": {},
    }


def passed(module: str, number: int, suite: str = "jit") -> list[TestResult]:
    return [
        TestResult(suite, f"test.{module}.Tests.test_number_{index}", Outcome.PASSED, 0.01) for index in range(number)
    ]


def module(name: str, seconds: float, how: str = "exit status 0", label: str = "") -> ModuleRun:
    return ModuleRun(name, label, seconds, how, f"000-{name}.log")


def jit_suite(*, emulated: bool) -> SuiteResult:
    """A suite with every outcome, known failures and an unexpected pass."""
    went = [
        TestResult("jit", "test.test_capi.test_opt.TestUops.test_guard_is_folded", Outcome.FAILED, 0.4, TRACEBACK),
        TestResult("jit", "test.test_sys.Broken.setUpClass", Outcome.ERROR, 0.0, "OSError: no class today"),
    ]
    if emulated:
        went += [
            TestResult(
                "jit",
                "test.test_sys_settrace.RaisingTraceFuncTestCase.test_deep_recursion",
                Outcome.CRASHED,
                41.5,
                CRASH,
            ),
            TestResult("jit", "test.test_monitoring [stress]", Outcome.TIMED_OUT, 1800.0, "Timeout (0:30:00)!"),
            TestResult("jit", "test.test_os.TimerfdTests.test_timerfd_poll", Outcome.ERROR, 0.1, "ENOSYS", NO_TIMERFD),
            TestResult(
                "jit", "test.test_os.TimerfdTests.test_timerfd_ns_poll", Outcome.ERROR, 0.1, "ENOSYS", NO_TIMERFD
            ),
            TestResult("jit", "test.test_gdb.test_jit.JitTests.test_bt", Outcome.PASSED, 2.0, known=NO_PTRACE),
        ]
    skipped = [
        TestResult(
            "jit", f"test.test_perf_profiler.Tests.test_perf_{index}", Outcome.SKIPPED, message="perf is missing"
        )
        for index in range(12)
    ]
    slow = 6.0 if emulated else 1.0
    return SuiteResult(
        "jit",
        (
            *went,
            *skipped,
            *passed("test_capi.test_opt", 190),
            *passed("test_sys", 110),
            *passed("test_dis", 230),
            *passed("test_sys_settrace", 90),
            *passed("test_generated_cases", 77),
        ),
        seconds=36.3 * slow,
        caveats=(
            "about speed: wall time under emulation says nothing about hardware",
            "about pointer authentication: the CPU model that QEMU played has none",
        )
        if emulated
        else (),
        problems=("test_monitoring did not run: the suite's time was over",) if emulated else (),
        notes=("test_sys left its environment altered (regrtest: env changed)",),
        modules=(
            module("test_generated_cases", 3.9 * slow),
            module("test_dis", 2.8 * slow),
            module("test_sys", 14.5 * slow, "exit status 2"),
            module("test_sys_settrace", 7.5 * slow, "killed by SIGSEGV" if emulated else "exit status 0"),
            module("test_monitoring", 30.0 * slow, "killed after its time limit", label="stress"),
            module("test_capi.test_opt", 25.1 * slow, "exit status 2"),
        ),
    )


def results() -> tuple[CellResult, ...]:
    """Cells of every verdict."""
    seconds = {"unpack": 2.7, "configure": 29.7, "make": 335.5, "install": 37.3, "pack": 3.3, "probe": 4.1}
    vacuous = SuiteResult("ft-smoke", tuple(passed("test_free_threading.test_dict", 25, "ft-smoke")), 62.0)
    return (
        CellResult(
            Cell("3.15", Arch.X86_64, "jit"),
            Verdict.FAIL,
            ("jit: 2 tests failed: test.test_capi.test_opt.TestUops.test_guard_is_folded, …",),
            artifact="0b54d3f01c2a",
            build_key="ab" * 32,
            strategy=Strategy.NATIVE,
            probe=probe(),
            suites=(jit_suite(emulated=False),),
            seconds={**seconds, "jit": 36.3},
        ),
        CellResult(
            Cell("3.15", Arch.AARCH64, "jit"),
            Verdict.FAIL,
            ("jit: 4 tests failed: test.test_capi.test_opt.TestUops.test_guard_is_folded, …",),
            artifact="46ec8c63c46b",
            build_key="cd" * 32,
            from_stash=True,
            strategy=Strategy.CROSS,
            probe=probe(emulated=True, machine="EM_AARCH64"),
            suites=(jit_suite(emulated=True),),
            seconds={**seconds, "jit": 217.8},
        ),
        CellResult(
            Cell("3.15", Arch.X86_64, "ft"),
            Verdict.PASS,
            ("the GIL is off", "ft-smoke: 25 tests run, 0 skipped"),
            artifact="4d4ebe6d4c0a",
            build_key="ef" * 32,
            strategy=Strategy.NATIVE,
            probe=probe(code=False, gil=False),
            suites=(vacuous,),
            seconds={**seconds, "make": 146.0, "ft-smoke": 62.0},
        ),
        CellResult(
            Cell("3.15", Arch.AARCH64, "ft-jit"),
            Verdict.VACUOUS,
            ("the probe found no machine code: the free-threaded build never runs JIT code",),
            strategy=Strategy.CROSS,
            probe=probe(code=False, gil=False, emulated=True, machine="EM_AARCH64"),
            suites=(replace(vacuous, unproved=("0 tests of test.test_capi.test_opt.* ran, not any",)),),
            seconds={**seconds, "ft-smoke": 62.0},
        ),
        CellResult(
            Cell("3.14", Arch.X86_64, "jit"),
            Verdict.FAIL,
            ("make failed with exit status 2",),
            strategy=Strategy.NATIVE,
            details=("Python/jit.c:312:5: error: unknown type name 'patch_func'", "make: *** [Makefile:1] Error 1"),
            seconds={"configure": 31.0, "make": 12.0},
        ),
        CellResult(
            Cell("3.14", Arch.AARCH64, "jit"),
            Verdict.INFRA,
            ("the engine is gone: Cannot connect to the Docker daemon", "hint: start it, then run ./inv doctor"),
            strategy=Strategy.CROSS,
            probe={"crashed": "killed by SIGILL", "output": ["qemu: uncaught target signal 4"], "told": {}},
        ),
    )


FACTS: Mapping[str, object] = {
    "crossjit": "0.1.0",
    "engine": {
        "name": "docker",
        "version": "26.1.5",
        "buildx": "0.29.1",
        "arch": "x86_64",
        "cores": 2,
        "memory": 25_276_502_016,
    },
    "ability": {"arch": "x86_64", "emulators": {"aarch64": {"version": "7.2.22", "cpu": "cortex-a72"}}, "local": True},
}

ARGV = ("./inv", "validate", "--recipe", "3.15,3.14", "--arch", "all")
ABORTED = Cell("3.14", Arch.X86_64, "ft")


def record(settings: Settings, cells: Sequence[CellResult], *, also: Sequence[Cell] = (ABORTED,)) -> Run:
    """Write a run record, and read it back; `also` are cells that the run did not come to."""
    asked = [*(result.cell for result in cells), *also]
    with RunRecord.start(settings, ARGV, FACTS, cells=asked) as written:
        for result in cells:
            written.set_cell(result)
        written.finish(model.exit_code(cells) if cells else ExitCode.PASS)
    return history.load(settings, written.id)


TRIAGE = "20261124-070000-beef"  # the run of triage that looked into others

GUARD, SETTRACE = (
    "test.test_capi.test_opt.TestUops.test_guard_is_folded",
    "test.test_sys_settrace.RaisingTraceFuncTestCase.test_deep_recursion",
)


def diagnosis(cell: Cell, test: str, layer: Layer, why: str, *, suite: str = "jit", message: str = "") -> Diagnosis:
    """What triage may conclude, with a table of every experiment that there is."""
    tries = tuple(
        ExperimentResult(
            experiment,
            replace(cell, variant="interp") if experiment is Experiment.INTERPRETER else cell,
            "PYTHON_JIT=0" if experiment is Experiment.JIT_OFF else "",
            Count(passed=3) if experiment is Experiment.JIT_OFF else Count(failed=3),
            "" if experiment is Experiment.JIT_OFF else message,
            12.5,
        )
        for experiment in Experiment
    )
    conclusion = Conclusion(layer, why, Count(failed=5))
    return Diagnosis(cell, suite, test, conclusion, tries, TRIAGE, datetime(2026, 11, 24, 7, 30, tzinfo=UTC))


def triage(run: Run) -> Run:
    """Let triage have looked into some of the failing tests of an example's first two cells."""
    native, emulated = run.cells[:2]
    optimizer = "passes with the JIT off, fails in the tier-2 interpreter, which has no machine code"
    backend = "passes with the JIT off, in the tier-2 interpreter and on the other arch: aarch64's machine code"
    for cell, found in (
        (native, [diagnosis(native, GUARD, Layer.OPTIMIZER, optimizer, message=TRACEBACK)]),
        (
            emulated,
            [
                diagnosis(emulated, GUARD, Layer.OPTIMIZER, optimizer, message=TRACEBACK),
                diagnosis(emulated, SETTRACE, Layer.BACKEND, backend, message=CRASH),
            ],
        ),
    ):
        save(run.cell_folder(cell), TRIAGE, found)
    return run


def hostile() -> tuple[CellResult, ...]:
    """A cell in which everything that somebody else can write is hostile."""
    tests = [
        TestResult("jit", f"test.test_x.{text}", outcome, 1.0, f"{text}\n{text}", known)
        for text in HOSTILE
        for outcome, known in ((Outcome.FAILED, None), (Outcome.SKIPPED, None), (Outcome.ERROR, text))
    ]
    suite = SuiteResult(
        "jit",
        tuple(tests),
        10.0,
        caveats=HOSTILE,
        problems=HOSTILE,
        unproved=HOSTILE,
        notes=HOSTILE,
        modules=tuple(ModuleRun(text, text, 1.0, text, text) for text in HOSTILE),
    )
    return (
        CellResult(
            Cell("3.15", Arch.X86_64, "jit"),
            Verdict.FAIL,
            HOSTILE,
            artifact=HOSTILE[0],
            strategy=Strategy.NATIVE,
            probe={"compiler": HOSTILE[0], "libc": HOSTILE[2], "configure": HOSTILE[3]},
            suites=(suite,),
            seconds={HOSTILE[1]: 3.0},
            details=HOSTILE,
        ),
    )


def full_run(*, tests: int = 60_000, modules: int = 500, bad: int = 0) -> tuple[CellResult, ...]:
    """Two cells with as many tests as CPython has, of which `bad` each fail with as much output as is kept."""
    cells = []
    for arch in Arch:
        found = [
            TestResult(
                "full",
                f"test.test_module_{number % modules:03}.SomeTestCaseWithAName.test_that_does_something_{number}",
                Outcome.FAILED if number < bad else Outcome.SKIPPED if number % 12 == 0 else Outcome.PASSED,
                0.02,
                "<&> " * 1000 if number < bad else f"needs {number % 40} that is missing" if number % 12 == 0 else "",
            )
            for number in range(tests)
        ]
        ran = tuple(module(f"test_module_{number:03}", number / 7) for number in range(modules))
        cells.append(
            CellResult(
                Cell("3.15", arch, "jit"),
                Verdict.FAIL if bad else Verdict.PASS,
                ("full: many tests run",),
                strategy=Strategy.NATIVE,
                probe=probe(),
                suites=(SuiteResult("full", tuple(found), 4000.0, modules=ran),),
                seconds={"make": 300.0, "full": 4000.0},
            )
        )
    return tuple(cells)
