"""`stash push|pull|keygen`, their settings, keys and the trust file: what is wrong is told with a hint and a code."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from crossjit import settings
from crossjit.errors import DocumentError, ExitCode, UserError
from crossjit.pipeline import context
from crossjit.remote import signing, trusted_keys
from crossjit.tasks import namespace
from crossjit.tasks.commandline import CrossjitProgram
from tests.fakes.oci_registry import OciRegistry, served
from tests.unit.test_build_python import X86, FakeContext

HTTPS = ("oci://registry.example.org/team/stash", "oci://[::1]:5000/x", "oci://localhost/a-b__c/d.e", "file:///a b/c")


class Done(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def registry() -> Iterator[OciRegistry]:
    with served(OciRegistry()) as running:
        yield running


@pytest.fixture
def environ(tmp_path: Path, registry: OciRegistry, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of a machine that trusts its own key."""
    monkeypatch.setattr(context.BuildContext, "require_emulator", lambda ctx, arch: None)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in [name for name in os.environ if name.startswith("CROSSJIT_")]:
        monkeypatch.delenv(name)
    public = signing.make(tmp_path / "key.pem")
    (tmp_path / "keys.toml").write_text(f'[keys]\nci = "{public}"\n')
    values = {
        "CROSSJIT_HOME": str(tmp_path / "home"),
        "CROSSJIT_STASH_REMOTE": registry.url,
        "CROSSJIT_SIGNING_KEY": str(tmp_path / "key.pem"),
        "CROSSJIT_TRUST": str(tmp_path / "keys.toml"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


@pytest.fixture
def crossjit(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line."""

    def run(*words: str | Path) -> Done:
        monkeypatch.setattr("sys.argv", ["crossjit", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            CrossjitProgram(namespace).run()
            raise SystemExit(0)
        return Done(int(ended.value.code or 0), *capfd.readouterr())

    return run


def test_pushed_here_and_pulled_there(
    environ: dict[str, str], registry: OciRegistry, crossjit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = FakeContext(tmp_path).build("jit", X86).artifact
    (tmp_path / "attestation.json").write_text('{"a": 1}\n{"b": 2}\n')
    pushed = crossjit("stash", "push")
    assert pushed.out == f"3.15/x86_64/jit ({artifact.id})\npushed 1 artifact to {registry.url}; 0 were there\n", pushed
    again = crossjit("stash", "push", "--json")
    assert json.loads(again.out) == [{"id": artifact.full_id, "build_key": artifact.key, "pushed": False}]
    attested = crossjit("stash", "push", artifact.id, "--attestation", tmp_path / "attestation.json")
    assert attested.out.endswith(f"pushed 1 artifact to {registry.url}; 0 were there\n")

    monkeypatch.setenv("CROSSJIT_HOME", str(tmp_path / "other"))
    pulled = crossjit("stash", "pull", artifact.key)
    assert (pulled.code, pulled.out) == (0, f"3.15/x86_64/jit ({artifact.id}), signed by ci\n")
    (listed,) = json.loads(crossjit("stash", "list", "--json").out)
    assert listed["id"] == artifact.full_id
    assert listed["origin"]["remote"] == registry.url
    assert listed["origin"]["signer"] == "ci"
    assert crossjit("stash", "list").out.splitlines()[-1].split()[-1] == "ci"
    shown = crossjit("stash", "show", artifact.id).out
    assert f"{registry.url}, signed by ci (ed25519:" in shown
    assert "attestation.json" in shown
    assert crossjit("stash", "verify").code == 0
    assert json.loads(crossjit("stash", "pull", artifact.key, "--json").out)[0]["id"] == artifact.full_id
    assert crossjit("stash", "push").out == f"pushed 0 artifacts to {registry.url}; 0 were there\n", "it is not its own"


def test_what_strangers_wrote_is_pushed_by_its_name_alone(
    environ: dict[str, str], registry: OciRegistry, crossjit: Run, tmp_path: Path
) -> None:
    from crossjit.pipeline import build_cell
    from tests.unit.test_shared_stash import prepared

    machine = FakeContext(tmp_path)
    source = "https://example.org/fork#main"
    foreign = build_cell.build_cell(machine.ctx, prepared(machine, source), log=tmp_path / "log").artifact
    assert crossjit("stash", "push").code == 0
    assert registry.manifests == {}
    assert crossjit("stash", "push", foreign.id).code == 0
    assert list(registry.manifests) == [foreign.key]


@pytest.mark.parametrize(
    ("words", "changes", "status", "message"),
    [
        (["push"], {"CROSSJIT_STASH_REMOTE": ""}, 2, "CROSSJIT_STASH_REMOTE is not set"),
        (["push"], {"CROSSJIT_STASH_REMOTE": "s3://x/y"}, 2, "expected oci://HOST/NAME or file:///FOLDER"),
        (["push"], {"CROSSJIT_SIGNING_KEY": ""}, 2, "CROSSJIT_SIGNING_KEY is not set"),
        (["push"], {"CROSSJIT_SIGNING_KEY": "/no/key"}, 2, "cannot read the key /no/key: no such file or directory"),
        (["push", "abcd"], {}, 2, "there is no artifact 'abcd'"),
        (["push", "--attestation", "x"], {}, 2, "--attestation needs one artifact"),
        (["push", "abcd", "--attestation", "/no/file"], {}, 2, "cannot read /no/file: no such file or directory"),
        (["push"], {"CROSSJIT_STASH_REMOTE": "file:///dev/null/x"}, 3, "cannot push"),
        (["pull"], {}, 2, "no build key given"),
        (["pull", "abcd"], {}, 2, "invalid --key 'abcd': expected 64 hex digits"),
        (["pull", "a" * 64], {"CROSSJIT_STASH_REMOTE": ""}, 2, "CROSSJIT_STASH_REMOTE is not set"),
        (["pull", "a" * 64], {"CROSSJIT_TRUST": ""}, 2, "CROSSJIT_TRUST is not set"),
        (["pull", "a" * 64], {"CROSSJIT_TRUST": "/no/keys.toml"}, 2, "/no/keys.toml: there is no such file"),
        (["pull", "a" * 64], {}, 3, "has no artifact aaaaaaaaaaaa"),
        (["pull", "a" * 64], {"CROSSJIT_STASH_REMOTE": "oci://127.0.0.1:9/x"}, 3, "cannot connect to 127.0.0.1:9"),
        (["pull", "a" * 64], {"CROSSJIT_STASH_REMOTE": "file:///no/folder"}, 3, "there is no such folder"),
        (["keygen", "/no/folder/key"], {}, 2, "cannot write /no/folder/key: no such file or directory"),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_told(
    words: list[str],
    changes: dict[str, str],
    status: int,
    message: str,
    environ: dict[str, str],
    crossjit: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    done = crossjit("stash", *words)
    assert done.code == status
    assert message in done.err
    assert "hint: " in done.err
    assert done.out == ""


def test_an_artifact_that_nobody_trusted_signed_is_no_success(
    environ: dict[str, str], registry: OciRegistry, crossjit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = FakeContext(tmp_path).build("jit", X86).artifact
    crossjit("stash", "push")
    other = signing.make(tmp_path / "other.pem")
    (tmp_path / "keys.toml").write_text(f'[keys]\nsomebody = "{other}"\n')
    monkeypatch.setenv("CROSSJIT_HOME", str(tmp_path / "other"))
    done = crossjit("stash", "pull", artifact.key)
    assert done.code == ExitCode.INFRASTRUCTURE
    assert "is not used: CROSSJIT_TRUST does not name this key" in done.err
    assert not list((tmp_path / "other").rglob("*.tar.zst"))


@pytest.mark.parametrize("content", ["", "x", "[1]", "1", '{"a": 1}\nx\n', "[" * 100_000])
def test_an_attestation_that_is_none(
    content: str, environ: dict[str, str], registry: OciRegistry, crossjit: Run, tmp_path: Path
) -> None:
    artifact = FakeContext(tmp_path).build("jit", X86).artifact
    (tmp_path / "a.json").write_text(content)
    done = crossjit("stash", "push", artifact.id, "--attestation", tmp_path / "a.json")
    assert done.code == ExitCode.USER
    assert "is not a bundle of attestations: expected JSON" in done.err
    assert registry.manifests == {}


@pytest.mark.parametrize("line", ["build", "plan"])
def test_a_typo_in_the_trust_file_ends_a_build_before_it_begins(
    line: str, environ: dict[str, str], crossjit: Run, tmp_path: Path
) -> None:
    (tmp_path / "keys.toml").write_text("[key]\n")
    done = crossjit(line, "--recipe", "3.15")
    assert done.code == ExitCode.USER
    assert "keys.toml:1:2: unknown key 'key'; did you mean 'keys'?" in done.err
    assert not (tmp_path / "home" / "runs").exists()


class TestSettings:
    @pytest.mark.parametrize("url", HTTPS)
    def test_remotes(self, url: str) -> None:
        assert settings.load({"CROSSJIT_STASH_REMOTE": url}).stash_remote == url

    @pytest.mark.parametrize(
        ("url", "meant"),
        [
            ("s3://bucket/x", ""),
            ("oic://host/x", "; did you mean 'oci'?"),
            ("files:///x", "; did you mean 'file'?"),
            ("oci://host", ""),
            ("oci://host/Name", ""),
            ("oci://user:secret@host/x", ""),
            ("oci://host/x:tag", ""),
            ("oci://host/../x", ""),
            ("file://x", ""),
            ("/folder", ""),
            ("https://host/x", ""),
        ],
    )
    def test_remotes_that_are_none(self, url: str, meant: str) -> None:
        with pytest.raises(UserError) as caught:
            settings.load({"CROSSJIT_STASH_REMOTE": url})
        expected = "expected oci://HOST/NAME or file:///FOLDER"
        assert caught.value.message == f"invalid CROSSJIT_STASH_REMOTE={url}: {expected}{meant}"
        assert caught.value.hint

    def test_files_are_found_from_any_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        loaded = settings.load({"CROSSJIT_TRUST": "keys.toml", "CROSSJIT_SIGNING_KEY": "key.pem"})
        assert (loaded.trust, loaded.signing_key) == (tmp_path / "keys.toml", tmp_path / "key.pem")


class TestKeys:
    def test_a_new_one_is_its_owner_s(self, crossjit: Run, tmp_path: Path) -> None:
        path = tmp_path / "key.pem"
        os.umask(os.umask(0))
        done = crossjit("stash", "keygen", path)
        assert done.code == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        (tmp_path / "keys.toml").write_text(done.out.replace("NAME", "me"))
        assert trusted_keys.load(tmp_path / "keys.toml") == {signing.public_of(signing.load(path)): "me"}
        assert "PRIVATE" not in done.out + done.err

    def test_one_is_never_overwritten(self, crossjit: Run, tmp_path: Path) -> None:
        path = tmp_path / "key.pem"
        path.write_text("precious")
        done = crossjit("stash", "keygen", path, "--json")
        assert (done.code, done.out) == (ExitCode.USER, "")
        assert "exists already" in done.err
        assert path.read_text() == "precious"

    def test_as_json(self, crossjit: Run, tmp_path: Path) -> None:
        done = crossjit("stash", "keygen", tmp_path / "key.pem", "--json")
        public = signing.public_of(signing.load(tmp_path / "key.pem"))
        assert json.loads(done.out) == {"file": str(tmp_path / "key.pem"), "public": public}

    def test_others_can_read_it(self, tmp_path: Path) -> None:
        signing.make(tmp_path / "key.pem")
        (tmp_path / "key.pem").chmod(0o640)
        with pytest.raises(UserError, match="others can read the key") as caught:
            signing.load(tmp_path / "key.pem")
        assert caught.value.hint == f"run: chmod 600 {tmp_path / 'key.pem'}"

    @pytest.mark.parametrize("kind", ["empty", "text", "other algorithm", "public"])
    def test_it_is_none(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "key.pem"
        path.touch(0o600)
        other = generate_private_key(SECP256R1())
        pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes({"empty": b"", "text": b"key", "other algorithm": pem, "public": b"ed25519:AAAA"}[kind])
        with pytest.raises(UserError, match="is not an Ed25519 key in PEM"):
            signing.load(path)

    def test_signatures(self, tmp_path: Path) -> None:
        signing.make(tmp_path / "key.pem")
        key = signing.load(tmp_path / "key.pem")
        public, signature = signing.public_of(key), signing.sign(key, b"statement")
        assert signing.is_signed(b"statement", public, signature)
        assert not signing.is_signed(b"statement!", public, signature)
        assert not signing.is_signed(b"statement", signing.make(tmp_path / "other.pem"), signature)
        assert not signing.is_signed(b"statement", public, signature[:-4])
        assert not signing.is_signed(b"statement", "rubbish", signature)


KEY = "ed25519:" + base64.b64encode(bytes(range(32))).decode()
OTHER = "ed25519:" + base64.b64encode(bytes(range(1, 33))).decode()


class TestTheTrustFile:
    def test_names_by_key(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        path.write_text(f'# ours\n[keys]\nci = "{KEY}"\n"a.b" = "{OTHER}"\n')
        assert trusted_keys.load(path) == {KEY: "ci", OTHER: "a.b"}

    @pytest.mark.parametrize(
        ("text", "problems"),
        [
            ("", ["1:1: missing key 'keys'"]),
            ("[keys]\n", ["1:2: 'keys' should have at least 1 item, not 0"]),
            (f'[kyes]\nci = "{KEY}"\n', ["1:1: missing key 'keys'", "1:2: unknown key 'kyes'; did you mean 'keys'?"]),
            (f'[keys]\nci = "{KEY}"\nhost = "{KEY}"\n', ["3:8: the same key as 'ci'"]),
            ("[keys]\nci = 3\n", ["2:6: 'ci' should be a valid string, not the number 3"]),
            (
                '[keys]\n\nci = "ed25519:x"\n',
                ["3:6: invalid key 'ed25519:x': expected ed25519: and 44 characters of base64"],
            ),
            (
                f'[keys]\nci = "{KEY[:-2]}="\n',
                [f"2:6: invalid key '{KEY[:-2]}=': expected ed25519: and 44 characters of base64"],
            ),
            (f'[keys]\n"" = "{KEY}"\n', ["2:6: invalid name '': expected letters, digits, '.', '_' and '-'"]),
            ("[keys\n", ["1:6: expected ']' at the end of a table declaration"]),
        ],
    )
    def test_what_is_wrong_has_its_place(self, text: str, problems: list[str], tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        path.write_text(text)
        with pytest.raises(DocumentError) as caught:
            trusted_keys.load(path)
        assert list(caught.value.details) == [f"{path}:{problem}" for problem in problems]
        assert caught.value.hint
