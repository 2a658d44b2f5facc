"""What two headers of stencils say of a change, and the instructions side by side."""

from __future__ import annotations

import contextlib
import struct
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossjit.effect import binaries, listing, uops
from crossjit.effect.binaries import Binary
from crossjit.effect.listing import Sign
from crossjit.effect.uops import Kind, Size
from crossjit.errors import InfrastructureError
from crossjit.measure.stencils import Instruction, Patch
from tests import example_effects as example
from tests.example_effects import BRANCH, CALL, INCREMENT, JUMP, PLAIN, RETURN, WORD, Written, header, read

SYMBOLS = ("_Py_Dealloc", "PyDict_New")
BEFORE = read(header(PLAIN, SYMBOLS))
WRITTEN = header(PLAIN, SYMBOLS).splitlines(keepends=True)
PIECES = [*WRITTEN, *"(){}[]\n\ud83d", "0x", "0x11, ", "code + ", "    // "]


def test_a_stencil_is_read_with_its_instructions_and_what_is_written_into_them() -> None:
    found = BEFORE["_DEALLOC_r10"]
    assert found.code == bytes.fromhex("ff1500000000c3")
    assert found.patches == (Patch("code", (2,), "x86_64_32rx", "_Py_Dealloc"),)
    assert found.instructions == (
        Instruction(0, "callq *(%rip) # 0x8 <_JIT_ENTRY+0x8>", ("_Py_Dealloc",)),
        Instruction(6, "retq"),
    )


def test_words_of_aarch64_are_in_the_order_of_their_bytes() -> None:
    patch = "patch_aarch64_33rx(code + 0x0, code + 0x4, (uintptr_t)&PyDict_Type + 0x8)"
    found = read(header({"_ADD_r03": Written((WORD, BRANCH), (patch, "patch_64(data + 0x0, instruction->oparg)"), 8)}))
    stencil = found["_ADD_r03"]
    assert stencil.code == bytes.fromhex("0004009100000014")
    assert stencil.data == bytes(8)
    assert stencil.patches == (
        Patch("code", (0, 4), "aarch64_33rx", "PyDict_Type + 0x8"),
        Patch("data", (0,), "64", "oparg"),
    )
    assert stencil.instructions
    assert [each.relocations for each in stencil.instructions] == [("PyDict_Type + 0x8",)] * 2


def test_a_jump_that_is_cut_off_after_disassembling_is_no_instruction() -> None:
    """As up to 3.14."""
    text = header({"_ADD": Written((INCREMENT, RETURN))})
    cut = text.replace("0xc0, 0xc3,", "0xc0,").replace("emit__ADD, 3,", "emit__ADD, 2,")
    assert read(cut)["_ADD"].instructions == (Instruction(0, "incl %eax"),)


def test_the_end_of_a_stencil_may_be_filled_up() -> None:
    """As up to 3.14: with `nop` on AArch64, also in the place of a jump that was cut off, or with zeros."""
    text = header({"_ADD": Written((WORD, BRANCH))})
    filled = text.replace("0x00, 0x00, 0x00, 0x14,", "0x1f, 0x20, 0x03, 0xd5,")
    assert filled != text
    assert read(filled)["_ADD"].instructions == (Instruction(0, "add x0, x0, #0x1"), Instruction(4, "nop"))
    zeros = text.replace("0x00, 0x00, 0x00, 0x14,", "")
    assert read(zeros)["_ADD"].code == bytes.fromhex("0004009100000000")
    assert read(zeros)["_ADD"].instructions == (Instruction(0, "add x0, x0, #0x1"),)


@given(st.lists(st.sampled_from(PIECES), max_size=30))
@settings(deadline=None)
def test_any_header_is_read_or_refused(pieces: list[str]) -> None:
    with contextlib.suppress(InfrastructureError):
        found = read("".join(pieces))
        assert uops.compare(found, found).uops == ()
        assert {uop.name for uop in uops.compare({}, found).uops} == {each.uop for each in found.values()}


@pytest.mark.parametrize("line", ["emit__A(\n", "code_body[1] = {\n", "    // 0: 00 ", "    patch_64(code + 0x0, "])
def test_a_header_that_means_harm_takes_no_long_time(line: str) -> None:
    began = time.process_time()
    read(f"emit__A(\n{line * 200_000}\n    [_A] = {{emit__A, 0, 0}},\n")
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("old", "new"), [("// 0: ff c0", "// 0: ff c1"), ("// 2: c3", "// 3: c3"), ("// 2: c3", "// 2: retq")]
)
def test_a_disassembly_that_does_not_fit_is_not_believed(old: str, new: str) -> None:
    text = header({"_ADD_r03": Written((INCREMENT, RETURN))})
    assert text.count(old) == 1
    found = read(text.replace(old, new))
    assert found["_ADD_r03"].instructions is None
    assert found["_ADD_r03"].code == bytes.fromhex("ffc0c3")
    assert uops.size(found.values()).instructions is None
    changed = {"_ADD_r03": replace(found["_ADD_r03"], code=b"\0")}
    (uop,) = uops.compare(found, changed).uops
    assert (uop.instructions, uop.bytes) == (None, -2)


def test_the_same_stencils_are_no_change() -> None:
    again = read(header(PLAIN, SYMBOLS))
    found = uops.compare(BEFORE, again)
    assert found.uops == ()
    assert found.before == found.after == Size(stencils=4, bytes=16, instructions=8, relocations=1)


def test_numbers_of_symbols_are_no_change() -> None:
    """Each build numbers them anew: one more uop moves those of all others."""
    numbered = "patch_x86_64_32rx(code + 0x2, got_symbol_address(0x1, state) - 4)"
    moved = {**PLAIN, "_DEALLOC_r10": replace(PLAIN["_DEALLOC_r10"], patches=(numbered,))}
    assert uops.compare(BEFORE, read(header(moved, ("PyLong_Add", "_Py_Dealloc")))).uops == ()
    (other,) = uops.compare(BEFORE, read(header(moved, SYMBOLS))).uops
    assert (other.name, other.kind, other.bytes, other.instructions) == ("_DEALLOC", Kind.RELOCATED, 0, 0)
    (variant,) = other.variants
    assert variant.before
    assert variant.after
    assert (variant.before.relocations, variant.after.relocations) == (("_Py_Dealloc",), ("PyDict_New",))


def test_what_happens_to_uops_and_variants() -> None:
    found = {uop.name: uop for uop in example.comparison().uops}
    assert {name: uop.kind for name, uop in found.items()} == {
        "_NEW": Kind.NEW,
        "_ADD": Kind.CHANGED,
        "_MERGE": Kind.CHANGED,
        "_OLD": Kind.GONE,
    }
    add = found["_ADD"]
    assert [(variant.name, variant.kind) for variant in add.variants] == [("_ADD_r03", Kind.CHANGED)]
    assert (add.before.stencils, add.before.instructions, add.after.instructions) == (2, 12, 14)
    assert (found["_OLD"].after, found["_NEW"].before) == (Size(), Size())


def test_those_that_grew_are_first_and_then_those_that_shrank_the_most() -> None:
    assert [(uop.name, uop.instructions) for uop in example.comparison().uops] == [
        ("_NEW", 4),
        ("_ADD", 2),
        ("_MERGE", -3),
        ("_OLD", -3),
    ]
    relocated = {"_C_r00": example.stencil("_C_r00", 5, symbol="PyDict_New")}
    many = uops.compare(example.named(_A_r00=5, _B_r00=5, _C_r00=5), example.named(_A_r00=1, _B_r00=2) | relocated)
    assert [uop.name for uop in many.uops] == ["_A", "_B", "_C"]


def test_a_variant_that_takes_the_place_of_another_is_shown_beside_it() -> None:
    found = {uop.name: listing.pairs(uop) for uop in example.comparison().uops}
    assert [pair.name for pair in found["_MERGE"]] == ["_MERGE_r10 → _MERGE_r11"]
    assert [row.sign for row in found["_MERGE"][0].rows] == [*[Sign.SAME] * 6, *[Sign.GONE] * 3]
    assert [pair.name for pair in found["_ADD"]] == ["_ADD_r03"]
    assert {row.sign for row in found["_NEW"][0].rows} == {Sign.NEW}
    more = uops.compare(example.named(_A_r00=1), example.named(_A_r01=1, _A_r02=2)).uops[0]
    assert [pair.name for pair in listing.pairs(more)] == ["_A_r00", "_A_r01", "_A_r02"]


def test_a_jump_that_only_goes_to_another_place_is_the_same() -> None:
    moved = ("eb 03", "jmp     0x6 <CUSTOM_LABEL+0x2>")
    before, after = (
        read(header({"_ADD_r03": Written(each)}))["_ADD_r03"].instructions or ()
        for each in ((JUMP, INCREMENT, RETURN), (INCREMENT, moved, CALL, RETURN))
    )
    rows = listing.side_by_side(before, after)
    assert [row.sign for row in rows] == [Sign.NEW, Sign.SAME, Sign.CHANGED, Sign.SAME]
    called = [replace(each, relocations=("_Py_Dealloc",)) for each in before]
    assert {row.sign for row in listing.side_by_side(before, called)} == {Sign.CHANGED}


def test_stencils_that_are_far_too_long_are_not_aligned() -> None:
    many = [Instruction(number, "nop") for number in range(listing.LONGEST + 1)]
    assert {row.sign for row in listing.side_by_side(many[:-1], many[:-1])} == {Sign.SAME}
    rows = listing.side_by_side(many, many[:3])
    assert [row.sign for row in rows] == [*[Sign.GONE] * len(many), *[Sign.NEW] * 3]


# Binaries


def elf(*sections: tuple[int, int, int]) -> bytes:
    """Return an ELF file whose sections have these types, flags and sizes."""
    names = b"\0.s\0"
    place = 64 + len(names)
    rows = [(0, 0, 0, 0), (3, 0, 64, len(names)), *((kind, flags, place, size) for kind, flags, size in sections)]
    table = b"".join(
        struct.pack("<IIQQQQIIQQ", 1, kind, flags, 0, offset, size, 0, 0, 1, 0) for kind, flags, offset, size in rows
    )
    start = b"\x7fELF\2\1\1" + bytes(9)
    return start + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, place, 0, 64, 0, 0, 64, len(rows), 1) + names + table


def test_the_size_of_a_program_is_without_what_debuggers_read() -> None:
    program, nothing = 1, 8  # types
    written, loaded, executed = 1, 2, 4
    content = elf(
        (program, loaded | executed, 1000),
        (program, loaded, 200),
        (program, loaded | written, 30),
        (nothing, loaded | written, 4),
        (program, 0, 90_000),
    )
    assert binaries.read("python3.15", content) == Binary("python3.15", text=1200, data=30, bss=4)


def test_no_file_has_so_many_sections() -> None:
    content = bytearray(elf((1, 2, 1)))
    (place,) = struct.unpack_from("<Q", content, 40)
    struct.pack_into("<H", content, 60, 0)  # then their number is in the first one
    struct.pack_into("<Q", content, place + 32, 1 << 40)
    with pytest.raises(InfrastructureError, match="there are more than 10,000"):
        binaries.read("python3.15", bytes(content))


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh", elf((1, 2, 1))[:-70]])
def test_a_program_that_is_not_one(content: bytes) -> None:
    with pytest.raises(InfrastructureError, match=r"the sections of python3.15 cannot be read") as refused:
        binaries.read("python3.15", content)
    assert refused.value.hint
