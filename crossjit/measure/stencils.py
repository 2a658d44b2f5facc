"""The stencils that a build's JIT makes machine code of, as its own headers have them. Pure.

The JIT copies the stencil of each uop of a trace, one after the other, and writes addresses and operands into the
copies (`_PyJIT_Compile` in Python/jit.c, Tools/jit/_writer.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from crossjit.errors import InfrastructureError

END = "_FATAL_ERROR_r00"  # after the last uop of each trace

# Around the place that a patch names: it may also change the instruction that the place is in, and the one after it.
BEFORE, AFTER = 4, 8

_NUMBER = re.compile(r"^#define (_\w+) (\d+)$", re.MULTILINE)
_SIZE = re.compile(r"^    \[(\w+)\] = \{emit_\w+, (\d+), ", re.MULTILINE)
_FUNCTION = re.compile(r"^emit_(\w+)\((.*?)^\}", re.MULTILINE | re.DOTALL)
_BODY = re.compile(r"code_body\[\d+\] = \{(.*?)\}", re.DOTALL)
_PATCH = re.compile(r"^    patch_\w+\((.*)\);", re.MULTILINE)
_PLACE = re.compile(r"\bcode \+ (0x[0-9a-f]+)")
_VARIANT = re.compile(r"_r\d\d$")  # how many values a variant takes from registers, and leaves there


@dataclass(frozen=True)
class Stencil:
    """The machine code of a variant of a uop: its bytes, and those of them that may be different in a copy."""

    name: str
    code: bytes
    patched: frozenset[int] = field(default=frozenset(), repr=False)

    @property
    def uop(self) -> str:
        """The name of the uop.

        >>> Stencil("_LOAD_FAST_r12", b"").uop
        '_LOAD_FAST'
        """
        return _VARIANT.sub("", self.name)

    def fits(self, copy: bytes) -> bool:
        """Whether some machine code can be a copy of it."""
        return len(copy) == len(self.code) and all(
            ours == theirs or index in self.patched
            for index, (ours, theirs) in enumerate(zip(self.code, copy, strict=True))
        )


@dataclass(frozen=True)
class Stencils:
    """The stencils of a build, by the numbers of the uops' variants; `end` follows each trace."""

    of: Mapping[int, Stencil]
    end: Stencil


def read(header: str, numbers: str) -> Stencils:
    """Read `jit_stencils-*.h` and `pycore_uop_ids.h`. Raises InfrastructureError if they are of an unknown form."""
    named = {}
    bodies = dict(_FUNCTION.findall(header))
    for name, size in _SIZE.findall(header):
        if name not in bodies:
            raise _unknown(f"{name} has no code")
        named[name] = _stencil(name, int(size), bodies[name])
    of = {int(number): named[name] for name, number in _NUMBER.findall(numbers) if name in named}
    if END not in named:
        raise _unknown(f"there is no {END}")
    if len(of) != len(named):
        raise _unknown(f"{len(named)} stencils have {len(of)} numbers")
    return Stencils(of, named[END])


def _stencil(name: str, size: int, function: str) -> Stencil:
    body = _BODY.search(function)
    code = bytes(int(byte, 16) for byte in re.findall(r"0x[0-9a-f]{2}", body[1])) if body else b""
    if len(code) > size:
        raise _unknown(f"{name} has {len(code)} bytes instead of {size}")
    places = [int(place, 16) for patch in _PATCH.findall(function) for place in _PLACE.findall(patch)]
    patched = frozenset(index for place in places for index in range(max(0, place - BEFORE), place + AFTER))
    return Stencil(name, code.ljust(size, b"\0"), patched)


def _unknown(problem: str) -> InfrastructureError:
    return InfrastructureError(
        f"the stencils of this build have an unknown form: {problem}",
        hint="CPython's Tools/jit has changed: crossjit/measure/stencils.py must follow",
    )
