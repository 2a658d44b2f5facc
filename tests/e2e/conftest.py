"""Drivers with state folders of their own, and images that all of them share.

Images take minutes to make and are the same for everybody: they are taken from the user's own state folder, as the
commands do, and made there once if they are not in the engine. What is known of them is copied into each test's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crossjit import PROJECT, engine, images, settings
from crossjit.engine.base import HOME
from crossjit.images import Image, ImageBuilder, Role
from crossjit.model import Arch
from tests.conftest import need_engine
from tests.e2e import tiny_source
from tests.e2e.driver import Driver

LLVM = "21"  # what the tiny source names

MakeDriver = Callable[..., Driver]


def ensure_images() -> dict[tuple[Role, Arch], Image]:
    """Have the images that the tiny source is built and run in. Raises EngineError."""
    loaded = settings.load()
    client = engine.connect(loaded)
    host_arch = client.facts().arch
    spec = images.spec_for(LLVM, images.load_all(PROJECT / "images"))
    wanted = ((Role.TOOLCHAIN, host_arch), (Role.DEBUG, host_arch), *((Role.TARGET, arch) for arch in Arch))
    builder = ImageBuilder(client, host_arch, loaded.home, labels={HOME: loaded.identity})
    return {(role, arch): builder.ensure(spec, role, arch) for role, arch in wanted}


def new_driver(folder: Path, **changes: object) -> Driver:
    """Make a driver whose state folder is below this one, and knows of the images that there are."""
    home, cwd = folder / "home", folder / "cwd"
    cwd.mkdir(parents=True)
    shutil.copytree(settings.load().home / "images", home / "images", ignore=shutil.ignore_patterns(".*"))
    return Driver(home, cwd, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def own_images() -> dict[tuple[Role, Arch], Image]:
    """Have the images that the tiny source is built and run in."""
    need_engine(settings.load().engine)
    return ensure_images()


@pytest.fixture
def make_driver(own_images: dict[tuple[Role, Arch], Image], tmp_path: Path) -> Iterator[MakeDriver]:
    """Make drivers; what their commands leave in the engine is removed at the end."""
    made: list[Driver] = []

    def make(name: str = "one", **changes: object) -> Driver:
        made.append(new_driver(tmp_path / name, **changes))
        return made[-1]

    yield make
    for driver in made:
        driver.discard()


@pytest.fixture
def driver(make_driver: MakeDriver) -> Driver:
    return make_driver()


@pytest.fixture(scope="session")
def toolchain(own_images: dict[tuple[Role, Arch], Image]) -> str:
    """The reference of the image that the tiny source is built in."""
    return next(image.reference for (role, _), image in own_images.items() if role is Role.TOOLCHAIN)


@pytest.fixture(scope="session")
def host_arch(own_images: dict[tuple[Role, Arch], Image]) -> Arch:
    """The arch that is native here."""
    return next(arch for role, arch in own_images if role is Role.TOOLCHAIN)


@pytest.fixture(scope="session")
def foreign_arch(host_arch: Arch) -> Arch:
    """The arch that is cross-built here."""
    return next(arch for arch in Arch if arch is not host_arch)


@pytest.fixture
def tiny(tmp_path: Path) -> tiny_source.Archive:
    """The tiny source's archive."""
    return tiny_source.archive(tmp_path)


@pytest.fixture
def recipe(tmp_path: Path, tiny: tiny_source.Archive) -> Path:
    """A recipe of the user's that builds the tiny source: its cells are `tiny/ARCH/VARIANT`."""
    return tiny_source.recipe(tmp_path / "tiny.toml", tiny)
