"""`doctor`'s checks of this machine as an engine without containers."""

from __future__ import annotations

from collections.abc import Iterator

from crossjit.host.check import Check, Status
from crossjit.host.tools import LLVM_FOLDER, OPTIONAL, PYTHON, HostTools
from crossjit.model import Platform
from crossjit.util.text import join_words

OLDEST_PYTHON = (3, 11)  # that Tools/jit/build.py runs with
_OWN_PYTHON = "Python for builds"  # unlike the one that runs crossjit
_LLVM_PURPOSE = "variants with machine code: LLVM 21 for 3.15 and main, 19 for 3.14, 18 for 3.13"


def checks(found: HostTools) -> Iterator[Check]:
    """Yield a check for each tool of the machine, and for what it cannot do."""
    remark = f": {found.platform.remark}" if found.platform.remark else ""
    remedy = ("use an engine of containers for what you do not trust: CROSSJIT_ENGINE=docker",)
    none = f"none on this host ({found.system}){remark}"
    yield Check("isolation", Status.WARN, none, remedy, "sources of strangers")
    for what, version in found.programs.items():
        yield _program(found, what, version)
    yield from _llvms(found)
    if found.platform is Platform.MACOS and "SDKROOT" not in found.environment:
        yield Check("SDK", Status.FAIL, "xcrun names none", ("xcode-select --install",), "building")


def _program(found: HostTools, what: str, version: str | None) -> Check:
    name = _OWN_PYTHON if what == PYTHON else what
    purpose = "finding libraries" if what in OPTIONAL else "building"
    remedy = (found.platform.install_tools,)
    if version is None:
        return Check(name, Status.WARN if what in OPTIONAL else Status.FAIL, "not found", remedy, purpose)
    if what == PYTHON and found.python < OLDEST_PYTHON:
        return Check(name, Status.FAIL, f"{version}: too old", remedy, "making stencils")
    return Check(name, Status.OK, version, (), purpose)


def _llvms(found: HostTools) -> Iterator[Check]:
    remedy = (found.platform.install_llvm.format(llvm=21), f"or {LLVM_FOLDER}=FOLDER, where FOLDER/bin/clang is")
    if not found.llvms:
        yield Check("LLVM", Status.FAIL, "none found", remedy, _LLVM_PURPOSE)
    for major, llvm in sorted(found.llvms.items(), reverse=True):
        if llvm.missing:
            lacks = f"{llvm.folder} lacks {join_words(llvm.missing)}"
            yield Check(f"LLVM {major}", Status.FAIL, lacks, remedy, _LLVM_PURPOSE)
        else:
            yield Check(f"LLVM {major}", Status.OK, f"{llvm.version} in {llvm.folder}", (), _LLVM_PURPOSE)
