"""What a build need not do again: configure's answers and the JIT's stencils, kept by all that they depend on.

    cache.py configure -- ARGV…   run configure, or put back what it left for the same questions
    cache.py before-make          note the headers' digest, and put back stencils of the same inputs, or get ready to
                                 make them fast
    cache.py after-make           keep the stencils
    cache.py report               print hits and misses of this build, and trim what has grown too large
    cache.py sizes                print the bytes and files of each part

Runs where CPython is built, with the image's Python, in the build folder. CROSSJIT_CACHE is the cache's folder, unset
if there is none; CROSSJIT_SOURCE the source's; CROSSJIT_TOOLCHAIN names the image and all its packages. Whatever is
kept is written under another name first, so that a build that is killed leaves nothing half.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tarfile

LIMITS = {"configure": 64 << 20, "stencils": 256 << 20, "llvm": 1 << 30, "pyc": 512 << 20}  # bytes

SOURCE = pathlib.Path(os.environ.get("CROSSJIT_SOURCE", "."))
CACHE = os.environ.get("CROSSJIT_CACHE")
HEADERS = pathlib.Path(os.environ.get("CROSSJIT_HEADERS", "/nonexistent"))
COMPILERS = str(pathlib.Path(__file__).with_name("compilers"))  # on PATH, what stands for the compilers
SERVERS = os.environ.get("CROSSJIT_LLVM_SERVERS")
PREAMBLES = os.environ.get("CROSSJIT_PREAMBLES")
LOG = pathlib.Path(os.environ.get("CROSSJIT_CACHE_LOG", os.devnull))
UNANSWERED = pathlib.Path(os.environ.get("CROSSJIT_UNANSWERED", "/nonexistent"))  # what build_python.sh cannot tell
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
    digest = Digest("configure", os.uname().release, *argv, *toolchain())
    digest.add_files(SOURCE, set(questions()))
    # what is there or not may be asked for, too; nobody asks that of the library and its tests
    for pattern in ("*/", "Include/*", "Modules/*", "Modules/*/", "Objects/*", "Parser/*", "Programs/*", "Python/*"):
        digest.add("\n".join(sorted(str(path.relative_to(SOURCE)) for path in SOURCE.glob(pattern))).encode())
    if restore("configure", digest.text()):
        print("configure: the same questions were answered before")
        return 0
    # What it compiles is never compiled again, so the compilers' cache would only have the work. And where it finds a
    # compiler may come to be installed: CXX, with its path.
    path = os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if folder != COMPILERS)
    status = subprocess.call(argv, env={**os.environ, "PATH": path})
    if status == 0 and not UNANSWERED.exists():
        keep("configure", digest.text(), sorted(os.listdir()))
    return status


def headers():
    """List the headers that a stencil can include; what is made of bytecodes.c comes into it piece by piece instead."""
    for folder in ("Include", "Tools/jit"):
        yield from (SOURCE / folder).rglob("*.h")
    yield from (path for path in (SOURCE / "Python").glob("*.h") if not path.name.endswith("_cases.c.h"))
    yield SOURCE / "Tools" / "jit" / "shim.c"


def before_make():
    """Note the headers' digest for llvm.c, and put back stencils of the same inputs."""
    config = pathlib.Path("pyconfig.h").read_bytes()
    digest = Digest("headers")
    digest.add_files(SOURCE, {path for path in headers() if path.is_file()})
    digest.add(config)
    HEADERS.write_text(digest.text())
    if not (SOURCE / "Tools" / "jit").is_dir() or not recipe():
        return 0
    key = Digest("stencils", digest.text(), "\n".join(recipe()), *toolchain())
    key.add((SOURCE / "Python" / "executor_cases.c.h").read_bytes())
    key.add_files(SOURCE, (path for path in (SOURCE / "Tools" / "jit").rglob("*") if "__pycache__" not in path.parts))
    if not restore("stencils", key.text(), fresh=True):
        PENDING.write_text(key.text())
        allow_preambles()
        start_servers()
    return 0


def allow_preambles():
    """Make the folder in which llvm.c has the stencils' preamble precompiled, if that is the same for all of them."""
    if PREAMBLES and not any(b"_JIT_OPCODE" in path.read_bytes() for path in headers() if path.is_file()):
        pathlib.Path(PREAMBLES).mkdir(exist_ok=True)


def start_servers():
    """Have CROSSJIT_LLVM_PROGRAMS wait in CROSSJIT_LLVM_SERVERS to be asked by llvm.c; those that cannot are not asked.

    They end with the container.
    """
    if not SERVERS:
        return
    folder = pathlib.Path(SERVERS)
    folder.mkdir(exist_ok=True)
    library = folder / "server.so"
    source = pathlib.Path(__file__).with_name("llvm_server.c")
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
    """Keep the stencils, if they were made."""
    patterns = ("jit_stencils*.h", "jit_unwind_info*.h", "jit_shim*.o", ".jit-stamp")
    found = sorted(path.name for pattern in patterns for path in pathlib.Path().glob(pattern))
    if PENDING.is_file() and found:
        keep("stencils", PENDING.read_text(), found)
        PENDING.unlink()
    return 0


def restore(part, key, fresh=False):
    """Unpack what is kept under a key; with `fresh`, as if it had just been made. False if there is nothing."""
    if not CACHE:
        return False
    kept = pathlib.Path(CACHE, part, f"{key}.tar")
    try:
        with tarfile.open(kept) as tar:
            for member in tar:
                if fresh:
                    member.mtime = os.stat(HEADERS).st_mtime
                tar.extract(member, filter="tar")
        os.utime(kept)
    except FileNotFoundError:
        return False
    log(part, "hit")
    return True


def keep(part, key, names):
    """Keep files and folders of this folder under a key."""
    log(part, "miss")
    if not CACHE:
        return
    kept = pathlib.Path(CACHE, part, f"{key}.tar")
    kept.parent.mkdir(parents=True, exist_ok=True)
    new = kept.with_name(f"{key}.{os.urandom(4).hex()}")  # builds may share the folder, process ids and all
    with tarfile.open(new, "w") as tar:
        for name in names:
            tar.add(name)
    new.replace(kept)


def log(part, what):
    """Write down a hit or a miss; llvm.c writes such lines, too."""
    if CACHE:
        with LOG.open("a") as file:
            file.write(f"{part} {what}\n")


def report():
    """Print hits and misses of this build as JSON, and remove what was used least where a part has grown too large."""
    found = {}

    def count(part, what, number=1):
        found.setdefault(part, {"hit": 0, "miss": 0})[what] += number

    with contextlib.suppress(OSError):
        for line in LOG.read_text().splitlines():
            count(*line.split())
    with contextlib.suppress(OSError, KeyError):
        for line in pathlib.Path(os.environ["CCACHE_STATSLOG"]).read_text().splitlines():
            if line in ("direct_cache_hit", "preprocessed_cache_hit", "cache_miss"):
                count("compiler", "miss" if line == "cache_miss" else "hit")
    print(json.dumps(found))
    if CACHE:
        for part, limit in LIMITS.items():
            trim(pathlib.Path(CACHE, part), limit)
    return 0


def trim(folder, limit):
    """Remove the files that were used longest ago until the folder is no larger than the limit."""
    files = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                about = path.stat()
                files.append((about.st_mtime, about.st_size, path))
    size = sum(each[1] for each in files)
    for _, bytes_of, path in sorted(files):
        if size <= limit:
            return
        path.unlink(missing_ok=True)
        size -= bytes_of


def sizes():
    """Print the bytes and files of each part as JSON."""
    found = {}
    for part in sorted(os.listdir(CACHE)) if CACHE else ():
        files = [path.stat().st_size for path in pathlib.Path(CACHE, part).rglob("*") if path.is_file()]
        found[part] = {"bytes": sum(files), "files": len(files), "limit": LIMITS.get(part)}
    print(json.dumps(found))
    return 0


COMMANDS = {"before-make": before_make, "after-make": after_make, "report": report, "sizes": sizes}

if __name__ == "__main__":
    if sys.argv[1] == "configure":
        sys.exit(configure(sys.argv[3:]))
    sys.exit(COMMANDS[sys.argv[1]]())
