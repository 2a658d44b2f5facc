"""What a container may do, as flags of the client: the same for docker and podman."""

from __future__ import annotations

import os

from crossjit.engine.base import READ_ONLY, ContainerOptions

# The container's first process runs as a user that nothing else runs as. Without capabilities nobody in the container
# can send it a signal then, root neither: a command that kills whatever it can ends itself, and not its container.
KEEPER = "65533:65533"

# The kernel's own limit for a process without privileges: an engine that is not root itself may not set a higher one.
# regrtest asks for 1,024; test_selectors opens as many as it gets.
OPEN_FILES = 4096

# Half of what any other process group of the machine gets, once they compete.
CPU_SHARES = 512

# What the client's own settings (`proxies` in config.json) put into every container, credentials and all; and what an
# image's build takes from the environment. Both are left out of an image's history and of the builder's keys
# (https://docs.docker.com/build/building/variables/#pre-defined-build-arguments).
PROXIES = tuple(
    spelling
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for spelling in (name, name.lower())
)


def without_proxies() -> dict[str, str]:
    """Return the environment for a client that starts a container: what `--env NAME` names is not there to be taken."""
    return {name: value for name, value in os.environ.items() if name not in PROXIES}


def no_proxies(client: str) -> list[str]:
    """Return the flags with which no proxy gets into a container or a command, whatever the client's settings say."""
    if client == "podman":
        return ["--http-proxy=false"]
    # a name without a value takes a variable away
    return [flag for name in PROXIES for flag in ("--env", name)]


def build_proxies() -> list[str]:
    """Return the flags that hand the environment's proxies to an image's build; the values are on no command line."""
    return [flag for name in PROXIES if os.environ.get(name) for flag in ("--build-arg", name)]


def flags(options: ContainerOptions) -> list[str]:
    """Return what a container is confined with."""
    found = ["--init", "--user", KEEPER, "--no-healthcheck"]
    found += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    for capability in options.capabilities:
        found += ["--cap-add", capability]
    if not options.network:
        found += ["--network", "none"]
    if not options.writable:
        found += ["--read-only"]
    for folder in options.tmpfs:
        # the engine's default, noexec, would break tests that write a program and run it
        found += ["--tmpfs", folder if ":" in folder else f"{folder}:rw,exec,nosuid,nodev,mode=1777"]
    for volume, folder in options.volumes.items():
        bare = folder.removesuffix(READ_ONLY)
        access = ",readonly" if bare != folder else ""
        found += ["--mount", f"type=volume,source={volume},target={bare}{access}"]
    limits = options.limits
    if limits.memory is not None:
        found += ["--memory", str(limits.memory), "--memory-swap", str(limits.memory)]
    most = -1 if limits.file_size_may_be_raised else limits.file_size
    return [
        *found,
        *("--pids-limit", str(limits.pids), "--cpu-shares", str(CPU_SHARES), "--ulimit", "core=0:0"),
        *("--ulimit", f"nofile={OPEN_FILES}:{OPEN_FILES}", "--ulimit", f"fsize={limits.file_size}:{most}"),
    ]
