"""The host: `doctor`'s checks, and setting up a Debian or Ubuntu machine."""

from crossjit.host.check import Check, Status
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
