"""Configuration files: which are read, who wins, all mistakes at once, and what a stranger's project cannot set."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from invoke.context import Context

from crossjit import settings
from crossjit.config import documents, settings_file
from crossjit.config.setting import SETTINGS
from crossjit.errors import DocumentError, ExitCode, UserError
from crossjit.host import Check, Status
from crossjit.settings import Found, Origin, Settings
from crossjit.tasks import config, doctor

HARMLESS = {"jobs", "snapshot"}


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder without files, and a repository to be in."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.delenv("CROSSJIT_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "repository/.git").mkdir(parents=True)
    (tmp_path / "repository/inner").mkdir()
    monkeypatch.chdir(tmp_path / "repository/inner")
    return tmp_path


def users(world: Path, text: str) -> Path:
    return written(world / "config/crossjit/config.toml", text)


def projects(world: Path, text: str) -> Path:
    return written(world / "repository/crossjit.toml", text)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def where(environ: Mapping[str, str] | None = None) -> dict[str, tuple[Origin, object, str]]:
    found = settings.find(environ or {})
    return {each.setting.name: (each.origin, each.value, each.place) for each in found if each.place}


def details(environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        settings.load(environ or {})
    assert caught.value.exit_code is ExitCode.USER
    assert caught.value.hint
    return list(caught.value.details)


# Who wins


def test_the_environment_wins_over_the_project_and_that_over_the_user(world: Path) -> None:
    own = users(world, '# mine\njobs = 1\nsnapshot = "20260101"\nengine = "podman"\n')
    project = projects(world, 'jobs = 2\nsnapshot = "20260202"\n')
    assert where({"CROSSJIT_JOBS": "3"}) == {
        "jobs": (Origin.ENVIRONMENT, 3, "CROSSJIT_JOBS"),
        "snapshot": (Origin.PROJECT, "20260202", f"{project}:2"),
        "engine": (Origin.USER, "podman", f"{own}:4"),
    }
    loaded = settings.load({"CROSSJIT_JOBS": "3"})
    assert (loaded.jobs, loaded.snapshot, loaded.engine, loaded.trust) == (3, "20260202", "podman", None)


def test_an_empty_variable_asks_for_the_default(world: Path) -> None:
    users(world, 'engine = "podman"\nstash_remote = "file:///stash"\n')
    projects(world, 'snapshot = "20260202"\n')
    assert settings.load({}).snapshot == "20260202"
    loaded = settings.load(dict.fromkeys(("CROSSJIT_ENGINE", "CROSSJIT_STASH_REMOTE", "CROSSJIT_SNAPSHOT"), ""))
    assert (loaded.engine, loaded.stash_remote, loaded.snapshot) == ("docker", "", "")


def test_every_setting_can_stand_in_the_users_file(world: Path) -> None:
    path = users(
        world,
        """\
home = "state"
engine = "podman"
jobs = 4
source_mirror = ["mirror with spaces", "~/m", "https://example.org/x"]
prepare = true
snapshot = "20261101T000000Z"
snapshot_mirror = "https://example.org/{date}"
stash_remote = "oci://example.org/stash"
trust = "keys.toml"
signing_key = "/key.pem"
debug = true
""",
    )
    assert set(where()) == {setting.name for setting in SETTINGS}
    folder = path.parent
    assert settings.load({}) == Settings(
        home=folder / "state",
        source_mirrors=(str(folder / "mirror with spaces"), str(Path("~/m").expanduser()), "https://example.org/x"),
        engine="podman",
        jobs=4,
        prepare=True,
        snapshot="20261101T000000Z",
        snapshot_mirror="https://example.org/{date}",
        stash_remote="oci://example.org/stash",
        trust=folder / "keys.toml",
        signing_key=Path("/key.pem"),
        debug=True,
    )


def test_what_is_off_in_a_file_is_off(world: Path) -> None:
    users(world, "prepare = false\ndebug = false\njobs = 0\n")
    loaded = settings.load({})
    assert (loaded.prepare, loaded.debug, loaded.jobs) == (False, False, 0)


def test_tracebacks(world: Path) -> None:
    assert not settings.wants_traceback({})
    users(world, "debug = true\n")
    assert settings.wants_traceback({})
    assert not settings.wants_traceback({"CROSSJIT_DEBUG": "0"})
    users(world, "debug = 1\n")
    assert not settings.wants_traceback({})
    assert settings.wants_traceback({"CROSSJIT_DEBUG": "1"})


# Which files are read


def test_without_files_there_are_defaults(world: Path) -> None:
    assert where() == {}
    assert [file.exists for file in settings.files({})] == [False, False]


@pytest.mark.parametrize(
    ("files", "jobs"),
    [
        (("repository/inner/crossjit.toml", "repository/crossjit.toml"), 1),  # the nearest
        (("repository/crossjit.toml", "crossjit.toml"), 1),
        (("crossjit.toml",), 0),  # above the repository
    ],
)
def test_a_projects_file_is_looked_for_up_to_the_repositorys_folder(
    world: Path, files: tuple[str, ...], jobs: int
) -> None:
    for number, name in enumerate(files, start=1):
        written(world / name, f"jobs = {number}\n")
    assert settings.load({}).jobs == jobs


def test_outside_of_a_repository_only_the_current_folder_counts(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (world / "repository/.git").rmdir()
    path = projects(world, "jobs = 2\n")
    assert settings.load({}).jobs == 0
    monkeypatch.chdir(path.parent)
    assert settings.load({}).jobs == 2


def test_a_repository_within_another_has_its_own_file_only(world: Path) -> None:
    projects(world, "jobs = 2\n")
    written(world / "repository/inner/.git", "gitdir: elsewhere\n")  # as a worktree's
    assert settings.load({}).jobs == 0


def test_another_file_in_place_of_the_users(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users(world, "jobs = 1\n")
    written(world / "repository/inner/other.toml", "jobs = 2\n")
    assert settings.load({}).jobs == 1
    assert settings.load({"CROSSJIT_CONFIG": ""}).jobs == 1
    assert settings.load({"CROSSJIT_CONFIG": "other.toml"}).jobs == 2
    assert settings.load({"CROSSJIT_CONFIG": os.devnull}).jobs == 0
    with pytest.raises(DocumentError, match=r"othre.toml: there is no such file; did you mean 'other.toml'\?"):
        settings.load({"CROSSJIT_CONFIG": "othre.toml"})


def test_neither_a_home_nor_a_current_folder(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)  # a container's user that no password database knows
    (world / "repository/inner").rmdir()
    assert settings.files({}) == ()
    assert settings.load({"CROSSJIT_HOME": str(world)}).home == world


# Mistakes


def test_all_mistakes_of_both_files_are_told_at_once(world: Path) -> None:
    own = users(
        world,
        """\
engnie = "podman"
engine = "podmn"
jobs = -1
prepare = 1
source_mirror = "/m"
  stash_remote = "ocu://example.org/x"
snapshot_mirror = "https://example.org/"
trust = "~no-such-user/keys"
signing_key = ""
home = "a\\u0000b"
""",
    )
    project = projects(world, "jobs = true\nsnapshot = 2026-11-01\n")
    found = details()
    assert [line.removeprefix(f"{own}:") for line in found if str(own) in line] == [
        "1:1: unknown key 'engnie'; did you mean 'engine'?",
        "2:10: 'podmn' is not one of docker, podman, host; did you mean 'podman'?",
        "3:8: invalid jobs '-1': expected a whole number (leave it unset to use what the machine allows)",
        "4:11: 'prepare' should be a valid boolean, not the number 1",
        "5:17: 'source_mirror' should be a valid array, not the text '/m'",
        "6:18: invalid stash_remote 'ocu://example.org/x': expected oci://HOST/NAME or file:///FOLDER; did you mean "
        "'oci'? (such as oci://registry.example.org/team/stash; a NAME has no capital letters)",
        "7:19: invalid snapshot_mirror 'https://example.org/': expected a URL with {date} in it (such as "
        "https://HOST/archive/debian/{date})",
        "8:9: '~no-such-user/keys': there is no such home folder",
        "9:15: invalid signing_key '': expected a text that is not empty",
        "10:8: invalid home 'a\\x00b': expected a text without control characters",
    ]
    assert [line.removeprefix(f"{project}:") for line in found if str(project) in line] == [
        "1:8: 'jobs' should be a valid integer, not the boolean true",
        "2:12: dates and times are not used; a text needs quotes",
    ]


def test_a_mistake_is_told_whatever_the_environment_sets(world: Path) -> None:
    users(world, 'engine = "x"\n')
    assert len(details({"CROSSJIT_ENGINE": "docker"})) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("jobs = ", "1:8: "),
        (f"{'.'.join(['a'] * 900)} = 1\n", "unknown key 'a'"),
        (f"{'.'.join(['a'] * 900)} = 1\n", "tables are nested more than 50 deep"),
    ],
)
def test_what_is_no_configuration_at_all(world: Path, text: str, reason: str) -> None:
    projects(world, text)
    assert any(reason in line for line in details())


def test_a_folder_in_place_of_the_users_file(world: Path) -> None:
    (world / "config/crossjit/config.toml").mkdir(parents=True)
    with pytest.raises(DocumentError, match="is a folder, not a TOML file"):
        settings.load({})


@pytest.mark.parametrize(
    ("environ", "message", "hint"),
    [
        ({"CROSSJIT_ENGINE": "x"}, "invalid CROSSJIT_ENGINE=x: expected docker, podman or host", ""),
        (
            {"CROSSJIT_JOBS": "-1"},
            "invalid CROSSJIT_JOBS=-1: expected a whole number",
            "leave it unset to use what the machine allows",
        ),
        (
            {"CROSSJIT_SNAPSHOT": "x"},
            "invalid CROSSJIT_SNAPSHOT=x: expected a date",
            "such as 20261101T000000Z",
        ),
        (
            {"CROSSJIT_SNAPSHOT_MIRROR": "x"},
            "invalid CROSSJIT_SNAPSHOT_MIRROR=x: expected a URL with {date} in it",
            "such as https://HOST/archive/debian/{date}",
        ),
    ],
)
def test_an_invalid_variable(environ: dict[str, str], message: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        settings.load(environ)
    assert (caught.value.message, caught.value.hint) == (message, hint)


# Strangers' projects


def test_a_project_can_set_what_is_harmless() -> None:
    assert {setting.name for setting in SETTINGS if setting.of_projects} == HARMLESS


@pytest.mark.parametrize(
    "line",
    [
        'home = "/tmp/state"',
        'engine = "podman"',
        'source_mirror = ["https://example.org/x"]',
        "prepare = true",
        'snapshot_mirror = "https://example.org/{date}"',
        'stash_remote = "oci://example.org/stash"',
        'trust = "keys.toml"',
        'signing_key = "key.pem"',
        "debug = true",
    ],
)
def test_a_project_cannot_set_anything_else(world: Path, line: str) -> None:
    path, name = projects(world, f"jobs = 2\n{line}\n"), line.partition(" ")[0]
    refused = f"a project's file cannot set {name!r}: set it in your own, or as CROSSJIT_{name.upper()}"
    assert details() == [f"{path}:2:1: {refused}"]
    assert details({f"CROSSJIT_{name.upper()}": ""}) == [f"{path}:2:1: {refused}"]


def test_no_setting_was_forgotten_above() -> None:
    marks = test_a_project_cannot_set_anything_else.pytestmark  # type: ignore[attr-defined]
    assert {line.partition(" ")[0] for line in marks[0].args[1]} == {each.name for each in SETTINGS} - HARMLESS


def refused(path: Path) -> None:
    with pytest.raises(DocumentError, match=r"crossjit.toml: cannot be read: ") as caught:
        settings.load({})
    assert "not a link" in caught.value.hint
    path.unlink()


def test_a_projects_file_is_a_regular_file(world: Path) -> None:
    path = world / "repository/crossjit.toml"
    for place in (written(world / "secret", "jobs = 1\n"), Path("/dev/zero"), world / "nothing"):
        path.symlink_to(place)
        refused(path)
    os.mkfifo(path)
    refused(path)
    path.mkdir()
    with pytest.raises(DocumentError, match="not a regular file"):
        settings.load({})


def test_a_projects_file_is_small(world: Path) -> None:
    projects(world, f"jobs = 2\n#{'x' * (settings_file.PROJECT_BYTES - 10)}")
    assert settings.load({}).jobs == 2
    projects(world, f"jobs = 2\n#{'x' * (settings_file.PROJECT_BYTES - 9)}")
    with pytest.raises(DocumentError, match=r"crossjit.toml has more than 16,384 bytes") as caught:
        settings.load({})
    assert caught.value.exit_code is ExitCode.USER


# What shows them


def test_config_show(world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    own = users(world, 'source_mirror = ["/a", "/b c"]\nprepare = true\n')
    project = projects(world, "\njobs = 2\n")
    monkeypatch.setenv("CROSSJIT_HOME", str(world))
    monkeypatch.setenv("CROSSJIT_TRUST", "")
    config.show_settings(Context())
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["home", str(world), "CROSSJIT_HOME"] in lines
    assert ["jobs", "2", f"{project}:2"] in lines
    assert ["source_mirror", "/a", "/b", "c", f"{own}:1"] in lines
    assert ["prepare", "on", f"{own}:2"] in lines
    assert ["trust", "-", "CROSSJIT_TRUST"] in lines
    assert ["debug", "off", "default"] in lines
    assert [str(project), "project's", "yes"] in lines
    assert [str(own), "user's", "yes"] in lines


def test_config_show_as_json(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = users(world, 'trust = "keys.toml"\n')
    config.show_settings(Context(), json=True)
    shown = json.loads(capsys.readouterr().out)
    by_name = {each.pop("name"): each for each in shown["settings"]}
    assert by_name["trust"] == {
        "variable": "CROSSJIT_TRUST",
        "value": str(own.parent / "keys.toml"),
        "origin": "user",
        "place": f"{own}:1",
        "meaning": "a TOML file with the public keys of those whose artifacts are taken from the shared stash",
    }
    assert (by_name["signing_key"]["value"], by_name["signing_key"]["origin"]) == (None, "default")
    assert set(by_name) == {setting.name for setting in SETTINGS}
    assert shown["files"] == [
        {"path": str(world / "repository/inner/crossjit.toml"), "origin": "project", "exists": False},
        {"path": str(own), "origin": "user", "exists": True},
    ]


def test_doctor_names_the_files(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossjit.host.check", lambda loaded: (Check("cores", Status.OK, str(loaded.jobs)),))
    doctor.doctor(Context(), json=True)
    assert json.loads(capsys.readouterr().out)["checks"][0]["found"].startswith("no configuration file")
    own, project = users(world, "debug = false\n"), projects(world, "jobs = 2\n")
    doctor.doctor(Context(), json=True)
    first, second = json.loads(capsys.readouterr().out)["checks"]
    assert (first["name"], first["found"]) == ("settings", f"{project}, {own}")
    assert second["found"] == "2"


def test_the_schemas_have_all_settings() -> None:
    schemas = {name: documents.schema(of) for name, of in settings_file.tables().items()}
    for name, names in (("config", {setting.name for setting in SETTINGS}), ("project", HARMLESS)):
        assert set(schemas[name]["properties"]) == names
        assert schemas[name]["additionalProperties"] is False
    described = schemas["config"]["properties"]
    assert described["engine"]["enum"] == ["docker", "podman", "host"]
    assert (described["jobs"]["type"], described["jobs"]["minimum"]) == ("integer", 0)
    assert described["snapshot"]["pattern"] == "^[0-9]{8}(T[0-9]{6}Z)?$"
    assert all(each["description"] for each in described.values())


def test_a_setting_without_a_value_has_its_default() -> None:
    assert all(found == Found(found.setting) for found in settings.find({}))
