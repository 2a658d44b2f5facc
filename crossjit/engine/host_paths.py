"""The paths of a container of the host engine, whose files are in a folder of this machine.

All of crossjit names files by their paths in a container. Here, and only here, these become paths of this machine: in
arguments, variables, working folders, and the targets of symbolic links; and back again in what comes out.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The folders that a container has for itself. Any other path is that of the machine: a compiler, a shell, /proc.
OWN = ("/cache", "/cache-below", "/crossjit", "/home", "/tmp", "/usr/local")  # noqa: S108 - in a container


@dataclass(frozen=True)
class PathMap:
    """A container's files: its folder, and its volumes' folders by the paths where they are mounted.

    `own` are the paths that can be its own. They are, as soon as they exist in its folder: in a build, `/usr/local` is
    but a name for where Python will be installed one day; in a target, something is there.
    """

    root: Path
    volumes: Mapping[str, Path] = field(default_factory=dict)
    own: tuple[str, ...] = OWN

    def place(self, path: str) -> Path:
        """Return where a file of the container is; `path` is absolute."""
        path = posixpath.normpath("/" + path.lstrip("/"))  # two slashes at the start would stay
        for mount, folder in self.volumes.items():
            if path == mount or path.startswith(f"{mount}/"):
                return folder / path[len(mount) + 1 :]
        place = self.root / path[1:]
        assert place.is_relative_to(self.root)  # nothing of the machine's is ever written to or removed
        return place

    def outside(self, text: str) -> str:
        """Return a text with this machine's paths in place of the container's own."""
        present = [name for name in (*self.volumes, *self.own) if self.place(name).exists()]
        if not present or "/" not in text:
            return text
        # a path begins where no other word goes on, and its name ends where no longer one does
        names = "|".join(re.escape(name) for name in sorted(present, key=len, reverse=True))
        return re.sub(rf"(?<![\w./-])(?:{names})(?=/|[^\w.-]|$)", lambda match: str(self.place(match[0])), text)

    def inside(self, text: str) -> str:
        """Return a text with the container's paths in place of this machine's."""
        for mount, folder in self.volumes.items():
            text = text.replace(str(folder), mount)
        return text.replace(f"{self.root}/", "/").replace(str(self.root), "/")
