"""The command line's frame: how tasks end, what a wrong command line says, two-word names, options, start-up."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit

from crossjit import errors
from crossjit.engine.base import ContainerOptions
from crossjit.errors import ExitCode, UserError
from crossjit.model import Arch, Cell, CellResult, Strategy, SuiteResult, Verdict
from crossjit.pipeline.post import is_final
from crossjit.tasks import framework, options
from crossjit.tasks.commandline import CrossjitProgram
from crossjit.tasks.framework import Command, command
from tests.fakes.engine import FakeEngine

ROOT = Path(__file__).resolve().parents[2]

SEEN: list[Any] = []


@command(iterable=["arch"], help={"arch": "which"})
def build(context: Context, arch: list[str] | None = None, jobs: str = "", json: bool = False) -> None:
    """Build."""
    SEEN.append(("build", arch, jobs, json))


@command(name="list", default=True)
def list_things(context: Context) -> None:
    """List."""
    SEEN.append("list")


@command(iterable=["artifact"], rest="artifact")
def verify(context: Context, artifact: list[str] | None = None, json: bool = False) -> None:
    """Verify."""
    SEEN.append(("verify", artifact, json))


@command()
def export(context: Context, artifact: str, folder: str) -> None:
    """Export."""
    SEEN.append(("export", artifact, folder))


@command(words=True)
def show_rest(context: Context) -> None:
    """Show the rest."""
    SEEN.append(framework.words_after_dashes(context))


COLLECTION = Collection(build, show_rest, Collection("stash", list_things, verify, export))


def run(*argv: str) -> int:
    """Run a command line of the collection above and return the exit code."""
    SEEN.clear()
    with (
        pytest.MonkeyPatch.context() as patched,
        pytest.raises(SystemExit) as ended,
    ):
        patched.setattr(sys, "argv", ["crossjit", *argv])
        CrossjitProgram(COLLECTION).run()
        raise SystemExit(0)
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("stash list", ["list"]),
        ("stash", ["list"]),
        ("stash.list", ["list"]),
        ("stash verify", [("verify", [], False)]),
        ("stash verify 12ab 34cd --json", [("verify", ["12ab", "34cd"], True)]),
        ("stash verify --artifact build", [("verify", ["build"], False)]),
        ("stash export 12ab build", [("export", "12ab", "build")]),
        ("build --arch x86_64 --arch=aarch64 --jobs 3", [("build", ["x86_64", "aarch64"], "3", False)]),
        ("build --jobs stash stash list", [("build", [], "stash", False), "list"]),
        ("stash verify 12ab build --json", [("verify", ["12ab"], False), ("build", [], "", True)]),
    ],
)
def test_command_lines_reach_their_tasks(line: str, seen: list[Any]) -> None:
    assert run(*line.split()) == 0
    assert seen == SEEN


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("biuld", ["there is no task 'biuld'; did you mean 'build'?", "./inv --list"]),
        ("build --arhc x86_64", ["there is no option --arhc for build; did you mean '--arch'?", "./inv build --help"]),
        ("build --jobs", ["--jobs needs a value", "./inv build --help"]),
        ("build x86_64", ["there is no task 'x86_64', and build takes no such argument"]),
        ("stash lits", ["stash has no task 'lits'; did you mean 'list'?", "`./inv stash verify`"]),
        ("stash export 12ab", ["stash export needs FOLDER", "./inv stash export --help"]),
        ("--help biuld", ["there is no task 'biuld'"]),
        ("--list-depth many", ["an option has an invalid value"]),
    ],
)
def test_wrong_command_lines_are_the_users(line: str, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*line.split()) == ExitCode.USER
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert all(part in shown for part in said), shown
    assert "Traceback" not in shown
    assert SEEN == []


def test_what_comes_after_two_dashes_keeps_its_words() -> None:
    assert run("show-rest", "--", "-c", "print('a  b')", "", "--json", "--help") == 0
    assert SEEN == [("-c", "print('a  b')", "", "--json", "--help")]


def test_words_that_cannot_be_told_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["elsewhere"])
    with pytest.raises(UserError, match="cannot be told apart"):
        framework.words_after_dashes(Context(remainder="-c import os; os.abort()"))
    monkeypatch.setattr(sys, "argv", ["x", "--", "-c", "import os; os.abort()"])
    assert framework.words_after_dashes(Context(remainder="-c import os; os.abort()")) == (
        *("-c", "import os; os.abort()"),
    )


@pytest.mark.parametrize("line", ["build -- -k x", "-- x", "stash list -- x"])
def test_words_after_dashes_go_to_a_task_that_takes_them(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*line.split()) == ExitCode.USER
    assert "no task here takes arguments after --" in capsys.readouterr().err
    assert SEEN == []


@pytest.mark.parametrize(
    "line",
    [
        "build -T 3",
        "build --config x",
        "--config x build",
        "build --prompt-for-sudo-password",
        "build --dry",
        "-R build",
    ],
)
def test_invokes_options_that_mean_nothing_here_are_not_taken(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*line.split()) == ExitCode.USER
    assert "there is no option -" in capsys.readouterr().err
    assert SEEN == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("build -D x", "an option has an invalid value"),
        ("--list stahs", "invalid --list 'stahs'; did you mean 'stash'?"),
        ("--list --list-format xml", "invalid --list-format 'xml'"),
        ("--list --list-format json --list-depth 1", "--list-depth option is not supported"),
        ("--print-completion-script tcsh", "tcsh"),
        ("--list build", "invalid --list 'build'"),
    ],
)
def test_what_only_invoke_refuses_ends_with_2(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*line.split()) == ExitCode.USER
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert said in shown


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["build", "--arch", ""], "--arch"),
        (["build", "--arch=", "--json"], "--arch"),
        (["build", "--arch", " , "], "--arch"),
        (["build", "--jobs", ""], "--jobs"),
        (["stash", "verify", ""], "--artifact"),
        (["stash", "export", "12ab", ""], "FOLDER"),
        (["stash", "list", "build", "--jobs", " "], "--jobs"),
    ],
)
def test_a_value_that_is_given_and_empty_is_refused(
    words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == ExitCode.USER
    assert capsys.readouterr().err.startswith(f"error: {name} is empty\n")
    assert SEEN == []


@pytest.mark.parametrize("line", ["--complete", "--complete -- x 'b", "--complete -- x build --", "--complete -- x -"])
def test_completing_never_fails(line: str) -> None:
    assert run(*line.split(" ")) == 0


def test_a_bug_before_any_task_ends_with_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(CrossjitProgram, "parse_cleanup", lambda self: 1 / 0)
    assert run("build") == ExitCode.INFRASTRUCTURE
    assert "this is a bug in crossjit: ZeroDivisionError" in capsys.readouterr().err


def test_invokes_settings_are_not_read(tmp_path: Path) -> None:
    (tmp_path / ".invoke.yaml").write_text("run: [")
    environ = {**os.environ, "HOME": str(tmp_path), "INVOKE_RUN_ENV": "x", "CROSSJIT_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "crossjit", "stash", "list"], cwd=ROOT, env=environ, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, f"the stash is empty: {tmp_path}/home/stash\n")


def test_help_texts_last(capsys: pytest.CaptureFixture[str]) -> None:
    """invoke uses a task's help up as it reads it; rewriting reads it first."""
    assert run("stash", "list", "build", "--help") == 0
    assert "which" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line", ["stash export --help", "stash export 12ab -h", "stash.export --help", "--help stash.export"]
)
def test_help_needs_no_arguments(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*line.split()) == 0
    assert "Export." in capsys.readouterr().out
    assert SEEN == []


def ending(body: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a body as a task; return the exit code and what invoke would write to stderr."""

    def task(context: Context) -> Any:
        return body()

    try:
        Command(task)(Context())
    except Exit as left:
        return left.code, capsys.readouterr().err + (left.message or "")
    return 0, capsys.readouterr().err


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CROSSJIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CROSSJIT_DEBUG", raising=False)
    return tmp_path / "home"


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UserError, 2),
        (errors.DocumentError, 2),
        (errors.SourceError, 2),
        (errors.BuildError, 1),
        (errors.EngineError, 3),
        (errors.StashError, 3),
        (errors.Interrupted, 130),
    ],
)
def test_errors_become_message_details_hint_and_code(
    kind: type[errors.CrossjitError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, text = ending(raising(kind("it broke", hint="mend it", details=("one", "two"))), capsys)
    assert ended == code
    word = "interrupted" if code == 130 else "error"
    assert text == f"{word}: it broke\n  one\n  two\nhint: mend it"


def test_a_tasks_own_code_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(lambda: ExitCode.VACUOUS, capsys) == (4, "")
    assert ending(lambda: ExitCode.PASS, capsys) == (0, "")
    assert ending(lambda: None, capsys) == (0, "")


def test_a_bug_is_one_message_and_a_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = ending(raising(ZeroDivisionError("by nothing")), capsys)
    assert code == ExitCode.INFRASTRUCTURE
    assert text.startswith("error: this is a bug in crossjit: ZeroDivisionError: by nothing\nhint: ")
    (report,) = (home / "crashes").iterdir()
    assert str(report) in text
    written = report.read_text()
    assert "Traceback" in written
    assert "raise error" in written


def test_a_bug_where_nothing_can_be_written_shows_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CROSSJIT_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    code, text = ending(raising(ZeroDivisionError("by nothing")), capsys)
    assert code == ExitCode.INFRASTRUCTURE
    assert "Traceback" in text


@pytest.mark.parametrize(
    ("error", "code"), [(ZeroDivisionError("by nothing"), ExitCode.INFRASTRUCTURE), (UserError("wrong"), ExitCode.USER)]
)
def test_debug_shows_the_traceback_and_keeps_the_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raised to the top, any of them would end the process with 1, which says that CPython fails."""
    monkeypatch.setenv("CROSSJIT_DEBUG", "1")
    ended, text = ending(raising(error), capsys)
    assert ended == code
    assert "Traceback (most recent call last)" in text
    assert str(error) in text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_disk_refuses_is_no_bug(number: int, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = ending(raising(OSError(number, os.strerror(number), "/somewhere/file")), capsys)
    assert code == ExitCode.INFRASTRUCTURE
    assert os.strerror(number).lower() in text
    assert "/somewhere/file" in text
    assert "hint: " in text
    assert "bug" not in text
    assert not home.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_and_ends_with_130(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
    found = signal.signal(number, before)  # under nohup, or in a shell's background, it may be ignored
    cleaned = []

    def body() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as interruption:
            cleaned.append(str(interruption))
            raise

    try:
        assert ending(body, capsys) == (130, framework.CLEAN)
        assert cleaned == [f"interrupted by {number.name}"]
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, found)


def test_a_second_signal_does_not_cut_the_cleaning_short(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    def body() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)

    code, text = ending(body, capsys)
    assert code == 130
    assert text.startswith("still cleaning up")
    assert cleaned


def test_a_cleaning_that_fails_is_not_called_clean(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise errors.EngineError("the engine is gone")

    code, text = ending(body, capsys)
    assert code == 130
    assert "the engine is gone" in text
    assert framework.NOT_CLEAN in text
    assert framework.CLEAN not in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_names_the_container_that_is_left(
    capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    engine = FakeEngine()
    engine.add_image("tiny", arch=Arch.X86_64)

    def body() -> None:
        with (
            framework.reporting_leftovers(engine),
            engine.container(ContainerOptions("tiny", arch=Arch.X86_64, name="crossjit-build-x", labels={})),
        ):
            engine.die()
            signal.raise_signal(number)

    code, text = ending(body, capsys)
    assert code == 130
    assert "left: the container crossjit-build-x: the container engine (docker) does not answer" in text
    assert "docker rm --force --volumes crossjit-build-x" in text
    assert framework.CLEAN not in text


def test_a_failure_names_the_container_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine()
    engine.add_image("tiny", arch=Arch.X86_64)

    def body() -> None:
        with (
            framework.reporting_leftovers(engine),
            engine.container(
                ContainerOptions("tiny", arch=Arch.X86_64, name="crossjit-build-x", labels={})
            ) as container,
        ):
            engine.die()
            container.run(["true"])

    code, text = ending(body, capsys)
    assert code == 3
    assert "error: the container engine (docker) does not answer" in text
    assert "docker rm --force --volumes crossjit-build-x" in text


def test_what_is_left_is_told_where_nothing_fails_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine()
    engine.leftovers.append(errors.Leftover("the container x", "it hangs", "docker rm x"))

    def body() -> None:
        with framework.reporting_leftovers(engine):
            pass

    code, text = ending(body, capsys)
    assert code == 0
    assert "left: the container x: it hangs; `docker rm x` removes it" in text


def test_a_pipe_that_nobody_reads_is_quiet() -> None:
    script = (
        "from crossjit.tasks.framework import command\n"
        "from invoke import Collection, Program\n"
        "@command()\n"
        "def many(context):\n"
        "    for number in range(100_000): print(number)\n"
        "Program(namespace=Collection(many)).run(['x', 'many'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_another_broken_pipe_is_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = ending(raising(BrokenPipeError()), capsys)
    assert code == ExitCode.INFRASTRUCTURE
    assert "this is a bug in crossjit" in text


def test_a_child_that_is_interrupted_may_clean_up(tmp_path: Path) -> None:
    """The task is sent a SIGTERM; its child gets a SIGINT and has written its last words before the task ends."""
    child = (
        "import pathlib, sys, time\n"
        "print('up', flush=True)\n"
        "try:\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.2); pathlib.Path('cleaned').touch()\n"
    )
    script = (
        "import sys, pathlib\n"
        "from crossjit.tasks.framework import command, run_child\n"
        "from invoke import Collection, Program\n"
        "@command()\n"
        "def wait(context):\n"
        f"    run_child([sys.executable, '-c', {child!r}], cwd=pathlib.Path({str(tmp_path)!r}))\n"
        "Program(namespace=Collection(wait)).run(['x', 'wait'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert framework.CLEAN in process.stderr.read().decode()
    assert process.returncode == ExitCode.INTERRUPTED
    assert (tmp_path / "cleaned").exists()


def test_output_that_the_locale_cannot_say_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))

    @command()
    def speak(context: Context) -> None:
        framework.show("naïve ✓")

    speak(Context())
    assert written.getvalue() == b"na\\xefve \\u2713\n"


# options


def test_options_become_values() -> None:
    request = options.read(
        arch=["x86_64,aarch64", "x86_64"],
        recipe=["3.15"],
        variant=["jit", "ft,"],
        strategy="cross",
        jobs="4",
        cpu="max",
    )
    assert request.arches == (Arch.X86_64, Arch.AARCH64)
    assert request.recipes == ("3.15",)
    assert request.variants == ("jit", "ft")
    assert request.strategy is Strategy.CROSS
    assert request.jobs == 4
    assert request.cpu == "max"
    assert request.source is None


def test_options_left_out_are_left_to_the_host() -> None:
    assert options.read() == options.Request()
    assert options.read(strategy="auto").strategy is None
    assert options.read(arch=["all"]).arches == tuple(Arch)


@pytest.mark.parametrize(
    ("given", "said", "hint"),
    [
        ({"arch": ["arm64"]}, "there is no arch 'arm64'; did you mean 'aarch64'?", "x86_64, aarch64"),
        ({"arch": ["x86_64,riscv64"]}, "there is no arch 'riscv64'", "x86_64, aarch64"),
        ({"strategy": "croos"}, "there is no strategy 'croos'; did you mean 'cross'?", "auto, native, cross, emulate"),
        ({"jobs": "many"}, "invalid --jobs 'many': expected a whole number of at least 1", "--jobs 4"),
        ({"jobs": "0"}, "invalid --jobs '0': expected a whole number of at least 1", "--jobs 4"),
        ({"jobs": "²"}, "invalid --jobs '²': expected a whole number", "--jobs 4"),
    ],
)
def test_wrong_options_name_the_choices(given: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        options.read(**given)
    assert said in raised.value.message
    assert hint in raised.value.hint


# the whole


def invoke(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run plain invoke in the clone."""
    return subprocess.run(
        [sys.executable, "-m", "invoke", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def tasks() -> Iterator[tuple[str, Command]]:
    from crossjit.tasks import namespace

    for name in namespace.task_names:
        task = namespace[name]
        assert isinstance(task, Command)
        yield name, task


def test_no_documented_task_is_gone() -> None:
    from crossjit.tasks import namespace

    names = {name.replace(".", " ") for name in namespace.task_names}
    wanted = "doctor,setup,build,validate,plan,cells,shell,report,compare,clean,test,lint,schema,runs list,runs show,"
    wanted += "stash list,stash show,stash verify,stash export,stash gc"
    wanted += ",stash push,stash pull,stash keygen"
    assert set(wanted.split(",")) <= names


def test_every_option_is_described_with_its_default() -> None:
    for name, task in tasks():
        assert task.__doc__, name
        for argument in task.get_arguments():
            assert argument.help, f"{name} --{argument.name}"
            if argument.name != "json":
                assert "default" in argument.help or "required" in argument.help, f"{name} --{argument.name}"


def test_every_list_has_json() -> None:
    without = {"shell", "test", "lint", "docs", "schema", "stash export", "ci init", "ci publish"}
    for name, task in tasks():
        has = any(argument.name == "json" for argument in task.get_arguments())
        assert has or name.replace(".", " ") in without, name


def test_help_names_every_recipe_and_variant() -> None:
    from crossjit.config import recipes

    found = recipes.load_all(ROOT / "recipes")
    for name, recipe in found.items():
        assert name in options.HELP["recipe"]
        for variant in recipe.variants:
            assert variant in options.HELP["variant"]


def test_help_names_the_default_cpus() -> None:
    for arch in Arch:
        assert f"{arch.cpu} for {arch}" in options.HELP["cpu"]


def test_plain_invoke_is_left_alone_and_runs_the_tasks(tmp_path: Path) -> None:
    before = "import invoke.main; before = dict(vars(invoke.main.program)); import crossjit.tasks"
    script = f"{before}; assert vars(invoke.main.program) == before"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    listed = invoke("stash.list", "--json", CROSSJIT_HOME=str(tmp_path))
    assert (listed.returncode, json.loads(listed.stdout)) == (0, [])
    assert not list(tmp_path.iterdir()), "looking at an empty stash left something behind"
    wrong = invoke("stash.show", "12ab", CROSSJIT_HOME=str(tmp_path))
    assert (wrong.returncode, wrong.stdout) == (ExitCode.USER, "")
    words = invoke("debug", "--cell", "3.15/x86_64/nope", "--", "-c", "import os")
    assert words.returncode == ExitCode.USER
    assert "there is no variant 'nope'" in words.stderr


def test_listing_imports_nothing_heavy() -> None:
    """Start-up is quick only as long as the heavy libraries wait until a task needs them."""
    heavy = {
        "pydantic",
        "rich",
        "python_on_whales",
        "tenacity",
        "urllib3",
        "filelock",
        "junitparser",
        "tomli",
        "elftools",
        "jinja2",
    }
    script = f"import sys, crossjit.tasks; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_tests_and_checks_need_their_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    from crossjit.tasks import develop

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pytest is not installed"):
        develop.test.body(Context())


@pytest.mark.parametrize(
    ("verdict", "suites", "final"),
    [
        (Verdict.PASS, True, True),
        (Verdict.VACUOUS, True, True),
        (Verdict.FAIL, True, False),  # its failures may have been listed since
        (Verdict.FAIL, False, True),  # it does not build
        (Verdict.INFRA, True, False),
        (Verdict.ABORTED, False, False),
    ],
)
def test_what_is_taken_up_of_a_run(verdict: Verdict, suites: bool, final: bool) -> None:
    ran = (SuiteResult("jit", (), 1.0),) if suites else ()
    result = CellResult(Cell("3.15", Arch.X86_64, "jit"), verdict, (), suites=ran)
    assert is_final(result) is final
