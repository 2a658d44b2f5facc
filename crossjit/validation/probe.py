"""The probe: whether a build makes machine code, and is the requested one."""

from __future__ import annotations

import json
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

from crossjit import channels
from crossjit.channels import MalformedError, ProbeFacts
from crossjit.engine.base import Completed, Container, Engine, EngineFacts
from crossjit.images import Image, Package, Role, loading
from crossjit.model import TOOLS, Cell, Variant
from crossjit.progress import Progress, Step
from crossjit.util.budget import PROBE_MEMORY
from crossjit.validation.target import (
    MARGIN,
    MEMORY,
    PYTHON,
    SCRIPTS,
    Opener,
    Target,
    container_options,
    environment,
    install,
    target_limits,
    without_tests,
)

PROBE_SECONDS = 300  # native: it takes 2
EMULATED = 10  # factor on times under QEMU
CONTROL = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done"  # half a second natively
CONTROL_SECONDS = 60
LINE = 1000  # characters kept of a line of the output


def probing(
    engine: Engine,
    facts: EngineFacts,
    image: Image,
    *,
    variant: Variant,
    emulation: Mapping[str, str],
    name: str,
    labels: Mapping[str, str],
) -> AbstractContextManager[Container]:
    """Start a container of the target image for probing a cell. Raises EngineError."""
    memory = facts.memory_limit(min(MEMORY, facts.memory * PROBE_MEMORY // 100))
    limits = target_limits(memory, 2 * probe_seconds(emulation) + MARGIN)
    return engine.container(container_options(image, name, labels, environment(variant, emulation), limits))


def started(engine: Engine, facts: EngineFacts, target: Target) -> AbstractContextManager[Container]:
    """Start a container of a target for probing it. Raises EngineError."""
    return probing(
        engine,
        facts,
        target.image,
        variant=target.variant,
        emulation=target.emulation,
        name=target.name,
        labels=target.labels,
    )


def probe_seconds(emulation: Mapping[str, str]) -> int:
    """Return a probe's time limit in seconds, some hundred times of what it takes."""
    return PROBE_SECONDS * (EMULATED if emulation else 1)


def probe(
    container: Container,
    tree: Opener,
    *,
    cell: Cell,
    variant: Variant,
    emulation: Mapping[str, str],
    progress: Progress,
    support: Opener | None = None,
    packages: tuple[Package, ...] = (),
) -> dict[str, object]:
    """Install a tree without its tests in a container, run `validate/probe.py` there, and return its facts.

    They have the form of `ProbeFacts`. If the probe crashes, or its output is invalid, that is a finding about the
    build: the facts are {"crashed": how, "output": lines}. So is a hang if a control shows that the machine works;
    otherwise they are {"unfinished": why, "output": lines}. `support` is installed if the variant's environment names
    CPython's Tools; `packages` are the toolchain's. Raises EngineErrors, and InfrastructureError for a missing library.
    """
    settings = {"emulated": bool(emulation), "cpu": emulation.get("QEMU_CPU")}
    lines: deque[str] = deque(maxlen=200)
    seconds = probe_seconds(emulation)
    with progress.step("probe", str(cell)) as step:
        step.update(detail="installing")
        wants_tools = any(TOOLS in value for value in variant.environment.values())
        install(container, variant, partial(without_tests, tree), support if wants_tools else None)
        step.update(detail="running")
        argv = (PYTHON, f"{SCRIPTS}/probe.py", "--told", json.dumps(settings))
        completed = container.run(argv, on_line=lines.append, timeout=seconds)
        context = {"output": [line[:LINE] for line in lines][-40:], "told": settings}
        if ran_out(completed, seconds):
            return {**hung(container, seconds, step), **context}
    return _facts(completed, lines, context, packages, optional=variant.packaged)


def _facts(
    completed: Completed,
    lines: Sequence[str],
    context: Mapping[str, object],
    packages: tuple[Package, ...],
    *,
    optional: bool,
) -> dict[str, object]:
    """Parse the facts that a probe printed. Raises InfrastructureError for a missing library.

    With `optional`, a module may lack its library.
    """
    if completed.returncode:
        if missing := loading.missing_library(lines, Role.TARGET, packages):
            raise missing
        return {"crashed": completed.how, **context}
    reports = [line for line in lines if line.startswith("{")]
    try:
        facts = channels.read(ProbeFacts, reports[-1] if reports else "")
    except MalformedError as error:
        return {"crashed": f"{completed.how}, and its facts cannot be read: {error}", **context}
    failed = facts.modules.failed.values() if facts.modules and not optional else ()
    if missing := loading.missing_library(failed, Role.TARGET, packages):
        raise missing
    return channels.value_of(reports[-1])


def ran_out(completed: Completed, seconds: float) -> bool:
    """Whether a command was killed because of its time limit."""
    return completed.returncode == -signal.SIGKILL and completed.seconds >= seconds


def hung(container: Container, seconds: int, step: Step) -> dict[str, object]:
    """Return the facts of a probe that timed out: a short shell loop shows whether the machine may be the reason."""
    step.update(detail="running a control")
    control = container.run(("/bin/sh", "-c", CONTROL), timeout=CONTROL_SECONDS)
    if control.returncode == 0:
        return {"crashed": f"not finished in {seconds:,} s, where the machine ran a control in {control.seconds:.1f} s"}
    why = f"not finished in {seconds:,} s, and a control did not finish either ({control.how}): the machine is too slow"
    return {"unfinished": why}
