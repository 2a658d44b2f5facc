"""The texts of docker's and podman's clients: flags, versions, ids of images, words of a Dockerfile."""

from __future__ import annotations

import re
from collections.abc import Mapping


def label_flags(labels: Mapping[str, str]) -> list[str]:
    """Return the flags that put labels on what is made."""
    return [flag for key, value in labels.items() for flag in ("--label", f"{key}={value}")]


def version(output: str) -> str:
    """Return the version in a program's output; the whole output if there is none."""
    match = re.search(r"\d+\.\d+[^\s]*", output)
    return match.group() if match else output


def digest(image: str) -> str:
    """Return an image's id as docker writes it; podman's lists have it so, too, but not its other answers."""
    return image if ":" in image else f"sha256:{image}"


def quoted(text: str) -> str:
    """Quote a word for a Dockerfile instruction that replaces variables."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'
