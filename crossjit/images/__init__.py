"""Images: listing them, choosing the one that a source needs, and building it in the engine."""

from crossjit.images.builder import ImageBuilder
from crossjit.images.image import Image, Package
from crossjit.images.provider import ImageProvider, provider
from crossjit.images.spec import ImageSpec, Role, configured, load_all, require_llvm, spec_for, spec_with_meter
from crossjit.images.update import ListedImage, Updated, listed, update

__all__ = [
    "Image",
    "ImageBuilder",
    "ImageProvider",
    "ImageSpec",
    "ListedImage",
    "Package",
    "Role",
    "Updated",
    "configured",
    "listed",
    "load_all",
    "provider",
    "require_llvm",
    "spec_for",
    "spec_with_meter",
    "update",
]
