"""The host: `doctor`'s checks, and how to make a Debian or Ubuntu machine able."""

from crossjit.host.checks import Check, Status
from crossjit.host.inspect import HostInfo, inspect
from crossjit.host.setup import Confirm, Repair, check, ensure, setup
from crossjit.host.shell import LocalShell, Output, Shell

__all__ = [
    "Check",
    "Confirm",
    "HostInfo",
    "LocalShell",
    "Output",
    "Repair",
    "Shell",
    "Status",
    "check",
    "ensure",
    "inspect",
    "setup",
]
