from __future__ import annotations

import importlib.util
import json
import platform
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from crossjit.config.suites import VALIDATE

PROBE = VALIDATE / "probe.py"


@pytest.fixture
def probe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("probe_under_test", PROBE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_prints_one_json_object_on_any_python() -> None:
    argv = [sys.executable, str(PROBE), "--told", '{"emulated": false, "cpu": null}']
    output = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    facts = json.loads(output)
    assert len(output.splitlines()) == 1
    assert facts["told"] == {"emulated": False, "cpu": None}
    assert facts["machine"] == platform.machine()
    assert facts["version"]["info"][:2] == list(sys.version_info[:2])
    assert facts["gil"]["enabled"] is True
    assert "math" in [*facts["modules"]["imported"], *sys.builtin_module_names]


def test_a_fact_that_breaks_is_recorded_and_ends_nothing(probe: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise OSError("no such machine")

    monkeypatch.setattr(probe.platform, "machine", broken)
    monkeypatch.setattr(probe, "modules", dict)
    facts = probe.collect({})
    assert facts["machine"] is None
    assert "OSError: no such machine" in facts["errors"]["machine"]
    assert facts["version"]["info"][0] == 3
    assert "gil_after_imports" in facts


def test_the_elf_machine_is_read_from_the_header(
    probe: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("elf")
    for name, header, machine in (
        ("arm", b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00", "EM_AARCH64"),
        ("x86", b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\x3e\x00", "EM_X86_64"),
        ("big", b"\x7fELF\x02\x02\x01" + bytes(9) + b"\x00\x03\x00\xb7", "EM_AARCH64"),
    ):
        (folder / name).write_bytes(header)
        monkeypatch.setattr(probe.sys, "executable", str(folder / name))
        assert probe.executable()["machine"] == machine
    (folder / "script").write_bytes(b"#!/bin/sh\nexec python3\n")
    monkeypatch.setattr(probe.sys, "executable", str(folder / "script"))
    with pytest.raises(ValueError, match="no ELF file"):
        probe.executable()


@pytest.mark.parametrize(
    ("header", "running", "machine"),
    [
        (struct.pack("<II", 0xFEEDFACF, 0x0100000C), "arm64", "ARM64"),
        (struct.pack("<II", 0xFEEDFACF, 0x01000007), "x86_64", "X86_64"),
        (struct.pack(">12I", 0xCAFEBABE, 2, 0x01000007, 3, 0, 0, 0, 0x0100000C, 0, 0, 0, 0), "arm64", "ARM64"),
        (struct.pack(">12I", 0xCAFEBABE, 2, 0x01000007, 3, 0, 0, 0, 0x0100000C, 0, 0, 0, 0), "x86_64", "X86_64"),
        (struct.pack(">7I", 0xCAFEBABE, 1, 7, 3, 0, 0, 0), "arm64", "CPU_TYPE_7"),
    ],
)
def test_the_machine_of_macos_is_read_from_the_header(
    probe: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, header: bytes, running: str, machine: str
) -> None:
    """Of a file for several machines, the one that it runs on."""
    (tmp_path / "python").write_bytes(header)
    monkeypatch.setattr(probe.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(probe.platform, "machine", lambda: running)
    assert probe.executable()["machine"] == machine


def test_the_workloads_compute_what_they_should_and_name_executors(
    probe: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"count": b"\x1f\x20\x03\xd5" * 4, "calls": None}
    monkeypatch.setattr(
        probe,
        "executors",
        lambda code: [{"offset": 8, "code": found[code.co_name]}] if code.co_name in found else [],
    )
    facts, codes = probe.workloads()
    assert [fact["correct"] for fact in facts] == [True, True]
    assert facts[0]["executors"] == [{"function": "count", "offset": 8, "kind": "machine code", "bytes": 16}]
    assert facts[1]["executors"] == [{"function": "calls", "offset": 8, "kind": "uops", "bytes": None}]
    assert codes == [found["count"]]


def test_a_build_without_a_second_tier_says_so(probe: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(_code: object) -> None:
        raise RuntimeError("Executors are not available in this build")

    monkeypatch.setattr(probe, "executors", unavailable)
    facts, codes = probe.workloads()
    assert [fact["unavailable"] for fact in facts] == ["Executors are not available in this build"] * 2
    assert not codes


def test_machine_code_is_looked_for_in_executable_memory_of_no_file(probe: ModuleType) -> None:
    import ctypes
    import mmap

    code = bytes(range(256)) * 2
    with mmap.mmap(
        -1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON
    ) as memory:
        memory.write(code)
        assert probe.executable_memory([code])["machine_code_in_it"] == 0
        view = (ctypes.c_char * mmap.PAGESIZE).from_buffer(memory)
        address = ctypes.addressof(view)
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        if protect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
            pytest.skip("this machine allows no executable memory")
        try:
            fact = probe.executable_memory([code, b"something else entirely, of some length"])
        finally:
            protect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)
            del view
    assert fact["regions"] >= 1
    assert fact["machine_code_in_it"] == 1
