"""`doctor`'s checks of this machine as an engine without containers."""

from __future__ import annotations

from collections.abc import Iterator

from crossjit.host.tools import LLVM_FOLDER, OPTIONAL, HostTools
from crossjit.model import Platform
from crossjit.util.text import join_words

PYTHON = (3, 11)  # that Tools/jit/build.py needs


def findings(found: HostTools) -> Iterator[tuple[str, str, str, tuple[str, ...], str]]:
    """Yield a check's name, status, finding, remedy and purpose, for each tool."""
    platform = found.platform
    remark = f": {platform.remark}" if platform.remark else ""
    remedy = ("use an engine of containers for what you do not trust: CROSSJIT_ENGINE=docker",)
    yield "isolation", "warn", f"none on this host ({found.system}){remark}", remedy, "sources of strangers"
    for what, version in found.programs.items():
        purpose = "finding libraries" if what in OPTIONAL else "building"
        if version is None:
            status = "warn" if what in OPTIONAL else "fail"
            yield what, status, "not found", (platform.install_tools,), purpose
        elif what == "Python" and found.python < PYTHON:
            yield "Python for builds", "fail", f"{version}: too old", (platform.install_tools,), "making stencils"
        else:
            yield "Python for builds" if what == "Python" else what, "ok", version, (), purpose
    yield from _llvms(found)
    if platform is Platform.MACOS and "SDKROOT" not in found.environment:
        yield "SDK", "fail", "xcrun names none", ("xcode-select --install",), "building"


def _llvms(found: HostTools) -> Iterator[tuple[str, str, str, tuple[str, ...], str]]:
    purpose = "variants with machine code: LLVM 21 for 3.15 and main, 19 for 3.14, 18 for 3.13"
    remedy = (
        found.platform.install_llvm.format(llvm=21),
        f"or {LLVM_FOLDER}=FOLDER, where FOLDER/bin/clang is",
    )
    if not found.llvms:
        yield "LLVM", "fail", "none found", remedy, purpose
    for major, llvm in sorted(found.llvms.items(), reverse=True):
        if llvm.missing:
            yield f"LLVM {major}", "fail", f"{llvm.folder} lacks {join_words(llvm.missing)}", remedy, purpose
        else:
            yield f"LLVM {major}", "ok", f"{llvm.version} in {llvm.folder}", (), purpose
