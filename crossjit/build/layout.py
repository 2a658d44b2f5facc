"""Where things are in a toolchain container, and in the install tree of a build."""

from __future__ import annotations

from crossjit.build import logic
from crossjit.sources import Source

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
COMPILERS = f"{TOOLS}/compilers"  # build_cache.py finds it beside itself
CACHE = "/cache"
SMALL_CACHE = {"CROSSJIT_CACHE_SMALL": "1"}  # for strangers: the smaller limits of cache_entries.py
CACHE_BELOW = "/cache-below"  # another volume, of which a build may read what it does not find in its own
BUILDER = 1000  # the uid of `builder` in the toolchain images
SCRIPTS = logic.SCRIPTS
SCRIPT_FAULT = 97  # how a script of ours ends if it fails itself, and not what it runs
CACHE_SCRIPT = ("python3", f"{TOOLS}/build_cache.py")
RUN_ALONGSIDE = ("python3", f"{TOOLS}/run_alongside.py")


def python_of(source: Source) -> str:
    """Return where an install tree of a source has its Python."""
    return f"usr/local/bin/python{version_of(source)}"


def library_of(source: Source) -> str:
    """Return where an install tree of a source has the library, if it is not free-threaded."""
    return f"usr/local/lib/python{version_of(source)}"


def version_of(source: Source) -> str:
    """Return a source's version as names have it: `3.15`."""
    return ".".join(map(str, source.python))
