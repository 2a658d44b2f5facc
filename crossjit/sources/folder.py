"""Read the files of one folder of a source that no build reads, such as its workflows."""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path

from crossjit.config.recipes import Git
from crossjit.errors import SourceError
from crossjit.progress import Progress
from crossjit.settings import Settings
from crossjit.sources import archive, cache, repository, request
from crossjit.sources.located import locate, window
from crossjit.sources.locations import TIMEOUTS, redacted
from crossjit.sources.tarball import DAMAGED, components, decompressed
from crossjit.util import tar
from crossjit.util.budget import TreeCount

MOST_FILES = 500
LARGEST = 1 << 20  # bytes of a file


def read(spec: Git | str, settings: Settings, folder: str, *, progress: Progress) -> Mapping[str, bytes]:
    """Return the regular files right below a folder, by name; none if there is no such folder.

    Of a checkout the files of the working tree are read, of a repository those of the commit. Raises SourceError,
    DownloadError.
    """
    wanted = request.repository(spec.url, spec.ref) if isinstance(spec, Git) else request.parse(spec)
    match wanted:
        case request.Checkout(path):
            return _of_checkout(path / folder)
        case request.LocalRepository(path, ref):
            found = locate(path)
            return _of_commit(found.objects, repository.commit_of(found, ref), folder, settings)
        case request.RemoteRepository(url, ref):
            with progress.step("source", f"{redacted(url)}#{ref}") as step:
                objects, commit = repository.fetch(wanted, settings, step)
            return _of_commit(objects, commit, folder, settings)
        case request.ArchiveFile(path):
            return _of_archive(path, folder)
        case request.ArchiveUrl(url):
            work = settings.sources / "tmp"
            source = archive.resolve_url(url, settings, progress=progress, work=work, timeouts=TIMEOUTS)
            return _of_archive(source.archive, folder)


def _of_checkout(folder: Path) -> dict[str, bytes]:
    """Read the files of a folder on disk; links are not followed."""
    files: dict[str, bytes] = {}
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    for path in paths[:MOST_FILES]:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    files[path.name] = _checked(path.name, file.read(LARGEST + 1))
    return files


def _of_commit(objects: Path, commit: str, folder: str, settings: Settings) -> dict[str, bytes]:
    with cache.workspace(settings.sources / "tmp") as work:
        view = window(objects, commit, work)
        listed = view.ask("ls-tree", "-l", "-z", commit, f"{folder}/")
        files: dict[str, bytes] = {}
        for line in listed.output.split(b"\0")[:MOST_FILES]:
            about, _, path = line.decode("utf-8", "surrogateescape").partition("\t")
            mode, _, digest, size = (*about.split(), "", "", "", "")[:4]
            if not mode.startswith("100"):
                continue
            name = path.rpartition("/")[2]
            if int(size) > LARGEST:
                raise _too_large(name)
            answer = view.ask("cat-file", "blob", digest)
            if not answer.ok:
                raise SourceError(
                    f"{path} of {commit[:12]} is not in the repository",
                    hint="a partial clone lacks it: fetch it, or give the URL that it was cloned from",
                    details=answer.errors,
                )
            files[name] = answer.output
    return files


def _of_archive(path: Path, folder: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with decompressed(path) as stream:
            for member, content in tar.contents(tar.TrackingReader(stream, TreeCount(path.name))):
                _, *inner = components(member.name)
                if content is not None and "/".join(inner[:-1]) == folder and len(files) < MOST_FILES:
                    files[inner[-1]] = _checked(inner[-1], content.read(LARGEST + 1))
    except (*DAMAGED, tar.NotTarError, tarfile.TarError) as error:
        raise SourceError(f"{path} cannot be read: {error}", hint="get the archive again") from error
    return files


def _checked(name: str, content: bytes) -> bytes:
    if len(content) > LARGEST:
        raise _too_large(name)
    return content


def _too_large(name: str) -> SourceError:
    return SourceError(f"{name} is larger than {LARGEST >> 20} MiB", hint="give CPython's source")
