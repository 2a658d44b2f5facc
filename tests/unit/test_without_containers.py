"""The host as an engine: its tools as an image, what it is asked for and refuses, and a pretended macOS.

The programs of the pretended machine are real programs, in a folder that is all of PATH.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit import host, images
from crossjit.build.spec import make_spec
from crossjit.config import recipes
from crossjit.engine.base import EngineFacts, Feature
from crossjit.engine.host_engine import HostEngine
from crossjit.errors import EngineError, InfrastructureError, UserError
from crossjit.host import tools
from crossjit.host.check import Status
from crossjit.host.checks import checks
from crossjit.host.shell import LocalShell
from crossjit.images import Role
from crossjit.images.host import HostImages
from crossjit.model import Arch, Cell, Expectation, Platform, Strategy, Variant
from crossjit.pipeline import matrix, on_host, plan
from crossjit.pipeline.context import CellRequest
from crossjit.settings import Settings
from crossjit.sources import Kind, Source
from crossjit.validation.verdict import judge

WORKFLOWS = Path(__file__).with_name("workflows")
PROJECT = Path(__file__).parents[2]
JIT = Variant("jit", "the JIT", ("--enable-experimental-jit=yes",), ("jit",), expects=Expectation.MACHINE_CODE)
NO_JIT = Variant("nojit", "none", (), ())
SDK = "/Library/Developer/CommandLineTools/SDKs/MacOSX.sdk"
MACOS_PROGRAMS = {
    "gcc": "echo Apple clang version 21.0.0",
    "g++": "echo Apple clang version 21.0.0",
    "ld": "echo '@(#)PROGRAM:ld PROJECT:ld-1230' >&2",
    "make": "echo GNU Make 3.81",
    "python3": "echo Python 3.14.0",
    "sw_vers": "case $1 in -productVersion) echo 26.1 ;; *) echo 25B78 ;; esac",
    "xcrun": f"case $1 in --show-sdk-path) echo {SDK} ;; --show-sdk-version) echo 26.1 ;; *) exit 1 ;; esac",
    "brew": "printf 'llvm@21 21.1.8\\nopenssl@3 3.6.0\\nfirefox 150.0\\n'",
}


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


class Machine(LocalShell):
    """This machine with other programs, below a folder of its own."""

    def __init__(self, folder: Path, system: str, machine: str, programs: dict[str, str]) -> None:
        super().__init__()
        self.root, self.system, self.machine = folder / "root", system, machine
        self.root.mkdir()
        self.bin = folder / "bin"
        self.environ = {"PATH": str(self.bin), "LC_ALL": "C.UTF-8"}
        for name, script in programs.items():
            self.add(name, script)

    def add(self, name: str, script: str) -> None:
        program(self.bin / name, script)

    def add_llvm(self, folder: str, version: str, *, without: str = "") -> str:
        place = self.root / folder.lstrip("/")
        for tool in tools.LLVM_TOOLS:
            if tool != without:
                name = "Homebrew clang" if tool == "clang" else "LLVM"
                program(place / "bin" / tool, f"echo {name} version {version}")
        return str(place)


@pytest.fixture
def mac(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path, "Darwin", "arm64", MACOS_PROGRAMS)
    machine.add_llvm("/opt/homebrew/opt/llvm@21", "21.1.8")
    return machine


def facts(platform: Platform = Platform.MACOS, arch: Arch = Arch.AARCH64) -> EngineFacts:
    return EngineFacts("host", "1", None, arch, 4, 16 << 30, lacks=tuple(Feature), platform=platform)


def toolchain(machine: Machine, platform: Platform = Platform.MACOS) -> images.Image:
    provider = HostImages(facts(platform), machine)
    return provider.ensure(images.load_all(PROJECT / "images")[0], Role.TOOLCHAIN, Arch.AARCH64)


def source(python: tuple[int, int] = (3, 15), llvm: str = "21") -> Source:
    version = f"{python[0]}.{python[1]}.0"
    place = (Path("x.tar"), f"Python-{version}", "somewhere")
    return Source(Kind.ARCHIVE, version, python, "d" * 64, *place, llvm=llvm)


# -- the machine as an image


def test_the_image_of_a_machine_is_its_tools(mac: Machine) -> None:
    image = toolchain(mac)
    assert image.is_host
    assert image.reference == "host"
    assert image.llvm_version("21") == "21.1.8"
    assert image.llvm_folder("21") == str(mac.root / "opt/homebrew/opt/llvm@21")
    assert image.version("openssl@3") == "3.6.0"
    assert image.version("firefox") is None
    assert image.release == "macOS 26.1 build 25B78 SDK 26.1"
    assert image.environment == {"SDKROOT": SDK}


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("gcc", "echo Apple clang version 22.0.0"),
        ("ld", "echo '@(#)PROGRAM:ld PROJECT:ld-1240' >&2"),
        ("sw_vers", "echo 26.2"),
        ("brew", "printf 'llvm@21 21.1.8\\nopenssl@3 3.6.1\\n'"),
        ("xcrun", "echo /other"),
    ],
)
def test_another_tool_makes_another_build_key(mac: Machine, name: str, script: str) -> None:
    before, again = toolchain(mac), toolchain(mac)
    mac.add(name, script)
    after = toolchain(mac)
    assert before.key == again.key != after.key
    keys = {make_spec(source(), NO_JIT, Arch.AARCH64, Strategy.NATIVE, image).key for image in (before, again, after)}
    assert len(keys) == 2


def test_an_unrelated_package_changes_nothing(mac: Machine) -> None:
    before = toolchain(mac)
    mac.add("brew", MACOS_PROGRAMS["brew"].replace("firefox 150.0", "firefox 151.0"))
    assert toolchain(mac).key == before.key


def test_an_image_of_containers_is_never_that_of_a_host(mac: Machine) -> None:
    image = toolchain(mac)
    in_container = replace(image, base="bootstrap:forky", platform=Platform.LINUX, environment={})
    own, other = (make_spec(source(), NO_JIT, Arch.AARCH64, Strategy.NATIVE, each) for each in (image, in_container))
    assert own.key != other.key
    assert own.on_host
    assert not other.on_host


def test_the_users_llvm_comes_first(mac: Machine) -> None:
    mine = mac.add_llvm("/mine", "21.9.9")
    mac.environ = {**mac.environ, "LLVM_TOOLS_INSTALL_DIR": mine}
    image = toolchain(mac)
    assert (image.llvm_folder("21"), image.llvm_version("21")) == (mine, "21.9.9")


def test_apples_clang_is_no_llvm(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "Darwin", "arm64", MACOS_PROGRAMS)
    program(machine.root / "opt/homebrew/opt/llvm@21/bin/clang", "echo Apple clang version 21.0.0")
    assert toolchain(machine).llvm_folders == {}


def test_a_missing_llvm_is_one_message_with_a_hint(mac: Machine) -> None:
    image = toolchain(mac)
    with pytest.raises(InfrastructureError, match=r"no LLVM 19, which the source needs \(it has 21\)") as caught:
        make_spec(source((3, 14), "19"), JIT, Arch.AARCH64, Strategy.NATIVE, image)
    assert caught.value.hint.startswith("brew install llvm@19; or ")
    assert "LLVM_TOOLS_INSTALL_DIR" in caught.value.hint
    assert make_spec(source((3, 14), "19"), NO_JIT, Arch.AARCH64, Strategy.NATIVE, image)  # which needs none


@pytest.mark.parametrize(("role", "arch"), [(Role.TARGET, Arch.X86_64), (Role.METER, Arch.AARCH64)])
def test_other_images_are_refused(mac: Machine, role: Role, arch: Arch) -> None:
    spec = images.load_all(PROJECT / "images")[0]
    with pytest.raises(EngineError, match="the host as an engine cannot") as caught:
        HostImages(facts(), mac).ensure(spec, role, arch)
    assert "CROSSJIT_ENGINE=docker" in caught.value.hint
    with pytest.raises(EngineError, match="cannot make or get images"):
        HostImages(facts(), mac).ensure_base(spec)


def test_the_engine_says_whose_images_it_has(tmp_path: Path) -> None:
    assert isinstance(images.provider(HostEngine(tmp_path), Arch.X86_64, tmp_path), HostImages)


# -- macOS, by upstream's workflow


@pytest.mark.parametrize("version", ["3.14", "3.15"])
def test_macos_is_configured_as_upstream_does(mac: Machine, version: str) -> None:
    """The workflow's own text: its configure line and its exports."""
    workflow = (WORKFLOWS / version / "jit.yml").read_text()
    match = re.search(r"\./configure (--enable-experimental-jit .*universal2) ", workflow)
    assert match is not None
    major, minor = map(int, version.split("."))
    llvm = re.search(r"LLVM_VERSION: (\d+)", workflow)
    assert llvm is not None
    mac.add_llvm(f"/opt/homebrew/opt/llvm@{llvm[1]}", f"{llvm[1]}.1.0")
    spec = make_spec(source((major, minor), llvm[1]), JIT, Arch.AARCH64, Strategy.NATIVE, toolchain(mac))
    ours = [argument.removesuffix("=yes") for argument in spec.configure.argv]
    assert set(match[1].split()) <= set(ours)
    exports = dict(
        re.findall(r"export (\w+)=['\"]?([^'\"\n]+)", workflow.partition("  macos:")[2].partition("  linux:")[0])
    )
    assert exports.pop("SDKROOT").startswith("$(xcrun --show-sdk-path")
    assert exports
    assert exports.items() <= spec.environment.items()
    assert spec.environment["SDKROOT"] == SDK
    assert any("./python.exe" in command.argv for command in spec.commands)
    assert "./python.exe -m test" in workflow


def test_older_versions_have_no_universal_build(mac: Machine) -> None:
    mac.add_llvm("/opt/homebrew/opt/llvm@18", "18.1.8")
    spec = make_spec(source((3, 13), "18"), JIT, Arch.AARCH64, Strategy.NATIVE, toolchain(mac))
    assert "universal" not in spec.configure_line
    assert "MACOSX_DEPLOYMENT_TARGET" not in spec.environment
    assert spec.environment["SDKROOT"] == SDK


def test_runners_are_upstreams() -> None:
    workflow = (WORKFLOWS / "3.15/jit.yml").read_text()
    for arch in Arch:
        block = re.search(rf"target: {arch}-apple-darwin/clang\n\s+runner: (\S+)", workflow)
        assert block is not None
        assert Platform.MACOS.runner(arch) == block[1]
        assert Platform.LINUX.runner(arch) == arch.runner


# -- platforms in cells' names


def test_a_cell_names_its_platform_unless_it_is_linux() -> None:
    linux, macos = Cell("3.15", Arch.AARCH64, "jit"), Cell("3.15", Arch.AARCH64, "jit", Platform.MACOS)
    assert (str(linux), linux.slug) == ("3.15/aarch64/jit", "3.15-aarch64-jit")
    assert (str(macos), macos.slug) == ("3.15/macos-aarch64/jit", "3.15-macos-aarch64-jit")
    assert linux != macos
    assert [plan.parse_cell(str(cell)) for cell in (linux, macos)] == [linux, macos]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["aarch64"], ((Arch.AARCH64,), None)),
        (["macos-aarch64,macos-x86_64"], ((Arch.AARCH64, Arch.X86_64), Platform.MACOS)),
        (["macos-all"], (tuple(Arch), Platform.MACOS)),
        (["linux-x86_64"], ((Arch.X86_64,), Platform.LINUX)),
        ([], ((), None)),
    ],
)
def test_archs_with_a_platform(words: list[str], expected: object) -> None:
    assert plan.parse_places(words) == expected


@pytest.mark.parametrize("words", [["macos-arm64"], ["windows-x86_64"], ["macos-"]])
def test_archs_that_do_not_exist(words: list[str]) -> None:
    with pytest.raises(UserError, match="there is no arch"):
        plan.parse_places(words)


def test_archs_of_two_platforms_are_for_two_machines() -> None:
    with pytest.raises(UserError, match="expected those of one platform"):
        plan.parse_places(["macos-aarch64", "x86_64"])
    assert plan.parse_all_places(["macos-aarch64,x86_64"]) == {
        Platform.MACOS: (Arch.AARCH64,),
        None: (Arch.X86_64,),
    }


def test_cells_are_of_the_engines_platform() -> None:
    loaded = recipes.gather(("3.15",), PROJECT / "recipes", suites=("jit", "ft-smoke", "full", "jit-stress", "no-opt"))
    selector = plan.Selector(recipes=("3.15",), variants=("jit",))
    (cell,) = plan.select(loaded, selector, Arch.AARCH64, Platform.MACOS).cells
    assert str(cell) == "3.15/macos-aarch64/jit"


def test_a_matrix_with_both() -> None:
    cells = [Cell("3.15", Arch.AARCH64, "jit", platform) for platform in Platform]
    include = matrix.matrix(cells)["include"]
    assert isinstance(include, list)
    assert [(job["cell"], job["runner"], job["platform"]) for job in include] == [
        ("3.15/aarch64/jit", "ubuntu-24.04-arm", "linux"),
        ("3.15/macos-aarch64/jit", "macos-26", "macos"),
    ]


# -- who may use it, and what its verdicts say


def request(text: str | None = None, *, trusted: bool = False, arch: Arch = Arch.AARCH64) -> CellRequest:
    loaded = recipes.gather(("3.15",), PROJECT / "recipes", suites=("jit", "ft-smoke", "full", "jit-stress", "no-opt"))
    recipe = loaded["3.15"]
    cell = Cell("3.15", arch, "jit", Platform.MACOS)
    return CellRequest(cell, recipe, recipe.variants["jit"], Strategy.NATIVE, source=text, trusted=trusted)


STRANGERS = [
    "https://example.org/cpython#main",
    "https://github.com/python/cpython/pull/12345",
    "https://example.org/Python-3.15.0.tar.xz",
]


@pytest.mark.parametrize("text", STRANGERS)
def test_a_strangers_source_needs_trust(text: str) -> None:
    with pytest.raises(UserError, match="its source is a stranger's, and nothing isolates it") as caught:
        on_host.require_trust(facts(), request(text))
    assert "--trust" in caught.value.hint
    assert caught.value.exit_code == 2
    on_host.require_trust(facts(), request(text, trusted=True))
    on_host.require_trust(replace(facts(), lacks=()), request(text))  # an engine of containers isolates it


def test_recipes_and_checkouts_need_none(tmp_path: Path) -> None:
    on_host.require_trust(facts(), request())
    on_host.require_trust(facts(), request(str(tmp_path)))


def test_cells_that_the_host_cannot_run() -> None:
    cells = {cell.arch: cell for cell in (request(arch=arch).cell for arch in Arch)}
    on_host.require_cells(facts(), [cells[Arch.AARCH64]])
    with pytest.raises(UserError, match="cannot be built on this host"):
        on_host.require_cells(facts(), [cells[Arch.X86_64]])
    with pytest.raises(UserError, match="needs an engine on macos; this one is on linux") as caught:
        on_host.require_cells(facts(Platform.LINUX), [cells[Arch.AARCH64]])
    assert "CROSSJIT_ENGINE=host" in caught.value.hint


def test_verdicts_say_that_nothing_was_isolated() -> None:
    assert on_host.remarks(replace(facts(), lacks=())) == ()
    assert on_host.remarks(facts(Platform.LINUX)) == ("built and run without isolation, on this host",)
    assert on_host.remarks(facts()) == (
        "built and run without isolation, on this host",
        "crossjit's part for macOS has not yet been run on macOS",
    )


def test_an_executable_of_macos_is_judged_by_its_own_header() -> None:
    cell = request().cell
    probe = {"executable": {"path": "/x", "machine": "ARM64", "bits": 64, "order": "little"}}
    _, reasons = judge(cell, JIT, probe, ())
    assert not [reason for reason in reasons if reason.startswith("the executable")]
    _, reasons = judge(replace(cell, platform=Platform.LINUX), JIT, probe, ())
    assert "the executable is for ARM64, not EM_AARCH64" in reasons


# -- doctor and setup


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", engine="host", prepare=True)


def test_doctor_on_an_able_mac(mac: Machine, settings: Settings) -> None:
    found = {check.name: check for check in host.check(settings, shell=mac)}
    assert not [check for check in found.values() if check.status is Status.FAIL]
    assert found["isolation"].status is Status.WARN
    assert "not yet been run on macOS" in found["isolation"].found
    assert found["LLVM 21"].found == f"21.1.8 in {mac.root}/opt/homebrew/opt/llvm@21"
    assert "docker" not in " ".join(found)


@pytest.mark.parametrize(
    ("name", "check", "remedy"),
    [
        ("gcc", "C compiler", "xcode-select --install"),
        ("make", "make", "xcode-select --install"),
        ("python3", "Python for builds", "brew install"),
        ("xcrun", "SDK", "xcode-select --install"),
    ],
)
def test_doctor_says_what_a_mac_lacks(mac: Machine, settings: Settings, name: str, check: str, remedy: str) -> None:
    (mac.bin / name).unlink()
    failed = [each for each in host.check(settings, shell=mac) if each.status is Status.FAIL]
    assert [each.name for each in failed] == [check]
    assert remedy in failed[0].remedy[0]
    with pytest.raises(InfrastructureError, match=f"this host lacks {check}") as caught:
        host.ensure(settings, None, print, shell=mac)
    assert "crossjit installs nothing" in caught.value.hint


def test_doctor_without_an_llvm(tmp_path: Path, settings: Settings) -> None:
    machine = Machine(tmp_path, "Darwin", "arm64", MACOS_PROGRAMS)
    (failed,) = (each for each in host.check(settings, shell=machine) if each.status is Status.FAIL)
    assert (failed.name, failed.remedy[0]) == ("LLVM", "brew install llvm@21")
    host.ensure(settings, None, print, shell=machine)  # some variants need none
    machine.add_llvm("/opt/homebrew/opt/llvm@21", "21.1.8", without="llvm-dwarfdump")
    (failed,) = (each for each in host.check(settings, shell=machine) if each.status is Status.FAIL)
    assert failed.found.endswith("lacks llvm-dwarfdump")


def test_a_python_that_is_too_old_for_the_stencils(mac: Machine, settings: Settings) -> None:
    mac.add("python3", "echo Python 3.9.6")
    (failed,) = (each for each in host.check(settings, shell=mac) if each.status is Status.FAIL)
    assert (failed.name, failed.found) == ("Python for builds", "Python 3.9.6: too old")


def test_setup_installs_nothing(tmp_path: Path, settings: Settings) -> None:
    called = tmp_path / "called"
    bare = Machine(tmp_path, "Linux", "x86_64", dict.fromkeys(("apt-get", "sudo"), f"echo $0 $* >>{called}"))
    with pytest.raises(InfrastructureError, match="this host lacks") as caught:
        host.setup(settings, None, print, shell=bare)
    assert any("apt-get install build-essential" in line for line in caught.value.details)
    assert not called.exists()


def test_setup_with_nothing_to_do(mac: Machine, settings: Settings) -> None:
    said: list[str] = []
    repair = host.setup(settings, None, said.append, shell=mac)
    assert repair.commands == ()
    assert "nothing to do" in said[0]


def test_a_machine_that_is_unknown(tmp_path: Path, settings: Settings) -> None:
    machine = Machine(tmp_path, "SunOS", "sparc64", {})
    (failed,) = (each for each in checks(host.inspect(settings, machine)) if each.status is Status.FAIL)
    assert failed.name == "machine"


def test_this_machine(settings: Settings) -> None:
    """What the tests run on has at least a compiler's name for itself."""
    found = tools.find(LocalShell(), Platform.LINUX, Arch.X86_64)
    assert found.description["system"]
    assert os.uname().sysname == Platform.LINUX.system
