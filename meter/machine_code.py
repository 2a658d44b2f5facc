"""Writes where the machine code of executors is, and of which uops it was made, for `measure --detail uops`.

An executor tells its machine code and the plain names of its uops, but not its address, nor which of a uop's variants
it has. Those are in the object, whose layout no header of the running Python tells. So everything found there must fit
what the executor tells; otherwise the process ends with an error, and nothing is shown.
"""

import ctypes
import itertools
import json
import pathlib

WORD = 8
INSTRUCTION = 24  # bytes of a _PyUOpInstruction: opcode and format, oparg, target or two jump targets, two operands
STATISTICS = 16  # bytes more in a build with --enable-pystats
JUMPS = 1 << 15  # the format of a uop that has two jump targets


class LayoutError(Exception):
    """An executor is not laid out as is known."""


def executable_memory():
    """List begin and end of the anonymous memory in this process that can be executed."""
    found = []
    with pathlib.Path("/proc/self/maps").open() as maps:
        for line in maps:
            place, permissions, _, _, inode, *_ = line.split()
            if "x" in permissions and inode == "0":
                begin, _, end = place.partition("-")
                found.append((int(begin, 16), int(end, 16)))
    return found


def address(executor, code, memory):
    """Return where an executor's machine code is: its size and its address are next to each other in the object."""
    size = type(executor).__basicsize__
    words = (ctypes.c_uint64 * (size // WORD)).from_address(id(executor))
    for length, place in itertools.pairwise(words):
        is_there = length == len(code) and any(begin <= place <= end - length for begin, end in memory)
        if is_there and ctypes.string_at(place, length) == code:
            return place
    raise LayoutError("the address of an executor's machine code is not in the executor")


def trace(executor):
    """Return the numbers of an executor's uops, and the uops that its uops jump to."""
    head = object.__basicsize__
    size = ctypes.c_uint64.from_address(id(executor) + head).value
    begin = ctypes.c_uint64.from_address(id(executor) + head + WORD).value
    end = id(executor) + type(executor).__basicsize__ + size
    stride = (end - begin) / len(executor) if id(executor) < begin < end else 0
    if stride not in (INSTRUCTION, INSTRUCTION + STATISTICS):
        raise LayoutError("an executor's uops are not in the executor")
    opcodes, jumps = [], set()
    for number, (_, oparg, target, _) in enumerate(executor):
        place = begin + number * int(stride)
        opcode, its_oparg, jump, error = (ctypes.c_uint16 * 4).from_address(place)
        if its_oparg != oparg or ctypes.c_uint32.from_address(place + 4).value != target:
            raise LayoutError("an executor's uops are not what the executor tells")
        opcodes.append(opcode & ~JUMPS)
        if opcode & JUMPS:
            jumps |= {jump, error}
    return opcodes, jumps


def write(path, executors):
    """Write a line of JSON for each executor with machine code; `executors` has them by their places."""
    memory = executable_memory()
    with pathlib.Path(path).open("w") as output:
        for place, executor in executors.items():
            code = executor.get_jit_code()
            if not code:
                continue
            opcodes, jumps = trace(executor)
            line = {
                "place": place,
                "address": address(executor, code, memory),
                "size": len(code),
                "code": code.rstrip(b"\0").hex(),
                "names": [name for name, *_ in executor],
                "opcodes": opcodes,
                "jumps": sorted(jumps),
            }
            print(json.dumps(line), file=output)
