"""Byte-compile an installed library with the Python that runs this.

    compile_library.py --root DESTDIR --prefix PREFIX --jobs N

PREFIX is where it will be (`/usr/local`), DESTDIR what that stands under for now. Runs where CPython is
built, with the Python that its Makefile would use, instead of compileall: that compiles file after file in one process,
and marshal's reference flags follow from what the process compiled before. Here each file gets a fork of one clean
process, so that what comes of it depends on nothing but the file, and several are compiled at a time. Not for -O and
-OO, as compileall would: two thirds of the work, for what suites start a few times at most.

With CROSSJIT_CACHE in the environment, what came of a file for this very compiler (CROSSJIT_COMPILER tells it from
others, else the running program's own bytes do) is taken from there. Prints a line of JSON at its end: {"compiled": n,
"kept": n, "left": n}, where `left` are files that do not compile, such as tests' examples of wrong syntax; those stay
without.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import pathlib
import py_compile
import sys
import warnings


def compiler():
    """Return what tells this compiler from another: all that compiles is in the program itself."""
    named = os.environ.get("CROSSJIT_COMPILER")
    return named or hashlib.sha256(pathlib.Path(sys.executable).read_bytes()).hexdigest()


def compiled(path):
    """Return where a file's compiled form goes."""
    return pathlib.Path(importlib.util.cache_from_source(path, optimization=""))


def compile_file(path, name):
    """Compile a file; False for one that does not compile. `name` is what tracebacks will say."""
    try:
        py_compile.compile(
            path, str(compiled(path)), name, doraise=True, optimize=0,
            invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
        )  # fmt: skip
    except (py_compile.PyCompileError, OSError, UnicodeError, ValueError, RecursionError):
        return False
    return True


def digest_of(content):
    """Return the digest by which a damaged file is noticed."""
    return hashlib.sha256(content).hexdigest().encode()


class Kept:
    """What came of files before; nothing where there is no cache."""

    def __init__(self, folder, identity):
        self.folder = pathlib.Path(folder) / "pyc" if folder else None
        self.identity = identity

    def path(self, content, name):
        """Return where a file's results are kept."""
        key = hashlib.sha256(b"\0".join((self.identity.encode(), name.encode(), content))).hexdigest()
        return self.folder / key[:2] / key[2:]

    def restore(self, path, name):
        """Put back what came of a file; False if that is not known."""
        if self.folder is None:
            return False
        kept = self.path(pathlib.Path(path).read_bytes(), name)
        try:
            digest, content = kept.read_bytes().split(b"\n", 1)
        except (OSError, ValueError):
            return False
        if digest != digest_of(content):
            return False
        target = compiled(path)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        target.chmod((os.stat(path).st_mode | 0o200) & 0o666)  # as py_compile gives it
        os.utime(kept)
        return True

    def keep(self, path, name):
        """Keep what came of a file."""
        if self.folder is None:
            return
        kept = self.path(pathlib.Path(path).read_bytes(), name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        new = kept.with_name(f"{kept.name}.{os.getpid()}")
        content = compiled(path).read_bytes()
        new.write_bytes(digest_of(content) + b"\n" + content)
        new.replace(kept)


def main():
    """Compile the library. Ends with 0, or with 1 if a process was killed."""
    parser = argparse.ArgumentParser(description="Byte-compile an installed library.")
    parser.add_argument("--root", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    kept = Kept(os.environ.get("CROSSJIT_CACHE"), f"{compiler()} {sys.version} {os.environ.get('SOURCE_DATE_EPOCH')}")
    libraries = pathlib.Path(arguments.root + arguments.prefix, "lib").glob("python3*/")
    files = sorted(str(path) for library in libraries for path in library.rglob("*.py"))
    compile("", "", "exec", dont_inherit=True)  # what is loaded at the first time, before the first fork
    running, counts, killed = {}, {"compiled": 0, "kept": 0, "left": 0}, False

    def reap():
        nonlocal killed
        process, status = os.wait()
        path = running.pop(process)
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, 1):
            print(f"compiling {path} ended with {code}", file=sys.stderr)
            killed = True
        counts["compiled" if code == 0 else "left"] += 1

    for path in files:
        name = path.removeprefix(arguments.root)
        if kept.restore(path, name):
            counts["kept"] += 1
            continue
        while len(running) >= arguments.jobs:
            reap()
        process = os.fork()
        if process == 0:
            code = 2
            try:
                code = 0 if compile_file(path, name) else 1
                if code == 0:
                    kept.keep(path, name)
            finally:
                os._exit(code)
        running[process] = path
    while running:
        reap()
    print(json.dumps(counts))
    return int(killed)


if __name__ == "__main__":
    sys.exit(main())
