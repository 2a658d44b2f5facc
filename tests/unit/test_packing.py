from __future__ import annotations

import io
import os
import random
import re
import stat
import sys
import tarfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossjit.errors import StashError, TreeError
from crossjit.stash import packing
from crossjit.stash.packing import Packed, Rest
from crossjit.util.tar import without
from tests.unit.trees import INSTALL, File, Folder, Hardlink, Node, Symlink, tar


def pack(
    data: bytes, folder: Path, name: str = "tree", *, rest: Rest | None = None, workers: int | None = None
) -> Packed:
    return packing.pack(io.BytesIO(data), folder / f"{name}.tar.zst", rest=rest, workers=workers)


if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# without extended headers, so that a member begins with its own header
PLAIN = tar(INSTALL, format=tarfile.USTAR_FORMAT)


def header_of(path: str) -> int:
    with tarfile.open(fileobj=io.BytesIO(PLAIN)) as archive:
        return archive.getmember(f"install/{path}").offset


def members(packed: Packed) -> dict[str, tarfile.TarInfo]:
    with packing.unpack_stream(packed.path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        return {member.name: member for member in archive}


def test_the_bytes_depend_on_the_tree_alone(tmp_path: Path) -> None:
    first = pack(tar(INSTALL), tmp_path, "first")
    shuffled = sorted(INSTALL, key=lambda path: random.Random(path).random())
    assert shuffled != list(INSTALL)
    second = pack(
        tar(INSTALL, top="other", order=shuffled, mtime=99.75, uid=0, names="", format=tarfile.GNU_FORMAT),
        tmp_path,
        "second",
    )
    assert first.path.read_bytes() == second.path.read_bytes()
    assert (first.digest, first.size, first.tree_digest) == (second.digest, second.size, second.tree_digest)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_zstd_gives_the_same_bytes_for_any_number_of_workers(tmp_path: Path, workers: int) -> None:
    noise = random.Random(1).randbytes(1 << 20)
    data = tar({"large": File(noise * 20), "small": File(noise[:1000])})  # more than two jobs of the compressor
    assert pack(data, tmp_path, "one", workers=1).digest == pack(data, tmp_path, "more", workers=workers).digest


def test_members_are_normal(tmp_path: Path) -> None:
    packed = pack(tar({"d": Folder(0o2700), "d/s": File(b"1", 0o6711), "d/p": File(b"2", 0o600)}), tmp_path)
    found = members(packed)
    assert list(found) == ["d", "d/p", "d/s"]
    assert {name: member.mode for name, member in found.items()} == {"d": 0o755, "d/p": 0o644, "d/s": 0o755}
    for member in found.values():
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert member.mtime == packing.MODIFIED
        assert member.pax_headers == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"bin/python3.15": File(b"\x7fELF" + bytes(range(256)) * 40, 0o644)},
        {"bin/python3": Symlink("python3.14")},
        {"lib/empty": File(b"\0")},
        {"lib/empty": Folder()},
        {"lib/more": Folder()},
    ],
    ids=["exec bit", "link target", "content", "kind", "one more"],
)
def test_the_tree_digest_sees_every_change(tmp_path: Path, changed: dict[str, Node]) -> None:
    before = pack(tar(INSTALL), tmp_path, "before")
    after = pack(tar({**INSTALL, **changed}), tmp_path, "after")
    assert before.tree_digest != after.tree_digest


def test_the_tree_digest_does_not_mistake_names_for_structure(tmp_path: Path) -> None:
    one = pack(tar({"a": File(), "b": File()}), tmp_path, "one")
    line = f'a" {one.files["a"]}\nf 0644 "b'
    other = pack(tar({line: File()}), tmp_path, "other")
    assert one.tree_digest != other.tree_digest


def test_hard_links_have_one_form(tmp_path: Path) -> None:
    content = File(b"x" * 5000, 0o755)
    forms = [
        tar({"b": content, "a": Hardlink("b"), "c": Hardlink("a")}),
        tar({"a": content, "c": Hardlink("a"), "b": Hardlink("c")}),
        tar({"c": content, "b": Hardlink("c"), "a": Hardlink("c")}, order=["c", "a", "b"]),
    ]
    packed = [pack(form, tmp_path, str(number)) for number, form in enumerate(forms)]
    assert len({one.digest for one in packed}) == 1
    assert {name: (member.islnk(), member.linkname) for name, member in members(packed[0]).items()} == {
        "a": (False, ""),
        "b": (True, "a"),
        "c": (True, "a"),
    }
    assert len(set(packed[0].files.values())) == 1
    assert packed[0].unpacked == 5000
    copies = pack(tar({"a": content, "b": content, "c": content}), tmp_path, "copies")
    assert copies.tree_digest == packed[0].tree_digest


def test_folders_that_the_stream_leaves_out_are_added(tmp_path: Path) -> None:
    assert list(members(pack(tar({"a/b/c": File()}), tmp_path))) == ["a", "a/b", "a/b/c"]


def test_long_and_odd_names_survive(tmp_path: Path) -> None:
    names = ["x" * 200 + "/" + "y" * 200, "ü", "\udcff", "with\nnewline", " "]
    packed = pack(tar({name: File(name.encode("utf-8", "surrogateescape")) for name in names}), tmp_path)
    assert set(packed.files) == set(names)
    target = tmp_path / "out"
    target.mkdir()
    packing.extract(packed.path, target)
    for name in names:
        assert (target / name).read_bytes() == name.encode("utf-8", "surrogateescape")
    assert dict(packing.contents(packed.path)) == packed.files


LIBRARY: dict[str, Node] = {
    "lib": Folder(),
    "lib/python3t": File(b"python", 0o755),
    "lib/python3": Hardlink("lib/python3t"),
    "lib/test-like": File(b"like"),
    "lib/link": Symlink("test/a.py"),
    "lib/empty": Folder(),
}
OLD: dict[str, Node] = {
    **LIBRARY,
    "lib/test": Folder(),
    "lib/test/a.py": File(b"old"),
    "lib/test/gone": File(b"x", 0o755),
}
NEW: dict[str, Node] = {
    "lib": Folder(),
    "lib/test": Folder(),
    "lib/test/a.py": File(b"new", 0o755),
    "lib/test/b": Hardlink("lib/test/a.py"),
    "lib/test/sub": Folder(),
}


def test_a_folder_made_anew_and_the_rest_are_packed_as_one_tree(tmp_path: Path) -> None:
    old = pack(tar(OLD), tmp_path, "old")
    joined = pack(tar(NEW), tmp_path, "joined", rest=Rest(old.path, "lib/test"))
    whole = pack(tar({**LIBRARY, **NEW}), tmp_path, "whole")
    assert joined.path.read_bytes() == whole.path.read_bytes()
    assert replace(joined, path=whole.path) == whole
    assert sorted(tmp_path.iterdir()) == [joined.path, old.path, whole.path]


@pytest.mark.parametrize(
    ("data", "damaged", "message"),
    [
        (tar({**NEW, "lib/other": File()}), False, "lib/other is not in lib/test"),
        (tar({**NEW, "lib/test-like": File()}), False, "lib/test-like is not in lib/test"),
        (tar(NEW), True, "damaged"),
    ],
)
def test_what_does_not_make_one_tree_is_refused(tmp_path: Path, data: bytes, damaged: bool, message: str) -> None:
    old = pack(tar(OLD), tmp_path, "old")
    if damaged:
        content = old.path.read_bytes()
        old.path.write_bytes(content[:-3] + b"xyz")
    with pytest.raises(TreeError if "is not in" in message else StashError, match=message):
        pack(data, tmp_path, "new", rest=Rest(old.path, "lib/test"))
    assert list(tmp_path.iterdir()) == [old.path]


def test_single_files_are_read(tmp_path: Path) -> None:
    packed = pack(tar(OLD), tmp_path)
    wanted = ["lib/python3", "lib/python3t", "lib/test/a.py"]
    assert packing.read(packed.path, wanted) == {
        "lib/python3": b"python",
        "lib/python3t": b"python",
        "lib/test/a.py": b"old",
    }
    for missing in ("lib/nothing", "lib", "lib/link"):
        with pytest.raises(StashError, match=f"no file {missing}"):
            packing.read(packed.path, [missing])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tar({"../x": File()}), "leaves its folder"),
        (tar({"a": Hardlink("nowhere")}), "hard link"),
        (tar({"a": Hardlink("b"), "b": Hardlink("a")}), "hard link"),
        (tar({"d": Folder(), "a": Hardlink("d")}), "hard link"),
        (tar({"a": File(), "a/b": File()}), "not a folder"),
        (tar({"l": Symlink("/etc"), "l/passwd": File()}), "not a folder"),
        (b"", "not a tar stream"),
        (b"not a tar" * 1000, "not a tar stream"),
        (bytes(10240), "empty"),
        (PLAIN[:-10240], "cut off"),
        (PLAIN[: 512 * 20], "cut off"),
        (PLAIN[: 512 * 20 + 100], "cut off"),
        (PLAIN[: header_of("lib/empty")], "cut off"),
        (PLAIN[: header_of("lib/empty") + 512], "cut off"),
        (PLAIN[: header_of("lib/empty")] + b"?" + PLAIN[header_of("lib/empty") + 1 :], "damaged"),
    ],
)
def test_what_is_no_tree_is_refused_and_nothing_is_left(tmp_path: Path, data: bytes, message: str) -> None:
    kind = TreeError if message in ("leaves its folder", "hard link", "not a folder") else StashError
    with pytest.raises(kind, match=message) as caught:
        pack(data, tmp_path)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_streams_of_more_than_one_folder_or_of_a_file_are_refused(tmp_path: Path) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
    with pytest.raises(TreeError, match="more than one top folder"):
        pack(output.getvalue(), tmp_path)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    with pytest.raises(TreeError, match="more than one top folder"):
        pack(output.getvalue(), tmp_path)


@pytest.mark.parametrize(
    "tree",
    [
        {"etc/passwd": File()},
        {"bin": Folder()},
        {"usr/locale": File()},
        {"usr": Symlink("/usr")},
        {"usr/local": Symlink("/")},
    ],
    ids=str,
)
def test_what_is_not_below_the_only_folder_is_refused(tmp_path: Path, tree: dict[str, Node]) -> None:
    with pytest.raises(TreeError, match="is not in usr/local"):
        packing.pack(io.BytesIO(tar(tree)), tmp_path / "x", below="usr/local")
    assert list(tmp_path.iterdir()) == []


def test_what_is_below_the_only_folder_is_packed(tmp_path: Path) -> None:
    tree: dict[str, Node] = {"usr": Folder(), "usr/local": Folder(), "usr/local/a": File()}
    assert packing.pack(io.BytesIO(tar(tree)), tmp_path / "x", below="usr/local").files.keys() == {"usr/local/a"}


def test_devices_are_refused(tmp_path: Path) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        folder = tarfile.TarInfo("top")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        device = tarfile.TarInfo("top/null")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    with pytest.raises(TreeError, match="neither file"):
        pack(output.getvalue(), tmp_path)


def test_extract_gives_the_tree_with_modes_whatever_the_umask(tmp_path: Path) -> None:
    packed = pack(tar({**INSTALL, "bin/python": Hardlink("bin/python3.15")}), tmp_path)
    target = tmp_path / "out"
    target.mkdir()
    before = os.umask(0o077)
    try:
        packing.extract(packed.path, target)
    finally:
        os.umask(before)
    assert (target / "bin/python3").readlink() == Path("python3.15")
    assert (target / "bin/python").samefile(target / "bin/python3.15")
    status = (target / "bin/python3.15").stat()
    assert stat.S_IMODE(status.st_mode) == 0o755
    assert (status.st_uid, status.st_gid, status.st_mtime) == (os.getuid(), os.getgid(), packing.MODIFIED)
    assert stat.S_IMODE((target / "lib").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "lib/os.py").stat().st_mode) == 0o644


@pytest.mark.parametrize("target", ["/etc/passwd", "..", "a/../../x", "../lib/../../x", "up/.."])
def test_extract_refuses_links_out_of_the_tree(tmp_path: Path, target: str) -> None:
    packed = pack(
        tar({"bin": Folder(), "bin/up": Symlink(".."), "up": Symlink("bin/up"), "l": Symlink(target)}), tmp_path
    )
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(StashError, match="out of the tree"):
        packing.extract(packed.path, out)


def craft(path: Path, *infos: tarfile.TarInfo) -> Path:
    """Make an archive that `pack` would never make."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    path.write_bytes(zstd.compress(output.getvalue()))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


@pytest.mark.parametrize(
    "infos",
    [
        [member("/absolute")],
        [member("../climbs")],
        [member("l", tarfile.SYMTYPE, "../outside"), member("l/x")],
        [member("l", tarfile.SYMTYPE, "d"), member("l/x")],
        [member("d", tarfile.DIRTYPE), member("l", tarfile.SYMTYPE, "d"), member("l/x")],
        [
            member("d", tarfile.DIRTYPE),
            member("d/l", tarfile.SYMTYPE, ".."),
            member("m", tarfile.SYMTYPE, "d/l/../../outside"),
            member("m/x"),
        ],
        [member("h", tarfile.LNKTYPE, "../../secret")],
        [member("twice"), member("twice")],
        [member("p", tarfile.FIFOTYPE)],
    ],
    ids=[
        "absolute",
        "climbs",
        "through a link out",
        "through a link",
        "through a link to a folder",
        "through two links",
        "hard link out",
        "twice",
        "fifo",
    ],
)
def test_extract_writes_nothing_outside_whatever_the_archive_says(tmp_path: Path, infos: list[tarfile.TarInfo]) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    out = tmp_path / "a" / "out"
    out.mkdir(parents=True)
    with pytest.raises(StashError):
        packing.extract(craft(tmp_path / "bad.tar.zst", *infos), out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "bad.tar.zst", "outside", "secret"]
    assert list((tmp_path / "outside").iterdir()) == []
    assert not any(path.is_file() and path.read_bytes() == b"secret" for path in out.iterdir())


def test_a_damaged_or_missing_archive_is_a_stash_error(tmp_path: Path) -> None:
    packed = pack(tar(INSTALL), tmp_path)
    data = packed.path.read_bytes()
    packed.path.write_bytes(data[:-20])
    with pytest.raises(StashError, match="damaged"):
        list(packing.contents(packed.path))
    packed.path.unlink()
    with pytest.raises(StashError, match="missing"), packing.unpack_stream(packed.path):
        pass


def test_an_error_of_the_stream_leaves_nothing(tmp_path: Path) -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError("the engine went away")

    with pytest.raises(ConnectionResetError):
        packing.pack(Breaks(), tmp_path / "x.tar.zst")
    assert list(tmp_path.iterdir()) == []


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
nodes = st.one_of(
    st.builds(File, st.binary(max_size=600), st.integers(0, 0o7777)),
    st.builds(Folder, st.integers(0, 0o7777)),
    st.builds(Symlink, names),
)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Node]:
    tree: dict[str, Node] = draw(st.dictionaries(paths, nodes, max_size=8))
    for path in list(tree):
        for parent in PurePosixPath(path).parents:
            if str(parent) != "." and not isinstance(tree.get(str(parent), Folder()), Folder):
                tree.pop(path, None)
    files = [path for path, node in tree.items() if isinstance(node, File)]
    if files:
        for name in draw(st.lists(names, max_size=2)):
            tree.setdefault(name, Hardlink(draw(st.sampled_from(files))))
    return tree


@settings(max_examples=60, deadline=None)
@given(tree=trees(), data=st.data(), mtime=st.floats(0, 4e9), uid=st.integers(0, 70000))
def test_any_tree_packs_alike_and_comes_back(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Node], data: st.DataObject, mtime: float, uid: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    packed = pack(tar(tree), folder, "one")
    order = data.draw(st.permutations(list(tree)))
    again = pack(tar(tree, top="x", order=order, mtime=mtime, uid=uid, names="ö"), folder, "two")
    assert again.digest == packed.digest
    assert again.tree_digest == packed.tree_digest

    out = folder / "out"
    out.mkdir()
    packing.extract(packed.path, out)
    for path, node in tree.items():
        match node:
            case File(content, mode):
                assert (out / path).read_bytes() == content
                assert bool((out / path).stat().st_mode & 0o111) == bool(mode & 0o111)
            case Folder():
                assert (out / path).is_dir()
                assert not (out / path).is_symlink()
            case Symlink(target):
                assert os.readlink(out / path) == target  # noqa: PTH115 - Path would normalise it
            case Hardlink(target):
                assert (out / path).samefile(out / target)
    assert dict(packing.contents(packed.path)) == packed.files


def test_a_part_of_a_tree_can_be_left_out(tmp_path: Path) -> None:
    long = "lib/test/" + "x" * 120
    nodes = {
        **INSTALL,
        "lib/test/a": File(b"a"),
        long: File(b"b" * 700),
        "lib/tested": File(b"c"),
        "z" * 120: File(b"d"),
    }
    packed = pack(tar(nodes), tmp_path)
    with packing.unpack_stream(packed.path) as stream:
        content = without(stream, re.compile(rb"lib/test/")).read()
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        left = {member.name: file.read() for member in archive if (file := archive.extractfile(member))}
    whole = {path: node.content for path, node in nodes.items() if isinstance(node, File)}
    assert left.pop("bin/python3") == left["bin/python3.15"]
    assert left == {path: whole[path] for path in whole if not path.startswith("lib/test/")}
