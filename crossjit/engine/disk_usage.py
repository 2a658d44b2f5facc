"""How much of the engine's disk a container of docker or podman has: what the engine and its own user see."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from crossjit.engine.cli_client import CliClient
from crossjit.engine.process import finish
from crossjit.util.budget import BudgetError

PATIENCE = 20.0  # seconds for each question; a tree that takes longer is asked for again

# Run as the container's user, its folders are the arguments. It prints the blocks of files that have no name any more
# and are open, which nobody else counts, and the bytes in the volumes. What this user cannot read there, the source has
# hidden.
_VOLUMES = r"""
PATH=/usr/bin:/bin LC_ALL=C
export PATH LC_ALL
[ $# -eq 0 ] || du --summarize --block-size=1 --one-file-system -- "$@" 2>&1 || :
find /proc/[0-9]*/fd -lname '/* (deleted)' ! -lname '/memfd:*' ! -lname '/dev/*' \
  -exec stat --dereference --format 'open %d:%i %b' {} + 2>/dev/null | sort -u
echo end
"""

# The engine adds up how long files are, whether they have holes or take a block for one byte: this counts the blocks of
# all that is the user's. It looks into every folder that the user could have written in.
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
    """Return the bytes that a container has; `run` is the command line with which its user runs something in it.

    With `exact`, and above the limit, blocks are counted and not how long the files are. Raises EngineError if the
    engine does not answer, BudgetError where what runs in the container keeps it from being told.
    """
    untold = BudgetError(
        f"cannot measure what {name} wrote to disk",
        hint="its source prevents others from reading its folders or starting a process",
    )
    arguments = ("container", "inspect", "--size", "--format", "{{.SizeRw}}", container)
    ended = client.try_call(*arguments, timeout=PATIENCE)
    if ended.returncode != 0 or not ended.stdout.strip().isdecimal():
        raise client.error(f"measure the size of {name}", ended.stderr)
    size = int(ended.stdout)
    elsewhere = _elsewhere(_lines((*run, "/bin/sh", "-c", _VOLUMES, "crossjit", *volumes)), untold)
    owner = user.partition(":")[0]
    if owner in ROOT or not (exact or size + elsewhere > limit):  # root's are the image's, too
        return size + elsewhere
    lines = _lines((*run, "/bin/sh", "-c", _OWN, "crossjit", owner))
    own = next((int(line.split()[1]) for line in lines if line.startswith("own ")), None)
    if own is None and size <= limit:
        raise untold
    return elsewhere + (size if own is None else own * BLOCK)


def _elsewhere(lines: Sequence[str], untold: BudgetError) -> int:
    """Add up what `_VOLUMES` printed."""
    size = 0
    if not lines or lines[-1] != "end" or any("cannot read" in line or "Permission denied" in line for line in lines):
        raise untold
    for line in lines:
        first, _, rest = line.partition("\t")
        if rest.startswith("/") and first.isdecimal():
            size += int(first)
        elif line.startswith("open "):
            size += int(line.split()[2]) * BLOCK
    return size


def _lines(command: Sequence[str]) -> Sequence[str]:
    """Return what is said in the container; nothing where it cannot be asked in time."""
    try:
        return finish(command, timeout=PATIENCE).stdout.splitlines()
    except subprocess.TimeoutExpired:
        return ()
