"""The file system of a fake container: folders, files and links in memory, packed and unpacked as tar streams."""

from __future__ import annotations

import errno
import hashlib
import io
import posixpath
import tarfile
from dataclasses import dataclass, field, replace
from typing import BinaryIO

FOLDER, FILE, LINK = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE


@dataclass(frozen=True)
class Entry:
    """A file, folder or symbolic link (`kind` is tarfile's type) with its permission bits and owner."""

    kind: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    data: bytes = b""
    target: str = ""
    mtime: float = 0.0


@dataclass
class FakeFiles:
    """Entries by absolute path. Reading and writing follow links; owners are kept, permissions not enforced."""

    entries: dict[str, Entry] = field(default_factory=lambda: {"/": Entry(FOLDER, 0o755)})
    read_only: bool = False
    writable_anyway: tuple[str, ...] = ()
    unwritable: tuple[str, ...] = ()

    @classmethod
    def base(cls) -> FakeFiles:
        """Return the folders that any image has."""
        files = cls()
        for folder in ("/bin", "/etc", "/home", "/opt", "/root", "/usr/bin", "/var"):
            files.make_folder(folder)
        files.make_folder("/tmp", mode=0o1777)
        return files

    def copy(self) -> FakeFiles:
        """Return the same files, to be changed apart."""
        return FakeFiles(dict(self.entries))

    def digest(self) -> str:
        """Return a digest of everything."""
        said = repr(sorted(self.entries.items()))
        return hashlib.sha256(said.encode()).hexdigest()

    def resolve(self, path: str, depth: int = 0) -> str:
        """Follow the symbolic links in a path."""
        done = "/"
        if depth > 40:
            raise OSError(errno.ELOOP, "too many levels of symbolic links", path)
        for part in posixpath.normpath(path).split("/"):
            done = posixpath.normpath(posixpath.join(done, part))
            entry = self.entries.get(done)
            if entry is not None and entry.kind == LINK:
                done = self.resolve(posixpath.join(posixpath.dirname(done), entry.target), depth + 1)
        return done

    def exists(self, path: str) -> bool:
        """Tell whether there is something, a link that leads nowhere included."""
        path = posixpath.normpath(path)
        return posixpath.join(self.resolve(posixpath.dirname(path)), posixpath.basename(path)) in self.entries

    def stat(self, path: str) -> Entry:
        """Return what is there. Raises FileNotFoundError."""
        found = self.entries.get(self.resolve(path))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return found

    def is_folder(self, path: str) -> bool:
        """Tell whether there is a folder."""
        found = self.entries.get(self.resolve(path))
        return found is not None and found.kind == FOLDER

    def read(self, path: str) -> bytes:
        """Return a file's content. Raises FileNotFoundError or IsADirectoryError."""
        found = self.stat(path)
        if found.kind == FOLDER:
            raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
        return found.data

    def write(self, path: str, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Write a file, with the folders above it."""
        self.add(path, Entry(FILE, mode, uid, gid, data))

    def make_folder(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Make a folder, with those above it; one that is there stays as it is."""
        if not self.is_folder(path):
            self.add(path, Entry(FOLDER, mode, uid, gid))

    def add(self, path: str, entry: Entry) -> None:
        """Put an entry in its place. Raises OSError in a read-only file system or below a file."""
        path = posixpath.normpath(path)
        parent = self.resolve(posixpath.dirname(path))
        place = posixpath.normpath(posixpath.join(parent, posixpath.basename(path)))
        if entry.kind == FILE:
            place = self.resolve(place)
        refused = self.read_only and not any(place.startswith(f"{folder}/") for folder in self.writable_anyway)
        if refused or any(place.startswith(f"{folder}/") for folder in self.unwritable):
            raise OSError(errno.EROFS, "Read-only file system", path)
        if parent not in self.entries:
            self.make_folder(parent)
        if self.entries[parent].kind != FOLDER:
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", parent)
        self.entries[place] = entry

    def below(self, path: str) -> list[str]:
        """Return the paths of all that is in a folder, at any depth, in order."""
        folder = self.resolve(path).rstrip("/") + "/"
        return sorted(name for name in self.entries if name.startswith(folder) and name != "/")

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it. Raises FileNotFoundError."""
        path = posixpath.join(self.resolve(posixpath.dirname(path)), posixpath.basename(path))
        if path not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        if self.entries[path].kind == FOLDER:
            for name in self.below(path):
                del self.entries[name]
        del self.entries[path]

    def move(self, source: str, destination: str) -> None:
        """Rename a file or folder, into the destination if that is a folder. Raises FileNotFoundError."""
        source = self.resolve(source)
        self.stat(source)
        if self.is_folder(destination):
            destination = posixpath.join(destination, posixpath.basename(source))
        moved = {name: self.entries[name] for name in [source, *self.below(source)]}
        self.remove(source)
        for name, entry in moved.items():
            self.add(destination + name[len(source) :], entry)

    def unpack(self, stream: BinaryIO, destination: str) -> None:
        """Unpack a tar stream into a folder. Raises tarfile.TarError."""
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                path = posixpath.normpath(posixpath.join(destination, member.name.lstrip("/")))
                entry = Entry(member.type, member.mode, member.uid, member.gid, mtime=member.mtime)
                if member.isfile():
                    content = tar.extractfile(member)
                    assert content is not None
                    entry = replace(entry, kind=FILE, data=content.read())
                elif member.issym():
                    entry = replace(entry, target=member.linkname)
                elif member.islnk():
                    entry = self.stat(posixpath.join(destination, member.linkname))
                elif not member.isdir():
                    continue  # devices and pipes mean nothing here
                if path != posixpath.normpath(destination):
                    self.add(path, entry)

    def pack(self, path: str) -> bytes:
        """Pack a file or folder into a tar stream; members are named from the path's last component on."""
        path = posixpath.normpath(path)
        root = posixpath.join(self.resolve(posixpath.dirname(path)), posixpath.basename(path))
        names = [root, *self.below(root)] if self.entries[root].kind == FOLDER else [root]
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in names:
                entry = self.entries[name]
                member = tarfile.TarInfo(posixpath.basename(path) + name[len(root) :])
                member.type, member.mode, member.uid, member.gid = entry.kind, entry.mode, entry.uid, entry.gid
                member.size, member.linkname, member.mtime = len(entry.data), entry.target, entry.mtime
                tar.addfile(member, io.BytesIO(entry.data))
        return packed.getvalue()
