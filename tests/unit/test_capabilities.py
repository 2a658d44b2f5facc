from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from crossjit.config.conditions import When, capability_names
from crossjit.config.suites import VALIDATE
from crossjit.engine.base import ContainerOptions
from crossjit.known_failures.entries import FailureKind, KnownFailure
from crossjit.model import Arch, Outcome, TestResult
from crossjit.validation import capabilities
from crossjit.validation.capabilities import Probed
from tests.fakes.engine import FakeEngine, FakeProcess, Program

SCRIPT = VALIDATE / "capabilities.py"

# -- the script, for real


def run(*arguments: str) -> Any:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON_JIT": "0"},
        timeout=120,
        check=True,
    )
    return json.loads(ended.stdout.splitlines()[-1])


def test_each_feature_check_says_on_this_machine_whether_its_capability_is_there() -> None:
    found = run()["capabilities"]
    assert tuple(sorted(found)) == tuple(sorted(capability_names()))
    # a feature check may find something missing here, but none goes wrong
    assert {name: fact["detail"] for name, fact in found.items() if fact["works"] is None} == {}
    assert all(isinstance(fact["detail"], str) and fact["detail"] for fact in found.values())
    # what any Linux has, containers' included
    for name in ("clocks", "signal-waiting", "fork-with-threads", "timerfd", "pty", "proc-self-maps", "quiet-crash"):
        assert found[name]["works"] is True, found[name]


def test_it_tries_what_it_is_asked_for_and_tells_what_there_is() -> None:
    assert list(run("pty", "clocks")["capabilities"]) == ["pty", "clocks"]
    listed = run("--list")
    assert set(listed) == set(capability_names())
    assert all(text.endswith(".") for text in listed.values())
    with pytest.raises(subprocess.CalledProcessError):
        run("ptyy")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with its own modules beside it, as in the target."""
    monkeypatch.syspath_prepend(VALIDATE)
    import importlib

    return importlib.import_module("capabilities")


def test_each_feature_check_names_the_tests_that_need_it(script: ModuleType) -> None:
    for feature_check in script.FEATURE_CHECKS:
        assert "Needed by: " in feature_check.__doc__ or "No test needs it" in feature_check.__doc__, (
            feature_check.__name__
        )


def missing(script: ModuleType) -> str:
    raise script.Unsupported("it gives nothing")


def unclear(script: ModuleType) -> str:
    raise script.Inconclusive("there is no sh to try it with")


def refused(script: ModuleType) -> str:
    raise OSError(38, "ptrace: Function not implemented")


def wrong(script: ModuleType) -> str:
    raise AttributeError("no symbol robust")


def crash(script: ModuleType) -> str:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # pytest's own handler would speak, too
    os.write(2, b"qemu: something\nlast words\n")
    os.kill(os.getpid(), signal.SIGSEGV)
    return "survived"


def leave(script: ModuleType) -> str:
    os._exit(3)


def hang(script: ModuleType) -> str:
    if os.fork() == 0:
        Path("/proc/self/comm").write_text("cj-check-child")
    time.sleep(600)
    return "woke up"


def noise(script: ModuleType) -> str:
    os.write(1, b"not for the parent")
    Path("left").write_text("behind")
    return f"in {Path.cwd()}"


@pytest.mark.parametrize(
    ("feature_check", "works", "detail"),
    [
        (missing, False, "it gives nothing"),
        (unclear, None, "there is no sh to try it with"),
        (refused, False, "ptrace: Function not implemented (ENOSYS)"),
        (wrong, None, "the feature check went wrong: AttributeError: no symbol robust"),
        (crash, False, "the feature check was killed by SIGSEGV: last words"),
        (leave, False, "the feature check was exit status 3"),
        (hang, False, "it hangs: no answer in 1 s"),
        (noise, True, "in /"),
    ],
)
def test_what_a_feature_check_does_is_a_fact_and_not_the_end(
    script: ModuleType,
    feature_check: Callable[[ModuleType], str],
    works: bool | None,
    detail: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fact = script.ask(lambda: feature_check(script), patience=1.0)
    assert fact["works"] is works
    assert fact["detail"].startswith(detail)
    assert capfd.readouterr() == ("", "")
    if feature_check is noise:
        assert not Path(fact["detail"].removeprefix("in ")).exists()
    assert _gone("cj-check-child")


def _gone(name: str) -> bool:
    """Whether no process has this name, in a moment: who is killed needs one to be gone."""
    for _ in range(100):
        if not any(_running(path, name) for path in Path("/proc").glob("[0-9]*")):
            return True
        time.sleep(0.02)
    return False


def _running(process: Path, name: str) -> bool:
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and (process / "comm").read_text() == f"{name}\n"
    except OSError:
        return False


# -- asking a target


def probe(engine: FakeEngine, program: Program) -> Probed:
    engine.programs["python3"] = program
    engine.add_image("target", arch=Arch.AARCH64)
    with engine.container(ContainerOptions("target", arch=Arch.AARCH64, name="probing", labels={})) as container:
        return capabilities.probe(container, "/usr/local/bin/python3", "/scripts/capabilities.py")


def saying(*lines: str, status: int = 0) -> Program:
    def program(process: FakeProcess) -> int:
        assert process.argv == ("/usr/local/bin/python3", "/scripts/capabilities.py")
        assert process.env["PYTHON_JIT"] == "0"
        for line in lines:
            process.write_line(line)
        return status

    return program


FACTS = {
    "pty": {"works": False, "detail": "isatty says no of the terminal: ENOSYS"},
    "timerfd": {"works": True, "detail": "it counts"},
    "ptrace": {"works": None, "detail": "the feature check went wrong"},
}


def test_the_facts_are_kept_and_what_is_unclear_is_neither_there_nor_missing(fake_engine: FakeEngine) -> None:
    found = probe(fake_engine, saying("qemu-aarch64: warning", json.dumps({"capabilities": FACTS}), "more noise"))
    assert found.facts == FACTS
    assert found.problem is None
    assert found.known == {"pty": False, "timerfd": True}


@pytest.mark.parametrize(
    ("lines", "status", "words"),
    [
        (["Traceback …", "MemoryError"], 1, "exit status 1; MemoryError"),
        ([json.dumps({"capabilities": FACTS})], 139, "killed by SIGSEGV"),
        ([], 0, "exit status 0"),
        (['{"capabilities": {"pty": {"works": "yes"}}}'], 0, "exit status 0"),
        (['{"capabilities": {"pty": true}}'], 0, "exit status 0"),
        (['{"capabilities": null}', "[]", "{"], 0, "exit status 0; {"),
    ],
)
def test_a_script_that_does_not_come_to_its_end_is_a_problem(
    fake_engine: FakeEngine, lines: list[str], status: int, words: str
) -> None:
    found = probe(fake_engine, saying(*lines, status=status))
    assert found.facts == {}
    assert found.known == {}
    assert found.problem is not None
    assert "could not be probed" in found.problem
    assert words in found.problem


def test_a_script_that_hangs_is_a_problem(fake_engine: FakeEngine) -> None:
    def program(process: FakeProcess) -> int:
        process.sleep(10_000)
        return 0

    assert "killed by SIGKILL" in str(probe(fake_engine, program).problem)


def test_what_is_missing_is_told_if_a_test_fails_for_it() -> None:
    entry = KnownFailure(
        "test.test_a.*", FailureKind.FAIL, "there is no terminal for it here", when=When(lacks=("pty",))
    )
    other = KnownFailure(
        "test.test_b.*", FailureKind.FAIL, "there is no terminal for it here", when=When(lacks=("timerfd",))
    )
    failed = TestResult("jit", "test.test_a.C.test_x", Outcome.FAILED, known="there is no terminal for it here")
    assert capabilities.excuses(Probed(FACTS), [failed], [entry, other]) == (
        "missing in the target, so tests fail as expected: pty (isatty says no of the terminal: ENOSYS)",
    )
    passed = TestResult("jit", "test.test_a.C.test_x", Outcome.PASSED, known="there is no terminal for it here")
    assert capabilities.excuses(Probed(FACTS), [passed], [entry, other]) == ()
    assert capabilities.excuses(Probed(FACTS), [failed], []) == ()
