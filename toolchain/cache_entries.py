"""The cache's folder: entries of configure's answers and of stencils, and what bounds all that is in it.

CROSSJIT_CACHE is the folder, unset if there is none; CROSSJIT_CACHE_BELOW another one, which is only read. An entry is
written under another name first and sealed with a digest. Whatever is odd about a folder is printed, and is a miss.
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

# Bytes; what else is found in the cache's folder is removed. A part has files, and folders of two digits with files.
LIMITS = {"configure": 64 << 20, "stencils": 256 << 20, "llvm": 1 << 30, "pyc": 512 << 20, "ccache": 3 << 30}
if os.environ.get("CROSSJIT_CACHE_SMALL"):  # a source's that nobody here chose
    LIMITS = {"configure": 8 << 20, "stencils": 16 << 20, "llvm": 64 << 20, "pyc": 64 << 20, "ccache": 104 << 20}
BLOCK = 4096  # bytes that a file takes at least
MOST = 400_000  # files of a part; with more, none is worth to be kept
TEMPORARY = ".unpacked-"

CACHE = os.environ.get("CROSSJIT_CACHE")
BELOW = os.environ.get("CROSSJIT_CACHE_BELOW")
LOG = pathlib.Path(os.environ.get("CROSSJIT_CACHE_LOG", os.devnull))


@contextlib.contextmanager
def harmless(what):
    """Print what goes wrong in the block, and go on behind it."""
    try:
        yield
    except Exception as error:  # whatever it is
        print(f"cache: {what}: {error!r}", file=sys.stderr)


def seal(key, content):
    """Return what an entry begins with, by which a damaged one is noticed, and that of another key."""
    return hashlib.sha256(f"{key}\n".encode() + content).hexdigest().encode() + b"\n"


def restore(part, key, fresh=False):
    """Unpack what is kept under a key; with `fresh`, as if it had just been made. False if there is nothing."""
    for cache in filter(None, (CACHE, BELOW)):
        kept = pathlib.Path(cache, part, f"{key}.tar")
        with harmless(kept), contextlib.suppress(FileNotFoundError):
            unpack(read(kept, key, LIMITS[part]), fresh)
            log(part, "hit")
            if cache == CACHE:
                with contextlib.suppress(OSError):
                    os.utime(kept)  # what was used longest ago is removed first
            return True
    return False


def read(kept, key, limit):
    """Return an entry's content. Raises OSError, and ValueError if it is not an entry of that key."""
    with open(os.open(kept, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_size > limit:
            raise ValueError("invalid entry: expected a file of no more than the part's limit")
        sealed = file.read(limit)
    content = sealed.partition(b"\n")[2]
    if sealed != seal(key, content) + content:
        raise ValueError("invalid entry: its digest is another")
    return content


def unpack(content, fresh):
    """Unpack an entry into this folder: all of it, or nothing."""
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
    """Keep files and folders of this folder under a key."""
    log(part, "miss")
    if not CACHE:
        return
    kept = pathlib.Path(CACHE, part, f"{key}.tar")
    with harmless(kept):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name in names:
                tar.add(name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        new = kept.with_name(f"{key}.{os.urandom(4).hex()}")  # builds may share the folder, process ids and all
        try:
            with new.open("wb") as file:
                file.write(seal(key, packed.getvalue()) + packed.getvalue())
                file.flush()
                os.fsync(file.fileno())
            new.replace(kept)
        finally:
            new.unlink(missing_ok=True)


def log(part, what):
    """Write down a hit or a miss; llvm_cache.c writes such lines, too."""
    if CACHE:
        with harmless(LOG), LOG.open("a") as file:
            file.write(f"{part} {what}\n")


def trim():
    """Keep the cache within its limits; return the bytes and files that each part is left with.

    What no cache of ours keeps is removed, then what was used longest ago. What cannot be trimmed is removed whole.
    """
    if not CACHE or os.path.islink(CACHE):  # what a link leads to is nobody's cache
        return {}
    found = {}
    with harmless(CACHE):
        for entry in os.scandir(CACHE):
            try:
                if entry.name not in LIMITS or not entry.is_dir(follow_symlinks=False):
                    raise ValueError("unknown")
                found[entry.name] = trimmed(entry.path, LIMITS[entry.name])
            except (OSError, ValueError) as error:
                print(f"cache: {entry.path}: {error}: it is removed", file=sys.stderr)
                remove(entry.path)
    return found


def trimmed(folder, limit):
    """Trim one part; return how many bytes and files are left. Raises OSError, and ValueError if it has too many."""
    files = []
    for entry in files_in(folder):
        with contextlib.suppress(FileNotFoundError):  # another build trims, too
            about = entry.stat(follow_symlinks=False)
            files.append((about.st_mtime, max(about.st_size, about.st_blocks * 512, BLOCK), entry.path))
        if len(files) > MOST:
            raise ValueError(f"more than {MOST} files")
    files.sort(reverse=True)
    size = sum(each[1] for each in files)
    while size > limit:
        _, bytes_of, path = files.pop()
        pathlib.Path(path).unlink(missing_ok=True)
        size -= bytes_of
    return size, len(files)


def files_in(folder, deeper=True):
    """Yield a part's files, and remove whatever has no place there."""
    for entry in os.scandir(folder):
        if entry.is_file(follow_symlinks=False):
            yield entry
        elif deeper and entry.is_dir(follow_symlinks=False) and re.fullmatch("[0-9a-f]{2}", entry.name):
            yield from files_in(entry.path, deeper=False)
        else:
            remove(entry.path)


def remove(path):
    """Remove a file, a link or a folder, whatever is in it: coreutils' programs go as deep as it takes.

    A link is never followed, not even one that cannot be removed: chmod would, if it is given one.
    """
    try:
        os.unlink(path)
    except OSError:
        if os.path.islink(path):
            return
        for command in (("chmod", "-R", "u+rwX"), ("rm", "-rf")):
            subprocess.run([*command, "--", path], check=False, stderr=subprocess.DEVNULL)
