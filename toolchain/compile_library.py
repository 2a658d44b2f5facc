"""Byte-compile an installed library, each file for all levels of optimization, with the Python that runs this.

    compile_library.py --root DESTDIR --prefix PREFIX --jobs N

PREFIX is where it will be (`/usr/local`), DESTDIR what that stands under for now. Runs where CPython is
built, with the Python that its Makefile would use, instead of compileall: that compiles file after file in one process,
and marshal's reference flags follow from what the process compiled before. Here each file gets a fork of one clean
process, so that what comes of it depends on nothing but the file, and several are compiled at a time.

With CROSSJIT_CACHE in the environment, what came of a file for this very compiler (CROSSJIT_COMPILER, or the running
program's own bytes) is taken from there. Prints a line of JSON at its end: {"compiled": n, "kept": n, "left": n}, where
`left` are files that do not compile, such as tests' examples of wrong syntax; those stay without.
"""

import argparse
import hashlib
import importlib.util
import json
import marshal
import os
import pathlib
import py_compile
import sys
import warnings

LEVELS = {"": 0, "1": 1, "2": 2}  # by the tag in a .pyc file's name, as compileall's -o 0 -o 1 -o 2


def compiler():
    """Return what tells this compiler from another: all that compiles is in the program itself."""
    named = os.environ.get("CROSSJIT_COMPILER")
    return named or hashlib.sha256(pathlib.Path(sys.executable).read_bytes()).hexdigest()


def targets(path):
    """Return where a file's compiled forms go, by level."""
    return {level: importlib.util.cache_from_source(path, optimization=tag) for tag, level in LEVELS.items()}


def compile_file(path, name):
    """Compile a file for all levels; False for one that does not compile. `name` is what tracebacks will say."""
    try:
        for level, target in targets(path).items():
            py_compile.compile(
                path, target, name, doraise=True, optimize=level,
                invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
            )  # fmt: skip
    except (py_compile.PyCompileError, OSError, UnicodeError, ValueError, RecursionError):
        for target in targets(path).values():
            pathlib.Path(target).unlink(missing_ok=True)
        return False
    return True


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
            levels = marshal.loads(kept.read_bytes())
        except (OSError, ValueError, EOFError, TypeError):
            return False
        mode = (os.stat(path).st_mode | 0o200) & 0o666  # as py_compile gives it
        for level, target in targets(path).items():
            pathlib.Path(target).parent.mkdir(exist_ok=True)
            pathlib.Path(target).write_bytes(levels[level])
            os.chmod(target, mode)
        os.utime(kept)
        return True

    def keep(self, path, name):
        """Keep what came of a file."""
        if self.folder is None:
            return
        kept = self.path(pathlib.Path(path).read_bytes(), name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        new = kept.with_name(f"{kept.name}.{os.getpid()}")
        levels = {level: pathlib.Path(target).read_bytes() for level, target in targets(path).items()}
        new.write_bytes(marshal.dumps(levels))
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
