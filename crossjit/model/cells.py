"""Cells, variants, and build strategies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from crossjit.model.platform import Arch, Platform


class Strategy(StrEnum):
    """How a cell is built on this host; `installed` is one that was built elsewhere."""

    NATIVE = "native"
    CROSS = "cross"
    EMULATE = "emulate"
    INSTALLED = "installed"


class Expectation(StrEnum):
    """What the probe must find before passing tests prove something about the JIT."""

    MACHINE_CODE = "machine-code"
    UOPS = "uops"
    NONE = "none"


@dataclass(frozen=True)
class ExtraPackages:
    """Debian packages that a variant needs in addition to an image's own, written as in `image.toml`.

    `toolchain` are programs of the toolchain image, `libraries` are linked to, for both archs; `target` are loaded by
    the built CPython.
    """

    toolchain: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    target: tuple[str, ...] = ()


NO_OPTIMIZER: Mapping[str, str] = {"PYTHON_UOPS_OPTIMIZE": "0"}  # Python/optimizer.c
TOOLS = "{tools}"  # in a variant's environment: CPython's `Tools` folder


@dataclass(frozen=True)
class Variant:
    """One way to configure CPython, from `recipes/variants.toml`.

    `configure` holds arguments for configure; `expects` what the probe must find; `suites` the names of the suites
    that `validate` runs, in order, after the probe. `environment` is set when it is built and run, `test_environment`
    when its suites run, `packages` are added to its images, `arches` are those it can be built for. `packaged` says
    that it was built elsewhere, so that modules may be left out, or in packages of their own.
    """

    name: str
    summary: str
    configure: tuple[str, ...]
    suites: tuple[str, ...]
    expects: Expectation = Expectation.NONE
    debug: bool = False
    free_threaded: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    test_environment: Mapping[str, str] = field(default_factory=dict)
    packages: ExtraPackages = field(default_factory=ExtraPackages)
    arches: tuple[Arch, ...] = tuple(Arch)
    packaged: bool = False

    @property
    def optimizer(self) -> bool:
        """Whether its suites run with the JIT's optimizer."""
        return not NO_OPTIMIZER.items() <= self.test_environment.items()

    @property
    def is_shared(self) -> bool:
        """Whether its program loads libpython."""
        options = [option.partition("=") for option in self.configure]
        last = next(
            (option for option in reversed(options) if option[0] in ("--enable-shared", "--disable-shared")), None
        )
        return last is not None and last[0] == "--enable-shared" and last[2] != "no"

    def variables(self, tools: str) -> Mapping[str, str]:
        """Return its environment, given the path of CPython's `Tools` folder."""
        return {name: value.replace(TOOLS, tools) for name, value in self.environment.items()}

    @property
    def configures_jit(self) -> bool:
        """Whether configure gets the JIT's option, be it for the interpreter of its micro-operations only."""
        return any(
            argument.startswith("--enable-experimental-jit") and not argument.endswith("=no")
            for argument in self.configure
        )

    @property
    def needs_llvm(self) -> bool:
        """Whether configure looks for clang; `interpreter` does not need it (upstream's `Tools/jit/README.md`)."""
        return self.configures_jit and "--enable-experimental-jit=interpreter" not in self.configure

    @property
    def is_plain(self) -> bool:
        """Whether its bytecode files are those of a build without options: only the JIT's option is given.

        Free-threaded builds write different marshal reference flags, which depend on reference counts.
        """
        plain = all(argument.startswith("--enable-experimental-jit") for argument in self.configure)
        return plain and not self.debug and not self.free_threaded


@dataclass(frozen=True, order=True)
class Cell:
    """recipe x arch x variant: the unit of work, caching and CI.

    Written `3.15/aarch64/jit`, or `3.15/macos-aarch64/jit` if it is not for Linux.
    """

    recipe: str
    arch: Arch
    variant: str
    platform: Platform = Platform.LINUX

    @property
    def place(self) -> str:
        """The arch, with the platform unless it is Linux: `macos-aarch64`."""
        return self.platform.place(self.arch)

    def __str__(self) -> str:
        return f"{self.recipe}/{self.place}/{self.variant}"

    @property
    def slug(self) -> str:
        """The name with characters that are safe in file and container names: `3.15-aarch64-jit`."""
        return f"{self.recipe}-{self.place}-{self.variant}"
