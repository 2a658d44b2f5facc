"""Importing run records of other machines: from folders and zip files, which strangers' tests may have written to."""

from __future__ import annotations

import contextlib
import json
import lzma
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from crossjit.errors import UserError
from crossjit.runs import history
from crossjit.runs.model import RUN_FILE, Run, RunState, run_errors, run_type, to_json
from crossjit.settings import Settings
from crossjit.util import files
from crossjit.util.budget import BUDGET, TreeCount

ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
_PART = re.compile(r"[A-Za-z0-9_.+-]+")  # of a path in a record
_HINT = "give a folder or a zip file with runs/ of a state folder, as CI uploads it"
_CHUNK = 1 << 20
# what zipfile raises for archives that are damaged, or of a kind that it does not know
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Member:
    """A file: its path, its size in bytes, how to open it, and whether it is a regular file."""

    path: PurePosixPath
    size: int
    open: Callable[[], contextlib.AbstractContextManager[BinaryIO]]
    is_regular: bool = True


Record = dict[PurePosixPath, Member]
"""The files of a run record, by their paths in it."""


@dataclass(frozen=True)
class Imported:
    """A run that was imported, or that was there before."""

    run: Run
    is_new: bool


def import_runs(settings: Settings, path: Path) -> tuple[Imported, ...]:
    """Copy the run records in a folder or a zip file to the state folder. The imported run is the newest one there.

    A record has only regular files with plain names. Raises UserError for a path without records, for records that are
    damaged, and for one that differs from the record of that id that is here already.
    """
    with _opened(path) as members:
        records = _records(path, members)
        parsed = {name: _parse(path, name, found) for name, found in sorted(records.items())}
        return tuple(_import(settings, run, records[name]) for name, run in parsed.items())


def _records(path: Path, members: Iterable[Member]) -> dict[str, Record]:
    """Return the files of each record by the run's id; other files are left out.

    Raises UserError if there is none, for names that are not plain, and above the limits.
    """
    count = TreeCount(str(path), error=UserError, hint=_HINT)
    records: dict[str, Record] = {}
    for member in members:
        count.add(str(member.path), member.size)
        parts = member.path.parts
        position = next((index for index, part in enumerate(parts[:-1]) if ID.fullmatch(part)), None)
        if position is None:
            continue
        inner, record = PurePosixPath(*parts[position + 1 :]), records.setdefault(parts[position], {})
        if not member.is_regular or not all(_PART.fullmatch(part) and part != ".." for part in inner.parts):
            raise UserError(f"{path} is refused: {str(member.path)!r} is not a plain file", hint=_HINT)
        if inner in record:
            raise UserError(f"{path} is refused: it has {str(inner)!r} of run {parts[position]} twice", hint=_HINT)
        record[inner] = member
    records = {name: record for name, record in records.items() if PurePosixPath(RUN_FILE) in record}
    if not records:
        raise UserError(f"there is no run record in {path}", hint=_HINT)
    return records


def _parse(path: Path, name: str, record: Record) -> Run:
    """Return a record's run. Raises UserError for a damaged one, and for one that has not ended."""
    member = record[PurePosixPath(RUN_FILE)]
    if member.size > BUDGET.report:
        raise UserError(f"run {name} in {path} is refused: its {RUN_FILE} has {member.size:,} bytes", hint=_HINT)
    try:
        with member.open() as stream:
            run = run_type().validate_python(json.loads(stream.read()))
    except (*_DAMAGED, OSError) as error:  # pydantic's and json's errors are ValueErrors, too deep JSON a RuntimeError
        raise UserError(f"the record of run {name} in {path} is damaged", hint="upload or copy it again") from error
    if run.state is RunState.RUNNING:  # its process is on a different machine, or dead
        run = replace(run, state=RunState.ABORTED)
    return replace(run, id=name)


def _import(settings: Settings, run: Run, record: Record) -> Imported:
    folder = settings.runs / run.id
    if (folder / RUN_FILE).exists():
        return Imported(_same(folder, run), is_new=False)
    with run_errors(settings.runs), contextlib.ExitStack() as stack:
        settings.runs.mkdir(parents=True, exist_ok=True)
        stack.enter_context(files.locked_dir(settings.runs, run.id))
        undo = stack.enter_context(contextlib.ExitStack())
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        for path, member in record.items():
            if str(path) not in (RUN_FILE, files.ALIVE):
                _copy(member, folder / path)
        run = replace(run, folder=folder, sequence=history.next_number(settings))
        files.replace(folder / RUN_FILE, to_json(run_type().dump_python(run, mode="json", exclude={"folder"})))
        undo.pop_all()
    return Imported(run, is_new=True)


def _same(folder: Path, run: Run) -> Run:
    """Return the run that is here already. Raises UserError if it is a different one."""
    existing = run_type().validate_python(json.loads((folder / RUN_FILE).read_bytes()))
    if replace(existing, sequence=0, folder=Path()) != replace(run, sequence=0, folder=Path()):
        raise UserError(f"there is a different run {run.id} already", hint=f"move it away: {folder}")
    return replace(existing, folder=folder)


def _copy(member: Member, target: Path) -> None:
    """Copy a file. Raises UserError if it is damaged, or longer than it says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    try:
        with member.open() as stream, target.open("xb") as file:
            while chunk := stream.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise zipfile.BadZipFile("more bytes than it says")
                file.write(chunk)
    except _DAMAGED as error:
        raise UserError(f"{member.path} is damaged: {error}", hint="upload or copy it again") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Iterable[Member]]:
    """Open a folder or a zip file, and list its files."""
    try:
        if path.is_dir():
            yield _of_folder(path)
        else:
            with _archive(path) as archive:
                yield _of_zip(archive)
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}", hint=_HINT) from error


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise UserError(f"{path} is not a complete zip file: {error}", hint=_HINT) from error


def _of_folder(folder: Path) -> Iterator[Member]:
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            inner = PurePosixPath(folder.resolve().name, path.relative_to(folder))
            opener = cast("Callable[[], BinaryIO]", partial(path.open, "rb"))
            yield Member(inner, status.st_size, opener, is_regular=stat.S_ISREG(status.st_mode))


def _of_zip(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        if not info.is_dir():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if it was made on a system without such modes
            is_regular = kind in (0, stat.S_IFREG) and not info.flag_bits & 1  # the bit is for encryption
            opener = cast("Callable[[], BinaryIO]", partial(archive.open, info))
            yield Member(PurePosixPath(info.filename), info.file_size, opener, is_regular=is_regular)
