"""How a benchmark ends: whatever signal ends it, what it made is removed."""

from __future__ import annotations

import signal
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def watch() -> None:
    """Have every signal that ends us end us as Ctrl-C does, so that nothing is left; the first one is enough."""
    for number in SIGNALS:
        signal.signal(number, _interrupted)


def undisturbed(work: Callable[[], None]) -> None:
    """Do something that no signal interrupts."""
    before = [signal.signal(number, signal.SIG_IGN) for number in SIGNALS]
    try:
        work()
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def _interrupted(number: int, frame: object) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
