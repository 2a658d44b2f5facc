"""The actions that set up a Debian or Ubuntu host, by stage. They are decided here, not carried out."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossjit.host.checks import BUILDX, ENGINE
from crossjit.host.inspect import SOCKET, HostInfo, number
from crossjit.host.shell import Shell
from crossjit.model import Arch
from crossjit.util import apt

NEWER_SUITE = (
    "trixie"  # its engine needs only libc6 2.34 and so installs on Debian 12, whose own is 20.10 without buildx
)
OLDEST_FOR_NEWER = (12,)
NEWER_PACKAGES = ("docker.io", "docker-cli", "docker-buildx")
NEWER_FOLDER = "/var/cache/crossjit"
SOURCES = f"/etc/apt/sources.list.d/crossjit-{NEWER_SUITE}.sources"
PREFERENCES = f"/etc/apt/preferences.d/crossjit-{NEWER_SUITE}"
DAEMON_LOG = "/var/log/dockerd.log"
DAEMON_PID = "/var/run/docker.pid"
STATIC_QEMU = (9, 1)  # since this version Debian's qemu-user is static, and qemu-user-static an empty package
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
CGROUP = "sys/fs/cgroup"

# Podman's package only recommends an init for containers, and what it needs without root.
PODMAN_PACKAGES = ("podman", "catatonit", "uidmap", "slirp4netns", "fuse-overlayfs")

_PACKAGES_OF_INTEREST = (
    *("docker-ce", "docker.io", "docker-cli", "docker-buildx", "docker-buildx-plugin", *PODMAN_PACKAGES),
    *("qemu-user-static", "qemu-user", "qemu-user-binfmt", "binfmt-support"),
)

_APT = (
    *("env", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=a"),
    *("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"),
    *("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"),
)
# An installed engine or QEMU is never removed in favour of these.
_INSTALL = (*_APT, "--no-install-recommends", "--no-remove", "install")

# From QEMU's scripts/qemu-binfmt-conf.sh: the start of the ELF header, and the mask of the bits to compare.
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00"


@dataclass(frozen=True)
class Action:
    """One command that changes the host.

    `text` is its standard input. An `optional` action may fail. `attempts` above 1 are for commands that fail at once
    if another program has a lock. A `cleanup` action is also run if an earlier one failed.
    """

    title: str
    argv: tuple[str, ...]
    text: str | None = None
    optional: bool = False
    attempts: int = 1
    cleanup: bool = False

    def command(self, prefix: Sequence[str] = ()) -> str:
        """Return it as a shell command."""
        line = shlex.join([*prefix, *self.argv])
        return line if self.text is None else f"printf '%s' {shlex.quote(self.text)} | {line}"


@dataclass(frozen=True)
class AptIndex:
    """Apt's candidate versions by package, the distribution's mirror, and the one of its security updates."""

    candidates: Mapping[str, str]
    mirror: str | None
    security: str | None = None

    def has(self, package: str, at_least: tuple[int, ...] = ()) -> bool:
        """Whether there is a candidate of at least that version."""
        return package in self.candidates and number(self.candidates[package]) >= at_least


Stage = Callable[[HostInfo, AptIndex, Shell], tuple[Action, ...]]


def catalogue(shell: Shell, codename: str) -> AptIndex:
    """Query apt: candidates are from its current lists, mirrors from its configuration even without lists."""
    candidates = {}
    package = ""
    for line in shell.run(["apt-cache", "policy", *_PACKAGES_OF_INTEREST], timeout=60).stdout.splitlines():
        if line and not line[0].isspace():
            package = line.rstrip(":")
        elif line.strip().startswith("Candidate:") and "(none)" not in line:
            candidates[package] = line.split(":", 1)[1].strip()
    output = shell.run(apt.targets("$(REPO_URI) $(RELEASE) $(COMPONENT)"), timeout=60)
    rows = [line.split() for line in output.stdout.splitlines()]
    mirrors = [
        row[0] for row in rows if len(row) == 3 and row[2] == "main" and row[1] in (codename, "stable", "oldstable")
    ]
    security = [row[0] for row in rows if len(row) == 3 and row[2] == "main" and row[1] == f"{codename}-security"]
    return AptIndex(candidates, mirrors[0] if mirrors else None, security[0] if security else None)


def wants_packages(host: HostInfo, shell: Shell) -> bool:
    """Whether any package must be installed."""
    return _wants_engine(host) or _wants_buildx(host) or _wants_qemu(host, shell) or not all(host.tools.values())


def recovery(shell: Shell) -> tuple[Action, ...]:
    """Finish the work of an interrupted dpkg: unpacked packages, or its journal."""
    journal = shell.root / "var/lib/dpkg/updates"
    if not shell.run(["dpkg", "--audit"], timeout=60).stdout.strip() and not (
        journal.is_dir() and any(journal.iterdir())
    ):
        return ()
    return (
        Action(
            "finishing what an interrupted dpkg left",
            (
                "env",
                "DEBIAN_FRONTEND=noninteractive",
                "dpkg",
                "--force-confdef",
                "--force-confold",
                "--configure",
                "-a",
            ),
            optional=True,  # it neither waits for dpkg's lock nor fetches dependencies; the next one does
        ),
        Action("completing half-installed packages", (*_APT, "--no-remove", "--fix-broken", "install")),
    )


def update() -> tuple[Action, ...]:
    """Update apt's lists."""
    return (Action("updating apt's package lists", (*_APT, "update"), attempts=6),)


def packages(host: HostInfo, offered: AptIndex, shell: Shell) -> tuple[Action, ...]:
    """Install missing packages; the engine from a newer suite if the distribution's own is too old."""
    names = [tool for tool, path in host.tools.items() if not path]
    if not all(host.tools.values()):
        names.append("zstd")
    if _wants_qemu(host, shell):
        if offered.has("qemu-user-binfmt", STATIC_QEMU):
            names += ["qemu-user", "qemu-user-binfmt"]
        else:
            names += ["qemu-user-static", "binfmt-support"]
    if not shell.is_root and host.engine.name == "docker" and not shell.which("setfacl"):
        names.append("acl")
    newer: list[str] = []
    if _wants_engine(host) or _wants_buildx(host):
        own = _own_engine(host, offered)
        if own:
            names += own
        elif _may_take_newer(host) and offered.mirror:
            newer = [*(["docker.io", "docker-cli"] if _wants_engine(host) else []), "docker-buildx"]
    actions = []
    if names:
        actions.append(Action(f"installing {', '.join(names)}", (*_INSTALL, *names)))
    if newer and offered.mirror:
        actions += _from_newer_suite(newer, offered.mirror, signed=(shell.root / KEYRING.lstrip("/")).exists())
    return tuple(actions)


def mount(host: HostInfo, offered: AptIndex, shell: Shell) -> tuple[Action, ...]:
    """Mount binfmt_misc."""
    if host.binfmt_mounted or not _lacking(host):
        return ()
    argv = ("mount", "-t", "binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc")
    return (Action("mounting binfmt_misc", argv),)


def handlers(host: HostInfo, offered: AptIndex, shell: Shell) -> tuple[Action, ...]:
    """Let the distribution register its handlers, now and at every boot."""
    absent = [arch for arch in _lacking(host) if host.ability and arch not in host.ability.emulators]
    if not absent:
        return ()
    if host.service_manager and not shell.which("update-binfmts"):
        argv = ("systemctl", "restart", "systemd-binfmt.service")
        return (Action("registering binfmt handlers", argv, optional=True),)
    if shell.which("update-binfmts"):
        return tuple(
            Action(f"registering QEMU for {arch}", ("update-binfmts", "--enable", f"qemu-{arch}"), optional=True)
            for arch in absent
        )
    return ()


def registration(host: HostInfo, offered: AptIndex, shell: Shell) -> tuple[Action, ...]:
    """Register directly the handlers that are still missing, disabled or without flag F, until the next boot."""
    actions = []
    folder = "/proc/sys/fs/binfmt_misc"
    for arch in _lacking(host):
        emulator = host.ability.emulators.get(arch) if host.ability else None
        if emulator and emulator.fixed:
            actions.append(Action("enabling binfmt_misc", ("tee", f"{folder}/status"), text="1"))
            actions.append(Action(f"enabling {emulator.name}", ("tee", f"{folder}/{emulator.name}"), text="1"))
            continue
        qemu = _static_qemu(arch, shell)
        if qemu is None:
            continue
        interpreter, flags = qemu
        if emulator:
            actions.append(
                Action(f"removing {emulator.name}, without F", ("tee", f"{folder}/{emulator.name}"), text="-1")
            )
        machine = "".join(rf"\x{byte:02x}" for byte in arch.elf_number.to_bytes(2, "little"))
        line = f":qemu-{arch}:M::{_MAGIC}{machine}:{_MASK}:{interpreter}:{flags}"
        actions.append(Action(f"registering {interpreter} for {arch}", ("tee", f"{folder}/register"), text=line))
    return tuple(actions)


def daemon(host: HostInfo, offered: AptIndex, shell: Shell) -> tuple[Action, ...]:
    """Start the engine: with the service manager, or directly if there is none."""
    engine = host.engine
    if engine.name != "docker" or engine.version is not None or engine.denied or engine.elsewhere:
        return ()
    if host.service_manager:
        return (Action("starting the engine", ("systemctl", "enable", "--now", "docker.service")),)
    if running(shell):
        return ()
    actions = [
        Action(f"removing {path}, whose {program} is gone", ("rm", "-f", path))
        for program, path in (("dockerd", DAEMON_PID), ("containerd", "/run/docker/containerd/containerd.pid"))
        if (shell.root / path.lstrip("/")).exists() and not _alive(program, path, shell)
    ]
    if (shell.root / CGROUP / "cgroup.type").exists():
        # In a container, the root cgroup v2 may not have processes and delegate controllers at the same time. The
        # processes are moved, as in docker's image for nested engines
        # (https://github.com/moby/moby/blob/master/hack/dind).
        script = (
            "cd /sys/fs/cgroup && mkdir -p init && xargs -rn1 < cgroup.procs > init/cgroup.procs || :; "
            "sed -e 's/ / +/g' -e 's/^/+/' < cgroup.controllers > cgroup.subtree_control"
        )
        actions.append(Action("making room for the engine's cgroups", ("sh", "-c", script), optional=True))
    # The package's init script raises limits, which a container may not do; the daemon does not need that.
    script = f"cd / && exec dockerd >>{DAEMON_LOG} 2>&1 </dev/null"
    actions.append(Action(f"starting dockerd (log: {DAEMON_LOG})", ("setsid", "--fork", "sh", "-c", script)))
    return tuple(actions)


def access(host: HostInfo, offered: AptIndex, shell: Shell) -> tuple[Action, ...]:
    """Give this user access to the engine: through the group, and until the next login by an ACL on the socket."""
    if shell.is_root or not host.engine.denied:
        return ()
    return (
        Action(
            f"adding {shell.user} to the group docker, which amounts to root", ("usermod", "-aG", "docker", shell.user)
        ),
        Action(
            "opening the engine's socket until the next login", ("setfacl", "-m", f"u:{shell.user}:rw", f"/{SOCKET}")
        ),
    )


STAGES: tuple[Stage, ...] = (packages, mount, handlers, registration, daemon, access)


def running(shell: Shell) -> bool:
    """Whether there is a dockerd, perhaps still starting."""
    return _alive("dockerd", DAEMON_PID, shell)


def _alive(program: str, pid_file: str, shell: Shell) -> bool:
    """Whether the process in the pid file is of that program: another process may have the number by now."""
    try:
        pid = (shell.root / pid_file.lstrip("/")).read_text().strip()
        return (shell.root / "proc" / pid / "comm").read_text().strip() == program
    except OSError:
        return False


def _lacking(host: HostInfo) -> list[Arch]:
    """Return the archs that containers cannot run yet."""
    return [arch for arch in host.foreign if host.ability and host.ability.runs(arch) is False]


def _wants_engine(host: HostInfo) -> bool:
    engine = host.engine
    if engine.elsewhere or engine.version is not None:
        return False
    return engine.client is None or (engine.name == "docker" and engine.daemon_program is None and not engine.denied)


def _wants_buildx(host: HostInfo) -> bool:
    return host.engine.name == "docker" and not host.engine.elsewhere and number(host.engine.buildx) < BUILDX


def _wants_qemu(host: HostInfo, shell: Shell) -> bool:
    """Whether an arch has neither a static QEMU to register nor a handler whose QEMU is visible."""
    if host.ability is None or not host.ability.local:
        return False
    emulators = host.ability.emulators
    return any(
        (arch not in emulators or not emulators[arch].fixed or emulators[arch].version is None)
        and _static_qemu(arch, shell) is None
        for arch in host.foreign
    )


def _own_engine(host: HostInfo, offered: AptIndex) -> list[str]:
    """Return the packages of the engine that the distribution has, [] if they are missing or too old."""
    if host.engine.name == "podman":
        return [name for name in PODMAN_PACKAGES if offered.has(name)] if offered.has("podman") else []
    plugin = next((name for name in ("docker-buildx", "docker-buildx-plugin") if offered.has(name, BUILDX)), None)
    if plugin is None:
        return []
    if not _wants_engine(host):
        return [plugin]
    if offered.has("docker-ce", ENGINE) and not offered.has("docker.io", ENGINE):
        return ["docker-ce", "docker-ce-cli", "containerd.io", plugin]
    if not offered.has("docker.io", ENGINE):
        return []
    return ["docker.io", *(["docker-cli"] if offered.has("docker-cli") else []), plugin]


def _may_take_newer(host: HostInfo) -> bool:
    return (
        host.engine.name == "docker"
        and host.distribution.id == "debian"
        and number(host.distribution.version) >= OLDEST_FOR_NEWER
    )


def _from_newer_suite(packages: list[str], mirror: str, *, signed: bool) -> list[Action]:
    """Download packages from a newer suite of the same mirror and install only them; apt's configuration stays."""
    sources = f"{NEWER_FOLDER}/newer.sources"
    lines = ["Types: deb", f"URIs: {mirror}", f"Suites: {NEWER_SUITE}", "Components: main"]
    if signed:
        lines.append(f"Signed-By: {KEYRING}")
    options = ("-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null")
    apt = (*_APT, *options, "-o", f"Dir::State::Lists={NEWER_FOLDER}/lists")
    names = [f"{name}/{NEWER_SUITE}" for name in packages]
    install = f"exec {shlex.join(_INSTALL)} {NEWER_FOLDER}/*.deb"
    return [
        Action(f"emptying {NEWER_FOLDER}", ("rm", "-rf", NEWER_FOLDER)),
        Action(f"making {NEWER_FOLDER}", ("mkdir", "-p", f"{NEWER_FOLDER}/lists/partial")),
        Action(f"naming the suite {NEWER_SUITE} of the same mirror", ("tee", sources), text="\n".join(lines) + "\n"),
        Action(f"reading the packages of {NEWER_SUITE}", (*apt, "update"), attempts=3),
        Action(f"downloading {', '.join(names)}", ("env", f"--chdir={NEWER_FOLDER}", *apt, "download", *names)),
        Action(f"installing {', '.join(names)}", ("sh", "-c", install)),
        Action(f"removing {NEWER_FOLDER}", ("rm", "-rf", NEWER_FOLDER), cleanup=True),
    ]


def updates(host: HostInfo, offered: AptIndex, shell: Shell) -> tuple[Action, ...]:
    """Add the newer suite to apt's sources, only for the packages that were installed from it."""
    packages = [package for package in host.no_updates if package in NEWER_PACKAGES]
    if not packages or not _may_take_newer(host) or offered.mirror is None:
        return ()
    signed = f"Signed-By: {KEYRING}\n" if (shell.root / KEYRING.lstrip("/")).exists() else ""
    repositories = [(offered.mirror, NEWER_SUITE)]
    repositories += [(offered.security, f"{NEWER_SUITE}-security")] if offered.security else []
    sources = [f"Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\n{signed}" for uri, suite in repositories]
    pins = [
        f"Package: {pinned}\nPin: release n={suite}\nPin-Priority: {priority}\n"
        for pinned, priority in (("*", -1), (" ".join(packages), 500))
        for _, suite in repositories
    ]
    return (
        Action(f"pinning {NEWER_SUITE} to {', '.join(packages)}", ("tee", PREFERENCES), text="\n".join(pins)),
        Action(f"adding {NEWER_SUITE} to apt's sources", ("tee", SOURCES), text="\n".join(sources)),
        *update(),
        Action(f"updating {', '.join(packages)}", (*_INSTALL, "--only-upgrade", *packages)),
    )


def _static_qemu(arch: Arch, shell: Shell) -> tuple[str, str] | None:
    """Find a statically linked QEMU, and the flags to register it with.

    Under Debian's `…-binfmt-P` name it takes the program's own name as an argument, as flag P requires.
    """
    for path, flags in (
        (f"/usr/libexec/qemu-binfmt/{arch}-binfmt-P", "PF"),
        (f"/usr/bin/qemu-{arch}-static", "F"),
        (f"/usr/bin/qemu-{arch}", "F"),
    ):
        file = shell.root / path.lstrip("/")
        if file.exists() and _is_static(file):
            return path, flags
    return None


def _is_static(file: Path) -> bool:
    """Whether an ELF file does not name a dynamic loader."""
    try:
        with file.open("rb") as stream:
            return b"/ld-linux" not in stream.read(4096)
    except OSError:
        return False
