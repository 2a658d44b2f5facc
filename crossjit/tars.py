"""Small tars for containers, made in memory."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import BinaryIO


def packed(
    files: Mapping[str, bytes] | None = None,
    folders: Mapping[str, int] | None = None,
    *,
    links: Mapping[str, str] | None = None,
    owner: int = 0,
    mode: int = 0o644,
) -> BinaryIO:
    """Make a tar of files (contents by absolute path) and, before them, of empty folders (uids by path, mode 0o755).

    After them come symbolic links (where they lead, by absolute path). `owner` is the files' and the links', `mode` the
    files'; a group has its owner's number.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, uid in (folders or {}).items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            member.uid = member.gid = uid
            tar.addfile(member)
        for path, content in (files or {}).items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode = len(content), mode
            member.uid = member.gid = owner
            tar.addfile(member, io.BytesIO(content))
        for path, target in (links or {}).items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.type, member.linkname = tarfile.SYMTYPE, target
            member.uid = member.gid = owner
            tar.addfile(member)
    stream.seek(0)
    return stream
