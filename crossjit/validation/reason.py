"""The line of a log or a message that says why a test failed. Pure.

It is the last fatal error, assertion or exception, without the stacks, lists and diffs that a debugger, an interpreter
or a sanitizer writes after it. No verdict depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Output before an abort: an assertion of glibc or of `_PyObject_AssertFailed` in Objects/object.c, an error of the
# allocator, or a fatal error, which faulthandler follows with another one for the signal.
_BEFORE_ABORT = re.compile(
    r"""\S+:\d+: .*Assertion [`"].*['"] failed.*"""
    r"|^(?:(?:free|malloc|realloc|calloc|munmap_chunk|malloc_consolidate)\(\): .*|double free or corruption.*"
    r"|Fatal Python error: (?!Aborted|_PyObject_AssertFailed).*|corrupted \S+ vs\. .*|\*\*\* [\w ]+ \*\*\*.*)$",
    re.M,
)
_ABORTED = re.compile(r"Fatal Python error: (?:Aborted|_PyObject_AssertFailed)\b")

# Messages of faulthandler (also `Timeout`) and the interpreter may follow a test's name on the same line.
_FATAL = r"Fatal Python error: .*|Timeout \(\d+:\d\d:\d\d(?:\.\d+)?\)!$|SUMMARY: \w+Sanitizer: .*"
_EXCEPTION = r"^(?:\w+\.)*\w*(?:Error|Exception|Failed): .*$"
_REASON = re.compile(f"(?:{_FATAL}|{_EXCEPTION})", re.M)
NEAR = 4000  # characters before an abort that are searched for its reason
_FRAME = (" ", "\t", "|")

_ALPHANUMERIC = re.compile(r"[^\W_]")

# crossjit's own last line of a message: the module and how its process ended.
_ENDED = re.compile(r"^\S+: (?:killed (?:by|after) |exit status \d)")


def last_words(text: str) -> str:
    r"""Find the last fatal error, assertion or exception in a log; empty if there is none.

    >>> last_words("test_x ... Fatal Python error: Segmentation fault\n\nC stack:\n  Binary file …, at _start+0x21")
    'Fatal Python error: Segmentation fault'
    """
    last = max(_candidates(text), default=(0, ""))
    if _ABORTED.match(last[1]):
        causes = list(_BEFORE_ABORT.finditer(text, max(0, last[0] - NEAR), last[0]))
        return causes[-1][0] if causes else last[1]
    return last[1]


def of(message: str) -> str:
    """Return a message's main line: how the process ended, else the line with its last error.

    In a message without either it is the last line that has a letter or a digit.
    """
    lines = [line.strip() for line in message.splitlines()]
    last = next(filter(_ALPHANUMERIC.search, reversed(lines)), "")
    if _ENDED.match(last):
        return last
    words = last_words(message)
    return next((line for line in reversed(lines) if words in line), last) if words else last


def cut(message: str, limit: int) -> str:
    r"""Keep the end of a message, and its reason if that is not in it, such as before a long stack.

    >>> cut("Fatal Python error: Aborted\n\n  frame\n  frame", 30)
    'Fatal Python error: Aborted\n…\n\n  frame\n  frame'
    """
    end = message[-limit:]
    reason = of(message)
    return end if reason in end else f"{reason[:limit]}\n…\n{end.partition(chr(10))[2] or end}"


def remark(message: str, text: str) -> str:
    """Insert a text after a message's reason."""
    reason = of(message)
    if not reason:
        return text
    head, _, tail = message.rstrip().rpartition(reason)
    return f"{head}{reason}; {text}{tail}"


def _candidates(text: str) -> Iterator[tuple[int, str]]:
    """Yield possible reasons with their offsets, also exceptions with unusual names, found by their tracebacks."""
    yield from ((match.start(), match[0]) for match in _REASON.finditer(text))
    place, inside = 0, False
    for line in text.splitlines(keepends=True):
        bare = line.rstrip()
        if bare.startswith("Traceback (most recent call last):"):
            inside = True
        elif inside and bare and not bare.startswith(_FRAME):
            inside = False
            yield place, bare
        place += len(line)
