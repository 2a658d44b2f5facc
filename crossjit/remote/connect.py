"""The remote and the trusted keys of the settings."""

from __future__ import annotations

from crossjit.errors import StashError, UserError
from crossjit.progress import Progress
from crossjit.remote import trusted_keys
from crossjit.remote.base import PULLING, PUSHING, Remote
from crossjit.remote.folder import Folder
from crossjit.remote.registry import Registry
from crossjit.remote.shared_stash import SharedStash
from crossjit.settings import Settings
from crossjit.sources.request import local_path
from crossjit.util import files


def remote_of(settings: Settings, *, pushing: bool = False) -> Remote:
    """Return the remote; for pushing, a folder is made. Raises UserError if the settings name none."""
    url = settings.stash_remote
    if not url:
        raise UserError(
            "CROSSJIT_STASH_REMOTE is not set", hint="set it to oci://HOST/NAME or file:///FOLDER: docs/shared-stash.md"
        )
    if url.startswith("file://"):
        folder = local_path(url)
        if pushing:
            with files.translate_os_errors(StashError, "cannot push", folder):
                folder.mkdir(parents=True, exist_ok=True)
        return Folder(folder)
    host, _, name = url.removeprefix("oci://").partition("/")
    return Registry(host, name, PUSHING if pushing else PULLING)


def shared_stash(settings: Settings, progress: Progress, *, pushing: bool = False) -> SharedStash:
    """Return the shared stash. Raises UserError without a remote, DocumentError for an invalid trust file."""
    trusted = trusted_keys.load(settings.trust) if settings.trust else None
    return SharedStash(remote_of(settings, pushing=pushing), trusted, progress)
