"""A process's memory: its mappings, and the uops in the JIT's machine code. Independent of gdb."""

import collections
import re

Mapping = collections.namedtuple("Mapping", "start end rights path")
"""Addresses are the program's; `rights` as in `r-xp`; `path` is empty for memory that is not mapped from a file."""

Uop = collections.namedtuple("Uop", "number name start end")
"""A uop of an executor: its number in the trace, its stencil's name, and the addresses of its machine code."""

_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) \S+ \d+\s*(.*)")


def mappings(text, offset=0):
    """Parse `/proc/PID/maps`. Under QEMU it has the host's addresses: the program's own plus `offset`.

    >>> mappings("55039da000-55039dd000 r--p 00000000 00:00 0 ")
    [Mapping(start=365132881920, end=365132894208, rights='r--p', path='')]
    """
    result = []
    for line in text.splitlines():
        if match := _LINE.fullmatch(line.rstrip()):
            start, end = int(match[1], 16) - offset, int(match[2], 16) - offset
            if end > 0:
                result.append(Mapping(start, end, match[3], match[5]))
    return result


def base(text, path):
    """Return the address of a file's first byte in `/proc/PID/maps`, None if it is not mapped."""
    for line in text.splitlines():
        if (match := _LINE.fullmatch(line.rstrip())) and match[5] == path and int(match[4], 16) == 0:
            return int(match[1], 16)
    return None


def program_headers(text):
    """Return the address of the program headers in gdb's output of the auxiliary vector.

    >>> hex(program_headers("3    AT_PHDR              Program headers for program    0x5500000040"))
    '0x5500000040'
    """
    match = re.search(r"\bAT_PHDR\b.*\b(0x[0-9a-f]+)", text)
    return int(match[1], 16) if match else None


def at(mapped, address):
    """Return the mapping that contains an address, None if there is none."""
    return next((mapping for mapping in mapped if mapping.start <= address < mapping.end), None)


def place(mapping, program):
    """Describe a mapping; `program` is the path of the program itself."""
    if mapping is None:
        return "unmapped memory"
    if not mapping.path:
        return "memory of no file"
    return "the program" if mapping.path == program else mapping.path


def uops(begin, sizes):
    """Return an executor's uops, given the stencils' names and sizes in bytes, in order."""
    result = []
    for number, (name, size) in enumerate(sizes):
        result.append(Uop(number, name, begin, begin + size))
        begin += size
    return result


def uop_at(uops, address):
    """Return the uop whose machine code contains an address, None if there is none."""
    return next((uop for uop in uops if uop.start <= address < uop.end), None)


def stencil(text):
    """Return a stencil's name, given gdb's output for the function that copies it.

    >>> stencil("0x3491b0 <emit__CONTAINS_OP_SET_r23>")
    '_CONTAINS_OP_SET_r23'
    """
    match = re.search(r"<emit_(\w+)>", text)
    return match[1] if match else ""


def executor(fields):
    """Describe a part of an executor, given the report's `executor`."""
    number, size, function = fields["number"], fields["uops"], fields["function"]
    place = "behind its uops" if number is None else f"uop {number} of {size}, {fields['uop']} + {fields['offset']}"
    called = f"called by frame #{fields['level']}, JIT code: " if fields["level"] else ""
    return f"{called}{place}" + (f", made for {function}" if function else "")
