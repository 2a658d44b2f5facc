"""The scripts of toolchain/, run as they are run in a toolchain container, on small things."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from crossjit.build import SCRIPTS

CONFIGURE = """#!/bin/sh
echo asked >>"$ASKED"
echo "answers $*" >Makefile
mkdir -p Modules && echo config >Modules/config.c
echo '#define HAVE_IT 1' >pyconfig.h
printf '\\t$(PYTHON_FOR_REGEN) $(srcdir)/Tools/jit/build.py x --output-dir .\\n' >>Makefile
"""


class Build:
    """A source, a folder to build in, and what the scripts go by."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "src"
        self.asked = folder / "asked"
        self.environ = {
            "PATH": os.environ["PATH"],
            "ASKED": str(self.asked),
            "CROSSJIT_SOURCE": str(self.source),
            "CROSSJIT_TOOLCHAIN": "image packages",
            "CROSSJIT_CACHE": str(folder / "cache"),
            "CROSSJIT_LLVM": str(folder / "llvm"),
        }
        for name, content in {
            "configure": CONFIGURE,
            "Makefile.pre.in": "all:",
            "Modules/Setup": "*static*",
            "Modules/makesetup": "#!/bin/sh",
            "Modules/config.c.in": "/* */",
            "Misc/python.pc.in": "prefix=",
            "Include/patchlevel.h": "#define PY_VERSION",
            "Include/internal/pycore_jit.h": "/* jit */",
            "Python/executor_cases.c.h": "case _ADD:",
            "Python/ceval_macros.h": "#define DISPATCH",
            "Tools/jit/_llvm.py": '_LLVM_VERSION = "21"',
            "Tools/jit/template.c": "CASE",
            "Lib/os.py": "pass",
        }.items():
            self.write(name, content)
        (self.source / "configure").chmod(0o755)
        self.begin()

    def write(self, name: str, content: str) -> None:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def begin(self) -> None:
        """Begin another build, in an empty folder."""
        self.where = self.folder / f"build-{len(list(self.folder.glob('build-*')))}"
        self.where.mkdir()
        self.environ |= {
            "CROSSJIT_HEADERS": str(self.where.with_name(f"{self.where.name}.headers")),
            "CROSSJIT_CACHE_LOG": str(self.where.with_name(f"{self.where.name}.log")),
            "CCACHE_STATSLOG": str(self.where.with_name(f"{self.where.name}.ccache")),
        }

    def run(self, *arguments: str, **environ: str) -> str:
        command = [sys.executable, str(SCRIPTS / "cache.py"), *arguments]
        done = subprocess.run(
            command, cwd=self.where, env={**self.environ, **environ}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def configure(self, *arguments: str, **environ: str) -> bool:
        """Configure, and say whether that had to be done."""
        before = self.times_asked()
        self.run("configure", "--", str(self.source / "configure"), *arguments, **environ)
        assert (self.where / "Modules" / "config.c").read_text() == "config\n"
        return self.times_asked() > before

    def times_asked(self) -> int:
        return len(self.asked.read_text().splitlines()) if self.asked.exists() else 0

    def stencils(self, **environ: str) -> bool:
        """Get as far as the stencils, and say whether they had to be made."""
        self.configure()
        self.run("before-make", **environ)
        if (self.where / "jit_stencils.h").exists():
            return False
        for name in ("jit_stencils.h", "jit_stencils-x.h", "jit_shim-x.o", ".jit-stamp"):
            (self.where / name).write_text(f"stencils {self.where.name}")
        self.run("after-make", **environ)
        return True

    def report(self) -> Any:
        return json.loads(self.run("report"))


@pytest.fixture
def built(tmp_path: Path) -> Build:
    return Build(tmp_path)


def test_the_same_questions_are_answered_from_the_cache(built: Build) -> None:
    assert built.configure("--prefix=/usr/local")
    made = {path.name: path.read_bytes() for path in built.where.rglob("*") if path.is_file()}
    assert built.report() == {"configure": {"hit": 0, "miss": 1}}
    built.begin()
    assert not built.configure("--prefix=/usr/local")
    assert {path.name: path.read_bytes() for path in built.where.rglob("*") if path.is_file()} == made
    assert built.report() == {"configure": {"hit": 1, "miss": 0}}


@pytest.mark.parametrize(
    "changed",
    [
        "configure", "Makefile.pre.in", "config.guess", "Modules/Setup", "Modules/Setup.stdlib.in", "Modules/makesetup",
        "Modules/config.c.in", "Modules/new.c", "Misc/python.pc.in", "Include/patchlevel.h", "Include/new.h",
        "Python/thread_new.h", "Tools/jit/_llvm.py", "Platforms/new.in", "NewFolder/file",
    ],
)  # fmt: skip
def test_whatever_configure_could_read_is_part_of_the_question(built: Build, changed: str) -> None:
    built.configure()
    existing = built.source / changed
    built.write(changed, (existing.read_text() if existing.exists() else "") + "\n# changed\n")
    built.begin()
    assert built.configure()


@pytest.mark.parametrize(
    "environ", [{"CROSSJIT_TOOLCHAIN": "another image"}, {"PKG_CONFIG_LIBDIR": "/x"}, {"CFLAGS": "-O1"}]
)
def test_so_are_the_toolchain_the_environment_and_the_arguments(built: Build, environ: dict[str, str]) -> None:
    built.configure()
    built.begin()
    assert built.configure(**environ)
    built.begin()
    assert built.configure("--with-pydebug")
    built.begin()
    assert not built.configure()


def test_what_configure_does_not_read_is_not(built: Build) -> None:
    built.configure(HOSTNAME="one-container")
    built.environ["HOSTNAME"] = "another"
    built.write("Lib/os.py", "changed")
    built.write("Python/ceval_macros.h", "changed")
    built.begin()
    assert not built.configure()


def test_a_configure_that_fails_is_not_kept(built: Build) -> None:
    built.write("configure", "#!/bin/sh\nexit 77\n")
    command = [sys.executable, str(SCRIPTS / "cache.py"), "configure", "--", str(built.source / "configure")]
    for _ in range(2):
        assert subprocess.run(command, cwd=built.where, env=built.environ, check=False).returncode == 77
    assert not list((built.folder / "cache").rglob("*.tar"))


def test_without_a_cache_everything_is_done(built: Build) -> None:
    del built.environ["CROSSJIT_CACHE"]
    for _ in range(2):
        assert built.configure()
        assert built.stencils()
        assert built.report() == {}
        built.begin()


def test_stencils_of_the_same_inputs_are_put_back(built: Build) -> None:
    assert built.stencils()
    first = built.where
    built.begin()
    assert not built.stencils()
    for name in ("jit_stencils.h", "jit_stencils-x.h", "jit_shim-x.o", ".jit-stamp"):
        assert (built.where / name).read_bytes() == (first / name).read_bytes()
        assert (built.where / name).stat().st_mtime >= (built.source / "Tools/jit/template.c").stat().st_mtime
    assert built.report()["stencils"] == {"hit": 1, "miss": 0}


@pytest.mark.parametrize(
    "changed",
    ["Python/executor_cases.c.h", "Python/ceval_macros.h", "Include/internal/pycore_jit.h", "Include/new.h",
     "Tools/jit/template.c", "Tools/jit/_llvm.py", "Tools/jit/new.py"],
)  # fmt: skip
def test_whatever_a_stencil_is_made_of_is_part_of_its_key(built: Build, changed: str) -> None:
    built.stencils()
    built.write(changed, "changed")
    built.begin()
    assert built.stencils()


def test_so_are_pyconfig_the_recipe_and_the_toolchain(built: Build) -> None:
    built.stencils()
    built.begin()
    assert built.stencils(CROSSJIT_TOOLCHAIN="another image")
    for change in ("echo '#define Py_DEBUG 1' >>pyconfig.h\n", "sed -i 's/x --output/y --output/' Makefile\n"):
        built.write("configure", CONFIGURE + change)
        (built.source / "configure").chmod(0o755)
        built.begin()
        assert built.stencils()


def test_a_cache_does_not_grow_without_bounds(built: Build) -> None:
    folder = built.folder / "cache" / "llvm" / "ab"
    folder.mkdir(parents=True)
    for number in range(4):
        with (folder / f"{number}").open("wb") as file:
            file.truncate(400 << 20)
        os.utime(folder / f"{number}", (number, number))
    built.run("report")
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"], "those that were used longest ago go"


# -- llvm.sh

TOOL = """#!/bin/sh
echo "ran $*" >>"$RAN"
case "$*" in *--version*) echo 'clang version 21.1.8'; exit ;; *broken*) echo trouble; exit 3 ;; esac
for last; do :; done
out= before=
for word; do [ "$before" != -o ] || out=$word; before=$word; done
if [ "$out" ]; then { echo "compiled"; cat "$last"; } >"$out"; else echo "$last: file format elf64"; cat "$last"; fi
"""


class Llvm:
    """A tool that says that it ran, behind llvm.sh."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran = folder / "ran"
        (folder / "llvm" / "bin").mkdir(parents=True)
        (folder / "wrapped").mkdir()
        (folder / "headers").write_text("digest of headers")
        for name in ("clang", "llvm-objdump"):
            (folder / "llvm" / "bin" / name).write_text(TOOL)
            (folder / "llvm" / "bin" / name).chmod(0o755)
            for wrapped in (name, f"{name}-21"):
                (folder / "wrapped" / wrapped).write_bytes((SCRIPTS / "llvm.sh").read_bytes())
                (folder / "wrapped" / wrapped).chmod(0o755)
        self.environ = {
            "PATH": os.environ["PATH"],
            "RAN": str(self.ran),
            "CROSSJIT_LLVM": str(folder / "llvm"),
            "CROSSJIT_TOOLCHAIN": "image",
            "CROSSJIT_CACHE": str(folder / "cache"),
            "CROSSJIT_CACHE_LOG": str(folder / "log"),
            "CROSSJIT_HEADERS": str(folder / "headers"),
        }

    def run(self, tool: str, *arguments: str, **environ: str) -> tuple[bool, int, str]:
        """Run a tool; say whether the real one ran, how it ended and what it printed."""
        before = self.ran.read_text() if self.ran.exists() else ""
        command = [str(self.folder / "wrapped" / tool), *arguments]
        done = subprocess.run(command, env={**self.environ, **environ}, capture_output=True, text=True, check=False)
        after = self.ran.read_text() if self.ran.exists() else ""
        return after != before, done.returncode, done.stdout

    def compile(self, scratch: str, content: str = "int x;", suffix: str = "c", **environ: str) -> tuple[bool, str]:
        """Compile a file in a folder with a name that changes, as CPython does."""
        work = Path("/tmp") / scratch
        work.mkdir(exist_ok=True)
        try:
            source = work / f"_ADD.{suffix}"
            source.write_text(content)
            ran, status, _ = self.run(
                "clang", "--target=x", f"-ffile-prefix-map={work}=.", "-o", str(work / "_ADD.o"), str(source), **environ
            )
            assert status == 0
            return ran, (work / "_ADD.o").read_text()
        finally:
            for path in work.iterdir():
                path.unlink()
            work.rmdir()


@pytest.fixture
def llvm(tmp_path: Path) -> Llvm:
    return Llvm(tmp_path)


def test_a_tool_runs_once_for_the_same_input_wherever_that_is(llvm: Llvm) -> None:
    assert llvm.compile(f"tmpaaaa{os.getpid()}") == (True, "compiled\nint x;")
    assert llvm.compile(f"tmpbbbb{os.getpid()}") == (False, "compiled\nint x;")
    assert (llvm.folder / "log").read_text().split() == ["miss", "hit"]


def test_it_runs_again_for_anything_else(llvm: Llvm) -> None:
    scratch = f"tmpcccc{os.getpid()}"
    llvm.compile(scratch)
    assert llvm.compile(scratch, "int y;")[0]
    assert llvm.compile(scratch, CROSSJIT_TOOLCHAIN="another")[0]
    (llvm.folder / "headers").write_text("other headers")
    assert llvm.compile(scratch)[0]
    assert llvm.compile(scratch, suffix="s")[0]
    (llvm.folder / "headers").write_text("yet other headers")
    assert not llvm.compile(scratch, suffix="s")[0], "assembly includes no headers"


def test_without_a_cache_or_the_headers_digest_it_always_runs(llvm: Llvm) -> None:
    scratch = f"tmpdddd{os.getpid()}"
    for environ in ({"CROSSJIT_CACHE": ""}, {"CROSSJIT_HEADERS": "/nonexistent"}):
        assert llvm.compile(scratch, **environ)[0]
        assert llvm.compile(scratch, **environ)[0]


def test_what_names_its_folder_is_named_anew(llvm: Llvm) -> None:
    for number in range(2):
        with tempfile.TemporaryDirectory(dir="/tmp") as scratch:  # as CPython makes its own
            file = Path(scratch) / "_ADD.o"
            file.write_text("bytes")
            ran, status, said = llvm.run("llvm-objdump-21", "--disassemble", str(file))
            assert status == 0
            assert said == f"{file}: file format elf64\nbytes"
            assert ran is (number == 0)


def test_failures_and_questions_are_passed_on(llvm: Llvm) -> None:
    for _ in range(2):
        assert llvm.run("clang", "--version") == (True, 0, "clang version 21.1.8\n")
        file = llvm.folder / "broken.o"
        file.write_text("x")
        assert llvm.run("llvm-objdump", str(file)) == (True, 3, "trouble\n")
    assert not (llvm.folder / "cache").exists() or not [p for p in (llvm.folder / "cache").rglob("*") if p.is_file()]


# -- compile_library.py


def compile_library(root: Path, *, jobs: int, **environ: str) -> dict[str, int]:
    command = [sys.executable, str(SCRIPTS / "compile_library.py"), "--root", str(root), "--prefix", "/usr/local"]
    variables = {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": "1767225600", "PYTHONHASHSEED": "0", **environ}
    done = subprocess.run([*command, "--jobs", str(jobs)], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "usr" / "local" / "lib" / "python3.99"
    (folder / "package").mkdir(parents=True)
    for number in range(12):
        names = ", ".join(repr(f"name{other}") for other in range(number))
        (folder / "package" / f"m{number}.py").write_text(
            f"x = frozenset({{{names}}})\ndef f{number}(): return x, 'name1'\n"
        )
    (folder / "wrong.py").write_text("def (:\n")
    (folder / "asserting.py").write_text('"""Documented."""\nassert False\n')
    return tmp_path / "root"


def compiled(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.pyc"))}


def forget(root: Path) -> None:
    for path in root.rglob("*.pyc"):
        path.unlink()


def test_all_is_compiled_but_what_is_no_python(library: Path) -> None:
    assert compile_library(library, jobs=2) == {"compiled": 13, "kept": 0, "left": 1}
    found = compiled(library)
    assert len(found) == 13
    assert not any("wrong" in name or "opt-" in name for name in found)
    flags = {int.from_bytes(content[4:8], "little") for content in found.values()}
    assert flags == {3}, "hash-based and checked: valid whatever time stamps an unpacked tree gets (PEP 552)"


def test_how_many_are_compiled_at_a_time_changes_nothing(library: Path) -> None:
    compile_library(library, jobs=1)
    one = compiled(library)
    forget(library)
    compile_library(library, jobs=5)
    assert compiled(library) == one


def test_what_is_kept_is_what_would_be_compiled(library: Path, tmp_path: Path) -> None:
    cache = {"CROSSJIT_CACHE": str(tmp_path / "cache")}
    compile_library(library, jobs=2)
    without = compiled(library)
    forget(library)
    assert compile_library(library, jobs=2, **cache)["compiled"] == 13
    forget(library)
    assert compile_library(library, jobs=2, **cache) == {"compiled": 0, "kept": 13, "left": 1}
    assert compiled(library) == without
    changed = library / "usr/local/lib/python3.99/package/m3.py"
    changed.write_text("changed = True\n")
    assert compile_library(library, jobs=2, **cache)["compiled"] == 1
    assert compile_library(library, jobs=2, **cache, CROSSJIT_COMPILER="another")["compiled"] == 13
    assert compile_library(library, jobs=2, **cache, SOURCE_DATE_EPOCH="1")["compiled"] == 13


def test_what_is_damaged_in_the_cache_is_compiled_again(library: Path, tmp_path: Path) -> None:
    cache = {"CROSSJIT_CACHE": str(tmp_path / "cache")}
    compile_library(library, jobs=2, **cache)
    good = compiled(library)
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: -1 - path.stat().st_size % 20] + b"!")
    forget(library)
    assert compile_library(library, jobs=2, **cache)["compiled"] == 13
    assert compiled(library) == good
