"""What leaves crossjit as text: nothing in it is a terminal's command, or one of GitHub's runner."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crossjit.errors import BuildError, ExitCode
from crossjit.report import output
from crossjit.report.terminal import Terminal
from crossjit.report.terminal_style import TerminalStyle
from crossjit.runs.model import Run
from crossjit.settings import Settings
from crossjit.tasks import framework
from crossjit.triage.decide import Layer
from crossjit.triage.diagnosis import save
from tests import example_runs
from tests.example_runs import HOSTILE
from tests.written import CONTROL, GITHUB, OURS, check, check_characters, commands

ROOT = Path(__file__).resolve().parents[2]


def test_the_reader_of_commands_knows_them() -> None:
    assert list(commands("::error file=a::b\nx ##[add-mask]y\nno ::error::\n  ::group::x")) == [
        *("error", "add-mask", "group"),
    ]
    assert list(commands("::stop-commands::abc\n::error::x\n##[error]\n::abc::\n::notice::y")) == [
        *("stop-commands", "notice"),
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_shown_has_no_command(text: str) -> None:
    for color in (False, True):
        check(output.text(text, color=color, environ=GITHUB), color=color, also=OURS)
    assert not CONTROL.search(output.text(text, environ={}))
    check(output.group(text, text), also=OURS)


def test_plain_words_stay_as_they_are() -> None:
    for environ in ({}, GITHUB):
        assert output.text("1 of 2: passed\n\ttab ✓", environ=environ) == "1 of 2: passed\n\ttab ✓"
    assert output.text("\x1b[1;32m✓\x1b[0m", color=True, environ={}) == "\x1b[1;32m✓\x1b[0m"
    assert output.text("\x1b[1;32m✓\x1b[0m", environ={}) == "✓"


PIECES = ("::", ":", "error", "##[", "#", "[", "]", "\n", "\r", " ", "\x1b", "\x85", "\u2028")


@given(st.lists(st.sampled_from(PIECES)).map("".join))
@example("::error::\n")
def test_no_text_makes_a_command(text: str) -> None:
    check(output.text(text, environ=GITHUB), also=OURS)
    check(output.group(text, text), also=OURS)
    check(output.json(json.dumps({"a": text}, ensure_ascii=False, indent=1)))
    check(output.markup(text.replace("\x1b", "").replace("\r", "").replace("\x85", "")))


@given(st.text())
@example("\ud83d \x9b ##[x")
def test_a_document_stays_the_same(text: str) -> None:
    assert json.loads(output.json(json.dumps([text], ensure_ascii=False))) == [text]
    clean = re.sub(r"[^\t\n\x20-\x7e\xa0-\ud7ff]", "", text).replace("&", "").replace("<", "")
    assert ElementTree.fromstring(output.markup(f"<a>{clean}</a>")).text == (clean or None)


def test_a_terminal_shows_steps_of_any_name() -> None:
    for environ, live in ((GITHUB, False), ({}, False), ({}, True)):
        stream = io.StringIO()
        with Terminal(
            stream, environ=environ, style=TerminalStyle(live=live, color=live, unicode=True), heartbeat=0
        ) as terminal:
            for text in HOSTILE:
                with pytest.raises(BuildError), terminal.step(text, text) as step:
                    step.line(text)
                    step.update(detail=text)
                    terminal.beat()
                    raise BuildError(text)
                terminal.say(text)
        written = stream.getvalue()
        # rich's live lines move the cursor, by sequences of its own
        shown = re.sub(r"\x1b\[(?:[0-9]*[ABKGJ]|\?25[lh])", "", written).replace("\r", "")
        check_characters(shown, color=live)
        assert not environ or set(commands(shown)) <= {*OURS}


def test_errors_end_with_words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for text in HOSTILE:
        check(framework.ended(text, ExitCode.PRODUCT).message or "", also=OURS)


@pytest.fixture
def hostile(settings: Settings) -> Run:
    run = example_runs.record(settings, example_runs.hostile(), also=())
    for result in run.results():
        bad = [test for suite in result.suites for test in suite.results if test.outcome.is_failure]
        found = [
            example_runs.diagnosis(result.cell, test.name, Layer.UNCLEAR, text, message=text)
            for test, text in zip(bad, HOSTILE, strict=False)
        ]
        save(run.cell_folder(result.cell), example_runs.TRIAGE, found)
    return run


COMMANDS = (
    ("runs", "show"),
    ("runs", "show", "--json"),
    ("runs", "list"),
    ("runs", "list", "--json"),
    ("report",),
    ("report", "--json"),
    ("report", "--html", "-"),
    ("report", "--junit", "-"),
    ("report", "--markdown", "-"),
    ("compare", "last", "last"),
    ("compare", "last", "last", "--json"),
    ("triage", "--cell", "::error::x"),
    ("stash", "show", "\x1b]0;x\x07"),
    ("debug", "--cell", "##[error]x", "--test", "a\x1b[2Jb"),
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_command_shows_a_hostile_run(settings: Settings, hostile: Run, arguments: tuple[str, ...]) -> None:
    environ = {**os.environ, **GITHUB, "CROSSJIT_HOME": str(settings.home)}
    done = subprocess.run(
        [sys.executable, "-m", "crossjit", *arguments], cwd=ROOT, env=environ, capture_output=True, check=False
    )
    written = done.stdout.decode() + done.stderr.decode()
    assert written.strip()
    assert "Traceback" not in written
    machine = any(argument in ("--json", "-") for argument in arguments)
    check(done.stdout.decode(), also=() if machine else OURS)
    check(done.stderr.decode(), also=OURS)


@pytest.mark.parametrize("arguments", [("runs", "show"), ("report",), ("compare", "last", "last")], ids=" ".join)
def test_a_terminal_gets_colours_and_nothing_else(settings: Settings, hostile: Run, arguments: tuple[str, ...]) -> None:
    ours, theirs = pty.openpty()
    environ = {**os.environ, "CROSSJIT_HOME": str(settings.home), "TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-m", "crossjit", *arguments], cwd=ROOT, env=environ, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        pieces = []
        while piece := _read(ours):
            pieces.append(piece)
        process.wait()
    os.close(ours)
    check_characters(b"".join(pieces).decode().replace("\r\n", "\n"), color=True)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other end is closed
        return b""
