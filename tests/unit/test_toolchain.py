"""The scripts of toolchain/, run as they are run in a toolchain container, on small things."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from crossjit.build import layout
from crossjit.build.layout import COMPILERS, SCRIPTS, TOOLS
from tests.conftest import lack

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
        command = [sys.executable, str(SCRIPTS / "build_cache.py"), *arguments]
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


def test_configure_sees_the_compilers_themselves(built: Build) -> None:
    built.write("configure", CONFIGURE + 'echo "$PATH" >>"$ASKED"\n')
    before, after = "/llvm/bin", built.environ["PATH"]
    built.configure(PATH=f"{before}:{SCRIPTS / PurePosixPath(COMPILERS).relative_to(TOOLS)}:{after}")
    assert built.asked.read_text().splitlines() == ["asked", f"{before}:{after}"]


def test_a_configure_that_fails_is_not_kept(built: Build) -> None:
    built.write("configure", "#!/bin/sh\nexit 77\n")
    command = [sys.executable, str(SCRIPTS / "build_cache.py"), "configure", "--", str(built.source / "configure")]
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


ODDITIES = ("cut", "changed", "empty", "another's", "a folder", "a pipe", "a link", "unreadable", "too large")


def spoil(entry: Path, how: str, other: bytes) -> None:
    """Make something else of an entry of a cache; `other` is another entry."""
    content = bytearray(entry.read_bytes())
    entry.unlink()
    match how:
        case "a folder":
            (entry / "below").mkdir(parents=True)
        case "a pipe":
            os.mkfifo(entry)
        case "a link":
            entry.symlink_to("/dev/zero")
        case "too large":
            with entry.open("wb") as file:
                file.truncate(60 << 30)
        case "another's":
            entry.write_bytes(other)
        case "unreadable":
            entry.write_bytes(content)
            entry.chmod(0)
        case _:
            content[len(content) // 2] ^= 1
            entry.write_bytes({"cut": content[:-600], "changed": content, "empty": bytearray()}[how])


@pytest.mark.parametrize("how", ODDITIES)
def test_an_entry_that_is_odd_is_a_miss_and_made_anew(built: Build, how: str) -> None:
    built.stencils()
    one, other = (built.folder / "cache").glob("*/*.tar")
    contents = one.read_bytes(), other.read_bytes()
    spoil(one, how, contents[1])
    spoil(other, how, contents[0])
    root = os.geteuid() == 0 and how == "unreadable"  # who may read anything
    built.begin()
    assert built.configure() is not root
    assert (built.where / "pyconfig.h").read_text() == "#define HAVE_IT 1\n"
    built.run("before-make")
    assert (built.where / "jit_stencils.h").exists() is root
    built.begin()
    built.stencils()
    built.begin()
    assert not built.stencils()


@pytest.mark.parametrize("how", ["a file", "a link to nowhere", "nothing may be written", "parts are files", "gone"])
def test_a_cache_that_is_odd_fails_no_build(built: Build, how: str) -> None:
    cache = built.folder / "cache"
    match how:
        case "a file":
            cache.write_text("")
        case "a link to nowhere":
            cache.symlink_to("/proc/nowhere")
        case "nothing may be written":
            cache.mkdir(mode=0o555)
        case "parts are files":
            cache.mkdir()
            for part in ("configure", "stencils", "ccache"):
                (cache / part).write_text("")
        case "gone":
            built.environ["CROSSJIT_CACHE"] = "/proc/nowhere/cache"
    if how == "nothing may be written" and os.geteuid() == 0:
        pytest.skip("root may write anywhere; tests/e2e/test_damaged_caches.py shows it")
    for _ in range(2):
        assert built.configure() or how == "parts are files"
        built.stencils()
        assert set(built.report()) <= {"configure", "stencils"}
        built.begin()
    assert built.configure() is (how != "parts are files"), "those are removed"


def test_what_bounds_a_cache_follows_no_link(built: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what is beside a cache cannot be removed, it is left alone: nothing behind a link is touched."""
    outside = built.folder / "outside"
    outside.mkdir()
    (outside / "file").write_text("")
    (outside / "file").chmod(0o400)
    remove = runpy.run_path(str(SCRIPTS / "cache_entries.py"))["remove"]
    link = built.folder / "link"
    link.symlink_to(outside)
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", raising(PermissionError))
        remove(str(link))
    assert link.is_symlink()
    assert stat.S_IMODE((outside / "file").stat().st_mode) == 0o400
    (built.folder / "cache").symlink_to(outside)
    built.report()
    assert (outside / "file").exists()


def raising(error: type[OSError]) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_what_the_cache_below_has_is_not_done_again_and_not_written(built: Build) -> None:
    built.stencils()
    below = (built.folder / "cache").rename(built.folder / "below")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in below.rglob("*.tar")}
    built.environ["CROSSJIT_CACHE_BELOW"] = str(below)
    times = built.times_asked()
    built.begin()
    assert not built.stencils()
    assert built.times_asked() == times
    assert not (built.folder / "cache").exists()
    built.write("configure", CONFIGURE + "# other\n")
    (built.source / "configure").chmod(0o755)
    built.write("Include/new.h", "changed")
    built.begin()
    assert built.stencils()
    assert {path.parent.name for path in (built.folder / "cache").rglob("*.tar")} == {"configure", "stencils"}
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in below.rglob("*.tar")} == before
    for path in below.rglob("*.tar"):
        path.write_bytes(b"damaged")
    built.begin()
    assert not built.stencils()


def test_a_cache_does_not_grow_without_bounds(built: Build) -> None:
    folder = built.folder / "cache" / "llvm" / "ab"
    folder.mkdir(parents=True)
    for number in range(4):
        with (folder / f"{number}").open("wb") as file:
            file.truncate(400 << 20)
        os.utime(folder / f"{number}", (number, number))
    built.run("report")
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"], "those that were used longest ago go"


def test_nor_with_what_no_cache_has(built: Build) -> None:
    """All of the folder is bounded, when the next build begins at the latest."""
    cache = built.folder / "cache"
    built.configure()
    expected = {path.relative_to(cache) for path in cache.rglob("*")}
    for name in ("file", "part/x", "configure/sub/x", "pyc/abc/x", "ccache/ab/cd/x", "ccache/1/stats", "llvm/x"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text("x")
    with (cache / "llvm" / "ab").open("wb") as file:
        file.truncate(60 << 30)
    os.utime(cache / "llvm" / "ab", (1, 1))
    (cache / "stencils").symlink_to(built.folder / "src")
    (cache / "pyc" / "ab").symlink_to(built.folder / "src")
    os.mkfifo(cache / "ccache" / "pipe")
    here = os.open(cache, os.O_RDONLY)
    for _ in range(100):  # deeper than any path may be long, and no deeper than pytest can remove
        os.mkdir("deep" * 20, dir_fd=here)
        below = os.open("deep" * 20, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (cache / "closed").mkdir()
    (cache / "closed" / "x").write_text("")
    (cache / "closed").chmod(0)
    built.begin()
    built.configure()
    left = {path.relative_to(cache) for path in cache.rglob("*")}
    assert {path for path in left if len(path.parts) > 1} - expected == {Path("llvm/x"), Path("ccache/ab")}
    assert {path.name for path in cache.iterdir()} <= {"configure", "llvm", "pyc", "ccache"}
    assert (built.folder / "src" / "configure").exists()


def test_hits_and_misses_are_the_first_line_whatever_is_odd(built: Build) -> None:
    built.configure()
    for path in (built.environ["CROSSJIT_CACHE_LOG"], built.environ["CCACHE_STATSLOG"]):
        with Path(path).open("ab") as file:
            file.write(b"\nllvm\nllvm hit\nllvm hits\nno part hit\n\xff\xfe miss\n")
    expected = {"configure": {"hit": 0, "miss": 1}, "llvm": {"hit": 1, "miss": 0}}
    command = [sys.executable, str(SCRIPTS / "build_cache.py"), "report"]
    cache = {"CROSSJIT_CACHE": "/dev/null/cache"}  # what is there can neither be kept nor removed
    done = subprocess.run(
        command, cwd=built.where, env={**built.environ, **cache}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=True,
    )  # fmt: skip
    assert "cache: " in done.stdout
    assert json.loads(done.stdout.splitlines()[0]) == expected


def test_nor_with_more_files_than_are_worth_a_look(built: Build) -> None:
    module = runpy.run_path(str(SCRIPTS / "cache_entries.py"))
    folder = built.folder / "pyc"
    folder.mkdir()
    for number in range(11):
        (folder / f"{number}").write_text("")
    trimmed = module["trimmed"]
    assert trimmed(folder, 11 * 4096) == (11 * 4096, 11), "an empty file takes a block, too"
    assert trimmed(folder, 10 * 4096) == (10 * 4096, 10)
    trimmed.__globals__["MOST"] = 9
    with pytest.raises(ValueError, match="more than 9"):
        trimmed(folder, 1 << 30)


# -- how the scripts end

FAULT = layout.SCRIPT_FAULT


def ended(script: str, *arguments: str, cwd: Path, **environ: str) -> int:
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, check=False, timeout=60).returncode


@pytest.mark.parametrize("status", [1, 3, FAULT])
def test_what_a_script_runs_ends_with_its_own_status_but_for_one(built: Build, status: int) -> None:
    built.write("configure", f"#!/bin/sh\nexit {status}\n")
    configure = (str(SCRIPTS / "build_cache.py"), "configure", "--", str(built.source / "configure"))
    expected = 1 if status == FAULT else status
    assert ended("build_cache.py", *configure[1:], cwd=built.where, **built.environ) == expected
    other = ("sleep", "50", "--")
    assert ended("run_alongside.py", *other, "sh", "-c", f"exit {status}", cwd=built.where, **built.environ) == expected
    assert ended("run_alongside.py", *other, sys.executable, *configure, cwd=built.where, **built.environ) == expected


def test_a_script_that_fails_itself_has_a_status_of_its_own(built: Build) -> None:
    """Also through another."""
    environ = {name: value for name, value in built.environ.items() if name != "PATH"}
    configure = ("configure", "--", str(built.source / "configure"))
    assert ended("build_cache.py", *configure, cwd=built.where, **environ) == FAULT
    script = (sys.executable, str(SCRIPTS / "build_cache.py"))
    assert ended("run_alongside.py", "true", "--", *script, *configure, cwd=built.where, **environ) == FAULT
    assert ended("run_alongside.py", "true", cwd=built.where, **environ) == FAULT


@pytest.mark.parametrize(("mode", "status"), [(0o644, 126), (None, 127)])
def test_what_cannot_be_run_is_no_fault_of_a_scripts(built: Build, mode: int | None, status: int) -> None:
    configure = built.source / "configure"
    configure.unlink() if mode is None else configure.chmod(mode)
    assert ended("build_cache.py", "configure", "--", str(configure), cwd=built.where, **built.environ) == status
    assert ended("run_alongside.py", "true", "--", str(configure), cwd=built.where, **built.environ) == status


def test_beside_a_command_there_may_be_nothing(built: Build) -> None:
    environ = {**built.environ, "PATH": "/nonexistent"}  # not even `nice`
    assert ended("run_alongside.py", "true", "--", "/bin/sh", "-c", "exit 3", cwd=built.where, **environ) == 3


# -- compiler.sh

CCACHE = """#!/bin/sh
echo "depend=$CCACHE_DEPEND"
printf '%s\\n' "$@"
"""
SMALL, LARGE = 16383, 16384  # bytes


class Compiler:
    """The script under a compiler's name, before a ccache that says what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.where = folder
        (folder / "compilers").mkdir(parents=True)
        script = folder / "compiler.sh"
        shutil.copy(SCRIPTS / "compiler.sh", script)
        script.chmod(0o755)
        for name in ("gcc", "aarch64-linux-gnu-g++", "echo"):
            (folder / "compilers" / name).symlink_to(script)
        self.write("bin/ccache", CCACHE)
        (folder / "bin" / "ccache").chmod(0o755)
        for name, size in (("a.c", SMALL), ("b.c", 1), ("large.c", LARGE), ("with space/a b.c", 1), ("a.cpp", 1)):
            self.write(name, "\n" * size)

    def write(self, name: str, content: str) -> None:
        path = self.where / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)

    def run(self, *arguments: str, name: str = "gcc", **environ: str) -> list[str]:
        """Return the lines that are printed."""
        path = f"{self.where}/compilers:{self.where}/bin:/usr/bin:/bin"
        done = subprocess.run(
            [name, *arguments],
            executable=shutil.which(name, path=path),
            cwd=self.where,
            env={"PATH": path, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()


def test_a_stencil_is_left_to_what_stands_for_llvm(tmp_path: Path) -> None:
    """A clang that compiles CPython, too, is found by the same name."""
    compiler = Compiler(tmp_path / "support" / "tools")
    (compiler.where / "compilers" / "clang-21").symlink_to(compiler.where / "compiler.sh")
    own = tmp_path / "support" / "llvm" / "bin" / "clang-21"
    own.parent.mkdir(parents=True)
    own.write_text('#!/bin/sh\necho stencil "$@"\n')
    own.chmod(0o755)
    assert compiler.run("-D_JIT_OPCODE=_NOP", "-c", "a.c", name="clang-21") == ["stencil -D_JIT_OPCODE=_NOP -c a.c"]
    assert compiler.run("-c", "a.c", name="clang-21") == ["depend=1", "/usr/bin/clang-21", "-MMD", "-c", "a.c"]


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    return Compiler(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-O2", "-c", "a.c", "-o", "a.o"),
        ("-c", "-DX=1", "-Iinclude", "-o", "a.o", "a.c"),
        ("-c", "a.cpp"),
        ("-c", "with space/a b.c", "-o", "with space/a b.o", '-DNAME="a b"'),
    ],
)
def test_a_small_source_is_found_by_its_headers(compiler: Compiler, arguments: tuple[str, ...]) -> None:
    assert compiler.run(*arguments) == ["depend=1", "/usr/bin/gcc", "-MMD", *arguments]


def test_a_compiler_is_run_under_its_own_name(compiler: Compiler) -> None:
    ran = compiler.run("-c", "a.cpp", name="aarch64-linux-gnu-g++")
    assert ran == ["depend=1", "/usr/bin/aarch64-linux-gnu-g++", "-MMD", "-c", "a.cpp"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "large.c"),
        ("a.c", "-o", "a"),
        ("a.o", "-o", "a"),
        ("--version",),
        (),
        ("-c", "a.c", "b.c"),
        ("-c", "-MD", "a.c"),
        ("-c", "a.c", "-MMD", "-MF", "x.d"),
        ("-c", "a.c", "-Wp,-MD,x.d"),
        ("-E", "a.c"),
        ("-E", "-c", "a.c"),
        ("-S", "-c", "a.c"),
        ("-c", "-x", "c", "-"),
        ("-c", "missing.c"),
        ("-c", "a.S"),
        ("-c", "a.c", "-o", "/dev/null"),
        ("-c", "a.c", "-isystem", "include"),
        ("-c", "a.c", "-idirafterinclude"),
        ("-c", "a.c", "--sysroot=root"),
        ("-c", "a.c", "@more"),
    ],
)
def test_all_else_is_asked_for_as_it_is(compiler: Compiler, arguments: tuple[str, ...]) -> None:
    assert compiler.run(*arguments) == ["depend=", "/usr/bin/gcc", *arguments]


def test_without_a_cache_the_compiler_runs_by_itself(compiler: Compiler) -> None:
    assert compiler.run("-c", "a.c", "-o", "a.o", name="echo", CCACHE_DISABLE="1") == ["-c a.c -o a.o"]


@pytest.mark.skipif(
    not (shutil.which("ccache") and os.access("/usr/bin/gcc", os.X_OK)), reason="there is no ccache or no gcc"
)
def test_headers_of_headers_count(compiler: Compiler) -> None:
    ccache = shutil.which("ccache")
    assert ccache is not None
    compiler.write("bin/ccache", f'#!/bin/sh\nexec {shlex.quote(ccache)} "$@"\n')
    compiler.write("a.c", '#include "outer.h"\n#include <stddef.h>\nint x = X;\n')
    compiler.write("include/outer.h", '#include "inner.h"\n')
    environ = {"CCACHE_DIR": f"{compiler.where}/cache", "CCACHE_STATSLOG": f"{compiler.where}/log"}

    def compiled(inner: str) -> tuple[bool, bytes]:
        """Compile with this inner header; say whether that had to be done, and what came of it."""
        compiler.write("include/inner.h", inner)
        compiler.write("log", "")
        (compiler.where / "a.o").unlink(missing_ok=True)
        compiler.run("-g", "-c", "-Iinclude", "a.c", "-o", "a.o", **environ)
        events = (compiler.where / "log").read_text().split()
        assert ("cache_miss" in events) != ("direct_cache_hit" in events)
        assert "preprocessed_cache_miss" not in events, "that is what takes so long"
        return "cache_miss" in events, (compiler.where / "a.o").read_bytes()

    one, other = "#define X 1\n", "#define X 2\n"
    first, object_of_one = compiled(one)
    assert first
    assert compiled(one) == (False, object_of_one)
    again, object_of_other = compiled(other)
    assert again
    assert object_of_other != object_of_one
    assert compiled(other) == (False, object_of_other)
    assert compiled(one) == (False, object_of_one)


def test_servers_of_llvm_are_there_when_stencils_have_to_be_made(built: Build, tmp_path: Path) -> None:
    if not (shutil.which("gcc") == "/usr/bin/gcc" and shutil.which("true")):
        lack("a compiler", "there is no gcc here")
    clang = built.folder / "llvm" / "bin" / "clang"
    clang.parent.mkdir(parents=True)
    shutil.copy(str(shutil.which("true")), clang)

    def running() -> list[int]:
        return [int(each.parent.name) for each in Path("/proc").glob("[0-9]*/exe") if exe_of(each) == str(clang)]

    def exe_of(link: Path) -> str:
        try:
            return str(link.readlink())
        except OSError:
            return ""

    with tempfile.TemporaryDirectory(prefix="servers-", dir="/tmp") as folder:  # a socket's path has to be short
        built.environ["CROSSJIT_LLVM_PROGRAMS"] = "clang llvm-objdump"
        servers = {"CROSSJIT_LLVM_SERVERS": f"{folder}/servers"}
        try:
            assert built.stencils(**servers)
            deadline = time.monotonic() + 30
            while not Path(folder, "servers", "clang").is_socket():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert len(running()) == 1
        finally:
            for process in running():
                os.kill(process, signal.SIGKILL)
        built.begin()
        assert not built.stencils(CROSSJIT_LLVM_SERVERS=f"{folder}/others")
        assert not Path(folder, "others").exists()


def test_a_preamble_may_be_precompiled_where_it_is_the_same_for_all_stencils(built: Build) -> None:
    folder = built.folder / "preambles"
    assert built.stencils()
    assert not folder.exists()
    built.begin()
    assert not built.stencils(CROSSJIT_PREAMBLES=str(folder))
    assert not folder.exists(), "there are no stencils to be made"
    built.write("Include/new.h", "#ifdef _JIT_OPCODE\n#endif\n")
    built.begin()
    assert built.stencils(CROSSJIT_PREAMBLES=str(folder))
    assert not folder.exists(), "what that comes to depends on the uop"
    built.write("Include/new.h", "#ifdef _PyJIT_ACTIVE\n#endif\n")
    built.begin()
    assert built.stencils(CROSSJIT_PREAMBLES=str(folder))
    assert folder.is_dir()


# -- compile_library.py


COMPILE_LIBRARY = str(SCRIPTS / "compile_library.py")


def run_compile_library(
    root: Path, *options: str, jobs: int, script: str = COMPILE_LIBRARY, **environ: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, script, "--root", str(root), "--prefix", "/usr/local", *options]
    variables = {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": "1767225600", "PYTHONHASHSEED": "0", **environ}
    return subprocess.run([*command, "--jobs", str(jobs)], env=variables, capture_output=True, text=True, check=False)


def compile_library(
    root: Path, *options: str, jobs: int, script: str = COMPILE_LIBRARY, **environ: str
) -> dict[str, int]:
    done = run_compile_library(root, *options, jobs=jobs, script=script, **environ)
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
    cache = {"CROSSJIT_COMPILED": str(tmp_path / "cache")}
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
    script = tmp_path / "compile_library.py"
    script.write_text(Path(COMPILE_LIBRARY).read_text() + "\n# changed\n")
    assert compile_library(library, jobs=2, script=str(script), **cache)["compiled"] == 13


def test_what_is_compiled_ahead_is_what_would_be_compiled(library: Path, tmp_path: Path) -> None:
    kept = {"CROSSJIT_COMPILED": str(tmp_path / "kept")}
    compile_library(library, jobs=1)
    installed = compiled(library)
    forget(library)
    source = tmp_path / "src" / "Lib"
    shutil.copytree(library / "usr/local/lib/python3.99", source)
    new = source / "package" / "m3.py"
    new.write_text("not = 'installed in the end'\n")
    ahead = ("--ahead", str(source), "--library", "python3.99")
    assert compile_library(tmp_path / "nothing yet", *ahead, jobs=2, **kept)["compiled"] == 12
    assert not compiled(source), "the source is read only"
    assert compile_library(tmp_path / "nothing yet", *ahead, jobs=2, **kept)["kept"] == 12
    assert compile_library(library, jobs=1, **kept) == {"compiled": 1, "kept": 12, "left": 1}
    assert compiled(library) == installed
    assert not [path for path in (tmp_path / "kept").iterdir() if path.is_file()], "what is half made goes"


def test_what_is_compiled_ahead_for_another_library_is_another(library: Path, tmp_path: Path) -> None:
    """Its path is in its code."""
    kept = {"CROSSJIT_COMPILED": str(tmp_path / "kept")}
    ahead = ("--ahead", str(library / "usr/local/lib/python3.99"), "--library", "python3.99t")
    compile_library(library, *ahead, jobs=2, **kept)
    assert compile_library(library, jobs=1, **kept)["compiled"] == 13


def test_what_is_damaged_in_the_cache_is_compiled_again(library: Path, tmp_path: Path) -> None:
    cache = {"CROSSJIT_COMPILED": str(tmp_path / "cache")}
    compile_library(library, jobs=2, **cache)
    good = compiled(library)
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: -1 - path.stat().st_size % 20] + b"!")
    forget(library)
    assert compile_library(library, jobs=2, **cache)["compiled"] == 13
    assert compiled(library) == good


def test_what_cannot_be_written_is_no_example_of_wrong_syntax(library: Path) -> None:
    (library / "usr/local/lib/python3.99/package/__pycache__").write_text("in the way")
    done = run_compile_library(library, jobs=2)
    assert done.returncode == 1
    assert "Not a directory" in done.stderr
    assert "package/m3.py ended with 2" in done.stderr


@pytest.mark.parametrize("oddity", ["a file", "unwritable", "nowhere"])
def test_what_cannot_be_kept_is_compiled_all_the_same(library: Path, tmp_path: Path, oddity: str) -> None:
    cache = tmp_path / "cache"
    if oddity == "a file":
        cache.write_text("in the way")
    elif oddity == "nowhere":
        cache.symlink_to("/proc/nowhere")
    else:
        cache.mkdir(mode=0o555)
        if os.access(cache, os.W_OK):  # root may write anywhere
            cache.rmdir()
            cache = Path("/proc")
    done = run_compile_library(library, jobs=2, CROSSJIT_COMPILED=str(cache))
    assert (done.returncode, json.loads(done.stdout)["kept"]) == (0, 0)
    assert f"cache: {cache}" in done.stderr
    assert len(compiled(library)) == 13


def test_what_another_build_compiled_is_only_read(library: Path, tmp_path: Path) -> None:
    """The other's folder may have it, or this one, or none; what is damaged in one may be whole in the other."""
    below, own = tmp_path / "below", tmp_path / "own"
    compile_library(library, jobs=2, CROSSJIT_COMPILED=str(below))
    without = compiled(library)
    forget(library)
    before = {path: path.read_bytes() for path in below.rglob("*") if path.is_file()}
    both = {"CROSSJIT_COMPILED": str(own), "CROSSJIT_COMPILED_BELOW": str(below)}
    assert compile_library(library, jobs=2, **both) == {"compiled": 0, "kept": 13, "left": 1}
    assert not own.exists()
    damaged = min(before)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert compile_library(library, jobs=2, **both) == {"compiled": 1, "kept": 12, "left": 1}
    assert [path.relative_to(own) for path in own.rglob("*") if path.is_file()] == [damaged.relative_to(below)]
    assert compiled(library) == without
    damaged.write_bytes(before[damaged])
    assert {path: path.read_bytes() for path in below.rglob("*") if path.is_file()} == before


# Begins the script with what is to go wrong in its processes.
SPOILED = """
import errno, os, posix, runpy, sys

def spoiled(path, flags, *more, **others):
    if flags & os.O_CREAT:
        {how}
    return real(path, flags, *more, **others)

real, posix.open = posix.open, spoiled
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("raise OSError(errno.ENOSPC, 'full')", layout.SCRIPT_FAULT),
        ("os.kill(os.getpid(), 9)", layout.SCRIPT_FAULT),  # as the kernel does for memory
        ("os.kill(os.getpid(), 11)", 1),
        ("raise OSError(errno.EACCES, 'denied')", 1),
    ],
)
def test_where_the_machine_has_no_more_python_is_not_to_blame(library: Path, how: str, status: int) -> None:
    script = (COMPILE_LIBRARY, "--root", str(library), "--prefix", "/usr/local", "--jobs", "2")
    command = [sys.executable, "-c", SPOILED.format(how=how), *script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert "package/m3.py ended with" in done.stderr


# -- run_alongside.py


def run_beside(other: str, command: str) -> subprocess.CompletedProcess[str]:
    words = ["sh", "-c", other, "--", "sh", "-c", command]
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "run_alongside.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def groups_alive() -> set[str]:
    """Return the process groups that have more than zombies in them (proc_pid_stat(5))."""
    found = set()
    for about in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, _, group, *_ = about.read_text().rpartition(") ")[2].split()
            if state != "Z":
                found.add(group)
    return found


def test_what_runs_beside_a_command_ends_with_it(tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    other = f"echo said; echo $$ >{begun}; sleep 50 & wait; touch {ended}"
    done = run_beside(other, f"until [ -s {begun} ]; do sleep 0.01; done; echo done; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\n", "")
    group = begun.read_text().strip()
    assert group not in groups_alive()
    assert not ended.exists()


def test_what_runs_beside_a_command_is_out_of_its_way(tmp_path: Path) -> None:
    told = tmp_path / "told"
    done = run_beside(f"nice >{told}; false", f"until [ -s {told} ]; do sleep 0.01; done; nice; kill -KILL $$")
    assert told.read_text() == "19\n"
    assert int(done.stdout) < 19
    assert done.returncode == 128 + 9, "as a shell tells it"


# -- install_tests.py

# As CPython's rule for the library: its folders, its files, and what is made in a build and not here.
MAKEFILE = """
INSTALL = install
INSTALL_DATA = $(INSTALL) -m 644
INSTALL_SCRIPT = $(INSTALL) -m 755
LIBDEST = /usr/local/lib/python3.99
all: build_all
build_all:
	false
libinstall: all $(srcdir)/Modules/xxmodule.c
	@for i in $(LIBDEST); do echo "Creating directory $$i"; $(INSTALL) -d -m 755 $(DESTDIR)$$i; done
	@for d in json idle test test/data test/gone; do \\
		if test ! -d $(srcdir)/Lib/$$d; then continue; fi; \\
		$(INSTALL) -d -m 755 $(DESTDIR)$(LIBDEST)/$$d; \\
	done
	@for i in $(srcdir)/Lib/*.py; do $(INSTALL_DATA) $$i $(DESTDIR)$(LIBDEST); done
	@for d in json idle test test/data test/gone; do \\
		a=$(srcdir)/Lib/$$d; if test ! -d $$a; then continue; fi; b=$(LIBDEST)/$$d; \\
		for i in $$a/*; do \\
			case $$i in *.orig) ;; *) \\
				if test -d $$i; then continue; fi; \\
				if test -x $$i; then echo $(INSTALL_SCRIPT) $$i $$b; $(INSTALL_SCRIPT) $$i $(DESTDIR)$$b; \\
				else echo $(INSTALL_DATA) $$i $$b; $(INSTALL_DATA) $$i $(DESTDIR)$$b; fi;; \\
			esac; \\
		done; \\
	done
	$(INSTALL_DATA) `cat pybuilddir.txt`/_sysconfigdata.py $(DESTDIR)$(LIBDEST)
	-PYTHONPATH=$(DESTDIR)$(LIBDEST) $(RUNSHARED) $(PYTHON_FOR_BUILD) -Wi compileall.py
"""
TESTS = "usr/local/lib/python3.99/test"


class SourceWithTests:
    """A source with tests, a Makefile, and a place to install to."""

    def __init__(self, folder: Path) -> None:
        self.source, self.root, self.makefile = folder / "src", folder / "root", folder / "installed.mk"
        self.root.mkdir()
        for name in ("os.py", "json/tool.py", "test/test_int.py", "test/run.py", "test/data/x.txt", "test/not/listed"):
            self.write(name, f"# {name}")
        self.write("test/old.orig", "")
        (self.source / "Lib/test/run.py").chmod(0o755)
        self.rule(MAKEFILE)

    def write(self, name: str, content: str) -> None:
        path = self.source / "Lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def rule(self, text: str) -> None:
        self.makefile.write_text(f"srcdir = {self.source}\n{text}")

    def install(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPTS / "install_tests.py"), "--makefile", str(self.makefile)]
        command += ["--source", str(self.source), "--root", str(self.root), "--folder", TESTS]
        return subprocess.run(command, cwd=self.root.parent, capture_output=True, text=True, check=False)

    def installed(self) -> dict[str, tuple[str, bool]]:
        return {
            str(path.relative_to(self.root)): (path.read_text(), os.access(path, os.X_OK))
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def tests(tmp_path: Path) -> SourceWithTests:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    return SourceWithTests(tmp_path)


EXPECTED = {
    f"{TESTS}/data/x.txt": ("# test/data/x.txt", False),
    f"{TESTS}/run.py": ("# test/run.py", True),
    f"{TESTS}/test_int.py": ("# test/test_int.py", False),
}


def test_tests_are_installed_as_the_makefile_says(tests: SourceWithTests) -> None:
    done = tests.install()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"files": 3, "folders": 2}
    assert tests.installed() == EXPECTED


def test_nothing_but_the_tests_has_to_be_there(tests: SourceWithTests) -> None:
    for name in ("os.py", "json/tool.py"):
        (tests.source / "Lib" / name).unlink()
    (tests.source / "Lib/json").rmdir()
    assert tests.install().returncode == 0
    assert tests.installed() == EXPECTED


def test_an_empty_folder_is_one(tests: SourceWithTests) -> None:
    (tests.source / "Lib/test/gone").mkdir()
    (tests.source / "Lib/test/gone/x.orig").touch()
    assert json.loads(tests.install().stdout) == {"files": 3, "folders": 3}
    assert (tests.root / TESTS / "gone").is_dir()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("libinstall:", "otherinstall:"),
        ("for d in json idle test test/data test/gone;", "for d in json;"),
        ("$(INSTALL) -d -m 755 $(DESTDIR)$(LIBDEST)/$$d", "true"),
        ("$(INSTALL) -d -m 755 $(DESTDIR)$(LIBDEST)/$$d", "$(INSTALL) -D x y $(DESTDIR)$(LIBDEST)/$$d"),
        ("$(INSTALL_DATA) $$i $(DESTDIR)$$b; fi", "$(INSTALL_DATA) $$i $(DESTDIR)/elsewhere; fi"),
        ("$(INSTALL_DATA) $$i $(DESTDIR)$$b; fi", "$(INSTALL_DATA) -p $$i $(DESTDIR)$$b; fi"),
        ("$(INSTALL_DATA) $$i $(DESTDIR)$(LIBDEST); done", "$(INSTALL_DATA) $$i $(DESTDIR)$(LIBDEST)/test; done"),
        ("*.orig) ;; *)", "*.orig) exit 1;; *)"),
    ],
)
def test_another_rule_is_not_understood(tests: SourceWithTests, old: str, new: str) -> None:
    assert old in MAKEFILE
    tests.rule(MAKEFILE.replace(old, new))
    done = tests.install()
    assert done.returncode == 1
    assert done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["test/with space.txt", "test/with space and/more"])
def test_what_the_rule_itself_takes_for_two_names_is_not_either(tests: SourceWithTests, name: str) -> None:
    tests.write(name, "")
    assert tests.install().returncode == 1


def test_a_link_that_leads_nowhere_is_no_file(tests: SourceWithTests) -> None:
    (tests.source / "Lib/test/link").symlink_to("../nowhere")
    assert tests.install().returncode == 1
