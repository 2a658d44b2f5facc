"""A build context over a fake engine whose Tools/jit/build.py writes stencils: those of each LLVM as a test wants."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from crossjit import PROJECT
from crossjit.build import layout
from crossjit.images import Image, ImageSpec, Package, Role, load_all
from crossjit.model import Arch
from crossjit.pipeline import context, prepare
from crossjit.runs.record import RunRecord
from crossjit.sources import Source
from crossjit.tasks.options import Request
from crossjit.tasks.session import RunSession
from tests.example_effects import PLAIN, Written, header
from tests.fakes.engine import FakeProcess
from tests.unit.build_fakes import image
from tests.unit.test_build_python import X86, FakeContext, cell_request

OPTIONS = ' --output-dir . --pyconfig-dir . --cflags="" --llvm-version="" --llvm-tools-install-dir="/crossjit/llvm"'
LLVM = f"{layout.SOURCE}/Tools/jit/_llvm.py"
VERSIONS = {"19": "1:19.1.7-3", "21": "1:21.1.8-13", "22": "1:22.1.8-1"}


class StencilMachine(FakeContext):
    """It has the images of the project; `written` are the stencils of its LLVMs, by LLVM and arch.

    `options` are those in the Makefile's command, `again` says that the second time something else is written, and
    `failing` are LLVMs that write nothing.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, task: ModuleType) -> None:
        super().__init__(folder)
        self.written: dict[tuple[str, Arch], Mapping[str, Written]] = {}
        self.failing: set[tuple[str, Arch]] = set()
        self.missing: dict[str, Exception] = {}
        self.options = OPTIONS
        self.again = False
        self.resolved = 0
        self.vendor = "unknown"
        self.ran: list[tuple[str, ...]] = []
        self.read_by: list[str] = []
        self.pyconfigs: list[bytes] = []
        self.copied: list[str] = []
        self.opened: list[Request] = []
        images = load_all(PROJECT / "images")
        self.ctx = replace(self.ctx, images=images, ensure_image=self.image)
        for spec in images:
            for llvm in spec.available_llvm:
                self.engine.add_image(self.image(spec.with_llvm(llvm), Role.TOOLCHAIN, X86).reference, arch=X86)
            for arch in Arch:
                self.engine.add_image(self.image(spec, Role.TARGET, arch).reference, arch=arch)
        with tarfile.open(self.source.archive, "w") as tar:
            named = b'import os\n_LLVM_VERSION = "21"\nx = 1\n'
            for name, content in (("configure", b""), ("Tools/jit/_llvm.py", named)):
                member = tarfile.TarInfo(f"{self.source.top}/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        monkeypatch.setattr(context.BuildContext, "require_emulator", lambda ctx, arch: None)
        monkeypatch.setattr(prepare, "resolve", self.resolve)
        monkeypatch.setattr(task, "opened", self.open)

    def resolve(self, ctx: context.BuildContext, request: context.CellRequest) -> Source:
        if request.wanted not in ctx.pinned:
            self.resolved += 1
        return ctx.pinned.get(request.wanted, self.source)

    def image(self, spec: ImageSpec, role: Role, arch: Arch) -> Image:
        for llvm in spec.llvm:
            if role is Role.TOOLCHAIN and llvm in self.missing:
                raise self.missing[llvm]
        plain = image(role, arch)
        packages = tuple(Package(f"clang-{llvm}", "amd64", VERSIONS.get(llvm, f"1:{llvm}.1.0-1")) for llvm in spec.llvm)
        libc = Package("libc6", "amd64", "2.42-1" if spec.name == "forky" else "2.41-1")
        name = f"{spec.name}-{role}-{arch}-{'-'.join(spec.more_llvm)}"
        return replace(plain, reference=name, id=f"sha256:{name}", packages=(*packages, libc))

    def configure(self, process: FakeProcess) -> int:
        host = next((each for each in process.argv if each.startswith("--host=")), "--host=x86_64-pc-linux-gnu")
        command = f"$(PYTHON_FOR_REGEN) $(srcdir)/Tools/jit/build.py {host.partition('=')[2]}{self.options}"
        process.write_file(f"{layout.BUILD}/Makefile", f"srcdir=x\n\t{command}\n".encode())
        process.write_file(f"{layout.BUILD}/pyconfig.h", b"#define CONFIGURED 1\n")
        return super().configure(process)

    def python(self, process: FakeProcess) -> int:
        if not any(word.endswith("build.py") for word in process.argv):
            return super().python(process)
        self.ran.append(process.argv)
        self.read_by.append(process.files.read(LLVM).decode())
        self.pyconfigs.append(process.files.read(f"{layout.BUILD}/pyconfig.h"))
        llvm = process.env["CROSSJIT_LLVM"].rpartition("-")[2]
        arch = X86 if process.argv[2].startswith("x86_64") else Arch.AARCH64
        if (llvm, arch) in self.failing:
            process.write_line(f"RuntimeError: Can't find clang-{llvm}!")
            return 1
        text = f"// {'ab' * 32}\n// $ {' '.join(process.argv)}\n\n{header(self.written.get((llvm, arch), PLAIN))}"
        if self.again and len(self.ran) % 2 == 0:
            text += "// later\n"
        process.write_file(f"{layout.BUILD}/jit_stencils-{arch}-{self.vendor}-linux-gnu.h", text.encode())
        process.write_file(f"{layout.BUILD}/jit_stencils.h", b"#include\n")
        return 0

    def sh(self, process: FakeProcess) -> int:
        if process.argv[-1].startswith("cp "):
            self.copied.append(process.argv[-1])
            return 0
        return super().sh(process)

    @contextlib.contextmanager
    def open(self, request: Request, *, looks: bool, reproduce: str | None = None) -> Iterator[RunSession]:
        self.opened.append(request)
        requests = tuple(
            replace(cell_request(variant, arch, source=request.source), selection=request.selection)
            for arch in request.arches or (X86,)
            for variant in request.variants
        )
        cells = tuple(each.cell for each in requests)
        about: dict[str, Any] = {"cells": cells, "looks": looks, "reproduce": reproduce}
        with RunRecord.start(self.ctx.settings, ("./inv",), {}, **about) as record:
            yield RunSession({"docker": replace(self.ctx, run=record.id)}, record, requests)
