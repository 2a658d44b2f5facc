"""Shipped stencils: their archive, what is read of headers and archives, and whether they are those of a source."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import tarfile
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossjit.distribution import archive, check
from crossjit.distribution.archive import Description, Shipped
from crossjit.distribution.check import Check, Match
from crossjit.effect.uops import Kind
from crossjit.errors import InfrastructureError, UserError
from crossjit.model import Arch, Cell, Verdict
from crossjit.pipeline.stencils import Configuration, StencilFiles
from crossjit.report import stencils as as_report
from crossjit.report.terminal_style import TerminalStyle
from crossjit.stash.manifest import SourceFacts
from crossjit.util.tar import packed
from tests.example_effects import INCREMENT, PLAIN, RETURN, Written, header

X86, ARM = Arch.X86_64, Arch.AARCH64
INPUTS = "ab" * 32
NAME = "jit_stencils-x86_64-unknown-linux-gnu.h"
COMMAND = "python3 Tools/jit/build.py x86_64-pc-linux-gnu --llvm-version=21"
PYCONFIG = b"#define HAVE_THIS 1\n"
DESCRIPTION = Description(
    variant="jit",
    version="3.15.0",
    arch=X86,
    source=SourceFacts("archive", "d" * 64, "x", llvm="21"),
    llvm="21.1.8",
    libc="2.42",
    image="forky",
    configure="configure --enable-experimental-jit=yes",
    command=("python3", "build.py", "x86_64-pc-linux-gnu"),
    pyconfig=hashlib.sha256(PYCONFIG).hexdigest(),
)


def stencil_header(written: dict[str, Written] | None = None, *, inputs: str = INPUTS, command: str = COMMAND) -> bytes:
    return f"// {inputs}\n// $ {command}\n\n{header(written or dict(PLAIN))}".encode()


def written(folder: Path, **files: bytes) -> Path:
    made = {NAME: stencil_header(), "jit_shim-x86_64-unknown-linux-gnu.o": b"\x7fELF", **files}
    return archive.write(folder, DESCRIPTION, made, PYCONFIG)


def checked(shipped: Shipped, made: bytes | None = None, *, llvm: str = "21.1.8", source: str = "d" * 64) -> Check:
    files = {NAME: made or stencil_header(), "jit_shim-x86_64-unknown-linux-gnu.o": b"\x7fELF"}
    configuration = Configuration(PYCONFIG, ("build.py", "x86_64-pc-linux-gnu"))
    cell = Cell("3.15", X86, "jit")
    return check.check(shipped, StencilFiles(files, 1.0), configuration, cell, "3.15.0", llvm, source)


def of(content: bytes, name: str = NAME) -> Shipped:
    return archive._shipped(name, {name: content})


def text(found: Check) -> list[str]:
    return [" ".join(line.split()) for line in as_report.as_text(found, TerminalStyle()).splitlines()]


class TestAnArchive:
    def test_has_all_files_and_what_they_were_made_of(self, tmp_path: Path) -> None:
        path = written(tmp_path / "new")
        assert path.name == "stencils-3.15.0-x86_64-jit-llvm21.1.8.tar.gz"
        with tarfile.open(path) as tar:
            assert [member.name.rpartition("/")[2] for member in tar] == [
                *("stencils.json", "pyconfig.h", "jit_shim-x86_64-unknown-linux-gnu.o", NAME)
            ]
        shipped = archive.read(path)
        assert shipped.files[NAME] == stencil_header()
        assert (shipped.arch, shipped.inputs, shipped.pyconfig, shipped.llvm) == (X86, INPUTS, PYCONFIG, "21")
        assert shipped.description is not None
        assert shipped.description.digest == DESCRIPTION.digest
        assert shipped.description.files[NAME] == hashlib.sha256(stencil_header()).hexdigest()

    def test_of_the_same_stencils_has_the_same_bytes(self, tmp_path: Path) -> None:
        assert written(tmp_path / "a").read_bytes() == written(tmp_path / "b").read_bytes()

    def test_has_a_digest_that_llvm_and_libc_are_part_of(self) -> None:
        older = replace(DESCRIPTION, llvm="21.1.7"), replace(DESCRIPTION, libc="2.41")
        assert len({each.digest for each in (DESCRIPTION, *older, replace(DESCRIPTION, arch=ARM))}) == 4

    def test_that_cannot_be_written_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(InfrastructureError, match="cannot write the stencils"):
            written(tmp_path / "file")
        assert [each.name for each in tmp_path.iterdir()] == ["file"]

    def test_whose_description_was_changed_is_refused(self, tmp_path: Path) -> None:
        content = gzip.decompress(written(tmp_path).read_bytes()).replace(b'"llvm": "21.1.8"', b'"llvm": "21.1.9"')
        (tmp_path / "changed.tar.gz").write_bytes(gzip.compress(content))
        with pytest.raises(UserError, match=r"is damaged: the digest in stencils\.json is not that of its inputs"):
            archive.read(tmp_path / "changed.tar.gz")

    @pytest.mark.parametrize("description", [b"{}", b"[]", b"null", b"\xff", b'{"digest": 1}'])
    def test_with_an_invalid_description_is_refused(self, tmp_path: Path, description: bytes) -> None:
        path = tmp_path / "invalid.tar"
        path.write_bytes(packed({"a/stencils.json": description, f"a/{NAME}": stencil_header()}).read())
        with pytest.raises(UserError, match=r"has an invalid stencils\.json"):
            archive.read(path)

    def test_needs_no_description(self, tmp_path: Path) -> None:
        path = tmp_path / "plain.tar"
        path.write_bytes(packed({f"cpython/{NAME}": stencil_header(), "cpython/README": b"more"}).read())
        shipped = archive.read(path)
        assert ([*shipped.files], shipped.description, shipped.pyconfig) == ([NAME], None, None)

    def test_with_two_of_one_name_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "twice.tar"
        path.write_bytes(packed({f"a/{NAME}": stencil_header(), f"b/{NAME}": stencil_header()}).read())
        with pytest.raises(UserError, match="twice"):
            archive.read(path)

    def test_that_is_cut_short_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "cut.tar.gz"
        path.write_bytes(written(tmp_path).read_bytes()[:-200])
        with pytest.raises(UserError, match="is neither a header with stencils nor an archive of them"):
            archive.read(path)


class TestAHeader:
    def test_says_what_it_is_for(self, tmp_path: Path) -> None:
        path = tmp_path / "renamed.h"
        path.write_bytes(stencil_header(command=f"{COMMAND} --debug".replace("x86_64-pc", "aarch64-unknown")))
        shipped = archive.read(path)
        assert (shipped.arch, shipped.llvm, shipped.debug) == (ARM, "21", True)

    def test_may_say_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "jit_stencils.h").write_bytes(b"//\n" + header(PLAIN).encode())
        shipped = archive.read(tmp_path / "jit_stencils.h")
        assert (shipped.arch, shipped.llvm, shipped.inputs, shipped.debug) == (None, None, "", False)

    @pytest.mark.parametrize("system", ["apple-darwin25", "pc-windows-msvc", "unknown-linux-musl"])
    def test_for_another_system_is_refused(self, tmp_path: Path, system: str) -> None:
        path = tmp_path / f"jit_stencils-x86_64-{system}.h"
        path.write_bytes(stencil_header())
        with pytest.raises(UserError, match="cannot be made here"):
            archive.read(path)

    @pytest.mark.parametrize("content", [b"", b"// only a comment\n", b"#include <x.h>\n", b"\0" * 2000])
    def test_without_stencils_is_none(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "no.h").write_bytes(content)
        with pytest.raises(UserError, match=r"no stencils of CPython's JIT|is neither a header") as caught:
            archive.read(tmp_path / "no.h")
        assert "jit_stencils-x86_64-unknown-linux-gnu.h" in caught.value.hint

    def test_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="cannot be read: no such file"):
            archive.read(tmp_path / "none.h")
        with pytest.raises(UserError, match="cannot be read: is a directory"):
            archive.read(tmp_path)


class TestShippedStencils:
    def test_are_those_of_the_source(self, tmp_path: Path) -> None:
        found = checked(archive.read(written(tmp_path)))
        assert [each.match for each in found.files] == [Match.IDENTICAL] * 2
        assert (found.verdict, found.inputs, found.changed, found.pyconfig) == (Verdict.PASS, True, (), ())
        assert text(found)[0] == "These are the stencils that LLVM 21.1.8 makes of 3.15.0 (3.15/x86_64/jit)."
        assert "all 4 stencils are the same" in text(found)

    def test_may_have_other_comments(self) -> None:
        content = stencil_header(command="python3.15 ../build.py x86_64-pc-linux-gnu").replace(b"incl ", b"INCL ")
        found = checked(of(content))
        assert [each.match for each in found.files] == [Match.COMMENTS]
        assert found.verdict is Verdict.PASS

    def test_have_any_name(self) -> None:
        assert checked(of(stencil_header(), "shipped-x86_64-linux-gnu.h")).verdict is Verdict.PASS

    def test_of_which_a_byte_was_changed(self) -> None:
        content = stencil_header()
        place = content.index(b"0xff, 0xc0")
        found = checked(of(content[:place] + b"0xff, 0xc8" + content[place + 10 :]))
        line = content[:place].count(b"\n") + 1
        assert found.verdict is Verdict.FAIL
        assert [(each.match, each.line) for each in found.files] == [(Match.DIFFERENT, line)]
        assert found.changed is not None
        assert [(each.name, each.kind) for each in found.changed] == [("_ADD_r03", Kind.CHANGED)]
        assert text(found)[0].startswith("These are not the stencils that LLVM 21.1.8 makes")
        assert "1 stencil of 4 not the same:" in text(found)
        assert "_ADD_r03 code 5 5" in text(found)

    def test_with_more_or_fewer_stencils(self) -> None:
        more = {**PLAIN, "_EVIL_r00": Written((INCREMENT, RETURN))}
        found = checked(of(stencil_header(more)))
        assert found.verdict is Verdict.FAIL
        assert "_EVIL_r00 not of this source 3 0" in text(found)
        assert "_EVIL_r00 missing 0 3" in text(checked(of(stencil_header()), stencil_header(more)))

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"    memcpy(code", b"    // hidden \\\n    memcpy(code"),
            (b"    memcpy(code", b"    // hidden ??/\n    memcpy(code"),
            (b"    memcpy(code", b"    // hidden \\ \t\n    memcpy(code"),
            (b"    // 0000000000000000", b"    // shown\r    evil();"),
            (b"    memcpy(code", b"    /* // */ evil();\n    memcpy(code"),
            (b"    memcpy(code", b"    evil(); // a comment\n    memcpy(code"),
            (b"\n}\n", b"\n}\n#include <evil.h>\n"),
        ],
    )
    def test_with_code_that_only_a_compiler_sees(self, old: bytes, new: bytes) -> None:
        content = stencil_header()
        assert old in content
        found = checked(of(content.replace(old, new, 1)))
        assert found.verdict is Verdict.FAIL
        assert found.changed == (), "no stencil has another byte"

    def test_that_cannot_be_read(self) -> None:
        found = checked(of(stencil_header().replace(b"emit__ADD_r03(", b"emit__LOST_r03(")))
        assert (found.verdict, found.changed) == (Verdict.FAIL, None)
        assert "the stencils in the header cannot be read, so they cannot be compared one by one" in text(found)

    def test_with_files_that_are_not_the_sources(self, tmp_path: Path) -> None:
        more = {"jit_unwind_info-x86_64-unknown-linux-gnu.h": b"// 1\n"}
        found = checked(archive.read(written(tmp_path, **more)))
        assert found.verdict is Verdict.FAIL
        assert "jit_unwind_info-x86_64-unknown-linux-gnu.h not made of this source" in text(found)
        shim = {"jit_shim-x86_64-unknown-linux-gnu.o": b"\x7fELF2"}
        found = checked(archive.read(written(tmp_path, **shim)))
        assert [each.match for each in found.files] == [Match.DIFFERENT, Match.IDENTICAL]

    def test_of_another_llvm_prove_nothing(self, tmp_path: Path) -> None:
        other = stencil_header({**PLAIN, "_ADD_r03": Written((INCREMENT, RETURN))})
        shipped = archive.read(written(tmp_path))
        found = checked(shipped, other, llvm="21.1.7")
        assert found.verdict is Verdict.VACUOUS
        assert text(found)[0].startswith("Nothing is proved: LLVM 21.1.8 is said to have made these stencils")
        assert "LLVM 21.1.8 is said to have made them, LLVM 21.1.7 did here" in text(found)
        assert checked(shipped, llvm="21.1.7").verdict is Verdict.PASS
        assert checked(shipped, other).verdict is Verdict.FAIL

    def test_of_other_inputs_are_told(self, tmp_path: Path) -> None:
        found = checked(of(stencil_header(inputs="cd" * 32)))
        assert (found.verdict, found.inputs) == (Verdict.PASS, False)
        assert any(line.startswith("the digest in the first line is not that of this source") for line in text(found))
        found = checked(archive.read(written(tmp_path)), source="e" * 64)
        assert "the archive says that they were made of a source with another digest" in text(found)

    def test_show_how_their_pyconfig_differs(self) -> None:
        found = checked(replace(of(stencil_header()), pyconfig=b"#define HAVE_THIS 0\n"))
        assert found.pyconfig == ("-#define HAVE_THIS 1", "+#define HAVE_THIS 0")
        assert "+#define HAVE_THIS 0" in text(found)
        many = "".join(f"#define A{number}\n" for number in range(100)).encode()
        found = checked(replace(of(stencil_header()), pyconfig=many))
        assert found.pyconfig is not None
        assert (len(found.pyconfig), found.pyconfig[-1]) == (check.LINES + 1, "and 61 more")

    def test_are_told_as_json(self, tmp_path: Path) -> None:
        value = as_report.as_json(checked(of(stencil_header())), path="x.h", run="r", reproduce="./inv")
        assert json.loads(json.dumps(value))["verdict"] == "pass"
        assert value["files"] == [{"name": NAME, "match": "identical", "line": None}]


HEADER = stencil_header()
BROKEN = st.tuples(st.integers(0, len(HEADER)), st.integers(0, 300), st.binary(max_size=40)).map(
    lambda found: HEADER[: found[0]] + found[2] + HEADER[found[0] + found[1] :]
)


@given(st.one_of(BROKEN, st.binary(max_size=500).map(lambda rest: b"//" + rest)))
def test_any_header_ends_in_an_answer_or_in_words(content: bytes) -> None:
    with contextlib.suppress(UserError):
        found = checked(of(content))
        assert (found.verdict is Verdict.PASS) == (found.files[0].match in (Match.IDENTICAL, Match.COMMENTS))
        assert text(found)


@given(st.one_of(st.binary(max_size=500), BROKEN.map(lambda content: packed({f"a/{NAME}": content}).read())))
def test_any_archive_ends_in_an_answer_or_in_words(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, packing in (("a.tar", bytes), ("a.tar.gz", gzip.compress)):
            path = Path(folder, name)
            path.write_bytes(packing(content))
            with contextlib.suppress(UserError):
                assert archive.read(path).files


@given(st.recursive(st.one_of(st.none(), st.integers(), st.text()), lambda inner: st.dictionaries(st.text(), inner)))
def test_any_description_is_refused_or_right(value: object) -> None:
    described = json.dumps({**json.loads(json.dumps(asdict(DESCRIPTION))), "llvm": value, "digest": "0"}).encode()
    with pytest.raises(UserError, match=r"stencils\.json"):
        archive._shipped("x", {NAME: HEADER, archive.DESCRIPTION: described})


def test_a_stream_of_zeros_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "zeros.tar.gz"
    with tarfile.open(path, "w:gz"):
        pass
    with pytest.raises(UserError, match="has no stencils"):
        archive.read(path)
    path.write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(UserError):
        archive.read(path)
