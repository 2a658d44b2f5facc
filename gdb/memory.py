"""What is where in a process's memory: its mappings, and the uops of the JIT's machine code. Knows nothing of gdb."""

import collections
import re

Mapping = collections.namedtuple("Mapping", "start end rights path")
"""Addresses as the program sees them; `rights` as in `r-xp`; `path` is empty for memory that is no file's."""

Uop = collections.namedtuple("Uop", "number name start end")
"""A uop of an executor: its number in the trace, its stencil's name, and the addresses of its machine code."""

_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) \S+ \d+\s*(.*)")


def mappings(text, offset=0):
    """Read `/proc/PID/maps`. Under QEMU these are the host's addresses: `offset` more than the program's own.

    >>> mappings("55039da000-55039dd000 r--p 00000000 00:00 0 ")
    [Mapping(start=365132881920, end=365132894208, rights='r--p', path='')]
    """
    found = []
    for line in text.splitlines():
        if match := _LINE.fullmatch(line.rstrip()):
            start, end = int(match[1], 16) - offset, int(match[2], 16) - offset
            if end > 0:
                found.append(Mapping(start, end, match[3], match[5]))
    return found


def base(text, path):
    """Return the address in `/proc/PID/maps` at which a file's first byte is, None if it is nowhere."""
    for line in text.splitlines():
        if (match := _LINE.fullmatch(line.rstrip())) and match[5] == path and int(match[4], 16) == 0:
            return int(match[1], 16)
    return None


def program_headers(text):
    """Find in what gdb says of the auxiliary vector where the program's headers are: some bytes behind its first.

    >>> hex(program_headers("3    AT_PHDR              Program headers for program    0x5500000040"))
    '0x5500000040'
    """
    match = re.search(r"\bAT_PHDR\b.*\b(0x[0-9a-f]+)", text)
    return int(match[1], 16) if match else None


def at(found, address):
    """Return the mapping that an address is in, None if it is in none."""
    return next((mapping for mapping in found if mapping.start <= address < mapping.end), None)


def place(mapping, program):
    """Say what a mapping is, in words; `program` is the path of the program itself."""
    if mapping is None:
        return "unmapped memory"
    if not mapping.path:
        return "memory of no file"
    return "the program" if mapping.path == program else mapping.path


def uops(begin, sizes):
    """Lay out an executor's uops: pairs of a stencil's name and its size in bytes, one after the other."""
    found = []
    for number, (name, size) in enumerate(sizes):
        found.append(Uop(number, name, begin, begin + size))
        begin += size
    return found


def uop_at(found, address):
    """Return the uop that an address is in the machine code of, None if it is in none's."""
    return next((uop for uop in found if uop.start <= address < uop.end), None)


def stencil(text):
    """Find a stencil's name in what gdb prints for the function that copies it.

    >>> stencil("0x3491b0 <emit__CONTAINS_OP_SET_r23>")
    '_CONTAINS_OP_SET_r23'
    """
    match = re.search(r"<emit_(\w+)>", text)
    return match[1] if match else ""


def executor(found):
    """Say in words which part of an executor is meant: `found` is the report's value of that name."""
    number, size, function = found["number"], found["uops"], found["function"]
    where = "behind its uops" if number is None else f"uop {number} of {size}, {found['uop']} + {found['offset']}"
    called = f"called by frame #{found['level']}, JIT code: " if found["level"] else ""
    return f"{called}{where}" + (f", made for {function}" if function else "")
