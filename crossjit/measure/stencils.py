"""The stencils that a build's JIT makes machine code of, as its own headers have them.

The JIT copies the stencil of each uop of a trace, one after the other, and writes addresses and operands into the
copies (`_PyJIT_Compile` in Python/jit.c, Tools/jit/_writer.py). Above each stencil's bytes, the header has what LLVM's
disassembler says of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from crossjit.errors import InfrastructureError
from crossjit.stash import packing
from crossjit.stash.artifact import GENERATED, INSTALL, Artifact

END = "_FATAL_ERROR_r00"  # after the last uop of each trace

# Around the place that a patch names: it may also change the instruction that the place is in, and the one after it.
BEFORE, AFTER = 4, 8

NOP = bytes.fromhex("1f2003d5")  # of AArch64; on x86_64, nothing is filled up

_NUMBER = re.compile(r"^#define (_\w+) (\d+)$", re.MULTILINE)
_SIZES = re.compile(r"^    \[(\w+)\] = \{emit_\w+, (\d+), (\d+)[,}]", re.MULTILINE)
_SYMBOL = re.compile(r"^    \[(\d+)\] = &(\w+),", re.MULTILINE)
_FUNCTION = re.compile(r"^emit_(\w+)\(", re.MULTILINE)
_BODY = re.compile(r"(code|data)_body\[\d+\] = \{([^{}]*)\}")
_PATCH = re.compile(r"^    patch_(\w+)\((.*)\);", re.MULTILINE)
_PLACES = re.compile(r"(code|data) \+ (0x[0-9a-f]+), ")
_PLACE = re.compile(f"(?:{_PLACES.pattern})+")
_VARIANT = re.compile(r"_r\d\d$")  # how many values a variant takes from registers, and leaves there

# A line of the disassembly: bytes, or on AArch64 a word, and the instruction.
_LISTED = re.compile(r"^    // ([0-9a-f]+): ((?:[0-9a-f]{2}(?: |$))+|[0-9a-f]{8} ) *(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Instruction:
    """An instruction of a stencil: its place, its text as LLVM writes it, the names of what is written into it."""

    offset: int
    text: str
    relocations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patch:
    """Something that is written into a copy: the places in its code or data, in which way, and what it is.

    `target` is a symbol with its offset, or the name of an operand, of a jump's target, or of the stencil's `data`.
    """

    part: str
    offsets: tuple[int, ...]
    kind: str
    target: str


@dataclass(frozen=True)
class Stencil:
    """The machine code of a variant of a uop: its bytes, and those of them that may be different in a copy.

    `data` are the bytes that belong to it. `instructions` is None if the header has none that fit the bytes.
    """

    name: str
    code: bytes
    patched: frozenset[int] = field(default=frozenset(), repr=False)
    data: bytes = b""
    patches: tuple[Patch, ...] = field(default=(), repr=False)
    instructions: tuple[Instruction, ...] | None = field(default=None, repr=False, compare=False)

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


def of(artifact: Artifact) -> Mapping[str, Stencil]:
    """Read a build's stencils, by name; there are none in a build without them.

    Raises StashError, InfrastructureError for an unknown form.
    """
    # since 3.14, jit_stencils.h only includes those of the target
    names = [name for name in artifact.files().get(GENERATED, ()) if re.fullmatch(r"jit_stencils.*\.h", name)]
    contents = packing.read(artifact.objects[GENERATED], names) if names else {}
    found: dict[str, Stencil] = {}
    for content in contents.values():
        found |= by_name(content.decode("utf-8", "replace"))
    return found


def internal_header(artifact: Artifact, name: str) -> str | None:
    """Return an internal header that a build installed; None if it has none of this name. Raises StashError."""
    paths = [path for path in artifact.files().get(INSTALL, ()) if path.endswith(f"/internal/{name}")]
    if len(paths) != 1:
        return None
    (content,) = packing.read(artifact.objects[INSTALL], paths).values()
    return content.decode("utf-8", "replace")


def numbered(named: Mapping[str, Stencil], numbers: str) -> Stencils:
    """Return stencils by their numbers in `pycore_uop_ids.h`. Raises InfrastructureError for an unknown form."""
    of = {int(number): named[name] for name, number in _NUMBER.findall(numbers) if name in named}
    if END not in named:
        raise unknown(f"there is no {END}")
    if len(of) != len(named):
        raise unknown(f"{len(named)} stencils have {len(of)} numbers")
    return Stencils(of, named[END])


def by_name(header: str) -> Mapping[str, Stencil]:
    """Read the stencils of a header, also of versions before 3.15. Raises InfrastructureError for an unknown form."""
    bodies = dict(_functions(header))
    symbols = dict(_SYMBOL.findall(header))
    named = {}
    for name, size, data in _SIZES.findall(header):
        if name not in bodies:
            raise unknown(f"{name} has no code")
        named[name] = _stencil(name, int(size), int(data), bodies[name], symbols)
    return named


def _functions(header: str) -> Iterator[tuple[str, str]]:
    """Yield the functions that write stencils: the name of each, and its text. Takes no more time than it must."""
    begins = list(_FUNCTION.finditer(header))
    for number, begin in enumerate(begins, 1):
        end = begins[number].start() if number < len(begins) else len(header)
        yield begin[1], header[begin.end() : end].partition("\n}")[0]


def _stencil(name: str, size: int, data_size: int, function: str, symbols: Mapping[str, str]) -> Stencil:
    parts = {
        part: bytes(int(byte, 16) for byte in re.findall(r"0x[0-9a-f]{2}", body))
        for part, body in _BODY.findall(function)
    }
    code = parts.get("code", b"")
    if len(code) > size:
        raise unknown(f"{name} has {len(code)} bytes instead of {size}")
    code = code.ljust(size, b"\0")
    patches = tuple(_patches(function, symbols))
    places = [place for patch in patches if patch.part == "code" for place in patch.offsets]
    return Stencil(
        name,
        code,
        frozenset(index for place in places for index in range(max(0, place - BEFORE), place + AFTER)),
        parts.get("data", b"").ljust(data_size, b"\0"),
        patches,
        _instructions(function, code, patches),
    )


def _patches(function: str, symbols: Mapping[str, str]) -> Iterator[Patch]:
    """Yield what is written, with symbols instead of the numbers that they have in this build only."""
    for kind, arguments in _PATCH.findall(function):
        places = _PLACE.match(arguments)
        if places:
            offsets = tuple(int(place, 16) for _, place in _PLACES.findall(places[0]))
            yield Patch(places[1], offsets, kind, _target(arguments[places.end() :], symbols))


def _target(value: str, symbols: Mapping[str, str]) -> str:
    """Return what a patch writes, in short.

    >>> _target("state->instruction_starts[instruction->jump_target] + -0x4", {})
    'jump_target'
    >>> _target("got_symbol_address(0x1, state) - 4", {"1": "PyDict_Type"}), _target("0x1, state", {"1": "PyDict_New"})
    ('PyDict_Type', 'PyDict_New')
    >>> _target("(uintptr_t)&_PyRuntime + 0x2948", {}), _target("instruction->oparg", {})
    ('_PyRuntime + 0x2948', 'oparg')
    """
    if number := re.match(r"(?:got_symbol_address\()?(0x[0-9a-f]+), state", value):
        return symbols.get(str(int(number[1], 16)), number[1])
    if target := re.match(r"(?:state->)?instruction_starts\[instruction->(\w+)\]", value):
        return target[1]
    return re.sub(r"\(uintptr_t\)&?|instruction->", "", value).replace("code + sizeof(code_body)", "end")


def _instructions(function: str, code: bytes, patches: Sequence[Patch]) -> tuple[Instruction, ...] | None:
    """Return the disassembly above a stencil's bytes; None if it is not one of them.

    Up to 3.14, a jump to the next uop is cut off after disassembling, and the end is filled up: with `nop`, or zeros.
    """
    targets = [(place, patch.target) for patch in patches if patch.part == "code" for place in patch.offsets]
    found: list[Instruction] = []
    at = 0
    for place, listed, text in _LISTED.findall(function.partition("const unsigned char")[0]):
        own = bytes.fromhex(listed)
        own = own[::-1] if re.fullmatch("[0-9a-f]{8} ", listed) else own
        if int(place, 16) != at or at == len(code) or code[at : at + len(own)] != own:
            break
        if text:
            names = tuple(target for offset, target in targets if at <= offset < at + len(own))
            found.append(Instruction(at, " ".join(text.split()), names))
        at += len(own)
    words, odd = divmod(len(code) - at, len(NOP))
    if code[at:] == NOP * words and not odd:
        found += (Instruction(at + len(NOP) * number, "nop") for number in range(words))
    elif code[at:].strip(b"\0"):
        return None
    return tuple(found)


def unknown(problem: str) -> InfrastructureError:
    """Return the error for stencils that cannot be read."""
    return InfrastructureError(
        f"the stencils of this build have an unknown form: {problem}",
        hint="CPython's Tools/jit has changed: crossjit/measure/stencils.py must follow",
    )
