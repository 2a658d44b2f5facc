"""Handling signals in benchmarks, so that they always clean up."""

from __future__ import annotations

import signal
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def watch() -> None:
    """Let all signals that end the process unwind it as Ctrl-C does, so that nothing is left; only the first counts."""
    for number in SIGNALS:
        signal.signal(number, _interrupted)


def uninterrupted(work: Callable[[], None]) -> None:
    """Call a function with signals ignored."""
    handlers = [signal.signal(number, signal.SIG_IGN) for number in SIGNALS]
    try:
        work()
    finally:
        for number, handler in zip(SIGNALS, handlers, strict=True):
            signal.signal(number, handler)


def _interrupted(number: int, frame: object) -> None:
    for ignored in SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    raise KeyboardInterrupt
