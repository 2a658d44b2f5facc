"""What is in an archive: safe or refused, CPython or not; and the tars that we write."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossjit.errors import SourceError, StashError
from crossjit.sources import Kind, Source, open_tar, subset_tar
from crossjit.sources.inspection import Inspection, inspect
from crossjit.sources.tarball import MTIME, Entry, pack
from crossjit.util import budget

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TOP = "Python-3.15.0rc2"
PATCHLEVEL = b"""#define PY_MAJOR_VERSION        3
#define PY_MINOR_VERSION        15
#define PY_VERSION              "3.15.0rc2"
"""
TREE = {
    "configure": b"#! /bin/sh\n# --enable-experimental-jit[=no|yes|yes-off|interpreter]\n",
    "Include/patchlevel.h": PATCHLEVEL,
    "Tools/jit/_llvm.py": b'import os\n_LLVM_VERSION = "21"\n',
    "Tools/jit/build.py": b"",
    "Tools/README": b"tools",
}


def entry(name: str, content: bytes | str = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    if isinstance(content, str):
        member.type, member.linkname, content = tarfile.SYMTYPE, content, b""
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content


def tar_of(
    *extra: tuple[tarfile.TarInfo, bytes], tree: dict[str, bytes] | None = None, top: str = TOP, **options: object
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, **options) as tar:  # type: ignore[call-overload]
        for name, content in (TREE if tree is None else tree).items():
            member, data = entry(f"{top}/{name}", content)
            tar.addfile(member, io.BytesIO(data))
        for member, data in extra:
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write(folder: Path, content: bytes, name: str = "source.tar") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def source_of(path: Path) -> Source:
    facts = inspect(path, "it")
    return Source(
        Kind.ARCHIVE,
        facts.version,
        facts.python,
        hashlib.sha256(path.read_bytes()).hexdigest(),
        path,
        facts.top,
        "here",
    )


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "xz": lzma.compress,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": zstd.compress,
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_facts_are_read_whatever_the_compression(tmp_path: Path, compression: str) -> None:
    facts = inspect(write(tmp_path, COMPRESSIONS[compression](tar_of())), "it")
    assert (facts.top, facts.version, facts.python, facts.llvm) == (TOP, "3.15.0rc2", (3, 15), "21")


def test_the_core_is_all_but_the_tests(tmp_path: Path) -> None:
    def core(**changed: bytes) -> str:
        tree = TREE | {"Lib/test/test_x.py": b"1", "Lib/x.py": b"1"} | changed
        return inspect(write(tmp_path, tar_of(tree=tree)), "it").core

    assert core() == core(**{"Lib/test/test_x.py": b"2"}) == core(**{"Lib/test/test_y.py": b"new"})
    others = [core(), core(**{"Lib/x.py": b"2"}), core(**{"Lib/x.py": b"12"}), core(**{"Lib/y.py": b"1"})]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    ("link", "apart"),
    [
        (entry(f"{TOP}/Lib/x.py", "test/test_x.py"), False),
        (entry(f"{TOP}/Tools/x.py", "../Lib/test/test_x.py"), False),
        (entry(f"{TOP}/Tools/tests", "../Lib/test"), False),
        (entry(f"{TOP}/library", "Lib"), False),
        (entry(f"{TOP}/Tools/all", ".."), False),
        (entry(f"{TOP}/x.py", type=tarfile.LNKTYPE, linkname=f"{TOP}/Lib/test/test_x.py"), False),
        (entry(f"{TOP}/Lib/x.py", "testing/test_x.py"), True),
        (entry(f"{TOP}/x", type=tarfile.LNKTYPE, linkname=f"{TOP}/configure"), True),
        (entry(f"{TOP}/Lib/test/x.py", "../os.py"), True),
    ],
)
def test_there_is_no_core_where_a_link_leads_to_tests(
    tmp_path: Path, link: tuple[tarfile.TarInfo, bytes], apart: bool
) -> None:
    content = tar_of(link, tree={**TREE, "Lib/test/test_x.py": b"1"})
    assert bool(inspect(write(tmp_path, content), "it").core) is apart


@pytest.mark.parametrize(
    ("text", "llvm"),
    [
        (b"_LLVM_VERSION = 18\n_LLVM_VERSION_PATTERN = re.compile('7')\n", "18"),
        (b'_LLVM_VERSION = "21"\n', "21"),
        (b"_LLVM_VERSION: typing.Final = '22'\n", "22"),
        (b"# nothing of the kind\n", None),
    ],
)
def test_llvm_is_read_in_every_form(tmp_path: Path, text: bytes, llvm: str | None) -> None:
    assert inspect(write(tmp_path, tar_of(tree=TREE | {"Tools/jit/_llvm.py": text})), "it").llvm == llvm


def test_a_source_from_before_the_jit_names_no_llvm(tmp_path: Path) -> None:
    tree = {name: content for name, content in TREE.items() if not name.startswith("Tools/jit")}
    assert inspect(write(tmp_path, tar_of(tree=tree)), "it").llvm is None


def test_a_source_whose_configure_lost_the_jits_option_names_no_llvm(tmp_path: Path) -> None:
    tree = TREE | {"configure": b"#! /bin/sh\n"}
    assert inspect(write(tmp_path, tar_of(tree=tree)), "it").llvm is None


def test_a_leading_dot_is_no_top_folder_of_its_own(tmp_path: Path) -> None:
    dot = entry(".", type=tarfile.DIRTYPE)
    assert inspect(write(tmp_path, tar_of(dot, top=f"./{TOP}")), "it").top == TOP


def test_links_inside_are_accepted(tmp_path: Path) -> None:
    extra = (
        entry(f"{TOP}/Lib/here", "../configure"),
        entry(f"{TOP}/a", "Tools/README"),
        entry(f"{TOP}/dangling", "nowhere"),
        entry(f"{TOP}/hard", type=tarfile.LNKTYPE, linkname=f"{TOP}/configure"),
        entry(f"{TOP}/harder", type=tarfile.LNKTYPE, linkname=f"{TOP}/hard"),
    )
    assert inspect(write(tmp_path, tar_of(*extra)), "it").top == TOP


REFUSED = {
    "climbing": (entry(f"{TOP}/../../etc/passwd"),),
    "climbing back in": (entry(f"{TOP}/../{TOP}/x"),),
    "absolute": (entry("/etc/passwd"),),
    "absolute below top": (entry(f"/{TOP}/x"),),
    "second top": (entry("other/x"),),
    "file beside top": (entry("loose"),),
    "twice": (entry(f"{TOP}/configure"),),
    "twice, spelt differently": (entry(f"{TOP}//./configure"),),
    "top is a link": (entry(TOP, "elsewhere"),),
    "absolute link": (entry(f"{TOP}/x", "/etc/passwd"),),
    "climbing link": (entry(f"{TOP}/x", ".."),),
    "climbing link, deeper": (entry(f"{TOP}/a/b/x", "../../../etc"),),
    "link up and back": (entry(f"{TOP}/x", f"../{TOP}/configure"),),
    "composed links": (entry(f"{TOP}/d/e/y", ".."), entry(f"{TOP}/d/e/l", "y/../..")),
    "empty link": (entry(f"{TOP}/x", type=tarfile.SYMTYPE, linkname=""),),
    "through a link": (entry(f"{TOP}/x", "Tools"), entry(f"{TOP}/x/evil")),
    "through a link, link last": (entry(f"{TOP}/x/evil"), entry(f"{TOP}/x", "Tools")),
    "folder becomes link": (entry(f"{TOP}/x", type=tarfile.DIRTYPE), entry(f"{TOP}/x", "Tools")),
    "below a file": (entry(f"{TOP}/configure/x"),),
    "hard link out": (entry(f"{TOP}/x", type=tarfile.LNKTYPE, linkname="../etc/passwd"),),
    "hard link absolute": (entry(f"{TOP}/x", type=tarfile.LNKTYPE, linkname="/etc/passwd"),),
    "hard link to nothing": (entry(f"{TOP}/x", type=tarfile.LNKTYPE, linkname=f"{TOP}/nothing"),),
    "hard link to a link": (
        entry(f"{TOP}/s", "Tools"),
        entry(f"{TOP}/x", type=tarfile.LNKTYPE, linkname=f"{TOP}/s"),
    ),
    "character device": (entry(f"{TOP}/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),),
    "block device": (entry(f"{TOP}/sda", type=tarfile.BLKTYPE),),
    "fifo": (entry(f"{TOP}/pipe", type=tarfile.FIFOTYPE),),
    "unknown type": (entry(f"{TOP}/x", type=b"Z"),),
    "contiguous": (entry(f"{TOP}/x", type=tarfile.CONTTYPE),),
    "NUL": (entry(f"{TOP}/x", pax_headers={"path": f"{TOP}/x\0y"}),),
    "extended attributes": (entry(f"{TOP}/x", pax_headers={"SCHILY.xattr.security.capability": "x"}),),
    "sparse": (entry(f"{TOP}/x", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_could_do_harm_is_refused(tmp_path: Path, what: str) -> None:
    with pytest.raises(SourceError) as caught:
        inspect(write(tmp_path, tar_of(*REFUSED[what])), "the archive")
    assert "the archive" in caught.value.message
    assert caught.value.hint


def test_global_headers_that_others_read_differently_are_refused(tmp_path: Path) -> None:
    assert inspect(write(tmp_path, tar_of(pax_headers={"comment": "0" * 40})), "it").top == TOP
    with pytest.raises(SourceError, match="global headers: uname"):
        inspect(write(tmp_path, tar_of(pax_headers={"uname": "x"})), "it")


def test_what_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, tar_of())
    monkeypatch.setattr(budget, "BUDGET", replace(budget.BUDGET, tree=10))
    with pytest.raises(SourceError, match="more than 10 bytes"):
        inspect(path, "it")


@pytest.mark.parametrize(
    ("tree", "missing"),
    [
        ({"README": b""}, "configure"),
        ({"configure": b""}, "patchlevel"),
        ({"configure": b"", "Include/patchlevel.h": b"no version"}, "names no version"),
        ({"a/configure": b"", "a/Include/patchlevel.h": PATCHLEVEL}, "configure"),
        ({}, "nothing in it"),
    ],
)
def test_what_is_no_cpython_is_refused(tmp_path: Path, tree: dict[str, bytes], missing: str) -> None:
    with pytest.raises(SourceError, match=missing):
        inspect(write(tmp_path, tar_of(tree=tree)), "it")


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.95])
def test_what_is_cut_short_is_refused(tmp_path: Path, compression: str, share: float) -> None:
    noise = entry(f"{TOP}/noise", os.urandom(40_000))  # so that every share of a compressed file cuts into content
    content = COMPRESSIONS[compression](tar_of(noise).rstrip(b"\0"))  # the last member ends in noise
    with pytest.raises(SourceError):
        inspect(write(tmp_path, content[: int(len(content) * share)]), "it")


def test_a_tar_that_stops_between_two_members_is_refused(tmp_path: Path) -> None:
    content = tar_of()
    end = len(content.rstrip(b"\0")) // 512 * 512 + 512
    with pytest.raises(SourceError, match="cut short"):
        inspect(write(tmp_path, content[:end]), "it")


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    content = bytearray(tar_of(entry(f"{TOP}/last", b"x")))
    offset = content.rindex(f"{TOP}/last".encode())
    content[offset + 150] ^= 1  # its checksum
    with pytest.raises(SourceError, match="damaged"):
        inspect(write(tmp_path, bytes(content)), "it")


def test_what_hides_behind_the_end_is_refused(tmp_path: Path) -> None:
    hidden = tar_of(tree={"../../evil": b""})
    with pytest.raises(SourceError, match="after the end"):
        inspect(write(tmp_path, tar_of() + hidden), "it")


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    for content in (b"<html>not found</html>", b"", lzma.compress(b"text"), b"\xfd7zXZ\x00junk", b"\x1f\x8bjunk"):
        with pytest.raises(SourceError):
            inspect(write(tmp_path, content), "it")


def place_of(link: Path) -> Path:
    """Return where a link leads. Raises OSError for a loop, of which Python 3.11 resolves `a -> a//a` to `/a`."""
    with contextlib.suppress(FileNotFoundError):
        link.stat()
    return link.resolve()


component = st.sampled_from(["a", "b", "..", ".", "", "c"])
relative = st.lists(component, min_size=1, max_size=5).map("/".join)


@settings(max_examples=100, deadline=None)
@given(
    members=st.lists(
        st.tuples(relative, st.one_of(st.none(), relative, relative.map(lambda path: f"/{path}"))), max_size=6
    )
)
def test_nothing_that_is_accepted_leaves_the_folder(
    members: list[tuple[str, str | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Unpack what was accepted the naive way, in order, following links, and look where things came to be."""
    folder = tmp_path_factory.mktemp("unpacked")
    extra = [
        entry(f"{TOP}/{path}", b"x") if link is None else entry(f"{TOP}/{path}", type=tarfile.SYMTYPE, linkname=link)
        for path, link in members
    ]
    path = write(folder, tar_of(*extra))
    try:
        inspect(path, "it")
    except SourceError:
        return
    outer = folder / "outer"
    inside = outer / TOP
    inside.mkdir(parents=True)
    with tarfile.open(path) as tar:
        for member in tar:
            target = outer / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            assert target.parent.resolve().is_relative_to(inside)
            if member.issym():
                target.symlink_to(member.linkname)
                try:
                    assert place_of(target).is_relative_to(inside)
                except (RuntimeError, OSError):  # a loop of links leads nowhere
                    assert target.is_symlink()
            else:
                target.write_bytes(b"x")
    for found in inside.rglob("*"):
        if found.is_symlink():
            try:
                assert place_of(found).is_relative_to(inside)
            except (RuntimeError, OSError):
                continue
    assert [found.name for found in outer.iterdir()] == [TOP]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_damage_is_a_traceback(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = bytearray(tar_of(entry(f"{TOP}/" + "long" * 40), entry(f"{TOP}/x", b"1234567", mtime=1.5)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content.rstrip(b"\0"))))] = data.draw(st.integers(0, 255))
    try:
        facts = inspect(write(tmp_path_factory.getbasetemp(), bytes(content), "damaged.tar"), "it")
    except SourceError as error:
        assert "it" in error.message
    else:
        assert facts.python


def test_open_tar_gives_the_uncompressed_tar(tmp_path: Path) -> None:
    with open_tar(source_of(write(tmp_path, lzma.compress(tar_of())))) as stream:
        assert stream.read() == tar_of()


def test_open_tar_says_so_when_the_stored_file_is_damaged_or_gone(tmp_path: Path) -> None:
    source = source_of(write(tmp_path, lzma.compress(tar_of())))
    content = bytearray(source.archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    source.archive.write_bytes(content)
    (tmp_path / "facts.json").write_text("{}")
    with pytest.raises(StashError, match="damaged"), open_tar(source) as stream:
        stream.read()
    assert not (tmp_path / "facts.json").exists()
    source.archive.unlink()
    with pytest.raises(StashError, match="gone"), open_tar(source):
        pass


def test_subset_is_rooted_anew(tmp_path: Path) -> None:
    extra = (
        entry(f"{TOP}/Tools/run", b"#!", mode=0o755, uid=1000, uname="someone"),
        entry(f"{TOP}/Tools/link", "README"),
        entry(f"{TOP}/Tools/hard", type=tarfile.LNKTYPE, linkname=f"{TOP}/Tools/README"),
        entry(f"{TOP}/Toolsmith"),
    )
    source = source_of(write(tmp_path, gzip.compress(tar_of(*extra))))
    with subset_tar(source, ["Tools/", "Include/patchlevel.h"]) as stream, tarfile.open(fileobj=stream) as tar:
        members = {member.name: member for member in tar}
        assert sorted(members) == [
            "Include", "Include/patchlevel.h", "Tools", "Tools/README", "Tools/hard", "Tools/jit",
            "Tools/jit/_llvm.py", "Tools/jit/build.py", "Tools/link", "Tools/run",
        ]  # fmt: skip
        assert members["Tools"].isdir() and members["Tools/hard"].linkname == "Tools/README"
        assert (members["Tools/run"].mode, members["Tools/run"].uid, members["Tools/run"].uname) == (0o755, 0, "")
        assert tar.extractfile("Include/patchlevel.h").read() == PATCHLEVEL  # type: ignore[union-attr]


def test_subset_of_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    source = source_of(write(tmp_path, tar_of(entry(f"{TOP}/x", type=tarfile.LNKTYPE, linkname=f"{TOP}/configure"))))
    with pytest.raises(SourceError, match="no Nothing"), subset_tar(source, ["Tools", "Nothing"]):
        pass
    with pytest.raises(SourceError, match="hard link"), subset_tar(source, ["x"]):
        pass


def test_packing_depends_on_the_entries_alone(tmp_path: Path) -> None:
    def entries() -> list[Entry]:
        return [
            Entry("a", size=1, content=io.BytesIO(b"1")),
            Entry("b/run", True, size=2, content=io.BytesIO(b"22")),
            Entry("b/s", link="run"),
        ]

    digest = pack(entries(), tmp_path / "one")
    assert pack(entries(), tmp_path / "two") == digest
    content = zstd.decompress((tmp_path / "one").read_bytes())
    assert hashlib.sha256(content).hexdigest() == digest
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = list(tar)
    assert [member.name for member in members] == ["cpython", "cpython/a", "cpython/b", "cpython/b/run", "cpython/b/s"]
    assert [member.mode for member in members] == [0o755, 0o644, 0o755, 0o755, 0o777]
    # make takes what is newer than its output for changed: nothing may be newer than anything
    assert {member.mtime for member in members} == {MTIME}
    assert {(member.uid, member.gid, member.uname) for member in members} == {(0, 0, "")}


def test_packing_leaves_out_what_no_build_reads_and_lets_it_be_read_all_the_same(tmp_path: Path) -> None:
    doc = io.BytesIO(b"words")
    unread = [Entry(".github/CODEOWNERS", size=0, content=io.BytesIO()), Entry("Doc/using.rst", size=5, content=doc)]
    read = [
        Entry("Doc/library/token.rst", size=1, content=io.BytesIO(b"t")),
        Entry("Docks", size=0, content=io.BytesIO()),
    ]
    pack([*unread, *read], tmp_path / "some")
    assert doc.tell() == 5
    with tarfile.open(fileobj=io.BytesIO(zstd.decompress((tmp_path / "some").read_bytes()))) as tar:
        names = [member.name for member in tar if member.isfile()]
    assert names == ["cpython/Doc/library/token.rst", "cpython/Docks"]


def test_packing_says_which_file_changed_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="short"):
        pack([Entry("short", size=10, content=io.BytesIO(b"1"))], tmp_path / "one")


def members_of(content: bytes) -> dict[str, tuple[bytes, str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        return {
            member.name: (member.type, member.linkname, file.read() if (file := tar.extractfile(member)) else b"")
            for member in tar
            if not member.issym()
        }


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_builds_are_given_what_they_read_of_an_archive(tmp_path: Path, format: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for member, data in (
            *(entry(f"{TOP}/{name}", content) for name, content in TREE.items()),
            entry(f"{TOP}/Doc", type=tarfile.DIRTYPE),
            entry(f"{TOP}/Doc/{'long' * 40}.rst", b"words" * 400),
            entry(f"{TOP}/Doc/empty.rst"),
            entry(f"{TOP}/Doc/library/token.rst", b"read"),
            entry(f"{TOP}/Doc/link.rst", "empty.rst"),
            entry(f"{TOP}/Lib/{'long' * 40}.py", b"kept" * 400),
            entry(f"{TOP}/Lib/hard.py", type=tarfile.LNKTYPE, linkname=f"{TOP}/configure"),
            entry(f"{TOP}/Misc/NEWS.d/last.rst", b"x" * 512),
        ):
            tar.addfile(member, io.BytesIO(data))
    path, tree = write(tmp_path, gzip.compress(buffer.getvalue())), tmp_path / "tree"
    assert inspect(path, "it", tree) == inspect(path, "it")
    whole, given = members_of(buffer.getvalue()), members_of(zstd.decompress(tree.read_bytes()))
    omitted = {f"Doc/{'long' * 40}.rst", "Doc/empty.rst", "Misc/NEWS.d/last.rst"}
    assert list(given) == [name for name in whole if name.removeprefix(f"{TOP}/") not in omitted]
    assert given == {name: whole[name] for name in given}


def test_builds_are_given_all_where_what_they_read_is_a_link_to_what_they_do_not(tmp_path: Path) -> None:
    link = entry(f"{TOP}/Lib/page", type=tarfile.LNKTYPE, linkname=f"{TOP}/Doc/page")
    content = tar_of(entry(f"{TOP}/Doc/page", b"words"), link)
    inspect(write(tmp_path, content), "it", tmp_path / "tree")
    assert zstd.decompress((tmp_path / "tree").read_bytes()) == content


def test_a_tree_is_inspected_as_it_is_packed(tmp_path: Path) -> None:
    def entries() -> Iterator[Entry]:
        yield Entry("Doc/page.rst", size=1, content=io.BytesIO(b"1"))
        for name, content in sorted({**TREE, "Lib/test/test_x.py": b"1", "Lib/empty.py": b""}.items()):
            yield Entry(name, name == "configure", size=len(content), content=io.BytesIO(content))
        yield Entry("Tools/link", link="README")

    inspection = Inspection("it")
    pack(entries(), tmp_path / "packed", inspection.take)
    assert inspection.facts() == inspect(tmp_path / "packed", "it")
    with pytest.raises(SourceError, match="outside of the top folder"):
        pack([Entry("link", link="/etc/passwd")], tmp_path / "other", Inspection("it").take)
