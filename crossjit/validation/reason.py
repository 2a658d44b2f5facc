"""Why a test failed, in its own words: the one line of a log or a message that says it. Pure.

That is the fatal error, the assertion or the exception, whichever came last: what a debugger, an interpreter or a
sanitizer writes behind it (stacks, lists of threads and modules, diffs) is no reason. Nothing is decided by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# What a process writes before it aborts: an assertion, as glibc and `_PyObject_AssertFailed` in Objects/object.c write
# it, what the allocator found, or a fatal error, behind which faulthandler writes another for the signal.
_BEFORE_ABORT = re.compile(
    r"""\S+:\d+: .*Assertion [`"].*['"] failed.*"""
    r"|^(?:(?:free|malloc|realloc|calloc|munmap_chunk|malloc_consolidate)\(\): .*|double free or corruption.*"
    r"|Fatal Python error: (?!Aborted|_PyObject_AssertFailed).*|corrupted \S+ vs\. .*|\*\*\* [\w ]+ \*\*\*.*)$",
    re.M,
)
_ABORTED = re.compile(r"Fatal Python error: (?:Aborted|_PyObject_AssertFailed)\b")

# faulthandler's and the interpreter's own last words may follow the name of a test; `Timeout` is faulthandler's too.
_FATAL = r"Fatal Python error: .*|Timeout \(\d+:\d\d:\d\d(?:\.\d+)?\)!$|SUMMARY: \w+Sanitizer: .*"
_EXCEPTION = r"^(?:\w+\.)*\w*(?:Error|Exception|Failed): .*$"
_SAID = re.compile(f"(?:{_FATAL}|{_EXCEPTION})", re.M)
NEAR = 4000  # characters before an abort in which it is told why
_FRAME = (" ", "\t", "|")

_ALPHANUMERIC = re.compile(r"[^\W_]")

# What crossjit says of the end of a process closes a message: it names the module and the signal.
_ENDED = re.compile(r"^\S+: (?:killed (?:by|after) |exit status \d)")


def last_words(text: str) -> str:
    r"""Find the last fatal error, assertion or exception in a log; empty where there is none.

    >>> last_words("test_x ... Fatal Python error: Segmentation fault\n\nC stack:\n  Binary file …, at _start+0x21")
    'Fatal Python error: Segmentation fault'
    """
    found = max(_candidates(text), default=(0, ""))
    if _ABORTED.match(found[1]):
        before = list(_BEFORE_ABORT.finditer(text, max(0, found[0] - NEAR), found[0]))
        return before[-1][0] if before else found[1]
    return found[1]


def of(message: str) -> str:
    """Return the line that a message comes down to: what it says of a process's end, else its last words.

    A message without either comes down to its last line that has a letter or a digit.
    """
    lines = [line.strip() for line in message.splitlines()]
    last = next(filter(_ALPHANUMERIC.search, reversed(lines)), "")
    if _ENDED.match(last):
        return last
    words = last_words(message)
    return next((line for line in reversed(lines) if words in line), last) if words else last


def cut(message: str, limit: int) -> str:
    r"""Keep the end of a message, and its reason where that came before: a stack may be longer than all else.

    >>> cut("Fatal Python error: Aborted\n\n  frame\n  frame", 10)
    'Fatal Python error: Aborted\n…\n  frame'
    """
    end = message[-limit:]
    said = of(message)
    return end if said in end else f"{said[:limit]}\n…\n{end.partition(chr(10))[2] or end}"


def remark(message: str, text: str) -> str:
    """Add something to a message where its reason is, so that it is read with it."""
    said = of(message)
    if not said:
        return text
    before, _, after = message.rstrip().rpartition(said)
    return f"{before}{said}; {text}{after}"


def _candidates(text: str) -> Iterator[tuple[int, str]]:
    """Find what may be the reason, each with its place: also exceptions with unusual names, by their traceback."""
    yield from ((match.start(), match[0]) for match in _SAID.finditer(text))
    place, inside = 0, False
    for line in text.splitlines(keepends=True):
        bare = line.rstrip()
        if bare.startswith("Traceback (most recent call last):"):
            inside = True
        elif inside and bare and not bare.startswith(_FRAME):
            inside = False
            yield place, bare
        place += len(line)
