"""The build of one cell: the commands are values, the build key is their digest, the engine runs them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import BinaryIO, TextIO

from crossjit import build_logic, channels, compilers, loading, sources, tars, trust
from crossjit.budget import BUILD_MEMORY, OWN_DISK, STRANGER_DISK
from crossjit.channels import MalformedError
from crossjit.engine.base import READ_ONLY, Container, Engine, EngineFacts, Limits
from crossjit.errors import BuildError, InfrastructureError, ScriptError
from crossjit.images import Image, Role
from crossjit.model import Arch, Strategy, Variant
from crossjit.progress import Progress, Step
from crossjit.sources import Kind, Source

# Every container sees the same folders, so that nothing in an artifact depends on where or how it was built.
ROOT = "/crossjit"
SOURCE = f"{ROOT}/src"
BUILD = f"{ROOT}/build"
INSTALL = f"{ROOT}/install"
PREFIX = "usr/local"  # what a build installs into, below INSTALL: elsewhere it would hit files of the target image
SUPPORT = f"{ROOT}/support"
GENERATED = f"{ROOT}/generated"
BUILD_PYTHON = f"{ROOT}/python"
TOOLS = f"{ROOT}/tools"
LLVM = f"{ROOT}/llvm"
COMPILERS = f"{TOOLS}/compilers"  # cache.py finds it beside itself
CACHE = "/cache"
SMALL_CACHE = {"CROSSJIT_CACHE_SMALL": "1"}  # for strangers: the smaller limits of entries.py
CACHE_BELOW = "/cache-below"  # another volume, of which a build may read what it does not find in its own
BUILDER = 1000  # the uid of `builder` in the toolchain images

# One constant instant for __DATE__, archives and .pyc files (https://reproducible-builds.org/specs/source-date-epoch/):
# with it py_compile writes hash-based .pyc files, which stay valid whatever time stamps an unpacked tree gets.
SOURCE_DATE_EPOCH = 1767225600

ENVIRONMENT: Mapping[str, str] = {
    "HOME": ROOT,
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    # clang by toolchain/llvm.c, compilers by toolchain/compiler.sh and ccache, whether there is a cache or not: the
    # outputs are the same. configure gets the compilers themselves, from toolchain/cache.py.
    # Compilers first: a clang that compiles CPython itself is none of the stencils'.
    "PATH": f"{COMPILERS}:{LLVM}/bin:/usr/local/bin:/usr/bin:/bin",
    "PYTHONHASHSEED": "0",
    "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
    "TZ": "UTC",
}

# pip is left out because nothing that crossjit runs needs it (ensurepip's wheels are installed with the library), the
# static library because nothing links to it and it is half of the install tree.
CONFIGURE = ("--prefix=/usr/local", "--without-ensurepip", "--without-static-libpython")

# What a cross configure cannot find out by running something; FACTS of CPython's own cross builds.
CROSS_ANSWERS = ("ac_cv_file__dev_ptmx=yes", "ac_cv_file__dev_ptc=no", "ac_cv_buggy_getaddrinfo=no")

# compileall's .pyc files depend on which file was compiled after which in one process: marshal's reference flags follow
# from what the process compiled before. toolchain/compile_library.py does it instead, so it is asked for nothing here.
NOT_COMPILED = "--help"

SCRIPTS = build_logic.SCRIPTS
SCRIPT_FAULT = 97  # how a script of ours ends if it fails itself, and not what it runs
_CACHE = ("python3", f"{TOOLS}/cache.py")
_CONFIGURE = (*_CACHE, "configure", "--")
_BESIDE = ("python3", f"{TOOLS}/beside.py")
_LLVM_TOOLS = ("clang", "llvm-dwarfdump", "llvm-objdump", "llvm-readobj")
_LLVM_STAND_IN = f"{TOOLS}/llvm"  # under the tools' names, too; linked statically, it starts in half the time
_COMPILE_LLVM_STAND_IN = ("/usr/bin/gcc", "-O1", "-static", "-o", _LLVM_STAND_IN, f"{TOOLS}/llvm.c")
_COMPILERS = ("gcc", "g++", *(f"{arch.triple}-{name}" for arch in Arch for name in ("gcc", "g++")))

MEMORY_PER_JOB = 1 << 30  # bytes; the largest compiler process of a CPython build takes less than that
LOG_TAIL = 25
DRY_RUN_BYTES = 8 << 20
DRY_RUN_SECONDS = 600  # asking make what there is to do; without an answer the work is done uncounted


@dataclass(frozen=True)
class Command:
    """One command of a build: its phase, what it runs, and in which folder. Everything here enters the build key."""

    phase: str
    argv: tuple[str, ...]
    cwd: str = BUILD


@dataclass(frozen=True)
class Ahead:
    """Work for the cores that some phases leave idle, of which a later phase then has less to do."""

    phases: tuple[str, ...]
    argv: tuple[str, ...]

    def beside(self, phase: str, jobs: int) -> tuple[str, ...]:
        """Return what the command of a phase is put behind, so that this runs beside it; nothing if no core is idle."""
        if phase not in self.phases or jobs == 1:
            return ()
        return (*_BESIDE, *self.argv, "--jobs", str(jobs - 1), "--")


@dataclass(frozen=True)
class BuildSpec:
    """All that decides a build's output. `key` is its digest; parallelism is not in it, since it decides nothing.

    `packages` is the fingerprint of the toolchain image's packages, compilers and libraries included; `logic` is
    the digest of crossjit's own part in it, `python` one of all that what the library is byte-compiled to depends on,
    beside the library and the script that does it. `core`
    decides nothing either: it is the digest of the source without its tests, empty where the rest of the output might
    depend on these, and builds that differ in nothing else have one `core_key`. Nor does `ahead`. `domain` is the
    source's trust domain: what one domain builds has other keys than what another does. `emulator` is the QEMU that the
    compiler runs under and the CPU model that it plays, empty where it runs by itself.
    """

    source: str
    arch: Arch
    strategy: Strategy
    toolchain: str
    packages: str
    llvm: str | None
    commands: tuple[Command, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    build_python: str | None = None
    logic: str = ""
    python: str = ""
    core: str = ""
    ahead: Ahead | None = None
    domain: str = trust.RECIPES
    emulator: str = ""

    @property
    def key(self) -> str:
        """The build key: 64 hex digits."""
        return self._digest(self.source)

    @property
    def core_key(self) -> str | None:
        """What builds of sources that differ in their tests only have in common; None where that is not known."""
        return self._digest(self.core) if self.core else None

    def _digest(self, source: str) -> str:
        decides = {**asdict(self), "source": source}
        del decides["core"], decides["ahead"]
        text = json.dumps(decides, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def configure(self) -> Command:
        """The command that configures."""
        return next(command for command in self.commands if command.phase == "configure")

    @property
    def compilers(self) -> tuple[str, ...]:
        """The compilers that configure is told: commands, the C compiler's first; none where it chooses."""
        told = dict(argument.partition("=")[::2] for argument in self.configure.argv)
        return tuple(told[name] for name in ("CC", "CXX") if name in told)

    @property
    def configure_line(self) -> str:
        """The configure command as one would type it."""
        return shlex.join(self.configure.argv)


@dataclass(frozen=True)
class Built:
    """What a build left in its container while it is open: phases with wall seconds, and the compiler that it used."""

    seconds: Mapping[str, float]
    compiler: str

    def after(self, phase: str, seconds: float) -> Built:
        """Return it with the time of one more phase."""
        return replace(self, seconds={**self.seconds, phase: seconds})


def specify(
    source: Source,
    variant: Variant,
    arch: Arch,
    strategy: Strategy,
    toolchain: Image,
    *,
    build_python: str | None = None,
    domain: str = trust.RECIPES,
    emulator: str = "",
) -> BuildSpec:
    """Say how a variant of a source is built. Pure.

    `build_python` is the build key of a cross build's own Python, which stands for whatever serves as that; `domain`
    and `emulator` are as in BuildSpec.
    """
    compiler = compilers.named(variant, arch, strategy, toolchain, source.llvm)
    answers = CROSS_ANSWERS if strategy is Strategy.CROSS else ()  # a variant may know better
    configure = [f"{SOURCE}/configure", *CONFIGURE, *answers, *compilers.other_arguments(variant)]
    configure += [f"{name}={command}" for name, command in compiler.items()]
    environment = {**ENVIRONMENT, **variant.variables(f"{SOURCE}/Tools")}
    if strategy is Strategy.CROSS:
        configure += [
            f"--build={toolchain.arch.triple}",
            f"--host={arch.triple}",
            f"--with-build-python={BUILD_PYTHON}/{python_of(source)}",
        ]
        # what runs CPython's tools may be a build with the JIT, which is what is being worked on
        environment["PYTHON_JIT"] = "0"
        environment["PKG_CONFIG_LIBDIR"] = f"/usr/lib/{arch.triple}/pkgconfig:/usr/share/pkgconfig"
    llvm = source.llvm if variant.needs_llvm else None
    if llvm is not None:
        # 3.15 looks for its tools here first; before, `clang-N` on PATH is found by its name.
        environment["LLVM_TOOLS_INSTALL_DIR"] = LLVM
    return BuildSpec(
        source=source.digest,
        arch=arch,
        strategy=strategy,
        toolchain=toolchain.key,
        packages=toolchain.fingerprint,
        llvm=llvm,
        commands=(
            Command("configure", tuple(configure)),
            *(Command("regenerate", ("make", *shlex.split(make))) for make in source.regenerate),
            Command("make", ("make",)),
            Command("install", ("make", "install", f"DESTDIR={INSTALL}", f"COMPILEALL_OPTS={NOT_COMPILED}")),
            Command("compile", _compile(source, variant, strategy)),
            Command("support", ("sh", "-c", _SUPPORT)),
        ),
        environment=environment,
        build_python=build_python if strategy is Strategy.CROSS else None,
        logic=build_logic.whole_digest(),
        python=identify_python(source, strategy, toolchain, _deciding(variant, strategy)),
        core=_core(source),
        ahead=_ahead(source, variant, strategy),
        domain=domain,
        emulator=emulator if strategy is Strategy.EMULATE else "",
    )


def _core(source: Source) -> str:
    """Return the digest of the source without its tests if these decide nothing of a build's output but themselves.

    An archive's files have time stamps of their own, by which make may go and which no digest of its content has. Where
    files are made anew first, the builder's copy of the source gets .pyc files of what ran meanwhile, and what compiles
    the library later reads those: no other build has them.
    """
    return "" if source.kind is Kind.ARCHIVE or source.regenerate else source.core


def identify_python(source: Source, strategy: Strategy, toolchain: Image, options: tuple[str, ...] = ()) -> str:
    """Return a digest that tells Pythons apart that may compile the same file to other bytes.

    `options` are those of its configuration that may change what it compiles. A native build's runs before its library
    is compiled: what of that it imports, it compiles itself, and then has interned other strings than one that is
    installed, of which marshal tells (`functools` of 3.15 comes out other).
    """
    what = (source.compiled, *source.regenerate, strategy, toolchain.key, toolchain.fingerprint, *options)
    return hashlib.sha256("\0".join(what).encode()).hexdigest()


def _deciding(variant: Variant, strategy: Strategy) -> tuple[str, ...]:
    """Return a variant's options if they may change what its library is compiled to: a cross build's Python is a plain
    one (see `build_python`).
    """
    return () if strategy is Strategy.CROSS or variant.is_plain else variant.configure


def python_of(source: Source) -> str:
    """Return where an install tree of a source has its Python."""
    return f"usr/local/bin/python{_version_of(source)}"


def library_of(source: Source) -> str:
    """Return where an install tree of a source has the library, if it is not free-threaded."""
    return f"usr/local/lib/python{_version_of(source)}"


def _version_of(source: Source) -> str:
    return ".".join(map(str, source.python))


def _compile(source: Source, variant: Variant, strategy: Strategy) -> tuple[str, ...]:
    """Say how the library is byte-compiled: by the Python that CPython's Makefile would use, its own JIT off."""
    crossing = strategy is Strategy.CROSS
    python = f"{BUILD_PYTHON}/{python_of(source)}" if crossing else "./python"
    libpython = (f"LD_LIBRARY_PATH={BUILD}",) if variant.is_shared and not crossing else ()
    return (
        "env",
        "PYTHON_JIT=0",
        *libpython,
        python,
        f"{TOOLS}/compile_library.py",
        "--root",
        INSTALL,
        "--prefix",
        "/usr/local",
    )


def _ahead(source: Source, variant: Variant, strategy: Strategy) -> Ahead | None:
    """Say what has most of the library byte-compiled, and when: in the phases of one core that have a Python.

    Where files are made anew, the source has .pyc files of what ran by then, and more of them with each Python that
    runs: the one that compiles in the end would have interned other strings (see `identify_python`).
    """
    if source.regenerate:
        return None
    library = f"python{_version_of(source)}{'t' if variant.free_threaded else ''}"
    return Ahead(
        phases=("configure", "install") if strategy is Strategy.CROSS else ("install",),
        argv=(*_compile(source, variant, strategy), "--ahead", f"{SOURCE}/Lib", "--library", library),
    )


# Beside the install tree: Tools/, which the tests of the cases generator and a debugger need, and what the build
# made of the stencils, to compare and to look at. config.log stays out: it names process ids; so does what Python kept
# of the tools that it ran, which depends on which of them ran, and in which Python.
_SUPPORT = f"""set -e
[ -d {SOURCE}/Tools ] || exit 1
trap '[ $? -eq 0 ] || exit {SCRIPT_FAULT}' EXIT
cp -R {SOURCE}/Tools {SUPPORT}/Tools
find {SUPPORT}/Tools -name __pycache__ -prune -exec rm -R {{}} +
for file in pyconfig.h python-gdb.py jit_stencils*.h jit_unwind_info*.h jit_shim*.o; do
    if [ -e "$file" ]; then cp "$file" {GENERATED}/; fi
done
"""


# What compiled it is what its Makefile says, whatever was asked for.
_USED_COMPILER = (
    r"""cc=$(sed -n 's/^CC[[:space:]]*=[[:space:]]*//p' Makefile 2>/dev/null | head -n 1); ${cc:-cc} --version"""
)


def jobs_for(facts: EngineFacts, wanted: int) -> int:
    """Return make's parallelism: what the user wants, else the engine's cores as far as its memory allows."""
    return wanted or max(1, min(facts.cores, facts.memory // MEMORY_PER_JOB))


def compile_in(
    container: Container,
    spec: BuildSpec,
    *,
    unpack: Callable[[], None],
    subject: str,
    jobs: int,
    log: TextIO,
    progress: Progress,
) -> Built:
    """Run the spec's commands in a toolchain container that `unpack` fills; leaves INSTALL, SUPPORT and GENERATED
    filled.

    Raises BuildError with the relevant lines, the command and how it ended; engine failures come through as they are.
    """
    seconds = run(
        container, unpack, spec.commands, subject=subject, jobs=jobs, log=log, progress=progress, ahead=spec.ahead
    )
    return Built(seconds=seconds, compiler=_first_line(container, ("sh", "-c", _USED_COMPILER), cwd=BUILD))


def ask(container: Container, spec: BuildSpec, source: Source) -> None:
    """Fill a fresh toolchain container and have configure answer there, for the build of the spec to find it in the
    cache.

    A cross build's own Python need not be there yet. How it ends does not matter to anybody: the build will tell.
    """
    fill(container, spec, source)
    if spec.strategy is Strategy.CROSS:
        stand_in = {python_of(source): (SCRIPTS / "build_python.sh").read_bytes()}
        with tars.packed(stand_in, owner=BUILDER, mode=0o755) as tar:
            container.put(tar, BUILD_PYTHON)
    container.run((*_CONFIGURE, *spec.configure.argv), cwd=spec.configure.cwd)


def run(
    container: Container,
    unpack: Callable[[], None],
    commands: Iterable[Command],
    *,
    subject: str,
    jobs: int,
    log: TextIO,
    progress: Progress,
    ahead: Ahead | None = None,
) -> dict[str, float]:
    """Put into a container what is built of, and run commands there, one after the other.

    Returns wall seconds by phase. Raises BuildError.
    """
    started = time.monotonic()
    with progress.step("unpack", subject):
        unpack()
    seconds = {"unpack": time.monotonic() - started}
    for command in commands:
        started = time.monotonic()
        with progress.step(command.phase, subject) as step:
            beside = ahead.beside(command.phase, jobs) if ahead else ()
            _run(container, command, jobs, log, step, beside)
        seconds[command.phase] = seconds.get(command.phase, 0.0) + time.monotonic() - started
    return seconds


def fill(container: Container, spec: BuildSpec, source: Source) -> None:
    """Put the source, the folders to build in and our scripts into a fresh container: all but a cross build's own
    Python, which goes into BUILD_PYTHON.
    """
    folders = (ROOT, BUILD, INSTALL, SUPPORT, GENERATED, BUILD_PYTHON, TOOLS, COMPILERS, LLVM, f"{LLVM}/bin", CACHE)
    container.put(scripts(spec.llvm, folders, compilers.stand_ins(spec.compilers)), "/")
    if spec.llvm is not None:
        _require(container, _COMPILE_LLVM_STAND_IN)
    with sources.open_tar(source) as tar:
        container.put(tar, ROOT)
    # What is unpacked belongs to root or whoever packed it; a copy belongs to the builder, who is to write to it.
    take = ("cp", "-R", "--preserve=mode,timestamps") if source.regenerate else ("mv",)
    _require(container, (*take, f"{ROOT}/{source.top}", SOURCE))


def container_name(subject: str, run: str) -> str:
    """Name a container after what it does and the run that started it."""
    return f"crossjit-{re.sub(r'[^A-Za-z0-9_.-]+', '-', subject)}-{run}-{os.urandom(2).hex()}"


def build_limits(facts: EngineFacts, share: int = BUILD_MEMORY, domain: str = trust.RECIPES) -> Limits:
    """Return what a build of a trust domain may use: a share of the memory, in percent, disk, and a day, since it may
    be emulated on a slow machine.
    """
    disk = STRANGER_DISK if trust.is_stranger(domain) else OWN_DISK
    return Limits(memory=facts.memory * share // 100, seconds=24 * 3600, disk=disk)


def open_container(
    engine: Engine,
    toolchain: Image,
    spec: BuildSpec,
    *,
    facts: EngineFacts,
    name: str,
    labels: Mapping[str, str],
    emulation: Mapping[str, str],
    cache: str | None = None,
    below: str | None = None,
    memory: int = BUILD_MEMORY,
) -> AbstractContextManager[Container]:
    """Start the container of one build: no network, no capabilities, the unprivileged builder.

    `cache` is a volume's name; without one the build does everything itself. `below` is another's, mounted read-only:
    the build takes from there what it does not find in `cache`. `memory` is its share in percent.
    """
    volumes = {cache: CACHE} if cache is not None else {}
    if below is not None:
        volumes[below] = f"{CACHE_BELOW}{READ_ONLY}"
    return engine.container(
        toolchain.reference,
        arch=toolchain.arch,
        name=name,
        labels=labels,
        env={**spec.environment, **emulation, **bookkeeping(spec, cached=cache is not None, below=below is not None)},
        user=f"{BUILDER}:{BUILDER}",
        network=False,
        limits=build_limits(facts, memory, spec.domain),
        volumes=volumes,
    )


def bookkeeping(spec: BuildSpec, *, cached: bool, below: bool = False) -> Mapping[str, str]:
    """Return what ccache and our scripts go by. No output depends on it, so it is not in the build key."""
    toolchain = " ".join(filter(None, (spec.toolchain, spec.packages, build_logic.scripts_digest(), spec.emulator)))
    here = {
        "CROSSJIT_SOURCE": SOURCE,
        "CROSSJIT_TOOLCHAIN": toolchain,
        "CROSSJIT_LLVM": f"/usr/lib/llvm-{spec.llvm}",
        "CROSSJIT_HEADERS": f"{TOOLS}/headers",
        "CROSSJIT_CACHE_LOG": f"{TOOLS}/log",
        "CROSSJIT_COMPILER": spec.python,
        "CROSSJIT_UNANSWERED": f"{TOOLS}/unanswered",
        "CROSSJIT_COMPILED": f"{CACHE if cached else TOOLS}/pyc",
    }
    if not cached:
        return {**here, "CCACHE_DISABLE": "1"}
    if spec.strategy is not Strategy.EMULATE:  # neither was tried under QEMU
        here["CROSSJIT_PREAMBLES"] = f"{TOOLS}/preambles"
        here["CROSSJIT_LLVM_SERVERS"] = f"{TOOLS}/servers"
        here["CROSSJIT_LLVM_PROGRAMS"] = " ".join(_LLVM_TOOLS)
    storage = f"file:{CACHE}/ccache|update-mtime=true"
    if below:
        here["CROSSJIT_CACHE_BELOW"] = CACHE_BELOW
        here["CROSSJIT_COMPILED_BELOW"] = f"{CACHE_BELOW}/pyc"
        storage += f" file:{CACHE_BELOW}/ccache|read-only=true"
    if trust.is_stranger(spec.domain):
        here |= SMALL_CACHE
    return {
        **here,
        "CROSSJIT_CACHE": CACHE,
        # ccache fails where its own folder is damaged or cannot be written, and compiles where its remote storage is
        "CCACHE_DIR": f"{TOOLS}/ccache",
        "CCACHE_REMOTE_ONLY": "true",
        "CCACHE_REMOTE_STORAGE": storage,
        "CCACHE_COMPILERCHECK": f"string:{toolchain}",
        "CCACHE_STATSLOG": f"{TOOLS}/ccache.log",
    }


def cache_report(
    container: Container, remark: Callable[[str], object] = lambda text: None
) -> dict[str, tuple[int, int]]:
    """Ask where a cell was built how often each cache had an answer and how often not, by its name: (hits, misses).

    The caches are trimmed meanwhile. What cannot be read is worth a remark, and nothing.
    """
    try:
        return channels.cache_report(_first_line(container, (*_CACHE, "report")))
    except MalformedError as error:
        remark(f"the caches' hits and misses cannot be read: {error}")
        return {}


def _run(container: Container, command: Command, jobs: int, log: TextIO, step: Step, through: tuple[str, ...]) -> None:
    argv = command.argv
    expected: frozenset[str] = frozenset()
    match command.phase:
        case "configure":
            through = (*through, *_CONFIGURE)
        case "regenerate":
            argv = (*argv, f"-j{jobs}")
            step.update(detail=argv[1])
        case "make":
            _require(container, (*_CACHE, "before-make"), cwd=command.cwd)
            expected = _make_commands(container, command)
            argv = (*argv, f"-j{jobs}")
        case "compile":
            argv = (*argv, "--jobs", str(jobs))
    done = 0
    tail: deque[str] = deque(maxlen=400)

    def on_line(line: str) -> None:
        nonlocal done
        log.write(line + "\n")
        tail.append(line)
        step.line(line)
        if line in expected:
            done += 1
            step.update(done=done, total=len(expected), detail=_target_of(line))
        elif command.phase == "configure" and line.startswith("checking "):
            step.update(detail=line.partition("...")[0])

    log.write(f"$ cd {command.cwd} && {shlex.join(argv)}\n")
    completed = container.run((*through, *argv), cwd=command.cwd, on_line=on_line)
    log.write(f"# {completed.how} after {completed.seconds:.1f} s\n")
    log.flush()
    if completed.returncode == SCRIPT_FAULT and _is_ours((*through, *argv)):
        raise ScriptError(
            f"{command.phase} failed: our own script did, or the machine",
            hint="see whether the disk is full; the whole log is in the run record",
            details=tuple(tail)[-LOG_TAIL:],
        )
    if completed.returncode:
        if trouble := loading.trouble(tail, Role.TOOLCHAIN):
            raise trouble
        raise BuildError(
            f"{command.phase} failed: {completed.how}",
            hint="the whole log is in the run record; a source that builds elsewhere may need another image or LLVM",
            details=(f"$ cd {command.cwd} && {shlex.join(argv)}", *relevant_lines(tail)),
        )
    if command.phase == "make":
        _require(container, (*_CACHE, "after-make"), cwd=command.cwd)


def _is_ours(argv: Sequence[str]) -> bool:
    """Tell whether a command runs a script of ours, which ends with SCRIPT_FAULT for what is not the command's."""
    return any(word.startswith(f"{TOOLS}/") or word == _SUPPORT for word in argv)


def _make_commands(container: Container, command: Command) -> frozenset[str]:
    """Ask make what it would run, so that the share of work done is counted and not guessed.

    With `-k`, since the rules of 3.15 for the stencils fail in a dry run: they call make again and look for its result.
    No more is kept than a build of CPython comes near to: beyond it the work is done uncounted.
    """
    found: set[str] = set()
    size = 0

    def take(line: str) -> None:
        nonlocal size
        if size < DRY_RUN_BYTES and (" -o " in line or "/Tools/jit/build.py" in line):
            found.add(line)
            size += len(line)

    container.run((*command.argv, "-n", "-k"), cwd=command.cwd, on_line=take, timeout=DRY_RUN_SECONDS)
    return frozenset(found) if size < DRY_RUN_BYTES else frozenset()


def _target_of(line: str) -> str:
    found = re.search(r" -o (\S+)", line)
    if found:
        return found[1]
    return "stencils" if "Tools/jit/build.py" in line else line.split(" ", 1)[0]


_TROUBLE = re.compile(r"(?:\berror\b|\bError\b|ERROR|undefined reference|No such file|Traceback|fatal|\*\*\*)")


def relevant_lines(lines: Sequence[str] | deque[str], limit: int = LOG_TAIL) -> tuple[str, ...]:
    """Pick what a person wants to see of a failed command's output: trouble with what stands around it, and the end.

    Only what is shown is chosen by its words; whether something failed is known from the exit status alone.
    """
    lines = list(lines)
    first = next((number for number, line in enumerate(lines) if _TROUBLE.search(line)), None)
    if first is None or first >= len(lines) - limit:
        return tuple(lines[-limit:])
    head = lines[max(0, first - 2) : first + limit // 2]
    end = lines[-(limit - len(head)) :]
    return (*head, "…", *end)


def scripts(llvm: str | None, folders: Sequence[str] = (), more: Sequence[str] = ()) -> BinaryIO:
    """Make a tar of what runs in a toolchain container: our scripts, and what stands for compilers and LLVM's tools.

    Before them come the builder's empty folders. `more` are compilers' names beside the usual ones.
    """
    ours = (*sorted(SCRIPTS.glob("*.py")), SCRIPTS / "compiler.sh", *sorted(SCRIPTS.glob("*.c")))
    files = {f"{TOOLS}/{path.name}": path.read_bytes() for path in ours}
    links = {f"{COMPILERS}/{name}": f"{TOOLS}/compiler.sh" for name in (*_COMPILERS, *more)}
    if llvm is not None:
        names = (name for tool in _LLVM_TOOLS for name in (tool, f"{tool}-{llvm}"))
        links |= {f"{LLVM}/bin/{name}": _LLVM_STAND_IN for name in names}
    return tars.packed(files, dict.fromkeys(folders, BUILDER), links=links, owner=BUILDER, mode=0o755)


def _require(container: Container, argv: tuple[str, ...], *, cwd: str | None = None) -> None:
    """Run a command of ours that has no reason to fail."""
    lines: deque[str] = deque(maxlen=LOG_TAIL)
    completed = container.run(argv, cwd=cwd, on_line=lines.append)
    if completed.returncode:
        raise InfrastructureError(
            f"{shlex.join(argv)} failed in the build container: {completed.how}", details=tuple(lines)
        )


def _first_line(container: Container, argv: tuple[str, ...], *, cwd: str | None = None) -> str:
    found: deque[str] = deque(maxlen=1)

    def take(line: str) -> None:
        if not found:
            found.append(line)

    container.run(argv, cwd=cwd, on_line=take)
    return "".join(found)
