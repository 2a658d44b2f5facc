"""Running a program under gdb in its target until it crashes, unattended or with the user at gdb's prompt.

gdb is installed in the target's container, so that it has the same files as the program. A program of the host's arch
is gdb's child; one of a foreign arch is run by QEMU, which waits for gdb to connect. gdb's own scripts are in `gdb/`.
"""

from __future__ import annotations

import json
import shlex
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import crossjit
from crossjit import PROGRAM, sources
from crossjit.build import layout
from crossjit.config import suites
from crossjit.config.conditions import TargetEnvironment
from crossjit.debugger import findings
from crossjit.debugger.findings import GdbReport
from crossjit.engine.base import Container, ContainerOptions, Engine
from crossjit.errors import InfrastructureError, UserError
from crossjit.images import Image, Role
from crossjit.known_failures import entries
from crossjit.model import Arch, Expectation, ModuleRun, Outcome, SuiteResult, TestResult
from crossjit.pipeline import validate_cell
from crossjit.pipeline.context import BuildContext, BuiltCell, PreparedCell
from crossjit.progress import Step
from crossjit.sources import Source
from crossjit.stash.artifact import GENERATED, INSTALL, Artifact
from crossjit.triage import rerun
from crossjit.triage.rerun import TestRerun
from crossjit.util import files, safe_files
from crossjit.util.budget import SUITE_MEMORY
from crossjit.util.tar import packed
from crossjit.validation import probe
from crossjit.validation import target as target_module
from crossjit.validation.target import Target

SCRIPTS = crossjit.PROJECT / "gdb"
TOOLS = "/usr/local/libexec/debug"  # in the target: our scripts
GDB = f"{TOOLS}/root"  # the debug image's /usr
ARTIFACT = f"{TOOLS}/generated"  # the artifact's generated files
HELPER = "python-gdb.py"  # CPython's own, from `Tools/gdb/libpython.py`
OUTPUT = f"{target_module.HOME}/debug"
SCRATCH = f"{target_module.HOME}/scratch"

REPORT, PROGRAM_LOG = "report.jsonl", "program.log"

# The parts of the debug image's /usr that gdb needs. It is started through its own loader, because the target's C
# library may have a different version or arch.
_PARTS = ("bin/gdb-multiarch", "lib", "share/gdb")

# Debug builds log what the JIT does: each trace as it is recorded and optimized, up to the crash.
VERBOSE_JIT = {"PYTHON_LLTRACE": "2", "PYTHON_OPT_DEBUG": "1"}
# Output before a crash must not be lost in buffers; this also unbuffers C's stdio.
UNBUFFERED = {"PYTHONUNBUFFERED": "1"}

MEMORY = 6 << 30  # bytes: a suite's module, and gdb with CPython's symbols
MARGIN = 900  # seconds in addition to the program's own, for installing and for gdb's report


@dataclass(frozen=True)
class Program:
    """A program to run under gdb. `env` is added to the target's; `seconds` is its time limit if unattended."""

    about: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    seconds: int = 600


def of_arguments(arguments: Sequence[str], env: TargetEnvironment) -> Program:
    """Return a program: the cell's Python with these arguments."""
    argv = (target_module.PYTHON, *arguments)
    return Program(" ".join(shlex.join(argv).split()), argv, seconds=rerun.sanity_test(env).seconds)


def of_probe(settings: Mapping[str, object]) -> Program:
    """Return the probe as a program."""
    script = f"{target_module.SCRIPTS}/probe.py"
    return Program(
        "the probe", (target_module.PYTHON, script, "--told", json.dumps(settings)), seconds=probe.PROBE_SECONDS
    )


def of_rerun(test: TestRerun, env: TargetEnvironment) -> tuple[Program, ...]:
    """Return the programs that run a test as its suite did: alone, then its whole module, if it only crashes there.

    Each is one process, as in a suite, but without regrtest's time-out, which would end a program under inspection.
    """
    variables = dict(test.env)
    if test.kind == "script":
        argv = (target_module.PYTHON, test.module, *test.arguments)
        return (Program(str(test), argv, variables, test.seconds),)
    suite = suites.load(test.suite) if test.suite else None
    resources = ",".join(suite.resources) if suite and suite.resources else "none"
    known = entries.possible(entries.load(), env)
    ignored = [word for name in entries.deselected(known) for word in ("--ignore", name)]
    regrtest = (target_module.PYTHON, "-m", "test", "--verbose", "--tempdir", SCRATCH, "--use", resources)
    options = (*ignored, *test.arguments, test.module)  # the last pattern that matches a test decides
    whole = Program(f"all of {test.module}", (*regrtest, *options), variables, test.seconds)
    if not test.match:
        return (whole,)
    return (Program(str(test), (*regrtest, "--match", test.match, *options), variables, test.seconds), whole)


def find(test: str, artifact: Artifact, env: TargetEnvironment, names: Iterable[str]) -> TestRerun:
    """Make a rerun of a test or module by name, as in the first of these suites that has the module.

    A name with a label, `test_dict [stress]`, is in the group of that label; one without in the first group. Raises
    UserError for a name that does not start with a test module of the artifact.
    """
    bare, bracket, label = test.removeprefix("test.").partition(" [")
    modules = modules_of(artifact.files()[INSTALL])
    fitting = [name for name in modules if bare == name or bare.startswith(f"{name}.")]
    if not fitting:
        raise UserError(
            f"this CPython has no test module that {test!r} begins with",
            hint=f"give a module, such as test_dict, or a test's full name as `{PROGRAM} runs show` has it",
        )
    module = max(fitting, key=len)
    name = f"test.{bare}"
    for suite in names:
        labels = [label.removesuffix("]")] if bracket else ["", *(group.label for group in suites.load(suite).groups)]
        for group in labels:
            named = f"{name} [{group}]" if group else name
            modules_run = (ModuleRun(module, group, 0.0, "", ""),)
            result = SuiteResult(suite, (TestResult(suite, named, Outcome.CRASHED),), 0.0, modules=modules_run)
            if reruns := rerun.of_results(result, env, [named]):
                return reruns[0]
    match = "" if bare == module else name
    return TestRerun(name, "", "module", module, match=match, seconds=rerun.sanity_test(env).seconds)


def modules_of(files: Iterable[str]) -> frozenset[str]:
    """Return regrtest's names of the test modules and packages in an install tree."""
    names = set()
    for file in files:
        _, _, inside = file.partition("/test/")
        path = inside.removesuffix("/__init__.py").removesuffix(".py")
        parts = path.split("/")
        if path != inside and all(part.startswith("test_") for part in parts):
            names.add(".".join(parts))
    return frozenset(names)


@dataclass(frozen=True)
class DebugTarget:
    """A built cell, its source, and gdb's image; `arch` and `memory` are the machine's."""

    engine: Engine
    arch: Arch
    memory: int
    target: Target
    artifact: Artifact
    source: Source | None
    image: Image

    @property
    def emulated(self) -> bool:
        """Whether QEMU runs the program."""
        return bool(self.target.emulation)

    @property
    def has_helper(self) -> bool:
        """Whether the artifact has CPython's helper for gdb."""
        return GENERATED in self.artifact.objects and any(
            name.rpartition("/")[2] == HELPER for name in self.artifact.files()[GENERATED]
        )


def debug_target(ctx: BuildContext, prepared: PreparedCell, built: BuiltCell) -> DebugTarget:
    """Return the debug target of a built cell; missing images are built."""
    arch = ctx.facts.arch
    return DebugTarget(
        engine=ctx.engine,
        arch=arch,
        memory=ctx.facts.memory,
        target=validate_cell.target_of(ctx, prepared, built, "debug"),
        artifact=built.artifact,
        source=prepared.source,
        image=ctx.ensure_image(prepared.image, Role.DEBUG, arch),
    )


def batch(bench: DebugTarget, programs: Sequence[Program], *, folder: Path, step: Step) -> GdbReport:
    """Run the programs one after the other until one crashes or reaches its time limit; return gdb's report.

    The program's output is stored in `folder`. Raises InfrastructureError if gdb produced no report, and EngineErrors.
    """
    variant = bench.target.variant
    if variant.debug and variant.expects is not Expectation.NONE:
        programs = [replace(program, env={**program.env, **VERBOSE_JIT}) for program in programs]
    seconds = sum(program.seconds for program in programs)
    output: deque[str] = deque(maxlen=30)

    def on_line(line: str) -> None:
        output.append(line)
        step.line(line)

    limits = target_module.target_limits(min(MEMORY, bench.memory * SUITE_MEMORY // 100), seconds + 3 * MARGIN)
    with bench.engine.container(bench.target.options(limits)) as container:
        step.update(detail="installing")
        install_gdb(bench, container, make_order(bench, programs, go=True, output=OUTPUT))
        step.update(detail=programs[0].about)
        completed = container.run(
            command(bench.arch, "-batch"), cwd=target_module.HOME, on_line=on_line, timeout=seconds + MARGIN
        )
        report = _text(container, f"{OUTPUT}/{REPORT}")
        with files.translate_os_errors(InfrastructureError, "cannot store the program's output", folder):
            files.replace(folder / PROGRAM_LOG, _text(container, f"{OUTPUT}/{PROGRAM_LOG}").encode())
    result = findings.read(report.split("\n"))
    if result is None or (result.stop is None and not result.ended):
        raise InfrastructureError(
            f"gdb produced no report: {completed.how}",
            hint="its last output is above; drop --batch to use its prompt",
            details=tuple(output),
        )
    return result


def prompt(bench: DebugTarget, programs: Sequence[Program], *, go: bool) -> int:
    """Hand the terminal to gdb. With `go` the programs run until one crashes, else the first one stops at its start.

    Returns gdb's exit status.
    """
    instructions = make_order(bench, programs, go=go, output=None)

    def prepare(container: Container) -> None:
        install_gdb(bench, container, instructions)
        if bench.source is not None:
            _put_source(bench.source, container)

    return bench.engine.shell(bench.target.options(), prepare, command(bench.arch), cwd=target_module.HOME)


def make_order(bench: DebugTarget, programs: Sequence[Program], *, go: bool, output: str | None) -> dict[str, object]:
    """Return the input of `gdb/session.py`, as JSON values."""
    common = {**bench.target.environment, "TMPDIR": SCRATCH, **UNBUFFERED}
    return {
        "program": target_module.PYTHON,
        "helper": f"{ARTIFACT}/{HELPER}" if bench.has_helper else None,
        "emulated": bench.emulated,
        "go": go,
        "output": output,
        "starts": [
            {
                "about": program.about,
                "argv": list(program.argv),
                "env": {**common, **program.env},
                "cwd": SCRATCH,
                "seconds": None if output is None else program.seconds,
            }
            for program in programs
        ],
    }


def command(arch: Arch, *options: str) -> tuple[str, ...]:
    """Return gdb's command line in a target; `arch` is the host's, and gdb's own.

    >>> command(Arch.X86_64, "-batch")[-4:-1]
    ('-nx', '-quiet', '-batch')
    """
    libraries = f"{GDB}/usr/lib/{arch.triple}"
    return (
        "env",
        f"PYTHONHOME={GDB}/usr",
        f"GCONV_PATH={libraries}/gconv",
        f"{libraries}/{arch.loader}",
        "--library-path",
        libraries,
        f"{GDB}/usr/bin/gdb-multiarch",
        f"--data-directory={GDB}/usr/share/gdb",
        "-nx",
        "-quiet",
        *options,
        f"--eval-command=python import sys; sys.path.insert(0, {TOOLS!r}); import session; session.main()",
    )


def install_gdb(bench: DebugTarget, container: Container, instructions: Mapping[str, object]) -> None:
    """Install the artifact, gdb, CPython's helper, our scripts and their order in a target's container."""
    bench.target.install(container)
    parents = {f"{GDB}/usr/{part}".rpartition("/")[0] for part in _PARTS}
    scripts = {f"{TOOLS}/{path.name}": path.read_bytes() for path in sorted(SCRIPTS.glob("*.py"))}
    files = {**scripts, f"{TOOLS}/order.json": json.dumps(instructions).encode()}
    folders = dict.fromkeys((TOOLS, GDB, f"{GDB}/usr", *sorted(parents), ARTIFACT), 0)
    container.put(packed(files, {**folders, OUTPUT: target_module.TESTER, SCRATCH: target_module.TESTER}), "/")
    if GENERATED in bench.artifact.objects:
        with bench.artifact.open(GENERATED) as tar:
            container.put(tar, ARTIFACT)
    name = f"{bench.target.name}-gdb"
    with bench.engine.container(
        ContainerOptions(bench.image.reference, arch=bench.arch, name=name, labels=bench.target.labels)
    ) as image:
        for part in _PARTS:
            with image.get(f"/usr/{part}") as tar:
                container.put(tar, f"{GDB}/usr/{part}".rpartition("/")[0])


def _put_source(source: Source, container: Container) -> None:
    """Put the source where it was compiled, so that gdb can show it."""
    container.put(packed(folders={layout.ROOT: target_module.TESTER}), "/")
    with sources.open_tar(source) as tar:
        container.put(tar, layout.ROOT)
    container.run(("mv", f"{layout.ROOT}/{source.top}", layout.SOURCE))


def _text(container: Container, path: str) -> str:
    """Read the end of a file of the container; empty if it is missing. Raises BudgetError, UnfitFilesError."""
    try:
        with container.get(path) as stream:
            return safe_files.first_file(stream).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
