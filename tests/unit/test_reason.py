"""What a failing test said: the fatal error, the assertion, the exception, and no line of a stack."""

from __future__ import annotations

import pytest

from crossjit.validation import reason

# What `assert_python_ok` of CPython's tests raises for a child that crashed, as 3.14 writes it.
CHILD_CRASHED = """\
Traceback (most recent call last):
  File "/usr/local/lib/python3.14/test/test_x.py", line 12, in test_child
    assert_python_ok("-c", SCRIPT)
    ~~~~~~~~~~~~~~~~^^^^^^^^^^^^^^
AssertionError: Process return code is -11 (SIGSEGV)
command line: ['/usr/local/bin/python3', '-X', 'faulthandler', '-c', 'import x']

stdout:
---

---

stderr:
---
Fatal Python error: Segmentation fault

Thread 0x00007f0b2d7fa6c0 [Thread-3 (show)] (most recent call first):
  File "<string>", line 22 in show
  <no Python frame>

Current thread's C stack trace (most recent call first):
  Binary file "/usr/local/bin/python3", at _Py_DumpStack+0x33 [0x5a5e37]
  Binary file "/lib/x86_64-linux-gnu/libc.so.6", at __libc_start_main+0x85 [0x7f0b2e1a1e25]
  Binary file "/usr/local/bin/python3", at _start+0x21 [0x41d701]
---
"""
SEGFAULT = "Fatal Python error: Segmentation fault"
DIFF = """\
Traceback (most recent call last):
  File "test_x.py", line 3, in test_lists
    self.assertEqual([1], [2])
AssertionError: Lists differ: [1] != [2]

First differing element 0:
1
2

- [1]
+ [2]
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "x.py", line 1, in <module>
  | ExceptionGroup: both (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: one
    +------------------------------------
"""


ODD = """\
Traceback (most recent call last):
  File "x"
KeyError: 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "y"
xml.parsers.expat.Trouble: no

Stdout:
words
"""
ASSERTION = """\
python: Objects/x.c:12: f: Assertion `n > 0' failed.
Fatal Python error: Aborted

Stack (most recent call first):
  File "x", line 1 in f
"""
OBJECT = """\
Objects/x.c:9: _Py_Negative: Assertion "n" failed: negative
Enable tracemalloc to get the memory block allocation traceback

object refcount : 0

Fatal Python error: _PyObject_AssertFailed: _PyObject_AssertFailed
Python runtime state: initialized
"""
HEAP = """\
free(): invalid pointer
Fatal Python error: Aborted

  File "x", line 1 in f
"""
ABORTED = """\
Fatal Python error: PyMutex_Unlock: unlocking mutex that is not locked
Python runtime state: initialized

Stack (most recent call first):
  File "x", line 1 in f
Fatal Python error: Aborted

<Cannot show all threads while the GIL is disabled>
Stack (most recent call first):
  File "x", line 1 in f
"""
MUTEX = """\
Fatal Python error: PyMutex_Unlock: unlocking mutex that is not locked
Python runtime state: initialized

Thread 0x1 (most recent call first):
  File "x", line 1 in f
"""
SANITIZER = """\
==9==ERROR: AddressSanitizer: heap-use-after-free on address 0x6
    #0 0x5 in f x.c:1
SUMMARY: AddressSanitizer: heap-use-after-free x.c:1 in f
Shadow bytes around the buggy address:
  00 fd
==9==ABORTING
"""
KILLED = "test.test_x: killed by SIGSEGV, Fatal Python error: Segmentation fault"
TIMED_OUT = "test.test_x: killed after its time limit"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (CHILD_CRASHED, SEGFAULT),
        (DIFF, "AssertionError: Lists differ: [1] != [2]"),
        (ODD, "xml.parsers.expat.Trouble: no"),
        (ASSERTION, "python: Objects/x.c:12: f: Assertion `n > 0' failed."),
        (OBJECT, 'Objects/x.c:9: _Py_Negative: Assertion "n" failed: negative'),
        (HEAP, "free(): invalid pointer"),
        (ABORTED, "Fatal Python error: PyMutex_Unlock: unlocking mutex that is not locked"),
        (MUTEX, "Fatal Python error: PyMutex_Unlock: unlocking mutex that is not locked"),
        (SANITIZER, "SUMMARY: AddressSanitizer: heap-use-after-free x.c:1 in f"),
        (f"ok\n{KILLED}", KILLED),
        (f"ValueError: of an earlier test\n{TIMED_OUT}", TIMED_OUT),
        (GROUP, "| ValueError: one"),
        ("no exception\njust words\n---\n", "just words"),
        ("", ""),
    ],
)
def test_what_a_failing_test_said_is_its_reason(message: str, said: str) -> None:
    assert reason.of(message) == said


def test_a_log_ends_in_its_last_words() -> None:
    log = f"test_a (test.test_x.C.test_a) ... ok\nValueError: x\ntest_b (test.test_x.C.test_b) ... {CHILD_CRASHED}"
    assert reason.last_words(log) == SEGFAULT
    hang = "test_b (test.test_x.C.test_b) ... Timeout (0:05:00)!\nThread 0x1 (most recent call first):\n  File x\n"
    assert reason.last_words(hang) == "Timeout (0:05:00)!"
    assert reason.last_words("all is well\n") == ""


@pytest.mark.parametrize("limit", [40, 100, 300, 4000])
def test_what_is_cut_keeps_its_reason(limit: int) -> None:
    for message, said in ((CHILD_CRASHED, SEGFAULT), (DIFF, "AssertionError: Lists differ: [1] != [2]")):
        cut = reason.cut(message, limit)
        assert reason.of(cut) == said
        assert len(cut) <= limit + len(said) + 3
        assert cut.endswith(message[-4:])


def test_a_remark_stands_with_the_reason() -> None:
    remarked = reason.remark(CHILD_CRASHED, "listed as a known hang, not as failed")
    assert reason.of(remarked) == f"{SEGFAULT}; listed as a known hang, not as failed"
    assert len(remarked.splitlines()) == len(CHILD_CRASHED.splitlines())
    assert reason.remark("", "listed") == "listed"
