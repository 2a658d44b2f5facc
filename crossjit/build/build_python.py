"""The Python that runs CPython's own tools in a cross build: one built for it, or a native cell of its source.

Both are built from the same source by the same toolchain, so language and library are the same; only the configuration
differs. Makefile.pre.in, configure.ac and the scripts of 3.13.15, 3.14.7 and 3.15.0rc2 were checked for effects of the
configuration on a cross build's output:

- configure asks the build Python for its version, and records its path, which is the same in every container.
- Freezing (`Programs/_freeze_module.py`) and byte-compiling write marshalled code. The bytecode is the compiler's,
  never a JIT's replacement. marshal's reference flags depend on reference counts and interned strings, which differ in
  free-threaded builds. The JIT is still turned off: PYTHON_JIT=0, which all three versions respect in builds with the
  JIT and with the tier-2 interpreter.
- `sysconfig --generate-posix-vars` writes the contents of the cross build's Makefile and pyconfig.h, including
  prefixes, ABI flags and the platform (_PYTHON_PROJECT_BASE). Its folder's name has `-pydebug` by the cross build's
  Py_DEBUG, but in 3.13 by whether the running Python is a debug build. Unset make variables are taken from the
  environment; none is called PYTHON_JIT.
- `build-details.json` (3.14 and later) has the running Python's `sys.abiflags`, `sys.implementation` and extension
  suffixes, including the wrong arch. They are the same for all but debug and free-threaded builds.
- `check_extension_modules.py` reads only the cross build's Makefile and Modules/Setup*, and imports nothing.
- `Tools/jit/build.py` and the generators of `regen-…` use only the library: neither sysconfig nor modules that a
  configuration might lack (zlib, _ctypes); asyncio works without ssl. A Python built for this alone lacks some of these
  (`UNUSED_MODULES`, `UNUSED_FOLDERS`).
- `__pycache__` folders that the tools leave in the source are not installed, and not copied with Tools/.

So a suitable cell is configured with nothing but the JIT's option, and is neither a debug nor a free-threaded build. No
tool imports the tests, so its source may have different tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from crossjit.build import layout, spec
from crossjit.build.layout import INSTALL, SOURCE
from crossjit.build.spec import BuildSpec, Phase
from crossjit.config.recipes import Recipe
from crossjit.images import Image
from crossjit.model import Arch, Expectation, Strategy, Variant
from crossjit.sources import Source, trust
from crossjit.stash.artifact import Artifact
from crossjit.stash.store import Store

_PREFERENCE = (Expectation.NONE, Expectation.UOPS, Expectation.MACHINE_CODE)

# Extension modules that no tool of CPython imports, directly or indirectly; a sixth of the compile time. Modules that
# compile_library.py imports are not listed: they affect the interned strings (see `spec.identify_python`).
UNUSED_MODULES = (
    "_ctypes",
    "_curses",
    "_curses_panel",
    "_dbm",
    "_decimal",
    "_elementtree",
    "_gdbm",
    "_interpchannels",
    "_interpqueues",
    "_interpreters",
    "_lsprof",
    "_multiprocessing",
    "_posixshmem",
    "_remote_debugging",
    "_sqlite3",
    "_ssl",
    "_tkinter",
    "_uuid",
    "pyexpat",
    "readline",
    "syslog",
)

# Folders of the library that the tools do not import.
UNUSED_FOLDERS = ("__pycache__", "ensurepip", "idlelib", "pydoc_data", "test", "tests", "tkinter", "turtledemo")

# It mostly waits for compilers: -O1 compiles in half the time of -O3 and -g, and its output is the same.
VARIANT = Variant(
    name="build-python",
    summary="the Python that runs CPython's own tools in a cross build",
    configure=(
        "--disable-test-modules",
        "CFLAGS=-O1 -g0",
        *(f"py_cv_module_{name}=n/a" for name in UNUSED_MODULES),
    ),
    suites=(),
)


@dataclass(frozen=True)
class BuildPython:
    """How to build a cross build's own Python, and the native cells that can replace it, by variant, best first.

    The key of `own` stands for all of them: a cross build's output does not depend on the choice.
    """

    own: BuildSpec
    cells: Mapping[str, BuildSpec]


def serving(recipe: Recipe) -> tuple[str, ...]:
    """Name the variants whose native cells can be a build Python, best first: those with the least new code."""
    plain = [variant for variant in recipe.variants.values() if variant.is_plain]
    return tuple(variant.name for variant in sorted(plain, key=lambda variant: _PREFERENCE.index(variant.expects)))


def make_spec(recipe: Recipe, source: Source, arch: Arch, toolchain: Image, domain: str = trust.RECIPES) -> BuildPython:
    """Specify the build Pythons for a cross build of this source; `arch` is the toolchain's. Pure."""
    return BuildPython(
        _own_spec(source, arch, toolchain, domain),
        {
            name: spec.make_spec(source, recipe.variants[name], arch, Strategy.NATIVE, toolchain, domain=domain)
            for name in serving(recipe)
        },
    )


def _own_spec(source: Source, arch: Arch, toolchain: Image, domain: str) -> BuildSpec:
    """Specify a Python for cross builds: built as a cell, but only the parts that the tools need."""
    cell_spec = spec.make_spec(source, VARIANT, arch, Strategy.NATIVE, toolchain, domain=domain)
    argv = {Phase.MAKE: ("make", "python", "sharedmods"), Phase.INSTALL: ("sh", "-c", _install(source))}
    commands = (command for command in cell_spec.commands if command.phase is not Phase.SUPPORT)
    return replace(
        cell_spec,
        source=source.compiled,  # the tests are not part of it
        core="",
        commands=tuple(replace(command, argv=argv.get(command.phase, command.argv)) for command in commands),
        python=spec.identify_python(source, Strategy.NATIVE, toolchain),  # its options do not affect .pyc files
        ahead=None,
    )


def _install(source: Source) -> str:
    """Return a script that copies only the files that the tools need; `make install` starts a process for each file."""
    python = f"{INSTALL}/{layout.python_of(source)}"
    unused = " -o ".join(f"-name {name}" for name in UNUSED_FOLDERS)
    return f"""set -e
library={INSTALL}/{layout.library_of(source)}
built=$PWD/$(cat pybuilddir.txt)
mkdir -p "$(dirname {python})" "$library/lib-dynload"
cp python {python}
find -L "$built" -name '*.so' -exec cp --target-directory="$library/lib-dynload" {{}} +
cp "$built"/_sysconfig* "$library"
cd {SOURCE}/Lib
find . -type d \\( {unused} \\) -prune -o -name '*.py' -exec cp --parents --target-directory="$library" {{}} +
"""


def find(store: Store, python: BuildPython) -> Artifact | None:
    """Return the stash's Python built for cross builds, which is the smallest, or a cell whose probe did not crash.

    The cell's source may have different tests, since the tools do not use them.
    """
    cells = python.cells.values()
    lookups = (
        *(partial(store.find, spec.key) for spec in (python.own, *cells)),
        *(partial(store.find_by_base_key, spec.base_key) for spec in cells if spec.base_key),
    )
    intact = (artifact for lookup in lookups if (artifact := lookup()) is not None and artifact.is_intact())
    return next((artifact for artifact in intact if not {"crashed", "unfinished"} & {*artifact.manifest.probe}), None)
