"""The cache of configure's results and the JIT's stencils, keyed by all their inputs.

    build_cache.py configure -- ARGV…   run configure, or restore its results for the same key
    build_cache.py before-make          record the headers' digest, and restore stencils of the same inputs, or get
                                        ready to compile them fast
    build_cache.py after-make           store the stencils
    build_cache.py report               print hits and misses of this build, and trim what has grown too large
    build_cache.py sizes                trim, and print the bytes and files of each part

Runs where CPython is built, with the image's Python, in the build folder. CROSSJIT_SOURCE is the source's folder, and
cache_entries.py knows the cache's; CROSSJIT_TOOLCHAIN names the image, all its packages, and what crossjit does with
them. No cache fails a build. What fails in here ends with the status FAULT, which is told from the command's.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import traceback

from cache_entries import LIMITS, LOG, harmless, keep, restore, trim

FAULT = 97  # crossjit/build/layout.py knows it, too

SOURCE = pathlib.Path(os.environ.get("CROSSJIT_SOURCE", "."))
HEADERS = pathlib.Path(os.environ.get("CROSSJIT_HEADERS", "/nonexistent"))
COMPILERS = str(pathlib.Path(__file__).with_name("compilers"))  # on PATH, what stands for the compilers
SERVERS = os.environ.get("CROSSJIT_LLVM_SERVERS")
PREAMBLES = os.environ.get("CROSSJIT_PREAMBLES")
PENDING = HEADERS.with_name("stencils-key")

# Variables that no program's output depends on: the caches' own, and those that are other in each container or command.
OURS = ("CROSSJIT_", "CCACHE_", "HOSTNAME=", "PWD=", "OLDPWD=", "SHLVL=", "_=")


class Digest:
    """A digest over named things, in order."""

    def __init__(self, *words):
        self.hash = hashlib.sha256()
        for word in words:
            self.add(word.encode())

    def add(self, content):
        """Add a piece; its length goes first, so that no two lists of pieces are alike."""
        self.hash.update(b"%d:" % len(content))
        self.hash.update(content)

    def add_files(self, root, paths):
        """Add files with their names below a folder."""
        for path in sorted(paths):
            self.add(str(path.relative_to(root)).encode())
            self.add(path.read_bytes() if path.is_file() else b"")

    def text(self):
        """Return it in hexadecimal digits."""
        return self.hash.hexdigest()


def toolchain():
    """Name all that is not of the source: image, packages, machine, and what a build sees in its environment."""
    machine = os.uname()
    environ = sorted(f"{name}={value}" for name, value in os.environ.items())
    return [os.environ["CROSSJIT_TOOLCHAIN"], machine.machine, *(each for each in environ if not each.startswith(OURS))]


def questions():
    """List what configure and config.status read: templates, lists of modules, scripts, and what is only looked for."""
    yield from (path for path in SOURCE.iterdir() if path.is_file())
    for folder in ("Include", "Modules", "Misc", "Mac", "Parser", "Platforms", "Programs", "Python", "Tools", "Doc"):
        yield from (path for path in (SOURCE / folder).rglob("*.in") if path.is_file())
    yield from (path for path in (SOURCE / "Modules").glob("Setup*") if path.is_file())
    for name in ("Modules/makesetup", "Include/patchlevel.h", "Misc/platform_triplet.c"):
        yield SOURCE / name
    yield from (SOURCE / "Tools" / "jit").glob("*.py")


def configure(argv):
    """Run configure, or put back the files that it left for the same questions; return its exit status."""
    trim()  # a build that failed, or was killed, left the cache as large as it was then
    key = None
    with harmless("configure"):
        key = configure_key(argv)
        if restore("configure", key):
            print("configure: the same questions were answered before")
            return 0
    # What it compiles is never compiled again, so the compilers' cache would only have the work. And where it finds a
    # compiler may come to be installed: CXX, with its path.
    path = os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if folder != COMPILERS)
    try:
        status = subprocess.call(argv, env={**os.environ, "PATH": path})
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:  # as a shell has it
        print(error, file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    if status == 0 and key:
        keep("configure", key, sorted(os.listdir()))
    return status


def configure_key(argv):
    """Return a digest of all that configure goes by."""
    digest = Digest("configure", os.uname().release, *argv, *toolchain())
    digest.add_files(SOURCE, set(questions()))
    # what is there or not may be asked for, too; nobody asks that of the library and its tests
    for pattern in ("*/", "Include/*", "Modules/*", "Modules/*/", "Objects/*", "Parser/*", "Programs/*", "Python/*"):
        digest.add("\n".join(sorted(str(path.relative_to(SOURCE)) for path in SOURCE.glob(pattern))).encode())
    return digest.text()


DIRECTIVE = rb"(?:#|%:|\?\?=)\s*(?:include|include_next|import|embed)\b|\b__has_(?:include|embed)"
INCLUDED = re.compile(rb"(?:" + DIRECTIVE + rb')[^"<\n]*["<](?:[^">\n]*/)?([^/">\n]+)[">]')
COMPUTED = re.compile(rb"(?:" + DIRECTIVE + rb")[ \t(]*[A-Za-z_]")  # it may be of anything


@functools.cache
def headers():
    """Return what a stencil's code is made of, beside its input: the folders' headers, and all that these include.

    What is made of bytecodes.c is left out where nothing includes it: from 3.14 on it comes into the input piece by
    piece. 3.13 includes it whole.
    """
    tools = SOURCE / "Tools" / "jit"
    found = {path for path in (*(SOURCE / "Include").rglob("*"), *tools.rglob("*.[ch]")) if path.is_file()}
    found |= {path for path in (SOURCE / "Python").glob("*.h") if not path.name.endswith("_cases.c.h")}
    found |= {path.absolute() for path in pathlib.Path().glob("*.h") if not path.name.startswith("jit_")}
    by_name = {}
    for folder, _, names in os.walk(SOURCE):
        for name in names:
            by_name.setdefault(os.fsencode(name), []).append(pathlib.Path(folder, name))
    code = [path for name, paths in by_name.items() if name.endswith((b".h", b".c")) for path in paths]
    unread = list(found)
    while unread:
        text = unread.pop().read_bytes().replace(b"\\\n", b"")
        more = {path for name in INCLUDED.findall(text) for path in by_name.get(name, ())}
        more = more.union(code if COMPUTED.search(text) else ()) - found
        found |= more
        unread += more
    return frozenset(found)


@functools.cache
def digest_of_headers():
    """Return a digest of what stencils are made of beside their inputs."""
    digest = Digest("headers")
    here = pathlib.Path.cwd()
    digest.add_files(SOURCE, (path for path in headers() if path.parent != here))
    digest.add_files(here, (path for path in headers() if path.parent == here))
    return digest.text()


def stencils_key():
    """Return the stencils' key, None where none are made."""
    if not (SOURCE / "Tools" / "jit").is_dir() or not recipe():
        return None
    key = Digest("stencils", digest_of_headers(), "\n".join(recipe()), *toolchain())
    key.add((SOURCE / "Python" / "executor_cases.c.h").read_bytes())
    key.add_files(SOURCE, (path for path in (SOURCE / "Tools" / "jit").rglob("*") if "__pycache__" not in path.parts))
    return key.text()


def before_make():
    """Note the headers' digest for llvm_cache.c, and put back stencils of the same inputs."""
    with harmless("stencils"):
        HEADERS.write_text(digest_of_headers())
        key = stencils_key()
        if key and not restore("stencils", key, fresh=True):
            PENDING.write_text(key)
            allow_preambles()
            start_servers()
    return 0


def allow_preambles():
    """Make the folder for llvm_cache.c's precompiled preamble of the stencils, if they all have the same one."""
    inputs = SOURCE / "Tools" / "jit"  # its C files are not included, but compiled, or made into what is
    included = (path for path in headers() if path.parent != inputs or path.suffix != ".c")
    if PREAMBLES and not any(b"_JIT_OPCODE" in path.read_bytes() for path in included):
        pathlib.Path(PREAMBLES).mkdir(exist_ok=True)


def start_servers():
    """Start a server in CROSSJIT_LLVM_SERVERS for each of CROSSJIT_LLVM_PROGRAMS that can be one, for llvm_cache.c.

    They end with the container.
    """
    if not SERVERS:
        return
    folder = pathlib.Path(SERVERS)
    folder.mkdir(exist_ok=True)
    library = folder / "server.so"
    source = pathlib.Path(__file__).with_name("llvm_forkserver.c")
    if subprocess.call(["/usr/bin/gcc", "-O1", "-shared", "-fPIC", "-o", library, source]):
        return
    for program in os.environ["CROSSJIT_LLVM_PROGRAMS"].split():
        path = pathlib.Path(os.environ["CROSSJIT_LLVM"], "bin", program)
        if path.is_file():
            environ = {**os.environ, "LD_PRELOAD": str(library), "CROSSJIT_LLVM_SOCKET": str(folder / program)}
            nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
            subprocess.Popen([path], env=environ, **nothing, start_new_session=True)


def recipe():
    """Return the Makefile's lines that make stencils."""
    lines = pathlib.Path("Makefile").read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if "Tools/jit/build.py" in line]


def after_make():
    """Keep the stencils, if they were made, and of what is there still: make may make headers anew."""
    patterns = ("jit_stencils*.h", "jit_unwind_info*.h", "jit_shim*.o", ".jit-stamp")
    found = sorted(path.name for pattern in patterns for path in pathlib.Path().glob(pattern))
    with harmless("stencils"):
        if PENDING.is_file() and found:
            key = PENDING.read_text()
            PENDING.unlink()
            if key == stencils_key():
                keep("stencils", key, found)
    return 0


def report():
    """Print hits and misses of this build as JSON, and trim the cache."""
    found = {}

    def count(part, what):
        if part in LIMITS or part == "compiler":
            found.setdefault(part, {"hit": 0, "miss": 0})[what] += 1

    with contextlib.suppress(OSError, ValueError):
        for line in LOG.read_text(errors="replace").splitlines():
            part, _, what = line.partition(" ")
            if what in ("hit", "miss"):
                count(part, what)
    with contextlib.suppress(OSError, ValueError, KeyError):
        for line in pathlib.Path(os.environ["CCACHE_STATSLOG"]).read_text(errors="replace").splitlines():
            if line in ("direct_cache_hit", "preprocessed_cache_hit", "cache_miss"):
                count("compiler", "miss" if line == "cache_miss" else "hit")
    print(json.dumps(found), flush=True)  # it is the first line that is read; what is odd is said below
    trim()
    return 0


def sizes():
    """Print the bytes and files of each part as JSON."""
    parts = sorted(trim().items())
    found = {part: {"bytes": size, "files": files, "limit": LIMITS[part]} for part, (size, files) in parts}
    print(json.dumps(found))
    return 0


COMMANDS = {"before-make": before_make, "after-make": after_make, "report": report, "sizes": sizes}


def main():
    """Do what is asked for; return the exit status."""
    if sys.argv[1] != "configure":
        return COMMANDS[sys.argv[1]]()
    status = configure(sys.argv[3:])
    return 1 if status == FAULT else status if status >= 0 else 128 - status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:  # ours, or the machine's
        traceback.print_exc()
        sys.exit(FAULT)
