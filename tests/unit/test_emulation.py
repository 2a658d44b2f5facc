from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from crossjit.errors import ExitCode, UserError
from crossjit.host import emulation
from crossjit.model import Arch, Emulator

AARCH64 = """enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: PF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""
X86_64 = AARCH64.replace("b700", "3e00").replace("aarch64", "x86_64")
RISCV64 = AARCH64.replace("b700", "f300").replace("aarch64", "riscv64")
JAR = "enabled\ninterpreter /usr/bin/jexec\nflags: \noffset 0\nmagic 504b0304\n"
EXTENSION = "enabled\ninterpreter /usr/bin/wine\nflags: \nextension .exe\n"

ARM_MODELS = "Available CPUs:\n  a64fx\n  cortex-a72\n  cortex-a76\n  max\n  neoverse-n1\n"
X86_MODELS = (
    "Available CPUs:\nx86 486                   (alias configured by machine type)\n"
    "x86 Nehalem-v1            Intel Core i7 9xx\nx86 max                   Enables all features\n\n"
    "Recognized CPUID flags:\n  3dnow 3dnowext abm\n"
)


def answers(
    version: str = "qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\n", models: str = ARM_MODELS
) -> emulation.Ask:
    def ask(argv: Sequence[str]) -> str | None:
        assert Path(argv[0]).is_absolute()
        return {("--version",): version, ("-cpu", "help"): models}[tuple(argv[1:])]

    return ask


def deaf(argv: Sequence[str]) -> str | None:
    return None


def kernel(folder: Path, status: str = "enabled\n", **handlers: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "register").touch()
    (folder / "status").write_text(status)
    for name, text in handlers.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(Arch.AARCH64, "qemu-aarch64", "/usr/bin/qemu-aarch64-static", "7.2.22", True, True, "cortex-a72")


def test_reads_what_the_kernel_has_registered(tmp_path: Path) -> None:
    folder = kernel(tmp_path, qemu=AARCH64, other=RISCV64, jar=JAR, wine=EXTENSION)
    ability = emulation.ability(Arch.X86_64, binfmt=folder, ask=answers())
    assert list(ability.emulators) == [Arch.AARCH64]
    found = ability.emulators[Arch.AARCH64]
    assert found == Emulator(
        Arch.AARCH64, "qemu", "/usr/libexec/qemu-binfmt/aarch64-binfmt-P", "7.2.22", True, True, "cortex-a72"
    )
    assert ability.runs(Arch.AARCH64) is True
    assert ability.runs(Arch.X86_64) is True


def test_the_hosts_own_arch_is_not_emulated(tmp_path: Path) -> None:
    ability = emulation.ability(Arch.AARCH64, binfmt=kernel(tmp_path, a=AARCH64, x=X86_64), ask=answers())
    assert list(ability.emulators) == [Arch.X86_64]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("enabled\n", AARCH64.replace("flags: PF", "flags: P")),
        ("enabled\n", AARCH64.replace("flags: PF", "flags: ")),
        ("enabled\n", AARCH64.replace("enabled", "disabled")),
        ("disabled\n", AARCH64),
    ],
    ids=["P only", "no flags", "handler disabled", "all disabled"],
)
def test_containers_cannot_use_it(tmp_path: Path, status: str, text: str) -> None:
    ability = emulation.ability(Arch.X86_64, binfmt=kernel(tmp_path, status, qemu=text), ask=answers())
    assert Arch.AARCH64 in ability.emulators
    assert ability.runs(Arch.AARCH64) is False


def test_the_usable_handler_wins_whatever_its_name(tmp_path: Path) -> None:
    without = AARCH64.replace("flags: PF", "flags: P")
    for names in (("a", "b"), ("b", "a")):
        folder = kernel(tmp_path / "".join(names), **{names[0]: without, names[1]: AARCH64})
        assert emulation.registered(folder, answers())[Arch.AARCH64].name == names[1]


def test_not_mounted_is_unable_and_remote_is_to_be_asked(tmp_path: Path) -> None:
    assert emulation.ability(Arch.X86_64, binfmt=tmp_path / "none", ask=answers()).runs(Arch.AARCH64) is False
    remote = emulation.ability(Arch.X86_64, local=False, binfmt=kernel(tmp_path / "k", q=AARCH64), ask=answers())
    assert remote.emulators == {}
    assert not remote.local
    assert not remote.runs(Arch.AARCH64)
    assert remote.runs(Arch.X86_64) is True


def test_an_interpreter_that_is_not_to_be_seen_has_no_version(tmp_path: Path) -> None:
    found = emulation.registered(kernel(tmp_path, q=AARCH64), deaf)[Arch.AARCH64]
    assert found.version is None
    assert found.usable


def test_the_interpreter_is_asked_under_its_own_name(tmp_path: Path) -> None:
    real = tmp_path / "qemu-aarch64-static"
    real.touch()
    (tmp_path / "aarch64-binfmt-P").symlink_to(real)
    asked = []

    def ask(argv: Sequence[str]) -> str:
        asked.append(argv[0])
        return "qemu-aarch64 version 10.0.13\n"

    text = AARCH64.replace("/usr/libexec/qemu-binfmt", str(tmp_path))
    assert emulation.registered(kernel(tmp_path / "k", q=text), ask)[Arch.AARCH64].version == "10.0.13"
    assert asked == [str(real)]


def test_environment_only_where_something_is_emulated() -> None:
    assert emulation.environment(Arch.X86_64, Arch.X86_64, "max") == {}
    assert emulation.environment(Arch.X86_64, Arch.AARCH64) == {"QEMU_CPU": "cortex-a72"}
    assert emulation.environment(Arch.X86_64, Arch.AARCH64, "max") == {"QEMU_CPU": "max"}
    assert emulation.environment(Arch.AARCH64, Arch.X86_64, None) == {"QEMU_CPU": "Nehalem"}


def test_models_are_read_from_either_list(emulator: Emulator) -> None:
    assert emulation.cpu_models(emulator, answers()) == ("a64fx", "cortex-a72", "cortex-a76", "max", "neoverse-n1")
    assert emulation.cpu_models(emulator, answers(models=X86_MODELS)) == ("486", "Nehalem-v1", "max")
    assert emulation.cpu_models(emulator, deaf) == ()


def test_a_cpu_that_qemu_knows_is_taken_with_its_features(emulator: Emulator) -> None:
    assert emulation.check_cpu("max,pauth-impdef=on", emulator, answers()) == "max,pauth-impdef=on"
    assert emulation.check_cpu("whatever", emulator, deaf) == "whatever"
    assert emulation.check_cpu("whatever", None) == "whatever"


def test_a_cpu_that_qemu_does_not_know_is_the_users_error(emulator: Emulator) -> None:
    with pytest.raises(UserError, match=r"QEMU 7\.2\.22 cannot emulate .*'cortex-a27'") as caught:
        emulation.check_cpu("cortex-a27", emulator, answers())
    assert "did you mean 'cortex-a" in caught.value.hint
    assert "neoverse-n1" in caught.value.details[0]
    assert caught.value.exit_code == ExitCode.USER


@pytest.mark.parametrize("cpu", ["", " ", ",x=on", "help", "max -g 1"])
def test_what_is_no_cpu_at_all(emulator: Emulator, cpu: str) -> None:
    with pytest.raises(UserError, match="invalid CPU model"):
        emulation.check_cpu(cpu, emulator, deaf)
