"""Importing run records, which may come from anybody."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit.errors import UserError
from crossjit.runs import history
from crossjit.runs.model import Run
from crossjit.runs.transfer import import_runs
from crossjit.settings import Settings
from crossjit.util import budget
from tests import example_runs

PLAIN = "20260101-120000-abcd"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Run:
    """A run in another machine's state folder."""
    return example_runs.record(Settings(home=tmp_path / "elsewhere"), example_runs.results())


def zipped(folder: Path, target: Path) -> Path:
    shutil.make_archive(str(target.with_suffix("")), "zip", folder)
    return target


@pytest.mark.parametrize("form", ["state folder", "runs", "run", "zip"])
def test_a_record_is_copied(settings: Settings, elsewhere: Run, tmp_path: Path, form: str) -> None:
    runs = elsewhere.folder.parent
    path = {
        "state folder": runs.parent,
        "runs": runs,
        "run": elsewhere.folder,
        "zip": zipped(runs, tmp_path / "runs.zip"),
    }[form]
    (imported,) = import_runs(settings, path)
    assert imported.is_new
    run = history.load(settings)
    assert run.results() == elsewhere.results()
    assert (run.id, run.state, run.argv) == (elsewhere.id, elsewhere.state, elsewhere.argv)
    (again,) = import_runs(settings, path)
    assert not again.is_new and again.run.id == run.id


def test_the_imported_run_is_the_newest(settings: Settings, elsewhere: Run) -> None:
    own = example_runs.record(settings, example_runs.results())
    assert history.load(settings).id == own.id
    import_runs(settings, elsewhere.folder)
    assert history.load(settings).id == elsewhere.id


def test_a_run_whose_machine_died_is_aborted(settings: Settings, elsewhere: Run) -> None:
    file = elsewhere.folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"state": "running"}))
    import_runs(settings, elsewhere.folder)
    assert history.load(settings).state.value == "aborted"


def test_a_different_run_of_that_id_is_not_replaced(settings: Settings, elsewhere: Run) -> None:
    import_runs(settings, elsewhere.folder)
    file = elsewhere.folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"exit_code": 77}))
    with pytest.raises(UserError, match="there is a different run"):
        import_runs(settings, elsewhere.folder)
    assert history.load(settings).exit_code != 77


def link(folder: Path) -> None:
    (folder / "cells" / "link").symlink_to("/etc/passwd")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "cells" / "pipe")


def odd(folder: Path) -> None:
    (folder / "cells" / "a b").write_text("x")


@pytest.mark.parametrize("spoil", [link, pipe, odd])
def test_only_plain_files_are_taken(settings: Settings, elsewhere: Run, spoil: Callable[[Path], None]) -> None:
    spoil(elsewhere.folder)
    with pytest.raises(UserError, match="is not a plain file"):
        import_runs(settings, elsewhere.folder)
    assert history.list_runs(settings) == ()


def archive(path: Path, members: dict[str, bytes], modes: dict[str, int] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, 0o100644) << 16
            file.writestr(info, content)
    return path


def test_hostile_zip_files(settings: Settings, elsewhere: Run, tmp_path: Path) -> None:
    record = (elsewhere.folder / "run.json").read_bytes()
    own = f"{PLAIN}/run.json"
    path = tmp_path / "hostile.zip"
    for name in (f"{PLAIN}/../../../evil", f"{PLAIN}/cells/../../evil", f"{PLAIN}/a\nb"):
        with pytest.raises(UserError, match="is not a plain file"):
            import_runs(settings, archive(path, {own: record, name: b"x"}))
    with pytest.raises(UserError, match="is not a plain file"):
        import_runs(settings, archive(path, {own: record, f"{PLAIN}/l": b"/etc/passwd"}, {f"{PLAIN}/l": 0o120777}))
    with pytest.raises(UserError, match="twice"):
        import_runs(settings, archive(path, {own: record, f"x/{own}": record}))
    assert history.list_runs(settings) == ()
    assert not (settings.home.parent / "evil").exists()


def test_a_record_that_is_too_large(settings: Settings, elsewhere: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "BUDGET", replace(budget.BUDGET, tree=1000))
    with pytest.raises(UserError, match="has more than 1,000 bytes"):
        import_runs(settings, elsewhere.folder)
    assert history.list_runs(settings) == ()


def test_what_is_not_a_record(settings: Settings, elsewhere: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"there is no {tmp_path / 'nothing'}"):
        import_runs(settings, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no run record in"):
        import_runs(settings, tmp_path / "empty")
    whole = zipped(elsewhere.folder.parent, tmp_path / "runs.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is not a complete zip file"):
        import_runs(settings, tmp_path / "cut.zip")
    (elsewhere.folder / "run.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        import_runs(settings, elsewhere.folder)
    assert history.list_runs(settings) == ()


def test_a_damaged_member_leaves_nothing(settings: Settings, elsewhere: Run, tmp_path: Path) -> None:
    record = (elsewhere.folder / "run.json").read_bytes()
    path = archive(tmp_path / "x.zip", {f"{PLAIN}/run.json": record, f"{PLAIN}/events.jsonl": b"needle" * 50})
    path.write_bytes(path.read_bytes().replace(b"needle", b"NEEDLE", 1))
    with pytest.raises(UserError, match="damaged"):
        import_runs(settings, path)
    assert history.list_runs(settings) == ()
    assert not (settings.runs / PLAIN).exists()


DEEP = b"[" * 200_000


def test_zip_files_that_python_does_not_read(settings: Settings, elsewhere: Run, tmp_path: Path) -> None:
    """Of a compression that it does not know, with a name that is no text, with JSON that is too deep."""
    record = (elsewhere.folder / "run.json").read_bytes()
    path = archive(tmp_path / "x.zip", {f"{PLAIN}/run.json": record, f"{PLAIN}/\u00e9": b"x"})
    content = path.read_bytes()
    path.write_bytes(content.replace("\u00e9".encode(), b"\xff\xfe"))
    with pytest.raises(UserError, match="is not a complete zip file"):
        import_runs(settings, path)
    for number, name in enumerate(("run.json", "x.log")):
        path = archive(tmp_path / "x.zip", {f"{PLAIN}/run.json": record, f"{PLAIN}/x.log": b"x"})
        with zipfile.ZipFile(path) as file:
            changed = bytearray(path.read_bytes())
            entry = [place.start() for place in re.finditer(rb"PK\x01\x02", changed)][number]
            changed[entry + 10] = changed[file.infolist()[number].header_offset + 8] = 99
        path.write_bytes(changed)
        with pytest.raises(UserError, match="is damaged"):
            import_runs(settings, path)
        assert not (settings.runs / PLAIN).exists(), name
    with pytest.raises(UserError, match="is damaged"):
        import_runs(settings, archive(path, {f"{PLAIN}/run.json": DEEP}))


def test_a_result_that_is_too_deep_is_damaged(settings: Settings, elsewhere: Run) -> None:
    (cell, *_) = elsewhere.cells
    (elsewhere.cell_folder(cell) / "result.json").write_bytes(DEEP)
    import_runs(settings, elsewhere.folder)
    damaged = next(result for result in history.load(settings).results() if result.cell == cell)
    assert damaged.verdict.value == "infra" and "its record is damaged" in damaged.reasons[0]
