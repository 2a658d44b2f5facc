"""Progress as people see it: on a terminal, in a log, under GitHub Actions; tables, durations, sizes."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from crossjit.errors import BuildError, EngineError, ExitCode, Interrupted
from crossjit.model import Arch, Cell, CellResult, Outcome, Strategy, SuiteResult, TestResult, Verdict
from crossjit.report import tables
from crossjit.report.tables import render
from crossjit.report.terminal import Terminal
from crossjit.report.terminal_style import TerminalStyle, style_of
from crossjit.runs import model
from crossjit.util.text import duration, size
from crossjit.validation import reason

PLAIN = TerminalStyle(unicode=True)
ESCAPE = "\x1b"


class Clock:
    """A time that only passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def plain(
    act: Callable[[Terminal, Clock], None], style: TerminalStyle = PLAIN, environ: dict[str, str] | None = None
) -> list[str]:
    """Return the lines that a Terminal wrote to something that is none."""
    stream, clock = io.StringIO(), Clock()
    # the heartbeat's thread would see real time; `beat` is called by the tests
    act(Terminal(stream, environ=environ or {}, style=style, clock=clock), clock)
    text = stream.getvalue()
    assert ESCAPE not in text
    return text.splitlines()


def test_a_finished_step_leaves_one_line() -> None:
    def act(terminal: Terminal, clock: Clock) -> None:
        with terminal.step("make", "3.15/aarch64/jit") as step:
            step.line("gcc -c a.c")
            clock.now += 259

    assert plain(act) == ["✓ make 3.15/aarch64/jit  4m 19s"]
    assert plain(act, TerminalStyle()) == ["ok make 3.15/aarch64/jit  4m 19s"]


def test_a_failed_step_shows_its_last_output_once() -> None:
    def act(terminal: Terminal, clock: Clock) -> None:
        with pytest.raises(ValueError, match="no"), terminal.step("cell", "a"), terminal.step("make", "a") as step:
            for number in range(100):
                step.line(f"line {number}")
            raise ValueError("no")

    lines = plain(act)
    assert lines[0] == "✗ make a  0.0s  failed"
    assert lines[1:21] == [f"    line {number}" for number in range(80, 100)]
    assert lines[21:] == ["✗ cell a  0.0s  failed"]


def test_an_error_with_details_tells_by_itself() -> None:
    def act(terminal: Terminal, clock: Clock) -> None:
        with pytest.raises(BuildError), terminal.step("make", "a") as step:
            step.line("a.c:1: no")
            raise BuildError("make failed", details=("a.c:1: no",))

    assert plain(act) == ["✗ make a  0.0s  failed"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("stopped")])
def test_an_interruption_is_no_failure(error: BaseException) -> None:
    def act(terminal: Terminal, clock: Clock) -> None:
        with pytest.raises(type(error)), terminal.step("make", "a") as step:
            step.line("gcc")
            raise error

    assert plain(act) == ["• make a  0.0s  interrupted"]


def test_a_log_gets_a_sign_of_life() -> None:
    def act(terminal: Terminal, clock: Clock) -> None:
        with terminal.step("make", "a") as step:
            terminal.beat()
            clock.now += 6
            terminal.beat()
            step.update(done=100, total=400, detail="Python/compile.o")
            clock.now += 20
            terminal.beat()
            clock.now += 10
            terminal.beat()
            step.update(done=200)
            clock.now += 30
            terminal.beat()

    assert plain(act) == [
        "  make a  6.0s",
        "  make a  36s  25% (100/400)  Python/compile.o",
        "  make a  1m 06s  50% (200/400)  Python/compile.o",
        "✓ make a  1m 06s",
    ]


def test_the_heartbeat_comes_by_itself() -> None:
    written = threading.Event()

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            if "make a" in text:
                written.set()
            return super().write(text)

    stream = Stream()
    with Terminal(stream, environ={}, style=PLAIN, heartbeat=0.01) as terminal, terminal.step("make", "a"):
        assert written.wait(10)
    assert stream.getvalue().startswith("  make a  0.0s\n")


def test_steps_may_be_open_side_by_side() -> None:
    def act(terminal: Terminal, clock: Clock) -> None:
        with terminal.step("make", "a"), terminal.step("download", "b"):
            clock.now += 31
            terminal.beat()

    assert plain(act) == ["  make a  31s", "  download b  31s", "✓ download b  31s", "✓ make a  31s"]


def test_what_an_encoding_cannot_say_is_escaped() -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    terminal = Terminal(stream, environ={})
    terminal.say("naïve")
    with terminal.step("make", "ü"):
        pass
    assert written.getvalue() == b"na\\xefve\nok make \\xfc  0.0s\n"


def test_github_folds_what_a_step_said() -> None:
    def act(terminal: Terminal, clock: Clock) -> None:
        with terminal.step("make", "a") as step:
            step.line("gcc -c a.c")
            step.line("::error::not a command")
        with terminal.step("stash", "a"):
            pass

    lines = plain(act, environ={"GITHUB_ACTIONS": "true"})
    token = re.fullmatch(r"::stop-commands::(\w+)", lines[1])
    assert token is not None
    assert lines == [
        "::group::✓ make a  0.0s",
        lines[1],
        "gcc -c a.c",
        "::error::not a command",
        f"::{token[1]}::",
        "::endgroup::",
        "✓ stash a  0.0s",
    ]


class Screen:
    """A pseudo-terminal: what was written to it, as it would be read."""

    def __init__(self, columns: int = 100, **environ: str) -> None:
        self._ours, theirs = pty.openpty()
        import fcntl
        import struct
        import termios

        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = open(theirs, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - a descriptor; closed in `read`
        self.environ = {"TERM": "xterm", **environ}
        self._read: list[bytes] = []
        self._reader = threading.Thread(target=self._drain)
        self._reader.start()

    def _drain(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 4096)
            except OSError:  # EIO: the other end was closed
                return
            if not data:
                return
            self._read.append(data)

    def read(self) -> str:
        """Close it and return all that was written."""
        self.stream.close()
        self._reader.join(10)
        os.close(self._ours)
        return b"".join(self._read).decode()


def shown(text: str) -> list[str]:
    """Return the lines that were on the screen at some time, without escape sequences."""
    bare = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return [line.strip() for line in re.split(r"[\r\n]+", bare) if line.strip()]


def test_where_time_is_estimated_it_is_the_share_of_time_that_is_told() -> None:
    """Also between the moments at which the step itself has something to tell."""

    def act(terminal: Terminal, clock: Clock) -> None:
        with terminal.step("jit", "a") as step:
            clock.now += 5
            step.update(done=0, total=115, left=955)
            terminal.beat()
            clock.now += 235
            terminal.beat()
            step.update(done=111, total=115, left=720)
            clock.now += 680
            terminal.beat()
            clock.now += 45
            terminal.beat()
            clock.now += 45
            terminal.beat()

    assert plain(act) == [
        "  jit a  5.0s  1% (0/115)  about 16m 00s left",
        "  jit a  4m 00s  25% (0/115)  about 12m 00s left",
        "  jit a  15m 20s  96% (111/115)  about 40s left",
        "  jit a  16m 05s  111/115",
        "  jit a  16m 50s  111/115  longer than expected",
        "✓ jit a  16m 50s",
    ]


def test_nothing_done_is_no_share() -> None:
    def act(terminal: Terminal, clock: Clock) -> None:
        with terminal.step("jit", "a") as step:
            step.update(done=0, total=115, detail="test_a")
            clock.now += 6
            terminal.beat()

    assert plain(act)[0] == "  jit a  6.0s  0/115  test_a"


def test_a_terminal_has_a_live_line_and_colour() -> None:
    screen = Screen()
    clock = Clock()
    with (
        Terminal(screen.stream, environ=screen.environ, clock=clock) as terminal,
        terminal.step("make", "3.15/aarch64/jit") as step,
    ):
        step.update(done=50, total=200, detail="Python/compile.o")
        clock.now += 45
        assert terminal._live is not None
        terminal._live.refresh()
        terminal.say("a remark")
    text = screen.read()
    lines = shown(text)
    assert any("25% (50/200)  Python/compile.o" in line and "45s" in line and "━" in line for line in lines), lines
    assert "a remark" in lines
    assert lines[-1] == "✓ make 3.15/aarch64/jit  45s"
    assert f"{ESCAPE}[32m✓" in text
    assert f"{ESCAPE}[?25h" in text, "the cursor is shown again"


def test_no_color_is_respected() -> None:
    screen = Screen(NO_COLOR="1")
    with Terminal(screen.stream, environ=screen.environ) as terminal, terminal.step("make", "a"):
        pass
    text = screen.read()
    assert "✓ make a" in text
    assert not re.search(r"\x1b\[[0-9;]*m", text)


def test_a_narrow_terminal_is_not_overrun() -> None:
    screen = Screen(columns=30)
    with Terminal(screen.stream, environ=screen.environ) as terminal, terminal.step("make", "3.15/aarch64/jit") as step:
        step.update(done=1, total=2, detail="a/very/long/path/to/some/file/that/does/not/fit.o")
        assert terminal._live is not None
        terminal._live.refresh()
    lines = shown(screen.read())
    assert any(line.startswith("• make 3.15/aarch64/jit") for line in lines)
    assert all(len(line) <= 30 for line in lines[:-1]), lines


def test_a_dumb_terminal_is_none() -> None:
    screen = Screen(TERM="dumb")
    style = style_of(screen.stream, screen.environ)
    screen.read()
    assert not style.live
    assert not style.color


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (-1, "0.0s"),
        (0.44, "0.4s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (259, "4m 19s"),
        (3599.6, "1h 00m"),
        (3725, "1h 02m"),
        (90000, "25h 00m"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (123_456_789, "118 MiB"),
        (1024**3 - 1, "1.0 GiB"),
        (5 * 1024**5, "5120 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_tables_are_aligned_text_in_a_log() -> None:
    assert render(("cell", "is"), [("3.15/x86_64/jit", "pass"), ("a\nb", "fail")], TerminalStyle()) == (
        "cell             is\n3.15/x86_64/jit  pass\na b              fail"
    )


def test_tables_are_ruled_and_wrapped_on_a_terminal() -> None:
    text = render(
        ("cell", "reason"), [("a", "pass"), ("b", "word " * 30)], TerminalStyle(live=True, unicode=True, width=40)
    )
    assert ESCAPE not in text
    assert "─" in text
    assert all(len(line) <= 40 for line in text.splitlines())
    assert f"{ESCAPE}[32mpass" in render(("is",), [("pass",)], TerminalStyle(live=True, color=True, width=40))
    render(("cell", "reason"), [("a", "pass")], TerminalStyle(live=True)).encode("ascii")


SUITE = SuiteResult(
    "jit",
    (
        TestResult("jit", "test_a", Outcome.PASSED, 1.0),
        TestResult("jit", "test_b", Outcome.SKIPPED),
        TestResult("jit", "test_c", Outcome.FAILED, 1.0, "Traceback …\nAssertionError: 1 != 2"),
        TestResult("jit", "test_d", Outcome.FAILED, 1.0, known="no timerfd under QEMU"),
    ),
    100.0,
    caveats=("about memory ordering",),
)
FAILED = CellResult(
    Cell("3.15", Arch.AARCH64, "jit"),
    Verdict.FAIL,
    ("1 test failed",),
    artifact="0123456789ab",
    build_key="f" * 64,
    strategy=Strategy.CROSS,
    suites=(SUITE,),
    seconds={"make": 259.0, "jit": 100.0},
)
PASSED = CellResult(Cell("3.15", Arch.X86_64, "jit"), Verdict.PASS, (), from_stash=True)


def test_results_as_text() -> None:
    text = tables.results_text(
        [FAILED, PASSED], run="20260101-000000-abcd", reproduce="invoke validate", style=TerminalStyle()
    )
    lines = text.splitlines()
    row = next(line for line in lines if line.startswith("3.15/aarch64/jit "))
    for part in ("fail", "cross", "jit 3 run, 1 skipped, 1 failed, 1 known", "5m 59s", "0123456789ab"):
        assert part in row
    assert "from the stash" in text
    assert "  1 test failed" in lines
    assert "  no evidence about memory ordering" in lines
    assert "  failed: jit: test_c (AssertionError: 1 != 2)" in lines
    assert "test_d" not in text
    assert lines[-2:] == ["run:       20260101-000000-abcd", "reproduce: invoke validate"]


def test_a_result_says_what_it_was_made_of() -> None:
    made = replace(FAILED, derived_from="fedcba987654" + "0" * 52)
    text = tables.results_text([made], run="r", reproduce="x", style=TerminalStyle())
    assert "  derived from fedcba987654, which has different tests" in text.splitlines()
    assert tables.cell_json(made)["derived_from"] == made.derived_from
    assert "derived from" not in tables.results_text([FAILED], run="r", reproduce="x", style=TerminalStyle())


def test_a_test_that_says_too_much_is_cut_short() -> None:
    said = "first" + ", another" * 5000 + ", last"
    bad = TestResult("jit", "test_c", Outcome.FAILED, 1.0, f"Traceback …\n{said}")
    failed = replace(FAILED, suites=(replace(FAILED.suites[0], results=(bad,)),))
    text = tables.results_text([failed], run="r", reproduce="x", style=TerminalStyle())
    (line,) = [line for line in text.splitlines() if "first" in line]
    assert line.startswith("  failed: jit: test_c (first, another")
    assert line.endswith("another, last)")
    assert len(line) < 500


def test_results_as_json() -> None:
    value = json.loads(json.dumps(tables.results_json([FAILED, PASSED], run="r", reproduce="x")))
    assert value["exit_code"] == 1
    first = value["cells"][0]
    assert (first["cell"], first["verdict"], first["artifact"]) == ("3.15/aarch64/jit", "fail", "0123456789ab")
    assert first["suites"][0]["counts"]["failed"] == 2
    assert [bad["name"] for bad in first["suites"][0]["bad"]] == ["test_c", "test_d"]
    assert first["caveats"] == ["about memory ordering"]


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([], 0),
        ([Verdict.PASS], 0),
        ([Verdict.PASS, Verdict.VACUOUS], 4),
        ([Verdict.VACUOUS, Verdict.INFRA], 3),
        ([Verdict.INFRA, Verdict.FAIL, Verdict.VACUOUS], 1),
        ([Verdict.FAIL, Verdict.ABORTED], 130),
    ],
)
def test_the_worst_verdict_decides_the_exit_code(verdicts: list[Verdict], code: int) -> None:
    cell = Cell("3.15", Arch.X86_64, "jit")
    assert model.exit_code([CellResult(cell, verdict, ()) for verdict in verdicts]) == ExitCode(code)


def test_an_error_as_text() -> None:
    error = EngineError("no engine", hint="start it", details=("socket: no such file",))
    assert tables.error_text(error) == "error: no engine\n  socket: no such file\nhint: start it"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Traceback:\nAssertionError: 2 != 3\n", "AssertionError: 2 != 3"),
        ("stderr:\n---\n    assert x\nAssertionError\n---\n\n", "AssertionError"),
        ("---\n", ""),
        ("", ""),
    ],
)
def test_the_last_line_that_says_something_stands_for_a_message(message: str, words: str) -> None:
    assert reason.of(message) == words
