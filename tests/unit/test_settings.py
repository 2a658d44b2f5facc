"""Where the state is: what cannot be a place for it is the user's to mend, and told before anything else."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from crossjit import settings
from crossjit.errors import ExitCode, UserError
from crossjit.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration file is found."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_paths_mean_the_same_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mirrors = "mirror https://example.org/x file:///m"
    loaded = settings.load({"CROSSJIT_HOME": "state", "CROSSJIT_SOURCE_MIRROR": mirrors})
    assert loaded.home == tmp_path / "state"
    assert loaded.source_mirrors == (str(tmp_path / "mirror"), "https://example.org/x", "file:///m")


@pytest.mark.parametrize("home", ["~no-such-user/x", "~no-such-user"])
def test_a_home_of_nobody(home: str) -> None:
    with pytest.raises(UserError, match="there is no such home folder"):
        settings.load({"CROSSJIT_HOME": home})


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "file/below/it"):
        with pytest.raises(UserError, match="file is not a folder"):
            settings.load({"CROSSJIT_HOME": str(home)})


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_no_home_in_the_environment(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own is taken, as the password database has it: never a folder below `/`, or below the one of now."""
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert settings.load({}).home == Path(pwd.getpwuid(os.getuid()).pw_dir, ".local/share/crossjit")
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)  # a container's user that no password database knows
    with pytest.raises(UserError, match="this user has no home folder"):
        settings.load({})


@pytest.mark.parametrize("home", ["/proc/x", "/sys/x"])
def test_a_home_that_cannot_be_made(home: str) -> None:
    with pytest.raises(UserError, match=f"cannot make the state folder {home}"):
        settings.make_home(Settings(home=Path(home)))


@pytest.mark.parametrize(
    ("environ", "command"),
    [
        ({"CROSSJIT_HOME": "/proc/x"}, ("build", "--variant", "jit")),
        ({"CROSSJIT_HOME": "~no-such-user/x"}, ("stash", "list")),
        ({"CROSSJIT_HOME": "/dev/null/x"}, ("stash", "list")),
        ({"CROSSJIT_HOME": "", "HOME": "/proc/x", "XDG_DATA_HOME": ""}, ("triage",)),
    ],
)
def test_the_command_line_says_it_with_2(environ: dict[str, str], command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "crossjit", *command],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.USER, done.stderr
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr
