"""Where archives come from: mirrors, URLs, a Debian pool, the cache; and what goes wrong on the way."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import json
import lzma
import os
import resource
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from crossjit.config.recipes import Archive
from crossjit.errors import CrossjitError, DownloadError, EngineError, SourceError, StashError
from crossjit.progress import Silent
from crossjit.settings import Settings
from crossjit.sources import (
    Kind,
    Source,
    Timeouts,
    host_pool_mirrors,
    known,
    locations,
    open_tar,
    request,
    resolve,
)
from crossjit.tasks import namespace
from crossjit.tasks.commandline import CrossjitProgram
from crossjit.util import budget
from tests.fakes.http_server import serving

PATCHLEVEL = '#define PY_MAJOR_VERSION 3\n#define PY_MINOR_VERSION 15\n#define PY_VERSION "{version}"\n'
IMPATIENT = Timeouts(name=0.5, connect=0.5, stall=1.0, attempts=2)
NAME = "Python-3.15.0rc2.tar.xz"


def archive_bytes(version: str = "3.15.0rc2", *extra: str) -> bytes:
    buffer = io.BytesIO()
    files = {"configure": "", "Include/patchlevel.h": PATCHLEVEL.format(version=version), "noise": os.urandom(99).hex()}
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        for name, text in (files | dict.fromkeys(extra, "")).items():
            member = tarfile.TarInfo(f"Python-{version}/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


CONTENT = archive_bytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Answers:
    """What the server gives: content by path, and a status, a number of failures or a behaviour for some."""

    files: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    busy: dict[str, int] = field(default_factory=dict)
    behaviour: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    authorization: list[str] = field(default_factory=list)
    proxy_authorization: str = ""
    release: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Answers]:
    answers = Answers()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.asked.append(self.path)
            answers.authorization.append(self.headers.get("Authorization", ""))
            answers.proxy_authorization = self.headers.get("Proxy-Authorization", "")
            if answers.busy.get(self.path, 0) > 0:
                answers.busy[self.path] -= 1
                return self.send_error(503)
            if status := answers.status.get(self.path):
                return self.send_error(status)
            behaviour = answers.behaviour.get(self.path, "")
            if behaviour.startswith("redirect "):
                self.send_response(302)
                self.send_header("Location", behaviour.split()[1])
                self.end_headers()
                return None
            if self.path not in answers.files:
                return self.send_error(404)
            content = answers.files[self.path]
            self.send_response(200)
            if behaviour != "no length":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if behaviour in ("truncate", "stall"):
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                if behaviour == "stall":
                    answers.release.wait(10)
                return None
            if behaviour == "slow":
                for start in range(0, len(content), 40):
                    self.wfile.write(content[start : start + 40])
                    self.wfile.flush()
                    answers.release.wait(0.15)
                return None
            self.wfile.write(content)
            return None

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with serving(Handler) as address:
        answers.url = f"http://{address}"
        yield answers
        answers.release.set()


def recipe(*where: str, digest: str = DIGEST, version: str = "3.15.0rc2") -> Archive:
    return Archive(version=version, sha256=digest, places=where)


def get(
    spec: Archive | str, home: Path, *mirrors: str, pool: Callable[[], Sequence[str]] = lambda: (), **options: object
) -> Source:
    return resolve(
        spec,
        Settings(home=home, source_mirrors=mirrors),
        progress=Silent(),
        pool_mirrors=pool,
        timeouts=options.pop("timeouts", IMPATIENT),  # type: ignore[arg-type]
    )


def leftovers(home: Path) -> list[str]:
    """Return what is in the state folder but for locks and complete sources."""
    sources = home / "sources"
    found = [path for path in sources.rglob("*") if path.is_file() and path.name not in (".making.lock", "facts.json")]
    return [str(path.relative_to(sources)) for path in found if not (path.parent / "facts.json").exists()]


def test_places_are_asked_in_order_until_one_gives_the_file(tmp_path: Path, server: Answers) -> None:
    server.files[f"/good/{NAME}"] = CONTENT
    source = get(
        recipe(f"{server.url}/missing/{NAME}", f"{server.url}/good/{NAME}", f"{server.url}/never/{NAME}"),
        tmp_path / "home",
        str(tmp_path / "mirror"),
    )
    assert (source.kind, source.version, source.python, source.digest) == (Kind.ARCHIVE, "3.15.0rc2", (3, 15), DIGEST)
    assert source.origin == f"{server.url}/good/{NAME}"
    assert source.archive == tmp_path / "home" / "sources" / DIGEST / NAME
    assert source.archive.read_bytes() == CONTENT
    assert server.asked == [f"/missing/{NAME}", f"/good/{NAME}"]
    assert leftovers(tmp_path / "home") == []


@pytest.mark.parametrize("name", [NAME, "python3.15_3.15.0~rc2.orig.tar.xz"])
@pytest.mark.parametrize("scheme", ["", "file://", "http"])
def test_a_mirror_has_the_file_under_either_name(tmp_path: Path, server: Answers, name: str, scheme: str) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / name).write_bytes(CONTENT)
    server.files[f"/mirror/{name}"] = CONTENT
    mirror = f"{server.url}/mirror/" if scheme == "http" else f"{scheme}{tmp_path / 'mirror'}"
    wanted = recipe("debian:main/p/python3.15/python3.15_3.15.0~rc2.orig.tar.xz")
    assert get(wanted, tmp_path / "home", mirror).origin.endswith(f"/mirror/{name}")
    assert (tmp_path / "mirror" / name).exists()


def test_the_debian_pool_is_only_looked_for_when_it_is_reached(tmp_path: Path, server: Answers) -> None:
    server.files["/debian/pool/main/p/python3.15/x~rc2.tar.xz"] = CONTENT
    asked = []

    def pool() -> Sequence[str]:
        asked.append(1)
        return (f"{server.url}/security", f"{server.url}/debian/")

    where = ("debian:main/p/python3.15/none.tar.xz", "debian:main/p/python3.15/x~rc2.tar.xz")
    assert get(recipe(*where), tmp_path / "home", pool=pool).origin == (
        f"{server.url}/debian/pool/main/p/python3.15/x~rc2.tar.xz"
    )
    assert asked == [1]
    get(recipe(*where), tmp_path / "home", pool=pool)
    server.files[f"/{NAME}"] = CONTENT
    get(recipe(f"{server.url}/{NAME}", *where), tmp_path / "other", pool=pool)
    assert asked == [1]


def test_every_place_and_its_reason_are_told(tmp_path: Path, server: Answers) -> None:
    server.files["/wrong/x.tar.xz"] = b"another file"
    server.files["/short/x.tar.xz"] = CONTENT
    server.behaviour["/short/x.tar.xz"] = "truncate"
    server.status["/busy/x.tar.xz"] = 503
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    def pool() -> Sequence[str]:
        raise EngineError("the engine is away")

    with pytest.raises(DownloadError) as caught:
        get(
            recipe(
                "https://crossjit.invalid/x.tar.xz",
                f"http://127.0.0.1:{port}/x.tar.xz",
                f"{server.url}/wrong/x.tar.xz",
                f"{server.url}/short/x.tar.xz",
                f"{server.url}/busy/x.tar.xz",
                f"{server.url}/none/x.tar.xz",
                "debian:main/p/x.tar.xz",
            ),
            tmp_path / "home",
            str(tmp_path / "mirror"),
            pool=pool,
        )
    details = caught.value.details
    assert f"{tmp_path}/mirror/{NAME}: no such file" in details[0]
    for detail, reason in zip(
        details[2:],
        [
            "cannot resolve crossjit.invalid",
            "Connection refused",
            "its sha256 is",
            f"cut short: {len(CONTENT) // 2} of {len(CONTENT)} bytes",
            "503",
            "404",
            "the engine is away",
        ],
        strict=True,
    ):
        assert reason in detail
    assert "CROSSJIT_SOURCE_MIRROR" in caught.value.hint and NAME in caught.value.hint
    assert server.asked.count("/busy/x.tar.xz") == 2, "a busy server is asked again"
    assert server.asked.count("/none/x.tar.xz") == 1, "one that does not have it is not"
    assert leftovers(tmp_path / "home") == []


def test_no_mirror_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        get(recipe("debian:main/p/x.tar.xz"), tmp_path)
    assert "apt's sources have no Debian mirror" in caught.value.details[0]
    with pytest.raises(SourceError, match="invalid location"):
        list(locations.candidates("3.15", ("debian:main",), (), tuple))
    (place,) = locations.candidates("3.15", ("ftp://host/x.tar.xz",), (), tuple)
    assert "only http" in place.missing


def test_a_busy_server_is_asked_again(
    tmp_path: Path, server: Answers, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    server.files["/x.tar.xz"] = CONTENT
    server.busy["/x.tar.xz"] = 1
    assert get(recipe(f"{server.url}/x.tar.xz"), tmp_path).digest == DIGEST
    assert caplog.records == [] and capfd.readouterr() == ("", ""), "only the step tells of it"


def test_redirects_and_answers_without_a_length_work(tmp_path: Path, server: Answers) -> None:
    server.files["/x.tar.xz"] = CONTENT
    server.behaviour |= {"/x.tar.xz": "no length", "/from.tar.xz": "redirect /x.tar.xz"}
    assert get(recipe(f"{server.url}/from.tar.xz"), tmp_path).digest == DIGEST
    server.behaviour["/from.tar.xz"] = "redirect file:///etc/passwd"
    with pytest.raises(DownloadError):
        get(recipe(f"{server.url}/from.tar.xz"), tmp_path / "other")


def test_a_stalled_download_is_given_up_and_its_host_not_asked_again(tmp_path: Path, server: Answers) -> None:
    server.files["/x.tar.xz"] = CONTENT
    server.behaviour["/x.tar.xz"] = "stall"
    started = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        get(recipe(f"{server.url}/x.tar.xz", f"{server.url}/y.tar.xz"), tmp_path)
    assert time.monotonic() - started < 5, "it would hold the line for ten"
    assert all("stalled: no byte for 1 s" in detail for detail in caught.value.details)
    assert server.asked == ["/x.tar.xz"]


def test_a_slow_download_is_waited_for(tmp_path: Path, server: Answers) -> None:
    server.files["/x.tar.xz"] = CONTENT
    server.behaviour["/x.tar.xz"] = "slow"
    started = time.monotonic()
    assert get(recipe(f"{server.url}/x.tar.xz"), tmp_path).digest == DIGEST
    assert time.monotonic() - started > IMPATIENT.stall, "it took longer than a stall may"


def test_a_resolver_that_hangs_costs_little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hang = threading.Event()
    asked = []

    def silent(*arguments: object, **_: object) -> list[object]:
        asked.append(arguments[0])
        hang.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    started = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        get(recipe("http://somewhere.invalid/x.tar.xz", "http://somewhere.invalid/y.tar.xz"), tmp_path)
    hang.set()
    assert time.monotonic() - started < 5
    assert all("no answer within 0.5 s" in detail for detail in caught.value.details)
    assert asked == ["somewhere.invalid"], "the second place on a dead host costs nothing"


def test_a_host_that_does_not_answer_costs_little(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # a full backlog drops what comes, as a firewall does
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(DownloadError) as caught:
            get(recipe(f"{url}/x.tar.xz", f"{url}/y.tar.xz"), tmp_path)
        assert time.monotonic() - started < 5, "the system waits for minutes"
        assert all("no answer within 0.5 s" in detail for detail in caught.value.details)
        assert "(0.00 s)" in caught.value.details[1], "the second place on a dead host costs nothing"


def test_an_address_that_is_dead_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Answers
) -> None:
    server.files["/x.tar.xz"] = CONTENT
    good = int(server.url.rpartition(":")[2])
    addresses = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", good)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    assert get(recipe("http://somewhere/x.tar.xz"), tmp_path).digest == DIGEST


def test_the_environments_proxy_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Answers) -> None:
    url = "http://crossjit.invalid/x.tar.xz"
    server.files |= {url: CONTENT, "/x.tar.xz": CONTENT}
    monkeypatch.setenv("http_proxy", server.url.replace("http://", "http://user:s%20cret@"))
    assert get(recipe(url), tmp_path).origin == url
    assert server.asked == [url]
    assert base64.b64decode(server.proxy_authorization.removeprefix("Basic ")) == b"user:s cret"
    monkeypatch.setenv("http_proxy", server.url.removeprefix("http://"))
    assert get(recipe(url), tmp_path / "without a scheme").digest == DIGEST
    assert server.asked == [url, url]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert get(recipe(f"{server.url}/x.tar.xz"), tmp_path / "without a proxy").digest == DIGEST
    assert server.asked == [url, url, "/x.tar.xz"]


def test_the_second_time_nothing_is_asked_or_written(tmp_path: Path, server: Answers) -> None:
    server.files["/x.tar.xz"] = CONTENT
    wanted = recipe(f"{server.url}/x.tar.xz")
    first = get(wanted, tmp_path)
    shutil.rmtree(tmp_path / "locks")
    seconds = []
    for _ in range(5):
        started = time.monotonic()
        assert get(wanted, tmp_path) == first
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 0.1
    assert server.asked == ["/x.tar.xz"]
    assert not (tmp_path / "locks").exists()


def test_a_damaged_cache_is_noticed_and_fetched_anew(tmp_path: Path, server: Answers) -> None:
    server.files["/x.tar.xz"] = CONTENT
    wanted = recipe(f"{server.url}/x.tar.xz")
    source = get(wanted, tmp_path)
    source.archive.write_bytes(b"x" * len(CONTENT))
    assert get(wanted, tmp_path) == source
    assert source.archive.read_bytes() == CONTENT
    assert len(server.asked) == 2
    source.archive.unlink()
    assert get(wanted, tmp_path) == source
    assert len(server.asked) == 3


def test_a_cache_that_only_looks_changed_is_verified_and_kept(tmp_path: Path, server: Answers) -> None:
    server.files["/x.tar.xz"] = CONTENT
    wanted = recipe(f"{server.url}/x.tar.xz")
    source = get(wanted, tmp_path)
    os.utime(source.archive, (1, 1))
    assert get(wanted, tmp_path).digest == DIGEST
    (source.archive.parent / "facts.json").write_text("{damaged")
    assert get(wanted, tmp_path).digest == DIGEST
    assert server.asked == ["/x.tar.xz"]


def test_what_builds_are_given_is_made_anew_of_the_archive(tmp_path: Path, server: Answers) -> None:
    server.files["/x.tar.xz"] = CONTENT
    wanted = recipe(f"{server.url}/x.tar.xz")
    source = get(wanted, tmp_path)
    assert source.tree is not None
    with open_tar(source) as stream:
        assert stream.read() == lzma.decompress(CONTENT)
    source.tree.unlink()
    assert get(wanted, tmp_path).tree == source.tree
    content = bytearray(source.tree.read_bytes())
    content[len(content) // 2] ^= 0xFF
    source.tree.write_bytes(content)
    with pytest.raises(StashError, match="damaged"), open_tar(source) as stream:
        stream.read()
    assert get(wanted, tmp_path).tree == source.tree
    with open_tar(source) as stream:
        assert stream.read() == lzma.decompress(CONTENT)
    assert leftovers(tmp_path) == []
    assert server.asked == ["/x.tar.xz"]


def test_a_record_from_before_there_was_such_a_tree_is_verified_anew(tmp_path: Path, server: Answers) -> None:
    server.files["/x.tar.xz"] = CONTENT
    wanted = recipe(f"{server.url}/x.tar.xz")
    source = get(wanted, tmp_path)
    facts = source.archive.with_name("facts.json")
    record = json.loads(facts.read_bytes())
    (facts.parent / record.pop("tree")).unlink()
    facts.write_text(json.dumps(record))
    assert replace(get(wanted, tmp_path), origin=source.origin) == source
    assert server.asked == ["/x.tar.xz"]


def test_two_at_once_download_once(tmp_path: Path, server: Answers) -> None:
    server.files["/x.tar.xz"] = CONTENT
    server.behaviour["/x.tar.xz"] = "slow"
    results: list[Source] = []
    threads = [
        threading.Thread(target=lambda: results.append(get(recipe(f"{server.url}/x.tar.xz"), tmp_path)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]
    assert server.asked == ["/x.tar.xz"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path, server: Answers) -> None:
    server.files["/x.tar.xz"] = CONTENT
    server.behaviour["/x.tar.xz"] = "stall"
    program = (
        "import sys; from pathlib import Path\n"
        "from crossjit.settings import Settings; from crossjit.progress import Silent\n"
        "from crossjit.sources import resolve\n"
        "resolve(sys.argv[1], Settings(home=Path(sys.argv[2])), progress=Silent())"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, f"{server.url}/x.tar.xz", str(tmp_path)], cwd=Path(__file__).parents[2]
    )
    deadline = time.monotonic() + 20
    while not leftovers(tmp_path) and time.monotonic() < deadline:
        assert child.poll() is None
        server.release.wait(0.02)
    child.kill()
    child.wait()
    assert leftovers(tmp_path), "it was killed in the middle of the download"
    server.behaviour.clear()
    assert get(recipe(f"{server.url}/x.tar.xz"), tmp_path).digest == DIGEST
    assert leftovers(tmp_path) == []


def test_a_recipe_that_names_another_version_is_wrong(tmp_path: Path, server: Answers) -> None:
    server.files["/x.tar.xz"] = CONTENT
    with pytest.raises(SourceError, match=r"says that its archive is CPython 3\.15\.1, but it is 3\.15\.0rc2"):
        get(recipe(f"{server.url}/x.tar.xz", version="3.15.1"), tmp_path)


def test_a_users_archive_has_its_own_digest(tmp_path: Path, server: Answers) -> None:
    path = tmp_path / "mine.tar.xz"
    path.write_bytes(CONTENT)
    source = get(str(path), tmp_path / "home")
    assert (source.digest, source.origin, source.kind) == (DIGEST, str(path), Kind.ARCHIVE)
    path.rename(tmp_path / "moved.tar.xz")
    assert source.archive.read_bytes() == CONTENT, "it is a copy"
    assert get(str(tmp_path / "moved.tar.xz"), tmp_path / "home").origin == str(tmp_path / "moved.tar.xz")
    server.files["/mine.tar.xz"] = CONTENT
    assert get(f"{server.url}/mine.tar.xz", tmp_path / "home").archive == source.archive


def test_a_users_archive_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "facts.json").write_bytes(CONTENT)  # a name that the cache has a use for
    monkeypatch.chdir(tmp_path)
    assert get("facts.json", tmp_path / "home").archive.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive_bytes("3.15.0rc2", "../../evil"), "leaves the top folder"),
        (CONTENT[:-60], "not a complete tar archive"),
        (lzma.compress(b"text"), "not a complete tar archive"),
        (b"", "not a complete tar archive"),
    ],
)
def test_a_users_bad_archive_leaves_nothing(tmp_path: Path, server: Answers, content: bytes, message: str) -> None:
    path = tmp_path / "mine.tar.xz"
    path.write_bytes(content)
    server.files["/mine.tar.xz"] = content
    for spec in (str(path), f"{server.url}/mine.tar.xz"):
        with pytest.raises(SourceError, match=message) as caught:
            get(spec, tmp_path / "home")
        assert spec in caught.value.message and caught.value.hint
        assert leftovers(tmp_path / "home") == []
    assert not (tmp_path / "evil").exists()


def test_a_users_url_that_gives_nothing(tmp_path: Path, server: Answers) -> None:
    with pytest.raises(DownloadError, match="404"):
        get(f"{server.url}/none.tar.xz", tmp_path)


def test_a_urls_password_is_used_but_not_told(tmp_path: Path, server: Answers) -> None:
    server.files |= {"/x.tar.xz": CONTENT, "/other.tar.xz": CONTENT}
    url = server.url.replace("http://", "http://user:s%20cret@")
    assert get(f"{url}/x.tar.xz", tmp_path).origin == f"{server.url}/x.tar.xz"
    assert base64.b64decode(server.authorization[-1].removeprefix("Basic ")) == b"user:s cret"
    server.behaviour["/x.tar.xz"] = "redirect /other.tar.xz"
    get(f"{url}/x.tar.xz", tmp_path)
    assert server.authorization[-1] == "", "where a redirect leads to has no business with it"
    with pytest.raises(DownloadError) as caught:
        get(f"{url}/none.tar.xz", tmp_path)
    assert "cret" not in caught.value.message


def test_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.tar.xz"
    path.write_bytes(CONTENT)
    for home in (path / "below-a-file", Path("/proc/crossjit")):
        with pytest.raises(StashError) as caught:
            get(str(path), home)
        assert "CROSSJIT_HOME" in caught.value.hint


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, server: Answers) -> None:
    content = archive_bytes("3.15.0rc2", *(f"{index}-{os.urandom(40).hex()}" for index in range(2000)))
    assert len(content) > 40_000
    server.files["/x.tar.xz"] = content
    (tmp_path / "x.tar.xz").write_bytes(content)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        for spec in (f"{server.url}/x.tar.xz", str(tmp_path / "x.tar.xz")):
            with pytest.raises(StashError, match="cannot write") as caught:
                get(spec, tmp_path / "home")
            assert "CROSSJIT_HOME" in caught.value.hint
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers(tmp_path / "home") == []


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    class Interrupting(Silent):
        @contextlib.contextmanager
        def step(self, name: str, subject: str = "") -> Iterator[Interrupting]:
            yield self

        def line(self, text: str) -> None:
            raise AssertionError(text)

        def update(
            self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
        ) -> None:
            if done:
                raise KeyboardInterrupt

    (tmp_path / "x.tar.xz").write_bytes(CONTENT)
    with pytest.raises(KeyboardInterrupt):
        resolve(str(tmp_path / "x.tar.xz"), Settings(home=tmp_path / "home"), progress=Interrupting())
    assert leftovers(tmp_path / "home") == []


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "invalid source ''", "archive"),
        ("-x", "invalid source '-x'", "archive"),
        ("https://host/repository", "neither an archive's URL", "add #main"),
        ("ftp://host/x.tar.xz", "neither an archive's URL", "add #main"),
        ("git@host:python/cpython", "there is no", "add #ref"),
        ("Pyhton-3.15.tar.xz", "there is no", "did you mean Python-3.15.tar.xz"),
        ("nothing-like-it", "there is no", "give an archive"),
        ("pipe", "neither a file nor a folder", "give an archive"),
        ("x" * 5000, "cannot be read|there is no", "give an archive"),
        ("folder#", "does not name a ref", "folder#ref"),
        ("#main", "does not name a ref", "folder#ref"),
        ("folder#-x", "does not name a ref", "folder#ref"),
        ("folder#a b", "does not name a ref", "folder#ref"),
        ("missing#main", "there is no repository", "archive"),
        ("foldr#main", "there is no repository", "did you mean folder"),
    ],
)
def test_what_is_no_source_is_told_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str, hint: str
) -> None:
    (tmp_path / "Python-3.15.tar.xz").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=message) as caught:
        get(text, tmp_path / "home")
    assert hint in caught.value.hint


def test_apts_repositories_become_mirrors() -> None:
    listing = "http://one/debian/\nhttp://one/debian/\n\ncdrom:[x]/\nhttps://two/security\nmirror+file:/etc/x\n"
    assert locations.pool_mirrors_of(listing) == ("http://one/debian", "https://two/security")


def test_a_host_without_apt_has_no_mirrors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host_pool_mirrors() == ()


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt here")
def test_the_hosts_apt_is_asked() -> None:
    assert all(uri.startswith(("http://", "https://", "file://")) for uri in host_pool_mirrors())


def test_every_error_is_one_that_a_user_can_read(tmp_path: Path) -> None:
    for spec in ("", "nothing", "https://crossjit.invalid/x.tar.xz", "https://[bad/x.tar.xz", "http://host:port/x.tar"):
        with pytest.raises(CrossjitError) as caught:
            get(spec, tmp_path)
        assert caught.value.message and caught.value.hint


def test_what_is_too_large_is_not_downloaded(tmp_path: Path, server: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files = {"/large.tar.xz": bytes(100_000), f"/good/{NAME}": CONTENT}
    server.behaviour["/endless.tar.xz"] = "no length"
    server.files["/endless.tar.xz"] = bytes(100_000)
    monkeypatch.setattr(budget, "BUDGET", replace(budget.BUDGET, archive=50_000))
    for name in ("large", "endless"):
        with pytest.raises(SourceError, match="is refused: it has more than 50,000 bytes"):
            get(f"{server.url}/{name}.tar.xz", tmp_path)
        assert get(recipe(f"{server.url}/{name}.tar.xz", f"{server.url}/good/{NAME}"), tmp_path).digest == DIGEST
        shutil.rmtree(tmp_path / "sources")
    (tmp_path / "large.tar.xz").write_bytes(bytes(100_000))
    with pytest.raises(SourceError, match="has more than 50,000 bytes"):
        get(str(tmp_path / "large.tar.xz"), tmp_path)


@pytest.mark.parametrize("page", ["", "/", "/files", "/commits", "/checks?id=1", "#issue-1", "/files#r1"])
def test_a_pull_requests_page_is_its_head(page: str) -> None:
    for host in ("https://github.com", "http://www.github.com"):
        found = request.parse(f"{host}/python/cpython/pull/12345{page}")
        assert isinstance(found, request.RemoteRepository)
        assert (found.url.removeprefix("https://www.").removeprefix("https://"), found.ref) == (
            "github.com/python/cpython",
            "pull/12345/head",
        )


def test_the_page_of_a_pull_requests_commit_is_that_commit() -> None:
    page = f"https://github.com/python/cpython/pull/12345/commits/{'ab' * 20}"
    assert request.parse(page) == request.RemoteRepository("https://github.com/python/cpython", "ab" * 20)


@pytest.mark.parametrize("page", ["/pulls", "/pull/12345x", "/pull/", "/issues/12345", "/tree/main"])
def test_other_pages_are_no_sources(page: str) -> None:
    with pytest.raises(SourceError, match="neither an archive's URL nor a git URL"):
        request.parse(f"https://github.com/python/cpython{page}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing", "there is no"),
        ("https://github.com/python/cpython", "neither an archive's URL"),
        ("text", "not a complete tar archive"),
        ("empty", "not a complete tar archive"),
        ("broken.tar.xz", "not a complete tar archive"),
        ("folder", "not the top folder of a git repository"),
        ("folder#main", "not the top folder of a git repository"),
        ("repository", "has no commit"),
        ("repository#main", "has no ref main"),
        ("repository/bare.git", "without a working tree"),
    ],
)
def test_what_cannot_be_a_source_is_refused_by_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str, message: str
) -> None:
    (tmp_path / "text").write_text("x" * 2000)
    (tmp_path / "empty").touch()
    (tmp_path / "broken.tar.xz").write_bytes(CONTENT[:40])
    (tmp_path / "folder").mkdir()
    for command in (["init", "-q", "repository"], ["init", "-q", "--bare", "repository/bare.git"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setenv("CROSSJIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["crossjit", "plan", "--source", source])
    with pytest.raises(SystemExit) as ended:
        CrossjitProgram(namespace).run()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_what_may_be_a_source_is_planned(tmp_path: Path) -> None:
    (tmp_path / "mine.tar.xz").write_bytes(CONTENT)
    settings = Settings(home=tmp_path / "home")
    for spec in (str(tmp_path / "mine.tar.xz"), "https://github.com/python/cpython#main", f"{tmp_path}/mine.tar.xz"):
        assert known(spec, settings) is None
