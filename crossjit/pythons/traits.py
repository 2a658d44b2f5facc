"""The variant of a Python that was built elsewhere, as it describes itself. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from crossjit.channels import BuildFacts
from crossjit.model import Arch, Expectation, Variant

NAME = "installed"
SUITES = ("ft-smoke", "jit")  # of which each build runs some

_OFF = 2  # the bit of _Py_TIER2 in builds with `yes-off` and `interpreter-off` (configure.ac of CPython)


def unknown_variant(arches: tuple[Arch, ...]) -> Variant:
    """Return the variant of a Python that was not asked yet."""
    return Variant(NAME, "a Python that was built elsewhere", (), SUITES, arches=arches, packaged=True)


def variant_of(facts: BuildFacts, arches: tuple[Arch, ...]) -> Variant:
    """Return the variant of a build.

    A JIT that is built in but off is turned on with PYTHON_JIT=1.
    """
    expects = _expects(facts)
    tier2 = facts.macros.get("_Py_TIER2", 0)
    is_off = bool(tier2 & _OFF) or (facts.jit is not None and not facts.jit.enabled)
    environment: Mapping[str, str] = {"PYTHON_JIT": "1"} if expects is not Expectation.NONE and is_off else {}
    has_jit = expects is not Expectation.NONE
    return Variant(
        name=NAME,
        summary="a Python that was built elsewhere",
        configure=_words(facts.configure),
        suites=(
            *(("ft-smoke",) if facts.free_threaded else ()),
            *(("jit",) if has_jit or not facts.free_threaded else ()),
        ),
        expects=expects,
        debug=facts.debug,
        free_threaded=facts.free_threaded,
        environment=environment,
        arches=arches,
        packaged=True,
    )


def _expects(facts: BuildFacts) -> Expectation:
    if "_Py_JIT" in facts.macros:
        return Expectation.MACHINE_CODE
    if "_Py_TIER2" in facts.macros:
        return Expectation.UOPS
    if facts.jit is None or not facts.jit.available:
        return Expectation.NONE
    return Expectation.UOPS if "--enable-experimental-jit=interpreter" in facts.configure else Expectation.MACHINE_CODE


def _words(configure: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(configure))
    except ValueError:
        return (configure,)
