"""The cache of configure's results and the JIT's stencils, keyed by all their inputs.

    build_cache.py configure -- ARGV…   run configure, or restore its results for the same key
    build_cache.py before-make          record the headers' digest, and restore stencils of the same inputs, or prepare
                                        to compile them fast
    build_cache.py after-make           store the stencils
    build_cache.py report               print hits and misses of this build, and trim the caches
    build_cache.py sizes                trim the caches, and print the bytes and files of each part

Runs in the toolchain container, with the image's Python, in the build folder. CROSSJIT_SOURCE is the source's folder;
cache_entries.py documents the cache's. CROSSJIT_TOOLCHAIN identifies the image, its packages, and crossjit's scripts.
Cache errors never fail a build. The script's own failures exit with FAULT; configure's own status of this number
becomes 1.
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

FAULT = 97  # SCRIPT_FAULT of crossjit/build/layout.py

SOURCE = pathlib.Path(os.environ.get("CROSSJIT_SOURCE", "."))
HEADERS = pathlib.Path(os.environ.get("CROSSJIT_HEADERS", "/nonexistent"))
COMPILERS = str(pathlib.Path(__file__).with_name("compilers"))  # the compilers' wrappers, on PATH
SERVERS = os.environ.get("CROSSJIT_LLVM_SERVERS")
PREAMBLES = os.environ.get("CROSSJIT_PREAMBLES")
PENDING = HEADERS.with_name("stencils-key")

# Variables that affect no output: the caches' own, and those that differ between containers or commands.
IGNORED = ("CROSSJIT_", "CCACHE_", "HOSTNAME=", "PWD=", "OLDPWD=", "SHLVL=", "_=")


class Digest:
    """A digest of a sequence of byte strings and files."""

    def __init__(self, *words):
        self.hash = hashlib.sha256()
        for word in words:
            self.add(word.encode())

    def add(self, content):
        """Add a byte string after its length, so that different sequences never have the same digest."""
        self.hash.update(b"%d:" % len(content))
        self.hash.update(content)

    def add_files(self, root, paths):
        """Add files, with their paths relative to a folder."""
        for path in sorted(paths):
            self.add(str(path.relative_to(root)).encode())
            self.add(path.read_bytes() if path.is_file() else b"")

    def text(self):
        """Return the digest in hexadecimal."""
        return self.hash.hexdigest()


def toolchain():
    """Return the inputs other than the source: image, packages, machine, and environment."""
    machine = os.uname()
    environ = sorted(f"{name}={value}" for name, value in os.environ.items())
    return [
        os.environ["CROSSJIT_TOOLCHAIN"],
        machine.machine,
        *(variable for variable in environ if not variable.startswith(IGNORED)),
    ]


def configure_inputs():
    """Yield the files that configure and config.status read or look for: templates, lists of modules, scripts."""
    yield from (path for path in SOURCE.iterdir() if path.is_file())
    for folder in ("Include", "Modules", "Misc", "Mac", "Parser", "Platforms", "Programs", "Python", "Tools", "Doc"):
        yield from (path for path in (SOURCE / folder).rglob("*.in") if path.is_file())
    yield from (path for path in (SOURCE / "Modules").glob("Setup*") if path.is_file())
    for name in ("Modules/makesetup", "Include/patchlevel.h", "Misc/platform_triplet.c"):
        yield SOURCE / name
    yield from (SOURCE / "Tools" / "jit").glob("*.py")


def configure(argv):
    """Run configure, or restore its files for the same key; return its exit status."""
    trim()  # a failed or killed build leaves the cache untrimmed
    key = None
    with harmless("configure"):
        key = configure_key(argv)
        if restore("configure", key):
            print("configure: the same questions were answered before")
            return 0
    # Without the compilers' wrappers: a cache is useless for configure's programs, and configure records the path of
    # CXX, which is then installed.
    path = os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if folder != COMPILERS)
    try:
        status = subprocess.call(argv, env={**os.environ, "PATH": path})
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:  # statuses as in a shell
        print(error, file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    if status == 0 and key:
        keep("configure", key, sorted(os.listdir()))
    return status


def configure_key(argv):
    """Return a digest of all of configure's inputs."""
    digest = Digest("configure", os.uname().release, *argv, *toolchain())
    digest.add_files(SOURCE, set(configure_inputs()))
    # configure may also check whether a file exists, but not in the library
    for pattern in ("*/", "Include/*", "Modules/*", "Modules/*/", "Objects/*", "Parser/*", "Programs/*", "Python/*"):
        digest.add("\n".join(sorted(str(path.relative_to(SOURCE)) for path in SOURCE.glob(pattern))).encode())
    return digest.text()


DIRECTIVE = rb"(?:#|%:|\?\?=)\s*(?:include|include_next|import|embed)\b|\b__has_(?:include|embed)"
INCLUDED = re.compile(rb"(?:" + DIRECTIVE + rb')[^"<\n]*["<](?:[^">\n]*/)?([^/">\n]+)[">]')
COMPUTED = re.compile(rb"(?:" + DIRECTIVE + rb")[ \t(]*[A-Za-z_]")  # a macro: any file may be included


@functools.cache
def headers():
    """Return the files that a stencil's code may include: the headers of some folders, and all that these include.

    The files generated from bytecodes.c are left out unless one is included: 3.13 includes a whole file, later versions
    copy a part of it into each input.
    """
    tools = SOURCE / "Tools" / "jit"
    included = {path for path in (*(SOURCE / "Include").rglob("*"), *tools.rglob("*.[ch]")) if path.is_file()}
    included |= {path for path in (SOURCE / "Python").glob("*.h") if not path.name.endswith("_cases.c.h")}
    included |= {path.absolute() for path in pathlib.Path().glob("*.h") if not path.name.startswith("jit_")}
    by_name = {}
    for folder, _, names in os.walk(SOURCE):
        for name in names:
            by_name.setdefault(os.fsencode(name), []).append(pathlib.Path(folder, name))
    code = [path for name, paths in by_name.items() if name.endswith((b".h", b".c")) for path in paths]
    unread = list(included)
    while unread:
        text = unread.pop().read_bytes().replace(b"\\\n", b"")
        more = {path for name in INCLUDED.findall(text) for path in by_name.get(name, ())}
        more = more.union(code if COMPUTED.search(text) else ()) - included
        included |= more
        unread += more
    return frozenset(included)


@functools.cache
def digest_of_headers():
    """Return a digest of the files that stencils may include."""
    digest = Digest("headers")
    here = pathlib.Path.cwd()
    digest.add_files(SOURCE, (path for path in headers() if path.parent != here))
    digest.add_files(here, (path for path in headers() if path.parent == here))
    return digest.text()


def stencils_key():
    """Return the stencils' key, None if the build makes none."""
    if not (SOURCE / "Tools" / "jit").is_dir() or not recipe():
        return None
    key = Digest("stencils", digest_of_headers(), "\n".join(recipe()), *toolchain())
    key.add((SOURCE / "Python" / "executor_cases.c.h").read_bytes())
    key.add_files(SOURCE, (path for path in (SOURCE / "Tools" / "jit").rglob("*") if "__pycache__" not in path.parts))
    return key.text()


def before_make():
    """Record the headers' digest for llvm_cache.c, and restore stencils of the same inputs."""
    with harmless("stencils"):
        HEADERS.write_text(digest_of_headers())
        key = stencils_key()
        if key and not restore("stencils", key, fresh=True):
            PENDING.write_text(key)
            allow_preambles()
            start_servers()
    return 0


def allow_preambles():
    """Make the folder for llvm_cache.c's precompiled preamble of the stencils, if it is the same for all of them."""
    inputs = SOURCE / "Tools" / "jit"  # its C files are compiled, or templates of inputs, not included
    included = (path for path in headers() if path.parent != inputs or path.suffix != ".c")
    if PREAMBLES and not any(b"_JIT_OPCODE" in path.read_bytes() for path in included):
        pathlib.Path(PREAMBLES).mkdir(exist_ok=True)


def start_servers():
    """Start a fork server for each existing program of CROSSJIT_LLVM_PROGRAMS, which llvm_cache.c uses.

    Their sockets are in CROSSJIT_LLVM_SERVERS. They end with the container.
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
            quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
            subprocess.Popen([path], env=environ, **quiet, start_new_session=True)


def recipe():
    """Return the Makefile's lines that make stencils."""
    lines = pathlib.Path("Makefile").read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if "Tools/jit/build.py" in line]


def after_make():
    """Store newly made stencils, unless their key has changed: make may have regenerated headers."""
    patterns = ("jit_stencils*.h", "jit_unwind_info*.h", "jit_shim*.o", ".jit-stamp")
    names = sorted(path.name for pattern in patterns for path in pathlib.Path().glob(pattern))
    with harmless("stencils"):
        if PENDING.is_file() and names:
            key = PENDING.read_text()
            PENDING.unlink()
            if key == stencils_key():
                keep("stencils", key, names)
    return 0


def report():
    """Print hits and misses of this build as JSON, and trim the cache."""
    counts = {}

    def count(part, outcome):
        if part in LIMITS or part == "compiler":
            counts.setdefault(part, {"hit": 0, "miss": 0})[outcome] += 1

    with contextlib.suppress(OSError, ValueError):
        for line in LOG.read_text(errors="replace").splitlines():
            part, _, outcome = line.partition(" ")
            if outcome in ("hit", "miss"):
                count(part, outcome)
    with contextlib.suppress(OSError, ValueError, KeyError):
        for line in pathlib.Path(os.environ["CCACHE_STATSLOG"]).read_text(errors="replace").splitlines():
            if line in ("direct_cache_hit", "preprocessed_cache_hit", "cache_miss"):
                count("compiler", "miss" if line == "cache_miss" else "hit")
    print(json.dumps(counts), flush=True)  # first: only the first line is parsed, and trim may print errors
    trim()
    return 0


def sizes():
    """Print the bytes and files of each part as JSON."""
    parts = sorted(trim().items())
    print(json.dumps({part: {"bytes": size, "files": files, "limit": LIMITS[part]} for part, (size, files) in parts}))
    return 0


COMMANDS = {"before-make": before_make, "after-make": after_make, "report": report, "sizes": sizes}


def main():
    """Run the command of the arguments; return the exit status."""
    if sys.argv[1] != "configure":
        return COMMANDS[sys.argv[1]]()
    status = configure(sys.argv[3:])
    return 1 if status == FAULT else status if status >= 0 else 128 - status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:  # a bug of this script, or the machine's failure
        traceback.print_exc()
        sys.exit(FAULT)
