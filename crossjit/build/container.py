"""Toolchain containers: starting one with caches and limits, and populating it with a source and our scripts."""

from __future__ import annotations

import os
import re
import shlex
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO

from crossjit import channels, sources
from crossjit.build import compilers, logic
from crossjit.build.layout import (
    BUILD,
    BUILD_PYTHON,
    BUILDER,
    CACHE,
    CACHE_BELOW,
    CACHE_SCRIPT,
    COMPILERS,
    GENERATED,
    INSTALL,
    LLVM,
    ROOT,
    SCRIPTS,
    SMALL_CACHE,
    SOURCE,
    SUPPORT,
    TOOLS,
)
from crossjit.build.spec import BuildSpec
from crossjit.channels import MalformedError
from crossjit.engine.base import READ_ONLY, Container, ContainerOptions, Engine, EngineFacts, Limits
from crossjit.errors import InfrastructureError
from crossjit.host.tools import LLVM_TOOLS
from crossjit.images import Image
from crossjit.model import Arch, Strategy
from crossjit.sources import Source, trust
from crossjit.util.budget import BUILD_MEMORY, OWN_DISK, STRANGER_DISK
from crossjit.util.tar import packed

_LLVM_WRAPPER = f"{TOOLS}/llvm"  # the LLVM tools' names link to it
# static linking halves its startup time
_COMPILE_LLVM_WRAPPER = ("/usr/bin/gcc", "-O1", "-static", "-o", _LLVM_WRAPPER, f"{TOOLS}/llvm_cache.c")
_COMPILERS = ("gcc", "g++", *(f"{arch.triple}-{name}" for arch in Arch for name in ("gcc", "g++")))
LOG_TAIL = 25  # lines shown of a failed command's output
MEMORY_PER_JOB = 1 << 30  # bytes; more than the largest compiler process of a CPython build takes


def jobs_for(facts: EngineFacts, requested: int) -> int:
    """Return make's parallelism: the user's choice, or else the engine's cores as far as its memory allows."""
    return requested or max(1, min(facts.cores, facts.memory // MEMORY_PER_JOB))


def populate(container: Container, spec: BuildSpec, source: Source) -> None:
    """Put the source, our scripts and the build's folders into a fresh container, but no cross build's Python."""
    folders = (ROOT, BUILD, INSTALL, SUPPORT, GENERATED, BUILD_PYTHON, TOOLS, COMPILERS, LLVM, f"{LLVM}/bin", CACHE)
    own_llvm = spec.llvm_folder if spec.on_host else ""
    container.put(scripts(spec.llvm, folders, compilers.wrapped_clangs(spec.compilers), own_llvm), "/")
    if spec.llvm is not None and not spec.on_host:
        require_success(container, _COMPILE_LLVM_WRAPPER)
    with sources.open_tar(source) as tar:
        container.put(tar, ROOT)
    # Unpacked files belong to root or to their packer; a copy belongs to the builder, who can then regenerate files.
    place = ("cp", "-R", "-p") if source.regenerate else ("mv",)
    require_success(container, (*place, f"{ROOT}/{source.top}", SOURCE))


def container_name(subject: str, run: str) -> str:
    """Name a container by its subject and the run that starts it."""
    return f"crossjit-{re.sub(r'[^A-Za-z0-9_.-]+', '-', subject)}-{run}-{os.urandom(2).hex()}"


def build_limits(facts: EngineFacts, domain: str = trust.RECIPES) -> Limits:
    """Return the limits of a build of a trust domain; the time limit is a day, for emulation on a slow machine."""
    disk = STRANGER_DISK if trust.is_stranger(domain) else OWN_DISK
    return Limits(memory=facts.memory_limit(facts.memory * BUILD_MEMORY // 100), seconds=24 * 3600, disk=disk)


def open_container(
    engine: Engine,
    toolchain: Image,
    spec: BuildSpec,
    *,
    facts: EngineFacts,
    name: str,
    labels: Mapping[str, str],
    emulation: Mapping[str, str],
    cache: str | None = None,
    below: str | None = None,
) -> AbstractContextManager[Container]:
    """Start the container of one build: no network, no capabilities, the unprivileged builder.

    `cache` is the name of the cache volume, None for an uncached build. `below` is a second volume, mounted read-only,
    for entries that are not in `cache`.
    """
    volumes = {cache: CACHE} if cache is not None else {}
    if below is not None:
        volumes[below] = f"{CACHE_BELOW}{READ_ONLY}"
    return engine.container(
        ContainerOptions(
            toolchain.reference,
            arch=toolchain.arch,
            name=name,
            labels=labels,
            env={
                **spec.environment,
                **emulation,
                **cache_environment(spec, cached=cache is not None, below=below is not None),
            },
            user=f"{BUILDER}:{BUILDER}",
            network=False,
            limits=build_limits(facts, spec.domain),
            volumes=volumes,
            isolated=not toolchain.is_host,
        )
    )


def cache_environment(spec: BuildSpec, *, cached: bool, below: bool = False) -> Mapping[str, str]:
    """Return the variables that set up ccache and our scripts. They affect no output, so the build key omits them."""
    toolchain = " ".join(filter(None, (spec.toolchain, spec.packages, logic.scripts_digest(), spec.emulator)))
    variables = {
        "CROSSJIT_SOURCE": SOURCE,
        "CROSSJIT_TOOLCHAIN": toolchain,
        "CROSSJIT_LLVM": spec.llvm_folder,
        "CROSSJIT_HEADERS": f"{TOOLS}/headers",
        "CROSSJIT_CACHE_LOG": f"{TOOLS}/log",
        "CROSSJIT_COMPILER": spec.python,
        "CROSSJIT_COMPILED": f"{CACHE if cached else TOOLS}/pyc",
    }
    if not cached:
        return {**variables, "CCACHE_DISABLE": "1"}
    if spec.strategy is not Strategy.EMULATE and not spec.on_host:  # neither was tried there
        variables["CROSSJIT_PREAMBLES"] = f"{TOOLS}/preambles"
        variables["CROSSJIT_LLVM_SERVERS"] = f"{TOOLS}/servers"
        variables["CROSSJIT_LLVM_PROGRAMS"] = " ".join(LLVM_TOOLS)
    storage = f"file:{CACHE}/ccache|update-mtime=true"
    if below:
        variables["CROSSJIT_CACHE_BELOW"] = CACHE_BELOW
        variables["CROSSJIT_COMPILED_BELOW"] = f"{CACHE_BELOW}/pyc"
        storage += f" file:{CACHE_BELOW}/ccache|read-only=true"
    if trust.is_stranger(spec.domain):
        variables |= SMALL_CACHE
    return {
        **variables,
        "CROSSJIT_CACHE": CACHE,
        # ccache fails if its own folder is damaged or not writable, but compiles if its remote storage is
        "CCACHE_DIR": f"{TOOLS}/ccache",
        "CCACHE_REMOTE_ONLY": "true",
        "CCACHE_REMOTE_STORAGE": storage,
        "CCACHE_COMPILERCHECK": f"string:{toolchain}",
        "CCACHE_STATSLOG": f"{TOOLS}/ccache.log",
    }


def cache_report(
    container: Container, remark: Callable[[str], object] = lambda text: None
) -> dict[str, tuple[int, int]]:
    """Return (hits, misses) of a build by cache name, and trim the caches.

    An unreadable report gets a remark, and an empty result.
    """
    try:
        return channels.cache_report(first_line(container, (*CACHE_SCRIPT, "report")))
    except MalformedError as error:
        remark(f"the caches' hits and misses cannot be read: {error}")
        return {}


def scripts(llvm: str | None, folders: Sequence[str] = (), more: Sequence[str] = (), own_llvm: str = "") -> BinaryIO:
    """Make a tar of our scripts for a toolchain container, with the wrappers of compilers and LLVM's tools.

    `folders` are empty folders for the builder; they come first. `more` are additional compilers to wrap.
    `own_llvm` is the folder of an LLVM whose tools are used without a wrapper.
    """
    paths = (*sorted(SCRIPTS.glob("*.py")), SCRIPTS / "compiler.sh", *sorted(SCRIPTS.glob("*.c")))
    files = {f"{TOOLS}/{path.name}": path.read_bytes() for path in paths}
    links = {f"{COMPILERS}/{name}": f"{TOOLS}/compiler.sh" for name in (*_COMPILERS, *more)}
    if llvm is not None:
        for tool in LLVM_TOOLS:
            target = f"{own_llvm}/bin/{tool}" if own_llvm else _LLVM_WRAPPER
            links |= {f"{LLVM}/bin/{name}": target for name in (tool, f"{tool}-{llvm}")}
    return packed(files, dict.fromkeys(folders, BUILDER), links=links, owner=BUILDER, mode=0o755)


def require_success(container: Container, argv: tuple[str, ...], *, cwd: str | None = None) -> None:
    """Run a command of ours. Raises InfrastructureError if it fails."""
    lines: deque[str] = deque(maxlen=LOG_TAIL)
    completed = container.run(argv, cwd=cwd, on_line=lines.append)
    if completed.returncode:
        raise InfrastructureError(
            f"{shlex.join(argv)} failed in the build container: {completed.how}", details=tuple(lines)
        )


def first_line(container: Container, argv: tuple[str, ...], *, cwd: str | None = None) -> str:
    """Run a command and return the first line of its output."""
    first: deque[str] = deque(maxlen=1)

    def take(line: str) -> None:
        if not first:
            first.append(line)

    container.run(argv, cwd=cwd, on_line=take)
    return "".join(first)
