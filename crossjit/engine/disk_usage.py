"""Measures a container's disk usage, through the engine and from inside as the container's user."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from crossjit.engine.cli_client import CliClient
from crossjit.engine.process import finish
from crossjit.errors import EngineError
from crossjit.util.budget import BudgetError

TIMEOUT = 20.0  # seconds for each command; a slower measurement is repeated
TIMEOUT_ELSEWHERE = 90.0  # the same for an engine on another machine, which may be slow, busy and far

# Runs as the container's user, with the volumes' folders as arguments. It prints the bytes in the volumes, and the
# blocks of files that are deleted but open, which the engine does not count. If this user cannot read something there,
# the source has hidden it.
_VOLUMES = r"""
PATH=/usr/bin:/bin LC_ALL=C
export PATH LC_ALL
[ $# -eq 0 ] || du --summarize --block-size=1 --one-file-system -- "$@" 2>&1 || :
find /proc/[0-9]*/fd -lname '/* (deleted)' ! -lname '/memfd:*' ! -lname '/dev/*' \
  -exec stat --dereference --format 'open %d:%i %b' {} + 2>/dev/null | sort -u
echo end
"""

# The engine adds up file lengths, which differ from the space used by sparse and by tiny files: this counts the blocks
# of all files that the user owns, in every folder that the user could have written to.
_OWN = r"""
PATH=/usr/bin:/bin LC_ALL=C
export PATH LC_ALL
{
  find / -xdev -ignore_readdir_race -type d ! -user "$1" ! \( -readable -executable \) -prune \
    -o -user "$1" -printf '%i %b\n' 2>/dev/null || echo hidden
} | sort -u | {
  sum=0
  while read -r inode blocks; do
    [ "$inode" != hidden ] || exit 1
    sum=$((sum + blocks))
  done
  echo "own $sum"
}
"""
BLOCK = 512
ROOT = ("0", "root")


def measure(
    client: CliClient,
    container: str,
    name: str,
    run: Sequence[str],
    user: str,
    volumes: Sequence[str],
    *,
    limit: int,
    exact: bool,
) -> int:
    """Return the bytes that a container uses; `run` is the command line for running something in it as its user.

    With `exact`, and above the limit, blocks are counted instead of file lengths. Raises EngineError if the engine does
    not answer in time, BudgetError if the container's processes prevent the measurement.
    """
    timeout = TIMEOUT if client.root is not None else TIMEOUT_ELSEWHERE
    hidden = BudgetError(
        f"cannot measure what {name} wrote to disk",
        hint="its source prevents others from reading its folders or starting a process",
    )
    arguments = ("container", "inspect", "--size", "--format", "{{.SizeRw}}", container)
    result = client.try_call(*arguments, timeout=timeout)
    if result.returncode != 0 or not result.stdout.strip().isdecimal():
        raise client.error(f"measure the size of {name}", result.stderr)
    size = int(result.stdout)
    elsewhere = _elsewhere(_lines((*run, "/bin/sh", "-c", _VOLUMES, "crossjit", *volumes), name, timeout), hidden)
    owner = user.partition(":")[0]
    if owner in ROOT or not (exact or size + elsewhere > limit):  # root also owns the image's files
        return size + elsewhere
    lines = _lines((*run, "/bin/sh", "-c", _OWN, "crossjit", owner), name, timeout)
    own = next((int(line.split()[1]) for line in lines if line.startswith("own ")), None)
    if own is None and size <= limit:
        raise hidden
    return elsewhere + (size if own is None else own * BLOCK)


def _elsewhere(lines: Sequence[str], hidden: BudgetError) -> int:
    """Add up the output of `_VOLUMES`."""
    size = 0
    if not lines or lines[-1] != "end" or any("cannot read" in line or "Permission denied" in line for line in lines):
        raise hidden
    for line in lines:
        first, _, path = line.partition("\t")
        if path.startswith("/") and first.isdecimal():
            size += int(first)
        elif line.startswith("open "):
            size += int(line.split()[2]) * BLOCK
    return size


def _lines(command: Sequence[str], name: str, timeout: float) -> Sequence[str]:
    """Run a command and return its output's lines. Raises EngineError if it takes too long."""
    try:
        return finish(command, timeout=timeout).stdout.splitlines()
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"measuring what {name} wrote to disk took more than {timeout:.0f} s",
            hint="the engine's machine is too busy, or what runs in the container keeps it so",
        ) from error
