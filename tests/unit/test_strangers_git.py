"""Repositories that mean harm: nothing of theirs runs, and what they cost is bounded."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit.errors import DownloadError, SourceError
from crossjit.progress import Silent
from crossjit.settings import Settings
from crossjit.sources import Source, git, resolve
from crossjit.util.budget import BUDGET
from tests.unit.measured import measure
from tests.unit.test_sources_git import get as get
from tests.unit.test_sources_git import members, run, text
from tests.unit.test_sources_git import own_git as own_git
from tests.unit.test_sources_git import repository as repository
from tests.unit.test_sources_git import server as server

Get = Callable[[str], Source]
RESOLVE = (
    "from crossjit import progress, settings, sources",
    "sources.resolve(f'{arguments[0]}#main', settings.Settings(home=arguments[1]), progress=progress.Silent())",
)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    path = tmp_path / "trap"
    path.write_text(f"#!/bin/sh\ntouch {tmp_path}/caught\ncat\n")
    path.chmod(0o755)
    return path


def caught(trap: Path) -> bool:
    return (trap.parent / "caught").exists()


def stored(folder: Path, kind: str, content: bytes) -> str:
    """Write an object, whatever git thinks of it."""
    environment = {name: value for name, value in os.environ.items() if name != "GIT_DIR"}
    arguments = ("git", "hash-object", "-w", "--literally", "-t", kind, "--stdin")
    return (
        subprocess.run(arguments, cwd=folder, env=environment, input=content, stdout=-1, check=True)
        .stdout.decode()
        .strip()
    )


def tree_of(folder: Path, *entries: tuple[str, str, str]) -> str:
    content = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(found) for mode, name, found in entries)
    return stored(folder, "tree", content)


def committed(folder: Path, tree: str) -> None:
    run(folder, "update-ref", "refs/heads/main", run(folder, "commit-tree", "-m", "x", tree))


@pytest.mark.parametrize("whose", ["user", "system", "environment", "repository"])
def test_no_filter_runs(
    repository: Path, get: Get, trap: Path, own_git: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    with (repository / ".gitattributes").open("a") as attributes:
        attributes.write("*.py filter=evil\n")
    run(repository, "commit", "-qam", "filtered")
    settings = f'[filter "evil"]\nclean = {trap}\nsmudge = {trap}\nrequired = true\n'
    match whose:
        case "user":
            with (own_git / ".gitconfig").open("a") as file:
                file.write(settings)
        case "system":
            (own_git / "system").write_text(settings)
            monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(own_git / "system"))
        case "environment":
            monkeypatch.setenv("GIT_CONFIG_COUNT", "2")
            for number, name in enumerate(("clean", "smudge")):
                monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", f"filter.evil.{name}")
                monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", str(trap))
        case "repository":
            with (repository / ".git/config").open("a") as file:
                file.write(settings)
    os.utime(repository / "Lib/os.py", (1, 1))  # so that git compares it
    assert get(str(repository)).digest == get(f"{repository}#main").digest
    assert get(str(repository)).diff_digest is None
    assert not caught(trap)


def test_no_program_of_the_folder_that_it_is_called_in_runs(
    repository: Path, get: Get, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(repository, "config", "core.sshCommand", str(trap))
    monkeypatch.chdir(repository)
    with pytest.raises(DownloadError, match="cannot list the refs"):
        get("git@crossjit.invalid:x#main")
    assert not caught(trap)


@pytest.mark.parametrize("allowed", ["", "ext", "ext:https"])
def test_no_transport_runs_a_program(get: Get, trap: Path, monkeypatch: pytest.MonkeyPatch, allowed: str) -> None:
    if allowed:
        monkeypatch.setenv("GIT_ALLOW_PROTOCOL", allowed)
    with pytest.raises(SourceError, match="ext is not fetched from"):
        get(f"ext::{trap}#main")
    refused = git.run("ls-remote", "--", f"ext::{trap}", fetching=True)
    assert "not allowed" in "".join(refused.errors) and not refused.ok and not caught(trap)


def test_git_over_http_is_refused_with_the_right_address(get: Get) -> None:
    with pytest.raises(SourceError, match="http") as refused:
        get("http://host/cpython#main")
    assert refused.value.hint == "write https://host/cpython#main"


def test_a_submodules_settings_do_not_count(repository: Path, get: Get, trap: Path, tmp_path: Path) -> None:
    run(tmp_path, "init", "-q", "other")
    (tmp_path / "other/x").touch()
    run(tmp_path / "other", "add", "-A")
    run(tmp_path / "other", "commit", "-qm", "x")
    run(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q", f"{tmp_path}/other", "sub")
    run(repository, "commit", "-qm", "a submodule")
    run(repository / "sub", "config", "core.fsmonitor", str(trap))
    (repository / "sub/x").write_text("changed\n")
    source = get(str(repository))
    assert (source.digest, source.diff_digest) == (get(f"{repository}#main").digest, None)
    assert not caught(trap)


def test_a_partial_clone_fetches_nothing_by_itself(repository: Path, get: Get, trap: Path) -> None:
    """What is missing would be asked of the remote that the repository names, by a program that it names."""
    blob = run(repository, "rev-parse", "main:Lib/os.py")
    (repository / ".git/objects" / blob[:2] / blob[2:]).unlink()
    run(repository, "remote", "add", "origin", str(repository))
    run(repository, "config", "core.repositoryFormatVersion", "1")
    for name, value in (("extensions.partialClone", "origin"), ("remote.origin.promisor", "true")):
        run(repository, "config", name, value)
    run(repository, "config", "remote.origin.uploadpack", str(trap))
    with pytest.raises(SourceError, match=r"lacks the file Lib/os\.py"):
        get(f"{repository}#main")
    (repository / "Lib/os.py").write_text("changed\n")
    assert get(str(repository)).diff_digest
    assert not caught(trap)


def test_what_is_no_part_of_a_source_may_be_missing(repository: Path, get: Get) -> None:
    clean = get(f"{repository}#main").digest
    (repository / "Doc").mkdir()
    (repository / "Doc/index.rst").write_text("documentation\n")
    run(repository, "add", "Doc")
    run(repository, "commit", "-qm", "documented")
    blob = run(repository, "rev-parse", "main:Doc/index.rst")
    (repository / ".git/objects" / blob[:2] / blob[2:]).unlink()
    assert get(f"{repository}#main").digest == get(str(repository)).digest == clean
    run(repository, "update-index", "--skip-worktree", "Doc/index.rst")
    (repository / "Doc/index.rst").unlink()
    assert get(str(repository)).digest == clean
    assert get(str(repository)).diff_digest is None, "what no build reads makes no difference"


def test_a_tree_of_a_million_files_in_some_bytes(repository: Path, tmp_path: Path) -> None:
    tree, mode = run(repository, "rev-parse", "main:Lib/os.py"), "100644"
    for _ in range(6):
        tree, mode = tree_of(repository, *((mode, f"{number}", tree) for number in range(10))), "40000"
    committed(repository, tree)
    started = time.monotonic()
    cost = measure(*RESOLVE, repository, tmp_path / "state")
    assert cost.error == "SourceError" and cost.message.endswith("has more than 500,000 files and folders")
    assert cost.memory < 200 and cost.child < 100 and time.monotonic() - started < 30
    assert not list((tmp_path / "state").rglob("*.zst"))


def test_folders_in_folders_of_a_commit(repository: Path, get: Get) -> None:
    tree = run(repository, "rev-parse", "main^{tree}")
    for _ in range(300):
        tree = tree_of(repository, ("40000", "a", tree))
    committed(repository, tree)
    with pytest.raises(SourceError, match="nested more than 256 deep"):
        get(f"{repository}#main")


def test_a_large_file_of_a_commit_costs_no_memory(repository: Path, tmp_path: Path) -> None:
    with (repository / "large").open("wb") as file:
        file.truncate(200 << 20)
    run(repository, "add", "large")
    run(repository, "commit", "-qm", "large")
    cost = measure(*RESOLVE, repository, tmp_path / "state")
    assert cost.error == "" and cost.memory < 100 and cost.child < 150


@pytest.mark.parametrize("name", ["../x", ".git", "a/../../x"])
def test_paths_that_lead_elsewhere(repository: Path, get: Get, name: str) -> None:
    blob = run(repository, "rev-parse", "main:Lib/os.py")
    listed = run(repository, "ls-tree", "main^{tree}").splitlines()
    entries = [(mode.lstrip("0"), name, found) for line in listed for mode, _, found, name in [line.split()]]
    committed(repository, tree_of(repository, *sorted([*entries, ("100644", name, blob)], key=lambda entry: entry[1])))
    try:
        found = members(get(f"{repository}#main"))
    except SourceError:
        return
    assert name == ".git" and found["cpython/.git"].isreg(), "a plain file in a tar"


def test_a_link_is_not_read_without_bounds(repository: Path, get: Get) -> None:
    blob = stored(repository, "blob", b"x" * 100_000)
    tree = tree_of(repository, ("120000", "link", blob))
    committed(repository, tree)
    with pytest.raises(SourceError, match="a link of 100,000 bytes"):
        get(f"{repository}#main")


def test_attributes_of_archives_do_not_count(repository: Path, get: Get) -> None:
    """A checkout has all files as they are committed; so has its commit."""
    with (repository / ".gitattributes").open("a") as attributes:
        attributes.write("Lib/os.py export-ignore\nversion export-subst\n")
    (repository / "version").write_text("$Format:%H$\n")
    run(repository, "add", "-A")
    run(repository, "commit", "-qm", "attributes")
    source = get(f"{repository}#main")
    assert text(source, "version") == "$Format:%H$\n" and text(source, "Lib/os.py") == "import sys\n"
    assert source.digest == get(str(repository)).digest


def test_line_ends_are_those_of_a_checkout(repository: Path, get: Get) -> None:
    (repository / ".gitattributes").write_text(
        "[attr]dos text eol=crlf\n*.bat dos\n*.auto text=auto eol=crlf\n*.old crlf eol=crlf\n*.only eol=crlf\n"
        "*.bin binary eol=crlf\n*.lf text eol=lf\nsub/*.bat -text\n"
    )
    contents = {"mixed": b"a\nb\r\nc\n", "plain": b"a\nb\n", "nul": b"a\n\0b\n", "none": b"ab"}
    names = [f"{name}{kind}" for name in contents for kind in (".bat", ".auto", ".old", ".only", ".bin", ".lf", ".txt")]
    (repository / "sub").mkdir()
    for name in (*names, *(f"sub/{name}" for name in names)):
        (repository / name).write_bytes(contents[name.rpartition("/")[2].partition(".")[0]])
    run(repository, "add", "-A")
    run(repository, "commit", "-qm", "ends")
    for path in (*repository.glob("*.*"), *repository.glob("sub/*")):
        if path.is_file():
            path.unlink()
    run(repository, "checkout", "-q", "--", ".")
    assert (repository / "plain.bat").read_bytes() == b"a\r\nb\r\n"
    assert get(f"{repository}#main").digest == get(str(repository)).digest


def test_untracked_links_out_of_a_checkout_are_left_out(
    repository: Path, tmp_path: Path, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = get(str(repository))
    (repository / "stray").symlink_to(tmp_path)
    (repository / "Makefile.pre.in").symlink_to("/dev/zero")
    (repository / "inside").symlink_to("Lib/os.py")
    said: list[str] = []

    class Hearing(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    for _ in range(2):
        said.clear()
        source = resolve(str(repository), Settings(home=tmp_path / "state"), progress=Hearing())
        assert {"cpython/inside"} == set(members(source)) - set(members(clean))
        assert [line for line in said if "stray is left out" in line]
    (repository / "inside").unlink()
    source = get(str(repository))
    assert (source.digest, source.diff_digest) == (clean.digest, None)
    run(repository, "add", "stray")
    with pytest.raises(SourceError, match="outside of the top folder"):
        get(str(repository))


def test_what_the_user_ignores_is_left_out(repository: Path, get: Get, own_git: Path) -> None:
    clean = get(str(repository)).digest
    (own_git / ".config/git").mkdir(parents=True)
    (own_git / ".config/git/ignore").write_text("*.swp\n")
    (repository / ".git/info").mkdir(exist_ok=True)
    (repository / ".git/info/exclude").write_text("*.mine\n")
    (repository / "x.swp").touch()
    (repository / "x.mine").touch()
    assert get(str(repository)).digest == clean
    (own_git / "ignored").write_text("*.mine\n")
    run(repository, "config", "--global", "core.excludesFile", "~/ignored")
    assert get(str(repository)).digest != clean


def test_an_index_in_two_files(repository: Path, get: Get) -> None:
    clean = get(str(repository))
    run(repository, "update-index", "--split-index")
    (repository / "Lib/new.py").touch()
    run(repository, "add", "Lib/new.py")
    assert "cpython/Lib/new.py" in members(get(str(repository)))
    run(repository, "rm", "-qf", "Lib/new.py")
    assert get(str(repository)) == clean


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_whose_repositories_are_trusted_is_for_the_user_to_say(repository: Path, get: Get) -> None:
    os.chown(repository, 12345, 12345)
    run(repository, "config", "-f", ".git/config", "safe.directory", "*")
    with pytest.raises(SourceError, match="not the top folder"):
        get(str(repository))
    run(repository.parent, "config", "--global", "--add", "safe.directory", str(repository))
    assert get(str(repository)).digest == get(f"{repository}#main").digest


def test_a_checkout_is_read_whole_from_a_folder_within_it(
    repository: Path, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = get(str(repository))
    (repository / "new").touch()
    changed = get(str(repository))
    monkeypatch.chdir(repository / "Lib")
    assert get("..").digest == changed.digest != clean.digest


def served(repository: Path) -> Path:
    return repository.parent / "served.git"


def test_objects_that_git_takes_for_damaged_are_refused(repository: Path, server: str, get: Get) -> None:
    blob = run(repository, "rev-parse", "main:Lib/os.py")
    committed(
        served(repository), tree_of(served(repository), ("100644", ".git", stored(served(repository), "blob", b"")))
    )
    assert blob
    with pytest.raises(SourceError, match="gives data that git considers damaged for main") as refused:
        get(f"{server}/served.git#main")
    assert refused.value.details


def test_a_fetch_is_bounded(
    repository: Path, server: str, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "noise").write_bytes(os.urandom(2 << 20))
    run(repository, "add", "noise")
    run(repository, "commit", "-qm", "noise")
    run(repository, "push", "-q", str(served(repository)), "main")
    monkeypatch.setattr(git, "BUDGET", replace(BUDGET, archive=1 << 20))
    with pytest.raises(SourceError, match="gives more data than a CPython commit"):
        get(f"{server}/served.git#main")
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "state")


def test_a_list_of_refs_is_bounded(server: str, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "BUDGET", replace(BUDGET, names=50))
    with pytest.raises(DownloadError) as refused:
        get(f"{server}/served.git#main")
    assert "more than 50 bytes" in refused.value.details[0]
