"""Archives and trees that are made to cost memory, disk or time: refused before they do."""

from __future__ import annotations

import io
import lzma
import os
import random
import re
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossjit.errors import CrossjitError, SourceError, StashError, TreeError
from crossjit.sources.inspection import inspect
from crossjit.stash import packing
from crossjit.util import budget
from crossjit.util.budget import BudgetError, TreeCount
from crossjit.util.tar import read
from tests.unit.measured import measure
from tests.unit.test_sources_archives import COMPRESSIONS, TOP, entry, tar_of
from tests.unit.trees import INSTALL, File, stream, tar

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MEMORY = 100.0  # MiB beside what the imports take
LARGE = 256 << 20
INSPECT = ("from crossjit.sources.inspection import inspect", "inspect(arguments[0], 'the archive', arguments[1])")
PACK = ("from crossjit.stash import packing", "packing.pack(arguments[0].open('rb'), arguments[1])")


def header(kind: bytes, size: int, name: str = f"{TOP}/x") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def pax(**records: str) -> bytes:
    member = tarfile.TarInfo(f"{TOP}/x")
    member.pax_headers = records
    return member.create_pax_header(member.get_info(), "utf-8")[: -tarfile.BLOCKSIZE]


def filled(piece: bytes, size: int) -> Iterator[bytes]:
    block = piece * ((1 << 20) // len(piece))
    for _ in range(size >> 20):
        yield block


SPARSE_MAP = pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x"})
OLD_SPARSE = bytearray(header(tarfile.GNUTYPE_SPARSE, 0))
OLD_SPARSE[482] = 1  # the map goes on in the next block
OLD_SPARSE[148:156] = b"%06o\0 " % (sum(OLD_SPARSE[:148] + OLD_SPARSE[156:]) + 8 * 32)

# What begins so goes on with that, for as long as it likes.
HEADERS = {
    "pax": (header(tarfile.XHDTYPE, LARGE), b"\0"),
    "pax, global": (header(tarfile.XGLTYPE, LARGE), b"\0"),
    "long name": (header(tarfile.GNUTYPE_LONGNAME, LARGE), b"a"),
    "long link": (header(tarfile.GNUTYPE_LONGLINK, LARGE), b"a"),
    "sparse map": (SPARSE_MAP + header(tarfile.REGTYPE, LARGE), b"1" + b"0" * 15 + b"\n" + b"0\n" * 504),
    "old sparse map": (bytes(OLD_SPARSE), b"00000000001\0" * 42 + b"\1" + bytes(7)),
    "less than nothing": (header(tarfile.XHDTYPE, -512), b"\0"),
}


@pytest.fixture(scope="module", params=HEADERS)
def large_header(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("header") / "x.tar.zst"
    begin, piece = HEADERS[request.param]
    with zstd.open(path, "wb") as file:
        file.write(header(tarfile.DIRTYPE, 0, TOP) + begin)
        for block in filled(piece, LARGE):
            file.write(block)
    assert path.stat().st_size < 150_000
    return path


def test_a_large_header_is_not_read(large_header: Path, tmp_path: Path) -> None:
    cost = measure(*INSPECT, large_header, tmp_path / "tree")
    assert cost.error == "SourceError" and re.match(r"the archive .*header", cost.message)
    assert cost.memory < MEMORY


def test_a_large_header_in_what_a_build_leaves_is_the_builds_fault(large_header: Path, tmp_path: Path) -> None:
    call = "packing.pack(tar_zst.decompressed(arguments[0].open('rb')), arguments[1])"
    cost = measure(
        "from crossjit.stash import packing; from crossjit.util import tar_zst", call, large_header, tmp_path / "x"
    )
    assert cost.error == "BudgetError" and "header" in cost.message
    assert cost.memory < MEMORY and list(tmp_path.iterdir()) == []


def nested(deep: int) -> tuple[tarfile.TarInfo, bytes]:
    return entry(f"{TOP}/{'a/' * deep}", type=tarfile.DIRTYPE)


def test_nested_folders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.xz"
    path.write_bytes(lzma.compress(tar_of(nested(40_000))))
    assert path.stat().st_size < 6_000
    started = time.monotonic()
    with pytest.raises(SourceError, match="it has folders nested more than 256 deep"):
        inspect(path, "it")
    with pytest.raises(BudgetError, match="nested more than 256 deep"):
        packing.pack(io.BytesIO(tar_of(nested(40_000))), tmp_path / "packed")
    assert time.monotonic() - started < 5
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    path.write_bytes(tar_of(nested(200)))
    inspect(path, "it")


def test_folders_that_are_only_in_paths_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each is a header of its own, and memory, once the tree is packed."""
    monkeypatch.setattr(budget, "BUDGET", replace(budget.BUDGET, members=1000))
    deep = [entry(f"{TOP}/{index}/{'a/' * 200}x") for index in range(6)]
    (tmp_path / "x.tar").write_bytes(tar_of(*deep))
    with pytest.raises(SourceError, match="more than 1,000 files and folders"):
        inspect(tmp_path / "x.tar", "it")
    with pytest.raises(BudgetError, match="more than 1,000 files and folders"):
        packing.pack(io.BytesIO(tar_of(*deep)), tmp_path / "packed")


@pytest.mark.parametrize(
    ("bound", "message"), [({"tree": 30_000}, "30,000 bytes"), ({"members": 5}, "5 files"), ({"names": 90}, "90 char")]
)
def test_a_large_tree_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bound: dict[str, int], message: str
) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of(entry(f"{TOP}/noise", os.urandom(30_000))))
    inspect(tmp_path / "x.tar", "it")
    packing.pack(stream({**INSTALL, "noise": File(os.urandom(30_000))}), tmp_path / "packed")
    monkeypatch.setattr(budget, "BUDGET", replace(budget.BUDGET, **bound))
    with pytest.raises(SourceError, match=message):
        inspect(tmp_path / "x.tar", "it")
    with pytest.raises(BudgetError, match=message):
        packing.pack(stream({**INSTALL, "noise": File(os.urandom(30_000))}), tmp_path / "again")


def test_what_follows_the_end_is_bounded_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x.tar.zst").write_bytes(zstd.compress(tar_of() + bytes(2 << 20)))
    inspect(tmp_path / "x.tar.zst", "it")
    monkeypatch.setattr(budget, "BUDGET", replace(budget.BUDGET, tree=1 << 20))
    with pytest.raises(SourceError, match="more than 1,048,576 bytes"):
        inspect(tmp_path / "x.tar.zst", "it")


class Stream(io.BytesIO):
    """A beginning, and then zeros, of which only so many may be read."""

    def __init__(self, begin: bytes, zeros: int) -> None:
        super().__init__(begin)
        self.left = zeros

    def read(self, size: int | None = -1, /) -> bytes:
        if data := super().read(size):
            return data
        assert size is not None
        self.left -= size
        assert self.left >= 0, "it is read all the same"
        return bytes(size)


def test_a_sparse_file_in_an_install_tree_is_refused_before_it_is_read(tmp_path: Path) -> None:
    huge = Stream(header(tarfile.DIRTYPE, 0, "install") + header(tarfile.REGTYPE, 60 << 30, "install/x"), 4 << 20)
    with pytest.raises(BudgetError, match="the tree has more than 4,294,967,296 bytes"):
        packing.pack(huge, tmp_path / "packed")
    assert list(tmp_path.iterdir()) == []


def test_zeros_take_no_room_while_a_tree_is_packed(tmp_path: Path) -> None:
    size = 64 << 20
    room: list[int] = []

    class Watching(io.BytesIO):
        def read(self, wanted: int | None = -1, /) -> bytes:
            if self.tell() > size:
                room.extend(path.stat().st_blocks * 512 for path in tmp_path.glob("*.spool"))
            return super().read(wanted)

    content = tar({"sparse": File(bytes(size)), "z": File(b"last")})
    packed = packing.pack(Watching(content), tmp_path / "packed")
    assert room and max(room) < 1 << 20
    assert packing.read(packed.path, ["z"]) == {"z": b"last"}
    assert packed.unpacked == size + 4


def test_a_tree_without_a_part_passes_through_in_pieces(tmp_path: Path) -> None:
    with (tmp_path / "x.tar").open("wb") as file:
        file.write(header(tarfile.REGTYPE, LARGE, "x"))
        file.truncate(LARGE + 512 + 1024)
    call = "stream = tar.without(arguments[0].open('rb'), re.compile(b'tests/'))\n    while stream.read(1 << 20): pass"
    cost = measure("import re; from crossjit.util import tar", call, tmp_path / "x.tar")
    assert cost.error == "" and cost.memory < MEMORY


def test_no_file_of_an_artifact_is_read_whole_if_it_is_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packed = packing.pack(stream({"a": File(b"a" * 600), "b": File(b"b" * 600)}), tmp_path / "packed")
    assert packing.read(packed.path, ["a", "b"])
    monkeypatch.setattr(packing, "BUDGET", replace(budget.BUDGET, file=1000))
    assert packing.read(packed.path, ["a"])
    with pytest.raises(BudgetError, match=r"b of packed.* is too large"):
        packing.read(packed.path, ["a", "b"])


def test_a_dictionary_of_gigabytes_is_refused(tmp_path: Path) -> None:
    """What xz may look back is told in the block's header, and a decoder allocates it; here it is filled as well."""
    compressor = lzma.LZMACompressor(preset=0)
    pieces = [compressor.compress(header(tarfile.DIRTYPE, 0, TOP) + header(tarfile.REGTYPE, LARGE))]
    pieces += [compressor.compress(block) for block in filled(b"\0", LARGE)]
    content = bytearray(b"".join((*pieces, compressor.compress(bytes(1024)), compressor.flush())))
    size = (content[12] + 1) * 4
    block = content[12 : 12 + size - 4]
    place = block.index(b"\x21\x01") + 2
    block[place] = 40  # 4 GiB
    content[12 : 12 + size] = block + zlib.crc32(block).to_bytes(4, "little")
    (tmp_path / "x.tar.xz").write_bytes(content)
    cost = measure(*INSPECT, tmp_path / "x.tar.xz", tmp_path / "tree")
    assert cost.error == "SourceError" and "emory usage limit" in cost.message
    assert cost.memory < MEMORY


@pytest.mark.parametrize("preset", [0, 6, 9, 9 | lzma.PRESET_EXTREME])
def test_what_xz_writes_is_read_in_streams_and_with_padding(tmp_path: Path, preset: int) -> None:
    content = tar_of()
    half = len(content) // 2
    streams = [lzma.compress(part, preset=preset) for part in (content[:half], content[half:])]
    (tmp_path / "x.tar.xz").write_bytes(streams[0] + bytes(8) + streams[1] + bytes(4 << 20))
    assert inspect(tmp_path / "x.tar.xz", "it").top == TOP
    (tmp_path / "x.tar.xz").write_bytes(streams[0] + streams[1] + b"more")
    with pytest.raises(SourceError):
        inspect(tmp_path / "x.tar.xz", "it")


def test_a_header_of_digits_takes_no_time(tmp_path: Path) -> None:
    """Before 3.11.10 tarfile takes hours for a mebibyte of them (CVE-2024-6232)."""
    content = header(tarfile.XHDTYPE, 1_000_000) + b"1" * 1_000_448
    (tmp_path / "x.tar").write_bytes(content + header(tarfile.REGTYPE, 0) + bytes(1024))
    cost = measure(*INSPECT, tmp_path / "x.tar", tmp_path / "tree", seconds=20)
    assert cost.error == "SourceError" and "header with an invalid number" in cost.message


def test_headers_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    chain = (pax(comment="x") * 1500) + header(tarfile.REGTYPE, 0)
    (tmp_path / "x.tar").write_bytes(chain + bytes(1024))
    with pytest.raises(SourceError, match=r"it has .* header"):
        inspect(tmp_path / "x.tar", "it")
    with pytest.raises(BudgetError, match="header"):
        packing.pack(io.BytesIO(chain + bytes(1024)), tmp_path / "packed")


def test_a_tar_is_read_from_a_pipe_and_to_its_end() -> None:
    reading, writing = os.pipe()
    content = tar(INSTALL)
    with os.fdopen(reading, "rb", buffering=0) as source, os.fdopen(writing, "wb") as sink:
        sink.write(content)
        sink.close()
        found = {member.name: content.read() if content else b"" for member, content in read(source, TreeCount("it"))}
        assert source.read() == b""
    assert found["install/lib/os.py"] == INSTALL["lib/os.py"].content  # type: ignore[union-attr]


def test_a_tar_that_is_cut_off_is_not_taken_for_a_whole_one() -> None:
    content = tar(INSTALL, format=tarfile.USTAR_FORMAT)
    for end in range(0, len(content.rstrip(b"\0")) // 512 * 512, 512):
        with pytest.raises(tarfile.TarError):
            list(read(io.BytesIO(content[:end]), TreeCount("it")))


def test_a_sparse_file_does_not_claim_zeros_without_an_end(tmp_path: Path) -> None:
    """Its header may claim any size, and tarfile gives that many zeros."""
    claims = header(tarfile.REGTYPE, 1024, "x")
    claims = claims[:124] + b"\x80" + b"\xff" * 11 + claims[136:]
    claims = claims[:148] + b"%06o\0 " % (sum(claims[:148] + claims[156:]) + 8 * 32) + claims[156:]
    content = SPARSE_MAP + claims + b"1\n0\n5\n" + bytes(2042)
    (tmp_path / "packed").write_bytes(zstd.compress(content))
    with pytest.raises(BudgetError, match="packed has a sparse file"):
        list(packing.contents(tmp_path / "packed"))
    with pytest.raises(BudgetError, match="it has a sparse file"):
        list(read(io.BytesIO(content), TreeCount("it")))
    (tmp_path / "packed").write_bytes(zstd.compress(header(tarfile.DIRTYPE, 0, "d") + claims + bytes(1024)))
    with pytest.raises(BudgetError, match="packed has more than"):
        list(packing.contents(tmp_path / "packed"))


def packs(content: bytes, folder: Path) -> None:
    packing.extract(packing.pack(io.BytesIO(content), folder / "packed").path, folder)


def extracts(content: bytes, folder: Path) -> None:
    (folder / "packed").write_bytes(zstd.compress(content))
    (folder / "out").mkdir()
    packing.extract(folder / "packed", folder / "out")


def looks(content: bytes, folder: Path) -> None:
    (folder / "packed").write_bytes(zstd.compress(content))
    list(packing.contents(folder / "packed"))


def inspects(content: bytes, folder: Path) -> None:
    compression = COMPRESSIONS[random.Random(len(content)).choice(list(COMPRESSIONS))]
    (folder / "x").write_bytes(compression(content))
    inspect(folder / "x", "it", folder / "tree")


SOUND = (  # named by their numbers, as hypothesis prints them
    tar({**INSTALL, "lib/" + "long" * 40: File(b"x" * 700)}),
    tar({**INSTALL, "lib/" + "long" * 40: File(b"x" * 700)}, format=tarfile.GNU_FORMAT, mtime=1),
    tar_of(entry(f"{TOP}/" + "long" * 40), entry(f"{TOP}/x", b"1234567", mtime=1.5)),
    SPARSE_MAP + header(tarfile.REGTYPE, 1024) + b"1\n0\n5\n" + bytes(2042),
)


@pytest.mark.parametrize("work", [packs, extracts, looks, inspects])
def test_a_map_that_is_none_is_damage(work: Callable[[bytes, Path], None], tmp_path: Path) -> None:
    with pytest.raises((SourceError, StashError), match=r"header|tar"):
        work(SPARSE_MAP + header(tarfile.REGTYPE, 1024) + b"x" * 1024 + bytes(1024), tmp_path)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), work=st.sampled_from([packs, extracts, looks, inspects]), number=st.integers(0, len(SOUND) - 1))
def test_no_damage_is_a_foreign_exception(
    data: st.DataObject,
    work: Callable[[bytes, Path], None],
    number: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    content = bytearray(SOUND[number])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content.rstrip(b"\0"))))
        match data.draw(st.sampled_from(["byte", "size", "cut", "twice"])):
            case "byte":
                content[place] = data.draw(st.integers(0, 255))
            case "size":
                start = place // 512 * 512
                size = data.draw(st.sampled_from([b"77777777777\0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"0" * 12]))
                content[start + 124 : start + 136] = size
                whole = content[start : start + 512]
                content[start + 148 : start + 156] = b"%06o\0 " % (sum(whole[:148] + whole[156:]) + 8 * 32)
            case "cut":
                del content[place : place + data.draw(st.integers(1, 1024))]
            case "twice":
                content[place:place] = content[place // 512 * 512 : place // 512 * 512 + 512]
    folder = tmp_path_factory.mktemp("damaged")
    try:
        work(bytes(content), folder)
    except CrossjitError as error:
        assert isinstance(error, (SourceError, StashError, TreeError, BudgetError)) and error.message


@settings(max_examples=200, deadline=None)
@given(data=st.data(), compression=st.sampled_from(sorted(COMPRESSIONS)))
def test_no_damage_to_what_is_compressed_is_a_foreign_exception(
    data: st.DataObject, compression: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(COMPRESSIONS[compression](tar_of(entry(f"{TOP}/noise", random.Random(1).randbytes(3000)))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        inspect(path, "it")
    except SourceError as error:
        assert error.message and error.hint
