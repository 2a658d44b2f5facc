"""A checkout as a source: the working tree with its uncommitted changes. It is never written to."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from crossjit.errors import SourceError
from crossjit.progress import Progress
from crossjit.settings import Settings
from crossjit.sources import cache, regenerate
from crossjit.sources.git import Answer
from crossjit.sources.inspection import leads_outside
from crossjit.sources.located import Repository, Window, locate, window_on
from crossjit.sources.model import Kind, Source
from crossjit.sources.repository import pack_tree, source_of
from crossjit.sources.request import Checkout
from crossjit.sources.tarball import components, is_build_input

_SUBMODULE = "160000"


def resolve_checkout(request: Checkout, settings: Settings, *, progress: Progress, work: Path) -> Source:
    """Pack a working tree as git would commit it: with untracked files that are not ignored, without deleted ones.

    The checkout is not written to, not even its index or objects. The source's `diff_digest` covers path, mode and
    content of all build inputs that differ from HEAD, not their mtimes; `regenerate` are the make targets for generated
    files that these changes make stale. Submodules and nested repositories are skipped. Raises SourceError if the
    folder is not a checkout.
    """
    path = request.path
    with progress.step("source", str(path)) as step, cache.workspace(work) as folder:
        repository = locate(path)
        head = head_of(repository)
        step.update(detail="comparing with HEAD")
        view = window_on(repository, head, folder)
        remarks = _add_all(path, view)
        changes = _changes(path, view, head)
        parts = [f"{change}\0{name}\0" for name, change in changes.items() if is_build_input(name)]
        diff_digest = hashlib.sha256(os.fsencode("".join(parts))).hexdigest() if parts else None
        (view.folder / "info" / "attributes").unlink(missing_ok=True)  # the user's own must not affect packing
        stored = pack_tree(view, head, diff_digest, str(path), settings, step)
        make = regenerate.stale(changes, _reader(view, ""), _reader(view, head))
    for remark in (*remarks, *regenerate.left_to_do(changes)):
        progress.say(f"{path}: {remark}")
    return source_of(Kind.CHECKOUT, stored, str(path), head, diff_digest, make)


def head_of(repository: Repository) -> str:
    """Return the commit that is checked out. Raises SourceError if there is none."""
    path = repository.path
    if repository.ask("rev-parse", "--is-inside-work-tree").text != "true":
        raise SourceError(f"{path} is a repository without a working tree", hint=f"add a ref: {path}#main")
    head = repository.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not head.ok:
        raise SourceError(f"{path} has no commit", hint="commit something, or give an archive")
    return head.text


def _reader(view: Window, revision: str) -> regenerate.Read:
    """Return a function that reads the files of a revision, or for an empty one of the index."""

    def read(name: str) -> bytes:
        answer = view.ask("cat-file", "blob", f"{revision}:{name}")
        return answer.output if answer.ok else b""

    return read


def _add_all(checkout: Path, view: Window) -> tuple[str, ...]:
    """Add everything to the view's index and objects; return remarks on skipped files.

    Git hashes only files that its index does not show as unchanged. Files marked to be ignored are checked as well.
    """
    tracked: list[str] = []
    hidden: list[str] = []
    submodules: list[str] = []
    for entry in _listing(checkout, view, "ls-files", "-z", "--cached", "--stage", "-v"):
        about, _, name = entry.partition("\t")
        tag, mode, *_ = about.split(" ")
        tracked.append(name)
        if tag == "S" or tag.islower():  # marked with --skip-worktree, or with --assume-unchanged
            hidden.append(name)
        if mode == _SUBMODULE:  # to read its state, git would run a git that follows the submodule's settings
            submodules.append(name)
    _update_index(checkout, view, ("--force-remove",), submodules)
    for unmark in ("--no-skip-worktree", "--no-assume-unchanged"):
        _update_index(checkout, view, (unmark,), hidden)
    view.ask("update-index", "-q", "--refresh")
    differing = _listing(checkout, view, "diff-files", "-z", "--name-status", "--no-renames")
    changed = dict(zip(differing[1::2], differing[::2], strict=True))
    untracked = _listing(checkout, view, "ls-files", "-z", "--others", "--exclude-standard")
    stray = {
        name
        for name in untracked
        if _is_stray(checkout, name) and not any(other.startswith(f"{name}/") for other in tracked)
    }
    # Git updates the time stamp of an existing object instead of writing it again: not in the user's repository.
    alone = dataclasses.replace(view, environment={**view.environment, "GIT_ALTERNATE_OBJECT_DIRECTORIES": ""})
    _update_index(checkout, alone, ("--force-remove",), (name for name, kind in changed.items() if kind == "D"))
    added = [name for name, kind in changed.items() if kind != "D"]
    added += (name for name in untracked if name not in stray and not name.endswith("/"))  # those are repositories
    _update_index(checkout, alone, ("--add", "--remove", "--replace"), added)
    return tuple(f"{name} is left out: it is untracked, and a link out of the checkout" for name in sorted(stray))


def _is_stray(checkout: Path, path: str) -> bool:
    """Whether an untracked path is a link out of the checkout, which sources may not contain."""
    try:
        return leads_outside(components(path), str((checkout / path).readlink()))
    except OSError:  # it is not a link, or gone
        return False


def _changes(checkout: Path, view: Window, head: str) -> dict[str, str]:
    """Return git's description of each file that differs from HEAD (modes, objects, kind of change) by path."""
    raw = _listing(
        checkout,
        view,
        "diff-index",
        "--cached",
        "--raw",
        "-z",
        "--no-abbrev",
        "--no-renames",
        "--ignore-submodules=all",
        head,
    )
    return dict(zip(raw[1::2], raw[::2], strict=True))


def _update_index(checkout: Path, view: Window, options: Iterable[str], names: Iterable[str]) -> None:
    if words := b"".join(os.fsencode(name) + b"\0" for name in names):
        _require(checkout, "update-index", view.ask("update-index", *options, "-z", "--stdin", words=words))


def _listing(checkout: Path, view: Window, *arguments: str) -> list[str]:
    answer = _require(checkout, arguments[0], view.ask(*arguments))
    return [os.fsdecode(name) for name in answer.output.split(b"\0") if name]


def _require(checkout: Path, command: str, answer: Answer) -> Answer:
    if not answer.ok:
        raise SourceError(f"git {command} failed in {checkout}", hint="see what git says", details=answer.errors)
    return answer
