"""The error of the readers of settings."""

from __future__ import annotations


class InvalidError(ValueError):
    """A setting's text is invalid: what is expected instead, and a hint."""

    def __init__(self, expected: str, hint: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.hint = hint
