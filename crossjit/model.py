"""What things are: architectures, variants, cells, outcomes, verdicts. Frozen values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Arch(StrEnum):
    """The architecture that the built CPython runs on."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"

    @property
    def debian(self) -> str:
        """Debian's name, `amd64` or `arm64`; container platforms use the same words."""
        return {Arch.X86_64: "amd64", Arch.AARCH64: "arm64"}[self]

    @property
    def platform(self) -> str:
        """The OCI platform, such as `linux/arm64`."""
        return f"linux/{self.debian}"

    @property
    def triple(self) -> str:
        """The GNU triple that Debian's compilers and configure use."""
        return f"{self.value}-linux-gnu"

    @property
    def elf_machine(self) -> str:
        """The ELF header's machine, in pyelftools' words."""
        return {Arch.X86_64: "EM_X86_64", Arch.AARCH64: "EM_AARCH64"}[self]


class Strategy(StrEnum):
    """How a cell is built on this host."""

    NATIVE = "native"
    CROSS = "cross"
    EMULATE = "emulate"


class Expectation(StrEnum):
    """What the probe must find for a green to prove something about the JIT."""

    MACHINE_CODE = "machine-code"
    UOPS = "uops"
    NONE = "none"


@dataclass(frozen=True)
class Emulator:
    """What the kernel starts for programs of a foreign arch, as registered in binfmt_misc.

    `name` is the handler's; `version` QEMU's (`7.2.22`), None where the interpreter cannot be seen from here; `fixed`
    is binfmt's flag F: the interpreter was opened at registration, so that containers need none inside; `cpu` the model
    that it plays by default.
    """

    arch: Arch
    name: str
    interpreter: str
    version: str | None
    fixed: bool
    enabled: bool
    cpu: str

    @property
    def usable(self) -> bool:
        """Whether containers, which have no QEMU inside, can run programs of this arch."""
        return self.enabled and self.fixed


@dataclass(frozen=True)
class HostAbility:
    """What the engine's machine can run: its own arch, and others through `emulators`.

    `local` is False where the engine is on another machine than this process (remote, Docker Desktop): then what is
    registered there cannot be seen, and foreign archs are unknown rather than impossible.
    """

    arch: Arch
    emulators: Mapping[Arch, Emulator]
    local: bool = True

    def runs(self, arch: Arch) -> bool | None:
        """Whether containers of this arch run here; None if that is not known before one is tried."""
        if arch is self.arch:
            return True
        if not self.local:
            return None
        emulator = self.emulators.get(arch)
        return emulator is not None and emulator.usable


class Outcome(StrEnum):
    """One test's result."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    TIMED_OUT = "timed out"
    CRASHED = "crashed"

    @property
    def is_bad(self) -> bool:
        """Whether the outcome, unless it is known and listed, makes the cell fail."""
        return self not in (Outcome.PASSED, Outcome.SKIPPED)


class Verdict(StrEnum):
    """A cell's result. `vacuous` is green that proved nothing; `infra` is our side or the engine's."""

    PASS = "pass"
    FAIL = "fail"
    VACUOUS = "vacuous"
    INFRA = "infra"
    ABORTED = "aborted"


@dataclass(frozen=True)
class ExtraPackages:
    """Debian packages that a variant needs beside an image's own, as `image.toml` has them.

    `toolchain` are programs of the toolchain image, `libraries` what is linked to, for both archs; `target` is what the
    built CPython loads.
    """

    toolchain: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    target: tuple[str, ...] = ()


TOOLS = "{tools}"  # in a variant's environment: the folder of CPython's Tools


@dataclass(frozen=True)
class Variant:
    """One way to configure CPython, from `recipes/variants.toml`.

    `configure` holds arguments for configure; `expects` what the probe must find; `suites` the names of the suites
    that `validate` runs, in order, after the probe. `environment` is what it is built and run with, `packages` what the
    images get for it, `arches` what it can be built for.
    """

    name: str
    summary: str
    configure: tuple[str, ...]
    suites: tuple[str, ...]
    expects: Expectation = Expectation.NONE
    debug: bool = False
    free_threaded: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    packages: ExtraPackages = field(default_factory=ExtraPackages)
    arches: tuple[Arch, ...] = tuple(Arch)

    @property
    def is_shared(self) -> bool:
        """Whether its program loads libpython."""
        said = [each.partition("=") for each in self.configure]
        last = next((each for each in reversed(said) if each[0] in ("--enable-shared", "--disable-shared")), None)
        return last is not None and last[0] == "--enable-shared" and last[2] != "no"

    def variables(self, tools: str) -> Mapping[str, str]:
        """Return its environment where CPython's Tools are in this folder."""
        return {name: value.replace(TOOLS, tools) for name, value in self.environment.items()}

    @property
    def needs_llvm(self) -> bool:
        """Whether configure looks for clang; `interpreter` needs none (upstream's `Tools/jit/README.md`)."""
        return any(
            argument.startswith("--enable-experimental-jit") and not argument.endswith(("=no", "=interpreter"))
            for argument in self.configure
        )

    @property
    def is_plain(self) -> bool:
        """Whether what it compiles from Python is what a build without options does: only the JIT's option is given.

        Free-threaded builds differ in marshal's reference flags, which follow from reference counts.
        """
        plain = all(argument.startswith("--enable-experimental-jit") for argument in self.configure)
        return plain and not self.debug and not self.free_threaded


@dataclass(frozen=True, order=True)
class Cell:
    """recipe x arch x variant: the unit of work, of caching, of CI. Written `3.15/aarch64/jit`."""

    recipe: str
    arch: Arch
    variant: str

    def __str__(self) -> str:
        return f"{self.recipe}/{self.arch}/{self.variant}"

    @property
    def slug(self) -> str:
        """The name with characters that are safe in file and container names: `3.15-aarch64-jit`."""
        return f"{self.recipe}-{self.arch}-{self.variant}"


@dataclass(frozen=True)
class TestResult:
    """One test's outcome. `seconds` is wall time in the target.

    `known` is the reason of the known failure that it matched; on a test that passed, of one that did not come.
    """

    __test__ = False  # not a test class, whatever pytest makes of its name

    suite: str
    name: str
    outcome: Outcome
    seconds: float = 0.0
    message: str = ""
    known: str | None = None

    @property
    def went_wrong(self) -> bool:
        """Whether it makes the cell fail: a bad outcome that is not known."""
        return self.outcome.is_bad and self.known is None

    @property
    def failed_as_known(self) -> bool:
        """Whether it failed as a known failure says."""
        return self.outcome.is_bad and self.known is not None

    @property
    def passed_unexpectedly(self) -> bool:
        """Whether it is listed as a known failure and passed."""
        return self.outcome is Outcome.PASSED and self.known is not None


@dataclass(frozen=True)
class ModuleRun:
    """One process of a suite: a module of regrtest, or a script of ours.

    `name` is regrtest's (`test_capi.test_opt`) or the script's stem, `label` its group's; `seconds` is wall time in the
    target; `how` says how it ended (`exit status 0`); `log` is a file's name in the suite's folder of the run record.
    """

    name: str
    label: str
    seconds: float
    how: str
    log: str

    @property
    def key(self) -> str:
        """The name with the label: `test_dict [stress]`."""
        return f"{self.name} [{self.label}]" if self.label else self.name


@dataclass(frozen=True)
class Crash:
    """A process of a suite that crashed or hung.

    `test` is what was running, as far as that is known, `module` the process by its key, `how` says how it ended,
    `command` is its command line as one would type it in the target, `traceback` what faulthandler wrote at the end,
    and `log` the file in the suite's folder of the run record.
    """

    test: str
    module: str
    how: str
    command: str
    traceback: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class SuiteResult:
    """All that one suite said. `seconds` is wall time; `caveats` say what the result is no evidence of.

    `problems` are what went wrong beside the tests and makes the cell fail; `unproved` says why a green would prove too
    little (a module that had to run ran no test); `notes` are worth a line and change nothing. `modules` are its
    processes in the order in which they ended. `circumstances` are those it ran in, as conditions ask for them, and
    `capabilities` what the target was found to be capable of: {name: {"works": bool or None, "detail": text}}.
    `crashes` are the processes that did not end by themselves. `limits` are those of the problems that are a limit of
    ours or of the machine: they say nothing about CPython.
    """

    suite: str
    results: tuple[TestResult, ...]
    seconds: float
    caveats: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    unproved: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    modules: tuple[ModuleRun, ...] = ()
    circumstances: dict[str, object] = field(default_factory=dict)
    capabilities: dict[str, object] = field(default_factory=dict)
    crashes: tuple[Crash, ...] = ()
    limits: tuple[str, ...] = ()

    def count(self, *outcomes: Outcome) -> int:
        """Return the number of tests with one of these outcomes."""
        return sum(result.outcome in outcomes for result in self.results)

    @property
    def tests_run(self) -> int:
        """Return the number of tests that really ran: all but the skipped ones."""
        return len(self.results) - self.count(Outcome.SKIPPED)


@dataclass(frozen=True)
class CellResult:
    """A cell's verdict with its reasons, and what it rests on. Durations are wall seconds by phase.

    `details` are lines to show below the reasons: the command that failed and the end of what it said. `caches` says
    how often each cache of the build had an answer and how often not, by its name: (hits, misses). `made_of` is the
    whole id of the artifact that the cell's was made of, where nothing but tests differed.
    """

    cell: Cell
    verdict: Verdict
    reasons: tuple[str, ...]
    artifact: str | None = None
    build_key: str | None = None
    from_stash: bool = False
    strategy: Strategy | None = None
    probe: dict[str, object] = field(default_factory=dict)
    suites: tuple[SuiteResult, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    details: tuple[str, ...] = ()
    caches: dict[str, tuple[int, int]] = field(default_factory=dict)
    made_of: str | None = None

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the result is no evidence of, each once."""
        return tuple(dict.fromkeys(caveat for suite in self.suites for caveat in suite.caveats))
