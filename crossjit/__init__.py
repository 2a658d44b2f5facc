"""crossjit: builds CPython's JIT for x86_64 and AArch64 in containers, proves that it JITs, explains what fails."""

from pathlib import Path

__version__ = "0.1.0"

PROJECT = Path(__file__).resolve().parent.parent
"""The repository's folder, with the data that people edit: `recipes/`, `images/`, `validate/`."""

VALIDATE = PROJECT / "validate"
"""What is run in the target, and the data about it: suites, known failures, caveats."""
