"""Command lines at random: none ends with a traceback, or with 1, which says that CPython fails.

Real tasks run, with a state folder of their own; the engine, the host's set-up and the tools of `test` and `lint` are
out of reach, so nothing is started. `pytest --rounds 5000` takes that many.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crossjit import __version__, engine, host
from crossjit.errors import EngineError
from crossjit.tasks import develop, namespace, program

ROOT = Path(__file__).resolve().parents[2]

NO_ENGINE = "no engine in this test"
GROUPS = tuple(namespace.collections)
TASKS = tuple(namespace.task_names)
FLAGS = tuple(
    sorted({f"--{name}" for task in TASKS for each in namespace[task].get_arguments() for name in each.names})
)
# all of invoke's own, taken here or not
CORE = (
    *("-T", "--command-timeout", "--complete", "--config", "-f", "--debug", "-d", "--dry", "-R", "--echo", "-e"),
    *("--help", "-h", "--hide", "--list", "-l", "--list-depth", "-D", "--list-format", "-F", "--pty", "-p", "-V"),
    *("--print-completion-script", "--prompt-for-sudo-password", "--version", "--warn-only", "-w", "--write-pyc"),
    *("--collection", "-c", "--no-dedupe", "--search-root", "-r"),
)
VALUES = (
    *("", " ", ",", "-", "--", "-1", "0", "1", "2/3", "9" * 30, "x", "X" * 500, "=", "--=", "-=x", "@", "*", "[", "#"),
    *("last", "all", "auto", "cross", "native", "x86_64", "aarch64", "arm64", "3.15", "3.13", "main", "jit", "ft,jit"),
    *(
        "3.15/x86_64/jit",
        "3.15/aarch64/nope",
        "a/b/c/d",
        "//",
        "./mine.toml",
        "../x",
        "/",
        "/dev/null",
        "~",
        "~nobody1/x",
    ),
    *("https://example.invalid/x#main", "x@y:z#main", "file:///x", "a#b", "pull/1", "test_dis", "test.test_zipapp.X"),
    *(
        "json",
        "github",
        "bash",
        "tcsh",
        "stash",
        "list",
        "build",
        "12ab",
        "é",
        "\u202e",
        "\x1b]0;x\x07",
        "\udcff",
        "a\nb",
    ),
)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=8)
words = st.one_of(st.sampled_from(VALUES), st.sampled_from(TASKS), st.sampled_from(GROUPS), texts)
options = st.one_of(
    st.sampled_from(FLAGS + CORE),
    st.builds("{}={}".format, st.sampled_from(FLAGS + CORE), words),
    st.builds("{}{}".format, st.sampled_from(CORE), st.sampled_from(("x", "1", "=", "lx", "hV"))),
    texts.map("-{}".format),
)
tasks = st.one_of(
    st.sampled_from(TASKS).map(lambda name: [name]), st.sampled_from(TASKS).map(lambda name: name.split("."))
)


@st.composite
def of_a_task(draw: st.DrawFn) -> list[str]:
    """A task with options of its own, most of them with a value."""
    name = draw(st.sampled_from(TASKS))
    own = namespace[name].get_arguments()
    line = name.split(".") if draw(st.booleans()) else [name]
    for argument in draw(st.lists(st.sampled_from(own), max_size=3)) if own else []:
        line.append(f"--{argument.name}")
        line += [draw(st.sampled_from(VALUES))] if argument.takes_value else []
    return line + draw(st.lists(options | words, max_size=2))


command_lines = st.builds(
    lambda before, middle, after, rest: before + middle + after + rest,
    st.lists(options, max_size=2),
    st.one_of(of_a_task(), tasks, st.lists(words, max_size=2)),
    st.lists(options | words, max_size=3),
    st.one_of(st.just([]), st.lists(words, max_size=3).map(lambda after: ["--", *after])),
)


def nothing_starts(*arguments: object, **options: object) -> None:
    raise EngineError(NO_ENGINE)


Run = Callable[[list[str]], str | None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Return what runs a command line in a world of its own, and says what is wrong with how it ended."""
    for module, name in ((engine, "connect"), (host, "ensure"), (host, "check"), (host, "setup"), (host, "inspect")):
        monkeypatch.setattr(module, name, nothing_starts)
    monkeypatch.setattr(develop, "run_child", lambda argv, **options: 0)
    monkeypatch.setattr("crossjit.tasks.docs.pages", lambda namespace: {})
    monkeypatch.setattr("crossjit.tasks.cells.schemas", dict)
    monkeypatch.setattr(subprocess, "Popen", nothing_starts)  # the backstop
    monkeypatch.setenv("CROSSJIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "now").mkdir()
    monkeypatch.chdir(tmp_path / "now")
    monkeypatch.delenv("CROSSJIT_PREPARE", raising=False)
    yield lambda argv: problem(argv, monkeypatch)


def problem(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Run a command line; say what is wrong with how it ended, if anything is."""
    monkeypatch.delenv("CROSSJIT_DEBUG", raising=False)
    monkeypatch.setattr(sys, "argv", ["crossjit", *argv])
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace") for _ in range(2))
    code: object = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            program.run()
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    err.flush()
    said = err.buffer.getvalue().decode()
    debug = os.environ.pop("CROSSJIT_DEBUG", None) is not None
    if "this is a bug" in said or ("Traceback" in said and not debug):
        return said[:500]
    if code not in (0, 2, 3):
        return f"ended with {code}: {said[:300]}"
    if code == 3 and NO_ENGINE not in said:
        return f"is called infrastructure's: {said[:300]}"
    if code == 2 and not ("error: " in said and "hint: " in said):
        return f"ended with 2 and without an error and a hint: {said[:300]!r}"
    return None


@settings(suppress_health_check=[*HealthCheck])
@given(command_lines)
@example(["build", "-T", "x"])
@example(["build", "-D", "x"])
@example(["build", "--config", "x"])
@example(["build", "--prompt-for-sudo-password"])
@example(["--list", "x"])
@example(["--list", "--list-format", "x"])
@example(["build", "--arch", ""])
@example(["build", "--source", "~nobody1/x"])
@example(["report", "--html", "~nobody1/x"])
def test_no_command_line_ends_in_a_way_of_its_own(run: Run, argv: list[str]) -> None:
    assert run(argv) is None, argv


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (["--list"], 0),
        (["build", "-T", "x"], 2),
        (["--list", "x"], 2),
        (["build", "--config", "x"], 2),
        (["cells", "--format", ""], 2),
        (["cells", "--shards", "2"], 2),
        (["cells", "--runner", "aarch64=mine"], 2),
        (["cells", "--source", "v3.15.0"], 2),
        (["debug", "--cell", "3.15/x86_64/nope", "--", "-c", "import os; os.abort()"], 2),
        (["stash", "list", "--", "x"], 2),
        (["lint", "-V"], 0),
    ],
)
def test_the_process_ends_so_too(line: list[str], code: int, tmp_path: Path) -> None:
    environ = {**os.environ, "CROSSJIT_HOME": str(tmp_path / "home"), "PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "crossjit", *line],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert (done.stdout == f"crossjit {__version__}\n") is ("-V" in line), "and no task was run"
