"""The meter's self-test, in the measured CPython: loops of known length in hand-made machine code, and empty windows.

Each loop of N rounds runs 2 * N + 3 instructions, in a window with the label N. The windows with the label 0 are empty:
what they count is what a marker costs.
"""

import ctypes
import os
import platform
import struct

MARKER = 0x4A495400  # as in count.c
BEGIN, END, LAST = MARKER + 1, MARKER + 2, MARKER + 3
LOOPS = (1000, 2000, 3000)
PAGE = 4096
READ_WRITE, READ_EXECUTE = 3, 5
PRIVATE_ANONYMOUS = 0x22


def code(rounds):
    """Return machine code: load the number, count it down to 0, load it again as the result, return."""
    if platform.machine() == "aarch64":  # mov x1, n; subs x1, x1, 1; b.ne; mov w0, n; ret
        return struct.pack(
            "<5I", 0xD2800001 | rounds << 5, 0xF1000421, 0x54FFFFE1, 0x52800000 | rounds << 5, 0xD65F03C0
        )
    number = struct.pack("<I", rounds)  # mov ecx, n; dec ecx; jnz; mov eax, n; ret
    return b"\xb9" + number + b"\xff\xc9" + b"\x75\xfc" + b"\xb8" + number + b"\xc3"


def run_loops(libc, marker):
    """Run each loop in memory that is made executable as CPython's JIT does it."""
    for rounds in LOOPS:
        address = libc.mmap(None, PAGE, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0)
        machine_code = code(rounds)
        ctypes.memmove(address, machine_code, len(machine_code))
        if libc.mprotect(address, PAGE, READ_EXECUTE):
            raise OSError(ctypes.get_errno(), "mprotect")
        function = ctypes.CFUNCTYPE(ctypes.c_int)(address)
        marker(BEGIN, rounds + 1)
        result = function()
        marker(END, rounds + 1)
        if result != rounds:
            raise RuntimeError(f"the loop of {rounds} rounds returned {result}")
        libc.munmap(address, PAGE)


def main():
    """Run the test."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    marker = os.closerange
    for _ in range(100):  # until CPython has specialized its code
        marker(BEGIN, 1)
        marker(END, 1)
    run_loops(libc, marker)
    marker(LAST, 1)


main()
