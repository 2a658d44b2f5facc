from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from crossjit.errors import StashError, UserError
from crossjit.model import Arch, Cell
from crossjit.stash import manifest as manifests
from crossjit.stash import verified
from crossjit.stash.artifact import Artifact
from crossjit.stash.store import Store
from crossjit.util import sequence
from tests.unit.build_fakes import RecordingProgress
from tests.unit.trees import INSTALL, SUPPORT, File, Symlink, manifest, stream

KEY = "c0ffee" + "0" * 58
OTHER = "c0ffee" + "1" * 58


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "stash", progress=RecordingProgress())


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: syncing a disk some hundred times takes long."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


def said(store: Store) -> list[str]:
    assert isinstance(store._progress, RecordingProgress)
    return store._progress.messages


def stash(store: Store, key: str = KEY, *, content: bytes = b"", cell: Cell | None = None) -> Artifact:
    with store.lock(key), store.staging(key) as staging:
        staging.add("install", stream({**INSTALL, "content": File(content or key.encode())}))
        staging.add("support", stream(SUPPORT, top="support"))
        return staging.commit(manifest(key, cell))


def date(store: Store, artifact: Artifact, days: float) -> None:
    """Make an artifact look as if it had been stashed so many days ago."""
    path = artifact.folder / "manifest.json"
    created = datetime.now(UTC) - timedelta(days=days)
    made = dataclasses.replace(artifact.manifest, created=created, sequence=-int(days * 1000))
    path.write_bytes(manifests.dump(made))
    sums = "".join(
        f"{hashlib.sha256((artifact.folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("files.json", "manifest.json")
    )
    (artifact.folder / "SHA256SUMS").write_text(sums)
    assert store.verify(artifact) == []


def leftovers(store: Store) -> list[str]:
    """List what is in the stash beside locks and whole artifacts with their objects."""
    used = {path for artifact in store.artifacts() for path in artifact.objects.values()}
    objects = [path for path in (store.path / "objects").glob("*/*") if path not in used]
    temporary = [path for path in (store.path / "tmp").glob("*") if path.name != ".making.lock"]
    folders = {artifact.folder for artifact in store.artifacts()}
    artifacts = [path for path in (store.path / "artifacts").glob("*") if path not in folders]
    return [str(path.relative_to(store.path)) for path in (*objects, *temporary, *artifacts)]


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a child of its own and return how it ended, as subprocess does."""
    if (child := os.fork()) == 0:
        status = 99
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_was_stashed_is_found(store: Store) -> None:
    assert store.find(KEY) is None
    made = stash(store)
    found = store.find(KEY)
    assert found == made
    assert found is not None
    given = manifest(KEY)
    assert found.manifest == dataclasses.replace(
        given,
        created=found.manifest.created,
        sequence=found.manifest.sequence,
        tree_digest=found.manifest.trees["install"].digest,
        trees=found.manifest.trees,
    )
    assert datetime.now(UTC) - found.manifest.created < timedelta(minutes=1)
    assert found.manifest.trees["install"].files == 4
    assert found.files()["support"] == {"Tools/jit.py": hashlib.sha256(b"print()\n" * 50).hexdigest()}
    for name, path in found.objects.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert path == store.path / "objects" / digest[:2] / f"{digest}.tar.zst"
        assert found.manifest.trees[name].object == digest
    assert store.verify(found) == []
    assert leftovers(store) == []
    assert said(store) == []


def test_sha256sum_agrees(store: Store) -> None:
    artifact = stash(store)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=artifact.folder, check=True)


def test_two_stashes_agree_on_the_tree(tmp_path: Path) -> None:
    one, two = (stash(Store(tmp_path / name)) for name in ("one", "two"))
    assert one.manifest.tree_digest == two.manifest.tree_digest
    assert one.id == two.id


def test_leaving_the_staging_without_commit_leaves_nothing(store: Store) -> None:
    with store.staging(KEY) as staging:
        staging.add("install", stream())
    with pytest.raises(RuntimeError), store.staging(KEY) as staging:
        staging.add("install", stream())
        raise RuntimeError
    assert store.find(KEY) is None
    assert leftovers(store) == []


def test_stashing_again_replaces(store: Store) -> None:
    before = stash(store, content=b"1")
    after = stash(store, content=b"2")
    assert store.artifacts() == (after,)
    assert before.id != after.id
    assert store.gc().objects == (before.manifest.trees["install"].object,)
    assert store.verify(after) == []
    assert leftovers(store) == []


def test_a_manifest_round_trips_and_ignores_keys_it_does_not_know() -> None:
    made = manifest(KEY)
    document = json.loads(manifests.dump(made))
    assert manifests.parse(manifests.dump(made)) == made
    document["colour"] = "red"
    document["source"]["mood"] = {"good": True}
    assert manifests.parse(json.dumps(document).encode()) == made
    document["schema"] = manifests.SCHEMA + 1
    with pytest.raises(manifests.NewerSchemaError, match=f"schema {manifests.SCHEMA + 1}"):
        manifests.parse(json.dumps(document).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"schema": 1}', b"null", b'{"schema": "x"}'])
def test_a_manifest_that_is_none_is_a_stash_error(content: bytes) -> None:
    with pytest.raises(StashError, match="damaged"):
        manifests.parse(content)


def test_an_artifact_with_a_missing_or_short_object_counts_as_absent_and_heals(store: Store) -> None:
    artifact = stash(store)
    for damage in (lambda path: path.unlink(), lambda path: os.truncate(path, 10)):
        damage(artifact.objects["support"])
        said(store).clear()
        assert store.find(KEY) is None
        assert store.artifacts() == ()
        assert "damaged" in said(store)[0]
        assert any("support" in problem for problem in store.verify(artifact))
        assert store.verify(stash(store)) == []
        assert store.find(KEY) is not None


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def test_verify_finds_a_flipped_byte_anywhere(memory: Path) -> None:
    store = Store(memory / "stash")
    artifact = stash(store)
    files = {
        **{f"objects/{path.parent.name}/{path.name}": path for path in artifact.objects.values()},
        **{f"{KEY}/{name}": artifact.folder / name for name in ("manifest.json", "files.json", "SHA256SUMS")},
    }
    for label, path in files.items():
        size = path.stat().st_size
        for offset in sorted({*range(0, size, max(1, size // 60)), size - 1}):
            flip(path, offset)
            problems = store.verify(artifact)
            # a flipped digest in SHA256SUMS is told as the file that it is of, with SHA256SUMS as the other possibility
            assert any(label in one or Path(label).name in one for one in problems), (label, offset, problems)
            assert store.verify_all() == {KEY: problems}
            flip(path, offset)
    assert store.verify(artifact) == []


def test_what_is_intact_has_every_byte(memory: Path) -> None:
    store = Store(memory / "stash")
    artifact = stash(store)
    files = [*artifact.objects.values(), *(artifact.folder / name for name in ("manifest.json", "files.json"))]
    assert artifact.is_intact()
    for path in (*files, artifact.folder / "SHA256SUMS"):
        flip(path, path.stat().st_size // 2)
        assert not artifact.is_intact(), path
        flip(path, path.stat().st_size // 2)
    assert artifact.is_intact()
    files[0].unlink()
    assert not artifact.is_intact()


def test_a_tree_is_taken_over_from_another_artifact(store: Store) -> None:
    one = stash(store)
    with store.lock(OTHER), store.staging(OTHER) as staging:
        staging.add("install", stream({**INSTALL, "content": File(b"other")}))
        staging.take("support", one)
        two = staging.commit(manifest(OTHER))
    assert two.objects["support"] == one.objects["support"]
    assert two.manifest.trees["support"] == one.manifest.trees["support"]
    assert two.files()["support"] == one.files()["support"]
    shutil.rmtree(one.folder)
    store.gc()
    assert store.verify(two) == []
    assert leftovers(store) == []


def test_verify_tells_which_file_of_the_tree_changed(store: Store) -> None:
    artifact = stash(store)
    with store.staging(OTHER) as staging:
        changed = staging.add("install", stream({**INSTALL, "lib/os.py": File(b"import os\n"), "extra": File()}))
        artifact.objects["install"].write_bytes(changed.path.read_bytes())
    problems = store.verify(artifact)
    assert "install/lib/os.py: changed" in problems
    assert "install/content: missing" in problems
    assert "install/extra: not in files.json" in problems
    assert len(problems) == 4
    artifact.objects["install"].unlink()
    assert store.verify(artifact) == [
        f"{artifact.objects['install'].relative_to(store.path)}: missing (the tree install)"
    ]
    (artifact.folder / "manifest.json").unlink()
    assert store.verify_all() == {KEY: [f"{KEY}/manifest.json: no such file or directory"]}


def test_find_by_prefix(store: Store) -> None:
    cell = Cell("3.14", Arch.X86_64, "jit")
    one, two = stash(store, KEY), stash(store, OTHER)
    three = stash(store, "beef" * 16, cell=cell)
    date(store, two, 1)
    assert store.find_by_prefix(one.id) == one
    assert store.find_by_prefix(three.full_id[:4]) == three
    assert store.find_by_prefix(OTHER[:7]).key == OTHER
    assert store.find_by_prefix("3.15/aarch64/jit").key == KEY  # the newest
    assert store.find_by_prefix("3.14-x86_64-jit") == three
    with pytest.raises(UserError, match="2 artifacts") as caught:
        store.find_by_prefix("c0ffee")
    assert len(caught.value.details) == 2
    for nothing in ("", one.id[:3], "3.13/x86_64/jit", "zzzz"):
        with pytest.raises(UserError, match="no artifact") as caught:
            store.find_by_prefix(nothing)
        assert caught.value.hint


def test_the_newest_of_a_core_is_found(store: Store) -> None:
    core = "12" * 32
    artifacts = []
    for key, base_key in ((KEY, core), (OTHER, core), ("beef" * 16, "cd" * 32)):
        with store.lock(key), store.staging(key) as staging:
            staging.add("install", stream({**INSTALL, "content": File(key.encode())}))
            staging.add("support", stream(SUPPORT, top="support"))
            artifacts.append(staging.commit(dataclasses.replace(manifest(key), base_key=base_key)))
    stash(store, "f00d" * 16)
    assert store.find_by_base_key(core) == artifacts[1]
    date(store, artifacts[1], 1)
    assert store.find_by_base_key(core) == artifacts[0]
    assert store.find_by_base_key(artifacts[0].manifest.source.digest) is None, "it is in the manifest, and no core key"
    os.truncate(artifacts[0].objects["install"], 10)
    found = store.find_by_base_key(core)
    assert found is not None
    assert found.key == OTHER, "the other one is not complete any more"


@pytest.mark.parametrize("key", ["", "../x", ".hidden", "a/b", "a+b"])
def test_what_cannot_be_a_key_is_a_programming_error(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="invalid build key"):
        store.find(key)


def test_export(store: Store, tmp_path: Path) -> None:
    artifact = stash(store)
    target = tmp_path / "new" / "tree"
    store.export(artifact, target)
    assert (target / "bin/python3").read_bytes() == b"\x7fELF" + bytes(range(256)) * 40
    assert manifests.parse((target / "manifest.json").read_bytes()) == artifact.manifest
    assert {path.lstat().st_uid for path in target.rglob("*")} == {os.getuid()}
    assert sorted(path.name for path in target.parent.iterdir()) == ["tree"]
    empty = tmp_path / "empty"
    empty.mkdir()
    store.export(artifact, empty)
    assert (empty / "bin").is_dir()


def test_export_refuses_what_is_in_the_way(store: Store, tmp_path: Path) -> None:
    artifact = stash(store)
    target = tmp_path / "full"
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        store.export(artifact, target)
    with pytest.raises(UserError, match="is not a folder"):
        store.export(artifact, target / "mine")
    with pytest.raises(StashError, match="cannot export"):
        store.export(artifact, target / "mine" / "below")
    assert [path.name for path in target.iterdir()] == ["mine"]


def test_export_gives_no_damaged_tree(store: Store, tmp_path: Path) -> None:
    artifact = stash(store)
    flip(artifact.objects["install"], 200)
    with pytest.raises(StashError, match="damaged"):
        store.export(artifact, tmp_path / "out")
    artifact.objects["install"].unlink()
    with pytest.raises(StashError, match="cannot read"):
        store.export(artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_that_fails_midway_leaves_nothing(store: Store, tmp_path: Path) -> None:
    with store.staging(KEY) as staging:
        staging.add("install", stream({**INSTALL, "out": Symlink("/etc")}))
        artifact = staging.commit(manifest(KEY))
    with pytest.raises(StashError, match="out of the tree"):
        store.export(artifact, tmp_path / "out" / "x")
    assert list((tmp_path / "out").iterdir()) == []


def test_gc_keeps_what_is_not_old(store: Store) -> None:
    keys = [f"{number:064x}" for number in range(4)]
    for age, key in enumerate(keys):
        date(store, stash(store, key), age * 10)
    other = stash(store, "beef" * 16, cell=Cell("3.14", Arch.X86_64, "jit"))
    date(store, other, 100)

    def names(**options: float | None) -> list[str]:
        return list(store.gc(dry_run=True, **options).artifacts)  # type: ignore[arg-type]

    assert names() == []
    assert names(keep_days=15) == [*keys[2:], other.key]
    assert names(keep_last=1) == keys[1:]
    assert names(keep_last=3, keep_days=5) == keys[3:]
    assert names(keep_last=0) == [*keys, other.key]
    assert len(store.artifacts()) == 5
    done = store.gc(keep_last=1)
    assert list(done.artifacts) == keys[1:]
    assert len(done.objects) == 3  # `support` is shared with those that stay
    assert done.size > 0
    assert [artifact.key for artifact in store.artifacts()] == [keys[0], other.key]
    assert store.verify_all() == {keys[0]: [], other.key: []}
    assert leftovers(store) == []


def test_gc_removes_damaged_artifacts_and_spares_newer_ones(store: Store) -> None:
    damaged, newer = stash(store, KEY), stash(store, OTHER)
    flip(damaged.folder / "manifest.json", 0)
    document = json.loads((newer.folder / "manifest.json").read_bytes())
    (newer.folder / "manifest.json").write_text(json.dumps({"schema": 99, "elsewhere": document["trees"]}))
    done = store.gc(keep_last=0)
    assert done.artifacts == (KEY,)
    assert done.objects == (damaged.manifest.trees["install"].object,)
    assert all(path.exists() for path in newer.objects.values())


def test_gc_spares_what_is_locked_or_in_the_making(store: Store) -> None:
    stash(store, KEY)
    with store.lock(KEY):
        assert store.gc(keep_last=0).artifacts == ()
        with store.staging(KEY) as staging:
            staging.add("install", stream())
            assert store.gc(keep_last=0).temporary == ()
            assert store.sweep() == ()
            artifact = staging.commit(manifest(KEY))
    assert store.verify(artifact) == []
    assert store.gc(keep_last=0).artifacts == (KEY,)
    assert leftovers(store) == []


def test_gc_of_no_stash_makes_none(store: Store) -> None:
    assert store.gc(keep_last=0).artifacts == ()
    assert not store.path.exists()


def test_of_two_that_want_a_key_one_builds_and_one_waits(store: Store) -> None:
    held, waiting = os.pipe(), os.pipe()

    def builds() -> None:
        with store.lock(KEY, on_wait=lambda: os._exit(3)):
            os.write(held[1], b"x")
            assert os.read(waiting[0], 1) == b"x"  # the other one has come to the lock
            assert store.find(KEY) is None
            with store.staging(KEY) as staging:
                staging.add("install", stream())
                staging.commit(manifest(KEY))

    waits = []

    def takes() -> None:
        os.read(held[0], 1)
        with store.lock(KEY, on_wait=lambda: waits.append(os.write(waiting[1], b"x"))):
            assert store.find(KEY) is not None
        assert waits == [1]

    if (child := os.fork()) == 0:
        os._exit(in_child(builds))
    assert in_child(takes) == 0
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for end in (*held, *waiting):
        os.close(end)


def test_a_lock_dies_with_its_process(store: Store) -> None:
    def dies() -> None:
        with store.lock(KEY):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(dies) == -signal.SIGKILL
    with store.lock(KEY, on_wait=lambda: pytest.fail("the lock is still held")):
        pass


def test_kill_in_the_middle_of_the_stream(store: Store) -> None:
    data = stream().getvalue()
    for position in (0, 1, 700, len(data) // 2, len(data) - 1):

        class Stops(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = super().read(512)
                if self.tell() >= self.stop:
                    os.kill(os.getpid(), signal.SIGKILL)
                return data

            stop = position

        def dies(kind: type[io.BytesIO] = Stops) -> None:
            with store.lock(KEY), store.staging(KEY) as staging:
                staging.add("install", kind(data))

        assert in_child(dies) == -signal.SIGKILL
        assert store.find(KEY) is None
        assert len(store.sweep()) == 1
        assert leftovers(store) == []
    assert store.verify(stash(store)) == []


@pytest.mark.parametrize("before", ["nothing", "the same", "damaged"])
def test_kill_at_every_step_on_the_disk(memory: Path, before: str) -> None:
    """Die by SIGKILL at the first, second, third… operation on the stash's files, until the work gets through."""
    store = Store(memory / "stash")
    point = 0
    status = -signal.SIGKILL
    while status == -signal.SIGKILL:
        shutil.rmtree(store.path, ignore_errors=True)
        if before != "nothing":
            artifact = stash(store)
            if before == "damaged":
                artifact.objects["install"].unlink()
        point += 1
        left = [point]

        def count(event: str, arguments: tuple[object, ...], left: list[int] = left) -> None:
            if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"):
                paths = [one for one in arguments[:2] if isinstance(one, str | Path)]
                if any(str(path).startswith(str(store.path)) for path in paths):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

        def work(hook: Callable[[str, tuple[object, ...]], None] = count) -> None:
            sys.addaudithook(hook)  # of the child alone
            stash(store)

        status = in_child(work)
        found = store.find(KEY)
        if found is not None:
            assert store.verify(found) == []
        else:
            assert before == "damaged" or not (store.path / "artifacts" / KEY).exists()
        with store.lock(KEY, on_wait=lambda: pytest.fail("the lock is still held")):
            pass
        again = stash(store)  # the next run
        assert store.verify(again) == []
        store.sweep()
        assert leftovers(store) == []
    assert status == 0
    assert point > 20  # it did die at many points


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a small file system in memory, or skip the test where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_nothing_half(tmp_path: Path) -> None:
    refused = 0
    tree = stream({**INSTALL, "noise": File(hashlib.shake_128(b"").digest(40_000))}).getvalue()
    with mounted(tmp_path / "small", "size=512k") as folder:
        store = Store(folder / "stash")
        for room in range(0, 220_000, 8192):
            shutil.rmtree(store.path, ignore_errors=True)
            filler = folder / "filler"
            filler.unlink(missing_ok=True)
            filler.write_bytes(bytes(512 * 1024 - room))
            try:
                with store.lock(KEY), store.staging(KEY) as staging:
                    staging.add("install", io.BytesIO(tree))
                    staging.commit(manifest(KEY))
            except StashError as error:
                refused += 1
                assert "no space left on device" in error.message
                assert "CROSSJIT_HOME" in error.hint
                assert store.find(KEY) is None
                assert leftovers(store) == []
                continue
            artifact = store.find(KEY)
            assert artifact is not None
            assert store.verify(artifact) == []
        assert store.find(KEY) is not None  # with enough room it works
    assert refused >= 10


def test_export_to_a_full_disk_leaves_nothing(store: Store, tmp_path: Path) -> None:
    artifact = stash(store, content=bytes(300_000))
    with mounted(tmp_path / "small", "size=128k") as folder:
        with pytest.raises(StashError, match="no space left"):
            store.export(artifact, folder / "out")
        assert list(folder.iterdir()) == []


def test_a_read_only_stash_can_be_read_and_not_written(tmp_path: Path) -> None:
    with mounted(tmp_path / "fixed", "size=4m") as folder:
        store = Store(folder / "stash")
        artifact = stash(store)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        assert store.find(KEY) == artifact
        assert store.artifacts() == (artifact,)
        assert store.verify(artifact) == []
        store.export(artifact, tmp_path / "out")
        for attempt in (
            lambda: stash(store, OTHER),
            lambda: store.staging(OTHER).__enter__(),
            lambda: store.gc(keep_last=0),
            lambda: Store(folder / "other").lock(KEY).__enter__(),
        ):
            with pytest.raises(StashError, match="read-only file system") as caught:
                attempt()
            assert "CROSSJIT_HOME" in caught.value.hint
        assert store.sweep() == ()


def test_a_stash_without_the_right_to_write(tmp_path: Path) -> None:
    store = Store(tmp_path / "stash")
    stash(store)
    modes = {path: path.stat().st_mode for path in (store.path, *store.path.rglob("*")) if not path.is_symlink()}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)

    def attempts() -> None:
        if os.getuid() == 0:  # root may write anywhere
            for parent in tmp_path.parents:
                if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                    parent.chmod(0o711)
            tmp_path.chmod(0o755)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        assert store.find(KEY) is not None
        with pytest.raises(StashError, match="permission denied"):
            stash(store, OTHER)

    try:
        assert in_child(attempts) == 0
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def test_a_stash_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "stash")
    with pytest.raises(StashError, match="not a directory"):
        stash(store)


def test_errors_that_are_not_the_disks_pass(store: Store) -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise BrokenPipeError(errno.EPIPE, "the engine went away")

    with pytest.raises(BrokenPipeError), store.staging(KEY) as staging:
        staging.add("install", Breaks())
    assert leftovers(store) == []


class TestTakenIntact:
    """What a build takes from the stash has every byte that it had; each object is read once for that."""

    @pytest.fixture
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The objects that are read whole; what was written just now counts as not recent."""
        read: list[str] = []
        digest_of = hashlib.file_digest

        def counted(file: io.BufferedReader, kind: str) -> object:
            name = Path(file.name).name
            read.extend([name] if name.endswith(".zst") else [])
            return digest_of(file, kind)

        monkeypatch.setattr(hashlib, "file_digest", counted)
        monkeypatch.setattr(verified, "_RECENT", 0)
        return read

    def test_a_byte_of_the_same_size(self, store: Store) -> None:
        artifact = stash(store)
        assert store.find_intact(KEY) == artifact
        flip(artifact.objects["support"], 60)
        assert store.find(KEY) == artifact, "it is all there"
        assert store.find_intact(KEY) is None
        assert "damaged" in said(store)[-1]
        assert f"`./inv stash verify {artifact.id}`" in said(store)[-1]
        again = stash(store)
        assert store.find_intact(KEY) == again
        assert store.verify(again) == []

    @pytest.mark.parametrize("name", ["manifest.json", "files.json", "SHA256SUMS"])
    def test_what_describes_it(self, store: Store, name: str) -> None:
        artifact = stash(store)
        path = artifact.folder / name
        path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
        assert store.find_intact(KEY) is None

    def test_an_object_is_read_once(self, store: Store, reads: list[str]) -> None:
        artifact = stash(store)
        reads.clear()
        for _ in range(3):
            assert store.find_intact(KEY) is not None
        assert sorted(reads) == sorted(path.name for path in artifact.objects.values())

    def test_an_object_is_read_again_when_it_changed(self, store: Store, reads: list[str]) -> None:
        artifact = stash(store)
        assert store.find_intact(KEY) is not None
        reads.clear()
        path = artifact.objects["install"]
        about = path.stat()
        flip(path, 200)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # as if nothing had happened
        assert store.find_intact(KEY) is None
        assert reads == [path.name]

    def test_what_was_written_just_now_is_not_remembered(self, store: Store) -> None:
        stash(store)
        assert store.find_intact(KEY) is not None
        assert not (store.path / "verified").exists()

    def test_gc_forgets_what_it_removes(self, store: Store, reads: list[str]) -> None:
        stash(store)
        assert store.find_intact(KEY) is not None
        assert len(list((store.path / "verified").iterdir())) == 2
        store.gc(keep_last=0)
        assert not list((store.path / "verified").iterdir())


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS"])
def test_export_gives_no_changed_manifest(store: Store, tmp_path: Path, name: str) -> None:
    artifact = stash(store)
    path = artifact.folder / name
    path.write_bytes(path.read_bytes().replace(b"3.15", b"3.14").replace(b"a", b"b"))
    with pytest.raises(StashError, match="damaged"):
        store.export(store.find(KEY) or artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class TestAClockThatWasWrongForADay:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[timedelta]:
        """How far the clock is off."""
        off = [timedelta()]

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) + off[0]

        monkeypatch.setattr("crossjit.stash.store.datetime", Clock)
        return off

    def test_makes_no_old_artifact_the_newest(self, store: Store, clock: list[timedelta]) -> None:
        clock[0] = timedelta(days=1)
        old = stash(store, KEY)
        clock[0] = timedelta()
        new = stash(store, OTHER)
        assert old.manifest.created > new.manifest.created
        assert [artifact.key for artifact in store.artifacts()] == [OTHER, KEY]
        assert store.find_by_prefix(str(new.manifest.cell)).key == OTHER
        assert store.gc(keep_last=1).artifacts == (KEY,)

    def test_a_lost_counter_goes_on_from_what_is_there(self, store: Store, clock: list[timedelta]) -> None:
        clock[0] = timedelta(days=1)
        stash(store, KEY)
        clock[0] = timedelta()
        (store.path / "sequence").write_text("")
        stash(store, OTHER)
        assert [artifact.key for artifact in store.artifacts()] == [OTHER, KEY]

    def test_those_of_before_there_were_numbers_are_older(self, store: Store) -> None:
        date(store, stash(store, KEY), -1)
        path = store.path / "artifacts" / KEY / "manifest.json"
        path.write_bytes(re.sub(rb'"sequence": -?\d+', b'"sequence": 0', path.read_bytes()))
        stash(store, OTHER)
        assert [artifact.key for artifact in store.artifacts()] == [OTHER, KEY]


def test_numbers_grow_whoever_asks(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda _: sequence.next_number(tmp_path / "n", lambda: 41), range(40)))
    assert sorted(numbers) == list(range(42, 82))
