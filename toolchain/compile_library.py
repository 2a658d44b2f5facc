"""Byte-compile an installed library with the Python that runs this.

    compile_library.py --root DESTDIR --prefix PREFIX --jobs N [--ahead FOLDER --library NAME]

PREFIX is where it will be (`/usr/local`), DESTDIR what that stands under for now. Runs where CPython is
built, with the Python that its Makefile would use, instead of compileall: that compiles file after file in one process,
and marshal's reference flags follow from what the process compiled before. Here each file gets a fork of one clean
process, so that what comes of it depends on nothing but the file, and several are compiled at a time. Not for -O and
-OO, as compileall would: two thirds of the work, for what suites start a few times at most.

What came of a file for this very compiler (CROSSJIT_COMPILER tells it from others, else the running program's own bytes
do), this script and CROSSJIT_TOOLCHAIN is kept in the folder that CROSSJIT_COMPILED names, and taken from there, or
from CROSSJIT_COMPILED_BELOW. Whatever is odd about these folders is printed, and is a miss. An entry is sealed with a
digest, and not synced: there are thousands, and one that a power failure leaves empty is such a miss. With --ahead,
FOLDER has what will be installed as PREFIX/lib/NAME: its files are compiled for that folder alone.

Prints a line of JSON at its end: {"compiled": n, "kept": n, "left": n}, where `left` are files that do not compile, as
tests' examples of wrong syntax; those stay without. Whatever else goes wrong with a file is printed and ends with 1, as
does what this Python may be to blame for; a machine at its limits, such as a full disk, ends with FAULT.
"""

import argparse
import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import pathlib
import py_compile
import signal
import sys
import warnings

FAULT = 97  # crossjit/build/layout.py knows it, too
COMPILED, LEFT, FAILED = range(3)  # how the process of one file ends, if not with FAULT
LARGEST = 64 << 20  # bytes of an entry
LIMITS = ("EAGAIN", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EROFS")  # the machine's


def compiler():
    """Return what tells this compiler from another: all that compiles is in the program itself, and called here."""
    named = os.environ.get("CROSSJIT_COMPILER") or digest_of(pathlib.Path(sys.executable))
    toolchain = os.environ.get("CROSSJIT_TOOLCHAIN")
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return f"{named} {digest_of(pathlib.Path(__file__))} {toolchain} {sys.version} {epoch}"


def digest_of(path):
    """Return the digest of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compiled(path):
    """Return where a file's compiled form goes."""
    return pathlib.Path(importlib.util.cache_from_source(path, optimization=""))


def compile_file(path, name, target):
    """Compile a file; False for one that does not compile. `name` is what tracebacks will say. Raises OSError."""
    try:
        py_compile.compile(
            path, str(target), name, doraise=True, optimize=0,
            invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
        )  # fmt: skip
    except py_compile.PyCompileError:  # whatever is wrong with the source, a RecursionError too
        return False
    return True


def status_of(error):
    """Return how an OSError ends a process: whether it is the machine that had no more."""
    print(error, file=sys.stderr, flush=True)
    return FAULT if errno.errorcode.get(error.errno) in LIMITS else FAILED


def seal(key, content):
    """Return what stands before an entry's content, by which a damaged one is noticed, and that of another key."""
    return hashlib.sha256(f"{key}\n".encode() + content).hexdigest().encode() + b"\n"


class Kept:
    """What came of files before; nothing without a folder."""

    def __init__(self, folder, below, identity):
        self.folder = pathlib.Path(folder) if folder else None
        self.folders = [pathlib.Path(each) for each in (folder, below) if each]
        self.identity = identity

    def key(self, path, name):
        """Return what a file's result is kept under."""
        content = pathlib.Path(path).read_bytes()
        return hashlib.sha256(b"\0".join((self.identity.encode(), name.encode(), content))).hexdigest()

    def find(self, path, name):
        """Return what came of a file, None if that is not known."""
        key = self.key(path, name)
        for folder in self.folders:
            kept = folder / key[:2] / key[2:]
            try:
                with open(os.open(kept, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                    sealed = file.read(LARGEST)
            except FileNotFoundError:
                continue
            except OSError as error:
                print(f"cache: {kept}: {error}", file=sys.stderr)
                continue
            content = sealed.partition(b"\n")[2]
            if sealed == seal(key, content) + content:
                with contextlib.suppress(OSError):
                    os.utime(kept)  # another build may trim the cache meanwhile
                return content
            print(f"cache: {kept}: its digest is another", file=sys.stderr)
        return None

    def is_there(self, path, name):
        """Tell whether something is kept for a file."""
        return self.find(path, name) is not None

    def restore(self, path, name):
        """Put back what came of a file; False if that is not known. Raises OSError."""
        content = self.find(path, name)
        if content is None:
            return False
        target = compiled(path)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        target.chmod((os.stat(path).st_mode | 0o200) & 0o666)  # as py_compile gives it
        return True

    def keep(self, path, name, made):
        """Keep what came of a file and is in `made`."""
        if self.folder is None:
            return
        key, content = self.key(path, name), made.read_bytes()
        kept = self.folder / key[:2] / key[2:]
        new = kept.with_name(f"{kept.name}.{os.urandom(4).hex()}")  # builds may share the folder, process ids and all
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(seal(key, content) + content)
            new.replace(kept)
        except OSError as error:
            print(f"cache: {kept}: {error}", file=sys.stderr)
            with contextlib.suppress(OSError):
                new.unlink()


class Compilation:
    """Compiles files, each in a process of its own, several at a time, and counts what came of them."""

    def __init__(self, kept, jobs, ahead):
        self.kept = kept
        self.jobs = jobs
        self.ahead = ahead
        self.running = {}
        self.counts = {"compiled": 0, "kept": 0, "left": 0}
        self.failed = set()

    def start(self, path, name):
        """Compile a file, as soon as there are fewer than `jobs` at a time."""
        while len(self.running) >= self.jobs:
            self.reap()
        process = os.fork()
        if process == 0:
            code = FAILED
            try:
                code = self.make(path, name)
            finally:
                os._exit(code)
        self.running[process] = path

    def make(self, path, name):
        """Compile a file in this process; return how that is to end."""
        # not in the folder that is kept: who compiles ahead may be killed at any time, and what is half made stays
        target = pathlib.Path("/tmp", f"ahead-{os.urandom(8).hex()}") if self.ahead else compiled(path)
        try:
            if not compile_file(path, name, target):
                return LEFT
            self.kept.keep(path, name, target)
            if self.ahead:
                target.unlink()
        except OSError as error:
            return status_of(error)
        return COMPILED

    def reap(self):
        """Wait for one process to end."""
        process, status = os.wait()
        path = self.running.pop(process)
        code = os.waitstatus_to_exitcode(status)
        if code not in (COMPILED, LEFT):
            print(f"compiling {path} ended with {code}", file=sys.stderr)
            self.failed.add(FAULT if code in (FAULT, -signal.SIGKILL) else 1)  # the kernel kills for memory
        self.counts["compiled" if code == COMPILED else "left"] += 1


def main():
    """Compile the library; return the exit status: 0, or FAULT where the machine had no more, or else 1."""
    parser = argparse.ArgumentParser(description="Byte-compile an installed library.")
    parser.add_argument("--root", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--ahead")
    parser.add_argument("--library")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    kept = Kept(os.environ.get("CROSSJIT_COMPILED"), os.environ.get("CROSSJIT_COMPILED_BELOW"), compiler())
    if arguments.ahead:
        root, name_of_root = arguments.ahead, f"{arguments.prefix}/lib/{arguments.library}"
        libraries, known = [pathlib.Path(root)], kept.is_there
    else:
        root, name_of_root = arguments.root, ""
        libraries, known = pathlib.Path(root + arguments.prefix, "lib").glob("python3*/"), kept.restore
    files = sorted(str(path) for library in libraries for path in library.rglob("*.py") if path.is_file())
    compile("", "", "exec", dont_inherit=True)  # what is loaded at the first time, before the first fork
    compilation = Compilation(kept, arguments.jobs, bool(arguments.ahead))
    for path in files:
        name = name_of_root + path.removeprefix(root)
        if known(path, name):
            compilation.counts["kept"] += 1
        else:
            compilation.start(path, name)
    while compilation.running:
        compilation.reap()
    print(json.dumps(compilation.counts))
    return max(compilation.failed, default=0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(FAULT if status_of(error) == FAULT else 1)
