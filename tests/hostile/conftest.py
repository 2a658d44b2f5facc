"""What the tests of hostile trees share with the end-to-end tests."""

from __future__ import annotations

from tests.e2e.conftest import driver, foreign_arch, host_arch, make_driver, own_images, recipe, tiny

__all__ = ["driver", "foreign_arch", "host_arch", "make_driver", "own_images", "recipe", "tiny"]
