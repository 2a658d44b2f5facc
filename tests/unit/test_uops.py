"""JIT code divided among uops: what is read of a build's stencils, and whose each executed instruction is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from crossjit.channels import ExecutorFacts
from crossjit.errors import InfrastructureError
from crossjit.measure import stencils, uops
from crossjit.measure.marks import Block
from crossjit.measure.process import ProblemError
from crossjit.measure.uops import Division, Uop

# As Tools/jit writes it: a body without its zeros at the end, and the places that are patched.
HEADER = """\
void
emit__START_r00(
    unsigned char *code, unsigned char *data, _PyExecutorObject *executor,
    const _PyUOpInstruction *instruction, jit_state *state)
{
    // 0: 00 00 00 94                   bl      0x0 <_JIT_ENTRY>
    const unsigned char data_body[8] = {
        0xff,
    };
    const unsigned char code_body[8] = {
        0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
    };
    memcpy(code, code_body, sizeof(code_body));
}

void
emit__ADD_r12(
    unsigned char *code, unsigned char *data, _PyExecutorObject *executor,
    const _PyUOpInstruction *instruction, jit_state *state)
{
    const unsigned char code_body[20] = {
        0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
        0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e, 0x2f, 0x30,
    };
    memcpy(code, code_body, sizeof(code_body));
    patch_aarch64_trampoline(code + 0x8, 0x2b, state);
    patch_64(data + 0x0, instruction->oparg);
}

void
emit__ADD_r21(
    unsigned char *code, unsigned char *data, _PyExecutorObject *executor,
    const _PyUOpInstruction *instruction, jit_state *state)
{
    const unsigned char code_body[4] = {
        0x31, 0x32, 0x33, 0x34,
    };
    memcpy(code, code_body, sizeof(code_body));
}

void
emit__NOP_r11(
    unsigned char *code, unsigned char *data, _PyExecutorObject *executor,
    const _PyUOpInstruction *instruction, jit_state *state)
{
}

void
emit__FATAL_ERROR_r00(
    unsigned char *code, unsigned char *data, _PyExecutorObject *executor,
    const _PyUOpInstruction *instruction, jit_state *state)
{
    const unsigned char code_body[4] = {
        0xf1, 0xf2, 0xf3, 0xf4,
    };
    memcpy(code, code_body, sizeof(code_body));
}

static const StencilGroup stencil_groups[MAX_UOP_REGS_ID + 1] = {
    [_ADD_r12] = {emit__ADD_r12, 20, 8, {0x01, 0x02}, {0}},
    [_ADD_r21] = {emit__ADD_r21, 4, 0, {0}, {0}},
    [_FATAL_ERROR_r00] = {emit__FATAL_ERROR_r00, 4, 0, {0}, {0}},
    [_NOP_r11] = {emit__NOP_r11, 0, 0, {0}, {0}},
    [_START_r00] = {emit__START_r00, 8, 8, {0}, {0}},
};
"""
NUMBERS = """\
#define _ADD 300
#define _CALL CALL
#define MAX_UOP_ID 300
#define _START_r00 501
#define _ADD_r12 502
#define _ADD_r21 503
#define _NOP_r11 504
#define _FATAL_ERROR_r00 505
#define _UNUSED_r00 506
"""
STENCILS = stencils.numbered(stencils.by_name(HEADER), NUMBERS)

START, ADD, SHORT, NOP = 501, 502, 503, 504
OF = {START: "_START", ADD: "_ADD", SHORT: "_ADD", NOP: "_NOP"}
PLACE, MAPPING = 0x4000, 7
MAPPINGS = ((PLACE, PLACE + 0x1000, MAPPING), (0x9000, 0xB000, 9))


def executor(*opcodes: int, address: int = PLACE, **fields: Any) -> ExecutorFacts:
    code = b"".join(STENCILS.of[opcode].code for opcode in opcodes) + STENCILS.end.code
    plain: dict[str, Any] = {
        "place": "m.f:1",
        "address": address,
        "size": 0x1000,
        "code": code.hex(),
        "names": tuple(OF[opcode] for opcode in opcodes),
        "opcodes": opcodes,
        "jumps": (),
    }
    return ExecutorFacts(**{**plain, **fields})


def block(offset: int, sizes: str, *, mapping: int = MAPPING, place: int = PLACE) -> Block:
    return Block(place + offset, sizes, mapping)


def divide(blocks: dict[Block, int], *executors: ExecutorFacts) -> Division:
    division = uops.divide(uops.layout(executors, STENCILS, MAPPINGS), blocks)
    ran = sum(uop.instructions for uop in division.uops) + division.trampolines + division.other
    assert ran == division.instructions == sum(len(block.sizes) * times for block, times in blocks.items())
    return division


def uop(division: Division, name: str) -> Uop:
    return next(uop for uop in division.uops if uop.name == name)


def test_stencils_are_read_from_a_builds_headers() -> None:
    assert {number: stencil.name for number, stencil in STENCILS.of.items()} == {
        START: "_START_r00",
        ADD: "_ADD_r12",
        SHORT: "_ADD_r21",
        NOP: "_NOP_r11",
        505: "_FATAL_ERROR_r00",
    }
    add = STENCILS.of[ADD]
    assert (add.uop, add.code) == ("_ADD", bytes(range(0x21, 0x31)) + bytes(4))
    assert add.patched == set(range(4, 16))
    assert STENCILS.of[START].code == bytes(range(0x11, 0x19)), "the code, not the data"
    assert STENCILS.of[NOP].code == b""
    assert STENCILS.end.name == "_FATAL_ERROR_r00"


@pytest.mark.parametrize(
    ("header", "numbers", "message"),
    [
        ("", NUMBERS, "there is no _FATAL_ERROR_r00"),
        (HEADER, NUMBERS.replace("503", "ADD"), "5 stencils have 4 numbers"),
        (HEADER.replace("emit__ADD_r21(", "emit_x("), NUMBERS, "_ADD_r21 has no code"),
        (HEADER.replace("emit__ADD_r12, 20", "emit__ADD_r12, 12"), NUMBERS, "_ADD_r12 has 16 bytes instead of 12"),
    ],
)
def test_headers_of_an_unknown_form_are_an_error(header: str, numbers: str, message: str) -> None:
    with pytest.raises(InfrastructureError, match=message) as raised:
        stencils.numbered(stencils.by_name(header), numbers)
    assert raised.value.hint


def test_each_instruction_belongs_to_the_uop_that_it_is_in() -> None:
    """Blocks may have several uops, or a part of one, or begin in the middle of another block."""
    made = executor(START, ADD, SHORT)
    blocks = {
        block(0, "4444"): 10,  # both of _START, two of _ADD
        block(16, "444"): 9,  # the rest of _ADD
        block(20, "44"): 5,  # once more, from its middle
        block(28, "4"): 14,  # _ADD again
        block(8, "44"): 3,  # a jump to the first _ADD
        block(32, "4"): 1,  # _FATAL_ERROR
        block(36, "44"): 6,  # a trampoline
    }
    division = divide(blocks, made)
    assert division.uops == (
        Uop("_ADD", places=2, bytes=24, executions=10 + 3 + 14, instructions=2 * 10 + 3 * 9 + 2 * 5 + 14 + 2 * 3),
        Uop("_START", places=1, bytes=8, executions=10, instructions=20),
    )
    assert (division.trampolines, division.other) == (1 + 12, 0)
    assert (division.executors, division.bytes) == (1, 0x1000)


def test_instructions_may_have_any_size() -> None:
    division = divide({block(0, "17f5"): 2, block(28, "13"): 1}, executor(START, ADD, SHORT))
    assert uop(division, "_START").instructions == 4
    assert uop(division, "_ADD") == Uop("_ADD", 2, 24, executions=3, instructions=6)


def test_what_ran_elsewhere_is_other_code() -> None:
    """Of an executor that was freed, whose address is another's now; of one that was not found; of none at all."""
    blocks = {
        block(0, "44"): 2,
        block(0, "44", mapping=3): 10,
        block(0, "444", place=0xA000, mapping=9): 5,
        block(0, "4", place=0x50, mapping=1): 7,
    }
    division = divide(blocks, executor(START), executor(START, address=0x9000))
    assert uop(division, "_START").executions == 2
    assert division.other == 20 + 15 + 7
    assert division.trampolines == 0


def test_executors_in_one_mapping() -> None:
    blocks = {block(0, "44", place=0x9000, mapping=9): 3, block(0, "44", place=0xA000, mapping=9): 4}
    division = divide(blocks, executor(START, address=0x9000), executor(START, address=0xA000))
    assert uop(division, "_START") == Uop("_START", 2, 16, executions=7, instructions=14)


def test_a_uop_without_machine_code_is_executed_as_often_as_the_next_one() -> None:
    blocks = {block(0, "44"): 4, block(8, "44444"): 3}
    made = executor(START, NOP, NOP, ADD)
    assert uop(divide(blocks, made), "_NOP") == Uop("_NOP", 2, 0, executions=6, instructions=0)


@pytest.mark.parametrize(
    ("opcodes", "jumps", "executions"),
    [
        ((START, NOP, ADD), (), 3),
        ((START, NOP, ADD), (0, 1), 3),  # whoever jumps to it executes it
        ((START, NOP, ADD), (2,), None),  # who jumps to the next one does not
        ((START, NOP, NOP, ADD), (2,), None),
        ((START, ADD, NOP), (), None),  # nothing follows
    ],
)
def test_executions_that_cannot_be_told(opcodes: Sequence[int], jumps: tuple[int, ...], executions: int | None) -> None:
    division = divide({block(0, "4444444"): 3}, executor(*opcodes, jumps=jumps))
    assert uop(division, "_NOP").executions == executions
    assert uop(division, "_ADD").executions == 3


def test_bytes_may_differ_only_where_stencils_are_patched() -> None:
    made = executor(START, ADD)
    code = bytearray.fromhex(made.code)
    code[8 + 4 : 8 + 16] = bytes(12)
    assert divide({}, replace(made, code=code.hex())).executors == 1


def changed(made: ExecutorFacts, index: int) -> ExecutorFacts:
    code = bytearray.fromhex(made.code)
    code[index] ^= 1
    return replace(made, code=code.hex())


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (changed(executor(START, ADD), 7), "uop 0, _START_r00, has other bytes than its stencil"),
        (changed(executor(START, ADD), 11), "uop 1, _ADD_r12, has other bytes than its stencil"),
        (changed(executor(START, ADD), 28), "_FATAL_ERROR_r00 does not follow the last uop"),
        (executor(START, ADD, opcodes=(START, SHORT)), "uop 1, _ADD_r21, has other bytes than its stencil"),
        (executor(START, ADD, opcodes=(START, NOP)), "uop 1 is _ADD, and its number is that of _NOP_r11"),
        (executor(START, ADD, opcodes=(START, 999)), "uop 1 is _ADD, and its number is that of none"),
        (executor(START, ADD, opcodes=(START,)), "its description contradicts itself"),
        (executor(START, size=8), "its description contradicts itself"),
        (executor(START, address=0x20000), "it is not in memory for JIT code"),
        (executor(START, address=PLACE + 0x100), "it is not in memory for JIT code"),
    ],
)
def test_machine_code_that_does_not_fit_is_not_divided(made: ExecutorFacts, message: str) -> None:
    with pytest.raises(ProblemError) as raised:
        divide({block(0, "44"): 1}, made)
    assert raised.value.message.startswith("the JIT's machine code cannot be divided into uops: ")
    assert message in raised.value.message


def test_an_instruction_across_two_uops_is_an_error() -> None:
    with pytest.raises(ProblemError, match="an instruction of _START goes on in the next uop"):
        divide({block(0, "45"): 1}, executor(START, ADD))


def test_executors_that_overlap_are_an_error() -> None:
    with pytest.raises(ProblemError, match="it overlaps another one"):
        divide({}, executor(START, address=0x9000), executor(START, address=0x9800))
