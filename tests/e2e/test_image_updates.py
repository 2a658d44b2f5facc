"""Images and Debian's mirror: what is asked, what is taken where its Release has expired, what `images` tells."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from crossjit import PROJECT, engine, settings
from crossjit.engine.base import OWNED, Container, ContainerOptions
from crossjit.images import Image, Role
from crossjit.model import Arch
from crossjit.util import tar
from tests.e2e.driver import Driver

pytestmark = pytest.mark.engine

HERE = "/usr/local/lib/crossjit"
LISTED = "/tmp/release"
REPOSITORY = "/srv/mirror/dists/forky"


@pytest.fixture
def apt(own_images: dict[tuple[Role, Arch], Image], host_arch: Arch) -> Iterator[Container]:
    """A container with apt and our scripts, without a network."""
    client = engine.connect(settings.load())
    toolchain = own_images[Role.TOOLCHAIN, host_arch]
    name = f"crossjit-test-{secrets.token_hex(4)}"
    with client.container(
        ContainerOptions(toolchain.reference, arch=host_arch, name=name, labels={OWNED: "container"}, user="0:0")
    ) as container:
        files = {f"{HERE}/{name}": (PROJECT / "images" / name).read_bytes() for name in ("release.sh", "update.sh")}
        sources = {"/etc/apt/sources.list": b"deb [trusted=yes] file:/srv/mirror forky main\n"}
        sandbox = {"/etc/apt/apt.conf.d/root": b'APT::Sandbox::User "root";\n'}
        container.put(tar.packed({**files, **sources, **sandbox}), "/")
        container.run(("rm", "-f", "/etc/apt/apt.conf.d/90crossjit"))
        yield container


def serve(apt: Container, valid_for: timedelta) -> str:
    """Have a mirror whose Release is valid so long from now; return its digest."""
    now = datetime.now(UTC)
    dates = {"Date": now - timedelta(days=30), "Valid-Until": now + valid_for}
    lines = [f"{name}: {date:%a, %d %b %Y %H:%M:%S UTC}" for name, date in dates.items()]
    empty = hashlib.sha256(b"").hexdigest()
    packages = [f" {empty} 0 main/binary-{arch}/Packages" for arch in ("amd64", "arm64")]
    head = ("Suite: forky", "Codename: forky", *lines, "Architectures: amd64 arm64", "Components: main", "SHA256:")
    release = "\n".join((*head, *packages, "")).encode()
    files = {f"{REPOSITORY}/main/binary-{arch}/Packages": b"" for arch in ("amd64", "arm64")}
    apt.put(tar.packed({**files, f"{REPOSITORY}/Release": release}), "/")
    return hashlib.sha256(release).hexdigest()


def update(apt: Container, *arguments: str) -> tuple[int, list[str]]:
    lines: list[str] = []
    ended = apt.run(("sh", f"{HERE}/update.sh", LISTED, *arguments), on_line=lines.append)
    return ended.returncode, lines


def said(apt: Container) -> str:
    lines: list[str] = []
    apt.run(("cat", LISTED), on_line=lines.append)
    return "".join(lines)


def test_a_release_that_is_valid_is_taken_with_the_check_on(apt: Container) -> None:
    digest = serve(apt, timedelta(days=7))
    status, lines = update(apt)
    assert (status, said(apt)) == (0, f"forky={digest}"), lines
    assert apt.run(("test", "-e", "/etc/apt/apt.conf.d/90crossjit")).returncode == 1


def test_one_that_has_expired_is_refused_first_and_taken_then(apt: Container) -> None:
    digest = serve(apt, -timedelta(days=7))
    status, lines = update(apt)
    assert (status, said(apt)) == (0, f"forky={digest} expired"), lines
    assert any("is expired" in line for line in lines), "it is told"


def test_another_than_was_asked_for_is_not_taken(apt: Container) -> None:
    serve(apt, timedelta(days=7))
    status, lines = update(apt, f"forky={'0' * 64}")
    assert status == 1
    assert "crossjit: the mirror has other Release files by now: forky=" in lines[-1]


def test_a_mirror_that_is_not_there_is_an_error(apt: Container) -> None:
    status, lines = update(apt)
    assert status == 100, lines


def test_images_are_listed_and_updated(driver: Driver, recipe: Path, host_arch: Arch) -> None:
    driver.run("build", "--recipe", recipe)
    before = {row["name"] for row in driver.run("images", "list", "--json").json if row["current"]}
    for role in ("toolchain", "target"):
        assert any(name.startswith(f"crossjit/forky-{role}-{host_arch.debian}:") for name in before)
    updated = driver.run("images", "update", "--json").json
    assert {each["before"] for each in updated} == before
    assert all(each["changed"] is (each["image"] != each["before"]) for each in updated)
    shown = driver.run("images").stdout
    assert all(each["image"] in shown for each in updated)
    after = {row["name"] for row in driver.run("images", "--json").json if row["current"]}
    assert after == {each["image"] for each in updated}
    assert driver.leftovers() == []
