"""One check of `doctor`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Status(StrEnum):
    """A check's result."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One line of `doctor`: the finding, a remedy (commands or a sentence), and what the check is needed for."""

    name: str
    status: Status
    found: str
    remedy: tuple[str, ...] = ()
    needed_for: str = ""

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {**asdict(self), "status": self.status.value, "remedy": list(self.remedy)}
