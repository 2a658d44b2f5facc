"""Where an engine's images come from: they are built in it, or it is this machine, which is its own image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from crossjit.engine.base import Engine, Feature
from crossjit.images import host
from crossjit.images.builder import ImageBuilder
from crossjit.images.image import Image
from crossjit.images.spec import ImageSpec, Role
from crossjit.model import Arch
from crossjit.progress import Progress, Silent


class ImageProvider(Protocol):
    """Provides the images of an engine."""

    def ensure(self, spec: ImageSpec, role: Role, arch: Arch) -> Image:
        """Return the image of this role and arch, made if it is missing."""

    def find(self, spec: ImageSpec, role: Role, arch: Arch) -> Image | None:
        """Return the image if it need not be made; nothing is started."""

    def ensure_base(self, spec: ImageSpec) -> str:
        """Return the reference of a suite's base image, which is made if it is missing."""


def provider(
    engine: Engine,
    host_arch: Arch,
    home: Path,
    progress: Progress | None = None,
    labels: Mapping[str, str] | None = None,
) -> ImageProvider:
    """Return the provider of an engine's images. The arguments are those of `ImageBuilder`."""
    if Feature.IMAGES in engine.lacks:
        return host.HostImages(engine.facts())
    return ImageBuilder(engine, host_arch, home, progress or Silent(), labels or {})
