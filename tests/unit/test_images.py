"""Images: what is asked for, which one a source needs, keys, the base, building once, and remembering."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest

from crossjit.engine.base import COPY, HOME, OWNED, RUN, ContainerOptions, EngineObject
from crossjit.errors import DocumentError, EngineError, InfrastructureError, UserError
from crossjit.images import (
    Image,
    ImageBuilder,
    ImageSpec,
    Package,
    Role,
    Updated,
    configured,
    load_all,
    require_llvm,
    spec_for,
    spec_with_meter,
    update,
)
from crossjit.images import listed as listed_images
from crossjit.images import release as releases
from crossjit.images import spec as images_spec
from crossjit.images.base import BASE, Base, BaseKind, bootstrap, mirror_of
from crossjit.images.builder import ATTEMPTS, LISTING, core_of
from crossjit.images.spec import load
from crossjit.model import Arch, ExtraPackages
from crossjit.progress import Silent, SilentStep, Step
from crossjit.settings import Settings
from crossjit.settings import load as load_settings
from tests.fakes.engine import Build, FakeEngine
from tests.fakes.files import FakeFiles

IMAGES = Path(__file__).parents[2] / "images"

TOOLS = (
    "clang-21 amd64 1:21.1.8-13\ngcc amd64 4:16.1.0-3\ngcc-16 amd64 16.2.0-3\nlibc6 arm64 2.42-1\nlibc6 amd64 2.43-7\n"
)


class Told(Silent):
    """Remembers what was said and which steps were opened."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[str] = []
        self.details: list[str] = []

    @contextlib.contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[Step]:
        self.steps.append(f"{name} {subject}".strip())
        told = self

        class Kept(SilentStep):
            def update(
                self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
            ) -> None:
                told.details.append(detail)

        yield Kept()

    def say(self, text: str) -> None:
        self.said.append(text)


MIRROR = f"forky={'5a' * 32}"  # what release.sh prints of it


class Bootstraps:
    """Makes an empty root file system, and counts."""

    def __init__(self, release: str = MIRROR) -> None:
        self.made: list[tuple[str, Arch]] = []
        self.mirrors: list[str] = []
        self.release = release

    def __call__(self, suite: str, arch: Arch, tarball: Path, step: Step, mirror: str) -> str:
        self.made.append((suite, arch))
        self.mirrors.append(mirror)
        with tarfile.open(tarball, "w"):
            pass
        return self.release


def refuses(suite: str, arch: Arch, tarball: Path, step: Step, mirror: str) -> str:
    raise InfrastructureError("this host has no mmdebstrap to make one with", hint="install it")


@pytest.fixture
def specs() -> dict[str, ImageSpec]:
    return {spec.name: spec for spec in load_all(IMAGES)}


@pytest.fixture
def forky(specs: dict[str, ImageSpec]) -> ImageSpec:
    return specs["forky"]


@pytest.fixture
def engine() -> FakeEngine:
    stages = {stage: listed(TOOLS) for stage in ("toolchain", "target", "meter", "listing")}
    return FakeEngine(stages={**stages, "release": having(MIRROR)})


def having(release: str) -> FakeFiles:
    """What is in the image that the mirror is asked by."""
    files = FakeFiles.base()
    files.write(releases.FILE, f"{release}\n".encode())
    return files


def built(engine: FakeEngine) -> list[Build]:
    """What was built, without what the mirror was asked by."""
    return [build for build in engine.builds if build.target != "release"]


def listed(text: str) -> FakeFiles:
    files = FakeFiles.base()
    files.write(LISTING, text.encode())
    return files


Make = Callable[..., Image]


@pytest.fixture
def make(engine: FakeEngine, forky: ImageSpec, tmp_path: Path) -> Make:
    """Have an image of forky, on an x86_64 host, without a registry."""

    def made(role: Role = Role.TOOLCHAIN, arch: Arch = Arch.X86_64, spec: ImageSpec = forky, **other: Any) -> Image:
        given: dict[str, Any] = {"host_arch": Arch.X86_64, "home": tmp_path, "bootstrapper": Bootstraps(), **other}
        return ImageBuilder(engine, **given).ensure(spec, role, arch)

    return made


def with_document(spec: ImageSpec, **changes: object) -> ImageSpec:
    return dataclasses.replace(spec, document=dataclasses.replace(spec.document, **changes))  # type: ignore[arg-type]


# -- what is asked for


def test_native_toolchain_has_both_architectures(forky: ImageSpec) -> None:
    packages = forky.packages(Role.TOOLCHAIN, Arch.X86_64, Arch.X86_64)
    assert {"clang-21", "llvm-21", "gcc", "gcc-aarch64-linux-gnu", "libssl-dev", "libssl-dev:arm64"} <= set(packages)
    assert "base-files" not in packages


def test_every_llvm_of_an_image_is_in_its_toolchain(specs: dict[str, ImageSpec]) -> None:
    for arch in Arch:
        packages = specs["trixie"].packages(Role.TOOLCHAIN, arch, Arch.X86_64)
        assert {"clang-18", "llvm-18", "clang-19", "llvm-19"} <= set(packages)


def test_toolchain_of_an_arm_host_crosses_to_x86(forky: ImageSpec) -> None:
    packages = forky.packages(Role.TOOLCHAIN, Arch.AARCH64, Arch.AARCH64)
    assert {"gcc-x86-64-linux-gnu", "g++-x86-64-linux-gnu", "libssl-dev:amd64"} <= set(packages)


def test_foreign_toolchain_is_unpacked_and_knows_one_architecture(forky: ImageSpec) -> None:
    packages = forky.packages(Role.TOOLCHAIN, Arch.AARCH64, Arch.X86_64)
    assert {"base-files", "dash", "gcc", "clang-21", "libssl-dev"} <= set(packages)
    assert not [name for name in packages if ":" in name or "{" in name or name.endswith("-linux-gnu")]


def test_target_has_no_compiler(forky: ImageSpec) -> None:
    for arch in Arch:
        packages = forky.packages(Role.TARGET, arch, Arch.X86_64)
        assert {"base-files", "libssl3t64"} <= set(packages)
        assert not [name for name in packages if name.startswith(("gcc-1", "clang", "llvm")) or name.endswith("-dev")]


def test_debug_image_has_gdb_and_is_unpacked(forky: ImageSpec, make: Make, engine: FakeEngine) -> None:
    packages = forky.packages(Role.DEBUG, Arch.X86_64, Arch.X86_64)
    assert {"base-files", "gdb-multiarch"} <= set(packages)
    assert not {"gcc", "libssl3t64"} & set(packages)
    image = make(Role.DEBUG)
    (build,) = built(engine)
    assert (build.target, build.arguments["ACCOUNT"]) == ("target", "tester")
    assert (image.reference.partition(":")[0], image.role) == ("crossjit/forky-debug-amd64", Role.DEBUG)


def test_the_meter_is_built_from_a_pinned_source_for_every_guest(
    specs: dict[str, ImageSpec], make: Make, engine: FakeEngine
) -> None:
    forky = spec_with_meter(specs.values())
    image = make(Role.METER)
    (build,) = built(engine)
    assert (build.target, build.arch) == ("meter", Arch.X86_64)
    assert image.reference.startswith("crossjit/forky-meter-amd64:")
    assert set(build.arguments["GUESTS"].split()) == {"aarch64", "x86_64"}
    assert build.arguments["SOURCE"] == "qemu"
    files = dict(each.split("=") for each in build.arguments["FILES"].split())
    assert sum(name.endswith(".dsc") for name in files) == 1
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in files.values())
    assert forky.packages(Role.METER, Arch.X86_64, Arch.X86_64) == tuple(build.arguments["PACKAGES"].split())
    assert not build.context.exists(), "it was put together for this build"


def test_the_meters_key_is_its_own(forky: ImageSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copies = tmp_path / "images", tmp_path / "meter"
    for copy in copies:
        shutil.copytree(IMAGES.parent / copy.name, copy)
    monkeypatch.setattr(images_spec, "METER", copies[1])
    spec = dataclasses.replace(forky, context=copies[0])

    def keys() -> tuple[str, ...]:
        return tuple(core_of(spec, role, Arch.X86_64, Arch.X86_64, BOOTSTRAPPED) for role in Role)

    first = dict(zip(Role, keys(), strict=True))
    (copies[1] / "count.c").write_text("int changed;\n")
    second = dict(zip(Role, keys(), strict=True))
    assert {role for role in Role if first[role] != second[role]} == {Role.METER}
    for name in ("selftest.py", "packages.lock", "benchmarks.toml", "README.md"):  # no parts of the image
        (copies[1] / name).write_text("changed")
    assert dict(zip(Role, keys(), strict=True)) == second
    (copies[0] / "extract.sh").write_text("exit 0\n")
    third = dict(zip(Role, keys(), strict=True))
    assert {role for role in Role if second[role] == third[role]} == {Role.METER}
    (copies[0] / "update.sh").write_text("exit 0\n")
    assert core_of(spec, Role.METER, Arch.X86_64, Arch.X86_64, BOOTSTRAPPED) != third[Role.METER]


def test_only_one_image_has_the_meter(specs: dict[str, ImageSpec], make: Make) -> None:
    assert [spec.name for spec in specs.values() if spec.document.meter] == ["forky"]
    with pytest.raises(UserError, match="the image trixie has no meter") as raised:
        make(Role.METER, spec=specs["trixie"])
    assert "[meter]" in raised.value.hint
    with pytest.raises(DocumentError, match="no image has a meter"):
        spec_with_meter([specs["trixie"]])


def test_what_a_variant_needs_is_in_an_image_of_its_own(forky: ImageSpec, make: Make, engine: FakeEngine) -> None:
    extra = ExtraPackages(toolchain=("libclang-rt-{llvm}-dev",), libraries=("tk-dev",), target=("libasan8",))
    own = with_document(forky, aliases={"libasan8": "libasan9"}).having(extra)
    host, foreign = (Role.TOOLCHAIN, Arch.X86_64, Arch.X86_64), (Role.TOOLCHAIN, Arch.AARCH64, Arch.X86_64)
    assert own.extra_packages(*host) == ("libclang-rt-21-dev", "tk-dev", "tk-dev:arm64")
    assert own.extra_packages(*foreign) == ("libclang-rt-21-dev", "tk-dev")
    assert own.extra_packages(Role.TARGET, Arch.AARCH64, Arch.X86_64) == ("libasan9",)
    assert own.extra_packages(Role.DEBUG, Arch.X86_64, Arch.X86_64) == ()

    plain = [make(role, arch) for role in (Role.TOOLCHAIN, Role.TARGET) for arch in Arch]
    more = [make(role, arch, own) for role in (Role.TOOLCHAIN, Role.TARGET) for arch in Arch]
    assert len({image.key for image in (*plain, *more)}) == 8
    packages = [build.arguments["PACKAGES"] for build in built(engine) if build.target in ("toolchain", "target")]
    assert packages[0] == packages[4], "its layer is the other image's, too"
    (layered,) = (build for build in built(engine) if "EXTRA" in build.arguments)
    assert layered.arguments["EXTRA"] == "libclang-rt-21-dev tk-dev tk-dev:arm64"
    assert packages[-1] == f"{packages[3]} libasan9"


def test_a_variant_that_needs_nothing_has_everybodys_images(forky: ImageSpec, make: Make, engine: FakeEngine) -> None:
    assert make().key == make(spec=forky.having(ExtraPackages(target=("libasan8",)))).key
    assert make(spec=forky.having(ExtraPackages())).key == make().key
    assert len(built(engine)) == 1


def test_an_llvm_on_request_is_in_a_layer_of_its_own(
    specs: dict[str, ImageSpec], make: Make, engine: FakeEngine, tmp_path: Path
) -> None:
    forky = with_document(specs["forky"], llvm_on_request=("22", "23"))
    own = spec_for("22", [specs["trixie"], forky])
    assert (own.name, own.llvm, own.available_llvm) == ("forky", ("21", "22"), ("21", "22", "23"))
    assert own.with_llvm("22") == own
    host, foreign = (Role.TOOLCHAIN, Arch.X86_64, Arch.X86_64), (Role.TOOLCHAIN, Arch.AARCH64, Arch.X86_64)
    assert own.packages(*host) == forky.packages(*host)
    assert own.extra_packages(*host) == ("clang-22", "llvm-22")
    assert own.extra_packages(*foreign) == ("clang-22", "llvm-22")
    assert own.extra_packages(Role.TARGET, Arch.AARCH64, Arch.X86_64) == ()
    more = own.having(ExtraPackages(toolchain=("libclang-rt-{llvm}-dev",)))
    assert more.extra_packages(*host)[2:] == ("libclang-rt-21-dev", "libclang-rt-22-dev")

    plain, added = make(spec=forky), make(spec=own)
    assert plain.key != added.key
    first, second = built(engine)
    assert first.arguments["PACKAGES"] == second.arguments["PACKAGES"]
    assert ("EXTRA" in first.arguments, second.arguments["EXTRA"]) == (False, "clang-22 llvm-22")
    assert make(Role.TARGET, spec=own).key == make(Role.TARGET, spec=forky).key
    recorded = {choice.more_llvm: choice for choice in releases.all_chosen(tmp_path)}
    assert recorded.keys() == {(), ("22",)}
    assert recorded[("22",)].spec((forky,)) == own


def test_everybody_has_the_image_without_it(specs: dict[str, ImageSpec], make: Make) -> None:
    bare = with_document(specs["forky"], llvm_on_request=())
    assert make(spec=specs["forky"]).key == make(spec=bare).key
    assert spec_for("21", specs.values()).more_llvm == ()
    assert spec_for(None, specs.values()).more_llvm == ()


def test_an_llvm_that_can_be_had_is_required(specs: dict[str, ImageSpec]) -> None:
    require_llvm(("18", "21", "22"), specs.values())
    with pytest.raises(UserError, match="no image has LLVM 99") as caught:
        require_llvm(("21", "99"), specs.values())
    assert "forky has 21" in caught.value.hint


def test_every_mistake_in_every_document_is_told_with_its_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    text = (IMAGES / "forky" / "image.toml").read_text()
    (tmp_path / "one" / "image.toml").write_text(text.replace("suite =", "siute ="))
    (tmp_path / "two" / "image.toml").write_text(text.replace('"make"', '"make; rm"').replace('["21"]', "[]"))
    with pytest.raises(DocumentError) as caught:
        load_all(tmp_path)
    told = "\n".join(caught.value.details)
    assert "one/image.toml:" in told and "two/image.toml:" in told
    assert "did you mean 'suite'" in told
    assert len(caught.value.details) >= 4


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="there is no image"):
        load_all(tmp_path)


def test_a_folder_may_bring_its_own_dockerfile(tmp_path: Path) -> None:
    shutil.copytree(IMAGES, tmp_path, dirs_exist_ok=True)
    assert load(tmp_path / "forky").context == tmp_path
    shutil.copy(tmp_path / "Dockerfile", tmp_path / "forky")
    assert load(tmp_path / "forky").context == tmp_path / "forky"


# -- which one


@pytest.mark.parametrize(("llvm", "name"), [("18", "trixie"), ("19", "trixie"), ("21", "forky"), (None, "forky")])
def test_the_image_is_chosen_by_llvm(specs: dict[str, ImageSpec], llvm: str | None, name: str) -> None:
    assert spec_for(llvm, specs.values()).name == name
    assert spec_for(llvm, reversed(specs.values()), name=name).name == name


def test_without_llvm_any_named_image_will_do(specs: dict[str, ImageSpec]) -> None:
    assert spec_for(None, specs.values(), name="trixie").name == "trixie"


def test_a_named_image_without_the_llvm_is_refused_with_the_one_that_has_it(specs: dict[str, ImageSpec]) -> None:
    with pytest.raises(UserError, match=r"trixie has LLVM 18 and 19, the source needs LLVM 21") as caught:
        spec_for("21", specs.values(), name="trixie")
    assert "forky" in caught.value.hint


def test_llvm_that_no_image_has(specs: dict[str, ImageSpec]) -> None:
    for name in (None, "trixie"):
        with pytest.raises(UserError) as caught:
            spec_for("99", specs.values(), name=name)
        assert "trixie has 18 and 19" in caught.value.hint


def test_an_image_that_does_not_exist(specs: dict[str, ImageSpec]) -> None:
    with pytest.raises(UserError, match="did you mean 'forky'") as caught:
        spec_for("21", specs.values(), name="forki")
    assert "trixie" in caught.value.hint


# -- the key

BOOTSTRAPPED = Base(BaseKind.BOOTSTRAP, f"bootstrap:forky@{MIRROR[6:18]}", "base")


def test_the_key_holds_all_that_goes_in(forky: ImageSpec, tmp_path: Path) -> None:
    copy = tmp_path / "images"
    shutil.copytree(IMAGES, copy)
    spec = dataclasses.replace(forky, context=copy)

    def key(
        spec: ImageSpec = spec,
        role: Role = Role.TOOLCHAIN,
        arch: Arch = Arch.X86_64,
        host: Arch = Arch.X86_64,
        base: Base = BOOTSTRAPPED,
    ) -> str:
        return core_of(spec, role, arch, host, base)

    first = key()
    assert key() == core_of(forky, Role.TOOLCHAIN, Arch.X86_64, Arch.X86_64, BOOTSTRAPPED) == first
    (copy / "README.md").write_text("no part of any build")
    assert key() == first
    keys = [
        first,
        key(role=Role.TARGET),
        key(arch=Arch.AARCH64),
        key(arch=Arch.AARCH64, host=Arch.AARCH64),
        key(base=dataclasses.replace(BOOTSTRAPPED, identity="debian@sha256:1")),
        key(spec=with_document(spec, llvm=("21", "22"))),
        key(spec=with_document(spec, suite="sid")),
    ]
    (copy / "extract.sh").write_text("exit 0\n")
    keys.append(key())
    (copy / "Dockerfile").write_text("FROM scratch\n")
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_what_is_only_for_people_is_not_in_the_key(forky: ImageSpec) -> None:
    other = with_document(forky, summary="another line")
    assert core_of(other, Role.TARGET, Arch.X86_64, Arch.X86_64, BOOTSTRAPPED) == core_of(
        forky, Role.TARGET, Arch.X86_64, Arch.X86_64, BOOTSTRAPPED
    )


# -- having it


def test_an_image_is_built_once_and_then_nothing_is_started(engine: FakeEngine, make: Make) -> None:
    first = make()
    assert [build.target for build in built(engine)] == ["toolchain"]
    build = built(engine)[0]
    assert build.arguments["FOREIGN"] == "arm64" and build.arguments["ACCOUNT"] == "builder"
    assert first.reference == f"crossjit/forky-toolchain-amd64:{first.key[:12]}" == build.tag
    assert build.labels[OWNED] == "image" and build.labels[BASE] == BOOTSTRAPPED.identity == first.base
    started, pulls = len(engine.started), len(engine.pulls)
    assert make(bootstrapper=refuses) == first
    assert (len(built(engine)), len(engine.started), len(engine.pulls)) == (1, started, pulls)


def test_finding_makes_nothing(engine: FakeEngine, make: Make, forky: ImageSpec, tmp_path: Path) -> None:
    def found() -> Image | None:
        return ImageBuilder(engine, Arch.X86_64, tmp_path).find(forky, Role.TARGET, Arch.AARCH64)

    assert found() is None
    make()
    assert found() is None  # the base is there, the image is not
    image = make(Role.TARGET, Arch.AARCH64)
    builds, started = len(built(engine)), len(engine.started)
    assert found() == image
    assert (len(built(engine)), len(engine.started)) == (builds, started)
    del engine.images[image.reference]
    assert found() is None


def test_what_is_installed_can_be_asked(make: Make) -> None:
    image = make()
    assert image.llvm_version("21") == "21.1.8" and image.llvm_version("22") is None
    assert image.version("libc6") == "2.43"
    facts = image.facts()
    assert facts["gcc"] == "16.2.0" and facts["fingerprint"] == image.fingerprint
    other = dataclasses.replace(image, packages=(*image.packages, Package("make", "amd64", "4.4-1")))
    assert other.fingerprint != image.fingerprint


def test_nothing_foreign_is_started_to_list_a_foreign_image(engine: FakeEngine, make: Make) -> None:
    target = make(Role.TARGET, Arch.AARCH64)
    toolchain = make(Role.TOOLCHAIN, Arch.AARCH64)
    assert [(build.target, build.arch) for build in built(engine)] == [
        ("target", Arch.AARCH64),
        ("listing", Arch.X86_64),
    ] * 2
    assert built(engine)[1].arguments["IMAGE"] == target.reference
    assert built(engine)[1].arguments["IMAGE_PLATFORM"] == "linux/arm64"
    assert target.packages and toolchain.version("libc6") == "2.42"
    assert {start.arch for start in engine.started} == {Arch.X86_64}
    assert not [name for name in engine.images if name.startswith("crossjit/listing")]
    assert not engine.containers


def test_another_state_folder_takes_the_image_that_is_there(engine: FakeEngine, make: Make, tmp_path: Path) -> None:
    first = make()
    assert make(home=tmp_path / "other") == first
    assert len(built(engine)) == 1


def test_what_was_remembered_and_got_damaged_is_read_again(make: Make, tmp_path: Path) -> None:
    first = make()
    for path in (tmp_path / "images").iterdir():
        path.write_text("damaged")
    assert make() == first


def test_a_removed_image_is_made_again(engine: FakeEngine, make: Make) -> None:
    first = make()
    del engine.images[first.reference]
    assert make().reference == first.reference
    assert len(built(engine)) == 2


def test_a_failing_build_comes_with_its_log_and_leaves_nothing(engine: FakeEngine, make: Make) -> None:
    engine.broken_stages["toolchain"] = ("E: Unable to locate package clang-21",)
    with pytest.raises(EngineError) as caught:
        make()
    assert "E: Unable to locate package clang-21" in caught.value.details
    engine.broken_stages.clear()
    assert make().packages


def test_an_image_without_its_list_is_our_fault(engine: FakeEngine, make: Make) -> None:
    engine.stages["toolchain"] = FakeFiles.base()
    with pytest.raises(InfrastructureError, match="no list of its packages"):
        make()
    engine.stages["target"] = engine.stages["listing"] = listed("half a")
    with pytest.raises(InfrastructureError, match="damaged"):
        make(Role.TARGET)


def test_labels_are_on_all_that_is_made(engine: FakeEngine, make: Make) -> None:
    make(Role.TARGET, Arch.AARCH64, labels={"crossjit.home": "ours"})
    assert {build.labels["crossjit.home"] for build in built(engine)} == {"ours"}
    assert engine.images["crossjit/base-forky-amd64:bootstrap"].labels["crossjit.home"] == "ours"
    assert [start.labels["crossjit.home"] for start in engine.started] == ["ours"] * 2  # the mirror is asked, too


def test_two_that_want_the_same_image_build_it_once(engine: FakeEngine, make: Make) -> None:
    images: list[Image] = []
    bootstraps = Bootstraps()
    threads = [threading.Thread(target=lambda: images.append(make(bootstrapper=bootstraps))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(images) == 4 and len(set(images)) == 1
    assert len(built(engine)) == 1 and len(bootstraps.made) == 1


def test_waiting_for_another_process_is_told(make: Make, tmp_path: Path) -> None:
    first = make()
    (tmp_path / "images" / f"{first.id.removeprefix('sha256:')}.packages").unlink()
    lock = filelock.FileLock(tmp_path / "locks" / f"image-{first.core[:12]}.lock", thread_local=False)

    class Releases(Told):
        def say(self, text: str) -> None:
            super().say(text)
            lock.release()

    told = Releases()
    with lock:
        assert make(progress=told) == first
    assert told.said == ["another process is making the image forky toolchain x86_64; waiting to use its result"]


# -- the base


def test_one_base_for_a_suite(engine: FakeEngine, make: Make) -> None:
    bootstraps = Bootstraps()
    for role in Role:
        for arch in Arch:
            make(role, arch, bootstrapper=bootstraps)
    assert bootstraps.made == [("forky", Arch.X86_64)]
    assert engine.pulls == ["debian:forky-slim"]
    assert {build.arguments["BASE"] for build in built(engine)} == {f"crossjit/base-forky-amd64:bootstrap-{'5a' * 6}"}


def test_a_registry_is_preferred_and_its_digest_kept(engine: FakeEngine, make: Make, tmp_path: Path) -> None:
    engine.registry["debian:forky-slim", Arch.X86_64] = FakeFiles.base()
    image = make(bootstrapper=refuses)
    assert image.base.startswith("debian@sha256:")
    base = built(engine)[0].arguments["BASE"]
    assert base == f"crossjit/base-forky-amd64:{image.base.rpartition(':')[2][:12]}"
    assert base in engine.images
    engine.registry.clear()
    assert make(bootstrapper=refuses) == image
    assert make(Role.TARGET, bootstrapper=refuses).base == image.base
    assert engine.pulls == ["debian:forky-slim"]


def test_where_a_base_comes_from_is_in_the_key(engine: FakeEngine, make: Make, tmp_path: Path) -> None:
    engine.registry["debian:forky-slim", Arch.X86_64] = FakeFiles.base()
    pulled = make()
    engine.registry.clear()
    assert make(home=tmp_path / "other").key != pulled.key


def test_a_pinned_digest_is_what_is_pulled(engine: FakeEngine, make: Make, forky: ImageSpec) -> None:
    make()
    pinned = f"debian@sha256:{'1' * 64}"
    engine.registry[pinned, Arch.X86_64] = FakeFiles.base()
    engine.images.pop("crossjit/base-forky-amd64:bootstrap")
    image = make(spec=with_document(forky, digest=pinned.partition("@")[2]))
    assert engine.pulls[-1] == pinned
    assert image.base.startswith("debian@sha256:")


def test_a_base_that_was_removed_is_had_again(engine: FakeEngine, make: Make) -> None:
    first = make()
    engine.images.clear()
    bootstraps = Bootstraps()
    assert make(bootstrapper=bootstraps).key == first.key
    assert bootstraps.made == [("forky", Arch.X86_64)]


def test_what_a_killed_bootstrap_left_is_removed(make: Make, tmp_path: Path) -> None:
    left = tmp_path / "images" / ".base-forky-amd64" / "base.tar"
    left.parent.mkdir(parents=True)
    left.write_text("half of it")
    make()
    assert not left.parent.exists()


def test_a_pulled_base_that_cannot_be_pulled_again(engine: FakeEngine, make: Make, tmp_path: Path) -> None:
    engine.registry["debian:forky-slim", Arch.X86_64] = FakeFiles.base()
    make()
    engine.images.clear()
    engine.registry.clear()
    with pytest.raises(EngineError, match="cannot be pulled again") as caught:
        make()
    assert str(tmp_path / "images" / "base-forky-amd64.json") in caught.value.hint


def test_neither_registry_nor_bootstrap(make: Make) -> None:
    with pytest.raises(InfrastructureError, match="cannot pull debian:forky-slim, and this host has no") as caught:
        make(bootstrapper=refuses)
    assert caught.value.hint == "install it"
    assert "no such host" in caught.value.details


def test_a_dead_engine_is_no_reason_to_bootstrap(engine: FakeEngine, make: Make) -> None:
    bootstraps = Bootstraps()
    engine.die()
    with pytest.raises(EngineError, match="does not answer"):
        make(bootstrapper=bootstraps)
    assert not bootstraps.made


def test_steps_are_told(make: Make) -> None:
    told = Told()
    make(progress=told)
    assert told.steps == ["base forky", "image forky toolchain x86_64"]
    assert told.said == ["no registry has debian:forky-slim: making the base from Debian's packages"]
    assert "pulling debian:forky-slim" in told.details and "listing its packages" in told.details


# -- what the mirror has

LATER = f"forky={'6b' * 32}"
EXPIRED = f"{MIRROR} expired"


def updated(engine: FakeEngine, forky: ImageSpec, home: Path, **other: Any) -> list[Updated]:
    builder = ImageBuilder(engine, Arch.X86_64, home, **{"bootstrapper": Bootstraps(LATER), **other})
    return list(update(builder, (forky,)))


def test_the_mirrors_release_is_in_key_and_label(engine: FakeEngine, make: Make, tmp_path: Path) -> None:
    first = make()
    assert (first.release, first.facts()["release"]) == (MIRROR, MIRROR)
    (build,) = built(engine)
    assert build.labels[releases.LABEL] == build.arguments["RELEASE"] == MIRROR
    del engine.images[first.reference]
    engine.stages["release"] = having(LATER)
    later = make()
    assert later.release == LATER
    assert later.key != first.key
    assert later.core == first.core


def test_a_later_command_asks_no_mirror(engine: FakeEngine, make: Make) -> None:
    first = make()
    engine.stages["release"] = having(LATER)
    assert make() == first


def test_a_release_that_has_expired_is_told_and_labelled(engine: FakeEngine, make: Make) -> None:
    engine.stages["release"] = having(EXPIRED)
    told = Told()
    image = make(progress=told)
    assert "the mirror's Release of forky has expired and is used without the check of Valid-Until" in told.said
    (build,) = built(engine)
    assert build.labels[releases.LABEL] == EXPIRED == image.release
    assert make().key == image.key


def test_a_mirror_that_moves_on_while_an_image_is_built_is_asked_again(engine: FakeEngine, make: Make) -> None:
    engine.broken_stages["toolchain"] = (f"#9 1.2 {releases.MOVED} by now: {LATER}",)
    with pytest.raises(EngineError):
        make()
    asked = [build.target for build in engine.builds].count("release")
    assert asked == ATTEMPTS
    engine.broken_stages["toolchain"] = ("E: Unable to locate package",)
    with pytest.raises(EngineError):
        make()
    assert [build.target for build in engine.builds].count("release") == asked + 1, "that is another failure"


def test_a_package_that_the_mirror_does_not_have_is_named(engine: FakeEngine, make: Make, forky: ImageSpec) -> None:
    lines = [f"#9 3.579 E: Unable to locate package {name}" for name in ("clang-22", "llvm-22")]
    engine.broken_stages["toolchain"] = (*lines, f"> {lines[0]}", "ERROR: failed to solve")
    with pytest.raises(EngineError, match=r"^the mirror's forky has no package clang-22 and llvm-22$") as caught:
        make(spec=forky.with_llvm("22"))
    assert "images/forky/image.toml" in caught.value.hint
    assert not built(engine)


def test_an_image_that_the_engine_broke_is_asked_anew(engine: FakeEngine, make: Make) -> None:
    """Seen with Docker 26 while its build cache was full: the image's container does not start."""
    whole = FakeEngine.container
    broken = iter([True])

    def container(self: FakeEngine, options: ContainerOptions) -> Any:
        if options.image.startswith("crossjit/release:") and next(broken, False):
            raise EngineError("the container ended while a command ran (exit status 127)")
        return whole(self, options)

    engine.container = functools.partial(container, engine)  # type: ignore[method-assign]
    assert make().release == MIRROR
    assert [build.target for build in engine.builds].count("release") == 2
    assert not [name for name in engine.images if name.startswith("crossjit/release:")]


def test_what_is_no_release_is_our_side(engine: FakeEngine, make: Make) -> None:
    engine.stages["release"] = having("forky=zz")
    with pytest.raises(InfrastructureError, match="Release files could not be read"):
        make()


def test_an_update_changes_nothing_where_the_mirror_has_not(
    engine: FakeEngine, make: Make, forky: ImageSpec, tmp_path: Path
) -> None:
    first = make()
    bootstraps = Bootstraps(LATER)
    (found,) = updated(engine, forky, tmp_path, bootstrapper=bootstraps)
    assert not found.changed
    assert found.image == first
    assert (len(built(engine)), bootstraps.made) == (1, [])


def test_an_update_makes_base_and_images_anew_and_leaves_the_old_ones(
    engine: FakeEngine, make: Make, forky: ImageSpec, tmp_path: Path
) -> None:
    extra = forky.having(ExtraPackages(target=("libasan8",)))
    old = [make(), make(Role.TARGET, Arch.AARCH64), make(Role.TARGET, spec=extra)]
    engine.stages["release"] = having(LATER)
    found = updated(engine, forky, tmp_path)
    assert [each.changed for each in found] == [True] * 3
    assert {each.before for each in found} == {image.reference for image in old} <= set(engine.images)
    assert {each.image.base for each in found} == {f"bootstrap:forky@{'6b' * 6}"}
    assert {each.image.release for each in found} == {LATER}
    assert make() in [each.image for each in found], "and that is what is used"
    assert not any(each.changed for each in updated(engine, forky, tmp_path))
    assert updated(engine, forky, tmp_path / "other") == []


def test_images_are_listed_with_their_date_and_which_is_current(
    engine: FakeEngine, make: Make, forky: ImageSpec, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path)
    labels = {"crossjit.home": settings.identity}
    old = make(labels=labels)
    engine.stages["release"] = having(LATER)
    updated(engine, forky, tmp_path, labels=labels)
    new = make(labels=labels)
    rows = {row.name: row for row in listed_images(engine, (forky,), settings, Arch.X86_64)}
    assert {name: (row.current, row.release) for name, row in rows.items()} == {
        old.reference: (False, MIRROR),
        new.reference: (True, LATER),
    }
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\+00:00", row.made) for row in rows.values())


def test_an_image_of_another_state_folder_is_taken_without_asking_the_mirror(
    engine: FakeEngine, make: Make, tmp_path: Path
) -> None:
    first = make()
    engine.stages["release"] = having(LATER)
    assert make(home=tmp_path / "other") == first


def test_a_snapshot_is_bootstrapped_from_its_own_mirror(engine: FakeEngine, make: Make, forky: ImageSpec) -> None:
    plain = make()
    engine.registry["debian:forky-slim", Arch.X86_64] = FakeFiles.base()
    snapshot = dataclasses.replace(forky, mirror="https://snapshots.invalid/20261101T000000Z")
    bootstraps = Bootstraps(LATER)
    image = make(spec=snapshot, bootstrapper=bootstraps)
    assert bootstraps.mirrors == [snapshot.mirror]
    assert image.key != plain.key
    assert image.base == f"bootstrap:forky@{'6b' * 6}"
    assert make() == plain, "the other is not touched"


def test_a_snapshot_is_of_the_settings_or_the_document(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, snapshot="20261101", snapshot_mirror="https://snapshots.invalid/{date}/debian")
    assert {spec.mirror for spec in configured(settings)} == {"https://snapshots.invalid/20261101/debian"}
    assert {spec.mirror for spec in configured(Settings(home=tmp_path))} == {""}
    with pytest.raises(UserError, match="the snapshot 20261101 needs a mirror") as caught:
        configured(Settings(home=tmp_path, snapshot="20261101"))
    assert "CROSSJIT_SNAPSHOT_MIRROR" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CROSSJIT_SNAPSHOT", "yesterday"),
        ("CROSSJIT_SNAPSHOT_MIRROR", "https://snapshots.invalid/debian"),
        ("CROSSJIT_SNAPSHOT_MIRROR", "/srv/{date}"),
    ],
)
def test_what_is_no_snapshot_is_told(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(UserError, match=f"^invalid {name}="):
        load_settings({"CROSSJIT_HOME": str(tmp_path), name: value})


MMDEBSTRAP = """#!/bin/sh
echo "$@" >>{log}
case "$*" in *Check-Valid-Until*) ;; *)
    echo "E: Release file for http://a/debian/dists/forky/InRelease is {what} (invalid since 3d)" >&2
    exit 25 ;;
esac
echo "{digest}  a_debian_dists_forky_InRelease" >&2
"""


@pytest.fixture
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a mmdebstrap on PATH for which the mirror's Release is something, and return what it writes down."""

    def put(what: str) -> Path:
        log = tmp_path / "log"
        (tmp_path / "bin").mkdir()
        for name, text in (
            ("mmdebstrap", MMDEBSTRAP.format(log=log, what=what, digest="5a" * 32)),
            ("apt-get", "#!/bin/sh\nprintf 'http://a/debian\\tDebian\\tforky\\n'\n"),
        ):
            (tmp_path / "bin" / name).write_text(text)
            (tmp_path / "bin" / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        return log

    return put


def test_a_base_of_an_expired_release_is_made_without_the_check(
    mmdebstrap: Callable[[str], Path], tmp_path: Path
) -> None:
    log = mmdebstrap("expired")
    assert bootstrap("forky", Arch.X86_64, tmp_path / "base.tar", SilentStep()) == EXPIRED
    first, second = log.read_text().splitlines()
    assert "Check-Valid-Until" not in first
    assert 'Check-Valid-Until "false"' in second
    assert second.endswith(" http://a/debian")


def test_for_no_other_reason(mmdebstrap: Callable[[str], Path], tmp_path: Path) -> None:
    log = mmdebstrap("not signed")
    with pytest.raises(InfrastructureError, match="mmdebstrap cannot make forky: exit status 25"):
        bootstrap("forky", Arch.X86_64, tmp_path / "base.tar", SilentStep())
    assert len(log.read_text().splitlines()) == 1


# -- apt's mirror


@pytest.mark.parametrize(
    ("listing", "mirror"),
    [
        ("http://a/debian/\tDebian\tbookworm\nhttp://b/debian/\tDebian\tbookworm", "http://a/debian"),
        ("https://packages/apt/\tSomebody\tstable\nhttp://a/mirror/\tDebian\tbookworm", "http://a/mirror"),
        ("http://a/debian-security/\tDebian\tbookworm-security\nhttp://a/debian/\tDebian\tbookworm", "http://a/debian"),
        ("http://a/debian/\t$(ORIGIN)\t$(RELEASE)", "http://a/debian"),
        ("http://a/ubuntu/\tUbuntu\tnoble", None),
        ("http://a/ubuntu/\t$(ORIGIN)\t$(RELEASE)", None),
        ("cdrom://disc/debian/\tDebian\tbookworm\nfile:/srv/debian/\tDebian\tbookworm", None),
        ("http://a/debian\n", "http://a/debian"),
        ("", None),
    ],
)
def test_the_mirror_is_debians_own(listing: str, mirror: str | None) -> None:
    assert mirror_of(listing) == mirror


def test_what_dies_while_an_image_is_made_is_found_by_its_run(
    engine: FakeEngine, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What asks the mirror and what lists packages, and the copy of a foreign image, bear the run's label; images do
    not.
    """
    labels = {HOME: "h", RUN: "r"}
    kept = []
    remove = FakeEngine.remove

    def watch(self: FakeEngine, thing: EngineObject) -> None:
        kept.append(dict(thing.labels) | self.images[thing.name].labels)
        remove(self, thing)

    monkeypatch.setattr(FakeEngine, "remove", watch)
    image = make(Role.TARGET, Arch.AARCH64, labels=labels)
    asking, listing = engine.started
    assert labels.items() <= listing.labels.items()
    assert labels.items() <= asking.labels.items()
    release, copy = kept
    for each in (release, copy):
        assert labels.items() <= each.items()
        assert COPY in each
    remaining = [each for tag, each in engine.images.items() if tag == image.reference or "base" in tag]
    assert len({each.id for each in remaining}) == 2
    for made in remaining:
        assert made.labels[HOME] == "h"
        assert RUN not in made.labels
