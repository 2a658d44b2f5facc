"""Shared by all tasks: printing, and ending with a message, a hint and an exit code for errors."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task

from crossjit import PROGRAM
from crossjit.errors import CrossjitError, ExitCode, Interrupted, UserError, leave, left_by
from crossjit.progress import Silent
from crossjit.report import output, tables, terminal_style

if TYPE_CHECKING:
    from crossjit.engine.base import Engine

BROKEN_PIPE = 128 + signal.SIGPIPE  # as a shell reports a program that wrote to a closed pipe
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CLEAN = "interrupted; nothing was left running"
NOT_CLEAN = f"interrupted, and cleaning up failed; `{PROGRAM} clean` removes what is left"


class Command(Task[Any]):
    """A task that ends with crossjit's exit codes, under plain `invoke` as under `./inv`.

    Its body returns None, or the ExitCode. `rest` names the iterable option for bare words after the task, so that
    `stash verify ID` means `stash verify --artifact ID`; `words` says that it accepts words after ` -- `, see
    `words_after_dashes`; `short` has short names of options.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        *,
        rest: str | None = None,
        words: bool = False,
        short: Mapping[str, str] | None = None,
        **arguments: Any,
    ) -> None:
        arguments.setdefault("auto_shortflags", False)
        super().__init__(body, **arguments)
        self.rest = rest
        self.words = words
        self.short = short or {}
        self._described: Mapping[str, str] = dict(self.help)

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return the task's arguments. invoke consumes the help texts, so they are set again each time."""
        self.help = dict(self._described)
        found: list[Argument] = super().get_arguments(ignore_unknown_help)
        for argument in found:
            argument.names += tuple(self.short[name] for name in argument.names if name in self.short)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body. Raises Exit with its code."""
        with ending():
            code = super().__call__(*args, **kwargs)
            sys.stdout.flush()
        if code:
            raise Exit(code=int(code))


def command(**arguments: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a task; the arguments are invoke's own (`name`, `help`, `iterable`, …), `rest` and `words`."""

    def decorate(body: Callable[..., Any]) -> Command:
        return Command(body, **arguments)

    return decorate


def words_after_dashes(context: Context) -> tuple[str, ...]:
    """Return the words after ` -- `. Raises UserError if they cannot be determined.

    invoke joins them with spaces, so they are taken from the process's command line instead.
    """
    words = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if " ".join(words) != context.remainder:
        raise UserError("the words after -- cannot be told apart here", hint=f"run it with {PROGRAM}")
    return tuple(words)


def show(text: str) -> None:
    """Print to stdout."""
    print(output.text(text, color=terminal_style.style_of(sys.stdout).color))


def show_bytes(content: bytes) -> None:
    """Write a document to stdout unchanged, independent of the locale's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)


def note(text: str) -> None:
    """Print to stderr, for all that is not the result."""
    print(output.text(text), file=sys.stderr)


def show_json(value: object) -> None:
    """Print a value as JSON."""
    print(output.json(json.dumps(value, indent=2, ensure_ascii=False, default=str)))


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in the terminal's style."""
    show(tables.render(headers, rows, terminal_style.style_of(sys.stdout)))


class Notes(Silent):
    """A Progress for short tasks: messages go to stderr, steps are not shown."""

    def say(self, text: str) -> None:
        """Print it."""
        note(text)


class Signalled(KeyboardInterrupt):
    """A signal that asks the process to end, handled like a Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


def run_child(argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None) -> int:
    """Run a program on our own terminal and return its exit status.

    An interruption is passed on, and the program may take its time to clean up.
    """
    child = subprocess.Popen(list(argv), cwd=cwd, env=None if environment is None else dict(environment))
    try:
        return child.wait()
    except KeyboardInterrupt as interruption:
        # A Ctrl-C at the terminal also reached the child; a second one would interrupt its clean-up.
        if not (isinstance(interruption, Signalled) and interruption.number == signal.SIGINT and sys.stdin.isatty()):
            child.send_signal(signal.SIGINT)
        child.wait()
        raise
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def asker() -> Callable[[str], bool] | None:
    """Return `confirm`, or None without a terminal."""
    return confirm if sys.stdin.isatty() and sys.stderr.isatty() else None


def confirm(question: str) -> bool:
    """Ask a yes-or-no question at the terminal."""
    print(f"{output.text(question)}\ngo ahead? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# How a task ends


def ended(text: str, code: ExitCode) -> Exit:
    """Return the Exit with a text for stderr."""
    return Exit(output.text(text), code)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Turn every exception of the block into an Exit with message and code."""
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="backslashreplace")  # a C locale must not turn a report into a traceback
    interrupted = False
    try:
        with _interruptible() as arrived:
            try:
                yield
            finally:
                interrupted = bool(arrived)
    except Exit:
        raise
    except KeyboardInterrupt as error:
        raise ended(_with_leftovers("", error) or CLEAN, ExitCode.INTERRUPTED) from None
    except Interrupted as error:
        text = tables.error_text(error) if error.message else ""
        raise ended(_with_leftovers(text, error) or CLEAN, ExitCode.INTERRUPTED) from error
    except CrossjitError as error:
        _trace(error)
        text = _with_leftovers(tables.error_text(error), error)
        if interrupted:
            text = text if left_by(error) else f"{text}\n{NOT_CLEAN}"
            raise ended(text, ExitCode.INTERRUPTED) from error
        raise ended(text, error.exit_code) from error
    except BrokenPipeError as error:
        if not stdout_is_gone():
            raise _unexpected(error) from error
        raise Exit(code=BROKEN_PIPE) from None
    except Exception as error:
        raise _unexpected(error) from error


def _with_leftovers(text: str, error: BaseException) -> str:
    """Add an error's leftovers in the engine: each with the reason, and the command that removes it."""
    leftovers = left_by(error)
    if not leftovers:
        return text
    text = text or "interrupted, and something is left in the engine"
    lines = [f"left: {leftover.what}: {leftover.reason}" for leftover in leftovers]
    commands = "; ".join(f"`{leftover.remedy}`" for leftover in leftovers)
    return "\n".join([text, *lines, f"hint: {commands} removes it, as the next build or validate does"])


@contextlib.contextmanager
def reporting_leftovers(engine: Engine) -> Iterator[None]:
    """Report what the block leaves in the engine: with the exception that ends the block, or by itself."""
    try:
        yield
    except BaseException as error:
        leave(error, engine.leftovers)
        raise
    for leftover in engine.leftovers:
        note(f"left: {leftover.what}: {leftover.reason}; `{leftover.remedy}` removes it")


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP unwind as Ctrl-C does; a second signal does not interrupt the clean-up, a third does."""
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived  # Python runs signal handlers in the main thread only
        return

    def handle(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        if len(arrived) == 2:
            with contextlib.suppress(OSError, RuntimeError):
                print("still cleaning up; once more stops at once", file=sys.stderr, flush=True)
            return
        raise Signalled(number)

    previous = {}
    for number in _SIGNALS:
        current = signal.getsignal(number)
        if current is not None and current is not signal.SIG_IGN:  # as under nohup
            previous[number] = signal.signal(number, handle)
    try:
        yield arrived
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stdout_is_gone() -> bool:
    """Whether nobody reads stdout any more; if so, redirect it, so that flushing it at exit does not fail."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except OSError:  # captured: it has no descriptor
        return False
    if not any(events & select.POLLERR for _, events in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return True


def _unexpected(error: Exception) -> Exit:
    """Return the Exit for an unexpected error: a description of a disk error, the file with the traceback of others."""
    import tempfile

    from crossjit import settings
    from crossjit.runs import bug_report

    _trace(error)
    try:
        home = settings.load().home
    except Exception:  # maybe this one
        home = Path(tempfile.gettempdir())
    shown = bug_report.as_crossjit_error(error, home)
    return ended(tables.error_text(shown), shown.exit_code)


def _trace(error: Exception) -> None:
    """Show the traceback if requested. Raising the error would exit with 1."""
    from crossjit import settings

    if settings.wants_traceback():
        import traceback

        note("".join(traceback.format_exception(error)))
