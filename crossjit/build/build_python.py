"""The Python that runs CPython's own tools in a cross build: one made for it, or that of a native cell of its source.

Both are of the same source, built by the same toolchain, so they are the same language and library; they differ in how
they are configured. What of that could get into a cross build's output was looked for in Makefile.pre.in, configure.ac
and the scripts of 3.13.15, 3.14.7 and 3.15.0rc2:

- configure asks the build Python for its version, and writes down its path: in every container the same.
- Freezing (`Programs/_freeze_module.py`) and byte-compiling write marshalled code. Its bytecode is what the compiler
  gives, whatever a JIT puts in its place while it runs; marshal's reference flags follow from reference counts and from
  what is interned, in which free-threaded builds differ. The JIT is off all the same: PYTHON_JIT=0, which all three
  heed in builds with the JIT and with the tier-2 interpreter.
- `sysconfig --generate-posix-vars` writes what is in the Makefile and in pyconfig.h of the cross build; prefixes, ABI
  flags and the platform come from there, too (_PYTHON_PROJECT_BASE). It names its folder `-pydebug` by the cross
  build's Py_DEBUG, but in 3.13 by whether the running Python is a debug build. A variable of make that is not set is
  taken from the environment; there is none called PYTHON_JIT.
- `build-details.json` (3.14 and later) has the running Python's `sys.abiflags`, `sys.implementation` and extension
  suffixes, those of the wrong arch among them: the same for all but debug and free-threaded builds.
- `check_extension_modules.py` goes by the cross build's Makefile and Modules/Setup* alone, and imports nothing.
- `Tools/jit/build.py` and the generators that `regen-…` runs use the library only: neither sysconfig nor what a
  configuration might lack (zlib, _ctypes); where asyncio imports ssl, nothing comes of it. What is built for this alone
  is built without some of those (`UNUSED_MODULES`, `UNUSED_FOLDERS`).
- `__pycache__` folders that the tools leave in the source are not installed, and not copied with Tools/.

So what may serve is configured with nothing but the JIT's option, and is neither a debug nor a free-threaded build. No
tool imports the tests, so its source may have others.
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

# Extension modules that none of CPython's tools imports, nor what they import; a sixth of the work of compiling it.
# Those stay that compile_library.py imports: what is interned follows from that (see `spec.identify_python`).
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

# Folders of the library that none of them imports either.
UNUSED_FOLDERS = ("__pycache__", "ensurepip", "idlelib", "pydoc_data", "test", "tests", "tkinter", "turtledemo")

# It lives for one build and spends it waiting for compilers: -O1 compiles in half the time of -O3 and -g, and what it
# writes is the same.
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
    """How a cross build's own Python is built, and by variant the native cells that serve as well, best first.

    The key of `own` stands for all of them: their outputs are the same.
    """

    own: BuildSpec
    cells: Mapping[str, BuildSpec]


def serving(recipe: Recipe) -> tuple[str, ...]:
    """Name a recipe's variants whose native cells may serve, best first: those with the least in them that is new."""
    fit = [variant for variant in recipe.variants.values() if variant.is_plain]
    return tuple(variant.name for variant in sorted(fit, key=lambda variant: _PREFERENCE.index(variant.expects)))


def make_spec(recipe: Recipe, source: Source, arch: Arch, toolchain: Image, domain: str = trust.RECIPES) -> BuildPython:
    """Say what can be the build Python of a cross build of this source in this toolchain, whose arch it has. Pure."""
    return BuildPython(
        _specify_own(source, arch, toolchain, domain),
        {
            name: spec.make_spec(source, recipe.variants[name], arch, Strategy.NATIVE, toolchain, domain=domain)
            for name in serving(recipe)
        },
    )


def _specify_own(source: Source, arch: Arch, toolchain: Image, domain: str) -> BuildSpec:
    """Say how one is made for a cross build: as a cell is, but no more of it than the tools need."""
    whole = spec.make_spec(source, VARIANT, arch, Strategy.NATIVE, toolchain, domain=domain)
    argv = {Phase.MAKE: ("make", "python", "sharedmods"), Phase.INSTALL: ("sh", "-c", _install(source))}
    commands = (each for each in whole.commands if each.phase is not Phase.SUPPORT)
    return replace(
        whole,
        source=source.compiled,  # what has no tests does not depend on them
        core="",
        commands=tuple(replace(each, argv=argv.get(each.phase, each.argv)) for each in commands),
        python=spec.identify_python(source, Strategy.NATIVE, toolchain),  # a plain one, for all its options
        ahead=None,
    )


def _install(source: Source) -> str:
    """Return a script that installs what the tools need of a build, a file as it is: `make install` has a process for
    each, and most of what it installs nobody asks for.
    """
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


def find(store: Store, wanted: BuildPython) -> Artifact | None:
    """Return what there is: the one made for it, which is the smallest, or a cell's whose probe did not crash.

    A cell of a source with other tests does as well, since the tools have nothing to do with tests.
    """
    cells = wanted.cells.values()
    looks = (
        *(partial(store.find, spec.key) for spec in (wanted.own, *cells)),
        *(partial(store.find_by_core, spec.base_key) for spec in cells if spec.base_key),
    )
    found = (artifact for look in looks if (artifact := look()) is not None and artifact.is_intact())
    return next((artifact for artifact in found if not {"crashed", "unfinished"} & {*artifact.manifest.probe}), None)
