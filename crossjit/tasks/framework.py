"""What every task shares: how it prints, and how it ends; errors become a message, a hint and an exit code."""

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

BROKEN_PIPE = 128 + signal.SIGPIPE  # what a shell reports for a program that wrote to a pipe nobody reads
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CLEAN = "interrupted; nothing was left running"
NOT_CLEAN = f"interrupted, and cleaning up failed; `{PROGRAM} clean` removes what is left"


class Command(Task[Any]):
    """A task that ends the process as the README says, under plain `invoke` as under `./inv`.

    Its body returns None, or the ExitCode to end with. `rest` names the iterable option that bare words after the task
    are values of, so that `stash verify ID` means `stash verify --artifact ID`; `words` says that it takes what comes
    after ` -- `, which `words_after_dashes` gives.
    """

    def __init__(
        self, body: Callable[..., Any], *, rest: str | None = None, words: bool = False, **arguments: Any
    ) -> None:
        arguments.setdefault("auto_shortflags", False)
        super().__init__(body, **arguments)
        self.rest = rest
        self.words = words
        self._described: Mapping[str, str] = dict(self.help)

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return the task's arguments; invoke uses its help texts up, so they are handed out anew each time."""
        self.help = dict(self._described)
        return super().get_arguments(ignore_unknown_help)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body. Raises Exit with the code that belongs to how it went."""
        with ending():
            code = super().__call__(*args, **kwargs)
            sys.stdout.flush()
        if code:
            raise Exit(code=int(code))


def command(**arguments: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a task; the arguments are invoke's own (`name`, `help`, `iterable`, …) and `rest`."""

    def decorate(body: Callable[..., Any]) -> Command:
        return Command(body, **arguments)

    return decorate


def words_after_dashes(context: Context) -> tuple[str, ...]:
    """Return what came after ` -- `. Raises UserError where it cannot be known.

    invoke joins it with spaces, so one word could not be told from two; it is taken from the process's command line.
    """
    words = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if " ".join(words) != context.remainder:
        raise UserError("the words after -- cannot be told apart here", hint=f"run it with {PROGRAM}")
    return tuple(words)


def show(text: str) -> None:
    """Print to stdout."""
    print(output.text(text, color=terminal_style.style_of(sys.stdout).color))


def show_bytes(content: bytes) -> None:
    """Write a document to stdout as it is, whatever the locale's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)


def note(text: str) -> None:
    """Print to stderr, where what is not the result goes."""
    print(output.text(text), file=sys.stderr)


def show_json(value: object) -> None:
    """Print a value as JSON."""
    print(output.json(json.dumps(value, indent=2, ensure_ascii=False, default=str)))


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, as the terminal allows."""
    show(tables.render(headers, rows, terminal_style.style_of(sys.stdout)))


class Notes(Silent):
    """A Progress for tasks that have nothing to wait for: what is said goes to stderr, steps are not shown."""

    def say(self, text: str) -> None:
        """Print it."""
        note(text)


class Signalled(KeyboardInterrupt):
    """A signal that asks the process to end; what unwinds is told apart from an error as a Ctrl-C is."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


def run_child(argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None) -> int:
    """Run a program on our own terminal and return its exit status.

    An interruption is passed on, and the program gets the time it needs to clean up.
    """
    child = subprocess.Popen(list(argv), cwd=cwd, env=None if environment is None else dict(environment))
    try:
        return child.wait()
    except KeyboardInterrupt as interruption:
        # A Ctrl-C at the terminal reached the child as well; a second one would cut its clean-up short.
        if not (isinstance(interruption, Signalled) and interruption.number == signal.SIGINT and sys.stdin.isatty()):
            child.send_signal(signal.SIGINT)
        child.wait()
        raise
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def asker() -> Callable[[str], bool] | None:
    """Return `confirm`, or None where nobody is there to answer."""
    return confirm if sys.stdin.isatty() and sys.stderr.isatty() else None


def confirm(question: str) -> bool:
    """Ask a yes-or-no question at the terminal."""
    print(f"{output.text(question)}\ngo ahead? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# How a task ends


def ended(text: str, code: ExitCode) -> Exit:
    """Return what ends the process with a text on stderr."""
    return Exit(output.text(text), code)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Turn whatever leaves the block into an Exit with message and code."""
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
            raise _unforeseen(error) from error
        raise Exit(code=BROKEN_PIPE) from None
    except Exception as error:
        raise _unforeseen(error) from error


def _with_leftovers(text: str, error: BaseException) -> str:
    """Add what an error or interruption leaves in the engine: each thing, why, and the command that removes it."""
    found = left_by(error)
    if not found:
        return text
    text = text or "interrupted, and something is left in the engine"
    lines = [f"left: {each.what}: {each.reason}" for each in found]
    commands = "; ".join(f"`{each.remedy}`" for each in found)
    return "\n".join([text, *lines, f"hint: {commands} removes it, as the next build or validate does"])


@contextlib.contextmanager
def telling(engine: Engine) -> Iterator[None]:
    """Have what the block leaves in the engine told: with what ends the block, or by itself."""
    try:
        yield
    except BaseException as error:
        leave(error, engine.leftovers)
        raise
    for each in engine.leftovers:
        note(f"left: {each.what}: {each.reason}; `{each.remedy}` removes it")


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Make SIGTERM and SIGHUP unwind as Ctrl-C does; a second signal does not cut the clean-up short, a third does."""
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
        if current is not None and current is not signal.SIG_IGN:  # nohup's wish is respected
            previous[number] = signal.signal(number, handle)
    try:
        yield arrived
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stdout_is_gone() -> bool:
    """Whether nobody reads stdout any more; if so, spare the interpreter the same error at its end."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except OSError:  # captured: there is no descriptor behind it
        return False
    if not any(events & select.POLLERR for _, events in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return True


def _unforeseen(error: Exception) -> Exit:
    """Say what the disk refused, where no step said it better; write all else to a file and say where it is."""
    import tempfile

    from crossjit import settings
    from crossjit.runs import bug_report

    _trace(error)
    try:
        home = settings.load().home
    except CrossjitError:
        home = Path(tempfile.gettempdir())
    shown = bug_report.as_crossjit_error(error, home)
    return ended(tables.error_text(shown), shown.exit_code)


def _trace(error: Exception) -> None:
    """Show the traceback if it is asked for. Raising it would end the process with 1."""
    from crossjit import settings

    if settings.wants_traceback():
        import traceback

        note("".join(traceback.format_exception(error)))
