"""A copy of the project, for tests that change it, or that must not see its files come and go."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from crossjit import PROJECT


def copy_project(folder: Path) -> Path:
    """Copy what git knows of the project, or would add, into a folder; return the folder."""
    listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(listing, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    return folder
