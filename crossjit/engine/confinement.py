"""The restrictions of a container as flags of the client, the same for docker and podman."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from crossjit.engine import cli_text
from crossjit.engine.base import READ_ONLY, ContainerOptions

# The container's first process runs as a user of its own. Without capabilities, no other process in the container, not
# even root's, can send it a signal: a command that kills all that it can ends itself, not its container.
KEEPER = "65533:65533"

# The kernel's default hard limit for unprivileged processes: a rootless engine may not set a higher one. regrtest
# asks for 1,024; test_selectors opens as many as it may.
OPEN_FILES = 4096

# Half the default share of CPU time, and the smallest that there is.
CPU_SHARES = 512
IDLE_SHARES = 2

# The client's settings (`proxies` in config.json) put these into every container, with credentials; an image's build
# takes them from the environment. They are not recorded in an image's history or the builder's cache keys
# (https://docs.docker.com/build/building/variables/#pre-defined-build-arguments).
PROXIES = tuple(
    spelling
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for spelling in (name, name.lower())
)


def without_proxies() -> dict[str, str]:
    """Return our environment without proxies, for a client that starts a container: `--env NAME` then unsets NAME."""
    return {name: value for name, value in os.environ.items() if name not in PROXIES}


def no_proxies(client: str) -> list[str]:
    """Return the flags that keep proxies out of a container or a command, despite the client's settings."""
    if client == "podman":
        return ["--http-proxy=false"]
    # a name without a value unsets a variable
    return [flag for name in PROXIES for flag in ("--env", name)]


def build_proxies() -> list[str]:
    """Return the flags that pass the environment's proxies to an image's build, without values on the command line."""
    return [flag for name in PROXIES if os.environ.get(name) for flag in ("--build-arg", name)]


def own_limits(client: str) -> list[str]:
    """Return the flags that keep podman from raising its own limit of processes, which takes CAP_SYS_RESOURCE.

    A root in a container, or in a small virtual machine, lacks that. `--pids-limit` is what limits a container.
    """
    if client != "podman":
        return []
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = int(Path("/proc/sys/kernel/pid_max").read_text(encoding="utf-8"))  # to which podman lowers its own limit
    limit = most if hard == resource.RLIM_INFINITY else min(hard, most)
    return ["--ulimit", f"nproc={limit}:{limit}"]


def start_flags(options: ContainerOptions, client: str) -> list[str]:
    """Return the flags that start a container: its name, labels and variables, and what confines it."""
    result = ["--name", options.name, "--pull", "never", "--platform", options.arch.platform]
    result += cli_text.label_flags(options.labels)
    if not options.network:
        result += no_proxies(client)
    for key, value in options.env.items():
        result += ["--env", f"{key}={value}"]
    return [*result, *flags(options), *own_limits(client)]


def flags(options: ContainerOptions) -> list[str]:
    """Return the flags that confine a container."""
    result = ["--init", "--user", KEEPER, "--no-healthcheck"]
    result += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    for capability in options.capabilities:
        result += ["--cap-add", capability]
    if not options.network:
        result += ["--network", "none"]
    if not options.writable:
        result += ["--read-only"]
    for folder in options.tmpfs:
        # the engine's default, noexec, breaks tests that write a program and run it
        result += ["--tmpfs", folder if ":" in folder else f"{folder}:rw,exec,nosuid,nodev,mode=1777"]
    for volume, folder in options.volumes.items():
        bare = folder.removesuffix(READ_ONLY)
        access = ",ro" if bare != folder else ""
        result += ["--mount", f"type=volume,source={volume},target={bare}{access}"]
    limits = options.limits
    if limits.memory is not None:
        result += ["--memory", str(limits.memory), "--memory-swap", str(limits.memory)]
    hard_limit = -1 if limits.file_size_may_be_raised else limits.file_size
    shares = IDLE_SHARES if limits.idle else CPU_SHARES
    return [
        *result,
        *("--pids-limit", str(limits.pids), "--cpu-shares", str(shares), "--ulimit", "core=0:0"),
        *("--ulimit", f"nofile={OPEN_FILES}:{OPEN_FILES}", "--ulimit", f"fsize={limits.file_size}:{hard_limit}"),
    ]
