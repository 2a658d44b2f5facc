"""Making the stencils of a cell with several LLVMs, twice each, and running suites with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossjit.effect import compilers, uops
from crossjit.effect.cell import problem
from crossjit.effect.compilers import CellCompilers, Made, SuiteRun
from crossjit.errors import CrossjitError, InfrastructureError, ProductError
from crossjit.measure.stencils import Stencil
from crossjit.model import Cell, Verdict
from crossjit.pipeline import shipped, stencils
from crossjit.pipeline.context import BuildContext, CellRequest, PreparedBuild
from crossjit.pipeline.stencils import Configuration, StencilFiles
from crossjit.pipeline.validate_cell import run_cell
from crossjit.sources import Source

_FAILURES = (ProductError, InfrastructureError)


@dataclass(frozen=True)
class CellMaker:
    """Makes the stencils of a cell. `home` is the LLVM in whose image configure runs, and whose build the suites take.

    `folder` returns the folder of a cell in the run's record.
    """

    ctx: BuildContext
    request: CellRequest
    source: Source
    home: str
    folder: Callable[[Cell], Path]

    def make(self, llvms: Sequence[str]) -> CellCompilers:
        """Make the stencils with each LLVM, and compare them. What fails is a problem of its LLVM."""
        cell = self.request.cell
        try:
            own = stencils.with_llvm(self.ctx, self.request, self.source, self.home)
            configuration = stencils.configure(self.ctx, own, log=self.folder(cell) / "configure.log")
        except _FAILURES as error:
            return CellCompilers(cell, tuple(Made(llvm, problem=problem(llvm, error)) for llvm in llvms))
        made = []
        named: dict[str, Mapping[str, Stencil]] = {}
        for llvm in llvms:
            result, found = self._make(own, configuration, llvm)
            made.append(result)
            if found:
                named[llvm] = found
        return CellCompilers(cell, tuple(made), compilers.compare(named))

    def _make(
        self, own: PreparedBuild, configuration: Configuration, llvm: str
    ) -> tuple[Made, Mapping[str, Stencil] | None]:
        result = Made(llvm)
        try:
            prepared = stencils.with_llvm(self.ctx, self.request, self.source, llvm)
            result = Made(
                llvm,
                version=prepared.toolchain.llvm_version(llvm) or "",
                image=prepared.image.name,
                libc=prepared.toolchain.version("libc6") or "",
                edited=not configuration.has_option and llvm != self.source.llvm,
            )
            log = self.folder(self.request.cell) / f"stencils-llvm{llvm}.log"
            first = stencils.make(self.ctx, prepared, configuration, log=log)
            again = stencils.make(self.ctx, prepared, configuration, log=log, fresh=True)
            named = compilers.read(first)
        except _FAILURES as error:
            return replace(result, problem=problem(llvm, error)), None
        result = replace(
            result,
            seconds=again.seconds,
            size=uops.size(named.values()),
            digest=first.digest,
            differing=compilers.differing(first, again),
        )
        if self.request.selection.suites:
            result = replace(result, suite=self._suites(own, prepared, first))
        return result, named

    def _suites(self, own: PreparedBuild, made: PreparedBuild, files: StencilFiles) -> SuiteRun:
        """Run the suites on a build with these stencils: the usual one, or one that gets them."""
        folder = self.folder(made.cell)
        try:
            prepared = own
            if made.spec.llvm != own.spec.llvm:
                prepared = shipped.prepare(own, made, files)
                shipped.build(self.ctx, prepared, files, log=folder / "build.log")
        except _FAILURES as error:
            return SuiteRun(_verdict(error), reasons=(error.message,))
        result = run_cell(self.ctx, prepared, folder=folder, validate=True)
        failed = tuple(test.name for suite in result.suites for test in suite.results if test.failed)
        return SuiteRun(result.verdict, sum(suite.tests_run for suite in result.suites), failed, result.reasons)


def _verdict(error: CrossjitError) -> Verdict:
    return Verdict.FAIL if isinstance(error, ProductError) else Verdict.INFRA
