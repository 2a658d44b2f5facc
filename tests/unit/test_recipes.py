from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

import crossjit
from crossjit.config import recipes, suites
from crossjit.config.recipes import Archive, Git
from crossjit.errors import DocumentError, ExitCode, UserError
from crossjit.model import Arch, Expectation, ExtraPackages
from crossjit.tasks.cells import schemas

SHIPPED = crossjit.PROJECT / "recipes"
SHA = "ab" * 32

VARIANTS = """\
[variants.jit]
summary = "JIT"
configure = ["--enable-experimental-jit=yes"]
expects = "machine-code"
suites = ["jit"]

[variants.ft]
summary = "free-threaded"
configure = ["--disable-gil"]
expects = "none"
free_threaded = true
suites = ["ft-smoke"]
"""

RECIPE = f"""\
summary = "a CPython"
default = true
offers = ["jit", "ft"]
default_variants = ["jit"]
[archive]
version = "3.15.0"
sha256 = "{SHA}"
places = ["https://example.org/Python-3.15.0.tar.xz"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "recipes"
    made.mkdir()
    (made / "variants.toml").write_text(VARIANTS)
    (made / "3.15.toml").write_text(RECIPE)
    return made


def errors_of(folder: Path, recipe: str, **options: Any) -> list[str]:
    """Return the errors of the folder with this recipe in it, as `file:line:column: …` with the file's name alone."""
    (folder / "3.15.toml").write_text(recipe)
    with pytest.raises(DocumentError) as caught:
        recipes.load_all(folder, **options)
    return [detail.removeprefix(f"{folder}/") for detail in caught.value.details]


# What is shipped


def test_the_shipped_recipes_are_right() -> None:
    loaded = recipes.load_all(SHIPPED, suites=suites.names())
    assert list(loaded) == ["3.13", "3.14", "3.15", "main"]
    assert [name for name, recipe in loaded.items() if recipe.default] == ["3.15"]
    sanitizers = {"asan", "tsan", "ubsan"}
    everything = {"jit", "jit-debug", "jit-lto", "ft", "ft-debug", "ft-jit", "ft-jit-debug", "interp", "interp-debug"}
    everything |= {"tailcall", "jit-tailcall", "nojit"}
    missing = {"3.13": {"tailcall", "jit-tailcall"}, "3.14": {"ft-jit", "ft-jit-debug"}}
    for name, recipe in loaded.items():
        assert set(recipe.variants) - sanitizers == everything - missing.get(name, set())
        assert set(recipe.variants) & sanitizers == (sanitizers if name in ("3.15", "main") else set())
        assert recipe.default_variants == ("jit", "ft")
        assert recipe.source == Git("https://github.com/python/cpython", "main") or isinstance(recipe.source, Archive)
    assert isinstance(loaded["main"].source, Git)


def test_the_shipped_archives_come_from_python_org_then_from_a_pool() -> None:
    for name, recipe in recipes.load_all(SHIPPED).items():
        if isinstance(recipe.source, Archive):
            assert recipe.source.version.startswith(name)
            upstream, pool = recipe.source.places
            assert re.fullmatch(r"https://www\.python\.org/ftp/python/[\d.]+/Python-[\w.]+\.tar\.xz", upstream)
            assert f"/Python-{recipe.source.version}.tar.xz" in upstream
            assert pool.startswith(f"debian:main/p/python{name}/python{name}_")


def test_the_shipped_variants_say_what_they_are() -> None:
    variants = recipes.find("3.15", SHIPPED).variants
    assert {name: variant.expects for name, variant in variants.items()} == {
        "jit": Expectation.MACHINE_CODE,
        "jit-debug": Expectation.MACHINE_CODE,
        "ft": Expectation.NONE,
        "ft-debug": Expectation.NONE,
        "ft-jit": Expectation.MACHINE_CODE,
        "ft-jit-debug": Expectation.MACHINE_CODE,
        "interp": Expectation.UOPS,
        "interp-debug": Expectation.UOPS,
        "tailcall": Expectation.NONE,
        "jit-tailcall": Expectation.MACHINE_CODE,
        "jit-lto": Expectation.MACHINE_CODE,
        "nojit": Expectation.NONE,
        "asan": Expectation.MACHINE_CODE,
        "tsan": Expectation.MACHINE_CODE,
        "ubsan": Expectation.MACHINE_CODE,
    }
    sanitizers = {"asan", "tsan", "ubsan"}
    assert {name for name, variant in variants.items() if variant.needs_llvm} == {
        *("jit", "jit-debug", "jit-lto", "jit-tailcall", "ft-jit", "ft-jit-debug"),
        *sanitizers,
    }
    assert {name for name, variant in variants.items() if variant.debug} == {
        *("jit-debug", "ft-debug", "ft-jit-debug", "interp-debug"),
        *("tsan", "ubsan"),
    }
    assert {name for name, variant in variants.items() if variant.arches == (Arch.X86_64,)} == {*sanitizers, "jit-lto"}
    assert {name for name, variant in variants.items() if variant.environment} == sanitizers
    assert variants["asan"].packages.target == ("libasan8",)
    assert {name for name, variant in variants.items() if variant.free_threaded} == {
        *("ft", "ft-debug"),
        *("ft-jit", "ft-jit-debug"),
    }
    assert variants["ft-jit"].suites == ("ft-smoke", "jit")


def test_a_variants_packages_and_environment(folder: Path) -> None:
    own = """
[variants.jit.packages]
toolchain = ["libclang-rt-{llvm}-dev"]
target = ["libasan8"]
[variants.jit.environment]
ASAN_OPTIONS = "suppressions={tools}/asan.txt"
"""
    (folder / "3.15.toml").write_text(RECIPE + own)
    variant = recipes.find("3.15", folder).variants["jit"]
    assert variant.packages == ExtraPackages(toolchain=("libclang-rt-{llvm}-dev",), target=("libasan8",))
    assert variant.variables("/t") == {"ASAN_OPTIONS": "suppressions=/t/asan.txt"}
    wrong = own.replace("libasan8", "libasan8; rm").replace("ASAN_OPTIONS", "PATH").replace("toolchain", "tolchain")
    told = "\n".join(errors_of(folder, RECIPE + wrong))
    assert "3.15.toml:12:" in told and "3.15.toml:14:" in told and "did you mean 'toolchain'" in told
    assert "PATH is set by crossjit" in told


def test_the_schemas_are_current() -> None:
    made = schemas()
    assert {"recipe.json", "variants.json"} <= set(made)
    kept = SHIPPED / "schema"
    assert {path.name for path in kept.glob("*.json")} == set(made)
    for name, text in made.items():
        assert (kept / name).read_text() == text, f"{name} is not current: `./inv schema` writes it"


def test_every_schema_that_a_document_names_is_there() -> None:
    named = 0
    for pattern in ("recipes/*.toml", "images/*/*.toml", "validate/**/*.toml", "toolchain/*.toml"):
        for path in crossjit.PROJECT.glob(pattern):
            match = re.match(r"#:schema (\S+)\n", path.read_text())
            if match is None:
                assert not pattern.startswith("recipes"), f"{path} names no schema"
                continue
            named += 1
            schema = json.loads((path.parent / match[1]).read_text())
            unknown = set(tomli.loads(path.read_text())) - set(schema["properties"])
            assert not unknown, f"{path} has keys that its schema does not"
    assert named >= 5


# How recipes are made of their files


def test_a_recipe_takes_shared_variants_in_its_own_order(folder: Path) -> None:
    (folder / "3.15.toml").write_text(RECIPE.replace('["jit", "ft"]', '["ft", "jit"]'))
    recipe = recipes.find("3.15", folder)
    assert list(recipe.variants) == ["ft", "jit"]
    assert recipe.source == Archive("3.15.0", SHA, ("https://example.org/Python-3.15.0.tar.xz",))
    assert recipe.variants["ft"].free_threaded
    assert recipe.variants["ft"].name == "ft"


def test_a_recipe_changes_a_key_of_a_shared_variant(folder: Path) -> None:
    (folder / "3.15.toml").write_text(RECIPE + '[variants.jit]\nconfigure = ["--enable-experimental-jit=yes-off"]\n')
    changed = recipes.find("3.15", folder).variants["jit"]
    assert changed.configure == ("--enable-experimental-jit=yes-off",)
    assert (changed.summary, changed.expects, changed.suites) == ("JIT", Expectation.MACHINE_CODE, ("jit",))


def test_a_recipe_defines_a_variant_of_its_own(folder: Path) -> None:
    own = '[variants.mine]\nsummary = "m"\nconfigure = ["--with-lto", "CFLAGS=-O1"]\nexpects = "none"\nsuites = []\n'
    (folder / "3.15.toml").write_text(RECIPE.replace('"jit", "ft"]', '"jit", "mine"]') + own)
    mine = recipes.find("3.15", folder).variants["mine"]
    assert (mine.name, mine.configure, mine.suites) == ("mine", ("--with-lto", "CFLAGS=-O1"), ())


def test_a_users_recipe_is_found_by_its_path(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE + '[variants.jit]\nconfigure = ["--enable-experimental-jit=yes-off"]\n')
    recipe = recipes.find(str(path), folder)
    assert (recipe.name, recipe.variants["ft"].configure) == ("mine", ("--disable-gil",))
    gathered = recipes.gather([str(path), "3.15"], folder)
    assert list(gathered) == ["3.15", "mine"]
    assert [name for name, each in gathered.items() if each.default] == ["3.15"]


def test_a_shipped_recipe_may_be_named_by_its_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    gathered = recipes.gather(["3.15.toml"], folder)
    assert list(gathered) == ["3.15"]
    assert gathered["3.15"].default


def test_two_recipes_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "3.15.toml").write_text(RECIPE)
    with pytest.raises(UserError, match=r"there is already a recipe '3\.15'"):
        recipes.gather([str(tmp_path / "3.15.toml")], folder)


def test_a_file_whose_name_cannot_be_a_recipes_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "my recipe.toml").write_text(RECIPE)
    with pytest.raises(DocumentError, match="'my recipe' is not a valid name"):
        recipes.find(str(tmp_path / "my recipe.toml"), folder)


def test_an_unknown_recipe_gets_a_suggestion_and_the_list(folder: Path) -> None:
    for name in ("3.9", "3.10", "main"):
        (folder / f"{name}.toml").write_text(RECIPE.replace("default = true\n", ""))
    with pytest.raises(UserError, match=r"there is no recipe 'mian'; did you mean 'main'\?") as caught:
        recipes.find("mian", folder)
    assert "choose from 3.9, 3.10, 3.15, main" in caught.value.hint
    assert caught.value.exit_code is ExitCode.USER
    assert list(recipes.load_all(folder)) == ["3.9", "3.10", "3.15", "main"]


def test_a_path_that_leads_nowhere_is_an_error(folder: Path) -> None:
    with pytest.raises(DocumentError, match=r"nowhere\.toml: there is no such file"):
        recipes.find("./nowhere.toml", folder)
    with pytest.raises(UserError, match="there is no such folder of recipes"):
        recipes.load_all(folder / "nothing")


def test_an_editors_hidden_file_is_no_recipe(folder: Path) -> None:
    (folder / ".3.15.toml").write_text("broken =")
    assert list(recipes.load_all(folder)) == ["3.15"]


# What can be wrong


def test_errors_of_all_kinds_and_files_are_reported_together(folder: Path) -> None:
    (folder / "variants.toml").write_text(
        VARIANTS.replace('"machine-code"', '"machine"').replace('["ft-smoke"]', '["ft"]')
    )
    (folder / "3.14.toml").write_text("summary =\n")
    (folder / "main.toml").write_text(RECIPE)
    text = RECIPE.replace("summary", "sumary").replace('["jit"]', '["jti"]').replace('"jit", "ft"', '"jit", "jit"')
    errors = errors_of(folder, text, suites=("jit", "ft-smoke"))
    assert errors == [
        "variants.toml:4:11: 'machine' is not one of machine-code, uops, none; did you mean 'machine-code'?",
        "variants.toml:12:11: there is no suite 'ft'",
        "3.14.toml:1:10: invalid value",
        "3.15.toml:1:1: missing key 'summary'",
        "3.15.toml:1:1: unknown key 'sumary'; did you mean 'summary'?",
        "3.15.toml:3:18: 'jit' is offered twice",
        "3.15.toml:4:21: default variant 'jti' is not offered; did you mean 'jit'?",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"jit", "ft"]', '"jit", "fft"]', "3:18: there is no variant 'fft'; did you mean 'ft'?"),
        ('["jit", "ft"]', "[]", "3:10: 'offers' should have at least 1 item, not 0"),
        (f'"{SHA}"', '"abc"', "7:10: a sha256 is 64 hexadecimal digits; this is 3 characters"),
        (f'"{SHA}"', f'"{SHA[:-1]}g"', "7:10: a sha256 is 64 hexadecimal digits; this is 64 characters"),
        ('"https://', '"', "8:11: invalid location 'example.org/Python-3.15.0.tar.xz': expected a URL, or"),
        ('"https://example.org/', '"debian:', "8:11: invalid location 'debian:Python-3.15.0.tar.xz'"),
        ("[archive]", "[archiv]", "1:1: missing table [archive] or [git]"),
        ("[archive]", '[git]\nurl = "u"\nref = "r"\n[archive]', "5:2: a recipe has [archive] or [git], not both"),
        ('version = "3.15.0"', "version = 3.15", "6:11: 'version' should be a valid string, not the number 3.15"),
    ],
)
def test_what_is_wrong_stands_at_its_place(folder: Path, old: str, new: str, expected: str) -> None:
    assert old in RECIPE
    errors = errors_of(folder, RECIPE.replace(old, new))
    assert any(error.startswith(f"3.15.toml:{expected}") for error in errors), errors


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (
            "[variants.jitt]\nsuites = []",
            [
                "3.15.toml:9:11: missing key 'configure': variant 'jitt' is not in variants.toml, so it must be whole",
                "3.15.toml:9:11: missing key 'expects': variant",
                "3.15.toml:9:11: missing key 'summary': variant",
                "3.15.toml:9:11: variant 'jitt' is not offered; did you mean 'jit'?",
            ],
        ),
        ("[variants.jit]\nsuites = ['jitt']", ["3.15.toml:10:11: there is no suite 'jitt'; did you mean 'jit'?"]),
        (
            "[variants.jit]\nconfigure = ['disable-gil', '--prefix=/x']",
            [
                "3.15.toml:10:14: invalid configure argument 'disable-gil'",
                "3.15.toml:10:29: --prefix is set by crossjit",
            ],
        ),
        (
            "[variants.jit]\nconfigure = ['--with-pydebug']",
            ["3.15.toml:10:13: 'debug' is false, but configure has --with-pydebug"],
        ),
        ("[variants.jit]\ndebug = true", ["3.15.toml:10:9: 'debug' is true, but configure has no --with-pydebug"]),
        (
            "[variants.ft]\nconfigure = []",
            ["3.15.toml:10:13: 'free_threaded' is true, but configure has no --disable-gil"],
        ),
        ("[variants.'a b']\nx = 1", ["3.15.toml:10:1: unknown key 'x'", "3.15.toml:9:11: invalid name 'a b'"]),
        ("[variants]\njit = 1", ["3.15.toml:10:7: 'jit' should be a table, not the number 1"]),
    ],
)
def test_what_is_wrong_with_a_recipes_own_variants(folder: Path, added: str, expected: list[str]) -> None:
    errors = errors_of(folder, RECIPE + added, suites=("jit", "ft-smoke"))
    for beginning in expected:
        assert any(error.startswith(beginning) for error in errors), errors


def test_a_wrong_item_does_not_make_its_array_too_short(folder: Path) -> None:
    errors = errors_of(folder, RECIPE.replace('"https://', '"'))
    assert len(errors) == 1, errors


def test_a_switch_that_is_off_again_is_off(folder: Path) -> None:
    added = "[variants.jit]\nconfigure = ['--with-pydebug', '--without-pydebug', '--disable-gil=no']"
    (folder / "3.15.toml").write_text(RECIPE + added)
    assert not recipes.find("3.15", folder).variants["jit"].debug


def test_there_is_one_default(folder: Path) -> None:
    (folder / "main.toml").write_text(RECIPE)
    assert errors_of(folder, RECIPE) == ["main.toml:2:1: the default is already 3.15"]
    (folder / "main.toml").unlink()
    (folder / "3.15.toml").write_text(RECIPE.replace("default = true", ""))
    with pytest.raises(UserError, match="no recipe is the default"):
        recipes.load_all(folder)


def test_a_missing_file_of_variants_is_an_error(folder: Path) -> None:
    (folder / "variants.toml").unlink()
    with pytest.raises(DocumentError, match=r"variants\.toml: there is no such file"):
        recipes.load_all(folder)


@settings(deadline=None)  # the machine may be busy
@given(st.data())
def test_whatever_is_left_out_or_spoilt_is_an_error_with_a_place(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "spoilt"
    folder.mkdir(exist_ok=True)
    (folder / "variants.toml").write_text(VARIANTS)
    lines = (RECIPE + "[variants.jit]\nsummary = 'x'\n").splitlines()
    index = data.draw(st.integers(0, len(lines) - 1))
    junk = data.draw(
        st.sampled_from(["x = 1", "offers = 1", "[variants]\njit = []", "[[archive]]", "default = 'no'", "=", "[git]"])
    )
    lines.insert(index, junk)
    (folder / "3.15.toml").write_text("\n".join(lines))
    with pytest.raises(DocumentError) as caught:
        recipes.load_all(folder)
    assert caught.value.details
    for detail in caught.value.details:
        match = re.fullmatch(r".*/3\.15\.toml:(\d+):(\d+): .+", detail)
        assert match is not None
        assert 1 <= int(match[1]) <= len(lines) + 1


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("../cpython", "{folder}/../cpython"),
        ("/abs/cpython", "/abs/cpython"),
        ("https://example.org/x", "https://example.org/x"),
        ("git@example.org:x/y", "git@example.org:x/y"),
        ("file:///x", "file:///x"),
    ],
)
def test_a_repositorys_path_begins_at_the_recipes_folder(url: str, meant: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = 'summary = "x"\noffers = ["jit"]\ndefault_variants = ["jit"]\n'
    file.write_text(f'{text}[git]\nurl = "{url}"\nref = "main"\n')
    found = recipes.find(str(file), crossjit.PROJECT / "recipes")
    assert isinstance(found.source, Git)
    assert found.source.url == meant.format(folder=tmp_path)
