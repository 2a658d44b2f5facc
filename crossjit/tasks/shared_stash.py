"""`stash push|pull|keygen`: the stash that machines share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.errors import StashError, UserError
from crossjit.tasks.framework import command, note, show, show_json
from crossjit.tasks.options import describe, words
from crossjit.tasks.stash import ARTIFACT, open_store
from crossjit.util.paths import full_path
from crossjit.util.text import pluralize

if TYPE_CHECKING:
    from crossjit.remote.shared_stash import SharedStash
    from crossjit.stash.artifact import Artifact
    from crossjit.stash.store import Store


@command(
    name="push",
    iterable=["artifact"],
    rest="artifact",
    help=describe(
        "json",
        artifact=(
            f"{ARTIFACT}; can be given without --artifact; "
            "default: all that were built here, except of sources written by strangers"
        ),
        attestation="a bundle that actions/attest wrote about the artifact, to keep beside it; default: none",
    ),
)
def push(context: Context, artifact: list[str] | None = None, attestation: str = "", json: bool = False) -> None:
    """Push artifacts to the shared stash, signed: `stash push [ARTIFACT …]`.

    CROSSJIT_STASH_REMOTE says where it is, CROSSJIT_SIGNING_KEY who signs. What is there already is not sent again.
    """
    from crossjit import settings
    from crossjit.remote import connect, signing
    from crossjit.remote import push as pushing
    from crossjit.report.terminal import Terminal

    loaded = settings.load()
    texts = words(artifact)
    if attestation and len(texts) != 1:
        raise UserError("--attestation needs one artifact", hint="name the artifact that it is about")
    bundle = pushing.read_attestation(full_path(attestation)) if attestation else None
    with Terminal() as progress:
        shared = connect.shared_stash(loaded, progress, pushing=True)
        if loaded.signing_key is None:
            raise UserError("CROSSJIT_SIGNING_KEY is not set", hint=f"`{PROGRAM} stash keygen FILE` makes a key")
        signer = signing.load(loaded.signing_key)
        store = open_store()
        named = [_intact(store, store.find_by_prefix(text)) for text in texts] if texts else _own(store)
        chosen = {each.key: each for each in named}
        is_new = {
            key: pushing.push(shared.remote, each, signer, shared.is_trusted, progress, attestation=bundle)
            for key, each in chosen.items()
        }
    if json:
        show_json([{"id": each.full_id, "build_key": key, "pushed": is_new[key]} for key, each in chosen.items()])
        return
    new = [each for key, each in chosen.items() if is_new[key]]
    for each in new:
        show(f"{each.manifest.subject} ({each.id})")
    show(f"pushed {pluralize(len(new), 'artifact')} to {shared.remote.name}; {len(chosen) - len(new)} were there")


@command(
    name="pull",
    iterable=["key"],
    rest="key",
    help=describe(
        "json", key="a build key, 64 hex digits, as `plan --json` shows it; can be given without --key; required"
    ),
)
def pull(context: Context, key: list[str] | None = None, json: bool = False) -> None:
    """Take artifacts from the shared stash by their build keys: `stash pull KEY …`.

    `build` and `validate` do so themselves. CROSSJIT_STASH_REMOTE says where it is, CROSSJIT_TRUST whose are taken.
    """
    from crossjit import settings
    from crossjit.remote import connect
    from crossjit.report.terminal import Terminal

    keys = words(key)
    if not keys:
        raise UserError("no build key given", hint=f"`{PROGRAM} plan --json` shows the keys of cells")
    if wrong := [each for each in keys if not re.fullmatch("[0-9a-f]{64}", each)]:
        raise UserError(
            f"invalid --key {wrong[0]!r}: expected 64 hex digits", hint=f"`{PROGRAM} plan --json` shows them"
        )
    loaded = settings.load()
    if loaded.trust is None:
        raise UserError("CROSSJIT_TRUST is not set", hint="it names the file with the keys of those whom you trust")
    settings.make_home(loaded)
    with Terminal() as progress:
        shared = connect.shared_stash(loaded, progress)
        store = open_store()
        taken = {each: store.find_intact(each) or _take(shared, store, each) for each in keys}
    if json:
        show_json([{"id": each.full_id, "build_key": name} for name, each in taken.items()])
        return
    for each in taken.values():
        origin = each.origin
        show(f"{each.manifest.subject} ({each.id}){f', signed by {origin.signer}' if origin else ', built here'}")


@command(
    name="keygen", help=describe("json", file="a new file for the private key; can be given without --file; required")
)
def keygen(context: Context, file: str, json: bool = False) -> None:
    """Make a key that signs artifacts, and print its line for CROSSJIT_TRUST: `stash keygen FILE`."""
    from crossjit.remote import signing

    path = full_path(file)
    public = signing.make(path)
    if json:
        show_json({"file": str(path), "public": public})
        return
    note(f"{path} has the private key: CROSSJIT_SIGNING_KEY={path} signs with it")
    note("who trusts it has this line, with a name of their own, in the file that CROSSJIT_TRUST names:")
    show(f'[keys]\nNAME = "{public}"')


def _own(store: Store) -> list[Artifact]:
    """Return the artifacts that were built here from trusted sources, and can be shared; newest first."""
    from crossjit.sources import trust

    own = [each for each in store.artifacts() if each.origin is None and each.manifest.inputs]
    return [_intact(store, each) for each in own if not trust.is_stranger(each.manifest.domain)]


def _intact(store: Store, artifact: Artifact) -> Artifact:
    if store.find_intact(artifact.key) is None:
        raise StashError(f"artifact {artifact.id} is damaged", hint="build the cell again to repair it")
    return artifact


def _take(shared: SharedStash, store: Store, key: str) -> Artifact:
    """Take an artifact. Raises StashError if there is none that can be used."""
    from crossjit.remote.bundle import RefusedError
    from crossjit.sources.locations import PlaceError

    name = shared.remote.name
    try:
        with store.lock(key, on_wait=lambda: note(f"{key[:12]}: another process is building it")):
            artifact = store.find_intact(key) or shared.take(store, key, None, key[:12])
    except RefusedError as error:
        raise StashError(f"the artifact {key[:12]} in {name} is not used: {error}", hint="build the cell") from error
    except PlaceError as error:
        raise StashError(f"{name} fails: {error}", hint="check CROSSJIT_STASH_REMOTE, and that it answers") from error
    if artifact is None:
        raise StashError(
            f"{name} has no artifact {key[:12]}", hint="build the cell, or push it from where it was built"
        )
    return artifact
