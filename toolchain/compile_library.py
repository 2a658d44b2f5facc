"""Byte-compile an installed library with the Python that runs this.

    compile_library.py --root DESTDIR --prefix PREFIX --jobs N [--ahead FOLDER --library NAME]

PREFIX is the library's final place (`/usr/local`), DESTDIR the folder that stands for / until then. Runs in the
toolchain container, with the Python that the Makefile would use, instead of compileall. That compiles all files in one
process, so marshal's reference flags depend on the files compiled before. Here, each file gets a fork of one clean
process, so that its .pyc file depends only on the file, and several are compiled at once. Unlike compileall, it does
not compile for -O and -OO: two thirds of the work, for options that suites rarely use.

Results are cached in the folder CROSSJIT_COMPILED, and also read from CROSSJIT_COMPILED_BELOW. They are keyed by the
file, the compiler (CROSSJIT_COMPILER, or else the running program's digest), this script and CROSSJIT_TOOLCHAIN.
Invalid entries are reported and count as misses. Entries begin with a digest and are not synced: there are thousands,
and one that a power failure leaves empty is invalid. With --ahead, FOLDER has the future content of PREFIX/lib/NAME:
its files are compiled into the cache only.

Finally prints a line of JSON: {"compiled": n, "kept": n, "left": n}. `kept` files were in the cache; `left` files do
not compile, such as tests' examples of invalid syntax, and get no .pyc file. Any other error with a file is printed,
and the exit status is 1, as for a crash of this Python; FAULT if the machine is at its limits, such as a full disk.
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

FAULT = 97  # SCRIPT_FAULT of crossjit/build/layout.py
COMPILED, LEFT, FAILED = range(3)  # exit statuses of the process of one file, besides FAULT
LARGEST = 64 << 20  # bytes of an entry
MACHINE_ERRORS = ("EAGAIN", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EROFS")


def compiler():
    """Return a text that identifies this compiler, with its settings; the compiler itself is part of the program."""
    program = os.environ.get("CROSSJIT_COMPILER") or digest_of(pathlib.Path(sys.executable))
    toolchain = os.environ.get("CROSSJIT_TOOLCHAIN")
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return f"{program} {digest_of(pathlib.Path(__file__))} {toolchain} {sys.version} {epoch}"


def digest_of(path):
    """Return the digest of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pyc_path(path):
    """Return the path of a file's .pyc file."""
    return pathlib.Path(importlib.util.cache_from_source(path, optimization=""))


def compile_file(path, name, target):
    """Compile a file; False if it does not compile. `name` is its path in tracebacks. Raises OSError."""
    try:
        py_compile.compile(
            path, str(target), name, doraise=True, optimize=0,
            invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
        )  # fmt: skip
    except py_compile.PyCompileError:  # also for a RecursionError
        return False
    return True


def status_of(error):
    """Print an OSError, and return its exit status: FAULT if the machine is at its limits."""
    print(error, file=sys.stderr, flush=True)
    return FAULT if errno.errorcode.get(error.errno) in MACHINE_ERRORS else FAILED


def seal(key, content):
    """Return an entry's first line: a digest of its key and content, which reveals damage and wrong keys."""
    return hashlib.sha256(f"{key}\n".encode() + content).hexdigest().encode() + b"\n"


class PycCache:
    """The cached .pyc files; empty without a folder."""

    def __init__(self, folder, below, identity):
        self.folder = pathlib.Path(folder) if folder else None
        self.folders = [pathlib.Path(path) for path in (folder, below) if path]
        self.identity = identity

    def key(self, path, name):
        """Return a file's cache key."""
        content = pathlib.Path(path).read_bytes()
        return hashlib.sha256(b"\0".join((self.identity.encode(), name.encode(), content))).hexdigest()

    def find(self, path, name):
        """Return a file's cached .pyc content, None if there is none."""
        key = self.key(path, name)
        for folder in self.folders:
            entry = folder / key[:2] / key[2:]
            try:
                with open(os.open(entry, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                    sealed = file.read(LARGEST)
            except FileNotFoundError:
                continue
            except OSError as error:
                print(f"cache: {entry}: {error}", file=sys.stderr)
                continue
            content = sealed.partition(b"\n")[2]
            if sealed == seal(key, content) + content:
                with contextlib.suppress(OSError):
                    os.utime(entry)  # another build may trim the cache meanwhile
                return content
            print(f"cache: {entry}: its digest is another", file=sys.stderr)
        return None

    def has(self, path, name):
        """Return whether a file's .pyc content is cached."""
        return self.find(path, name) is not None

    def restore(self, path, name):
        """Write a file's cached .pyc file; False if there is none. Raises OSError."""
        content = self.find(path, name)
        if content is None:
            return False
        target = pyc_path(path)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        target.chmod((os.stat(path).st_mode | 0o200) & 0o666)  # as py_compile does
        return True

    def keep(self, path, name, pyc):
        """Store a file's .pyc file in the cache."""
        if self.folder is None:
            return
        key, content = self.key(path, name), pyc.read_bytes()
        entry = self.folder / key[:2] / key[2:]
        new = entry.with_name(f"{entry.name}.{os.urandom(4).hex()}")  # process ids are not unique across containers
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(seal(key, content) + content)
            new.replace(entry)
        except OSError as error:
            print(f"cache: {entry}: {error}", file=sys.stderr)
            with contextlib.suppress(OSError):
                new.unlink()


class Compilation:
    """Compiles files, each in its own process, several at a time, and counts the outcomes."""

    def __init__(self, cache, jobs, ahead):
        self.cache = cache
        self.jobs = jobs
        self.ahead = ahead
        self.running = {}
        self.counts = {"compiled": 0, "kept": 0, "left": 0}
        self.failed = set()

    def start(self, path, name):
        """Start to compile a file, once fewer than `jobs` are running."""
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
        """Compile a file in this process; return its exit status."""
        # not into the cache: a process that compiles ahead can be killed at any time, and leaves an incomplete file
        temporary = os.environ.get("TMPDIR", "/tmp")
        target = pathlib.Path(temporary, f"ahead-{os.urandom(8).hex()}") if self.ahead else pyc_path(path)
        try:
            if not compile_file(path, name, target):
                return LEFT
            self.cache.keep(path, name, target)
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
            self.failed.add(FAULT if code in (FAULT, -signal.SIGKILL) else 1)  # SIGKILL: out of memory
        self.counts["compiled" if code == COMPILED else "left"] += 1


def main():
    """Compile the library; return the exit status: 0, FAULT if the machine is at its limits, or 1."""
    parser = argparse.ArgumentParser(description="Byte-compile an installed library.")
    parser.add_argument("--root", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--ahead")
    parser.add_argument("--library")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    cache = PycCache(os.environ.get("CROSSJIT_COMPILED"), os.environ.get("CROSSJIT_COMPILED_BELOW"), compiler())
    if arguments.ahead:
        root, name_of_root = arguments.ahead, f"{arguments.prefix}/lib/{arguments.library}"
        libraries, is_done = [pathlib.Path(root)], cache.has
    else:
        root, name_of_root = arguments.root, ""
        libraries, is_done = pathlib.Path(root + arguments.prefix, "lib").glob("python3*/"), cache.restore
    files = sorted(str(path) for library in libraries for path in library.rglob("*.py") if path.is_file())
    compile("", "", "exec", dont_inherit=True)  # the first call loads code, which every fork then has
    compilation = Compilation(cache, arguments.jobs, bool(arguments.ahead))
    for path in files:
        name = name_of_root + path.removeprefix(root)
        if is_done(path, name):
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
