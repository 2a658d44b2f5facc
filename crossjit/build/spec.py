"""The build of one cell: the commands are values, the build key is their digest, the engine runs them."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from crossjit.build import compilers, logic
from crossjit.build.layout import (
    BUILD,
    BUILD_PYTHON,
    CACHE_SCRIPT,
    COMPILERS,
    GENERATED,
    INSTALL,
    LLVM,
    ROOT,
    RUN_ALONGSIDE,
    SCRIPT_FAULT,
    SOURCE,
    SUPPORT,
    TOOLS,
    python_of,
    version_of,
)
from crossjit.images import Image
from crossjit.model import Arch, Strategy, Variant
from crossjit.sources import Kind, Source, trust

# One constant instant for __DATE__, archives and .pyc files (https://reproducible-builds.org/specs/source-date-epoch/):
# with it py_compile writes hash-based .pyc files, which stay valid whatever time stamps an unpacked tree gets.
SOURCE_DATE_EPOCH = 1767225600

ENVIRONMENT: Mapping[str, str] = {
    "HOME": ROOT,
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    # clang by toolchain/llvm_cache.c, compilers by toolchain/compiler.sh and ccache, whether there is a cache or not:
    # the outputs are the same. configure gets the compilers themselves, from toolchain/build_cache.py.
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

MAKE_JOBS = ("-j{jobs}",)


class Phase(StrEnum):
    """A part of a build, in the order in which they come."""

    CONFIGURE = "configure"
    REGENERATE = "regenerate"
    MAKE = "make"
    INSTALL = "install"
    TESTS = "tests"
    COMPILE = "compile"
    SUPPORT = "support"


@dataclass(frozen=True)
class Command:
    """One command of a build: its phase, what it runs, and in which folder. Everything here enters the build key.

    `wrapper` is a script of ours that runs it, `parallel` how it is told the number of jobs, which is written `{jobs}`
    there; `before` and `after` are scripts of ours that run before it and after it succeeded.
    """

    phase: Phase
    argv: tuple[str, ...]
    cwd: str = BUILD
    wrapper: tuple[str, ...] = ()
    parallel: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def argv_for(self, jobs: int) -> tuple[str, ...]:
        """Return the command without its wrapper, with as many jobs at a time."""
        return (*self.argv, *(word.format(jobs=jobs) for word in self.parallel))


@dataclass(frozen=True)
class BackgroundTask:
    """Work for the cores that some phases leave idle, of which a later phase then has less to do."""

    phases: tuple[Phase, ...]
    argv: tuple[str, ...]

    def alongside(self, phase: Phase, jobs: int) -> tuple[str, ...]:
        """Return what the command of a phase is put behind, so that this runs beside it; nothing if no core is idle."""
        if phase not in self.phases or jobs == 1:
            return ()
        return (*RUN_ALONGSIDE, *self.argv, "--jobs", str(jobs - 1), "--")


@dataclass(frozen=True)
class BuildSpec:
    """All that decides a build's output. `key` is its digest; parallelism is not in it, since it decides nothing.

    `packages` is the fingerprint of the toolchain image's packages, compilers and libraries included; `logic` is
    the digest of crossjit's own part in it, `python` one of all that what the library is byte-compiled to depends on,
    beside the library and the script that does it. `core`
    decides nothing either: it is the digest of the source without its tests, empty where the rest of the output might
    depend on these, and builds that differ in nothing else have one `base_key`. Nor does `ahead`. `domain` is the
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
    ahead: BackgroundTask | None = None
    domain: str = trust.RECIPES
    emulator: str = ""

    @property
    def key(self) -> str:
        """The build key: 64 hex digits."""
        return self._digest(self.source)

    @property
    def base_key(self) -> str | None:
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
        return next(command for command in self.commands if command.phase is Phase.CONFIGURE)

    @property
    def compilers(self) -> tuple[str, ...]:
        """The compilers that configure is told: commands, the C compiler's first; none where it chooses."""
        told = dict(argument.partition("=")[::2] for argument in self.configure.argv)
        return tuple(told[name] for name in ("CC", "CXX") if name in told)

    @property
    def configure_line(self) -> str:
        """The configure command as one would type it."""
        return shlex.join(self.configure.argv)


def make_spec(
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
    llvm = source.llvm if variant.needs_llvm else None
    return BuildSpec(
        source=source.digest,
        arch=arch,
        strategy=strategy,
        toolchain=toolchain.key,
        packages=toolchain.fingerprint,
        llvm=llvm,
        commands=_commands(source, variant, strategy, _configure(source, variant, arch, strategy, toolchain)),
        environment=_environment(variant, arch, strategy, llvm),
        build_python=build_python if strategy is Strategy.CROSS else None,
        logic=logic.whole_digest(),
        python=identify_python(source, strategy, toolchain, _deciding(variant, strategy)),
        core=_core(source),
        ahead=_ahead(source, variant, strategy),
        domain=domain,
        emulator=emulator if strategy is Strategy.EMULATE else "",
    )


def _configure(source: Source, variant: Variant, arch: Arch, strategy: Strategy, toolchain: Image) -> tuple[str, ...]:
    """Return the configure line."""
    crossing = strategy is Strategy.CROSS
    answers = CROSS_ANSWERS if crossing else ()  # a variant may know better
    line = [f"{SOURCE}/configure", *CONFIGURE, *answers, *compilers.other_arguments(variant)]
    named = compilers.named(variant, arch, strategy, toolchain, source.llvm)
    line += [f"{name}={command}" for name, command in named.items()]
    if crossing:
        line += [f"--build={toolchain.arch.triple}", f"--host={arch.triple}"]
        line += [f"--with-build-python={BUILD_PYTHON}/{python_of(source)}"]
    return tuple(line)


def _environment(variant: Variant, arch: Arch, strategy: Strategy, llvm: str | None) -> Mapping[str, str]:
    """Return the variables that the commands run with."""
    environment = {**ENVIRONMENT, **variant.variables(f"{SOURCE}/Tools")}
    if strategy is Strategy.CROSS:
        # what runs CPython's tools may be a build with the JIT, which is what is being worked on
        environment["PYTHON_JIT"] = "0"
        environment["PKG_CONFIG_LIBDIR"] = f"/usr/lib/{arch.triple}/pkgconfig:/usr/share/pkgconfig"
    if llvm is not None:
        # 3.15 looks for its tools here first; before, `clang-N` on PATH is found by its name.
        environment["LLVM_TOOLS_INSTALL_DIR"] = LLVM
    return environment


def _commands(source: Source, variant: Variant, strategy: Strategy, configure: tuple[str, ...]) -> tuple[Command, ...]:
    """Return the commands, in order."""
    install = ("make", "install", f"DESTDIR={INSTALL}", f"COMPILEALL_OPTS={NOT_COMPILED}")
    regenerate = (("make", *shlex.split(targets)) for targets in source.regenerate)
    return (
        Command(Phase.CONFIGURE, configure, wrapper=(*CACHE_SCRIPT, "configure", "--")),
        *(Command(Phase.REGENERATE, make, parallel=MAKE_JOBS) for make in regenerate),
        Command(
            Phase.MAKE,
            ("make",),
            parallel=MAKE_JOBS,
            before=(*CACHE_SCRIPT, "before-make"),
            after=(*CACHE_SCRIPT, "after-make"),
        ),
        Command(Phase.INSTALL, install),
        Command(Phase.COMPILE, _compile(source, variant, strategy), parallel=("--jobs", "{jobs}")),
        Command(Phase.SUPPORT, ("sh", "-c", SUPPORT_SCRIPT)),
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


def _ahead(source: Source, variant: Variant, strategy: Strategy) -> BackgroundTask | None:
    """Say what has most of the library byte-compiled, and when: in the phases of one core that have a Python.

    Where files are made anew, the source has .pyc files of what ran by then, and more of them with each Python that
    runs: the one that compiles in the end would have interned other strings (see `identify_python`).
    """
    if source.regenerate:
        return None
    library = f"python{version_of(source)}{'t' if variant.free_threaded else ''}"
    return BackgroundTask(
        phases=(Phase.CONFIGURE, Phase.INSTALL) if strategy is Strategy.CROSS else (Phase.INSTALL,),
        argv=(*_compile(source, variant, strategy), "--ahead", f"{SOURCE}/Lib", "--library", library),
    )


# Beside the install tree: Tools/, which the tests of the cases generator and a debugger need, and what the build
# made of the stencils, to compare and to look at. config.log stays out: it names process ids; so does what Python kept
# of the tools that it ran, which depends on which of them ran, and in which Python.
SUPPORT_SCRIPT = f"""set -e
[ -d {SOURCE}/Tools ] || exit 1
trap '[ $? -eq 0 ] || exit {SCRIPT_FAULT}' EXIT
cp -R {SOURCE}/Tools {SUPPORT}/Tools
find {SUPPORT}/Tools -name __pycache__ -prune -exec rm -R {{}} +
for file in pyconfig.h python-gdb.py jit_stencils*.h jit_unwind_info*.h jit_shim*.o; do
    if [ -e "$file" ]; then cp "$file" {GENERATED}/; fi
done
"""
