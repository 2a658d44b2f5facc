"""Read a CI job's log: which tests failed."""

from __future__ import annotations

import re

# GitHub puts a time before each line of a raw log, and colours are in it.
_PREFIX = re.compile(r"^\ufeff?\d{4}-\d\d-\d\dT[\d:.]+Z ")
_COLOUR = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
# unittest: `FAIL: test_x (test.test_mod.Class.test_x)`, with a subtest or a parameter behind it.
_TEST = re.compile(r"^(?:FAIL|ERROR): \S+ \((test\.[\w.]+)\)")
# regrtest: `0:01:02 load avg: 3.1 [ 12/480/1] test_mod crashed (Exit code -11 (SIGSEGV))`
_MODULE = re.compile(r"^[\d:]+ (?:load avg: [\d.]+ )?\[[\s\d/]+\] (test[\w.]+) (?:crashed|failed|timed out|worker)")
_SUMMARY = re.compile(r"^(\d+) tests? failed:$")
_LISTED = re.compile(r"^\s+(test[\w.]+(?:\s+test[\w.]+)*)$")


def failed_tests(log: str) -> tuple[str, ...]:
    """Return the tests that a log of regrtest reports as failed: full names, and modules without one.

    The order is the log's. Nothing is returned for a log without a failure.
    """
    tests: dict[str, None] = {}
    modules: dict[str, None] = {}
    in_summary = False
    for raw in log.splitlines():
        line = _COLOUR.sub("", _PREFIX.sub("", raw)).rstrip()
        if match := _TEST.match(line):
            tests[match[1]] = None
        elif match := _MODULE.match(line):
            modules[match[1]] = None
        listed = _LISTED.match(line) if in_summary else None
        if listed:
            modules |= dict.fromkeys(listed[1].split())
        in_summary = bool(listed) or bool(_SUMMARY.match(line))
    without = (module for module in modules if not any(_is_of(test, module) for test in tests))
    return (*tests, *without)


def _is_of(test: str, module: str) -> bool:
    return test.startswith((f"test.{module}.", f"{module}."))
