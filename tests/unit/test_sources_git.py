"""Sources out of git: remote and local repositories, checkouts with their uncommitted changes."""

from __future__ import annotations

import hashlib
import http.server
import os
import shutil
import socket
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit.config.recipes import Git
from crossjit.errors import DownloadError, SourceError
from crossjit.progress import Silent, SilentStep
from crossjit.settings import Settings
from crossjit.sources import Kind, Source, git, open_tar, resolve
from crossjit.sources import repository as repositories
from crossjit.sources.repository import resolve_local
from crossjit.sources.request import LocalRepository
from crossjit.sources.tarball import Entry, Take, pack

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")

FILES = {
    "configure": "#! /bin/sh\n# --enable-experimental-jit\n",
    "Include/patchlevel.h": '#define PY_MAJOR_VERSION 3\n#define PY_MINOR_VERSION 16\n#define PY_VERSION "3.16.0a0+"\n',
    "Tools/jit/_llvm.py": '_LLVM_VERSION = "21"\n',
    "PCbuild/build.bat": "one\ntwo\n",
    "Lib/os.py": "import sys\n",
    ".gitignore": "*.o\n/build/\n",
    ".gitattributes": "*.bat text eol=crlf\n",
}


@pytest.fixture(autouse=True)
def own_git(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give git a user of its own, whose settings would spoil a source if they were heeded."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(
        "[user]\nname = a\nemail = a@b\n[init]\ndefaultBranch = main\n[core]\nautocrlf = false\nhooksPath = hooks\n"
        "[tar]\numask = 0777\n[diff]\nexternal = false\nnoprefix = true\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    for name in ("XDG_CONFIG_HOME", "GIT_SSL_CAINFO"):
        monkeypatch.delenv(name, raising=False)
    return home


def run(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "GIT_DIR"}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "cpython"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "configure").chmod(0o755)
    (folder / "Lib/link").symlink_to("os.py")
    run(folder, "init", "-q")
    run(folder, "add", "-A")
    run(folder, "commit", "-qm", "one")
    run(folder, "tag", "-am", "first", "v1")
    run(folder, "checkout", "-q", "--", ".")
    (folder / "PCbuild/build.bat").unlink()
    run(folder, "checkout", "-q", "--", "PCbuild/build.bat")  # now as .gitattributes has it
    (folder / "Lib/os.py").write_text("import sys, two\n")
    run(folder, "commit", "-qam", "two")
    run(folder, "update-ref", "refs/pull/7/head", "HEAD")
    run(folder, "reset", "-q", "--hard", "HEAD~")
    return folder


@pytest.fixture
def get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | Git], Source]:
    return lambda spec: resolve(spec, Settings(home=tmp_path / "state"), progress=Silent(), pool_mirrors=lambda: ())


def members(source: Source) -> dict[str, tarfile.TarInfo]:
    with open_tar(source) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        return {member.name: member for member in tar}


def text(source: Source, name: str) -> str:
    with open_tar(source) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            if member.name == f"cpython/{name}":
                content = tar.extractfile(member)
                assert content
                return content.read().decode()
    raise AssertionError(f"no {name}")


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


Get = Callable[[str | Git], Source]


def test_a_local_repository_at_a_ref(repository: Path, get: Get) -> None:
    commit = run(repository, "rev-parse", "refs/pull/7/head")
    before = state_of(repository)
    source = get(f"{repository}#pull/7/head")
    assert (source.kind, source.version, source.python, source.llvm) == (Kind.GIT, "3.16.0a0+", (3, 16), "21")
    assert (source.commit, source.diff_digest, source.top) == (commit, None, "cpython")
    assert source.origin == f"{repository}#pull/7/head"
    assert text(source, "Lib/os.py") == "import sys, two\n"
    assert text(source, "PCbuild/build.bat") == "one\r\ntwo\r\n", ".gitattributes are part of the commit"
    found = members(source)
    assert found["cpython/configure"].mode == 0o755 and found["cpython/Lib/os.py"].mode == 0o644
    assert found["cpython/Lib/link"].linkname == "os.py"
    assert "pax_global_header" not in found
    assert state_of(repository) == before
    with open_tar(source) as stream:
        assert hashlib.sha256(stream.read()).hexdigest() == source.digest == source.archive.parent.name


@pytest.mark.parametrize("ref", ["main", "v1", "HEAD", "refs/heads/main", "commit", "short", "v1^{}"])
def test_any_name_of_a_commit_gives_the_same(repository: Path, get: Get, ref: str) -> None:
    commit = run(repository, "rev-parse", "main")
    name = {"commit": commit, "short": commit[:10]}.get(ref, ref)
    if ref == "v1^{}":  # no form that a ref has, though git would take it
        assert get(f"{repository}#{name}").commit == commit
        return
    assert get(Git(url=str(repository), ref=name)) == replace(
        get(f"file://{repository}#main"), origin=f"{repository}#{name}"
    )


def test_only_what_is_committed_counts_at_a_ref(repository: Path, get: Get) -> None:
    (repository / "Lib/os.py").write_text("changed")
    assert text(get(f"{repository}#main"), "Lib/os.py") == "import sys\n"
    assert text(get(str(repository)), "Lib/os.py") == "changed"


def test_settings_of_the_repository_do_not_count(repository: Path, get: Get) -> None:
    digest = get(f"{repository}#main").digest
    shutil.rmtree(repository.parent / "state")
    (repository / ".git/info").mkdir(exist_ok=True)
    (repository / ".git/info/attributes").write_text("*.py export-ignore\n* text eol=crlf\n")
    run(repository, "config", "core.autocrlf", "true")
    run(repository, "config", "tar.umask", "0777")
    assert get(f"{repository}#main").digest == digest


def test_history_is_not_copied(repository: Path, get: Get, tmp_path: Path) -> None:
    get(f"{repository}#main")
    assert not list((tmp_path / "state").rglob("*.git")) and not list((tmp_path / "state").rglob("objects"))


def test_a_bare_repository_needs_a_ref(repository: Path, get: Get, tmp_path: Path) -> None:
    run(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
    assert get(f"{tmp_path}/bare.git#main").commit == run(repository, "rev-parse", "main")
    with pytest.raises(SourceError, match="without a working tree") as caught:
        get(f"{tmp_path}/bare.git")
    assert "#main" in caught.value.hint


def test_a_shallow_repository_works(repository: Path, get: Get, tmp_path: Path) -> None:
    run(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", "shallow")
    assert (
        get(f"{tmp_path}/shallow#main").digest == get(f"{repository}#main").digest == get(f"{tmp_path}/shallow").digest
    )


def test_objects_that_are_missing_are_told(repository: Path, get: Get, tmp_path: Path) -> None:
    blob = run(repository, "rev-parse", "main:Lib/os.py")
    (repository / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(SourceError, match=r"lacks the file Lib/os\.py") as caught:
        get(f"{repository}#main")
    assert "--filter" in caught.value.hint and any(blob in line for line in caught.value.details)
    assert not list((tmp_path / "state/sources").rglob("*.zst"))


def test_objects_that_are_missing_are_told_where_git_ends_within_another_file(repository: Path, get: Get) -> None:
    """It writes whole blocks of ten kilobytes."""
    (repository / "Lib" / "large.py").write_text("#" * 30_000)
    (repository / "Lib" / "lost.py").write_text("lost")
    run(repository, "add", "Lib")
    run(repository, "commit", "-q", "-m", "more")
    blob = run(repository, "rev-parse", "main:Lib/lost.py")
    (repository / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(SourceError, match=r"lacks the file Lib/lost\.py") as caught:
        get(f"{repository}#main")
    assert any(blob in line for line in caught.value.details)


def test_what_is_wrong_with_a_commit_is_told_where_git_is_well(repository: Path, get: Get, tmp_path: Path) -> None:
    (repository / "Lib/link").unlink()
    (repository / "Lib/link").symlink_to(tmp_path / "outside")
    run(repository, "commit", "-qam", "outside")
    with pytest.raises(SourceError, match="outside of the top folder"):
        get(f"{repository}#main")
    assert not list((tmp_path / "state/sources").rglob("*.zst"))


@pytest.mark.parametrize(("ref", "hint"), [("mian", "did you mean main?"), ("nothing-like-it", "name a branch")])
def test_an_unknown_ref_is_told(repository: Path, get: Get, ref: str, hint: str) -> None:
    with pytest.raises(SourceError, match=f"has no ref {ref}") as caught:
        get(f"{repository}#{ref}")
    assert hint in caught.value.hint


def test_what_is_no_repository_is_told(repository: Path, get: Get, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for spec in (f"{tmp_path}/plain", f"{tmp_path}/plain#main", f"{repository}/Lib", f"{repository}/Lib#main"):
        with pytest.raises(SourceError, match="not the top folder of a git repository"):
            get(spec)
    run(tmp_path / "plain", "init", "-q")
    with pytest.raises(SourceError, match="has no commit"):
        get(str(tmp_path / "plain"))
    (tmp_path / "plain/x").touch()
    run(tmp_path / "plain", "add", "-A")
    run(tmp_path / "plain", "commit", "-qm", "x")
    for spec in (str(tmp_path / "plain"), f"{tmp_path}/plain#main"):
        with pytest.raises(SourceError, match="not a CPython source"):
            get(spec)


def test_without_git_it_is_told(repository: Path, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for spec in (str(repository), f"{repository}#main", "https://crossjit.invalid/x#main"):
        with pytest.raises(SourceError, match="git is not installed"):
            get(spec)


def test_a_clean_checkout_is_its_commit(repository: Path, get: Get) -> None:
    source = get(str(repository))
    assert (source.kind, source.commit, source.diff_digest) == (
        Kind.CHECKOUT,
        run(repository, "rev-parse", "HEAD"),
        None,
    )
    assert source.digest == get(f"{repository}#main").digest


def test_a_checkout_is_packed_as_it_is(repository: Path, get: Get) -> None:
    clean = get(str(repository))
    (repository / "Lib/os.py").write_text("changed\n")
    (repository / "Lib/link").unlink()
    (repository / "Tools/new.py").write_text("new\n")
    (repository / "Tools/new.py").chmod(0o700)
    (repository / "Lib/staged.py").write_text("staged\n")
    run(repository, "add", "Lib/staged.py")
    (repository / "ignored.o").touch()
    (repository / "build").mkdir()
    (repository / "build/x").touch()
    run(repository, "init", "-q", "nested")
    before = state_of(repository)
    source = get(str(repository))
    assert state_of(repository) == before, "nothing is written to the checkout"
    assert source.commit == clean.commit and source.digest != clean.digest
    assert source.diff_digest and len(source.diff_digest) == 64
    found = members(source)
    assert text(source, "Lib/os.py") == "changed\n" and text(source, "Lib/staged.py") == "staged\n"
    assert found["cpython/Tools/new.py"].mode == 0o755
    assert not {"cpython/Lib/link", "cpython/ignored.o", "cpython/build", "cpython/nested"} & set(found)
    assert len({member.mtime for member in found.values()}) == 1
    (repository / "Lib/os.py").write_text("changed again\n")
    assert get(str(repository)).diff_digest not in (None, source.diff_digest)


def test_what_its_changes_make_stale_is_told(repository: Path, get: Get) -> None:
    files = {
        "Makefile.pre.in": "regen-cases:\n\ttrue\nregen-global-objects: x\n\ttrue\n",
        "Python/bytecodes.c": "inst(NOP)\n",
        "Python/executor_cases.c.h": "NOP\n",
        "Python/ceval.c": "&_Py_ID(send)\n",
    }
    for name, content in files.items():
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text(content)
    run(repository, "add", "-A")
    run(repository, "commit", "-qm", "generators")
    assert get(str(repository)).regenerate == ()
    (repository / "Python/ceval.c").write_text("int x;\n&_Py_ID(send)\n")
    assert get(str(repository)).regenerate == ()
    (repository / "Python/bytecodes.c").write_text("inst(POP)\n")
    assert get(str(repository)).regenerate == ("regen-cases",)
    (repository / "Python/ceval.c").write_text("&_Py_ID(throw)\n")
    assert get(str(repository)).regenerate == ("regen-cases", "regen-global-objects")
    run(repository, "commit", "-qam", "two")
    assert get(str(repository)).regenerate == (), "a commit is taken as it is"


def test_a_change_within_the_second_in_which_git_looked_is_seen(repository: Path, get: Get) -> None:
    file, index, moment = repository / "configure", repository / ".git" / "index", 1_700_000_000
    run(repository, "config", "core.trustctime", "false")
    os.utime(file, (moment, moment))
    run(repository, "update-index", "--refresh")
    os.utime(index, (moment, moment))
    before = file.read_bytes()
    file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    os.utime(file, (moment, moment))
    assert get(str(repository)).diff_digest is not None


def test_a_changed_mtime_is_no_difference(repository: Path, get: Get) -> None:
    clean = get(str(repository))
    index = (repository / ".git/index").read_bytes()
    for name in FILES:
        os.utime(repository / name, (1, 1))
    assert get(str(repository)) == clean
    assert (repository / ".git/index").read_bytes() == index, "the index is not refreshed"
    (repository / "Lib/os.py").write_text("changed\n")
    changed = get(str(repository))
    os.utime(repository / "Lib/os.py", (2, 2))
    assert get(str(repository)) == changed


@pytest.mark.parametrize("change", ["executable", "deleted", "retargeted", "untracked", "empty untracked"])
def test_every_kind_of_change_has_its_own_digest(repository: Path, get: Get, change: str) -> None:
    clean = get(str(repository))
    match change:
        case "executable":
            (repository / "Lib/os.py").chmod(0o755)
        case "deleted":
            (repository / "Lib/os.py").unlink()
        case "retargeted":
            (repository / "Lib/link").unlink()
            (repository / "Lib/link").symlink_to("../configure")
        case "untracked":
            (repository / "new ü\n.py").write_text("x")
        case "empty untracked":
            (repository / "new").touch()
    changed = get(str(repository))
    assert changed.diff_digest is not None and changed.digest != clean.digest
    assert get(str(repository)) == changed


class TestKnownAgain:
    """A checkout that was packed before is not read again."""

    @pytest.fixture(autouse=True)
    def packed(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        """Have each packing noted."""
        times: list[Path] = []

        def noting(entries: Iterable[Entry], target: Path, take: Take) -> str:
            times.append(target)
            return pack(entries, target, take)

        monkeypatch.setattr(repositories, "pack", noting)
        return times

    @pytest.mark.parametrize("change", ["", "changed\n"])
    def test_as_it_is(self, repository: Path, get: Get, packed: list[Path], change: str) -> None:
        if change:
            (repository / "Lib/os.py").write_text(change)
        source = get(str(repository))
        assert [get(str(repository)), get(str(repository))] == [source, source] and len(packed) == 1

    def test_not_what_git_takes_for_the_same(self, repository: Path, get: Get) -> None:
        """Of the same size, the same mtime, in a file that git was told not to look at."""
        file = repository / "Lib/os.py"
        run(repository, "update-index", "--assume-unchanged", "Lib/os.py")
        before, source = file.stat(), get(str(repository))
        file.write_bytes(file.read_bytes().swapcase())
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (
            get(str(repository)).digest != source.digest and text(get(str(repository)), "Lib/os.py") == "IMPORT SYS\n"
        )

    def test_not_of_another_commit(self, repository: Path, get: Get) -> None:
        first = get(str(repository))
        run(repository, "commit", "-q", "--allow-empty", "-m", "empty")
        assert get(str(repository)).commit == run(repository, "rev-parse", "HEAD") != first.commit

    def test_as_it_is_where_git_forgot_a_file_that_is_there(
        self, repository: Path, get: Get, packed: list[Path]
    ) -> None:
        clean = get(str(repository))
        run(repository, "rm", "-q", "--cached", "Lib/os.py")
        assert get(str(repository)) == clean and len(packed) == 1, "it is not ignored, so a commit would have it again"

    def test_by_what_git_makes_of_line_ends(self, repository: Path, get: Get) -> None:
        clean = get(str(repository))
        batch = repository / "PCbuild/build.bat"
        assert b"\r\n" in batch.read_bytes()
        batch.write_bytes(batch.read_bytes().replace(b"\r\n", b"\n"))
        assert get(str(repository)) == clean, "what is packed is what git would commit, and check out again"

    def test_what_only_the_index_knows_is_no_difference(self, repository: Path, get: Get) -> None:
        (repository / "Lib/os.py").write_text("changed\n")
        changed = get(str(repository))
        run(repository, "commit", "-qam", "changed")
        run(repository, "reset", "-q", "--soft", "HEAD~")
        assert get(str(repository)) == changed

    def test_not_where_crossjit_packs_otherwise(
        self, repository: Path, get: Get, packed: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        get(str(repository))
        monkeypatch.setattr(repositories, "_RULES", "otherwise")
        get(str(repository))
        assert len(packed) == 2

    @pytest.mark.parametrize("damage", ["gone", "garbage", "source"])
    def test_not_where_what_was_kept_is_damaged(
        self, repository: Path, get: Get, packed: list[Path], tmp_path: Path, damage: str
    ) -> None:
        source = get(str(repository))
        (kept,) = (tmp_path / "state/sources/commits").iterdir()
        match damage:
            case "gone":
                kept.unlink()
            case "garbage":
                kept.write_text('{"a": 1}')
            case "source":
                source.archive.unlink()
        assert get(str(repository)) == source and len(packed) == 2


def test_a_folder_that_became_a_link_is_not_followed(repository: Path, get: Get, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/os.py").write_text("secret")
    shutil.rmtree(repository / "Lib")
    (repository / "Lib").symlink_to("Tools")
    found = members(get(str(repository)))
    assert found["cpython/Lib"].issym() and "cpython/Lib/os.py" not in found
    (repository / "Lib").unlink()
    (repository / "Lib").symlink_to(tmp_path / "outside")
    with pytest.raises(SourceError, match="outside of the top folder"):
        get(str(repository))


def test_a_sparse_checkout_does_not_pass_for_a_clean_one(repository: Path, get: Get) -> None:
    run(repository, "update-index", "--skip-worktree", "Lib/os.py")
    (repository / "Lib/os.py").unlink()
    source = get(str(repository))
    assert source.diff_digest is not None and "cpython/Lib/os.py" not in members(source)


def test_a_merge_with_conflicts_is_packed_as_it_is(repository: Path, get: Get) -> None:
    run(repository, "branch", "other")
    for branch in ("other", "main"):
        run(repository, "checkout", "-q", branch)
        (repository / "Lib/os.py").write_text(f"{branch}\n")
        run(repository, "commit", "-qam", branch)
    with pytest.raises(subprocess.CalledProcessError):
        run(repository, "merge", "-q", "other")
    source = get(str(repository))
    assert "<<<<<<<" in text(source, "Lib/os.py") and source.diff_digest
    (repository / "Lib/os.py").unlink()
    assert "cpython/Lib/os.py" not in members(get(str(repository)))


def test_a_linked_worktree_is_a_checkout(repository: Path, get: Get, tmp_path: Path) -> None:
    run(repository, "worktree", "add", "-q", str(tmp_path / "linked"), "v1")
    assert get(str(tmp_path / "linked")).digest == get(str(repository)).digest
    assert get(f"{tmp_path}/linked#main").commit == get(str(repository)).commit


def test_hooks_and_monitors_do_not_run(repository: Path, get: Get, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/caught\n")
    trap.chmod(0o755)
    run(repository, "config", "core.fsmonitor", str(trap))
    run(repository, "config", "diff.external", str(trap))
    for hook in ("post-checkout", "post-index-change", "reference-transaction"):
        (repository / ".git/hooks").mkdir(exist_ok=True)
        shutil.copy(trap, repository / ".git/hooks" / hook)
    (repository / "Lib/os.py").write_text("changed\n")
    get(str(repository))
    get(f"{repository}#main")
    assert not (tmp_path / "caught").exists()


def certificate(home: Path) -> Path:
    """Make a certificate for this machine, and have the user's settings trust it."""
    path = home / "own.pem"
    made = "openssl req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=127.0.0.1"
    names = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", path)
    subprocess.run([*made.split(), *names], check=True, capture_output=True)
    with (home / ".gitconfig").open("a") as settings:
        settings.write(f"[http]\nsslCAInfo = {path}\n")
    return path


@pytest.fixture
def server(repository: Path, tmp_path: Path, own_git: Path) -> Iterator[str]:
    """Serve the repositories in a folder as git's own CGI program does it; below /plain/ as mere files."""
    run(tmp_path, "clone", "-q", "--bare", "--mirror", str(repository), "served.git")
    run(tmp_path / "served.git", "update-server-info")
    backend = Path(run(tmp_path, "--exec-path")) / "git-http-backend"

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/plain/"):
                self.path = self.path.removeprefix("/plain")
                super().do_GET()
            elif self.path.startswith("/private/"):
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic realm=x")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.cgi()

        def do_POST(self) -> None:
            self.cgi()

        def cgi(self) -> None:
            path, _, query = self.path.partition("?")
            environment = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(tmp_path),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = subprocess.run([backend], input=body, env=environment, capture_output=True, check=True).stdout
            head, _, content = answer.partition(b"\r\n\r\n")
            headers = dict(line.decode().split(": ", 1) for line in head.split(b"\r\n"))
            self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def translate_path(self, path: str) -> str:
            return str(tmp_path / path.partition("?")[0].lstrip("/"))

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(own_git))
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"https://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.mark.parametrize("ref", ["main", "v1", "pull/7/head", "HEAD", "refs/heads/main", "commit"])
def test_a_ref_is_fetched_shallow(repository: Path, server: str, get: Get, tmp_path: Path, ref: str) -> None:
    commit = run(
        repository, "rev-parse", {"pull/7/head": "refs/pull/7/head", "commit": "refs/pull/7/head"}.get(ref, "main")
    )
    name = commit if ref == "commit" else ref
    source = get(f"{server}/served.git#{name}")
    assert (source.kind, source.commit, source.origin) == (Kind.GIT, commit, f"{server}/served.git#{name}")
    assert source.digest == get(f"{repository}#{commit}").digest
    (cache,) = (tmp_path / "state/sources/git").iterdir()
    assert run(cache, "rev-list", "--count", commit) == "1", "no history comes with it"
    assert get(Git(url=f"{server}/served.git", ref=name)) == source


def test_a_branch_is_followed(repository: Path, server: str, get: Get, tmp_path: Path) -> None:
    first = get(f"{server}/served.git#main")
    (repository / "Lib/os.py").write_text("three\n")
    run(repository, "commit", "-qam", "three")
    run(repository, "push", "-q", str(tmp_path / "served.git"), "main")
    second = get(f"{server}/served.git#main")
    assert second.commit == run(repository, "rev-parse", "main") != first.commit
    assert text(second, "Lib/os.py") == "three\n"


def test_a_server_of_plain_files_works(repository: Path, server: str, get: Get) -> None:
    assert get(f"{server}/plain/served.git#main").commit == run(repository, "rev-parse", "main")


def test_a_commit_that_was_packed_needs_no_server(repository: Path, server: str, get: Get, tmp_path: Path) -> None:
    commit = run(repository, "rev-parse", "main")
    source = get(f"{server}/served.git#{commit}")
    (tmp_path / "served.git").rename(tmp_path / "gone.git")
    assert get(f"{server}/served.git#{commit}") == source


def test_what_a_killed_fetch_left_is_no_obstacle(server: str, repository: Path, get: Get, tmp_path: Path) -> None:
    get(f"{server}/served.git#main")
    (cache,) = (tmp_path / "state/sources/git").iterdir()
    (cache / "shallow.lock").touch()
    (cache / "refs/crossjit/wanted.lock").touch()
    run(tmp_path / "served.git", "update-ref", "refs/heads/main", "refs/pull/7/head")
    assert get(f"{server}/served.git#main").commit == run(repository, "rev-parse", "refs/pull/7/head")


@pytest.mark.parametrize(
    ("ref", "message", "hint"),
    [
        ("mian", "has no ref mian", "did you mean main?"),
        ("pull/8/head", "has no pull/8/head, or does not serve it", "pull request"),
        ("0123456789", "has no branch or tag 0123456789", "all 40 digits"),
        ("1" * 40, "has no 1111", "commit id"),
    ],
)
def test_a_ref_that_a_server_does_not_have(server: str, get: Get, ref: str, message: str, hint: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        get(f"{server}/served.git#{ref}")
    assert hint in caught.value.hint


def test_a_server_that_is_not_there_or_asks_for_a_password(server: str, get: Get) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    for url in (
        f"https://127.0.0.1:{port}/x.git",
        "https://crossjit.invalid/x.git",
        f"{server}/private/x.git",
        f"{server.replace('https://', 'https://user:secret@')}/nothing.git",
        "git@crossjit.invalid:x",
    ):
        with pytest.raises(DownloadError, match="cannot list the refs") as caught:
            get(f"{url}#main")
        assert "secret" not in caught.value.message + caught.value.hint + "".join(caught.value.details)
        assert caught.value.details


def test_a_fetch_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        answer = git.follow("fetch", "--", f"git://127.0.0.1:{port}/x", step=SilentStep(), silence=0.2)
        assert answer.status is None and "stalled" in answer.errors[-1]
        assert git.run("ls-remote", "--", f"git://127.0.0.1:{port}/x", timeout=0.2, fetching=True).status is None


def test_progress_of_a_fetch_is_understood() -> None:
    seen: list[tuple[int | None, int | None, str]] = []

    class Step(SilentStep):
        def update(
            self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
        ) -> None:
            seen.append((done, total, detail))

    git._show(b"Counting objects:   5% (1/20)\rReceiving objects:  10% (2/20)\rReceiving objects:  50% (10/20)", Step())
    assert seen == [(10, 20, "receiving objects")]
    assert git.lines_of(b"Receiving objects:  1% (1/2)\r  2% (2/2)\nfatal: it broke\n") == ("fatal: it broke",)


def test_a_full_disk_leaves_no_mark_of_the_commit(repository: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "state")
    (tmp_path / "state").touch()
    with pytest.raises(Exception, match="cannot write") as caught:
        resolve_local(LocalRepository(repository, "main"), settings, progress=Silent(), work=settings.sources / "tmp")
    assert "CROSSJIT_HOME" in caught.value.hint  # type: ignore[attr-defined]
