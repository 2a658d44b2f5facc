"""The meter's counts against those of valgrind's callgrind, which counts by itself, natively.

At each marker, callgrind writes what ran since the one before, by function. The interpreter's loop and JIT code must be
the same. In other code a few instructions depend on addresses, such as those that free memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from crossjit.engine.base import Container
from crossjit.errors import InfrastructureError
from crossjit.images import ImageSpec
from crossjit.measure import symbols
from crossjit.measure.marks import Mark, Op, total, windows
from crossjit.measure.meter import WORK, Meter
from crossjit.util import safe_files
from crossjit.util.tar import packed
from crossjit.validation.target import TESTER

PACKAGES = ("valgrind", "libc6-dbg")  # without the latter, valgrind cannot replace functions of the loader
FOLDER = f"{WORK}-callgrind"
DUMPS = 10_000  # of one run, at most
LARGEST = 64 << 20  # bytes of one

_EXTENSION = re.compile(r"/lib-dynload/|\.cpython-|\.abi3\.so")
_PROGRAM = re.compile(r"(lib)?python3[\w.]*")
_LINE = re.compile(r"(ob|fn|calls)=(.*)|[-+*\d]\S* (\d+)")
_UNNAMED = "???"
_PAGE = 12  # bits of an address within a page


CPU = "Haswell-noTSX"  # with AVX2, as valgrind's, so that the C library chooses the same functions
# callgrind counts each round of a `rep movsb`, others one instruction: the C library must do without, on both sides.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-ERMS"}
NEAR = 0x80000000  # valgrind puts everything so near that JIT code reaches all of CPython by direct branches


@dataclass(frozen=True)
class Comparison:
    """One window as the meter and as callgrind counted it."""

    label: int
    meter: Mapping[str, int]
    callgrind: Mapping[str, int]

    def differs(self, name: str = "") -> float:
        """Return by which part a class differs, or the whole window; 0.01 is a hundredth."""
        ours, theirs = (counts.get(name, 0) if name else total(counts) for counts in (self.meter, self.callgrind))
        return abs(ours - theirs) / max(ours, theirs, 1)


def with_valgrind(spec: ImageSpec) -> ImageSpec:
    """Return an image with valgrind in its targets."""
    return spec.having(replace(spec.extra, target=(*spec.extra.target, *PACKAGES)))


def alike(meter: Meter) -> Meter:
    """Return a meter whose program has the same CPU and as near addresses as under valgrind."""
    return replace(meter, cpu=CPU, reserved=NEAR)


def run(
    container: Container,
    python: str,
    arguments: Sequence[str],
    *,
    jit: bool,
    timeout: float,
    env: Mapping[str, str] | None = None,
) -> tuple[Mapping[str, int], ...]:
    """Run Python under callgrind; return the instructions up to the first marker, up to the next one, and so on.

    Raises InfrastructureError if it fails, EngineErrors.
    """
    container.put(packed(folders={FOLDER: TESTER}), "/")
    container.run(("find", FOLDER, "-type", "f", "-delete"))
    lines: list[str] = []
    options = ("--dump-before=close_range", "--compress-strings=no", "--compress-pos=no")
    completed = container.run(
        ("valgrind", "--tool=callgrind", *options, f"--callgrind-out-file={FOLDER}/out", python, *arguments),
        env={**(env or {}), **ENVIRONMENT, "PYTHONHASHSEED": "0", "PYTHON_JIT": str(int(jit))},
        on_line=lambda line: lines.append(line) if len(lines) < 200 else None,
        timeout=timeout,
    )
    if completed.returncode:
        raise InfrastructureError(
            f"callgrind failed: {completed.how}",
            hint="the target's image must have valgrind; its output is below",
            details=tuple(lines[-20:]),
        )
    found = []
    for number in count(1):
        text = _dump(container, f"{FOLDER}/out.{number}")
        if text is None or number > DUMPS:
            break
        found.append(parse(text))
    return tuple(found)


def parse(text: str) -> dict[str, int]:
    """Return a dump's instructions by class, which are named as the meter's. Pure.

    callgrind knows no file of JIT code, nor of the stubs through which a library calls functions of others. Code of the
    latter is in pages where each function is one instruction, a jump.
    """
    counts: Counter[str] = Counter()
    unnamed: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    place = function = ""
    is_inclusive = False  # the line after `calls` has the cost of what was called
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        if match[3]:
            if not is_inclusive and place == _UNNAMED:
                unnamed[function] += int(match[3])
            elif not is_inclusive:
                counts[_class(place, function)] += int(match[3])
            is_inclusive = False
        elif match[1] == "ob":
            place = match[2]
        elif match[1] == "fn":
            function = match[2]
        else:
            is_inclusive = True
            calls[function] += int(match[2].split()[0])
    code = {int(name, 16) >> _PAGE for name in unnamed if unnamed[name] != calls[name]}
    for name in unnamed:
        counts["jit" if int(name, 16) >> _PAGE in code else "other"] += unnamed[name]
    return dict(counts)


def compare(found: Sequence[Mark], dumps: Sequence[Mapping[str, int]]) -> tuple[Comparison, ...]:
    """Return the windows of a run under the meter beside those of the same run under callgrind. Pure.

    Raises InfrastructureError if the markers are not the same.
    """
    markers = [mark for mark in found if mark.pid == found[0].pid and mark.op not in (Op.START, Op.EXIT)]
    if len(markers) != len(dumps):
        raise InfrastructureError(
            f"the meter saw {len(markers)} markers, callgrind {len(dumps)}",
            hint="the program must set the same markers in each run",
        )
    compared = []
    for window in windows(found):
        first, last = markers.index(window.begin) + 1, markers.index(window.end) + 1
        counts: Counter[str] = Counter()
        for dump in dumps[first:last]:
            counts.update(dump)
        compared.append(Comparison(window.label, window.counts, dict(counts)))
    return tuple(compared)


def together(compared: Iterable[Comparison]) -> Comparison:
    """Return all windows as one, whose label is 0. Pure."""
    meter: Counter[str] = Counter()
    callgrind: Counter[str] = Counter()
    for each in compared:
        meter.update(each.meter)
        callgrind.update(each.callgrind)
    return Comparison(0, dict(meter), dict(callgrind))


def _class(place: str, function: str) -> str:
    """Return the class of a function, by its file and name.

    >>> _class("/usr/lib/x86_64-linux-gnu/libc.so.6", "malloc")
    'lib:libc'
    """
    file = place.rpartition("/")[2]
    if _PROGRAM.fullmatch(file):
        name = re.match(r"\w*", function)
        return symbols.class_of(name[0] if name else "")
    if _EXTENSION.search(place):
        return f"ext:{file.partition('.')[0]}"
    return "other" if file.startswith("ld-linux") else f"lib:{file.partition('.so')[0]}"


def _dump(container: Container, path: str) -> str | None:
    try:
        with container.get(path) as stream:
            return safe_files.whole_file(stream, most=LARGEST, what="callgrind wrote").decode("utf-8", "replace")
    except FileNotFoundError:
        return None
