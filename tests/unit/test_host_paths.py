"""The paths of a container of the host engine: nothing of the machine's own may be meant by them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossjit.engine.host_paths import PathMap


@pytest.fixture
def paths(tmp_path: Path) -> PathMap:
    root = tmp_path / "fs"
    for name in ("tmp", "crossjit/src", "home/tester"):
        (root / name).mkdir(parents=True)
    volume = tmp_path / "volumes" / "cache"
    volume.mkdir(parents=True)
    return PathMap(root, {"/cache": volume})


@given(st.lists(st.sampled_from(["/", "//", "..", ".", "tmp", "cache", "a b", "etc/passwd"]), max_size=8))
def test_a_place_is_in_the_containers_folder(parts: list[str]) -> None:
    paths = PathMap(Path("/state/0/fs"), {"/cache": Path("/state/volumes/cache")})
    place = paths.place("".join(parts))
    assert ".." not in place.parts
    assert any(place.is_relative_to(folder) for folder in (paths.root, *paths.volumes.values()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/crossjit/src/configure", "{root}/crossjit/src/configure"),
        ("--srcdir=/crossjit/src", "--srcdir={root}/crossjit/src"),
        ("/crossjit/x:/usr/bin:/tmp", "{root}/crossjit/x:/usr/bin:{root}/tmp"),
        ("file:/cache/ccache|read-only", "file:{cache}/ccache|read-only"),
        ("cp -R /crossjit/src/Tools {x}; cat >/tmp/made", "cp -R {root}/crossjit/src/Tools {x}; cat >{root}/tmp/made"),
        ('{"file": "/home/tester/results"}', '{"file": "{root}/home/tester/results"}'),
        # other paths are the machine's: names that only begin alike, or that only end with such a path
        ("/cache-below", "/cache-below"),
        ("/tmpfs /crossjit.d /var/tmp src/tmp ../tmp", "/tmpfs /crossjit.d /var/tmp src/tmp ../tmp"),
        ("--prefix=/usr/local", "--prefix=/usr/local"),
        ("/usr/bin/gcc /bin/sh /proc/self/maps", "/usr/bin/gcc /bin/sh /proc/self/maps"),
    ],
)
def test_paths_in_a_text(paths: PathMap, text: str, expected: str) -> None:
    expected = expected.replace("{root}", str(paths.root)).replace("{cache}", str(paths.volumes["/cache"]))
    assert paths.outside(text) == expected
    assert paths.inside(expected) == text


def test_a_path_is_its_own_once_it_has_it(paths: PathMap) -> None:
    """A build's `/usr/local` is but a name; in a target, Python is there."""
    assert paths.outside("/usr/local/bin/python3") == "/usr/local/bin/python3"
    (paths.root / "usr/local/bin").mkdir(parents=True)
    assert paths.outside("/usr/local/bin/python3") == f"{paths.root}/usr/local/bin/python3"
