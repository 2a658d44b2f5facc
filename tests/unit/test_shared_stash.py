"""The stash that machines share: what is pushed is taken elsewhere, and what is not as it should be is built."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from crossjit.errors import StashError
from crossjit.images import Role
from crossjit.pipeline import build_cell, context, prepare
from crossjit.progress import Silent
from crossjit.remote import base, bundle, facts, shared_stash, signing
from crossjit.remote.folder import Folder
from crossjit.remote.push import push
from crossjit.remote.registry import Registry
from crossjit.remote.shared_stash import SharedStash
from crossjit.sources import Kind
from crossjit.sources.locations import Timeouts, TransientError
from crossjit.stash import manifest as manifests
from crossjit.stash.artifact import Artifact
from crossjit.stash.manifest import key_of
from crossjit.stash.store import Store
from tests.fakes.oci_registry import NAME, OciRegistry, served
from tests.unit.build_fakes import image
from tests.unit.test_build_python import ARM, X86, FakeContext, cell_request
from tests.unit.trees import manifest

IMPATIENT = Timeouts(name=0.5, connect=0.5, stall=1.0, attempts=2)
CELL = "3.15/x86_64/jit"

Remote = Registry | Folder


@pytest.fixture(autouse=True)
def no_emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(context.BuildContext, "require_emulator", lambda ctx, arch: None)
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def registry() -> Iterator[OciRegistry]:
    with served(OciRegistry()) as running:
        yield running


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def client(registry: OciRegistry) -> Registry:
    return Registry(registry.address, NAME, IMPATIENT)


def machine(folder: Path, remote: Remote | None = None, *trusted: Ed25519PrivateKey) -> FakeContext:
    """Make a machine with a stash of its own that takes from a remote what these keys have signed."""
    folder.mkdir(exist_ok=True)
    made = FakeContext(folder)
    if remote is not None:
        names = {signing.public_of(each): f"friend{number}" for number, each in enumerate(trusted)}
        made.ctx = replace(made.ctx, shared=SharedStash(remote, names, made.progress))
    return made


def prepared(machine: FakeContext, source: str | None = None) -> context.PreparedCell:
    request, toolchain = cell_request("jit", X86, source=source), image(Role.TOOLCHAIN, X86)
    return prepare.make_prepared(request, machine.source, machine.spec, toolchain, X86)


def send(remote: Remote, artifact: Artifact, key: Ed25519PrivateKey, **options: Any) -> bool:
    return push(remote, artifact, key, lambda bundle: False, Silent(), **options)


def compiled(machine: FakeContext) -> bool:
    return bool(machine.environments)


def leftovers(store: Store) -> list[str]:
    kept = {path for artifact in store.artifacts() for path in artifact.objects.values()}
    paths = [*(store.path / "objects").glob("*/*"), *(store.path / "tmp").glob("[!.]*")]
    return [str(path) for path in paths if path not in kept]


@pytest.fixture(params=["registry", "folder"])
def remote(request: pytest.FixtureRequest, registry: OciRegistry, tmp_path: Path) -> Remote:
    (tmp_path / "shared").mkdir()
    return client(registry) if request.param == "registry" else Folder(tmp_path / "shared")


class TestTaking:
    def test_what_one_machine_built_another_takes(self, remote: Remote, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        one, two = machine(tmp_path / "one"), machine(tmp_path / "two", remote, key)
        built = one.build("jit", X86).artifact
        attestation = b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}'
        assert send(remote, built, key, attestation=attestation)
        taken = two.build("jit", X86)
        assert not compiled(two)
        assert two.engine.started == []
        assert taken.from_stash
        assert taken.artifact.full_id == built.full_id
        assert {name: path.read_bytes() for name, path in taken.artifact.objects.items()} == {
            name: path.read_bytes() for name, path in built.objects.items()
        }
        assert replace(taken.artifact.manifest, sequence=0) == replace(built.manifest, sequence=0)
        assert two.progress.messages == [f"{CELL}: {built.id} is taken from {remote.name}, signed by friend0"]
        assert two.progress.steps == ["pull"]
        assert two.ctx.store.verify(taken.artifact) == []
        origin = taken.artifact.origin
        assert origin is not None
        assert (origin.remote, origin.signer, origin.key) == (remote.name, "friend0", signing.public_of(key))
        assert taken.artifact.attestation is not None
        assert taken.artifact.attestation.read_bytes() == attestation
        assert built.origin is None
        assert two.build("jit", X86).artifact.full_id == built.full_id
        assert two.progress.steps == ["pull"], "the stash has it now"

    def test_one_look_up_says_that_there_is_none(
        self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        two = machine(tmp_path / "two", client(registry), key)
        artifact = two.build("jit", X86).artifact
        assert compiled(two)
        assert registry.asked == [f"GET /v2/{NAME}/manifests/{artifact.key}"]
        assert two.progress.messages == []

    def test_a_rebuild_asks_for_nothing(self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        two = machine(tmp_path / "two", client(registry), key)
        log = tmp_path / "log"
        assert not build_cell.build_cell(two.ctx, prepared(two), log=log, rebuild=True).from_stash
        assert registry.asked == []

    def test_a_cross_build_takes_its_own_python(self, remote: Remote, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        one, two = machine(tmp_path / "one"), machine(tmp_path / "two", remote, key)
        one.build("jit", ARM)
        (python,) = (each for each in one.ctx.store.artifacts() if each.manifest.cell is None)
        assert send(remote, python, key)
        cross = two.build("jit", ARM)
        assert not cross.from_stash
        assert two.served == ["CFLAGS=-O1 -g0"]
        assert len(two.environments) == 1, "it configured the cell alone"
        assert cross.artifact.manifest.build_python == python.full_id

    def test_what_was_taken_can_be_pushed_on(self, remote: Remote, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        one, two = machine(tmp_path / "one"), machine(tmp_path / "two", remote, key)
        built = one.build("jit", X86).artifact
        send(remote, built, key)
        taken = two.build("jit", X86).artifact
        (tmp_path / "second").mkdir()
        second, other = Folder(tmp_path / "second"), Ed25519PrivateKey.generate()
        assert send(second, taken, other)
        three = machine(tmp_path / "three", second, other)
        assert three.build("jit", X86).artifact.full_id == built.full_id
        assert not compiled(three)


def pushed(registry: OciRegistry, key: Ed25519PrivateKey, folder: Path) -> Artifact:
    """Build an artifact, and push it."""
    artifact = machine(folder).build("jit", X86).artifact
    assert send(client(registry), artifact, key)
    return artifact


def layers_of(registry: OciRegistry, artifact: Artifact) -> dict[str, str]:
    """Return the digests of the pushed layers by title."""
    parsed = bundle.parse(artifact.key, registry.manifests[artifact.key])
    return {layer.title: f"sha256:{layer.digest}" for layer in parsed.layers.values()}


def resign(registry: OciRegistry, artifact: Artifact, key: Ed25519PrivateKey, **blobs: bytes) -> None:
    """Replace layers (`manifest_json`, …) and sign the result, as somebody trusted who lies would."""
    parsed = bundle.parse(artifact.key, registry.manifests[artifact.key])
    layers = dict(parsed.layers)
    for name, content in blobs.items():
        title = name.replace("_", ".", 1)
        digest = hashlib.sha256(content).hexdigest()
        registry.blobs[f"sha256:{digest}"] = content
        layers[title] = bundle.Layer(title, digest, len(content))
    made = bundle.of(artifact.key, layers.values(), signing.public_of(key))
    made = replace(made, signature=signing.sign(key, made.statement))
    registry.manifests[artifact.key] = bundle.dump(made)


def flip(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def edit(registry: OciRegistry, artifact: Artifact, change: Callable[[Any], None]) -> None:
    document = json.loads(registry.manifests[artifact.key])
    change(document)
    registry.manifests[artifact.key] = json.dumps(document).encode()


def expect_build(registry: OciRegistry, folder: Path, key: Ed25519PrivateKey, artifact: Artifact) -> list[str]:
    """Build on another machine, which takes nothing and keeps nothing; return what it says."""
    two = machine(folder, client(registry), key)
    result = two.build("jit", X86)
    assert not result.from_stash
    assert compiled(two)
    assert result.artifact.origin is None
    assert result.artifact.full_id == artifact.full_id
    assert leftovers(two.ctx.store) == []
    return two.progress.messages


class TestRefusing:
    @pytest.mark.parametrize("title", ["install.tar.zst", "manifest.json", "files.json"])
    def test_a_flipped_bit(self, title: str, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        digest = layers_of(registry, artifact)[title]
        registry.blobs[digest] = flip(registry.blobs[digest])
        (said,) = expect_build(registry, tmp_path / "two", key, artifact)
        assert said == (
            f"{CELL}: the artifact in {registry.url} is not used: "
            f"{title} was changed there: its digest is not the signed one"
        )

    @pytest.mark.parametrize(
        ("content", "reason"),
        [(b"", "has 0 bytes there instead of"), (b"x" * 9_999_999, "has 9999999 bytes there instead of")],
    )
    def test_another_size(
        self, content: bytes, reason: str, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        registry.blobs[layers_of(registry, artifact)["install.tar.zst"]] = content
        (said,) = expect_build(registry, tmp_path / "two", key, artifact)
        assert reason in said

    def test_a_layer_that_is_gone(self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        del registry.blobs[layers_of(registry, artifact)["install.tar.zst"]]
        (said,) = expect_build(registry, tmp_path / "two", key, artifact)
        assert said.endswith("install.tar.zst cannot be read there: the server answers 404 Not Found")

    def test_nobody_has_signed(self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        edit(registry, artifact, lambda document: document["annotations"].clear())
        assert expect_build(registry, tmp_path / "two", key, artifact) == [
            f"artifacts without a signature in {registry.url} are not used: nobody answers for them"
        ]

    def test_a_stranger_has_signed(self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        stranger = Ed25519PrivateKey.generate()
        artifact = pushed(registry, stranger, tmp_path / "one")
        assert expect_build(registry, tmp_path / "two", key, artifact) == [
            f"artifacts signed by {signing.public_of(stranger)} in {registry.url} are not used: "
            "CROSSJIT_TRUST does not name this key"
        ]
        assert not [line for line in registry.asked if line.startswith("GET") and "/blobs/" in line], (
            "nothing is fetched"
        )

    def test_a_stranger_signs_in_the_name_of_a_friend(
        self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        artifact = pushed(registry, Ed25519PrivateKey.generate(), tmp_path / "one")
        public = signing.public_of(key)
        edit(registry, artifact, lambda document: document["annotations"].update({"crossjit.signer": public}))
        (said,) = expect_build(registry, tmp_path / "two", key, artifact)
        assert said.endswith("its signature is not one by friend0 of this artifact")

    @pytest.mark.parametrize("signature", ["", "x", "AAAA", "é"])
    def test_no_signature_at_all(
        self, signature: str, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        edit(registry, artifact, lambda document: document["annotations"].update({"crossjit.signature": signature}))
        (said,) = expect_build(registry, tmp_path / "two", key, artifact)
        assert "are not used" in said or "is not used" in said

    def test_the_signature_of_another_key(self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        """What a friend signed for one build key is offered for another."""
        one = machine(tmp_path / "one")
        other, wanted = one.build("ft", X86).artifact, one.build("jit", X86).artifact
        assert send(client(registry), other, key)
        registry.manifests[wanted.key] = registry.manifests[other.key]
        (said,) = expect_build(registry, tmp_path / "two", key, wanted)
        assert said.endswith("its signature is not one by friend0 of this artifact")

    def test_a_manifest_of_another_build(self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        """A friend signs it for a key that it does not have."""
        one = machine(tmp_path / "one")
        other, wanted = one.build("ft", X86).artifact, one.build("jit", X86).artifact
        for artifact in (other, wanted):
            assert send(client(registry), artifact, key)
        described = (other.folder / "manifest.json").read_bytes()
        lying = manifests.dump(replace(other.manifest, build_key=wanted.key))
        for content in (described, lying):
            resign(registry, wanted, key, manifest_json=content)
            (said,) = expect_build(registry, tmp_path / hashlib.sha256(content).hexdigest(), key, wanted)
            assert said.endswith("its manifest is that of another build: its inputs do not give this build key")

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"inputs": {}}, "does not record the build's inputs"),
            ({"domain": "recipes-"}, "trust domain is not what the build key says"),
            ({"base_key": "b" * 64}, "base key is not what the build key says"),
            ({"arch": ARM}, "arch is not what the build key says"),
            ({"configure": "configure --with-backdoor"}, "configure is not what the build key says"),
            ({"tree_digest": "0" * 64}, "the digest of the install tree"),
            ({"trees": {}}, "names other trees than it has"),
            ({"schema": 99}, "the manifest has schema 99"),
            ({"kind": manifests.ArtifactKind.INSTALLED}, "it is a Python that crossjit did not build"),
            ({"kind": manifests.ArtifactKind.BUILD_PYTHON, "cell": None}, "it is a build-python, not a cell"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_a_manifest_that_lies(
        self, changes: dict[str, Any], reason: str, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        resign(registry, artifact, key, manifest_json=manifests.dump(replace(artifact.manifest, **changes)))
        (said,) = expect_build(registry, tmp_path / "two", key, artifact)
        assert reason in said

    def test_another_source_with_a_digest_that_is_right(
        self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        source = dataclasses.replace(artifact.manifest.source, digest="e" * 64)
        resign(registry, artifact, key, manifest_json=manifests.dump(replace(artifact.manifest, source=source)))
        (said,) = expect_build(registry, tmp_path / "two", key, artifact)
        assert "source is not what the build key says" in said

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"install": []}', b"\xff", b"[" * 100_000])
    def test_a_list_of_files_that_is_none(
        self, content: bytes, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        resign(registry, artifact, key, files_json=content)
        (said,) = expect_build(registry, tmp_path / "two", key, artifact)
        assert said.endswith("its files.json is invalid")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "its OCI manifest is invalid"),
            (b"[]", "its OCI manifest is invalid"),
            (
                b'{"mediaType": "x", "artifactType": "y", "layers": [], "annotations": {}}',
                "not an artifact of crossjit's",
            ),
        ],
    )
    def test_an_oci_manifest_of_something_else(
        self, content: bytes, reason: str, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        registry.manifests[artifact.key] = content
        (said,) = expect_build(registry, tmp_path / "two", key, artifact)
        assert reason in said

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (
                lambda layer: layer["annotations"].update({"org.opencontainers.image.title": "../../x.json"}),
                "invalid title",
            ),
            (lambda layer: layer.update(digest="sha256:../x"), "invalid title, digest or size"),
            (lambda layer: layer.update(size=-1), "invalid title, digest or size"),
            (lambda layer: layer.update(size=1 << 60), "more than any artifact"),
            (
                lambda layer: layer["annotations"].update({"org.opencontainers.image.title": "manifest.json"}),
                "one title",
            ),
            (
                lambda layer: layer["annotations"].update({"org.opencontainers.image.title": "file.json"}),
                "has no files",
            ),
        ],
    )
    def test_layers_that_mean_harm(
        self,
        change: Callable[[Any], None],
        reason: str,
        registry: OciRegistry,
        key: Ed25519PrivateKey,
        tmp_path: Path,
    ) -> None:
        artifact = pushed(registry, key, tmp_path / "one")

        def alter(document: Any) -> None:
            titles = [each["annotations"]["org.opencontainers.image.title"] for each in document["layers"]]
            change(document["layers"][titles.index("files.json")])

        edit(registry, artifact, alter)
        (said,) = expect_build(registry, tmp_path / "two", key, artifact)
        assert reason in said

    def test_what_is_refused_is_told_once(self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        one, stranger = machine(tmp_path / "one"), Ed25519PrivateKey.generate()
        for variant in ("jit", "ft"):
            send(client(registry), one.build(variant, X86).artifact, stranger)
        two = machine(tmp_path / "two", client(registry), key)
        for variant in ("jit", "ft"):
            two.build(variant, X86)
        assert len(two.progress.messages) == 1

    def test_nobody_is_trusted(self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        pushed(registry, key, tmp_path / "one")
        registry.asked.clear()
        two = machine(tmp_path / "two")
        two.ctx = replace(two.ctx, shared=SharedStash(client(registry), None, two.progress))
        for variant in ("jit", "ft"):
            two.build(variant, X86)
        assert two.progress.messages == [f"nothing is taken from {registry.url}: CROSSJIT_TRUST names nobody"]
        assert registry.asked == []


class TestTrustDomains:
    STRANGER = "https://example.org/fork#main"

    def build(self, machine: FakeContext, source: str | None) -> context.BuiltCell:
        return build_cell.build_cell(machine.ctx, prepared(machine, source), log=machine.folder / "log")

    def test_a_stranger_s_artifact_does_not_serve_the_recipes(
        self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        foreign = self.build(machine(tmp_path / "one"), self.STRANGER).artifact
        assert foreign.manifest.domain.startswith("source-")
        assert send(client(registry), foreign, key)
        two = machine(tmp_path / "two", client(registry), key)
        assert not self.build(two, None).from_stash
        assert two.progress.messages == [], "it is not even found"

    def test_nor_where_it_says_that_it_is_one_of_theirs(
        self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        foreign = self.build(machine(tmp_path / "one"), self.STRANGER).artifact
        wanted = self.build(machine(tmp_path / "two"), None).artifact
        assert send(client(registry), foreign, key)
        registry.manifests[wanted.key] = registry.manifests[foreign.key]
        lying = replace(foreign.manifest, domain="recipes", build_key=wanted.key)
        resign(registry, wanted, key, manifest_json=manifests.dump(lying))
        three = machine(tmp_path / "three", client(registry), key)
        assert not self.build(three, None).from_stash
        (said,) = three.progress.messages
        assert said.endswith("its inputs do not give this build key")

    def test_the_recipes_artifact_serves_a_stranger_s_source(
        self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        wanted = self.build(machine(tmp_path / "one"), None).artifact
        assert send(client(registry), wanted, key)
        two = machine(tmp_path / "two", client(registry), key)
        taken = self.build(two, self.STRANGER)
        assert taken.from_stash
        assert taken.artifact.full_id == wanted.full_id
        assert not compiled(two)


class TestARemoteThatFails:
    def test_it_is_down(self, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{unused.getsockname()[1]}"
            two = machine(tmp_path / "two", Registry(address, NAME, IMPATIENT), key)
            started = time.monotonic()
            for variant in ("jit", "ft"):
                assert not two.build(variant, X86).from_stash
        assert time.monotonic() - started < 10
        assert two.progress.messages == [
            f"oci://{address}/{NAME} fails and is not asked again: cannot connect to {address}: Connection refused"
        ]

    def test_it_accepts_and_says_nothing(self, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            address = f"127.0.0.1:{deaf.getsockname()[1]}"
            two = machine(tmp_path / "two", Registry(address, NAME, IMPATIENT), key)
            started = time.monotonic()
            for variant in ("jit", "ft"):
                assert not two.build(variant, X86).from_stash
        assert time.monotonic() - started < 10
        assert two.progress.messages == [
            f"oci://{address}/{NAME} fails and is not asked again: stalled: no byte for 1 s"
        ]

    @pytest.mark.parametrize("status", [500, 503, 403, 400])
    def test_it_answers_with_an_error(
        self, status: int, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        registry.status = status
        two = machine(tmp_path / "two", client(registry), key)
        for variant in ("jit", "ft"):
            assert not two.build(variant, X86).from_stash
        (said,) = two.progress.messages
        assert "fails and is not asked again" in said
        assert str(status) in said
        assert len(registry.asked) == (2 if status >= 500 else 1), "what may pass is tried again"

    def test_it_dies_once_in_the_middle_of_a_layer(
        self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        registry.cut, registry.cuts = 50, 1
        two = machine(tmp_path / "two", client(registry), key)
        assert two.build("jit", X86).artifact.full_id == artifact.full_id
        assert not compiled(two)
        assert two.ctx.store.verify(two.ctx.store.artifacts()[0]) == []

    def test_it_dies_whenever_it_sends_a_layer(
        self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        registry.cut, registry.cuts = 50, 1000
        (said,) = expect_build(registry, tmp_path / "two", key, artifact)
        assert "fails and is not asked again" in said
        assert "was cut short: 50 of" in said

    def test_it_is_gone_before_the_second_layer(
        self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        whole = client(registry)

        class Dying(Registry):
            def blob(self, layer: bundle.Layer) -> Any:
                if layer.is_tree:
                    self._base = "http://127.0.0.1:9/"
                return super().blob(layer)

        two = machine(tmp_path / "two", Dying(registry.address, NAME, IMPATIENT), key)
        assert not two.build("jit", X86).from_stash
        assert "Connection refused" in two.progress.messages[0]
        assert leftovers(two.ctx.store) == []
        assert whole.manifest(artifact.key)

    def test_it_is_slow(
        self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        artifact = pushed(registry, key, tmp_path / "one")
        monkeypatch.setattr(shared_stash, "SLOW_SECONDS", 0.5)
        registry.pause = 0.01
        started = time.monotonic()
        (said,) = expect_build(registry, tmp_path / "two", key, artifact)
        assert "too slow" in said
        assert time.monotonic() - started < 10

    def test_a_folder_that_is_not_there(self, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        two = machine(tmp_path / "two", Folder(tmp_path / "gone"), key)
        for variant in ("jit", "ft"):
            assert not two.build(variant, X86).from_stash
        assert two.progress.messages == [
            f"{(tmp_path / 'gone').as_uri()} fails and is not asked again: there is no such folder"
        ]

    def test_a_stash_that_cannot_be_written_is_no_fault_of_the_remote(
        self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pushed(registry, key, tmp_path / "one")
        two = machine(tmp_path / "two", client(registry), key)

        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("crossjit.util.files.sync_file", full)
        with pytest.raises(StashError, match="no space left"):
            two.build("jit", X86)


class TestPushing:
    def test_what_is_there_is_not_sent_again(self, remote: Remote, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        artifact = machine(tmp_path / "one").build("jit", X86).artifact
        assert send(remote, artifact, key)
        assert not send(remote, artifact, key)
        assert send(remote, artifact, key, attestation=b"{}"), "this is new"
        assert not send(remote, artifact, key), "the attestation stays there"

    def test_what_a_friend_pushed_is_kept_and_what_a_stranger_pushed_is_not(
        self, remote: Remote, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        other = Ed25519PrivateKey.generate()
        first, second = (machine(tmp_path / name).build("jit", X86).artifact for name in ("one", "two"))
        assert send(remote, first, other)
        friends = SharedStash(remote, {signing.public_of(other): "friend"}, Silent())
        assert not push(remote, second, key, friends.is_trusted, Silent())
        assert push(remote, second, key, SharedStash(remote, None, Silent()).is_trusted, Silent())
        content = remote.manifest(second.key)
        assert content is not None
        assert bundle.parse(second.key, content).signer == signing.public_of(key)

    def test_a_damaged_blob_of_a_folder_is_replaced(self, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        (tmp_path / "shared").mkdir()
        remote, artifact = Folder(tmp_path / "shared"), machine(tmp_path / "one").build("jit", X86).artifact
        send(remote, artifact, key)
        path = tmp_path / "shared" / "blobs" / "sha256" / artifact.manifest.trees["install"].object
        path.write_bytes(flip(path.read_bytes()))
        assert send(remote, artifact, key)
        assert path.read_bytes() == artifact.objects["install"].read_bytes()
        assert not list((tmp_path / "shared").rglob("*.tmp"))

    def test_an_artifact_of_an_older_crossjit(self, remote: Remote, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        artifact = machine(tmp_path / "one").build("jit", X86).artifact
        older = replace(artifact, manifest=replace(artifact.manifest, inputs={}))
        with pytest.raises(StashError, match="cannot be shared: its manifest does not record") as caught:
            send(remote, older, key)
        assert "--rebuild" in caught.value.hint

    def test_a_remote_that_is_down(self, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        artifact = machine(tmp_path / "one").build("jit", X86).artifact
        with pytest.raises(StashError, match=r"cannot push .* cannot connect to 127\.0\.0\.1:9"):
            send(Registry("127.0.0.1:9", NAME, IMPATIENT), artifact, key)
        (tmp_path / "file").touch()
        with pytest.raises(StashError, match="cannot push"):
            send(Folder(tmp_path / "file"), artifact, key)

    def test_a_registry_that_fails_for_a_moment(
        self, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        artifact = machine(tmp_path / "one").build("jit", X86).artifact
        put_blob = Registry.put_blob
        failed: list[bundle.Layer] = []

        def once(self: Registry, layer: bundle.Layer, content: base.OpenBlob) -> None:
            if not failed:
                failed.append(layer)
                raise TransientError("the connection was lost")
            put_blob(self, layer, content)

        monkeypatch.setattr(Registry, "put_blob", once)
        assert send(client(registry), artifact, key)
        assert failed


class TestLoggingIn:
    @pytest.fixture(params=["basic", "bearer"])
    def closed(self, request: pytest.FixtureRequest, registry: OciRegistry) -> OciRegistry:
        registry.login, registry.bearer = "me:secret", request.param == "bearer"
        return registry

    def log_in(self, registry: OciRegistry, tmp_path: Path, login: bytes = b"bWU6c2VjcmV0") -> None:
        (tmp_path / "docker").mkdir()
        config = {"auths": {registry.address: {"auth": login.decode()}}}
        (tmp_path / "docker" / "config.json").write_text(json.dumps(config))

    def test_as_docker_does(self, closed: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        self.log_in(closed, tmp_path)
        artifact = pushed(closed, key, tmp_path / "one")
        two = machine(tmp_path / "two", client(closed), key)
        assert two.build("jit", X86).artifact.full_id == artifact.full_id
        assert not compiled(two)

    def test_with_a_helper(
        self, closed: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "docker").mkdir()
        (tmp_path / "docker" / "config.json").write_text(json.dumps({"credHelpers": {closed.address: "test"}}))
        helper = tmp_path / "docker-credential-test"
        (tmp_path / "login").write_text(json.dumps({"Username": "me", "Secret": "secret"}))
        helper.write_text(f'#!/bin/sh\n[ "$1 $(cat)" = "get {closed.address}" ] && cat {tmp_path}/login\n')
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        pushed(closed, key, tmp_path / "one")

    def test_nobody_has(self, closed: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        two = machine(tmp_path / "two", client(closed), key)
        assert not two.build("jit", X86).from_stash
        (said,) = two.progress.messages
        assert "login" in said

    def test_with_a_wrong_password(self, closed: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path) -> None:
        self.log_in(closed, tmp_path, b"bWU6d3Jvbmc=")
        artifact = machine(tmp_path / "one").build("jit", X86).artifact
        with pytest.raises(StashError, match="refuses"):
            send(client(closed), artifact, key)

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"[]", b'{"auths": 3}', b'{"credsStore": "no-such-helper"}', b'{"auths": {"x": 1}}']
    )
    def test_a_configuration_that_is_none(
        self, content: bytes, registry: OciRegistry, key: Ed25519PrivateKey, tmp_path: Path
    ) -> None:
        registry.login = "me:secret"
        (tmp_path / "docker").mkdir()
        (tmp_path / "docker" / "config.json").write_bytes(content)
        artifact = machine(tmp_path / "one").build("jit", X86).artifact
        with pytest.raises(StashError, match="wants a login: `docker login"):
            send(client(registry), artifact, key)

    @pytest.mark.parametrize(
        ("challenge", "reason"),
        [
            ('Bearer realm="http://example.org/token"', "without encryption, to example.org"),
            ("Bearer", "in an unknown way"),
            ('Bearer service="x"', "in an unknown way"),
            ("Negotiate", "wants a login"),
            ("", "wants a login"),
        ],
    )
    def test_a_login_goes_nowhere_else(
        self,
        challenge: str,
        reason: str,
        registry: OciRegistry,
        key: Ed25519PrivateKey,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        registry.login = "me:secret"
        self.log_in(registry, tmp_path)
        monkeypatch.setattr(OciRegistry, "challenge", challenge)
        artifact = machine(tmp_path / "one").build("jit", X86).artifact
        with pytest.raises(StashError, match=reason):
            send(client(registry), artifact, key)


def test_the_recorded_inputs_give_the_keys(tmp_path: Path) -> None:
    ctx = machine(tmp_path / "one")
    ctx.source = replace(ctx.source, kind=Kind.CHECKOUT, core="c" * 64)
    for arch in (X86, ARM):
        made = ctx.build("jit", arch).artifact.manifest
        assert key_of(made.inputs) == made.build_key
        assert key_of(made.inputs, made.inputs["core"]) == made.base_key is not None


def test_the_statement_names_all_that_is_pushed() -> None:
    layers = [bundle.Layer("b.json", "2" * 64, 2), bundle.Layer("a.tar.zst", "1" * 64, 1)]
    made = bundle.of("k" * 64, layers)
    assert made.statement.decode().splitlines() == [
        "crossjit artifact 1",
        "k" * 64,
        f"{'1' * 64} 1 a.tar.zst",
        f"{'2' * 64} 2 b.json",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


def whole() -> dict[str, Any]:
    """Return an OCI manifest that is taken."""
    layers = [bundle.Layer(title, "1" * 64, 1) for title in ("manifest.json", "files.json", "install.tar.zst")]
    document: dict[str, Any] = json.loads(bundle.dump(bundle.of("k" * 64, layers, "signer", "signature")))
    return document


@given(st.data())
def test_any_oci_manifest_is_taken_or_refused(data: st.DataObject) -> None:
    document = whole()
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(JSON)
        break
    with contextlib.suppress(bundle.RefusedError):
        parsed = bundle.parse("k" * 64, json.dumps(document).encode())
        assert {"manifest.json", "files.json"} <= parsed.layers.keys()
        assert all("/" not in title and ".." not in title for title in parsed.layers)
        assert parsed.statement


@given(st.binary(max_size=200))
def test_any_bytes_are_no_oci_manifest(content: bytes) -> None:
    with pytest.raises(bundle.RefusedError):
        bundle.parse("k" * 64, content)


@given(inputs=st.dictionaries(st.sampled_from(["core", "commands", "arch", "source", "domain", "strategy"]), JSON))
def test_any_inputs_are_checked(inputs: dict[str, Any]) -> None:
    made = manifest(key_of(inputs))
    with pytest.raises(bundle.RefusedError):
        facts.require_true(replace(made, inputs=inputs), bundle.of(key_of(inputs), []))
