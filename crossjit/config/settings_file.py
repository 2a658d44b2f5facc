"""Configuration files: the user's, and a project's, which is a stranger's if it is in a stranger's checkout."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from crossjit.config import documents
from crossjit.config.documents import Document, Problem
from crossjit.config.invalid import InvalidError
from crossjit.config.setting import SETTINGS, Setting
from crossjit.errors import DocumentError, UserError
from crossjit.util import safe_files
from crossjit.util.budget import BudgetError

PROJECT_BYTES = 16 << 10  # of a project's file, at most


@dataclass(frozen=True)
class Located:
    """A setting's value in a file, and the number of its line."""

    value: Any
    line: int


def read(path: Path, *, of_project: bool) -> dict[str, Located]:
    """Return the settings of a file by name; relative paths start from its folder.

    A project's file can set only what is `of_projects`, and must be a regular file of at most PROJECT_BYTES. Raises
    DocumentError with every error at once.
    """
    document = documents.decode(path, _content(path)) if of_project else documents.read(path)
    refused = _refused(document) if of_project else ()
    parsed = documents.parse(document, table(SETTINGS, path.parent), refused)
    lines = documents.lines(document, ((name,) for name in document.data))
    return {name: Located(getattr(parsed, name), line) for name, line in zip(document.data, lines, strict=True)}


def table(settings: Iterable[Setting], folder: Path = Path()) -> type[Any]:
    """Return the type of a file with these settings, whose relative paths start from a folder."""
    fields = [
        (setting.name, Annotated[_type(setting, folder) | None, Field(description=setting.meaning)], None)
        for setting in settings
    ]
    return documents.table(dataclasses.make_dataclass("Settings", fields, frozen=True))


def tables() -> dict[str, type[Any]]:
    """Return the types of the user's file and of a project's, by the names of their schemas."""
    return {"config": table(SETTINGS), "project": table(setting for setting in SETTINGS if setting.of_projects)}


def _type(setting: Setting, folder: Path) -> Any:
    if setting.is_table:
        return _type_of_table(setting)
    kind: Any = str if setting.is_list else setting.kind
    one: Any = Annotated  # for mypy, which takes no types that are made at run time
    one = one[kind, AfterValidator(_reader(setting, folder)), Field(json_schema_extra=dict(setting.limits))]
    return tuple[one, ...] if setting.is_list else one


def _type_of_table(setting: Setting) -> Any:
    """Return the type of a table, whose names and values are read one by one, and then together."""
    one: Any = Annotated
    name: Any = one[str, AfterValidator(lambda text: setting.read_name(text) if setting.read_name else text)]
    value: Any = one[
        str, AfterValidator(lambda text: setting.read(text, None)), Field(json_schema_extra=dict(setting.limits))
    ]
    table: Any = dict
    return one[table[name, value], AfterValidator(lambda entries: setting.combine(entries.items()))]


def _reader(setting: Setting, folder: Path) -> Callable[[Any], Any]:
    def value(raw: str | int) -> Any:
        text = raw if isinstance(raw, str) else str(int(raw))
        try:
            if not text:
                raise InvalidError("expected a text that is not empty")
            if re.search(r"[\x00-\x1f\x7f]", text):
                raise InvalidError("expected a text without control characters")
            return setting.read(text, folder)
        except InvalidError as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise ValueError(f"invalid {setting.name} {text!r}: {error.expected}{hint}") from None
        except UserError as error:
            raise ValueError(error.message) from None

    return value


def _refused(document: Document) -> Iterator[Problem]:
    for setting in SETTINGS:
        if setting.name in document.data and not setting.of_projects:
            message = f"a project's file cannot set {setting.name!r}: set it in your own, or as {setting.variable}"
            yield Problem((setting.name,), message, at_value=False)


def _content(path: Path) -> bytes:
    hint = "a project's file is a regular file that you can read, not a link"
    try:
        return safe_files.read_whole(path.parent, path.name, PROJECT_BYTES)
    except BudgetError:
        raise DocumentError(
            f"{path} has more than {PROJECT_BYTES:,} bytes", hint="a project's file has a few settings only"
        ) from None
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {(error.strerror or '').lower()}", hint=hint) from None
