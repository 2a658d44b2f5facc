"""A pretended meter for fake engines: what QEMU with the plugin would write, without running anything."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from crossjit.engine.base import Container, ContainerOptions
from crossjit.measure import meter
from crossjit.model import Arch
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.fakes.files import LINK, Entry, FakeFiles

SELF_TEST = meter.SELF_TEST
BINARY = "/usr/local/bin/python3.15"
LOADERS = ("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1")


def line(op: str, label: int = 0, *, pid: int = 7, **fields: object) -> str:
    """Return a line of the plugin."""
    plain = {"thread": 0, "counts": {"python": 0, "jit": 0}, "jit": {"maps": 0, "bytes": 0, "frees": 0}, "execs": 0}
    return json.dumps({"pid": pid, "op": op, "label": label, **plain, **fields}) + "\n"


def self_test_lines(*, jit: int = 0, wrong: int = 0, marker: Sequence[int] = (1100, 1069, 1069)) -> str:
    """Return what the self-test makes the plugin write; `jit` are instructions of the JIT, `wrong` is added to each."""
    counts = {"python": 10, "jit": jit}
    lines = [line("start")]

    def window(label: int, python: int, code: int) -> None:
        lines.append(line("begin", label, counts=dict(counts)))
        counts["python"] += python
        counts["jit"] += code
        lines.append(line("end", label, counts=dict(counts)))

    for cost in marker:
        window(0, cost, 0)
    for loops in meter.LOOPS:
        window(loops, 5000, 2 * loops + 3 + wrong)
    return "".join([*lines, line("last", counts=counts), line("exit", counts=counts)])


@dataclass
class PretendedMeter:
    """QEMU's loader as a program of the fake engine.

    `scripts` give the plugin's output by the first argument of Python, and the exit status; `runs` records the
    plugin's options, Python's arguments and the environment.
    """

    scripts: dict[str, Callable[[FakeProcess], tuple[str, int]]] = field(default_factory=dict)
    runs: list[tuple[str, tuple[str, ...], Mapping[str, str]]] = field(default_factory=list)

    def __call__(self, process: FakeProcess) -> int:
        """Run as a program."""
        plugin = process.argv[process.argv.index("-plugin") + 1]
        arguments = process.argv[process.argv.index(BINARY) + 1 :]
        self.runs.append((plugin, tuple(arguments), dict(process.env)))
        options = dict(option.split("=", 1) for option in plugin.split(",")[1:])
        text, status = self.scripts[arguments[0]](process)
        if text:
            process.write_file(options["out"], text.encode())
        return status

    def add(self, script: str, text: str, status: int = 0) -> None:
        """Let a script make the plugin write this."""
        self.scripts[script] = lambda process: (text, status)


@contextlib.contextmanager
def container(engine: FakeEngine) -> Iterator[Container]:
    """Start a container of AArch64 with a CPython and the meter."""
    engine.add_image("meter", arch=Arch.AARCH64, files=files())
    options = ContainerOptions("meter", arch=Arch.AARCH64, name="measure", labels={}, user="1000:1000")
    with engine.container(options) as started:
        yield started


def files(binary: bytes | None = None) -> FakeFiles:
    """Return the files of a target with a CPython."""
    found = FakeFiles.base()
    found.write(BINARY, elf({"_PyEval_EvalFrameDefault": 64, "list_dealloc": 16}) if binary is None else binary)
    found.add("/usr/local/bin/python3", Entry(LINK, 0o777, target="python3.15"))
    return found


def meter_files() -> FakeFiles:
    """Return the files of the meter's image."""
    found = FakeFiles.base()
    for arch in Arch:
        found.write(f"{meter.FOLDER}/bin/qemu-{arch}", b"qemu", mode=0o755)
    return found


def install(engine: FakeEngine, pretended: PretendedMeter | None = None) -> PretendedMeter:
    """Give an engine a pretended meter, which passes the self-test, and `readlink`."""
    pretended = pretended or PretendedMeter()
    pretended.scripts.setdefault(SELF_TEST, lambda process: (self_test_lines(), 0))
    for loader in LOADERS:
        engine.programs[loader] = pretended
    engine.programs["readlink"] = _readlink
    return pretended


def _readlink(process: FakeProcess) -> int:
    path = process.argv[-1]
    if not process.files.exists(path):
        return 1
    process.write_line(process.files.resolve(path))
    return 0


def elf(functions: Mapping[str, int], *, address: int = 0x1000, needed: str = "", stripped: bool = False) -> bytes:
    """Return a small ELF file: one executable segment at `address`, at offset 0x200, with functions of these sizes."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in functions)
    symbols = struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    place = address
    for name, size in functions.items():
        symbols += struct.pack("<IBBHQQ", names.index(name.encode() + b"\0"), 2, 0, 1, place, size)
        place += size
    dynamic_names = b"\0" + needed.encode() + b"\0"
    sections = b"\0.symtab\0.strtab\0.shstrtab\0.dynamic\0.dynstr\0"
    at = 0x200
    offsets = []
    dynamic = struct.pack("<6Q", *(1, 1, 5, address + 0x400, 0, 0)) if needed else struct.pack("<2Q", 0, 0)
    body = b""
    for part in (symbols, names, sections, dynamic, dynamic_names):
        offsets.append((at + 0x1000 + len(body), len(part)))
        body += part
    total = 0x1200 + len(body)
    loads = [struct.pack("<IIQQQQQQ", 1, 5, at, address, address, total, total, 4096)]
    if needed:
        # the string table's address is that of its place in the file
        start, size = offsets[4]
        dynamic = struct.pack("<6Q", 1, 1, 5, address + start - at, 0, 0)
        body = body[: offsets[3][0] - 0x1200] + dynamic + body[offsets[3][0] - 0x1200 + len(dynamic) :]
        loads.append(struct.pack("<IIQQQQQQ", 2, 6, offsets[3][0], 0, 0, len(dynamic), len(dynamic), 8))
    headers = [(0, 0, 0, 0, 0, 0), (1, 2, *offsets[0], 2, 24), (9, 3, *offsets[1], 0, 0), (17, 3, *offsets[2], 0, 0)]
    headers += [(27, 6, *offsets[3], 5, 16), (36, 3, *offsets[4], 0, 0)]
    if stripped:
        headers[1] = (0, 0, 0, 0, 0, 0)
    table = b"".join(
        struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, link, 0, 1, entry)
        for name, kind, offset, size, link, entry in headers
    )
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    fields = (3, 62, 1, address, 64, total, 0, 64, 56, len(loads), 64, len(headers), 3)
    head = ident + struct.pack("<HHIQQQIHHHHHH", *fields) + b"".join(loads)
    return head.ljust(0x1200, b"\0") + body + table
