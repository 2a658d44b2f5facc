"""Fakes for tests of the pipeline: images, and a progress listener that records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from crossjit.images import Image, Package, Role
from crossjit.model import Arch
from crossjit.progress import Silent, SilentStep, Step


def image(role: Role, arch: Arch) -> Image:
    packages = (Package("gcc-16", "amd64", "16.2.0-3"), Package("clang-21", "amd64", "1:21.1.8-13"))
    return Image(f"{role}-{arch}", f"sha256:{role}{arch}", "k" * 64, role, arch, "bootstrap:forky", packages)


class RecordingProgress(Silent):
    """Records messages and names of steps."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.steps: list[str] = []

    @contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[Step]:
        self.steps.append(name)
        yield SilentStep()

    def say(self, text: str) -> None:
        self.messages.append(text)
