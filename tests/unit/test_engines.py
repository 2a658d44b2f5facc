"""Engines by name: the setting, what is invalid, and the client's command line for each."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from crossjit import settings
from crossjit.config.engines import NamedEngine
from crossjit.engine import connect, trial
from crossjit.engine.cli_engine import CliEngine
from crossjit.engine.process import follow
from crossjit.errors import DocumentError, ExitCode, Interrupted, UserError
from crossjit.model import Arch
from crossjit.settings import Settings

ADDRESSES = "ssh://[USER@]HOST[:PORT], tcp://HOST:PORT, unix:///SOCKET, context:NAME"


def load(text: str, tmp_path: Path, **environ: str) -> Settings:
    return settings.load(
        {"CROSSJIT_ENGINES": text, "CROSSJIT_HOME": str(tmp_path), "CROSSJIT_CONFIG": os.devnull, **environ}
    )


@pytest.mark.parametrize(
    ("word", "flags"),
    [
        ("local", ()),
        ("arm=ssh://box", ("--host", "ssh://box")),
        ("arm=ssh://me@box.example.org:2222", ("--host", "ssh://me@box.example.org:2222")),
        ("arm=ssh://me@box/run/user/1000/docker.sock", ("--host", "ssh://me@box/run/user/1000/docker.sock")),
        ("a=tcp://192.0.2.1:2376", ("--host", "tcp://192.0.2.1:2376")),
        ("a=tcp://[2001:db8::1]:2376", ("--host", "tcp://[2001:db8::1]:2376")),
        ("a=unix:///run/other.sock", ("--host", "unix:///run/other.sock")),
        ("a-1.b_c=context:desktop-linux", ("--context", "desktop-linux")),
    ],
)
def test_an_engine_becomes_options_of_the_client(word: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    (engine,) = load(word, tmp_path).engines
    assert engine.flags == flags
    assert str(engine) == word
    connected = connect(load(word, tmp_path))
    assert isinstance(connected, CliEngine)
    assert connected.cli.words == ("docker", *flags)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=shh://box", f"invalid address 'shh://box': expected {ADDRESSES}; did you mean 'ssh'?"),
        ("a=box", f"invalid address 'box': expected {ADDRESSES}"),
        ("a=http://box:2375", f"invalid address 'http://box:2375': expected {ADDRESSES}"),
        ("a=ssh://", "invalid address 'ssh://': expected ssh://[USER@]HOST[:PORT]"),
        ("a=ssh://-oProxyCommand=evil", None),
        ("a=ssh://-l@box", None),
        ("a=tcp://box", "invalid address 'tcp://box': expected tcp://HOST:PORT"),
        ("a=unix://run/x.sock", "invalid address 'unix://run/x.sock': expected unix:///SOCKET"),
        ("a=context:--host", None),
        ("a=", "'a=' has no value"),
        ("-a=ssh://box", "invalid name '-a': expected letters, digits, - and _"),
        ("../a=ssh://box", "invalid name '../a': expected letters, digits, - and _"),
        ("a=ssh://x a=ssh://y", "two engines have the name 'a'"),
        ("a b", "'a' and 'b' are the same engine: this machine's own"),
        ("a=ssh://me@box b=ssh://me@box:22/", "'a' and 'b' are the same engine: ssh://me@box:22/"),
    ],
)
def test_invalid_engines(text: str, expected: str | None, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(text, tmp_path)
    assert caught.value.exit_code is ExitCode.USER
    if expected is not None:
        assert caught.value.message == f"invalid CROSSJIT_ENGINES={text}: {expected}"


def test_each_mistake_of_a_table_has_its_place(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[engines]\nlocal = ""\narm = "shh://box"\n"a b" = "ssh://x"\nx = 3\n')
    with pytest.raises(DocumentError) as caught:
        settings.load({"CROSSJIT_CONFIG": str(file), "CROSSJIT_HOME": str(tmp_path)})
    assert [line.removeprefix(f"{file}:") for line in caught.value.details] == [
        f"3:7: invalid address 'shh://box': expected {ADDRESSES}; did you mean 'ssh'?",
        "4:9: invalid name 'a b': expected letters, digits, - and _",
        "5:5: 'x' should be a valid string, not the number 3",
    ]
    file.write_text('[engines]\na = "ssh://x"\na = "ssh://y"\n')
    with pytest.raises(DocumentError, match="1 error") as caught:
        settings.load({"CROSSJIT_CONFIG": str(file), "CROSSJIT_HOME": str(tmp_path)})
    file.write_text('[engines]\na = "ssh://x"\nb = "ssh://x"\n')
    with pytest.raises(DocumentError) as caught:
        settings.load({"CROSSJIT_CONFIG": str(file), "CROSSJIT_HOME": str(tmp_path)})
    assert caught.value.details == (f"{file}:1:2: 'a' and 'b' are the same engine: ssh://x",)


def test_names_are_for_dockers_engines(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="engines by name are docker's, and the engine is podman"):
        load("a=ssh://box", tmp_path, CROSSJIT_ENGINE="podman")


def test_each_engine_has_settings_and_a_place_for_what_is_known_of_it(tmp_path: Path) -> None:
    assert Settings(tmp_path).each_engine == (Settings(tmp_path),)
    assert (Settings(tmp_path).engine_name, Settings(tmp_path).engine_home) == ("docker", tmp_path)
    local, arm = load("local arm=ssh://box", tmp_path).each_engine
    assert (local.engines, local.engine_name, local.engine_home) == ((NamedEngine("local"),), "local", tmp_path)
    assert (arm.engine_name, arm.engine_home) == ("arm", tmp_path / "engines/arm")
    assert local.identity == arm.identity


# The program that an engine is tried with


@pytest.mark.parametrize("arch", Arch)
def test_the_program_of_an_arch_is_an_elf_of_it(arch: Arch) -> None:
    content = trial.program(arch)
    assert content[:4] == b"\x7fELF"
    assert int.from_bytes(content[18:20], "little") == arch.elf_number
    assert len(content) < 150


CLIENT = """#!/bin/sh
case "$*" in
  *"image inspect"*) exit 1 ;;
  version*) echo '{}' ;;
  *"container create"*) echo 0123abcd ;;
  *exec*) echo "crossjit 1 0" >&2; echo ready; exec sleep 60 ;;
esac
"""


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, CliEngine]:
    """Two engines of a pretended client: this machine's own, and one elsewhere."""
    client = tmp_path / "bin/docker"
    client.parent.mkdir()
    client.write_text(CLIENT)
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
    return {"own": CliEngine("docker"), "arm": CliEngine("docker", NamedEngine("arm", "ssh://box"))}


@pytest.mark.parametrize(("stopped", "other"), [("own", "arm"), ("arm", "own")])
def test_stopping_ends_only_this_engines_clients(clients: dict[str, CliEngine], stopped: str, other: str) -> None:
    ready, ends = threading.Semaphore(0), {}

    def work(name: str) -> None:
        command = (*clients[name].cli.command, "exec", "x")
        ends[name] = follow(
            command, on_line=lambda line: ready.release(), on_error_line=lambda line: None, timeout=4, grace=0
        )

    threads = {name: threading.Thread(target=work, args=(name,)) for name in clients}
    for thread in threads.values():
        thread.start()
    for _ in threads:
        assert ready.acquire(timeout=10)
    clients[stopped].stop()
    threads[stopped].join(3)
    assert (ends[stopped].returncode, ends[stopped].timed_out) == (-9, False)
    with pytest.raises(Interrupted):
        clients[stopped].pull("x", arch=Arch.X86_64)
    threads[other].join()
    assert ends[other].timed_out
