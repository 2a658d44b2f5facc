"""Toolchain and target images: which there are, which one a source needs, and having it in the engine."""

from crossjit.images.image import Image, Package
from crossjit.images.making import ensure, find
from crossjit.images.spec import ImageSpec, Role, load_all, spec_for

__all__ = ["Image", "ImageSpec", "Package", "Role", "ensure", "find", "load_all", "spec_for"]
