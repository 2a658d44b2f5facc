"""Which code of a CPython belongs to the interpreter's loop, the collector, and memory management. Pure.

The functions' names in the ELF symbol tables decide, also for the parts that compilers split off (`.cold`, `.part.0`).
The result is the plugin's file of symbols; `meter/README.md` describes it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from crossjit.errors import InfrastructureError
from crossjit.model import Arch

LARGEST = 200 << 20  # bytes of a binary
REST = "python"  # the class of the rest

# In this order: `gc_alloc` manages memory.
_CLASSES = {
    "interpreter": r"_PyEval_EvalFrameDefault|_TAIL_CALL_\w+",
    "memory": (
        r"\w*[dD]ealloc|\w+_alloc"
        r"|_?PyMem_\w+|_?PyObject_\w*([mM]alloc|[cC]alloc|[rR]ealloc|Free)|_?PyObject_(GC_)?(New|NewVar|Del|Resize)"
        r"|_Py_NewReference\w*|_?PyType_(GenericAlloc|AllocNoTrack|NewManagedObject)|_PyObject_Clear\w*FreeLists"
        r"|_?mi_\w+|pymalloc_\w+|address_in_range|allocate_from_new_pool|arena_map_\w+|init_obmalloc_pools|new_arena"
        r"|unix_mmap_prim|free_delayed|process_queue|clear_freelist|free_object"
    ),
    "gc": (
        r"_?PyGC_\w+|_Py_(RunGC|ScheduleGC)|gc_\w+|\w*traverse|visit_\w+|\w+_(unreachable|heap|heap_visitor)"
        r"|(update|subtract|restore)_refs|untrack_\w+|_?PyObject_Visit\w+|(referrers|referents)visit"
        r"|invoke_gc_callback|delete_garbage|handle_(weakrefs|legacy_finalizers|resurrected_objects)|finalize_garbage"
        r"|merge_queued_objects|(frame_)?disable_deferred_refcounting"
    ),
}
_PATTERN = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _CLASSES.items()))
_LIBRARY = re.compile(r"libpython[\w.]*\.so[\w.]*")
_CODE = 1  # flag of an executable segment

Reader = Callable[[str], bytes]
"""Reads a file of the container. Raises InfrastructureError if it does not exist."""


@dataclass(frozen=True)
class Symbols:
    """The plugin's file of symbols; `known` says whether the interpreter's loop is in it."""

    text: str
    known: bool


def class_of(function: str) -> str:
    """Return the class of a function, by its name.

    >>> [class_of(name) for name in ("_TAIL_CALL_BINARY_OP", "list_dealloc", "visit_decref", "PyList_New")]
    ['interpreter', 'memory', 'gc', 'python']
    """
    match = _PATTERN.fullmatch(function)
    return str(match.lastgroup) if match else REST


def read(binary: str, content: Reader) -> Symbols:
    """Read the symbols of CPython's binary, and of its libpython if it has one.

    Raises InfrastructureError if a file cannot be read or is not ELF.
    """
    program, library = _object(binary, content(binary))
    objects = [("main", program)]
    if library:
        for folder in _folders(binary):
            try:
                data = content(f"{folder}/{library}")
            except InfrastructureError:
                continue
            objects.append((library, _object(library, data, by_offset=True)[0]))
            break
        else:
            objects.append((library, ()))
    lines = [line for name, functions in objects for line in (f"object {name}", *functions)]
    return Symbols("\n".join(lines) + "\n", any(line.split()[2:3] == ["interpreter"] for line in lines))


def _folders(binary: str) -> Iterator[str]:
    """Yield the folders where the loader may find libpython."""
    library = f"{binary.rpartition('/bin/')[0]}/lib"
    yield from (library, *(f"{library}/{arch.triple}" for arch in Arch))


def _object(path: str, data: bytes, *, by_offset: bool = False) -> tuple[tuple[str, ...], str | None]:
    """Return the lines of one ELF file's functions, and the libpython that it needs."""
    try:
        elf = ELFFile(io.BytesIO(data))
        segments = list(elf.iter_segments())
        code = [segment for segment in segments if segment["p_type"] == "PT_LOAD" and segment["p_flags"] & _CODE]
        place = _offset(code) if by_offset else _distance(code)
        lines = tuple(_lines(elf, place))
        dynamic = next((segment for segment in segments if isinstance(segment, DynamicSegment)), None)
        needed = [str(getattr(tag, "needed", "")) for tag in dynamic.iter_tags("DT_NEEDED")] if dynamic else []
    except (ELFError, ValueError, LookupError, ArithmeticError, AttributeError, TypeError, RecursionError) as error:
        raise InfrastructureError(
            f"the symbols of {path} cannot be read: {error}", hint="the file is damaged: build or install it again"
        ) from error
    return lines, next((name for name in needed if _LIBRARY.fullmatch(name)), None)


def _distance(code: list[Any]) -> Callable[[int], int | None]:
    """Return how far an address is from the first executable segment, where QEMU says that the program is."""
    first = min((segment["p_vaddr"] for segment in code), default=0)
    return lambda address: address - first if address >= first else None


def _offset(code: list[Any]) -> Callable[[int], int | None]:
    """Return the offset of an address in the file: a library is mapped by offset."""

    def place(address: int) -> int | None:
        for segment in code:
            if 0 <= address - segment["p_vaddr"] < segment["p_filesz"]:
                return int(address - segment["p_vaddr"] + segment["p_offset"])
        return None

    return place


def _lines(elf: ELFFile, place: Callable[[int], int | None]) -> Iterator[str]:
    """Yield a file's functions, sorted and disjoint: start, end, class, name.

    The dynamic symbols, which stripped files still have, are not used: they lack most functions of each class.
    """
    table = elf.get_section_by_name(".symtab")
    found: dict[int, tuple[int, str]] = {}
    for symbol in table.iter_symbols() if isinstance(table, SymbolTableSection) else ():
        size, name = symbol["st_size"], symbol.name.partition(".")[0].partition("@")[0]
        if symbol["st_info"]["type"] != "STT_FUNC" or symbol["st_shndx"] == "SHN_UNDEF" or not size:
            continue
        start = place(symbol["st_value"])
        if start is None or not re.fullmatch(r"\w+", name):
            continue
        # of several names of one function, take the one that says more
        rank = (class_of(name) == REST, name)
        if start not in found or rank < (class_of(found[start][1]) == REST, found[start][1]):
            found[start] = (size, name)
    for start, following in pairwise([*sorted(found), 1 << 62]):
        size, name = found[start]
        yield f"{start:x} {min(start + size, following):x} {class_of(name)} {name}"
