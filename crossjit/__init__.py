"""crossjit: builds CPython's JIT for x86_64 and AArch64 in containers, proves that it JITs, explains what fails."""

from pathlib import Path

__version__ = "0.1.0"

PACKAGE = Path(__file__).resolve().parent

INSTALLED = (PACKAGE / "data").is_dir()
"""Whether this is a wheel's content rather than a clone."""

PROJECT = PACKAGE / "data" if INSTALLED else PACKAGE.parent
"""The folder with the editable data (`recipes/`, `images/`, `validate/`) and the scripts that run in containers."""

VALIDATE = PROJECT / "validate"
"""The scripts that run in the target, and their data: suites, known failures, caveats."""

PROGRAM = "crossjit" if INSTALLED else "./inv"
"""The command that hints name."""
