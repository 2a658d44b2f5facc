"""The file of a capsule: a `.tar.zst` with `capsule.json`, and the members that this describes with their digests.

A capsule comes from anybody. Nothing of it is used before its digest was compared, and nothing is written but the
members that the description may name, each within its announced size, into a folder that is removed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import secrets
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from crossjit.capsule.document import HINT, INSTALL, SUPPORT, CapsuleDocument, Member, MemberName, dump, parse
from crossjit.errors import InfrastructureError, StashError, TreeError, UserError
from crossjit.stash import packing, tree
from crossjit.util import files, tar, tar_zst
from crossjit.util.budget import BUDGET, Budget, TreeCount

DESCRIPTION = "capsule.json"
LARGEST_DESCRIPTION = 8 << 20
MEMBERS = 16  # of a file that is no capsule, before that is noticed
# the description first, so that the rest is known before it is read
_BUDGET = replace(BUDGET, tree=BUDGET.archive + LARGEST_DESCRIPTION, members=MEMBERS)
_LEVEL = 3  # the large members are compressed already
_BELOW = "usr/local/"  # where builds install
FOLDER = "capsules"  # in the state folder, with the unpacked ones that are in use


@dataclass(frozen=True)
class Capsule:
    """An unpacked capsule whose members are as described."""

    document: CapsuleDocument
    folder: Path

    def member(self, name: str) -> Path:
        """Return the path of a member."""
        return self.folder / name


def write(path: Path, document: CapsuleDocument, members: Mapping[MemberName, Path | bytes]) -> CapsuleDocument:
    """Write a capsule; `document` gets the members' sizes and digests. Appears atomically, or not at all.

    Raises InfrastructureError.
    """
    described = {name: _describe(member) for name, member in members.items()}
    document = replace(document, members=described)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with files.translate_os_errors(InfrastructureError, "cannot write the capsule", path.parent):
        try:
            with (
                temporary.open("xb") as file,
                tar_zst.compressed(file, level=_LEVEL, workers=0) as stream,
                tar_zst.tar_writer(stream) as archive,
            ):
                _add(archive, DESCRIPTION, dump(document))
                for name, member in members.items():
                    _add(archive, name, member)
            with temporary.open("rb") as written:
                files.sync_file(written)
            temporary.replace(path)
            files.sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return document


@contextlib.contextmanager
def opened(path: Path, home: Path, budget: Budget = _BUDGET) -> Iterator[Capsule]:
    """Unpack a capsule for the block. Raises UserError for anything that is not a whole, unchanged capsule."""
    parent = home / FOLDER
    with files.translate_os_errors(InfrastructureError, "cannot unpack the capsule", parent):
        files.remove_dead(parent)
    with contextlib.ExitStack() as stack:
        with files.translate_os_errors(InfrastructureError, "cannot unpack the capsule", parent):
            folder = stack.enter_context(files.locked_dir(parent, secrets.token_hex(8)))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                document = _unpack(path, folder, TreeCount(str(path), budget=budget, error=UserError, hint=HINT))
                for name in document.members.keys() & {INSTALL, SUPPORT}:
                    _check_tree(folder / name)
            except (*tar_zst.DAMAGED, ValueError, OverflowError) as error:
                raise UserError(f"{path} is damaged, or not a capsule: {error}", hint=HINT) from error
        yield Capsule(document, folder)


def _unpack(path: Path, folder: Path, count: TreeCount) -> CapsuleDocument:
    """Write all members into the folder."""
    document: CapsuleDocument | None = None
    missing: dict[str, Member] = {}
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", hint="give the file of a capsule") from error
    with file, tar_zst.decompressed(file) as stream:
        for entry, content in tar.read(stream, count):
            if content is None:
                raise UserError(f"{path} has a member that is not a file: {entry.name!r}", hint=HINT)
            if document is None:
                if entry.name != DESCRIPTION or entry.size > LARGEST_DESCRIPTION:
                    raise UserError(f"{path} is not a capsule: it does not begin with {DESCRIPTION}", hint=HINT)
                document = parse(content.read())
                missing = dict(document.members.items())
                continue
            member = missing.pop(entry.name, None)
            if member is None:
                raise UserError(f"{path} has a member that it does not describe: {entry.name!r}", hint=HINT)
            if entry.size != member.size or _copy(content, folder / entry.name) != member.sha256:
                raise UserError(f"{entry.name} in {path} is not as described: it was changed", hint=HINT)
    if document is None or missing:
        raise UserError(f"{path} is not whole: {', '.join(missing) or 'it is empty'}", hint=HINT)
    return document


def _copy(content: BinaryIO, path: Path) -> str:
    """Write a member, and return its digest."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        while chunk := content.read(tar_zst.CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _check_tree(path: Path) -> None:
    """Read a tree to its end. Raises UserError for one that no build of ours installs."""
    try:
        with packing.unpack_stream(path) as stream:
            for member, _ in tar.read(stream, TreeCount(path.name, error=UserError, hint=HINT)):
                name = tree.clean(member.name)
                if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
                    raise UserError(f"{name} in {path.name} is neither file, folder nor link", hint=HINT)
                inside = f"{name}/".startswith(_BELOW) or _BELOW.startswith(f"{name}/")
                if path.name == INSTALL and not inside:
                    raise UserError(f"{INSTALL} of the capsule has {name}, outside of {_BELOW}", hint=HINT)
    except (TreeError, StashError, tarfile.TarError) as error:
        raise UserError(f"{path.name} of the capsule is not a tree of a build: {error}", hint=HINT) from error


def _describe(member: Path | bytes) -> Member:
    if isinstance(member, bytes):
        return Member(size=len(member), sha256=hashlib.sha256(member).hexdigest())
    with member.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Member(size=member.stat().st_size, sha256=digest)


def _add(archive: tarfile.TarFile, name: str, member: Path | bytes) -> None:
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    with io.BytesIO(member) if isinstance(member, bytes) else member.open("rb") as content:
        info.size = content.seek(0, 2)
        content.seek(0)
        archive.addfile(info, content)
