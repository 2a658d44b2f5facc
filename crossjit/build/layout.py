"""Paths in a toolchain container, and in a build's install tree."""

from __future__ import annotations

from crossjit.build import logic
from crossjit.sources import Source

# The same in every container, so that no artifact depends on where it was built.
ROOT = "/crossjit"
SOURCE = f"{ROOT}/src"
BUILD = f"{ROOT}/build"
INSTALL = f"{ROOT}/install"
PREFIX = "usr/local"  # in INSTALL; a file elsewhere could overwrite one of the target image
SUPPORT = f"{ROOT}/support"
GENERATED = f"{ROOT}/generated"
BUILD_PYTHON = f"{ROOT}/python"
TOOLS = f"{ROOT}/tools"
LLVM = f"{ROOT}/llvm"
COMPILERS = f"{TOOLS}/compilers"  # build_cache.py expects it in its own folder
CACHE = "/cache"
SMALL_CACHE = {"CROSSJIT_CACHE_SMALL": "1"}  # for strangers: the smaller limits of cache_entries.py
CACHE_BELOW = "/cache-below"  # a read-only volume, for entries that are not in CACHE
BUILDER = 1000  # the uid of `builder` in the toolchain images
SCRIPTS = logic.SCRIPTS
SCRIPT_FAULT = 97  # the exit status of a script of ours that fails itself, as opposed to the command that it runs
CACHE_SCRIPT = ("python3", f"{TOOLS}/build_cache.py")
RUN_ALONGSIDE = ("python3", f"{TOOLS}/run_alongside.py")


def python_of(source: Source) -> str:
    """Return the path of Python in a source's install tree."""
    return f"usr/local/bin/python{version_of(source)}"


def library_of(source: Source) -> str:
    """Return the path of the library in a source's install tree, unless it is free-threaded."""
    return f"usr/local/lib/python{version_of(source)}"


def version_of(source: Source) -> str:
    """Return a source's version as it appears in paths: `3.15`."""
    return ".".join(map(str, source.python))
