"""What the caches give to a source that was changed is what would have been made: byte for byte, for each recipe.

`-k "3.13 and x86_64 and uop"` picks a part of what takes hours.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.trees import Edit, checkout, restore
from crossjit import PROJECT, engine, settings, sources
from crossjit.build import layout
from crossjit.build.container import cache_environment
from crossjit.config import recipes
from crossjit.engine.base import Container
from crossjit.model import Arch, Cell, Strategy
from crossjit.progress import Silent
from crossjit.stash import artifact, store
from crossjit.util.tar import packed
from tests.e2e.driver import Driver
from tests.e2e.test_real_cpython import configured, ran

pytestmark = pytest.mark.engine

RECIPES = ("3.13", "3.14", "3.15")
STENCILS = ("install", "generated")
UOPS, CASES = ("_LOAD_BUILD_CLASS", "_NOP", "_POP_TOP"), "Python/executor_cases.c.h"
TEXT = '"__build_class__ not found"'
HEADER = "Include/internal/pycore_backoff.h"
HEADERS = {  # each is in a stencil's code
    "3.13": Edit(HEADER, "COLD_EXIT_INITIAL_VALUE 63\n", "COLD_EXIT_INITIAL_VALUE 64\n", STENCILS),
    "3.14": Edit(HEADER, "SIDE_EXIT_INITIAL_VALUE 4094\n", "SIDE_EXIT_INITIAL_VALUE 4095\n", STENCILS),
    "3.15": Edit(HEADER, "MAKE_VALUE_AND_BACKOFF(509, 5)", "MAKE_VALUE_AND_BACKOFF(508, 5)", STENCILS),
}
CHANGES: Mapping[str, Callable[[str], Edit]] = {
    "uop": lambda recipe: Edit("Python/bytecodes.c", TEXT.replace("not", "never"), TEXT, STENCILS),
    "header": HEADERS.__getitem__,
    "module": lambda recipe: Edit("Lib/dataclasses.py", "\nNUMBERS = 1, 2, 'three'\n", changes=("install",)),
    "test": lambda recipe: Edit("Lib/test/test_int.py", "\nNUMBERS = 1, 2, 'three'\n", changes=("install",)),
}
# Two at a time, of which neither decides what is taken from the caches for the other: an uncached build takes minutes.
PAIRS = (("uop", "module"), ("header", "test"))


class Filled:
    """A state folder whose caches have all that a source was built with, and that source."""

    def __init__(self, folder: Path, recipe: str, arch: Arch) -> None:
        self.recipe, self.arch = recipe, arch
        source = sources.resolve(
            recipes.find(recipe, PROJECT / "recipes").built_from, settings.load(), progress=Silent()
        )
        self.tree = checkout(folder, source, source.version)
        self._folder = folder
        self.driver = self.another("filled")
        self.before, _ = self.build(self.driver)

    def another(self, name: str) -> Driver:
        """Make a new state folder, which knows of the images and has nothing else."""
        home, cwd = self._folder / name / "home", self._folder / name / "cwd"
        cwd.mkdir(parents=True)
        shutil.copytree(settings.load().home / "images", home / "images", ignore=shutil.ignore_patterns(".*"))
        return Driver(home, cwd).with_environ(CROSSJIT_SOURCE_MIRROR=os.environ.get("CROSSJIT_SOURCE_MIRROR"))

    def build(self, driver: Driver, *options: str) -> tuple[artifact.Artifact, dict[str, Any]]:
        """Build the source as it is now; return the artifact, and what is said of the cell."""
        which = ("--recipe", self.recipe, "--arch", self.arch.value, "--variant", "jit", "--source", self.tree)
        (cell,) = driver.run("build", *which, "--json", *options, patience=4 * 3600).json["cells"]
        found = store.Store(driver.settings.stash).find(cell["build_key"])
        assert found is not None
        assert not cell["from_stash"]
        return found, cell


@pytest.fixture(scope="module")
def filled(own_images: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, Arch], Filled]]:
    """Fill caches once for all changes of a recipe's source for an arch."""
    made: dict[tuple[str, Arch], Filled] = {}

    def fill(recipe: str, arch: Arch) -> Filled:
        if (recipe, arch) not in made:
            made[recipe, arch] = Filled(tmp_path_factory.mktemp(f"{recipe}-{arch}"), recipe, arch)
        return made[recipe, arch]

    yield fill
    for each in made.values():
        each.driver.discard()


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("arch", Arch)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_change_is_built_as_without_a_cache(
    filled: Callable[[str, Arch], Filled], recipe: str, arch: Arch, pair: tuple[str, str]
) -> None:
    """The caches are those of the source before the change; what is built without has nothing of theirs, or a stash."""
    source = filled(recipe, arch)
    alone = source.another("-".join(pair))
    edits = [CHANGES[change](recipe) for change in pair]
    for edit in edits:
        edit.apply(source.tree, 0)
    try:
        cached, cell = source.build(source.driver)
        plain, _ = source.build(alone, "--no-cache")
    finally:
        restore(source.tree)
        alone.discard()
    hits = {part: counts["hits"] for part, counts in cell["caches"].items()}
    for tree in {tree for edit in edits for tree in edit.changes}:
        assert cached.manifest.trees[tree] != source.before.manifest.trees[tree], f"{tree}: the change did nothing"
    assert any(hits.values()) or cell["derived_from"], "nothing was taken from the caches"
    assert differing(cached, plain) == {}
    assert (cached.manifest.trees, cached.full_id) == (plain.manifest.trees, plain.full_id)


def differing(one: artifact.Artifact, other: artifact.Artifact) -> dict[str, list[str]]:
    """Name the files that are not the same, by tree."""
    ours, others = one.files(), other.files()
    found = {tree: dict(ours[tree].items() ^ others[tree].items()) for tree in ours}
    return {tree: sorted(paths) for tree, paths in found.items() if paths}


@pytest.mark.parametrize("recipe", ["3.15", *(pytest.param(each, marks=pytest.mark.slow) for each in RECIPES[:2])])
def test_a_uop_that_changed_is_compiled_anew(recipe: str) -> None:
    """A few uops of the real source, by the real clang: made with the caches, changed, and made with and without."""
    arch = engine.connect(settings.load()).facts().arch
    with configured(Cell(recipe, arch, "jit"), Strategy.NATIVE) as (container, spec, source):
        with sources.subset_tar(source, (CASES,)) as stream, tarfile.open(fileobj=stream) as tar:
            file = tar.extractfile(CASES)
            assert file is not None
            found = re.findall(r"\n {8}case (\w+): \{(\n.*?)\n {8}\}", file.read().decode(), flags=re.DOTALL)
        # from 3.15 there is one for each number of registers: _NOP_r00
        chosen = [(uop, case) for uop, case in found if re.sub(r"_r\d+$", "", uop) in UOPS]
        some = [f"        case {uop}: {{{case}\n        }}\n" for uop, case in chosen]
        text = "\n" + "\n".join(some)
        assert text.count(TEXT) == 1
        cache = {**cache_environment(spec, cached=True), "CROSSJIT_CACHE": f"{layout.TOOLS}/cache"}
        before = stencils(container, text, cache)
        assert stencils(container, text, cache) == before
        hits = ran(container, "cat", cache["CROSSJIT_CACHE_LOG"])
        assert "stencils hit" in hits, "they are found whole where nothing was changed"
        changed = text.replace(TEXT, TEXT.replace("not", "never"))
        plain = stencils(container, changed, {})
        assert plain != before
        assert stencils(container, changed, cache) == plain


def stencils(container: Container, cases: str, env: Mapping[str, str]) -> bytes:
    """Make the stencils of these uops in an environment, as a build does, and take them away."""
    container.put(packed({CASES: cases.encode()}, {}, owner=0, mode=0o644), layout.SOURCE)
    if env:
        ran(container, "python3", f"{layout.TOOLS}/build_cache.py", "before-make", env=env)
    ran(container, "make", "regen-jit", env=env)
    if env:
        ran(container, "python3", f"{layout.TOOLS}/build_cache.py", "after-make", env=env)
    with container.get(layout.BUILD) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        made = [
            file.read().split(b"\n", 2)[2]  # the two lines before are a digest and the command
            for member in tar
            if Path(member.name).name.startswith("jit_stencils") and (file := tar.extractfile(member))
        ]
    ran(container, "sh", "-c", "rm -f jit_*.h jit_*.o .jit-stamp")
    return b"".join(made)
