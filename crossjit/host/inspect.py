"""Inspects the host: one value, gathered in less than a third of a second without changing anything."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossjit.engine import endpoint
from crossjit.engine.base import HOST, traits, unlimited
from crossjit.engine.endpoint import Endpoint
from crossjit.host import emulation, tools
from crossjit.host.shell import Shell
from crossjit.host.tools import HostTools
from crossjit.model import Arch, EmulationSupport, Platform
from crossjit.settings import Settings

# For making a base image without an image registry: Debian's packages, and a program of each.
TOOLS = {"mmdebstrap": "mmdebstrap", "arch-test": "arch-test"}
TOOLS_OF_USERS = {"uidmap": "newuidmap"}  # mmdebstrap runs it if it is not root
SOCKET = "var/run/docker.sock"


@dataclass(frozen=True)
class Distribution:
    """From os-release: `debian` 12 `bookworm`; `apt` is True for Debian's family with apt-get."""

    id: str = ""
    version: str = ""
    codename: str = ""
    name: str = "an unknown system"
    apt: bool = False


@dataclass(frozen=True)
class EngineLook:
    """The engine as its client describes it. `client` is None if not installed, `version` if it does not answer."""

    name: str
    client: str | None = None
    version: str | None = None
    buildx: str | None = None
    arch: Arch | None = None
    cgroup: str = ""
    storage: str = ""
    root: str = ""
    system: str = ""
    cores: int = 0
    memory: int = 0
    traits: tuple[str, ...] = ()  # what is unusual about it, such as `rootless`
    unlimited: tuple[str, ...] = ()  # what it cannot limit for a container
    problem: str = ""
    denied: bool = False  # its socket exists, but this user may not use it
    daemon_program: str | None = None
    endpoint: Endpoint = field(default_factory=Endpoint)

    @property
    def elsewhere(self) -> str:
        """A description of the engine that the client talks to; empty if it is this machine's own."""
        return "" if self.endpoint.is_own else self.endpoint.words


@dataclass(frozen=True)
class HostInfo:
    """The host. Sizes are in bytes; `ability` is None if crossjit does not know the machine's arch.

    `tools` are the paths of the programs for bootstrapping a base image as this user, by Debian's package.
    """

    distribution: Distribution
    engine: EngineLook
    ability: EmulationSupport | None
    machine: str
    binfmt_mounted: bool
    service_manager: bool
    tools: Mapping[str, str | None] = field(default_factory=dict)
    home_free: int | None = None
    engine_free: int | None = None
    no_updates: tuple[str, ...] = ()  # the engine's packages without an apt source; set by `with_updates`
    own_tools: HostTools | None = None  # of the host as an engine

    @property
    def foreign(self) -> tuple[Arch, ...]:
        """Archs that this host may have to emulate."""
        return self.ability.arch.others if self.ability else ()


def inspect(settings: Settings, shell: Shell) -> HostInfo:
    """Inspect the host: a few files, a call of the engine's client, a call of each emulator."""
    if settings.engine == HOST:
        return _without_containers(settings, shell)
    engine, local = _podman(shell) if settings.engine == "podman" else _docker(shell)
    binfmt = shell.root / "proc/sys/fs/binfmt_misc"
    arch = engine.arch or Arch.of_machine(shell.machine)

    def ask(argv: Sequence[str]) -> str | None:
        output = shell.run(argv, timeout=10)
        return None if output.returncode == 127 else output.stdout

    return HostInfo(
        distribution=_distribution(shell),
        engine=engine,
        ability=emulation.ability(arch, local=local, binfmt=binfmt, ask=ask) if arch else None,
        machine=shell.machine,
        binfmt_mounted=(binfmt / "register").exists(),
        service_manager=(shell.root / "run/systemd/system").is_dir(),
        tools={
            package: shell.which(program)
            for package, program in (TOOLS if shell.is_root else TOOLS | TOOLS_OF_USERS).items()
        },
        home_free=_free(settings.home),
        engine_free=_free(shell.root / engine.root.lstrip("/")) if local and engine.root else None,
    )


def _without_containers(settings: Settings, shell: Shell) -> HostInfo:
    """Inspect the host as an engine of its own."""
    arch, platform = Arch.of_machine(shell.machine), Platform.of_system(shell.system)
    return HostInfo(
        distribution=_distribution(shell),
        engine=EngineLook(HOST, client=shell.kernel, version=shell.kernel, arch=arch),
        ability=EmulationSupport(arch, {}) if arch else None,
        machine=shell.machine,
        binfmt_mounted=False,
        service_manager=False,
        home_free=_free(settings.home),
        own_tools=tools.find(shell, platform, arch) if arch and platform else None,
    )


ENGINE_PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "docker-ce", "docker-ce-cli", "docker-buildx-plugin")


def with_updates(host: HostInfo, shell: Shell) -> HostInfo:
    """Return the host with `no_updates`: the engine's packages that none of apt's sources has.

    Takes up to two seconds, so `inspect` does not include it.
    """
    if not host.distribution.apt or host.engine.name != "docker" or host.engine.elsewhere:
        return host
    policy = shell.run(["apt-cache", "policy", *ENGINE_PACKAGES], timeout=60).stdout
    return replace(host, no_updates=tuple(package for package in ENGINE_PACKAGES if _has_no_source(policy, package)))


def _has_no_source(policy: str, package: str) -> bool:
    """Whether `apt-cache policy` lists no source but dpkg's own list for a package's installed version.

    The installed version's line begins with `***`; a line for each source follows.
    """
    about = re.search(rf"^{re.escape(package)}:$(.*?)(?=^\S|\Z)", policy, re.MULTILINE | re.DOTALL)
    installed = re.search(r"^ \*\*\* .*\n((?: {8,}.*\n?)*)", about[1], re.MULTILINE) if about else None
    return installed is not None and all("/var/lib/dpkg/status" in line for line in installed[1].splitlines())


def number(version: str | None) -> tuple[int, ...]:
    """Return a version's leading numbers, without a Debian epoch: `1:7.2+dfsg-7` is (7, 2)."""
    match = re.match(r"v?(?:\d+:)?(\d+(?:\.\d+)*)", version or "")
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def _docker(shell: Shell) -> tuple[EngineLook, bool]:
    """Return the engine, and whether it is on this machine."""
    daemon = shell.which("dockerd")
    if shell.which("docker") is None:
        named = endpoint.find(lambda arguments: (0, "", ""), shell.environ)
        return EngineLook("docker", daemon_program=daemon, endpoint=named), named.is_own
    output = shell.run(["docker", "info", "--format", "{{json .}}"], timeout=15)
    info = _json(output.stdout)
    client = info.get("ClientInfo") or {}
    version = client.get("Version") or _first_version(shell.run(["docker", "--version"], timeout=10).stdout)
    plugins = {plugin.get("Name"): plugin.get("Version") for plugin in client.get("Plugins") or ()}
    if not client:  # if the context is missing, `info` does not report the client either
        plugins["buildx"] = _first_version(shell.run(["docker", "buildx", "version"], timeout=10).stdout)
    named = _endpoint(shell)
    engine = EngineLook(
        "docker",
        client=version or "of unknown version",
        buildx=plugins.get("buildx"),
        daemon_program=daemon,
        endpoint=named,
    )
    if not info.get("ServerVersion"):
        problem = next(iter(info.get("ServerErrors") or output.last_lines(1)), "it does not answer")
        socket = shell.root / SOCKET
        denied = (
            named.is_own and socket.exists() and not shell.is_root and not shell.run(["test", "-w", str(socket)]).ok
        )
        return replace(engine, problem=problem, denied=denied), named.is_own
    # Docker Desktop and remote engines run under a different kernel, even if the address looks local.
    same = info.get("KernelVersion") == shell.kernel and info.get("MemTotal") == _memory(shell.root)
    local = same and not named.is_remote
    engine = replace(
        engine,
        version=info["ServerVersion"],
        arch=Arch.of_machine(info.get("Architecture", "")),
        cgroup=info.get("CgroupVersion") or "1",
        storage=info.get("Driver", ""),
        root=info.get("DockerRootDir", ""),
        system=info.get("OperatingSystem", ""),
        traits=traits(info),
        unlimited=unlimited(info),
        cores=info.get("NCPU", 0),
        memory=info.get("MemTotal", 0),
    )
    return engine, local


def _endpoint(shell: Shell) -> Endpoint:
    """Return the address of the engine that the client talks to."""

    def ask(arguments: Sequence[str]) -> tuple[int, str, str]:
        output = shell.run(["docker", *arguments], timeout=10)
        return output.returncode, output.stdout, output.stderr

    return endpoint.find(ask, shell.environ)


def _podman(shell: Shell) -> tuple[EngineLook, bool]:
    """The same for podman, which needs no daemon and no buildx."""
    if shell.which("podman") is None:
        return EngineLook("podman"), True
    output = shell.run(["podman", "info", "--format", "json"], timeout=15)
    info = _json(output.stdout)
    host, store = info.get("host") or {}, info.get("store") or {}
    client = _first_version(shell.run(["podman", "--version"], timeout=10).stdout) or "of unknown version"
    if not output.ok or not host:
        return EngineLook("podman", client=client, problem=next(iter(output.last_lines(1)), "it does not answer")), True
    engine = EngineLook(
        "podman",
        client=client,
        version=(info.get("version") or {}).get("Version") or client,
        arch=Arch.of_machine(host.get("arch", "")),
        cgroup=str(host.get("cgroupVersion", "")).removeprefix("v"),
        storage=store.get("graphDriverName", ""),
        root=store.get("graphRoot", ""),
        system=(host.get("distribution") or {}).get("distribution", ""),
        traits=traits(info),
        unlimited=unlimited(info),
        cores=host.get("cpus", 0),
        memory=host.get("memTotal", 0),
    )
    return engine, host.get("kernel") == shell.kernel


def _distribution(shell: Shell) -> Distribution:
    try:
        text = (shell.root / "etc/os-release").read_text(errors="replace")
    except OSError:
        return Distribution()
    release = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in text.splitlines())}
    family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    return Distribution(
        id=release.get("ID", ""),
        version=release.get("VERSION_ID", ""),
        codename=release.get("VERSION_CODENAME", ""),
        name=release.get("PRETTY_NAME", release.get("ID", "")),
        apt=bool(family & {"debian", "ubuntu"}) and shell.which("apt-get") is not None,
    )


def _free(path: Path) -> int | None:
    """Return the free bytes on the disk of `path`, which need not exist."""
    for folder in (path, *path.parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return None


def _memory(root: Path) -> int | None:
    try:
        match = re.search(r"^MemTotal:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def _first_version(text: str) -> str:
    match = re.search(r"\d+(?:\.\d+)+", text)
    return match[0] if match else ""


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
