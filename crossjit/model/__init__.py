"""The data model: platforms, cells, results. It imports nothing else of the package."""

from crossjit.model.cells import NO_OPTIMIZER, TOOLS, Cell, Expectation, ExtraPackages, Strategy, Variant
from crossjit.model.platform import Arch, EmulationSupport, Emulator, Platform
from crossjit.model.results import CellResult, Crash, ModuleRun, Outcome, SuiteResult, TestResult, Verdict

__all__ = [
    "Arch",
    "Cell",
    "CellResult",
    "Crash",
    "Emulator",
    "Expectation",
    "ExtraPackages",
    "EmulationSupport",
    "ModuleRun",
    "NO_OPTIMIZER",
    "Outcome",
    "Platform",
    "Strategy",
    "SuiteResult",
    "TOOLS",
    "TestResult",
    "Variant",
    "Verdict",
]
