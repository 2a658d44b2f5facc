"""The cache's folder: entries of configure's results and of stencils, and the limits of all its parts.

CROSSJIT_CACHE is the folder, unset without a cache; CROSSJIT_CACHE_BELOW a second one, which is only read. Entries are
written atomically, and begin with a digest. Invalid files and folders are reported and count as misses.
"""

import contextlib
import hashlib
import io
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time

# Bytes of each part; anything else in the cache's folder is removed. A part has files, and two-digit folders of files.
LIMITS = {"configure": 64 << 20, "stencils": 256 << 20, "llvm": 1 << 30, "pyc": 512 << 20, "ccache": 3 << 30}
if os.environ.get("CROSSJIT_CACHE_SMALL"):  # a stranger's source
    LIMITS = {"configure": 8 << 20, "stencils": 16 << 20, "llvm": 64 << 20, "pyc": 64 << 20, "ccache": 104 << 20}
BLOCK = 4096  # bytes; the minimum size of a file on disk
MOST = 400_000  # files of a part; a part with more is removed
TEMPORARY = ".unpacked-"

CACHE = os.environ.get("CROSSJIT_CACHE")
BELOW = os.environ.get("CROSSJIT_CACHE_BELOW")
LOG = pathlib.Path(os.environ.get("CROSSJIT_CACHE_LOG", os.devnull))


@contextlib.contextmanager
def harmless(what):
    """Print an error of the block, and continue after it."""
    try:
        yield
    except Exception as error:
        print(f"cache: {what}: {error!r}", file=sys.stderr)


def seal(key, content):
    """Return an entry's first line: a digest of its key and content, which reveals damage and wrong keys."""
    return hashlib.sha256(f"{key}\n".encode() + content).hexdigest().encode() + b"\n"


def restore(part, key, fresh=False):
    """Unpack a key's entry, with `fresh` as if it had just been made; return whether there is one."""
    for cache in filter(None, (CACHE, BELOW)):
        entry = pathlib.Path(cache, part, f"{key}.tar")
        with harmless(entry), contextlib.suppress(FileNotFoundError):
            unpack(read(entry, key, LIMITS[part]), fresh)
            log(part, "hit")
            if cache == CACHE:
                with contextlib.suppress(OSError):
                    os.utime(entry)  # the least recently used entries are removed first
            return True
    return False


def read(entry, key, limit):
    """Return an entry's content. Raises OSError, and ValueError if it is not an entry of this key."""
    with open(os.open(entry, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise ValueError("invalid entry: expected a file of no more than the part's limit")
        sealed = file.read(limit)
    content = sealed.partition(b"\n")[2]
    if sealed != seal(key, content) + content:
        raise ValueError("invalid entry: its digest is another")
    return content


def unpack(content, fresh):
    """Unpack an entry into the current folder; nothing if it is damaged."""
    now = time.time()
    here = pathlib.Path(tempfile.mkdtemp(prefix=TEMPORARY, dir="."))
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                if fresh:
                    member.mtime = now
                tar.extract(member, here, filter="tar")
        for name in os.listdir(here):
            (here / name).rename(name)
    finally:
        shutil.rmtree(here, ignore_errors=True)


def keep(part, key, names):
    """Store files and folders of the current folder under a key."""
    log(part, "miss")
    if not CACHE:
        return
    entry = pathlib.Path(CACHE, part, f"{key}.tar")
    with harmless(entry):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name in names:
                tar.add(name)
        entry.parent.mkdir(parents=True, exist_ok=True)
        new = entry.with_name(f"{key}.{os.urandom(4).hex()}")  # process ids are not unique across containers
        try:
            with new.open("wb") as file:
                file.write(seal(key, packed.getvalue()) + packed.getvalue())
                file.flush()
                os.fsync(file.fileno())
            new.replace(entry)
        finally:
            new.unlink(missing_ok=True)


def log(part, outcome):
    """Log a hit or a miss, in the format of llvm_cache.c."""
    if CACHE:
        with harmless(LOG), LOG.open("a") as file:
            file.write(f"{part} {outcome}\n")


def trim():
    """Trim the cache to its limits; return the remaining bytes and files of each part.

    Unknown files are removed, then the least recently used entries. A part that cannot be trimmed is removed whole.
    """
    if not CACHE or os.path.islink(CACHE):  # never follow a link
        return {}
    sizes = {}
    with harmless(CACHE):
        for entry in os.scandir(CACHE):
            try:
                if entry.name not in LIMITS or not entry.is_dir(follow_symlinks=False):
                    raise ValueError("unknown")
                sizes[entry.name] = trimmed(entry.path, LIMITS[entry.name])
            except (OSError, ValueError) as error:
                print(f"cache: {entry.path}: {error}: it is removed", file=sys.stderr)
                remove(entry.path)
    return sizes


def trimmed(folder, limit):
    """Trim one part; return its remaining bytes and files. Raises OSError, and ValueError if it has too many files."""
    files = []
    for entry in files_in(folder):
        with contextlib.suppress(FileNotFoundError):  # another build may trim at the same time
            status = entry.stat(follow_symlinks=False)
            files.append((status.st_mtime, max(status.st_size, status.st_blocks * 512, BLOCK), entry.path))
        if len(files) > MOST:
            raise ValueError(f"more than {MOST} files")
    files.sort(reverse=True)
    total = sum(size for _, size, _ in files)
    while total > limit:
        _, size, path = files.pop()
        pathlib.Path(path).unlink(missing_ok=True)
        total -= size
    return total, len(files)


def files_in(folder, deeper=True):
    """Yield a part's files, and remove anything else in it."""
    for entry in os.scandir(folder):
        if entry.is_file(follow_symlinks=False):
            yield entry
        elif deeper and entry.is_dir(follow_symlinks=False) and re.fullmatch("[0-9a-f]{2}", entry.name):
            yield from files_in(entry.path, deeper=False)
        else:
            remove(entry.path)


def remove(path):
    """Remove a file, a link or a folder; coreutils' programs handle any depth.

    Links are never followed: chmod follows a link that it is given, so it is not called for a link that remains.
    """
    try:
        os.unlink(path)
    except OSError:
        if os.path.islink(path):
            return
        for command in (("chmod", "-R", "u+rwX"), ("rm", "-rf")):
            subprocess.run([*command, "--", path], check=False, stderr=subprocess.DEVNULL)
