"""Progress on stderr: live lines on a terminal, plain lines elsewhere, folded groups under GitHub Actions."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from crossjit.errors import CrossjitError, Interrupted
from crossjit.progress import Step, StepState
from crossjit.report import output
from crossjit.report.terminal_style import TerminalStyle, columns, style_of
from crossjit.util.text import duration, one_line, printable, shortened

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

HEARTBEAT = 30.0  # seconds between progress lines where nothing can be redrawn
EARLY = 5.0  # seconds until the first one
TAIL = 20  # lines of a failed command's output
WIDTH = 2000  # characters kept of a line of output
FOLDED = 2000  # lines kept for GitHub's folded group
BAR = 20  # columns
LATE = 10.0  # seconds after its expected end until a step is reported as late


class Terminal:
    """A Progress for people. Use it as a context manager; steps may come from several threads.

    The output of commands is in the run's log, and shown here only if its step fails without details of its own. Under
    GitHub Actions each step's output is a folded group, written as one block at the step's end, because groups do not
    nest and steps may run in parallel.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        style: TerminalStyle | None = None,
        clock: Callable[[], float] = time.monotonic,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        self._stream = stream or sys.stderr
        self._github = output.on_github(environ)
        self._style = style or style_of(self._stream, environ)
        self._clock = clock
        self._heartbeat = heartbeat
        self._lock = threading.RLock()
        self._open: list[_Row] = []
        self._explained: BaseException | None = None
        self._console: Console | None = None
        self._live: Live | None = None
        self._stopped = threading.Event()
        self._pulse: threading.Thread | None = None

    def __enter__(self) -> Terminal:
        if self._style.live and not self._github:
            self._start_live()
        else:
            self._pulse = threading.Thread(target=self._beat_until_stopped, name="heartbeat", daemon=True)
            self._pulse.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._pulse is not None:
            self._pulse.join()
            self._pulse = None

    @contextlib.contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[Step]:
        """Open a timed step."""
        row = _Row(name, subject, self._clock, keep=FOLDED if self._github else TAIL)
        with self._lock:
            self._open.append(row)
        error: BaseException | None = None
        try:
            yield row
        except BaseException as raised:
            error = raised
            raise
        finally:
            with self._lock:
                self._open.remove(row)
                self._finish(row, error)

    def say(self, text: str) -> None:
        """Write a message on a line of its own."""
        with self._lock:
            self._write(text)

    def beat(self) -> None:
        """Write a progress line for each open step that is due."""
        with self._lock:
            for row in self._open:
                if row.is_due(self._heartbeat):
                    self._write(f"  {row.describe(self._style)}")

    def _beat_until_stopped(self) -> None:
        while not self._stopped.wait(min(self._heartbeat, 1.0)):
            self.beat()

    # Writing lines

    def _finish(self, row: _Row, error: BaseException | None) -> None:
        interrupted = isinstance(error, (KeyboardInterrupt, Interrupted))
        good = None if interrupted else error is None
        word = "  interrupted" if interrupted else "  failed" if error is not None and self._style.unicode else ""
        line = f"{self._style.mark(good)} {row.title}  {duration(row.elapsed)}{word}"
        tail = self._tail(row, error)
        if self._github:
            self._write_folded(line, row)
        else:
            self._write(line, style={True: "green", False: "bold red", None: "yellow"}[good], lead=1)
            for output_line in tail:
                self._write(f"    {output_line}")

    def _tail(self, row: _Row, error: BaseException | None) -> list[str]:
        """Return a failed step's output, or nothing if an inner step showed it or the error has details."""
        if error is None or isinstance(error, (KeyboardInterrupt, Interrupted)) or error is self._explained:
            return []
        self._explained = error
        if isinstance(error, CrossjitError) and error.details:
            return []
        return list(row.lines)[-TAIL:]

    def _write_folded(self, line: str, row: _Row) -> None:
        if not row.lines:
            self._write(line)
            return
        self._emit(output.group(line, "\n".join(row.lines)))

    def _write(self, text: str, *, style: str = "", lead: int = 0) -> None:
        """Write lines; `style` colours the first `lead` words."""
        if self._console is not None:
            from rich.text import Text

            rendered = Text(printable(text))
            if style:
                rendered.stylize(style, 0, len(" ".join(text.split(" ")[:lead])))
            self._console.print(rendered, soft_wrap=True)
            return
        self._emit(output.uncommanded(printable(text)) if self._github else printable(text))

    def _emit(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"  # a stream in memory has none
        self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        self._stream.flush()

    def _start_live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(
            file=self._stream,
            force_terminal=True,
            width=self._style.width,
            no_color=not self._style.color,
            color_system="standard" if self._style.color else None,
            highlight=False,
            emoji=False,
            markup=False,
        )
        self._live = Live(
            self,
            console=self._console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the open steps, one line each, cut to the terminal's width; rich calls this several times a second."""
        from rich.text import Text

        rows = list(self._open)  # without our lock: the drawing thread holds rich's, which other threads take in ours
        room = max(1, options.max_height - 1)
        width = min(options.max_width, columns(self._stream))  # the terminal may be narrower now
        for row in rows[-room:]:
            text = Text(f"{self._style.mark(None)} {row.describe(self._style)}")
            text.truncate(width)
            yield text


class _Row:
    """An open step on the terminal."""

    def __init__(self, name: str, subject: str, clock: Callable[[], float], *, keep: int) -> None:
        self.title = one_line(f"{name} {subject}".strip())
        self.lines: deque[str] = deque(maxlen=keep)
        self.shown: float | None = None
        self._clock = clock
        self._state = StepState(clock)

    @property
    def elapsed(self) -> float:
        """Seconds since the step was opened."""
        return self._state.elapsed

    def update(
        self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
    ) -> None:
        """Store the given values; the others stay as they are."""
        self._state.update(done, total, one_line(shortened(detail, WIDTH)), left)

    def line(self, text: str) -> None:
        """Store a line, to be shown if the step fails."""
        self.lines.append(shortened(text, WIDTH))

    def is_due(self, heartbeat: float) -> bool:
        """Whether a progress line is due: an early one, then one every `heartbeat` seconds."""
        if self.shown is None:
            return self.elapsed >= min(EARLY, heartbeat)
        return self._clock() - self.shown >= heartbeat

    def describe(self, style: TerminalStyle) -> str:
        """Return the step's state on one line: title, elapsed time, finished share, remaining time, detail."""
        self.shown = self._clock()
        parts = (self.title, duration(self.elapsed), self._share(style), self._left(), self._state.detail)
        return "  ".join(part for part in parts if part)

    def _share(self, style: TerminalStyle) -> str:
        share, finished, total = self._state.share, self._state.done, self._state.total
        counted = "" if finished is None else f"({finished}/{total})" if total else str(finished)
        if share is None:
            return counted.strip("()")
        text = f"{share:.0%} {counted}".strip()
        # no bar if it would leave too little room for the rest
        if not style.live or style.width < 80:
            return text
        full, empty = ("━", "╌") if style.unicode else ("#", ".")
        filled = int(share * BAR)
        return f"{full * filled}{empty * (BAR - filled)} {text}"

    def _left(self) -> str:
        remaining = self._state.left
        if remaining is None or -LATE < remaining <= 0:
            return ""
        if remaining <= 0:
            return "longer than expected"
        step = 5 if remaining < 60 else 10 if remaining < 600 else 60
        return f"about {duration(math.ceil(remaining / step) * step)} left"
