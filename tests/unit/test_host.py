from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from crossjit import host
from crossjit.config.engines import NamedEngine
from crossjit.errors import ExitCode, InfrastructureError
from crossjit.host.check import Status
from crossjit.host.checks import checks, missing
from crossjit.host.inspect import EngineLook, number
from crossjit.model import Arch, Emulator
from crossjit.settings import Settings
from tests.unit.pretend_host import (
    BINFMT,
    BOOKWORM,
    BOOKWORM_OFFERS,
    FEDORA,
    MIRROR,
    NOBLE,
    NOBLE_OFFERS,
    TRIXIE,
    TRIXIE_OFFERS,
    PretendHost,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", prepare=True)


@pytest.fixture
def bookworm(tmp_path: Path) -> PretendHost:
    return PretendHost(tmp_path, BOOKWORM, BOOKWORM_OFFERS)


@pytest.fixture
def able(bookworm: PretendHost) -> PretendHost:
    return bookworm.with_engine().with_emulation().with_tools()


def nobody_asked(question: str) -> NoReturn:
    raise AssertionError(f"nobody should be asked: {question}")


def silent(text: str) -> None:
    pass


def repair(settings: Settings, shell: PretendHost, consent: host.Confirm | None = nobody_asked) -> host.Repair:
    return host.setup(settings, consent, silent, shell=shell)


def status(settings: Settings, shell: PretendHost) -> dict[str, str]:
    return {check.name: check.status.value for check in host.check(settings, shell=shell)}


def found(settings: Settings, shell: PretendHost, name: str) -> host.Check:
    return next(check for check in host.check(settings, shell=shell) if check.name == name)


def index(shell: PretendHost, part: str) -> int:
    return next(number for number, line in enumerate(shell.changes) if part in line)


# Looking


def test_an_able_host_passes_every_check(settings: Settings, able: PretendHost) -> None:
    result = status(settings, able)
    assert "fail" not in result.values()
    assert found(settings, able, "x86_64").found.startswith("native")
    assert found(settings, able, "aarch64").found.startswith("cross, emulate (as cortex-a72)")
    assert found(settings, able, "QEMU aarch64").found.startswith("7.2.22")
    assert able.changes == []


def test_checks_become_json(settings: Settings, bookworm: PretendHost) -> None:
    lines = json.loads(json.dumps([check.to_json() for check in host.check(settings, shell=bookworm)]))
    engine = next(line for line in lines if line["name"] == "docker engine")
    assert engine["status"] == "fail"
    assert engine["remedy"] == ["./inv doctor --fix"]
    assert engine["needed_for"] == "everything that runs"


def test_a_bare_host_says_what_it_lacks(settings: Settings, bookworm: PretendHost) -> None:
    result = status(settings, bookworm)
    assert [name for name, is_ in result.items() if is_ == "fail"] == [
        *("docker client", "docker engine", "buildx", "binfmt aarch64", "x86_64", "aarch64")
    ]
    assert result["mmdebstrap"] == "warn"
    assert found(settings, bookworm, "binfmt aarch64").found == "binfmt_misc is not mounted"
    assert bookworm.changes == []


def test_an_engine_elsewhere_is_asked_what_it_runs(settings: Settings, able: PretendHost) -> None:
    able.remote = True
    assert found(settings, able, "docker engine").found.endswith("on another machine (Docker Desktop)")
    assert repair(settings, able).commands == ()
    for version, shown in (("9.2", "QEMU 9.2, tried in the engine"), (None, "QEMU or an equal, tried in the engine")):
        there = Emulator(Arch.AARCH64, "qemu-aarch64", "", version, fixed=True, enabled=True, cpu="max")
        looked = with_emulators(host.inspect(settings, able), {Arch.AARCH64: there})
        named = {check.name: check for check in checks(looked)}
        assert (named["binfmt aarch64"].status, named["binfmt aarch64"].found) == (Status.OK, shown)
        assert named["aarch64"].found == "cross, emulate (as max); not native: the host is x86_64"
    named = {check.name: check for check in checks(with_emulators(host.inspect(settings, able), {}))}
    assert named["binfmt aarch64"].status is Status.WARN  # nothing that setup could mend
    assert named["aarch64"].status is Status.FAIL
    assert "on the engine's machine" in named["aarch64"].remedy[0]


def with_emulators(looked: host.HostInfo, emulators: Mapping[Arch, Emulator]) -> host.HostInfo:
    assert looked.ability is not None
    return replace(looked, ability=replace(looked.ability, emulators=emulators))


LOCAL, BOX = NamedEngine("local"), NamedEngine("arm", "ssh://box")


def several(settings: Settings, shell: PretendHost) -> dict[str, host.Check]:
    listed = host.check(replace(settings, engines=(LOCAL, BOX)), shell=shell)
    named = {check.name: check for check in listed}
    assert len(named) == len(listed)
    return named


def test_doctor_looks_at_each_engine(settings: Settings, bookworm: PretendHost) -> None:
    """This machine needs no QEMU for what another engine runs natively."""
    bookworm.with_engine().with_tools()
    bookworm.elsewhere["ssh://box"] = {"Architecture": "aarch64"}
    named = several(settings, bookworm)
    assert [name for name, check in named.items() if check.status is Status.FAIL] == []
    assert named["local: docker engine"].found.startswith("26.1.5, x86_64")
    assert named["arm: docker engine"].found == "28.2.2, aarch64, cgroup v2, overlay2, on another machine (Debian)"
    assert [name for name in named if "binfmt" in name] == []
    assert named["x86_64"].found.startswith("local: native")
    assert named["aarch64"].found.startswith("arm: native")


def test_doctor_says_which_engine_does_not_answer(settings: Settings, bookworm: PretendHost) -> None:
    named = several(settings, bookworm.with_engine().with_emulation().with_tools())
    bad = named["arm: docker engine"]
    assert (bad.status, bad.found) == (Status.FAIL, "no answer from ssh://box")
    assert "the setting engines (arm)" in bad.remedy[0]
    assert "take arm out of CROSSJIT_ENGINES" in bad.remedy[0]
    assert [name for name in named if name.startswith("arm: ")] == ["arm: docker client", bad.name, "arm: buildx"]
    assert named["local: binfmt aarch64"].status is Status.OK
    assert named["aarch64"].found.startswith("local: cross, emulate")


@pytest.mark.parametrize("prepare", [False, True])
def test_an_engine_of_an_unknown_arch_is_refused(settings: Settings, able: PretendHost, prepare: bool) -> None:
    able.elsewhere["ssh://box"] = {"Architecture": "riscv64"}
    there = replace(settings, engines=(BOX,), prepare=prepare)
    with pytest.raises(InfrastructureError) as caught:
        host.ensure(there, None, silent, arches=(), shell=able)
    assert caught.value.message == "docker at ssh://box, by the setting engines (arm) lacks docker engine"
    assert caught.value.hint == "use a different engine, or take arm out of CROSSJIT_ENGINES"
    assert "unknown arch" in caught.value.details[0]
    assert able.changes == []


@pytest.mark.parametrize(("flags", "words"), [("P", "no flag F"), ("", "no flag F")])
def test_binfmt_without_f_is_of_no_use(settings: Settings, bookworm: PretendHost, flags: str, words: str) -> None:
    bookworm.with_engine().with_emulation(flags).with_tools()
    assert words in found(settings, bookworm, "binfmt aarch64").found
    assert "not emulate" in found(settings, bookworm, "aarch64").found


@pytest.mark.parametrize(("buildx", "expected"), [("v0.30.1", "ok"), ("0.10.0", "ok"), ("0.9.1", "fail"), ("", "fail")])
def test_buildx_must_be_new_enough(settings: Settings, able: PretendHost, buildx: str, expected: str) -> None:
    able.buildx = buildx
    assert status(settings, able)["buildx"] == expected


def test_room_old_engines_and_vfs_are_judged(settings: Settings, able: PretendHost) -> None:
    seen = host.inspect(settings, able)
    engine = seen.engine

    def judged(name: str, **changes: Any) -> str:
        return next(check.status.value for check in checks(replace(seen, **changes)) if check.name == name)

    assert [judged("disk: engine", engine_free=n << 30) for n in (2, 5, 50)] == ["fail", "warn", "ok"]
    assert [judged("disk: state", home_free=n << 30) for n in (2, 5, 50)] == ["fail", "warn", "ok"]
    assert judged("disk: engine", engine_free=None) == "warn"
    assert judged("memory", engine=replace(engine, memory=2 << 30)) == "warn"
    assert judged("docker engine", engine=replace(engine, version="20.10.24+dfsg1")) == "warn"
    assert judged("docker engine", engine=replace(engine, storage="vfs")) == "warn"
    assert judged("docker engine", engine=replace(engine, arch=None)) == "fail"


def test_a_machine_of_another_arch_is_told_so(settings: Settings, bookworm: PretendHost) -> None:
    bookworm.machine = "riscv64"
    assert status(settings, bookworm)["aarch64"] == "fail"
    assert "QEMU" not in " ".join(status(settings, bookworm))


def test_missing_is_about_what_is_asked_for(settings: Settings, bookworm: PretendHost) -> None:
    seen = host.inspect(settings, bookworm.with_engine())
    assert missing(seen, (Arch.X86_64,)) == ()
    assert [check.name for check in missing(seen, (Arch.AARCH64,))] == ["binfmt aarch64"]
    assert [check.name for check in missing(seen, (Arch.X86_64,), bootstrap=True)] == ["mmdebstrap", "arch-test"]


def test_versions_are_compared_by_their_numbers() -> None:
    assert number("1:7.2+dfsg-7+deb12u18") == (7, 2)
    assert number("26.1.5+dfsg1-9+b7") == (26, 1, 5)
    assert number("v0.30.1-desktop.1") == (0, 30, 1)
    assert number("20.10.24") < (23,) < number("23.0.1")
    assert number(None) == number("none") == ()


# Repairing


def test_debian_12_gets_its_engine_from_the_next_suite(settings: Settings, bookworm: PretendHost) -> None:
    done = repair(settings, bookworm)
    assert done.able
    assert done.changed
    assert bookworm.engine_version == "26.1.5+dfsg1"
    assert (bookworm.root / "var/cache/crossjit/newer.sources").exists() is False
    assert "qemu-user-static binfmt-support" in bookworm.changes[1]
    assert all("--no-remove" in line for line in bookworm.changes if " install " in line)
    assert index(bookworm, "update") == 0
    assert index(bookworm, "mount -t binfmt_misc") < index(bookworm, "update-binfmts --enable qemu-aarch64")
    assert "download docker.io/trixie docker-cli/trixie docker-buildx/trixie" in " ".join(bookworm.changes)
    assert bookworm.used_sudo == []


def test_the_next_suite_comes_from_the_hosts_own_mirror(settings: Settings, bookworm: PretendHost) -> None:
    repair(settings, bookworm)
    text = bookworm.written["/var/cache/crossjit/newer.sources"]
    assert f"URIs: {MIRROR}\n" in text
    assert "Suites: trixie\n" in text
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n" in text


def test_a_failed_step_leaves_no_folder(settings: Settings, bookworm: PretendHost) -> None:
    bookworm.failing["download docker.io"] = "E: no network"
    with pytest.raises(InfrastructureError, match=r"downloading docker\.io/trixie.* failed"):
        repair(settings, bookworm)
    assert not (bookworm.root / "var/cache/crossjit").exists()


def test_every_command_is_told_as_it_is_run(settings: Settings, bookworm: PretendHost) -> None:
    said: list[str] = []
    done = host.setup(settings, nobody_asked, said.append, shell=bookworm)
    assert [line.partition("\n    $ ")[2] for line in said if line.startswith("setting up: ")] == [*done.commands]
    assert "apt-get" in said[0]


def test_an_engine_without_updates_is_told(settings: Settings, bookworm: PretendHost) -> None:
    done = repair(settings, bookworm)
    warning = next(check for check in done.checks if check.name == "engine updates")
    assert warning.status is host.Status.WARN
    assert warning.found == ("apt has no source for docker.io, docker-cli, docker-buildx: no security update will come")
    assert "./inv setup --updates" in warning.remedy[0]
    assert found(settings, bookworm, "engine updates") == warning
    assert done.able, "it works all the same"


def test_updates_come_from_a_source_for_these_packages_alone(settings: Settings, bookworm: PretendHost) -> None:
    done = host.setup(settings, nobody_asked, lambda _: None, updates=True, shell=bookworm)
    assert "engine updates" not in [check.name for check in done.checks]
    sources = bookworm.written["/etc/apt/sources.list.d/crossjit-trixie.sources"].split("\n\n")
    assert [stanza.splitlines()[2] for stanza in sources] == ["Suites: trixie", "Suites: trixie-security"]
    assert all(f"URIs: {MIRROR}\n" in stanza and "Signed-By: " in stanza for stanza in sources)
    pins = bookworm.written["/etc/apt/preferences.d/crossjit-trixie"]
    assert "Package: *\nPin: release n=trixie\nPin-Priority: -1\n" in pins
    assert "Package: docker.io docker-cli docker-buildx\nPin: release n=trixie-security\nPin-Priority: 500\n" in pins
    changes = list(bookworm.changes)
    assert not host.setup(settings, None, lambda _: None, updates=True, shell=bookworm).changed
    assert bookworm.changes == changes


def test_updates_can_be_asked_for_later(settings: Settings, bookworm: PretendHost) -> None:
    repair(settings, bookworm)
    bookworm.changes.clear()
    done = host.setup(settings, nobody_asked, lambda _: None, updates=True, shell=bookworm)
    assert [line.split()[0] for line in bookworm.changes] == ["tee", "tee", "env", "env"]
    assert "engine updates" not in [check.name for check in done.checks]


def test_the_distributions_own_engine_has_updates(settings: Settings, tmp_path: Path) -> None:
    shell = PretendHost(tmp_path, TRIXIE, TRIXIE_OFFERS)
    done = host.setup(settings, nobody_asked, lambda _: None, updates=True, shell=shell)
    assert "engine updates" not in [check.name for check in done.checks]
    assert not any("preferences" in line for line in shell.changes)


def test_trixie_has_what_it_takes(settings: Settings, tmp_path: Path) -> None:
    shell = PretendHost(tmp_path, TRIXIE, TRIXIE_OFFERS)
    assert repair(settings, shell).able
    install = shell.changes[index(shell, " install ")]
    assert install.endswith("qemu-user qemu-user-binfmt docker.io docker-cli docker-buildx")
    assert not any("download" in line for line in shell.changes)
    # no service manager, no binfmt-support: the kernel got the line from us, and read it as an aarch64 ELF header
    assert found(settings, shell, "binfmt aarch64").found.startswith("/usr/bin/qemu-aarch64,")
    assert any(line.startswith("setsid --fork") for line in shell.changes)


def test_ubuntu_with_quiet_sudo_and_a_service_manager(settings: Settings, tmp_path: Path) -> None:
    shell = PretendHost(tmp_path, NOBLE, NOBLE_OFFERS, root=False, sudo="quiet", service_manager=True)
    said: list[str] = []
    done = host.setup(settings, nobody_asked, said.append, shell=shell)
    assert done.able
    assert all(command.startswith("sudo -n ") for command in done.commands if not command.startswith("printf"))
    assert "docker.io docker-buildx" in shell.changes[index(shell, " install ")]
    assert "usermod -aG docker jane" in shell.changes
    assert "setfacl -m u:jane:rw /var/run/docker.sock" in shell.changes
    assert not any(line.startswith("setsid") for line in shell.changes)
    assert "next login" in said[-1]


def test_a_second_run_does_nothing_and_says_so(settings: Settings, bookworm: PretendHost) -> None:
    repair(settings, bookworm)
    before = list(bookworm.changes)
    said: list[str] = []
    done = host.setup(settings, None, said.append, shell=bookworm)
    assert bookworm.changes == before
    assert not done.changed
    assert said == ["nothing to do: this host has everything that crossjit needs"]


def test_a_second_user_of_a_prepared_host_lacks_what_only_users_need(settings: Settings, tmp_path: Path) -> None:
    """Set up by root, who bootstraps a base image without uidmap."""
    shell = PretendHost(tmp_path, TRIXIE, TRIXIE_OFFERS, root=False, sudo="quiet")
    shell.with_engine(buildx="0.13.1").with_emulation().with_tools()
    shell.socket_open_to.add("jane")
    assert status(settings, shell)["uidmap"] == "warn"
    seen = host.inspect(settings, shell)
    assert [check.name for check in missing(seen, (Arch.X86_64,), bootstrap=True)] == ["uidmap"]
    done = host.setup(settings, nobody_asked, lambda line: None, shell=shell)
    assert done.changed
    assert "newuidmap" in shell.programs
    assert status(settings, shell)["uidmap"] == "ok"
    assert "uidmap" not in status(settings, PretendHost(tmp_path, TRIXIE, TRIXIE_OFFERS))


def test_elsewhere_it_says_what_to_do(settings: Settings, tmp_path: Path) -> None:
    shell = PretendHost(tmp_path, FEDORA)
    with pytest.raises(InfrastructureError, match="lacks docker client, docker engine, buildx, binfmt") as caught:
        repair(settings, shell)
    assert "Fedora Linux 43" in caught.value.hint
    assert "sudo dnf install moby-engine docker-buildx" in "\n".join(caught.value.details)
    assert shell.changes == []


@pytest.mark.parametrize("sudo", ["none", "asks"])
def test_without_rights_and_nobody_to_ask_it_prints_and_stops(settings: Settings, tmp_path: Path, sudo: str) -> None:
    shell = PretendHost(tmp_path, BOOKWORM, BOOKWORM_OFFERS, root=False, sudo=sudo)
    shell.lists_read = True
    with pytest.raises(InfrastructureError, match="not set up yet") as caught:
        repair(settings, shell, consent=None)
    text = "\n".join(caught.value.details)
    for part in ("apt-get", "docker.io/trixie", "mount -t binfmt_misc", "setsid --fork", "sudo tee"):
        assert part in text
    assert caught.value.exit_code == ExitCode.INFRASTRUCTURE
    assert shell.changes == []


def test_at_a_terminal_it_asks_once_and_takes_no_for_an_answer(settings: Settings, tmp_path: Path) -> None:
    shell = PretendHost(tmp_path, TRIXIE, TRIXIE_OFFERS, root=False, sudo="asks")
    questions: list[str] = []

    def refuse(question: str) -> bool:
        questions.append(question)
        return False

    with pytest.raises(InfrastructureError, match="setup declined"):
        repair(settings, shell, refuse)
    assert len(questions) == 1
    assert "sudo env DEBIAN_FRONTEND=noninteractive" in questions[0]
    assert shell.changes == []
    assert shell.used_sudo == []


def test_at_a_terminal_a_yes_is_enough(settings: Settings, tmp_path: Path) -> None:
    shell = PretendHost(tmp_path, TRIXIE, TRIXIE_OFFERS, root=False, sudo="asks")
    assert repair(settings, shell, lambda question: True).able
    assert shell.used_sudo[0] == ("sudo", "-v")


def test_a_stopped_engine_is_only_started(settings: Settings, bookworm: PretendHost) -> None:
    bookworm.with_engine(running=False).with_emulation().with_tools()
    bookworm.write("var/run/docker.pid", "99")  # killed; 99 is somebody else now
    bookworm.write("proc/99/comm", "bash\n")
    assert repair(settings, bookworm).able
    assert [line.split()[0] for line in bookworm.changes] == ["rm", "setsid"]


def test_an_engine_that_is_starting_is_only_waited_for(settings: Settings, able: PretendHost) -> None:
    able.running = False

    def awake(seconds: float) -> None:
        able.running = True

    able.sleep = awake  # type: ignore[method-assign]
    assert repair(settings, able).able
    assert able.changes == []


def test_a_service_manager_starts_it_where_there_is_one(settings: Settings, tmp_path: Path) -> None:
    shell = PretendHost(tmp_path, NOBLE, NOBLE_OFFERS, service_manager=True)
    shell.with_engine(running=False).with_emulation().with_tools()
    repair(settings, shell)
    assert shell.changes == ["systemctl enable --now docker.service"]


def test_in_a_container_of_cgroup_2_processes_move_aside_first(settings: Settings, bookworm: PretendHost) -> None:
    bookworm.with_engine(running=False).with_emulation().with_tools()
    bookworm.write("sys/fs/cgroup/cgroup.type", "domain\n")
    repair(settings, bookworm)
    assert "cgroup.subtree_control" in bookworm.changes[0]
    assert bookworm.changes[1].startswith("setsid")


def test_an_engine_that_never_answers_is_reported_with_its_log(settings: Settings, bookworm: PretendHost) -> None:
    bookworm.with_engine(running=False).with_emulation().with_tools()
    bookworm.daemon_works = False
    with pytest.raises(InfrastructureError, match="does not answer 60 s after") as caught:
        repair(settings, bookworm)
    assert "failed to start daemon: no room" in caught.value.details
    assert "/var/log/dockerd.log" in caught.value.hint
    assert 60 <= bookworm.slept < 70


@pytest.mark.parametrize("flags", ["P", ""])
def test_a_handler_without_f_is_registered_anew(settings: Settings, bookworm: PretendHost, flags: str) -> None:
    bookworm.with_engine().with_emulation(flags).with_tools()
    assert repair(settings, bookworm).able
    assert bookworm.changes == [f"tee /{BINFMT}/qemu-aarch64", f"tee /{BINFMT}/register"]
    assert "flags: PF" in (bookworm.root / BINFMT / "qemu-aarch64").read_text()


def test_a_disabled_handler_is_enabled(settings: Settings, bookworm: PretendHost) -> None:
    bookworm.with_engine().with_emulation(state="disabled").with_tools()
    assert repair(settings, bookworm).able
    assert bookworm.changes == [f"tee /{BINFMT}/status", f"tee /{BINFMT}/qemu-aarch64"]


def test_a_handler_that_a_reboot_forgot_needs_no_packages(settings: Settings, able: PretendHost) -> None:
    able.install("binfmt-support")
    for file in (able.root / BINFMT).iterdir():
        file.unlink()
    assert repair(settings, able).able
    assert able.changes == [
        "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc",
        "update-binfmts --enable qemu-aarch64",
    ]


def test_a_dynamic_qemu_is_no_candidate(settings: Settings, bookworm: PretendHost) -> None:
    bookworm.with_engine().with_tools().mounted()
    bookworm.write("usr/bin/qemu-aarch64", "\x7fELF .... /lib64/ld-linux-x86-64.so.2")
    assert repair(settings, bookworm).able
    assert "install qemu-user-static binfmt-support" in " ".join(bookworm.changes)


def test_a_working_engine_is_never_replaced(settings: Settings, bookworm: PretendHost) -> None:
    bookworm.with_engine("20.10.24", buildx="").with_emulation().with_tools()
    assert repair(settings, bookworm).able
    text = " ".join(bookworm.changes)
    assert "download docker-buildx/trixie" in text
    assert "docker.io" not in text
    assert bookworm.engine_version == "20.10.24"
    assert not any(line.startswith(("setsid", "systemctl")) for line in bookworm.changes)


def test_the_users_own_docker_repository_is_used(settings: Settings, bookworm: PretendHost) -> None:
    bookworm.offers |= {
        "docker-ce": "5:29.0.1-1~debian.12~bookworm",
        "docker-buildx-plugin": "0.30.0-1",
        "docker-ce-cli": "5:29",
        "containerd.io": "2",
    }
    bookworm.failing["docker-ce"] = "stop here"
    with pytest.raises(InfrastructureError) as caught:
        repair(settings, bookworm)
    assert "docker-ce docker-ce-cli containerd.io docker-buildx-plugin" in caught.value.details[0]


@pytest.mark.parametrize(
    ("environ", "context", "where", "undo"),
    [
        (
            {"DOCKER_HOST": "tcp://a.invalid:2376"},
            ("default", ""),
            "tcp://a.invalid:2376, by DOCKER_HOST",
            "DOCKER_HOST",
        ),
        ({"DOCKER_HOST": "unix:///x.sock"}, ("default", ""), "unix:///x.sock, by DOCKER_HOST", "DOCKER_HOST"),
        ({}, ("dead", "unix:///y.sock"), "unix:///y.sock, by the docker context 'dead'", "docker context use default"),
        ({"DOCKER_CONTEXT": "gone"}, None, "by the docker context 'gone'", "unset DOCKER_CONTEXT"),
        ({}, None, "by docker's current context", "docker context use default"),
    ],
)
def test_an_engine_elsewhere_that_does_not_answer_is_the_users_affair(
    settings: Settings,
    bookworm: PretendHost,
    environ: Mapping[str, str],
    context: tuple[str, str] | None,
    where: str,
    undo: str,
) -> None:
    """Nothing is installed or started for it, and nothing waited for; what is there is not called missing."""
    bookworm.with_engine(running=False)
    bookworm.environ, bookworm.context = environ, context
    for call in (partial(repair, settings, bookworm), partial(host.ensure, settings, None, silent, shell=bookworm)):
        with pytest.raises(InfrastructureError, match="does not answer") as caught:
            call()
        assert where in caught.value.message
        assert undo in caught.value.hint
    assert bookworm.changes == []
    assert bookworm.slept == 0
    assert status(settings, bookworm)["buildx"] == "ok"
    assert where in found(settings, bookworm, "docker engine").remedy[0]


def test_an_engine_elsewhere_that_answers_is_used(settings: Settings, able: PretendHost) -> None:
    able.context, able.remote = ("builder", "ssh://builder.invalid"), True
    assert status(settings, able)["docker engine"] == "ok"
    assert repair(settings, able).commands == ()


def test_what_dpkg_was_interrupted_in_is_finished_first(settings: Settings, bookworm: PretendHost) -> None:
    bookworm.half_installed = True
    bookworm.write("var/lib/dpkg/updates/0001", "")
    assert repair(settings, bookworm).able
    assert "--configure -a" in bookworm.changes[0]
    assert "--fix-broken" in bookworm.changes[1]


def test_a_failing_command_is_shown_with_its_last_lines(settings: Settings, bookworm: PretendHost) -> None:
    bookworm.failing["install mmdebstrap"] = "Reading package lists...\nE: Failed to fetch: 404 Not Found"
    with pytest.raises(InfrastructureError, match=r"^installing mmdebstrap.* failed: exit status 100$") as caught:
        repair(settings, bookworm)
    assert caught.value.details[0].startswith("$ env DEBIAN_FRONTEND")
    assert caught.value.details[-1] == "E: Failed to fetch: 404 Not Found"
    assert "again" in caught.value.hint


@pytest.mark.parametrize("when", ["stop_before", "stop_after"])
@pytest.mark.parametrize(
    ("release", "offers"), [(BOOKWORM, BOOKWORM_OFFERS), (TRIXIE, TRIXIE_OFFERS)], ids=["bookworm", "trixie"]
)
def test_killed_anywhere_the_next_run_succeeds(tmp_path: Path, when: str, release: str, offers: dict[str, str]) -> None:
    complete = PretendHost(tmp_path / "complete", release, offers)
    repair(Settings(home=tmp_path / "home"), complete)
    for step in range(1, len(complete.changes) + 1):
        shell = PretendHost(tmp_path / str(step), release, offers)
        setattr(shell, when, step)
        here = Settings(home=tmp_path / str(step) / "home")
        if when == "stop_after" or step < len(complete.changes):
            with pytest.raises(KeyboardInterrupt):
                repair(here, shell)
        setattr(shell, when, None)
        assert repair(here, shell).able, f"step {step}: {complete.changes[step - 1]}"


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path, bookworm: PretendHost) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfrastructureError, match="cannot be written") as caught:
        repair(Settings(home=tmp_path / "file"), bookworm)
    assert "CROSSJIT_HOME" in caught.value.hint
    assert bookworm.changes == []


def test_podman_needs_neither_daemon_nor_buildx(tmp_path: Path, bookworm: PretendHost) -> None:
    podman = Settings(home=tmp_path / "home", engine="podman")
    names = [check.name for check in host.check(podman, shell=bookworm)]
    assert "podman client" in names
    assert "buildx" not in names
    with pytest.raises(InfrastructureError):  # bookworm's offers here have no podman
        repair(podman, bookworm)
    assert not any("docker" in line for line in bookworm.changes)


def test_podman_comes_with_what_it_only_recommends(tmp_path: Path, bookworm: PretendHost) -> None:
    """Without an init it starts no container; a distribution may lack some of the packages."""
    bookworm.offers |= {"podman": "4.3.1+ds1-8", "catatonit": "0.1.7-1", "slirp4netns": "1.2.0-1"}
    assert repair(Settings(home=tmp_path / "home", engine="podman"), bookworm).able
    (line,) = (line for line in bookworm.changes if " podman" in line)
    installed = line.split()
    assert {"podman", "catatonit", "slirp4netns"} <= set(installed)
    assert "fuse-overlayfs" not in installed


def test_podman_without_root_that_limits_nothing(settings: Settings, bookworm: PretendHost) -> None:
    podman = EngineLook(
        "podman", client="4.3.1", version="4.3.1", arch=Arch.X86_64, cgroup="1", storage="overlay", traits=("rootless",)
    )
    unlimited: tuple[str, ...]
    for unlimited, status in ((("memory", "pids"), Status.FAIL), ((), Status.OK)):
        looked = replace(host.inspect(settings, bookworm), engine=replace(podman, unlimited=unlimited))
        (check,) = (check for check in checks(looked) if check.name == "podman engine")
        assert check.status is status
        assert "cgroup v1, overlay, rootless" in check.found
        assert check.found.endswith("cannot limit memory and pids") is bool(unlimited)
        assert ("cgroup v2" in " ".join(check.remedy)) is bool(unlimited)


# Ensuring


def test_ensure_leaves_an_able_host_alone(settings: Settings, able: PretendHost) -> None:
    assert host.ensure(settings, nobody_asked, silent, shell=able).commands == ()
    assert able.changes == []
    assert able.used_sudo == []


def test_ensure_repairs_only_if_something_that_is_needed_is_missing(settings: Settings, bookworm: PretendHost) -> None:
    bookworm.with_engine()
    assert not host.ensure(settings, nobody_asked, silent, arches=[Arch.X86_64], shell=bookworm).changed
    assert host.ensure(settings, nobody_asked, silent, arches=[Arch.AARCH64], shell=bookworm).changed
    assert bookworm.engine_version == "26.1.5"


def test_ensure_that_may_not_prepare_says_what_is_missing(settings: Settings, bookworm: PretendHost) -> None:
    with pytest.raises(InfrastructureError, match="lacks docker client") as caught:
        host.ensure(replace(settings, prepare=False), nobody_asked, silent, shell=bookworm)
    assert "./inv doctor --fix" in caught.value.hint
    assert bookworm.changes == []


def test_the_real_shell_runs_commands(tmp_path: Path) -> None:
    shell = host.LocalShell()
    assert shell.run(["cat"], text="in\n").stdout == "in\n"
    assert shell.run(["sh", "-c", "echo out; echo err >&2; exit 3"]).last_lines() == ("out", "err")
    assert shell.run(["sh", "-c", "kill -KILL $$"]).how == "killed by SIGKILL"
    assert shell.run([str(tmp_path / "none")]).returncode == 127
    assert shell.run(["sleep", "60"], timeout=0.05).how == "killed by SIGKILL"
    assert shell.which("sh")
    assert shell.which("a-program-that-nobody-has") is None
