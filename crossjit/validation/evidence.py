"""A cell's evidence: the probe of its build if its conditions still hold, else a new one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from crossjit.config.suites import VALIDATE
from crossjit.engine.base import Engine, EngineFacts
from crossjit.images import Image, Package
from crossjit.progress import Progress
from crossjit.validation import probe as probe_module
from crossjit.validation.target import Target

Conditions = dict[str, str | None]


def conditions(image: Image, environment: Mapping[str, str], qemu: str | None, facts: EngineFacts) -> Conditions:
    """Return the conditions of a probe that its answers may depend on. `environment` is the target's."""
    return {
        "image": image.key,
        "packages": image.fingerprint,
        "qemu": qemu,
        "cpu": environment.get("QEMU_CPU"),
        "environment": " ".join(f"{name}={value}" for name, value in sorted(environment.items())),
        "kernel": facts.kernel,
        "script": hashlib.sha256((VALIDATE / "probe.py").read_bytes()).hexdigest(),
    }


def changed(before: Conditions, now: Conditions) -> str:
    """Describe the changed conditions; empty if none has changed."""
    if not before:
        return "its probe's environment is unknown"
    return ", ".join(_change(name, before.get(name), now[name]) for name in now if before.get(name) != now[name])


def probe(
    engine: Engine, facts: EngineFacts, target: Target, packages: tuple[Package, ...], progress: Progress
) -> dict[str, object]:
    """Probe a built cell in a container of its own; `packages` are the toolchain's. Raises EngineErrors."""
    with probe_module.started(engine, facts, target) as container:
        return probe_module.probe(
            container,
            target.tree,
            cell=target.cell,
            variant=target.variant,
            emulation=target.emulation,
            progress=progress,
            support=target.support,
            packages=packages,
        )


def _change(name: str, before: str | None, now: str | None) -> str:
    if name in ("image", "packages", "environment", "script"):
        return f"different {name}"
    return f"{name} {before or 'none'} -> {now or 'none'}"
