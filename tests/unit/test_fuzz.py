"""The C of toolchain/ under the sanitizers, with inputs that tests/fuzz/driver.c makes: half a minute each in CI."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from crossjit import PROJECT
from crossjit.build.layout import SCRIPTS
from tests.unit.test_llvm_cache import SANITIZED, SANITIZER, compile_c

FOLDER = PROJECT / "tests" / "fuzz"
SECONDS = 30 if os.environ.get("CI") == "true" else 2
WORDS = {
    "llvm_target": (
        "0123456789abcdef0", "-o", "-c", "/tmp/tmp1", "/tmp/tmp1/x.c", "\1", "#include <a.h>\n", '#include "b.h"\n',
        "\n", "some key", "-D_JIT_OPCODE=", "llvm/bin/clang",
    ),
    "server_target": ("/tmp", "2 1", "18446744073709551615 2", "/bin/clang", "A=B"),
}  # fmt: skip


@dataclass(frozen=True)
class Fuzzed:
    """How a target ended, and the input that it had last."""

    status: int
    err: str
    last: bytes


def fuzz(target: str, words: tuple[str, ...], folder: Path, seconds: int, seed: int) -> Fuzzed:
    options = ("-O0", *SANITIZED, f"-I{SCRIPTS}", "-Wall", "-Wextra", "-Werror")
    objects = [
        compile_c(FOLDER / f"{name}.c", folder / f"{name}.o", "-c", *options, *more)
        for name, more in (("driver", ()), (target, ("-fsanitize-coverage=trace-pc",)))
    ]
    program = compile_c(objects[0], folder / "fuzz", str(objects[1]), *SANITIZED)
    current = folder / "current"
    command = [str(program), str(seconds), str(seed), str(current), *words]
    done = subprocess.run(command, env={**os.environ, **SANITIZER}, capture_output=True, check=False)
    content = current.read_bytes()
    last = content[4 : 4 + int.from_bytes(content[:4], "little")]
    return Fuzzed(done.returncode, done.stderr.decode(errors="replace"), last)


@pytest.mark.parametrize("target", WORDS)
def test_no_input_upsets_it(target: str, tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    found = fuzz(target, WORDS[target], tmp_path, SECONDS, seed)
    assert found.status == 0, f"seed {seed}, input {found.last!r}:\n{found.err}"
    tried, kept = map(int, found.err.split())
    assert tried > 1000 * SECONDS
    assert kept > len(WORDS[target]) // 2, "it got nowhere"


def test_a_mistake_is_found(tmp_path: Path) -> None:
    found = fuzz("planted", ("b", "x"), tmp_path, 60, 1)
    assert found.status == 99
    assert "heap-buffer-overflow" in found.err
    assert found.last.startswith(b"bugs")
