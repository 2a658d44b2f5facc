"""The host: `doctor`'s checks, and how to make a Debian or Ubuntu machine able."""

from crossjit.host.checks import Check, Status
from crossjit.host.look import Look, look
from crossjit.host.repair import Consent, Repair, check, ensure, repair
from crossjit.host.shell import LocalShell, Output, Shell

__all__ = [
    "Check",
    "Consent",
    "LocalShell",
    "Look",
    "Output",
    "Repair",
    "Shell",
    "Status",
    "check",
    "ensure",
    "look",
    "repair",
]
