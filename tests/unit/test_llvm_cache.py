"""toolchain/llvm_cache.c, compiled here, in front of tools that say that they ran."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from crossjit.build.layout import SCRIPTS
from tests.conftest import lack

# What it makes of an input depends on its arguments, too; what it prints, on what the input says of that.
TOOL = """#!/bin/sh
echo "ran $*" >>"$RAN"
case "$*" in *--version*) echo 'clang version 21.1.8'; exit ;; esac
out= before= options= header= precompiled=
for word; do
    case $before:$word in
        -o:*) out=$word ;;
        -x:*) header=$word ;;
        -include-pch:*) precompiled=$(cat "$word") ;;
        *:-D*) options="$options $word" ;;
        *:-*) ;;
        *) input=$word ;;
    esac
    before=$word
done
case $(cat "$input") in
    *refused*) [ -z "$header" ] || exit 3 ;;
    *noted*) [ -z "$header" ] || echo note >&2 ;;
    *unlike*) [ -z "$precompiled" ] || { echo other >"$out"; exit; } ;;
    *talks*) [ -z "$precompiled" ] || echo talk >&2 ;;
    *broken*) echo trouble; echo more trouble >&2; exit 3 ;;
    *killed*) kill -SEGV $$ ;;
    *warned*) echo warning >&2 ;;
    *nothing*) exit ;;
    *named*) [ -z "$out" ] || { echo "compiled $input" >"$out"; exit; } ;;
    *marked*) printf '\\001\\n' ;;
esac
if [ "$out" ]; then
    { echo "compiled$options"; cat "$input"; } >"$out"
else
    echo "$input: file format elf64 of ${0##*/}"; cat "$input"
fi
"""


# C of ours runs with these in its tests: whatever they find ends it with a status of its own, and is told on stderr.
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SANITIZER = {
    "ASAN_OPTIONS": "detect_leaks=0:handle_segv=0:exitcode=99",
    "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=99",
}


def compile_c(source: Path, target: Path, *options: str) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        lack("a compiler", "there is no gcc here")
    subprocess.run([compiler, str(source), *options, "-o", str(target)], check=True)
    return target


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llvm") / "llvm"
    return compile_c(SCRIPTS / "llvm_cache.c", path, "-O1", "-Wall", "-Wextra", "-Werror", *SANITIZED)


@dataclass(frozen=True)
class Ran:
    """How a call went, and whether the real program ran for it."""

    real: bool
    status: int
    out: str
    err: str


def ended(entry: bytes, printed: int, written: int) -> bytes:
    """Give an entry its end: two sizes, and the sum of all before it."""
    entry += struct.pack("=2Q", printed, written)
    result, whole = len(entry), entry + bytes(-len(entry) % 8)
    for (word,) in struct.iter_unpack("=Q", whole):
        result = (result ^ word) * 0x9E3779B97F4A7C15 % (1 << 64)
        result ^= result >> 32
    return entry + struct.pack("=Q", result)


class Llvm:
    """The program under the tools' names, and what it goes by."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.folder = self.where = folder
        self.ran = folder / "ran"
        self.cache = folder / "cache"
        self.work = folder  # where inputs and outputs of stencils are
        self.preambles = folder / "preambles"
        self.headers = folder / "headers"
        self.largest_file = resource.RLIM_INFINITY  # that can be written, in bytes
        self.headers.write_text("digest of headers")
        (folder / "llvm" / "bin").mkdir(parents=True)
        (folder / "names").mkdir()
        for name in ("clang", "llvm-objdump", "llvm-readobj"):
            (folder / "llvm" / "bin" / name).write_text(TOOL)
            (folder / "llvm" / "bin" / name).chmod(0o755)
            for each in (name, f"{name}-21"):
                (folder / "names" / each).symlink_to(program)
        self.environ = {
            "PATH": os.environ["PATH"],
            "RAN": str(self.ran),
            "CROSSJIT_LLVM": str(folder / "llvm"),
            "CROSSJIT_TOOLCHAIN": "image",
            "CROSSJIT_CACHE": str(self.cache),
            "CROSSJIT_CACHE_LOG": str(folder / "log"),
            "CROSSJIT_HEADERS": str(self.headers),
            **SANITIZER,
        }

    def run(self, tool: str, *arguments: str, **environ: str) -> Ran:
        """Run a tool; say how it went."""
        before = self.times_run()

        done = subprocess.run(
            [str(self.folder / "names" / tool), *arguments],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
            cwd=self.where,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest_file, self.largest_file)),
            restore_signals=False,  # else a file that is too large is a signal and no error
            timeout=60,
        )
        return Ran(self.times_run() > before, done.returncode, done.stdout, done.stderr)

    def times_run(self) -> int:
        return len(self.ran.read_text().splitlines()) if self.ran.exists() else 0

    def compile(self, content: str = "int x;", *options: str, suffix: str = "c", **environ: str) -> tuple[bool, str]:
        """Compile a file in a folder with a name that changes, as CPython does; say if it was done, and what came."""
        with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
            source, output = Path(scratch) / f"_ADD.{suffix}", Path(scratch) / "_ADD.o"
            source.write_text(content)
            arguments = (f"-ffile-prefix-map={scratch}=.", *options, "-o", str(output), str(source))
            ran = self.run("clang", *arguments, **environ)
            assert (ran.status, ran.out) == (0, "")
            return ran.real, output.read_text()

    def read(self, content: str, tool: str = "llvm-objdump-21", **environ: str) -> tuple[bool, str]:
        """Read a file in such a folder; say if it was done, and what was printed, with the folder as a dot."""
        with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
            (Path(scratch) / "_ADD.o").write_text(content)
            ran = self.run(tool, "--disassemble", f"{scratch}/_ADD.o", **environ)
            assert ran.status == 0
            return ran.real, ran.out.replace(scratch, ".")

    def stencil(self, uop: str, content: str, *options: str, suffix: str = "c", **environ: str) -> Ran:
        """Compile a uop's case, as CPython does in one folder; what was written follows what was said."""
        source, output = self.work / f"{uop}.{suffix}", self.work / f"{uop}.s"
        source.write_text(content)
        arguments = (f"-D_JIT_OPCODE={uop}", *options, "-S", "-o", str(output), str(source), "-Xclang", "-last")
        environ = {
            "CROSSJIT_PREAMBLES": str(self.preambles),
            "CROSSJIT_CACHE": f"{self.cache}/{self.times_run()}",
            **environ,
        }
        ran = self.run("clang", *arguments, **environ)
        return replace(ran, out=ran.out + (output.read_text() if output.exists() else ""))

    def since(self, before: int) -> list[str]:
        """How the real programs were called after so many times."""
        return [line.removeprefix("ran ") for line in self.ran.read_text().splitlines()[before:]]

    def entries(self) -> list[Path]:
        return sorted(path for path in self.cache.rglob("*") if path.is_file())

    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()


@pytest.fixture
def llvm(tmp_path: Path, program: Path) -> Llvm:
    return Llvm(tmp_path, program)


class TestTheSameKey:
    def test_hits_in_every_folder(self, llvm: Llvm) -> None:
        assert llvm.compile() == (True, "compiled\nint x;")
        assert llvm.compile() == (False, "compiled\nint x;")
        assert llvm.log() == ["llvm miss", "llvm hit"]

    def test_hits_with_the_folder_that_it_names(self, llvm: Llvm) -> None:
        said = "./_ADD.o: file format elf64 of llvm-objdump\nbytes"
        assert llvm.read("bytes") == (True, said)
        assert llvm.read("bytes") == (False, said)
        (entry,) = llvm.entries()
        assert b"\1/_ADD.o: file format" in entry.read_bytes()

    def test_is_the_same_under_both_names(self, llvm: Llvm) -> None:
        assert llvm.read("bytes", "llvm-objdump")[0]
        assert not llvm.read("bytes", "llvm-objdump-21")[0]

    def test_may_have_options_after_its_input(self, llvm: Llvm) -> None:
        source = llvm.folder / "_ADD.ll"
        for content in ("one", "two"):
            source.write_text(content)
            arguments = ("-S", "-o", "_ADD.s", str(source), "-Xclang", "-mframe-pointer=reserved")
            assert [llvm.run("clang", *arguments).real for _ in range(2)] == [True, False]

    def test_outlives_what_was_not_used_as_lately(self, llvm: Llvm) -> None:
        llvm.compile()
        (entry,) = llvm.entries()
        os.utime(entry, (1, 1))
        llvm.compile()
        assert entry.stat().st_mtime > time.time() - 60

    def test_has_the_same_output_many_times_at_once(self, llvm: Llvm) -> None:
        contents = ["int x;" * 20_000, "int y;" * 20_000]

        def ask(number: int) -> tuple[str, str]:
            content = contents[number % 2]
            return llvm.compile(content)[1], llvm.read(content)[1]

        with ThreadPoolExecutor(6) as pool:
            got = list(pool.map(ask, range(24)))
        for number, (written, printed) in enumerate(got):
            assert written == f"compiled\n{contents[number % 2]}"
            assert printed == f"./_ADD.o: file format elf64 of llvm-objdump\n{contents[number % 2]}"
        assert len(llvm.entries()) == 4
        assert not llvm.compile(contents[0])[0]

    def test_may_hit_in_a_cache_that_is_only_read(self, llvm: Llvm) -> None:
        llvm.compile()
        (entry,) = llvm.entries()
        below, own = llvm.folder / "cache", llvm.folder / "own"
        before = entry.read_bytes(), entry.stat().st_ino
        both = {"CROSSJIT_CACHE": str(own), "CROSSJIT_CACHE_BELOW": str(below)}
        assert llvm.compile(**both) == (False, "compiled\nint x;")
        assert not own.exists()
        assert llvm.compile("int y;", **both) == (True, "compiled\nint y;")
        assert llvm.compile("int y;", **both) == (False, "compiled\nint y;")
        assert llvm.entries() == [entry], "what is new is not kept there"
        entry.write_bytes(b"damaged")
        assert llvm.compile(**both) == (True, "compiled\nint x;")
        assert llvm.compile(**both) == (False, "compiled\nint x;")
        assert entry.read_bytes() == b"damaged"
        entry.write_bytes(before[0])
        assert entry.stat().st_ino == before[1], "it was never another"


class TestAnotherKey:
    @pytest.mark.parametrize("changed", ["content", "option", "toolchain", "headers", "suffix", "folder", "tool"])
    def test_is_asked_anew(self, llvm: Llvm, changed: str) -> None:
        def ask(changed: str = "") -> tuple[bool, str]:
            llvm.headers.write_text("other headers" if changed == "headers" else "headers")
            environ = {"CROSSJIT_TOOLCHAIN": "another"} if changed == "toolchain" else {}
            if changed == "folder":
                llvm.where = llvm.folder / "names"
            if changed == "tool":
                environ["CROSSJIT_LLVM"] = str(shutil.copytree(llvm.folder / "llvm", llvm.folder / "llvm-22"))
            return llvm.compile(
                "int y;" if changed == "content" else "int x;",
                "-DY" if changed == "option" else "-DX",
                suffix="s" if changed == "suffix" else "c",
                **environ,
            )

        assert ask() == (True, "compiled -DX\nint x;")
        expected = {"content": "compiled -DX\nint y;", "option": "compiled -DY\nint x;"}
        assert ask(changed) == (True, expected.get(changed, "compiled -DX\nint x;"))

    def test_may_differ_in_where_an_argument_ends(self, llvm: Llvm) -> None:
        for options in (["-DX", "-DY"], ["-DX-DY"], ["-DX", "", "-DY"], ["-DX -DY"], ["-DY", "-DX"]):
            assert llvm.compile("int x;", *options)[0]

    def test_may_have_the_folder_elsewhere_in_an_argument(self, llvm: Llvm) -> None:
        """Beside what may stand for it."""
        file = llvm.folder / "x.o"
        file.write_text("bytes")
        with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
            for option in (f"--x=@FOLDER{scratch}", f"--x={scratch}FOLDER@"):
                assert llvm.run("llvm-objdump", option, str(file)).real

    def test_is_another_tools(self, llvm: Llvm) -> None:
        for tool in ("llvm-objdump", "llvm-readobj"):
            assert llvm.read("bytes", tool) == (True, f"./_ADD.o: file format elf64 of {tool}\nbytes")

    def test_is_not_of_headers_where_none_are_included(self, llvm: Llvm) -> None:
        for suffix in ("s", "ll"):
            llvm.headers.write_text("some headers")
            assert llvm.compile(suffix=suffix)[0]
            llvm.headers.write_text("other headers")
            assert not llvm.compile(suffix=suffix)[0]

    def test_names_a_second_folder(self, llvm: Llvm) -> None:
        """Only one is taken for the random name; `x` in another folder is not this `x`."""
        with tempfile.TemporaryDirectory(dir="/tmp") as other:
            llvm.compile("int x;", f"-I{other}")
        with tempfile.TemporaryDirectory(dir="/tmp") as other:
            assert llvm.compile("int x;", f"-I{other}")[0]

    def test_does_not_hit_an_entry_in_its_place(self, llvm: Llvm) -> None:
        """File names of entries may collide: the key is compared with the entry's."""
        llvm.compile("int x;")
        (x,) = llvm.entries()
        llvm.compile("int y;")
        (y,) = set(llvm.entries()) - {x}
        shutil.copy(x, y)
        assert llvm.compile("int y;") == (True, "compiled\nint y;")
        assert llvm.compile("int y;") == (False, "compiled\nint y;")
        assert llvm.compile("int x;") == (False, "compiled\nint x;")

    def test_may_be_longer_and_begin_the_same(self, llvm: Llvm) -> None:
        """An entry is a key and an output: an output may begin as a longer key goes on."""
        llvm.read("bytes")
        (entry,) = llvm.entries()
        good = entry.read_bytes()
        printed, written, _ = struct.unpack("=3Q", good[-24:])
        assert good == ended(good[:-24], printed, written), "else what follows shows nothing"
        entry.write_bytes(ended(good[:-24], printed - 8, written))
        assert llvm.read("bytes") == (True, "./_ADD.o: file format elf64 of llvm-objdump\nbytes")
        assert entry.read_bytes() == good


class TestDamage:
    def test_to_any_part_of_an_entry_is_a_miss(self, llvm: Llvm) -> None:
        llvm.read("bytes")
        (entry,) = llvm.entries()
        good = entry.read_bytes()
        damaged = [good[:size] for size in range(0, len(good), 7)]
        damaged += [good + b"\0", good + good, b"", bytes(len(good))]
        damaged += [good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in range(0, len(good), 3)]
        damaged += [good[:at] + good[at + 1 :] for at in range(len(good) - 60, len(good), 5)]
        for content in damaged:
            entry.write_bytes(content)
            assert llvm.read("bytes") == (True, "./_ADD.o: file format elf64 of llvm-objdump\nbytes")
            assert entry.read_bytes() == good, "it is kept anew"
        assert not llvm.read("bytes")[0]

    @pytest.mark.parametrize("oddity", ["a folder", "a pipe", "a link to nowhere"])
    def test_that_no_one_can_read_is_a_miss(self, llvm: Llvm, oddity: str) -> None:
        llvm.compile()
        (entry,) = llvm.entries()
        entry.unlink()
        if oddity == "a folder":
            entry.mkdir()
        elif oddity == "a pipe":
            os.mkfifo(entry)
        else:
            entry.symlink_to("/nonexistent")
        assert llvm.compile() == (True, "compiled\nint x;")
        assert llvm.compile() == (oddity == "a folder", "compiled\nint x;"), "a folder stays until it is trimmed"

    def test_of_another_format_is_a_miss(self, llvm: Llvm) -> None:
        llvm.compile()
        (entry,) = llvm.entries()
        entry.write_bytes(entry.read_bytes().replace(b"crossjit llvm 2\n", b"crossjit llvm 1\n"))
        assert llvm.compile()[0]
        entry.write_text("compiled\nint x;")
        assert llvm.compile() == (True, "compiled\nint x;")


class TestWhatIsNotKept:
    def test_failures(self, llvm: Llvm) -> None:
        file = llvm.folder / "broken.o"
        file.write_text("broken")
        for _ in range(2):
            assert llvm.run("llvm-objdump", str(file)) == Ran(True, 3, "trouble\n", "more trouble\n")
        file.write_text("killed")
        for _ in range(2):
            assert llvm.run("llvm-objdump", str(file)) == Ran(True, 128 + signal.SIGSEGV, "", "")
        assert llvm.entries() == []
        assert not (llvm.folder / "log").exists()

    def test_warnings(self, llvm: Llvm) -> None:
        file = llvm.folder / "x.o"
        file.write_text("warned")
        for _ in range(2):
            ran = llvm.run("llvm-objdump", str(file))
            assert ran == Ran(True, 0, f"{file}: file format elf64 of llvm-objdump\nwarned", "warning\n")
        assert llvm.entries() == []

    def test_files_that_name_the_folder(self, llvm: Llvm) -> None:
        for _ in range(2):
            real, written = llvm.compile("named")
            assert real
            assert written.startswith("compiled /tmp/tmp")
        assert llvm.entries() == []

    def test_output_that_says_what_stands_for_it(self, llvm: Llvm) -> None:
        for _ in range(2):
            assert llvm.read("marked") == (True, "\1\n./_ADD.o: file format elf64 of llvm-objdump\nmarked")
        assert llvm.compile("int x;", "-D\1")[0]
        assert llvm.compile("int x;", "-D\1")[0]
        assert llvm.entries() == []

    def test_files_that_were_not_written(self, llvm: Llvm) -> None:
        file = llvm.folder / "x.c"
        file.write_text("nothing")
        for _ in range(2):
            assert llvm.run("clang", "-o", f"{llvm.folder}/x.o", str(file)) == Ran(True, 0, "", "")
        assert llvm.entries() == []

    @pytest.mark.parametrize("arguments", [["--version"], [], ["x.txt"], ["-c", "x.c"], ["-o", "x.o", "x.c", "y.c"]])
    def test_other_calls(self, llvm: Llvm, arguments: list[str]) -> None:
        for name in ("x.c", "y.c", "x.txt"):
            (llvm.folder / name).write_text("int x;")
        for _ in range(2):
            assert llvm.run("clang", *arguments).real
        assert not llvm.cache.exists()


PREAMBLE = '#include "Python.h"\n\n#include "pycore_jit.h"\n'


def written(uop: str, content: str) -> str:
    """What a stencil comes to."""
    return f"compiled -D_JIT_OPCODE={uop}\n{content}"


@pytest.fixture
def fast(llvm: Llvm) -> Iterator[Llvm]:
    """With a folder for what is precompiled, and one like CPython's for inputs and outputs."""
    llvm.preambles.mkdir()
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        llvm.work = Path(scratch)
        yield llvm


class TestPreamble:
    def test_is_precompiled_once_for_all_uops(self, fast: Llvm) -> None:
        content = f"{PREAMBLE}\nint x;"
        assert fast.stencil("_ADD", content) == Ran(True, 0, written("_ADD", content), "")
        plain, header, check = fast.since(0)
        work, (made, precompiled) = fast.work, sorted(fast.preambles.iterdir())
        assert plain == f"-D_JIT_OPCODE=_ADD -S -o {work}/_ADD.s {work}/_ADD.c -Xclang -last"
        assert header == f"-Xclang -last -x c-header -o {precompiled.with_suffix('.new')} {made}"
        assert made.read_text() == PREAMBLE
        assert precompiled.read_text() == f"compiled\n{PREAMBLE}"
        how = f"-Xclang -last -include-pch {{}} -Xclang -preamble-bytes={len(PREAMBLE)},1"
        used = f"-D_JIT_OPCODE=_ADD -S -o {precompiled.with_suffix('.out')} {work}/_ADD.c"
        assert check == f"{used} {how.format(precompiled.with_suffix('.new'))}"
        for uop in ("_SUB", "_MUL"):
            content = f"{PREAMBLE}\nint {uop};"
            before = fast.times_run()
            assert fast.stencil(uop, content) == Ran(True, 0, written(uop, content), "")
            used = f"-D_JIT_OPCODE={uop} -S -o {work}/{uop}.s {work}/{uop}.c"
            assert fast.since(before) == [f"{used} {how.format(precompiled)}"]
        assert sorted(fast.preambles.iterdir()) == [made, precompiled]

    def test_is_kept_with_what_came_of_it(self, fast: Llvm) -> None:
        content = f"{PREAMBLE}int x;"
        for uop in ("_ADD", "_SUB", "_SUB"):
            ran = fast.stencil(uop, content, CROSSJIT_CACHE=str(fast.cache))
            assert ran.out == written(uop, content)
        assert not ran.real
        assert fast.log() == ["llvm miss", "llvm miss", "llvm hit"]

    @pytest.mark.parametrize("changed", ["preamble", "option", "folder"])
    def test_is_another_in_another_call(self, fast: Llvm, changed: str) -> None:
        fast.stencil("_ADD", f"{PREAMBLE}int x;")
        more = '#include "more.h"\n' if changed == "preamble" else ""
        options = ["-Os"] if changed == "option" else []
        fast.where = fast.work if changed == "folder" else fast.where
        before = fast.times_run()
        content = f"{PREAMBLE}{more}int x;"
        assert fast.stencil("_ADD", content, *options).out == written("_ADD", content)
        assert len(fast.since(before)) == 3
        assert len(list(fast.preambles.iterdir())) == 4

    @pytest.mark.parametrize(
        ("content", "size"),
        [
            ("\n\n#include <a.h>\n\n\n\nint x;\n", 17),
            ('#include "a.h"\n#include "b/c.h"\n#define X\n#include "d.h"\n', 32),
            ('#include "a.h"\n#include "b.h" \\\n\nint x;\n', 15),
            ('#include "a.h"\n#include "b.h" /* that\n\n*/ int x;\n', 15),
            ('#include "a.h"\n#include B\nint x;\n', 15),
            ('#include "a.h"\n#include <b.h"\nint x;\n', 15),
            ('#include "a.h"\n#include "b.h"', 15),
            ('#include "a.h"\n', 15),
            ('#include "a.h"\n#include \n', 15),
            ('#include "a.h"\n#include "\n', 15),
            ('/* a */\n#include "a.h"\n', 0),
            (' #include "a.h"\n', 0),
            ("int x;\n", 0),
            ("\n\n", 0),
            ("", 0),
        ],
    )
    def test_is_lines_that_include_and_no_more(self, fast: Llvm, content: str, size: int) -> None:
        assert fast.stencil("_ADD", content).out == written("_ADD", content)
        check = [line for line in fast.since(0) if "-preamble-bytes" in line]
        assert [line.rpartition("-preamble-bytes=")[2] for line in check] == ([f"{size},1"] if size else [])
        for made in fast.preambles.glob("*.h"):
            assert made.read_text() == content[:size]

    @pytest.mark.parametrize("content", ["refused", "noted", "unlike", "talks", "warned", "nothing"])
    def test_that_changes_anything_is_not_used(self, fast: Llvm, content: str) -> None:
        content = f'{PREAMBLE}#include "{content}.h"\nint x;'
        alone = [fast.stencil(uop, content, CROSSJIT_PREAMBLES="/nonexistent") for uop in ("_ADD", "_SUB", "_MUL")]
        assert [fast.stencil(uop, content) for uop in ("_ADD", "_SUB", "_MUL")] == alone
        assert [each.suffix for each in fast.preambles.iterdir()] == [".h"]

    @pytest.mark.parametrize("content", ["talks", "warned", "broken", "killed"])
    def test_of_one_that_has_trouble_is_left_out(self, fast: Llvm, content: str) -> None:
        """Whatever there is to say is said as by clang alone, and once."""
        fast.stencil("_ADD", f"{PREAMBLE}int x;")
        content = f"{PREAMBLE}{content}"
        before = fast.times_run()
        found = fast.stencil("_SUB", content)
        assert ["-include-pch" in line for line in fast.since(before)] == [True, False]
        (fast.work / "_SUB.s").unlink(missing_ok=True)
        assert found == fast.stencil("_SUB", content, CROSSJIT_PREAMBLES="/nonexistent")

    def test_of_one_that_fails_is_not_precompiled(self, fast: Llvm) -> None:
        assert fast.stencil("_ADD", f"{PREAMBLE}broken").status == 3
        assert len(fast.since(0)) == 1

    def test_is_for_stencils(self, fast: Llvm) -> None:
        content = f"{PREAMBLE}int x;"
        for options, folder in (
            (["-S"], fast.work),
            (["-D_JIT_OPCODES=1"], fast.work),
            (["-D_JIT_OPCODE=shim"], fast.folder),
        ):
            (folder / "shim.c").write_text(content)
            arguments = (*options, "-c", "-o", f"{fast.work}/shim.o", f"{folder}/shim.c")
            assert fast.run("clang", *arguments, CROSSJIT_PREAMBLES=str(fast.preambles)).status == 0
        assert fast.stencil("_ADD", content, suffix="ll").status == 0
        assert list(fast.preambles.iterdir()) == []

    @pytest.mark.parametrize("folder", ["/nonexistent", "/dev/null", "/proc", "x" * 300, "x/" * 3000])
    def test_needs_a_folder(self, fast: Llvm, folder: str) -> None:
        content = f"{PREAMBLE}int x;"
        for uop in ("_ADD", "_SUB"):
            assert fast.stencil(uop, content, CROSSJIT_PREAMBLES=folder) == Ran(True, 0, written(uop, content), "")
        assert len(fast.since(0)) == 2

    def test_is_one_when_many_ask_at_once(self, fast: Llvm) -> None:
        def ask(number: int) -> None:
            content = f"{PREAMBLE}int x{number};"
            assert fast.stencil(f"_{number}", content).out == written(f"_{number}", content)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(ask, range(24)))
        assert sorted(each.suffix for each in fast.preambles.iterdir()) == [".h", ".pch"]
        assert sum("c-header" in line for line in fast.since(0)) == 1


class TestWhatIsInTheWay:
    @pytest.mark.parametrize(
        "environ", [{"CROSSJIT_CACHE": ""}, {"CROSSJIT_HEADERS": "/nonexistent"}, {"CROSSJIT_HEADERS": "/"}]
    )
    def test_of_asking(self, llvm: Llvm, environ: dict[str, str]) -> None:
        for _ in range(2):
            assert llvm.compile(**environ) == (True, "compiled\nint x;")
        assert not llvm.cache.exists()

    def test_an_input_that_is_not_there_is_the_real_programs_trouble(self, llvm: Llvm) -> None:
        ran = llvm.run("llvm-objdump", "/nonexistent.o")
        assert ran.real
        assert "/nonexistent.o" in ran.err

    @pytest.mark.parametrize("name", ["CROSSJIT_CACHE", "CROSSJIT_TOOLCHAIN", "CROSSJIT_HEADERS"])
    def test_of_knowing_what_is_asked(self, llvm: Llvm, name: str) -> None:
        del llvm.environ[name]
        for _ in range(2):
            assert llvm.compile() == (True, "compiled\nint x;")

    @pytest.mark.parametrize("cache", ["headers", "headers/below", "/dev/null", "/proc", "x" * 300, "x/" * 3000])
    def test_of_keeping(self, llvm: Llvm, cache: str) -> None:
        for _ in range(2):
            assert llvm.compile(CROSSJIT_CACHE=str(llvm.folder / cache)) == (True, "compiled\nint x;")

    def test_a_disk_that_is_full(self, llvm: Llvm) -> None:
        llvm.largest_file = 1500
        for _ in range(2):
            assert llvm.compile("int x;" * 200) == (True, "compiled\n" + "int x;" * 200)
        assert llvm.entries() == []

    def test_an_output_that_cannot_be_written(self, llvm: Llvm) -> None:
        """What is in the cache is of no use then; the real program says it."""
        file = llvm.folder / "x.c"
        file.write_text("int x;")
        command = ("clang", "-o", "there/x.o", str(file))
        (llvm.folder / "there").mkdir()
        assert llvm.run(*command).status == 0
        assert not llvm.run(*command).real
        shutil.rmtree(llvm.folder / "there")
        ran = llvm.run(*command)
        assert ran.real
        assert ran.status != 0
        assert "there/x.o" in ran.err

    def test_a_log_that_cannot_be_written(self, llvm: Llvm) -> None:
        assert llvm.compile(CROSSJIT_CACHE_LOG="/nonexistent/log") == (True, "compiled\nint x;")
        assert llvm.compile(CROSSJIT_CACHE_LOG="/nonexistent/log") == (False, "compiled\nint x;")
        del llvm.environ["CROSSJIT_CACHE_LOG"]
        assert llvm.compile() == (False, "compiled\nint x;")

    def test_a_tool_that_is_not_there(self, llvm: Llvm) -> None:
        (llvm.folder / "x.o").write_text("bytes")
        for arguments in (["x.o"], ["--version"]):
            ran = llvm.run("llvm-objdump", *arguments, CROSSJIT_LLVM="/nonexistent")
            assert (ran.status, ran.out) == (127, "")
            assert "/nonexistent/bin/llvm-objdump" in ran.err
        del llvm.environ["CROSSJIT_LLVM"]
        assert llvm.run("llvm-objdump", "x.o").status == 127

    def test_a_caller_that_ignores_how_its_children_end(self, llvm: Llvm) -> None:
        (llvm.folder / "x.o").write_text("broken")
        ignoring = (
            "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
        )
        command = [sys.executable, "-c", ignoring, str(llvm.folder / "names" / "llvm-objdump"), "x.o"]
        done = subprocess.run(command, env=llvm.environ, cwd=llvm.folder, capture_output=True, check=False, timeout=60)
        assert done.returncode == 3
