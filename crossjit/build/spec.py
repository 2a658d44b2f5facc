"""The specification of one cell's build: its commands and all other inputs, whose digest is the build key."""

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
from crossjit.model import Arch, Platform, Strategy, Variant
from crossjit.sources import Kind, Source, trust

# A constant time for __DATE__, archives and .pyc files (https://reproducible-builds.org/specs/source-date-epoch/). It
# makes py_compile write hash-based .pyc files, which stay valid when an unpacked tree has different time stamps.
SOURCE_DATE_EPOCH = 1767225600

ENVIRONMENT: Mapping[str, str] = {
    "HOME": ROOT,
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    # Wrappers, with and without a cache: toolchain/compiler.sh (with ccache) for compilers, toolchain/llvm_cache.c for
    # LLVM's tools. For configure, toolchain/build_cache.py removes the compilers' wrappers from PATH.
    # COMPILERS is first, since a clang that compiles CPython itself is not the one for stencils.
    "PATH": f"{COMPILERS}:{LLVM}/bin:/usr/local/bin:/usr/bin:/bin",
    "PYTHONHASHSEED": "0",
    "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
    "TZ": "UTC",
}

# Without pip, which crossjit does not need (ensurepip's wheels are installed with the library), and without the static
# library, which is unused and half of the install tree.
CONFIGURE = ("--prefix=/usr/local", "--without-ensurepip", "--without-static-libpython")

# Results of checks that configure cannot run in a cross build; CPython's own cross builds set the same ones.
CROSS_ANSWERS = ("ac_cv_file__dev_ptmx=yes", "ac_cv_file__dev_ptc=no", "ac_cv_buggy_getaddrinfo=no")

# compileall's .pyc files depend on the files that its process compiled before, which marshal's reference flags show. So
# toolchain/compile_library.py replaces compileall, which only prints its help during `make install`.
NOT_COMPILED = "--help"

MAKE_JOBS = ("-j{jobs}",)


class Phase(StrEnum):
    """The parts of a build, in order."""

    CONFIGURE = "configure"
    REGENERATE = "regenerate"
    MAKE = "make"
    INSTALL = "install"
    TESTS = "tests"
    COMPILE = "compile"
    SUPPORT = "support"


@dataclass(frozen=True)
class Command:
    """One command of a build. Every field is part of the build key.

    `wrapper` is a script of ours that runs it. `parallel` are the arguments that set the number of jobs, as `{jobs}`.
    `before` and `after` are scripts of ours that run before it, and after it has succeeded.
    """

    phase: Phase
    argv: tuple[str, ...]
    cwd: str = BUILD
    wrapper: tuple[str, ...] = ()
    parallel: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def argv_for(self, jobs: int) -> tuple[str, ...]:
        """Return the command without its wrapper, for this number of jobs."""
        return (*self.argv, *(word.format(jobs=jobs) for word in self.parallel))


@dataclass(frozen=True)
class BackgroundTask:
    """Work of a later phase that runs ahead on idle cores, during `phases`."""

    phases: tuple[Phase, ...]
    argv: tuple[str, ...]

    def alongside(self, phase: Phase, jobs: int) -> tuple[str, ...]:
        """Return the prefix for a phase's command that runs this task alongside; empty if no core is idle."""
        if phase not in self.phases or jobs == 1:
            return ()
        return (*RUN_ALONGSIDE, *self.argv, "--jobs", str(jobs - 1), "--")


@dataclass(frozen=True)
class BuildSpec:
    """All inputs of a build's output. `key` is their digest; the number of jobs affects no output and is not in it.

    `packages` is the fingerprint of the toolchain image's packages, including compilers and libraries; `logic` is the
    digest of crossjit's own code. `python` is a digest of the inputs of the library's .pyc files besides the library
    and the script that compiles it. `domain` is the source's trust domain: keys of different domains differ.
    `emulator` is the QEMU that the compiler runs under, with its CPU model; empty without emulation. `llvm_folder` is
    where the toolchain has its LLVM, empty if none is needed. `on_host` says that this machine is the toolchain,
    `platform` is its system.

    `core` and `ahead` affect no output. `core` is the digest of the source without its tests, empty if other output
    might depend on the tests; builds that differ only in their tests have the same `base_key`.
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
    llvm_folder: str = ""
    on_host: bool = False
    platform: Platform = Platform.LINUX

    @property
    def key(self) -> str:
        """The build key: 64 hex digits."""
        return self._digest(self.source)

    @property
    def base_key(self) -> str | None:
        """The common key of builds that differ only in their tests; None if other output might depend on the tests."""
        return self._digest(self.core) if self.core else None

    def _digest(self, source: str) -> str:
        inputs = {**asdict(self), "source": source}
        del inputs["core"], inputs["ahead"]
        text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def configure(self) -> Command:
        """The configure command."""
        return next(command for command in self.commands if command.phase is Phase.CONFIGURE)

    @property
    def compilers(self) -> tuple[str, ...]:
        """The commands of configure's CC and CXX, in this order; empty if configure chooses the compilers."""
        arguments = dict(argument.partition("=")[::2] for argument in self.configure.argv)
        return tuple(arguments[name] for name in ("CC", "CXX") if name in arguments)

    @property
    def configure_line(self) -> str:
        """The configure command, quoted for a shell."""
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
    """Specify the build of a source's variant. Pure. Raises InfrastructureError if the host lacks an LLVM for it.

    `build_python` is the build key of a cross build's own Python, which also stands for the cells that can replace it.
    `domain` and `emulator` are as in BuildSpec.
    """
    llvm = source.llvm if variant.needs_llvm else None
    return BuildSpec(
        source=source.digest,
        arch=arch,
        strategy=strategy,
        toolchain=toolchain.key,
        packages=toolchain.fingerprint,
        llvm=llvm,
        commands=_commands(
            source, variant, strategy, toolchain, _configure(source, variant, arch, strategy, toolchain)
        ),
        environment=_environment(source, variant, arch, strategy, toolchain, llvm),
        build_python=build_python if strategy is Strategy.CROSS else None,
        logic=logic.whole_digest(),
        python=identify_python(source, strategy, toolchain, _pyc_options(variant, strategy)),
        core=_core(source),
        ahead=_ahead(source, variant, strategy, toolchain.platform),
        domain=domain,
        emulator=emulator if strategy is Strategy.EMULATE else "",
        llvm_folder=toolchain.llvm_folder(llvm) if llvm is not None else "",
        on_host=toolchain.is_host,
        platform=toolchain.platform,
    )


def _configure(source: Source, variant: Variant, arch: Arch, strategy: Strategy, toolchain: Image) -> tuple[str, ...]:
    """Return the configure line."""
    crossing = strategy is Strategy.CROSS
    answers = CROSS_ANSWERS if crossing else ()  # a variant's own arguments come later and override them
    line = [
        f"{SOURCE}/configure",
        *CONFIGURE,
        *toolchain.platform.arguments(source.python),
        *answers,
        *compilers.other_arguments(variant),
    ]
    named = compilers.named(variant, arch, strategy, toolchain, source.llvm)
    line += [f"{name}={command}" for name, command in named.items()]
    if crossing:
        line += [f"--build={toolchain.arch.triple}", f"--host={arch.triple}"]
        line += [f"--with-build-python={BUILD_PYTHON}/{python_of(source)}"]
    return tuple(line)


def _environment(
    source: Source, variant: Variant, arch: Arch, strategy: Strategy, toolchain: Image, llvm: str | None
) -> Mapping[str, str]:
    """Return the commands' environment variables."""
    own = {**toolchain.platform.variables(source.python), **toolchain.environment}
    environment = {**ENVIRONMENT, **own, **variant.variables(f"{SOURCE}/Tools")}
    if strategy is Strategy.CROSS:
        # the build Python may have the JIT, which is the code under test
        environment["PYTHON_JIT"] = "0"
        environment["PKG_CONFIG_LIBDIR"] = f"/usr/lib/{arch.triple}/pkgconfig:/usr/share/pkgconfig"
    if llvm is not None:
        # 3.15 looks for LLVM's tools here first; earlier versions find `clang-N` on PATH.
        environment["LLVM_TOOLS_INSTALL_DIR"] = LLVM
    return environment


def _commands(
    source: Source, variant: Variant, strategy: Strategy, toolchain: Image, configure: tuple[str, ...]
) -> tuple[Command, ...]:
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
        Command(Phase.COMPILE, _compile(source, variant, strategy, toolchain.platform), parallel=("--jobs", "{jobs}")),
        Command(Phase.SUPPORT, ("sh", "-c", SUPPORT_SCRIPT)),
    )


def _core(source: Source) -> str:
    """Return the digest of the source without its tests; empty if other output might depend on the tests.

    An archive's files have their own time stamps, which make may use, but the digest does not cover them. If files are
    regenerated first, the tools that run leave .pyc files in the builder's copy of the source, and the Python that
    compiles the library reads these: no other build has them.
    """
    return "" if source.kind is Kind.ARCHIVE or source.regenerate else source.core


def identify_python(source: Source, strategy: Strategy, toolchain: Image, options: tuple[str, ...] = ()) -> str:
    """Return a digest that differs between Pythons that may compile the same file to different bytes.

    `options` are the configure options that may affect its .pyc files. A native build's Python runs before its library
    is compiled, so it compiles the modules that it imports itself. It then has interned other strings than an installed
    Python, which changes marshal's output (of `functools` in 3.15).
    """
    inputs = (source.compiled, *source.regenerate, strategy, toolchain.key, toolchain.fingerprint, *options)
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()


def _pyc_options(variant: Variant, strategy: Strategy) -> tuple[str, ...]:
    """Return the variant's options that may affect .pyc files; none in a cross build (see `build_python`)."""
    return () if strategy is Strategy.CROSS or variant.is_plain else variant.configure


def _compile(source: Source, variant: Variant, strategy: Strategy, platform: Platform) -> tuple[str, ...]:
    """Return the command that byte-compiles the library, with the Python that CPython's Makefile uses and no JIT."""
    crossing = strategy is Strategy.CROSS
    python = f"{BUILD_PYTHON}/{python_of(source)}" if crossing else f"./{platform.program}"
    libpython = (f"{platform.library_path}={BUILD}",) if variant.is_shared and not crossing else ()
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


def _ahead(source: Source, variant: Variant, strategy: Strategy, platform: Platform) -> BackgroundTask | None:
    """Return the task that byte-compiles most of the library, in single-core phases; None if files are regenerated.

    Regenerating leaves .pyc files in the source, and each Python that runs adds more, so the Python that finally
    compiles would have interned other strings (see `identify_python`).
    """
    if source.regenerate:
        return None
    library = f"python{version_of(source)}{'t' if variant.free_threaded else ''}"
    return BackgroundTask(
        phases=(Phase.CONFIGURE, Phase.INSTALL) if strategy is Strategy.CROSS else (Phase.INSTALL,),
        argv=(*_compile(source, variant, strategy, platform), "--ahead", f"{SOURCE}/Lib", "--library", library),
    )


# Saved besides the install tree: Tools/, for the tests of the cases generator and for a debugger, and the generated
# stencils, for comparison. config.log is left out, since it names process ids, and so are the tools' .pyc files, which
# depend on the tools and Pythons that ran.
SUPPORT_SCRIPT = f"""set -e
[ -d {SOURCE}/Tools ] || exit 1
trap '[ $? -eq 0 ] || exit {SCRIPT_FAULT}' EXIT
cp -R {SOURCE}/Tools {SUPPORT}/Tools
find {SUPPORT}/Tools -name __pycache__ -prune -exec rm -R {{}} +
for file in pyconfig.h python-gdb.py jit_stencils*.h jit_unwind_info*.h jit_shim*.o; do
    if [ -e "$file" ]; then cp "$file" {GENERATED}/; fi
done
"""
