"""crossjit: builds CPython's JIT for x86_64 and AArch64 in containers, proves that it JITs, explains what fails."""

from pathlib import Path

__version__ = "0.1.0"

PACKAGE = Path(__file__).resolve().parent

INSTALLED = (PACKAGE / "data").is_dir()
"""Whether this is a wheel's content rather than a clone."""

PROJECT = PACKAGE / "data" if INSTALLED else PACKAGE.parent
"""The folder with the data that people edit, `recipes/`, `images/`, `validate/`, and with the scripts of containers."""

VALIDATE = PROJECT / "validate"
"""What is run in the target, and the data about it: suites, known failures, caveats."""

PROGRAM = "crossjit" if INSTALLED else "./inv"
"""What hints have people type."""
