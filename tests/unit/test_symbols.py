"""Which class a function's code belongs to, and the file of symbols that the meter's plugin reads."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossjit.errors import InfrastructureError
from crossjit.measure import symbols
from tests.unit.metered import elf

BINARY = "/usr/local/bin/python3.15"


def read(files: Mapping[str, bytes]) -> symbols.Symbols:
    def content(path: str) -> bytes:
        if path not in files:
            raise InfrastructureError(f"there is no {path}", hint="-")
        return files[path]

    return symbols.read(BINARY, content)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("_PyEval_EvalFrameDefault", "interpreter"),
        ("_TAIL_CALL_LOAD_FAST", "interpreter"),
        ("_PyEval_Vector", "python"),
        ("gc_collect_main", "gc"),
        ("_PyGC_Collect", "gc"),
        ("visit_decref", "gc"),
        ("dict_traverse", "gc"),
        ("tupletraverse", "gc"),
        ("mark_heap_visitor", "gc"),
        ("deduce_unreachable_heap", "gc"),
        ("codegen_visit_expr", "python"),
        ("subtype_dealloc", "memory"),
        ("_Py_Dealloc", "memory"),
        ("_PyLong_ExactDealloc", "memory"),
        ("_PyObject_Malloc", "memory"),
        ("PyObject_Free", "memory"),
        ("_PyObject_GC_New", "memory"),
        ("gc_alloc", "memory"),
        ("_mi_malloc_generic", "memory"),
        ("PyMem_RawRealloc", "memory"),
        ("PyType_GenericAlloc", "memory"),
        ("PyTraceMalloc_Track", "python"),
        ("PyObject_GetAttr", "python"),
        ("PyList_New", "python"),
    ],
)
def test_classes(function: str, expected: str) -> None:
    assert symbols.class_of(function) == expected


def test_functions_are_where_they_are_from_the_first_code_on() -> None:
    found = read({BINARY: elf({"_PyEval_EvalFrameDefault": 64, "list_dealloc.cold": 16, "gc_collect_main.part.0": 8})})
    assert found.known
    assert found.text.splitlines() == [
        "object main",
        "0 40 interpreter _PyEval_EvalFrameDefault",
        "40 50 memory list_dealloc",
        "50 58 gc gc_collect_main",
    ]


def test_tail_calls_make_the_loop_many_functions() -> None:
    found = read({BINARY: elf({"_TAIL_CALL_ADD": 16, "_TAIL_CALL_error": 16, "main": 4})})
    assert found.known
    assert [line.split()[2] for line in found.text.splitlines()[1:]] == ["interpreter", "interpreter", "python"]


def test_functions_of_libpython_are_by_offset() -> None:
    library = "libpython3.15.so.1.0"
    files = {
        BINARY: elf({"main": 16}, needed=library),
        f"/usr/local/lib/{library}": elf({"_PyEval_EvalFrameDefault": 64}, address=0x9000),
    }
    found = read(files)
    assert found.known
    assert found.text.splitlines() == [
        "object main",
        "0 10 python main",
        f"object {library}",
        "200 240 interpreter _PyEval_EvalFrameDefault",
    ]
    missing = read({BINARY: files[BINARY]})
    assert not missing.known
    assert missing.text.splitlines()[-1] == f"object {library}"


def test_a_stripped_binary_is_unknown() -> None:
    found = read({BINARY: elf({"_PyEval_EvalFrameDefault": 64}, stripped=True)})
    assert not found.known
    assert found.text == "object main\n"


def test_functions_never_overlap() -> None:
    data = bytearray(elf({"first": 64, "second": 16}))
    size = data.index((64).to_bytes(8, "little"), 0x1200)  # of `first`: it reaches into `second`
    data[size : size + 8] = (72).to_bytes(8, "little")
    assert read({BINARY: bytes(data)}).text.splitlines()[1:] == ["0 40 python first", "40 50 python second"]


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(60), elf({"main": 4})[:100]])
def test_what_is_not_elf_is_an_error(data: bytes) -> None:
    with pytest.raises(
        InfrastructureError, match=r"the symbols of /usr/local/bin/python3\.15 cannot be read"
    ) as raised:
        read({BINARY: data})
    assert raised.value.hint


@given(st.integers(0, 0x1400), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_an_error_or_read(place: int, noise: bytes) -> None:
    data = bytearray(elf({"_PyEval_EvalFrameDefault": 64, "main": 4}, needed="libpython3.15.so.1.0"))
    data[place : place + len(noise)] = noise
    try:
        found = read({BINARY: bytes(data)})
    except InfrastructureError:
        return
    assert found.text.startswith("object main\n")
