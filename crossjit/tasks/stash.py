"""`stash list|show|verify|export|gc`: the artifacts."""

from __future__ import annotations

from dataclasses import asdict
from json import loads
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.errors import StashError
from crossjit.model import Strategy
from crossjit.tasks.framework import Notes, command, note, show, show_json, show_table
from crossjit.tasks.options import describe, number, words
from crossjit.util.paths import full_path
from crossjit.util.text import duration, pluralize, size

if TYPE_CHECKING:
    from crossjit.stash.artifact import Artifact
    from crossjit.stash.store import Store

ARTIFACT = "a cell such as 3.15/aarch64/jit (its newest), or at least the first 4 digits of an id or build key"


@command(name="list", default=True, help=describe("json"))
def list_artifacts(context: Context, json: bool = False) -> None:
    """List the artifacts, newest first.

    See also `stash show`, `stash verify`, `stash export`, `stash gc`, `stash push` and `stash pull`.
    """
    store = open_store()
    artifacts = store.artifacts()
    if json:
        show_json([_summary(artifact) for artifact in artifacts])
    elif artifacts:
        headers = ("artifact", "of", "version", "built", "size", "made", "from")
        show_table(headers, [_row(artifact) for artifact in artifacts])
    else:
        note(f"the stash is empty: {store.path}")


@command(name="show", help=describe("json", artifact=f"{ARTIFACT}; can be given without --artifact; required"))
def show_artifact(context: Context, artifact: str, json: bool = False) -> None:
    """Show what an artifact was built from and with: `stash show ARTIFACT`."""
    from crossjit.stash import manifest

    stored = open_store().find_by_prefix(artifact)
    if json:
        show_json(_summary(stored) | {"manifest": loads(manifest.dump(stored.manifest))})
        return
    show(_described(stored))


@command(
    name="verify",
    iterable=["artifact"],
    rest="artifact",
    help=describe(
        "json", artifact=f"{ARTIFACT}; can be given without --artifact; default: all, including damaged ones"
    ),
)
def verify(context: Context, artifact: list[str] | None = None, json: bool = False) -> None:
    """Check every byte of artifacts: `stash verify [ARTIFACT …]`.

    Ends with 3 if a byte has changed, and names the file.
    """
    store = open_store()
    texts = words(artifact)
    if texts:
        artifacts = {stored.key: stored for stored in (store.find_by_prefix(text) for text in texts)}
        problems = {key: store.verify(stored) for key, stored in artifacts.items()}
    else:
        problems = store.verify_all()
    if json:
        show_json(problems)
    damaged = {key: lines for key, lines in problems.items() if lines}
    if damaged:
        raise StashError(
            f"{len(damaged)} of {len(problems)} artifacts damaged",
            hint=f"build the cell again to repair it; `{PROGRAM} stash gc` removes what is damaged",
            details=tuple(line for lines in damaged.values() for line in lines),
        )
    if not json:
        show(f"{pluralize(len(problems), 'artifact')} verified, every byte as it was stashed")


@command(
    name="export",
    help={
        "artifact": f"{ARTIFACT}; can be given without --artifact; required",
        "folder": "a folder that is empty or does not exist; can be given without --folder; required",
    },
)
def export(context: Context, artifact: str, folder: str) -> None:
    """Unpack an artifact: `stash export ARTIFACT FOLDER`.

    The folder gets the install tree, which runs on any machine of its arch, and the manifest.
    """
    store = open_store()
    stored = store.find_by_prefix(artifact)
    target = full_path(folder)
    store.export(stored, target)
    show(f"{stored.manifest.subject} ({stored.id}) is in {target}")


@command(
    name="gc",
    help=describe(
        "json",
        keep_days="remove artifacts older than this many days; default: keep artifacts of any age",
        keep_last="keep at least the newest N of each cell; without --keep-days, remove all others; default: 0",
        dry_run="only list what would be removed; default: off",
    ),
)
def gc(context: Context, keep_days: str = "", keep_last: str = "", dry_run: bool = False, json: bool = False) -> None:
    """Remove what is damaged, unused, or old.

    Old artifacts are removed only on request; unfinished ones, and files that no artifact refers to, always.
    """
    collected = open_store().gc(
        keep_days=number("keep-days", keep_days, at_least=0) if keep_days else None,
        keep_last=number("keep-last", keep_last, at_least=0) if keep_last else None,
        dry_run=dry_run,
    )
    if json:
        show_json(
            {
                "dry_run": dry_run,
                "artifacts": collected.artifacts,
                "objects": collected.objects,
                "temporary": collected.temporary,
                "bytes": collected.size,
            }
        )
        return
    verb = "would remove" if dry_run else "removed"
    show(
        f"{verb} {pluralize(len(collected.artifacts), 'artifact')}, {pluralize(len(collected.objects), 'object')}, "
        f"{len(collected.temporary)} unfinished: {size(collected.size)}"
    )


def open_store() -> Store:
    """Open the stash of the settings; what it reports goes to stderr."""
    from crossjit import settings
    from crossjit.stash.store import Store

    return Store(settings.load().stash, progress=Notes())


def _row(artifact: Artifact) -> tuple[str, ...]:
    manifest = artifact.manifest
    return (
        artifact.id,
        manifest.subject,
        manifest.version,
        manifest.strategy.value,
        size(_stored(artifact)),
        f"{manifest.created.astimezone():%Y-%m-%d %H:%M}",
        origin.signer if (origin := artifact.origin) else "here",
    )


def _summary(artifact: Artifact) -> dict[str, object]:
    manifest = artifact.manifest
    return {
        "id": artifact.full_id,
        "build_key": artifact.key,
        "of": manifest.subject,
        "version": manifest.version,
        "strategy": manifest.strategy.value,
        "domain": manifest.domain,
        "bytes": _stored(artifact),
        "created": manifest.created.isoformat(),
        "origin": asdict(origin) if (origin := artifact.origin) else None,
        "folder": str(artifact.folder),
    }


def _stored(artifact: Artifact) -> int:
    return sum(tree.size for tree in artifact.manifest.trees.values())


def _described(artifact: Artifact) -> str:
    manifest = artifact.manifest
    source = manifest.source
    origin = artifact.origin
    facts: dict[str, object] = {
        "artifact": artifact.full_id,
        "of": manifest.subject,
        "version": manifest.version,
        "source": f"{source.kind} {source.origin}".strip(),
        "source digest": source.digest,
        "commit": source.commit,
        "uncommitted": source.diff_digest,
        "strategy": manifest.strategy.value,
        "configure": manifest.configure,
        "compiler": manifest.compiler,
        "build Python": manifest.build_python,
        "made of": manifest.derived_from,
        "trust domain": manifest.domain,
        "LLVM": manifest.llvm or ("unknown" if manifest.strategy is Strategy.INSTALLED else None),
        **{f"package {each.name}": f"{each.version} {each.arch} sha256:{each.sha256}" for each in manifest.packages},
        "QEMU": " as ".join(word for word in (manifest.qemu, manifest.cpu) if word),
        "build key": artifact.key,
        "tree digest": manifest.tree_digest,
        "made": f"{manifest.created.astimezone():%Y-%m-%d %H:%M} by crossjit {manifest.crossjit}".rstrip(),
        "from": f"{origin.remote}, signed by {origin.signer} ({origin.key}), taken {origin.taken}" if origin else "",
        "attestation": artifact.attestation,
        "took": ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in manifest.seconds.items()),
        **{
            f"tree {name}": f"{tree.files:,} files, {size(tree.size)} packed, {size(tree.unpacked)} unpacked: {path}"
            for (name, tree), path in zip(manifest.trees.items(), artifact.objects.values(), strict=True)
        },
        **{
            f"{role} image": ", ".join(f"{name} {value}" for name, value in about.items() if _is_plain(value))
            for role, about in manifest.images.items()
        },
        **{f"probe: {name}": value for name, value in manifest.probe.items() if _is_plain(value)},
    }
    width = max(len(name) for name in facts)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in facts.items() if value not in (None, ""))


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, int, float))
