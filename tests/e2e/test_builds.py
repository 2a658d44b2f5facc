"""The main job on the tiny source: build, validate, stash, take from the stash, verify, export."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from crossjit.model import Arch
from crossjit.runs.model import EventKind
from crossjit.stash.store import Store
from tests.e2e import tiny_source
from tests.e2e.conftest import MakeDriver
from tests.e2e.driver import Driver

pytestmark = pytest.mark.engine


def test_native_and_cross_from_archive_to_stash(
    driver: Driver, recipe: Path, host_arch: Arch, foreign_arch: Arch
) -> None:
    both = ("--recipe", recipe, "--arch", host_arch, "--arch", foreign_arch)
    planned_at = time.time()
    planned = driver.run("plan", *both, "--json").json
    assert {cell["strategy"] for cell in planned} == {"native", "cross"}
    serving = {step["by"] for cell in planned for step in cell["steps"] if step["name"] == "build Python"}
    assert serving == {f"tiny/{host_arch}/jit"}
    assert driver.created_since(planned_at) == []
    assert driver.runs() == ()

    first = driver.run("validate", *both, "--json").json
    cells = {cell["arch"]: cell for cell in first["cells"]}
    assert {arch: cell["verdict"] for arch, cell in cells.items()} == {host_arch: "pass", foreign_arch: "pass"}
    assert {arch: cell["strategy"] for arch, cell in cells.items()} == {host_arch: "native", foreign_arch: "cross"}
    for arch, cell in cells.items():
        assert cell["cell"] == f"tiny/{arch}/jit"
        assert not cell["from_stash"]
        assert cell["probe"]["executable"]["machine"] == Arch(arch).elf_machine
        assert cell["probe"]["told"]["emulated"] is (arch != host_arch)
        assert cell["suites"][0]["run"] == 600
        assert {"unpack", "configure", "make", "install", "support", "pack", "probe", "jit"} <= set(cell["seconds"])
    assert driver.leftovers() == []
    record = driver.last_run()
    began = [event.name for event in record.events() if event.kind is EventKind.START]
    assert [began.count(name) for name in ("unpack", "probe", "jit")] == [
        2,
        2,
        2,
    ]  # the first is the other's build Python
    manifests = {
        str(each.manifest.arch): (each.full_id, each.manifest.build_python)
        for each in Store(driver.settings.stash).artifacts()
    }
    assert manifests[foreign_arch][1] == manifests[host_arch][0]
    assert (record.id, record.state.value, record.exit_code) == (first["run"], "finished", 0)
    assert str(recipe) in record.reproduce

    built_at = time.time()
    again = driver.run("build", *both, "--json").json
    assert [cell["from_stash"] for cell in again["cells"]] == [True, True]
    assert [cell["artifact"] for cell in again["cells"]] == [cell["artifact"] for cell in first["cells"]]
    planned = driver.run("plan", *both, "--build-only", "--json").json
    assert [cell["artifact"] for cell in planned] == [cell["artifact"] for cell in first["cells"]]
    assert driver.created_since(built_at) == []
    shown = driver.run("build", *both).stdout
    assert shown.count("from the stash") == 2
    assert "reproduce: " in shown


def test_a_flipped_byte_is_found_and_healed(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    build = ("build", "--recipe", recipe)
    driver.run(*build)
    (artifact,) = Store(driver.settings.stash).artifacts()
    driver.run("stash", "verify")
    packed = artifact.objects["install"]
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])

    found = driver.run("stash", "verify", expect=3)
    assert artifact.objects["install"].name in found.stderr or "install" in found.stderr
    assert "hint: " in found.stderr
    driver.run("stash", "export", artifact.id, tmp_path / "damaged", expect=3)
    assert not (tmp_path / "damaged").exists()

    driver.run(*build, "--rebuild")
    driver.run("stash", "verify", artifact.id)
    (healed,) = Store(driver.settings.stash).artifacts()
    assert healed.manifest.tree_digest == artifact.manifest.tree_digest
    driver.run("stash", "export", f"tiny/{artifact.manifest.arch}/jit", tmp_path / "tree")
    python = tmp_path / "tree/usr/local/bin/python3"
    assert python.read_bytes()[:4] == b"\x7fELF"
    assert json.loads((tmp_path / "tree/manifest.json").read_text())["version"] == tiny_source.VERSION


def test_what_is_damaged_in_the_stash_is_built_anew(driver: Driver, recipe: Path) -> None:
    build = ("build", "--recipe", recipe)
    driver.run(*build)
    (artifact,) = Store(driver.settings.stash).artifacts()
    packed = artifact.objects["install"]
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    again = driver.run(*build, "--json")
    assert "damaged" in again.stderr
    assert [cell["from_stash"] for cell in again.json["cells"]] == [False]
    driver.run("stash", "verify")
    assert [cell["from_stash"] for cell in driver.run(*build, "--json").json["cells"]] == [True]


def test_last_is_the_run_that_built_something(driver: Driver, recipe: Path) -> None:
    built = driver.run("build", "--recipe", recipe, "--json").json["run"]
    driver.run("shell", "--recipe", recipe)
    assert driver.last_run().id != built
    assert driver.run("runs", "show", "--json").json["id"] == built


def test_two_stashes_get_the_same_tree(make_driver: MakeDriver, recipe: Path, foreign_arch: Arch) -> None:
    """Built apart, with other parallelism, natively made build Python included."""
    results = []
    for number in (1, 2):
        driver = make_driver(f"stash-{number}")
        driver.with_environ(CROSSJIT_JOBS=str(number)).run("build", "--recipe", recipe, "--arch", foreign_arch)
        found = {str(each.manifest.kind): each for each in Store(driver.settings.stash).artifacts()}
        results.append({kind: (each.key, each.full_id, each.manifest.tree_digest) for kind, each in found.items()})
    assert len(results[0]) == 2
    assert results[0] == results[1]


def test_whichever_is_the_build_python_the_tree_is_the_same(
    make_driver: MakeDriver, recipe: Path, host_arch: Arch, foreign_arch: Arch
) -> None:
    found = []
    for variants in ((), ("jit",), ("jit-off", "jit")):
        driver = make_driver("-".join(("stash", *variants)))
        for variant in variants:
            vacuous = 4 if variant == "jit-off" else 0
            driver.run("build", "--recipe", recipe, "--arch", host_arch, "--variant", variant, expect=vacuous)
        built = driver.run("build", "--recipe", recipe, "--arch", foreign_arch, "--json").json
        (cell,) = built["cells"]
        (artifact,) = (each for each in Store(driver.settings.stash).artifacts() if each.id == cell["artifact"])
        found.append(
            (artifact.key, artifact.full_id, {name: tree.digest for name, tree in artifact.manifest.trees.items()})
        )
        serving = driver.run("stash", "show", str(artifact.manifest.build_python), "--json").json["manifest"]
        assert (serving["kind"] == "cell") is bool(variants)
    assert found[1:] == found[:-1]


def test_verdicts_and_their_exit_codes(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    """The build without the JIT is vacuous, however green its suite; a test that fails is CPython's failure."""
    vacuous = driver.run("validate", "--recipe", recipe, "--variant", "jit-off", "--json", expect=4).json
    (cell,) = vacuous["cells"]
    assert cell["verdict"] == "vacuous"
    assert "the probe found no machine code" in cell["reasons"][0]
    assert cell["suites"][0]["counts"]["failed"] == 0

    (tmp_path / "failing").mkdir()
    source = tiny_source.archive(tmp_path / "failing", {"fail-test": ""})
    failed = driver.run("validate", "--recipe", recipe, "--source", source.path, expect=1)
    assert "test.test_capi.test_opt.Tests.test_007" in failed.stdout
    assert "7 is not lucky" in failed.stdout


def test_a_repository_and_a_checkout_are_recorded_as_what_they_are(
    driver: Driver, recipe: Path, tmp_path: Path
) -> None:
    checkout = tiny_source.checkout(tmp_path / "cpython")
    commit = (checkout / ".git/refs/heads/main").read_text().strip()
    for source, changed in ((f"{checkout}#main", False), (str(checkout), False), (str(checkout), True)):
        if changed:
            (checkout / "Lib/this.txt").write_text("Explicit is better than implicit.\n")
        (cell,) = driver.run("build", "--recipe", recipe, "--source", source, "--json").json["cells"]
        manifest = driver.run("stash", "show", cell["artifact"], "--json").json["manifest"]
        assert manifest["source"]["commit"] == commit
        assert bool(manifest["source"]["diff_digest"]) is changed
        assert cell["from_stash"] is (source == str(checkout) and not changed)
    assert len(driver.stashed()) == 2


def test_what_a_checkouts_edit_makes_stale_is_generated_anew(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    """Whether the edit's author made it too or left it to the build, the tree is the same."""
    checkout = tiny_source.checkout(tmp_path / "cpython")
    trees = []
    (checkout / "Grammar/Tokens").write_text("ENDMARKER\nNAME\nNUMBER\n")
    for generated in ("# ENDMARKER\n# NAME\n", "# ENDMARKER\n# NAME\n# NUMBER\n"):
        (checkout / "Lib/token.py").write_text(generated)
        (cell,) = driver.run("build", "--recipe", recipe, "--source", checkout, "--json").json["cells"]
        assert "regenerate" in cell["seconds"]
        (artifact,) = (each for each in Store(driver.settings.stash).artifacts() if each.id == cell["artifact"])
        trees.append({name: tree.digest for name, tree in artifact.manifest.trees.items()})
        driver.run("stash", "export", artifact.id, tmp_path / artifact.id)
        exported = tmp_path / artifact.id / "usr/local/lib/python3.15/token.py"
        assert exported.read_text() == "# ENDMARKER\n# NAME\n# NUMBER\n"
        assert (checkout / "Lib/token.py").read_text() == generated, "nothing is written to the checkout"
    assert trees[0] == trees[1]
    record = driver.last_run()
    assert "regenerate" in [event.name for event in record.events() if event.kind is EventKind.START]


def test_where_only_tests_changed_nothing_is_compiled_and_the_tree_is_the_same(
    driver: Driver, recipe: Path, tmp_path: Path, host_arch: Arch, foreign_arch: Arch
) -> None:
    checkout = tiny_source.checkout(tmp_path / "cpython")
    build = ("build", "--recipe", recipe, "--source", checkout, "--json")
    stash = Store(driver.settings.stash)
    for arch, strategy in ((host_arch, "native"), (foreign_arch, "cross")):
        (before,) = driver.run(*build, "--arch", arch).json["cells"]
        (checkout / "Lib/test/tests.txt").write_text(f"changed for {arch}\n")
        (checkout / "Lib/test/data" / f"{arch}.sh").write_text("exit\n")
        (checkout / "Lib/test/data" / f"{arch}.sh").chmod(0o755)
        (after,) = driver.run(*build, "--arch", arch).json["cells"]
        assert (after["strategy"], after["verdict"], after["from_stash"]) == (strategy, "pass", False)
        assert list(after["seconds"]) == ["unpack", "tests", "compile", "pack", "probe"]
        assert after["derived_from"].startswith(before["artifact"])
        renewed = stash.find(after["build_key"])
        assert renewed is not None
        assert f"usr/local/lib/python3.15/test/data/{arch}.sh" in renewed.files()["install"]

        (built,) = driver.run(*build, "--arch", arch, "--rebuild").json["cells"]
        assert "make" in built["seconds"]
        assert built["derived_from"] is None
        whole = stash.find(built["build_key"])
        assert whole is not None
        assert (whole.full_id, whole.manifest.trees) == (renewed.full_id, renewed.manifest.trees)
    driver.run("stash", "verify")
    assert driver.leftovers() == []
