"""The file that `CROSSJIT_TRUST` names: whose artifacts are taken from the shared stash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from crossjit.config import documents
from crossjit.config.documents import Problem, table
from crossjit.config.recipe_tables import Name
from crossjit.remote import signing


def _public(text: str) -> str:
    signing.parse_public(text)
    return text


PublicKey = Annotated[str, AfterValidator(_public)]


@table
class TrustFile:
    """Whose artifacts are taken."""

    keys: Annotated[dict[Name, PublicKey], Field(min_length=1)]
    """Public keys by the names under which they are shown; `stash keygen` prints them."""


def load(path: Path) -> Mapping[str, str]:
    """Return the names of the trusted public keys, by key. Raises DocumentError with every error of the file."""
    document = documents.read(path)
    keys = document.data.get("keys")
    listed = list(keys.items()) if isinstance(keys, Mapping) else []
    first = {key: name for name, key in reversed(listed) if isinstance(key, str)}
    twice = (
        Problem(("keys", name), f"the same key as {first[key]!r}")
        for name, key in listed
        if isinstance(key, str) and first[key] != name
    )
    return {key: name for name, key in documents.parse(document, TrustFile, twice).keys.items()}
