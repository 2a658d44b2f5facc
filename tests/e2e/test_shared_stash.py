"""Two machines and one registry: what one has built, the other takes; what it should not take, it builds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossjit.model import Arch
from crossjit.runs.model import EventKind
from crossjit.stash.artifact import Artifact
from crossjit.stash.store import Store
from tests.conftest import lack
from tests.e2e import registry as registries
from tests.e2e.conftest import MakeDriver
from tests.e2e.driver import Driver
from tests.e2e.registry import RunningRegistry
from tests.e2e.test_bisect import FAIL, TEST, Repository, suspects

pytestmark = pytest.mark.engine


@pytest.fixture
def registry(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[RunningRegistry]:
    temp = tmp_path_factory.getbasetemp()
    try:
        program = registries.program((temp if worker_id == "master" else temp.parent) / "docker-registry")
    except registries.MissingError as error:
        lack("a registry", str(error))
    with registries.running(program, tmp_path / "registry") as running:
        yield running


def machines(make_driver: MakeDriver, url: str, folder: Path) -> tuple[Driver, Driver]:
    """Make two machines: the first signs what it pushes, and the second trusts it."""
    one = make_driver("one")
    made = one.run("stash", "keygen", folder / "key.pem", "--json").json
    (folder / "keys.toml").write_text(f'[keys]\nci = "{made["public"]}"\n')
    two = make_driver("two").with_environ(CROSSJIT_STASH_REMOTE=url, CROSSJIT_TRUST=str(folder / "keys.toml"))
    return one.with_environ(CROSSJIT_STASH_REMOTE=url, CROSSJIT_SIGNING_KEY=str(folder / "key.pem")), two


def pushed(make_driver: MakeDriver, recipe: Path, url: str, folder: Path) -> tuple[Artifact, Driver]:
    """Build a cell on one machine and push it; return it, and the second machine."""
    one, two = machines(make_driver, url, folder)
    one.run("build", "--recipe", recipe)
    one.run("stash", "push")
    (artifact,) = Store(one.settings.stash).artifacts()
    return artifact, two


def test_built_in_one_and_taken_by_the_other(
    make_driver: MakeDriver, recipe: Path, registry: RunningRegistry, tmp_path: Path
) -> None:
    one, two = machines(make_driver, registry.url, tmp_path)
    (built,) = one.run("build", "--recipe", recipe, "--json").json["cells"]
    (pushed,) = one.run("stash", "push", "--json").json
    assert pushed["pushed"]
    assert not one.run("stash", "push", "--json").json[0]["pushed"]

    began = time.time()
    done = two.run("build", "--recipe", recipe, "--json")
    (taken,) = done.json["cells"]
    assert taken["from_stash"]
    assert taken["artifact"] == built["artifact"]
    assert f"is taken from {registry.url}, signed by ci" in done.stderr
    assert done.seconds < 15
    assert two.created_since(began) == [], "nothing was started"
    assert two.logs() == "", "nothing was compiled"
    (first,), (second,) = (Store(each.settings.stash).artifacts() for each in (one, two))
    assert first.full_id == second.full_id
    assert [path.read_bytes() for path in first.objects.values()] == [
        path.read_bytes() for path in second.objects.values()
    ]
    assert two.run("validate", "--recipe", recipe, "--json").json["cells"][0]["verdict"] == "pass"
    assert two.run("stash", "list", "--json").json[0]["origin"]["signer"] == "ci"
    two.run("stash", "verify")
    assert two.leftovers() == []


def test_a_bit_flipped_in_the_registry(
    make_driver: MakeDriver, recipe: Path, registry: RunningRegistry, tmp_path: Path
) -> None:
    artifact, two = pushed(make_driver, recipe, registry.url, tmp_path)
    blob = registry.blob(artifact.manifest.trees["install"].object)
    content = blob.read_bytes()
    blob.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    done = two.run("build", "--recipe", recipe, "--json")
    (cell,) = done.json["cells"]
    assert "is not used: install.tar.zst was changed there" in done.stderr
    assert not cell["from_stash"]
    assert cell["artifact"] == artifact.id
    assert two.leftovers() == []


def test_a_registry_that_dies_in_the_middle_of_a_layer(
    make_driver: MakeDriver, recipe: Path, registry: RunningRegistry, tmp_path: Path
) -> None:
    artifact, two = pushed(make_driver, recipe, registry.url, tmp_path)
    largest = max(artifact.manifest.trees.values(), key=lambda tree: tree.size)
    smaller = [*(tree.size for tree in artifact.manifest.trees.values() if tree is not largest)]
    smaller += [path.stat().st_size for path in artifact.folder.iterdir()]
    after = max(smaller) + 4096
    assert after < largest.size, "the other layers arrive"
    with registries.dying(registry, after) as address:
        url = registry.url.replace(registry.address, address)
        done = two.with_environ(CROSSJIT_STASH_REMOTE=url).run("build", "--recipe", recipe, "--json")
    assert registry.process.poll() is not None, "it died"
    (cell,) = done.json["cells"]
    assert f"{url} fails and is not asked again: " in done.stderr
    assert not cell["from_stash"]
    assert cell["artifact"] == artifact.id
    assert len(Store(two.settings.stash).artifacts()) == 1
    assert two.leftovers() == []


def test_a_bisection_over_commits_that_were_built_elsewhere_compiles_nothing(
    make_driver: MakeDriver, recipe: Path, registry: RunningRegistry, tmp_path: Path, foreign_arch: Arch
) -> None:
    one, two = machines(make_driver, registry.url, tmp_path)
    repository = Repository(tmp_path / "cpython", {2: {FAIL: ""}})
    sources = [("--source", f"{repository.path}#{commit}") for commit in repository.commits[:4]]
    for source in sources:
        one.run("build", "--recipe", recipe, *source)
    one.run("build", "--recipe", recipe, "--arch", foreign_arch, *sources[2])  # of the answer, both are looked at
    assert len(one.run("stash", "push", "--json").json) == 5
    done = two.run(*repository.options(recipe, bad=3), *TEST, "--json")
    assert suspects(done.json, repository) == [2]
    began = {event.name for run in two.runs() for event in run.events() if event.kind is EventKind.START}
    assert "pull" in began
    assert not began & {"unpack", "configure", "make", "install"}
    assert two.leftovers() == []


def test_a_folder_serves_as_well(make_driver: MakeDriver, recipe: Path, tmp_path: Path) -> None:
    one, two = machines(make_driver, (tmp_path / "shared").as_uri(), tmp_path)
    one.run("build", "--recipe", recipe)
    one.run("stash", "push")
    (artifact,) = Store(one.settings.stash).artifacts()
    (listed,) = json.loads(two.run("stash", "pull", artifact.key, "--json").stdout)
    assert listed["id"] == artifact.full_id
    began = time.time()
    assert two.run("build", "--recipe", recipe, "--json").json["cells"][0]["from_stash"]
    assert two.created_since(began) == []
