"""Stencils with the caches of toolchain/, as the Tools/jit of each version has them made: what is kept of A is not B's.

The compiler is this machine's gcc; what only clang and a real source show is in tests/e2e/test_cached_builds.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from crossjit.build.layout import SCRIPTS
from tests.conftest import lack
from tests.unit.test_llvm_cache import SANITIZER, program

__all__ = ["program"]  # a fixture

CASES = """\
        case _ADD: {
            x = ADDED;
            break;
        }

        case _SUB: {
            x = 2;
            break;
        }
"""
TEMPLATE = """\
#include "Python.h"
int x;
enum { _ADD, _SUB };
void stencil(int opcode)
{
    switch (_JIT_OPCODE) {
        CASE
    }
}
"""
FILES = {
    "Include/Python.h": '#include "pyconfig.h"\n#include "inner.h"\n#define ADDED CONFIGURED + INNER + FAR\n',
    "Include/internal/inner.h": '#define INNER 10\n#  include \\\n  "stringlib/far.inc"\n',
    "Objects/stringlib/far.inc": "#define FAR 200\n",
    "Python/executor_cases.c.h": CASES,
    "Python/generated_cases.c.h": "of the interpreter's loop\n",
    "Tools/jit/build.py": "",
}


class Stencils:
    """A source of a version's kind, and what makes one stencil of it, with the caches and without."""

    def __init__(self, folder: Path, program: Path, whole: bool) -> None:
        self.source, self.where, self.whole = folder / "src", folder / "build", whole
        gcc = shutil.which("gcc")
        if gcc is None:
            lack("a compiler", "there is no gcc here")
        for path, content in FILES.items():
            self.write(path, content)
        self.write(
            "Tools/jit/template.c", TEMPLATE.replace("CASE", '#include "executor_cases.c.h"') if whole else TEMPLATE
        )
        self.where.mkdir()
        (self.where / "pyconfig.h").write_text("#define CONFIGURED 3000\n")
        (self.where / "Makefile").write_text("\tTools/jit/build.py\n")
        for name, target in (("llvm/bin/clang", Path(gcc)), ("names/clang", program)):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).symlink_to(target)
        self.clang = str(folder / "names" / "clang")
        self.environ = {
            **SANITIZER,
            "PATH": os.environ["PATH"],
            "CROSSJIT_SOURCE": str(self.source),
            "CROSSJIT_TOOLCHAIN": "image packages",
            "CROSSJIT_HEADERS": str(folder / "headers"),
            "CROSSJIT_LLVM": str(folder / "llvm"),
        }
        self.cache = {"CROSSJIT_CACHE": str(folder / "cache"), "CROSSJIT_CACHE_LOG": str(folder / "log")}

    def write(self, path: str, content: str) -> None:
        (self.source / path).parent.mkdir(parents=True, exist_ok=True)
        (self.source / path).write_text(content)

    def change(self, path: str, old: str, new: str) -> None:
        before = (self.source / path).read_text()
        assert old in before
        self.write(path, before.replace(old, new))

    def begin(self) -> None:
        """Get as far as make, as a build with the caches does."""
        command = [sys.executable, str(SCRIPTS / "build_cache.py"), "before-make"]
        subprocess.run(command, cwd=self.where, env={**self.environ, **self.cache}, check=True)

    def make(self, cached: bool, uop: str = "_ADD") -> bytes:
        """Compile a uop's stencil, in a folder with another name each time."""
        template = self.source / "Tools" / "jit" / "template.c"
        with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
            output = Path(scratch) / f"{uop}.s"
            if not self.whole:
                cases = (self.source / "Python" / "executor_cases.c.h").read_text()
                case = next(each for each in cases.split("\n\n") if uop in each)
                template = Path(scratch) / f"{uop}.c"
                template.write_text((self.source / "Tools/jit/template.c").read_text().replace("CASE", case))
            folders = (".", *(self.source / each for each in ("Include", "Include/internal", "Objects", "Python")))
            options = (f"-D_JIT_OPCODE={uop}", *(f"-I{each}" for each in folders), "-O1", "-fno-ident", "-S")
            command = [self.clang, *options, f"-ffile-prefix-map={scratch}=.", "-o", str(output), str(template)]
            environ = {**self.environ, **(self.cache if cached else {})}
            subprocess.run(command, cwd=self.where, env=environ, check=True)
            return b"".join(line for line in output.read_bytes().splitlines(True) if b".file" not in line)

    def hits(self) -> int:
        return Path(self.cache["CROSSJIT_CACHE_LOG"]).read_text().splitlines().count("llvm hit")


@pytest.fixture(params=[True, False], ids=["3.13", "3.14"])
def stencils(request: pytest.FixtureRequest, tmp_path: Path, program: Path) -> Stencils:
    """3.13's template includes all cases; since 3.14 each input is made with its own."""
    return Stencils(tmp_path, program, whole=request.param)


CHANGES: dict[str, Callable[[Stencils], object]] = {
    "a uop": lambda made: made.change("Python/executor_cases.c.h", "x = ADDED;", "x = ADDED + 40000;"),
    "a header": lambda made: made.change("Include/internal/inner.h", "10", "11"),
    "a file that a header includes": lambda made: made.change("Objects/stringlib/far.inc", "200", "201"),
    "the template": lambda made: made.change("Tools/jit/template.c", "int x;", "long x;"),
    "pyconfig.h": lambda made: (made.where / "pyconfig.h").write_text("#define CONFIGURED 3001\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_kept_of_another_source_is_not_taken(stencils: Stencils, change: str) -> None:
    stencils.begin()
    before = stencils.make(cached=True)
    assert stencils.make(cached=True) == before
    assert stencils.hits() == 1
    CHANGES[change](stencils)
    stencils.begin()
    plain = stencils.make(cached=False)
    assert plain != before
    assert stencils.make(cached=True) == plain


def test_what_is_of_another_uop_leaves_it_as_it_is(stencils: Stencils) -> None:
    """Where that can be told: it cannot where each input includes all."""
    stencils.begin()
    stencils.make(cached=True)
    stencils.change("Python/executor_cases.c.h", "x = 2;", "x = 3;")
    stencils.change("Python/generated_cases.c.h", "loop", "loops")
    stencils.begin()
    stencils.make(cached=True)
    assert stencils.hits() == (0 if stencils.whole else 1)


def test_what_the_compiler_is_told_by_a_macro_may_be_anything(stencils: Stencils) -> None:
    stencils.write("Python/secret_cases.c.h", "#define SECRET 1\n")
    stencils.write("Include/computed.h", '#define WHICH "secret_cases.c.h"\n#include WHICH\n')
    stencils.change("Include/Python.h", "+ FAR", "+ FAR + SECRET")
    stencils.change("Include/Python.h", "#define ADDED", '#include "computed.h"\n#define ADDED')
    stencils.begin()
    stencils.make(cached=True)
    stencils.write("Python/secret_cases.c.h", "#define SECRET 2\n")
    stencils.begin()
    assert stencils.make(cached=True) == stencils.make(cached=False)
