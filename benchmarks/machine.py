"""Describes the machine of a benchmark, so that its figures are not compared with a different machine's."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import crossjit
from benchmarks.trees import git
from crossjit.engine.base import EngineFacts
from crossjit.model import EmulationSupport


def describe(engine: EngineFacts, ability: EmulationSupport | None) -> dict[str, object]:
    """Collect the facts that times depend on; `ability` has the emulators."""
    emulators = ability.emulators.values() if ability else ()
    return {
        "cores": os.cpu_count(),
        "cpu": cpu_model(Path("/proc/cpuinfo")),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "engine": f"{engine.name} {engine.version}",
        "engine_cores": engine.cores,
        "engine_memory": engine.memory,
        "qemu": {str(emulator.arch): emulator.version for emulator in emulators},
        "qemu_cpu": {str(emulator.arch): emulator.cpu for emulator in emulators},
        "python": platform.python_version(),
        "crossjit": crossjit.__version__,
        "commit": _commit(),
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cpu_model(cpuinfo: Path) -> str:
    """Return the processor's model name; the arch if the kernel does not report it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields = (line.partition(":") for line in lines)
    model = next((value.strip() for name, _, value in fields if name.strip() in ("model name", "Model")), "")
    return model or platform.machine()


def lines(facts: Mapping[str, object]) -> list[str]:
    """Return the facts as lines above a table."""
    qemu, cpu, memory = facts["qemu"], facts["qemu_cpu"], facts["memory"]
    assert isinstance(qemu, dict)
    assert isinstance(cpu, dict)
    assert isinstance(memory, int)
    played = ", ".join(f"QEMU {qemu[arch]} as {cpu[arch]} for {arch}" for arch in qemu) or "no emulator"
    return [
        f"{facts['cores']} cores of {facts['cpu']}, {memory / (1 << 30):.1f} GiB, Linux {facts['kernel']}",
        f"{facts['engine']} with {facts['engine_cores']} cores; {played}",
        f"crossjit {facts['crossjit']}, commit {facts['commit']}; load at the start {facts['load_at_start']}",
    ]


def _commit() -> str:
    """Return the clone's commit, and whether it has changes."""
    try:
        dirty = git(crossjit.PROJECT, "status", "--porcelain", "--untracked-files=no").strip()
        return git(crossjit.PROJECT, "rev-parse", "--short", "HEAD").strip() + (" with changes" if dirty else "")
    except Exception:  # without a repository or git the figures are still valid
        return "unknown"
