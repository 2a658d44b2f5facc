"""The archs that this host can run in addition to its own, and the CPU models that QEMU emulates."""

from __future__ import annotations

import difflib
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from crossjit.errors import UserError
from crossjit.model import Arch, EmulationSupport, Emulator

__all__ = [
    "BINFMT",
    "Emulator",
    "EmulationSupport",
    "ability",
    "check_cpu",
    "cpu_models",
    "environment",
    "registered",
]

BINFMT = Path("/proc/sys/fs/binfmt_misc")

Ask = Callable[[Sequence[str]], str | None]
"""Runs a program and returns its standard output, whatever its exit status (`-cpu help` has 1); None if it cannot run.
"""

# A handler is identified by the ELF machine in its magic, not by its name: e_machine is the halfword at byte 18.
_MACHINES = {arch.elf_number.to_bytes(2, "little").hex(): arch for arch in Arch}
_ELF64_LITTLE_ENDIAN = "7f454c460201"


def environment(host_arch: Arch, arch: Arch, cpu: str | None = None) -> Mapping[str, str]:
    """Return the environment variables for a container of `arch` on `host_arch`: QEMU_CPU if emulated."""
    if host_arch is arch:
        return {}
    return {"QEMU_CPU": cpu or arch.cpu}


def ability(
    engine_arch: Arch, *, local: bool = True, binfmt: Path = BINFMT, ask: Ask | None = None
) -> EmulationSupport:
    """Return what the engine's machine can run.

    `engine_arch` is the engine's own (`EngineFacts.arch`). `local` says that its kernel is this machine's, so that the
    handlers in `binfmt` are its own. `ask` runs `interpreter --version`.
    """
    emulators = registered(binfmt, ask or _ask) if local else {}
    return EmulationSupport(engine_arch, {a: e for a, e in emulators.items() if a is not engine_arch}, local)


def registered(binfmt: Path = BINFMT, ask: Ask | None = None) -> dict[Arch, Emulator]:
    """Return the best handler in binfmt_misc for each of our archs; {} if it is not mounted.

    QEMU's version is that of the file at the interpreter's path now. With flag F the kernel runs the file opened at
    registration, which may be different if QEMU was upgraded since, or if this is a container.
    """
    try:
        everything_on = (binfmt / "status").read_text().strip() != "disabled"
        entries = sorted(entry for entry in binfmt.iterdir() if entry.name not in ("status", "register"))
    except OSError:
        return {}
    best: dict[Arch, Emulator] = {}
    for entry in entries:
        try:
            text = entry.read_text()
        except OSError:
            continue
        emulator = _parse(entry.name, text, everything_on, ask or _ask)
        if emulator and (emulator.arch not in best or emulator.usable > best[emulator.arch].usable):
            best[emulator.arch] = emulator
    return best


def cpu_models(emulator: Emulator, ask: Ask | None = None) -> tuple[str, ...]:
    """Return the CPU models that this QEMU can emulate, () if it cannot be run."""
    output = (ask or _ask)([_program(emulator.interpreter), "-cpu", "help"])
    models = []
    for line in (output or "").splitlines()[1:]:
        if not line.strip() or line.startswith("Recognized"):
            break
        words = line.split()
        models.append(words[1] if words[0] == "x86" and len(words) > 1 else words[0])
    return tuple(models)


def check_cpu(cpu: str, emulator: Emulator | None, ask: Ask | None = None) -> str:
    """Return `cpu` (a model, maybe with features: `max,pauth-impdef=on`) if QEMU lists it, or if QEMU cannot be run.

    Raises UserError with a 'did you mean' for a model that QEMU does not list.
    """
    model = cpu.split(",", 1)[0].strip()
    if not model or model == "help" or re.search(r"\s", cpu):
        raise UserError(f"invalid CPU model {cpu!r}", hint="give a name that QEMU's `-cpu help` lists, such as max")
    models = cpu_models(emulator, ask) if emulator else ()
    if emulator is None or not models or model in models:
        return cpu
    close = difflib.get_close_matches(model, models, n=1, cutoff=0.5)
    suggestion = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(
        f"QEMU {emulator.version or ''} cannot emulate the CPU model {model!r} of {emulator.arch}".replace("  ", " "),
        hint=f"{suggestion}without --cpu it emulates {emulator.cpu}",
        details=(f"it knows: {', '.join(models)}",),
    )


def _parse(name: str, text: str, everything_on: bool, ask: Ask) -> Emulator | None:
    """Parse a handler: lines `enabled`, `interpreter PATH`, `flags: PF`, `offset 0`, `magic HEX`, `mask HEX`."""
    lines = text.splitlines()
    fields = dict(line.replace("flags:", "flags", 1).partition(" ")[::2] for line in lines[1:])
    magic = fields.get("magic", "")
    arch = _MACHINES.get(magic[36:40]) if magic.startswith(_ELF64_LITTLE_ENDIAN) else None
    if arch is None or fields.get("offset", "0") != "0":
        return None
    interpreter = fields.get("interpreter", "")
    return Emulator(
        arch=arch,
        name=name,
        interpreter=interpreter,
        version=_version(ask([_program(interpreter), "--version"])),
        fixed="F" in fields.get("flags", ""),
        enabled=everything_on and lines[0] == "enabled",
        cpu=arch.cpu,
    )


def _version(output: str | None) -> str | None:
    """Find the version in `qemu-aarch64 version 7.2.22 (Debian …)`."""
    match = re.search(r"version (\d+(?:\.\d+)*)", output or "")
    return match[1] if match else None


def _program(interpreter: str) -> str:
    """Follow Debian's `…-binfmt-P` links: under that name QEMU passes its options to the emulated program."""
    return str(Path(interpreter).resolve())


def _ask(argv: Sequence[str]) -> str | None:
    try:
        result = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout
