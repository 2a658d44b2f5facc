"""What only a real CPython shows. The cells are taken from the user's own stash, and built if they are not in it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import trees
from crossjit import PROJECT, engine, host, images, settings, sources
from crossjit.build import layout
from crossjit.build.container import cache_environment, container_name, jobs_for, open_container, populate
from crossjit.build.spec import BuildSpec, make_spec
from crossjit.config import recipes
from crossjit.config.conditions import capability_names
from crossjit.engine.base import Container, ContainerOptions
from crossjit.host import emulation
from crossjit.images import Role
from crossjit.model import Arch, Cell, Strategy, Variant
from crossjit.pipeline import context, plan
from crossjit.progress import Silent
from crossjit.runs.record import RunRecord
from crossjit.sources import Source
from crossjit.stash import store
from crossjit.stash.artifact import GENERATED, Artifact
from crossjit.util.tar import packed
from crossjit.validation import capabilities
from crossjit.validation.target import PYTHON, SCRIPTS, TESTER, environment, install
from tests.e2e.driver import Driver

pytestmark = pytest.mark.engine

AARCH64 = "3.15/aarch64/jit"


def crossjit(*arguments: str, expect: int = 0) -> Any:
    """Run a command and return its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "crossjit", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stderr[-4000:]
    return json.loads(done.stdout)


@contextlib.contextmanager
def living_run() -> Iterator[Mapping[str, str]]:
    """Make labels of a run that lives: what carries no such label is swept away by the next command."""
    loaded = settings.load()
    with RunRecord.start(loaded, ["pytest", __name__], {}) as record:
        yield context.labels(loaded, record.id)


def artifact(cell: str) -> Artifact:
    """Return a cell's artifact, built if it is not in the stash."""
    recipe, arch, variant = cell.split("/")
    built = crossjit("build", "--recipe", recipe, "--arch", arch, "--variant", variant)
    return store.Store(settings.load().stash).find_by_prefix(built["cells"][0]["artifact"])


@pytest.fixture(scope="module")
def aarch64_jit() -> Artifact:
    """The artifact of 3.15/aarch64/jit."""
    return artifact(AARCH64)


@pytest.fixture
def target_libraries(aarch64_jit: Artifact, tmp_path: Path) -> Path:
    """The libraries of the image that the artifact was probed in, unpacked as QEMU's `-L` wants them."""
    reference = str(aarch64_jit.manifest.images["target"]["reference"])
    client = engine.connect(settings.load())
    folder = tmp_path / "sysroot"
    folder.mkdir()
    with (
        living_run() as labels,
        client.container(
            ContainerOptions(reference, arch=Arch.AARCH64, name=f"crossjit-test-{os.getpid()}", labels=labels)
        ) as target,
    ):
        (folder / "usr").mkdir()
        with target.get("/usr/lib") as stream:
            unpacked = subprocess.Popen(["tar", "-x", "-C", str(folder / "usr")], stdin=subprocess.PIPE)
            assert unpacked.stdin is not None
            with unpacked.stdin as pipe:
                shutil.copyfileobj(stream, pipe)
            assert unpacked.wait() == 0
    (folder / "lib").symlink_to("usr/lib")
    return folder


def test_an_export_runs_with_qemu_and_the_targets_libraries(
    aarch64_jit: Artifact, target_libraries: Path, tmp_path: Path
) -> None:
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("no qemu-aarch64 to run a program by hand")
    tree = tmp_path / "tree"
    subprocess.run(
        [sys.executable, "-m", "crossjit", "stash", "export", aarch64_jit.id, str(tree)],
        check=True,
        capture_output=True,
    )
    script = (
        "import json, platform, ssl, sys; print(json.dumps([platform.machine(), sys.prefix, sys._jit.is_enabled()]))"
    )
    done = subprocess.run(
        [emulator, "-L", str(target_libraries), str(tree / "usr/local/bin/python3.15"), "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"QEMU_CPU": Arch.AARCH64.cpu, "PATH": os.environ["PATH"]},
    )
    assert json.loads(done.stdout) == ["aarch64", str(tree / "usr/local"), True]


PLAIN = Variant("jit", "", (), ())


def test_an_emulated_target_is_probed_for_what_it_lacks(aarch64_jit: Artifact) -> None:
    client = engine.connect(settings.load())
    host_arch = client.facts().arch
    reference = str(aarch64_jit.manifest.images["target"]["reference"])
    with client.container(
        ContainerOptions(
            reference,
            arch=Arch.AARCH64,
            name=f"crossjit-test-{os.getpid()}",
            labels=context.labels(settings.load(), "test"),
            env=environment(PLAIN, emulation.environment(host_arch, Arch.AARCH64)),
            user=f"{TESTER}:{TESTER}",
        )
    ) as target:
        install(target, PLAIN, aarch64_jit.open)
        probed = capabilities.probe(target, PYTHON, f"{SCRIPTS}/capabilities.py")
    assert probed.problem is None
    assert set(probed.facts) == set(capability_names())
    assert {name: fact["detail"] for name, fact in probed.facts.items() if fact["works"] is None} == {}
    # QEMU's user mode has never had it; what makes the suites run at all is there
    assert probed.known["ptrace"] is (host_arch is Arch.AARCH64)
    for name in ("executable-memory", "loopback", "semaphores", "fork-with-threads", "clocks"):
        assert probed.known[name], probed.facts[name]


def _stencils(stream: Any) -> Iterator[tuple[str, bytes]]:
    """Yield the stencils in a tar, by file name, without their two comment lines."""
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            name = Path(member.name).name
            if name.startswith("jit_stencils-"):
                file = tar.extractfile(member)
                assert file is not None
                yield name, file.read().split(b"\n", 2)[2]


def _stencils_of(artifact: Artifact) -> dict[str, bytes]:
    with artifact.open(GENERATED) as stream:
        return dict(_stencils(stream))


@contextlib.contextmanager
def configured(cell: Cell, strategy: Strategy) -> Iterator[tuple[Container, BuildSpec, Source]]:
    """Configure a cell in a toolchain container, without a cache; what is not native is emulated."""
    loaded = settings.load()
    client = engine.connect(loaded)
    facts = client.facts()
    recipe = recipes.find(cell.recipe, PROJECT / "recipes")
    source = sources.resolve(recipe.built_from, loaded, progress=Silent())
    spec = images.spec_for(source.llvm, images.load_all(PROJECT / "images"))
    toolchain = images.ImageBuilder(client, facts.arch, loaded.home).ensure(spec, Role.TOOLCHAIN, cell.arch)
    built = make_spec(source, recipe.variants[cell.variant], cell.arch, strategy, toolchain)
    with (
        living_run() as labels,
        open_container(
            client,
            toolchain,
            built,
            facts=facts,
            name=container_name(f"{cell}-stencils", "test"),
            labels=labels,
            emulation=emulation.environment(facts.arch, cell.arch),
        ) as container,
    ):
        populate(container, built, source)
        ran(container, *built.commands[0].argv)
        yield container, built, source


def ran(container: Container, *argv: str, env: Mapping[str, str] | None = None) -> list[str]:
    """Run a command where CPython is built; return what it printed."""
    lines: list[str] = []
    assert container.run(argv, cwd=layout.BUILD, env=env, on_line=lines.append).returncode == 0, lines[-20:]
    return lines


@pytest.mark.slow
def test_emulated_stencils_are_those_of_the_cross_build() -> None:
    """The compiler itself under QEMU: configure and the stencils, of 3.14, which has a third of those of 3.15."""
    cell = Cell("3.14", Arch.AARCH64, "jit")
    ability = host.inspect(settings.load(), host.LocalShell()).ability
    facts = engine.connect(settings.load()).facts()
    assert ability is not None
    assert plan.choose_strategy(Strategy.EMULATE, ability, Arch.AARCH64) is Strategy.EMULATE
    with configured(cell, Strategy.EMULATE) as (container, _, _):
        ran(container, "make", f"-j{jobs_for(facts, 0)}", "regen-jit")
        with container.get(layout.BUILD) as stream:
            emulated = dict(_stencils(stream))
    assert emulated
    assert emulated == _stencils_of(artifact(str(cell)))


@pytest.mark.parametrize("recipe", ["3.15", pytest.param("3.14", marks=pytest.mark.slow)])
def test_what_is_precompiled_changes_no_stencil(recipe: str) -> None:
    """One uop of twenty, by clang alone and by what stands for it, with servers and a preamble that is precompiled."""
    arch = engine.connect(settings.load()).facts().arch
    with configured(Cell(recipe, arch, "jit"), Strategy.NATIVE) as (container, spec, source):
        name = "Python/executor_cases.c.h"
        with sources.subset_tar(source, (name,)) as stream, tarfile.open(fileobj=stream) as tar:
            file = tar.extractfile(name)
            assert file is not None
            cases = re.findall(r"\n {8}case \w+: \{\n.*?\n {8}\}", file.read().decode(), flags=re.DOTALL)[::20]
        container.put(packed({name: "\n".join(cases).encode()}, {}, owner=0, mode=0o644), layout.SOURCE)
        made = []
        for env in ({}, cache_environment(spec, cached=True)):
            if env:
                ran(container, "python3", f"{layout.TOOLS}/build_cache.py", "before-make", env=env)
            ran(container, "make", "regen-jit", env=env)
            with container.get(layout.BUILD) as stream:
                made.append(dict(_stencils(stream)))
            ran(container, "sh", "-c", "rm jit_*.h")
        precompiled = ran(container, "ls", env["CROSSJIT_PREAMBLES"])
    assert [name.rpartition(".")[2] for name in precompiled] == ["h", "pch"]
    assert len(cases) > 10
    assert made[0]
    assert made[0] == made[1]


# `kill` of a whole build at each of its phases: fast where the phases before come from the cache that they filled.
PHASES = ("source", "unpack", "configure", "make", "install", "compile", "pack", "probe", "stash", "jit")


@pytest.mark.slow
def test_kill_in_each_phase_of_the_real_one(driver: Driver) -> None:
    """A new state folder: nothing is stashed, nothing cached. What is killed leaves nothing, and the end is green."""
    real = driver.with_environ(CROSSJIT_SOURCE_MIRROR=os.environ.get("CROSSJIT_SOURCE_MIRROR"))
    host = engine.connect(settings.load()).facts().arch
    wanted = ("validate", "--recipe", "3.15", "--arch", host.value, "--variant", "nojit", "--tests", "test_bool")
    for phase in PHASES:
        running = real.start(*wanted)
        run = running.until_in(phase, patience=1800)
        running.kill()
        assert real.is_aborted()
        assert real.last_run().id == run.id
        assert any(step.name == phase for step in real.last_run().open_steps()), phase
        assert len(real.stashed()) == (phase == "jit"), "a cell is in the stash when it is whole, and not before"
    done = real.run(*wanted, "--json")
    (cell,) = done.json["cells"]
    assert cell["verdict"] == "pass"
    assert cell["from_stash"]
    assert real.leftovers() == []
    real.run("stash", "verify")


@pytest.mark.slow
@pytest.mark.parametrize("arch", Arch)
def test_a_cache_changes_no_byte(driver: Driver, arch: Arch) -> None:
    """Built without a cache, with one that has nothing, and with one that has everything: the same artifact."""
    real = driver.with_environ(CROSSJIT_SOURCE_MIRROR=os.environ.get("CROSSJIT_SOURCE_MIRROR"))
    wanted = ("build", "--recipe", "3.15", "--arch", arch.value, "--variant", "jit", "--rebuild", "--json")
    stash = store.Store(real.settings.stash)
    ids, found = [], []
    for options in (("--no-cache",), (), ()):
        (cell,) = real.run(*wanted, *options, patience=7200).json["cells"]
        ids.append(cell["artifact"])
        found.append(stash.find_by_prefix(cell["artifact"]).manifest.trees)
    assert all(counts["hits"] for counts in cell["caches"].values()), cell["caches"]
    assert len(set(ids)) == 1
    assert found[0] == found[1]
    assert found[0] == found[2]


@pytest.mark.slow
@pytest.mark.parametrize("arch", Arch)
def test_where_only_tests_changed_it_is_what_would_have_been_built(driver: Driver, tmp_path: Path, arch: Arch) -> None:
    """A new state folder: nothing is cached, so that all of the tests are byte-compiled, and then built once more."""
    real = driver.with_environ(CROSSJIT_SOURCE_MIRROR=os.environ.get("CROSSJIT_SOURCE_MIRROR"))
    source = sources.resolve(recipes.find("3.15", PROJECT / "recipes").built_from, settings.load(), progress=Silent())
    checkout = trees.checkout(tmp_path, source, source.version)
    wanted = ("build", "--recipe", "3.15", "--arch", arch.value, "--variant", "nojit", "--source", checkout, "--json")
    stash = store.Store(real.settings.stash)

    def built(*options: str) -> tuple[Mapping[str, Any], Artifact]:
        (cell,) = real.run(*wanted, *options, patience=7200).json["cells"]
        artifact = stash.find(cell["build_key"])
        assert artifact is not None
        return cell, artifact

    _, before = built("--no-cache")
    tests = checkout / "Lib" / "test"
    with (tests / "test_int.py").open("a") as file:
        file.write("\nNAMES = ('partial', 'reduce', '__init__', 'test_int')\n")
    (tests / "test_of_this.py").write_text("import functools, unittest\n")
    (tests / "test_bool.py").unlink()
    (tests / "test_abc.py").chmod(0o755)
    (tests / "test_wrong.py").write_text("def wrong(:\n")
    (tests / "data" / "some.txt").write_text("listed in the Makefile\n")
    (tests / "unlisted").mkdir()
    (tests / "unlisted" / "test_more.py").write_text("import unittest\n")

    cell, renewed = built()
    assert cell["derived_from"] == before.full_id
    assert "make" not in cell["seconds"]
    log = (real.last_run().cell_folder(Cell("3.15", arch, "nojit")) / "build.log").read_text()
    assert '"kept": 0' in log, "the cache was empty"
    cell, whole = built("--no-cache", "--rebuild")
    assert cell["derived_from"] is None
    assert (whole.manifest.trees, whole.full_id) == (renewed.manifest.trees, renewed.full_id)
    assert whole.files() == renewed.files()
    assert whole.manifest.tree_digest != before.manifest.tree_digest


@pytest.mark.slow
def test_whichever_is_the_build_python_no_byte_differs(driver: Driver) -> None:
    """The aarch64 cell with a Python made for it, and with the x86_64 cells with and without the JIT in its place.

    Without caches, so that each build does all of its work with what serves it.
    """
    client = engine.connect(settings.load())
    if client.facts().arch is not Arch.X86_64:
        pytest.skip("aarch64 is no cross build here")
    real = driver.with_environ(CROSSJIT_SOURCE_MIRROR=os.environ.get("CROSSJIT_SOURCE_MIRROR"))
    wanted = ("build", "--recipe", "3.15", "--no-cache", "--json")
    trees = {}
    for serving in ("build-python", "jit", "nojit"):
        if serving != "build-python":
            real.run(*wanted, "--arch", "x86_64", "--variant", serving, patience=7200)
        crossing = real.run(*wanted, "--arch", "aarch64", "--variant", "jit", "--rebuild", patience=7200)
        (cell,) = crossing.json["cells"]
        stash = store.Store(real.settings.stash)
        artifact = stash.find_by_prefix(cell["artifact"])
        served = stash.find_by_prefix(str(artifact.manifest.build_python))
        assert served.manifest.variant == (None if serving == "build-python" else serving)
        trees[serving] = {name: tree.digest for name, tree in artifact.manifest.trees.items()}
        # the one made for it comes first where it is there, and a cell of another variant is not wanted now
        shutil.rmtree(served.folder)
    assert trees["jit"] == trees["build-python"]
    assert trees["nojit"] == trees["build-python"]
