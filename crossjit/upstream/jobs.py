"""CPython's CI jobs as far as they build and test CPython: the configure line, the tests, and the architecture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from crossjit.errors import UserError, did_you_mean
from crossjit.model import Arch
from crossjit.upstream import workflows
from crossjit.upstream.expressions import UNKNOWN_TEXT
from crossjit.upstream.shell import Invocation, ShellError, interpret
from crossjit.upstream.translation import translation
from crossjit.upstream.workflows import WORKSPACE, Job, Step

# Those whose jobs configure and test CPython, where a source has them.
FILES = ("jit.yml", "build.yml", "tail-call.yml")

# What targets of CPython's Makefile pass to `python -m test` (Makefile.pre.in).
MAKE_TESTS: Mapping[str, tuple[str, ...]] = {
    "ci": ("--fast-ci",),
    "test": ("--fast-ci",),
    "testall": ("-u", "all"),
    "buildbottest": ("--slow-ci",),
}
_MATTERS = re.compile(rf"\bconfigure\b|\bmake\b|\bpython\S*\s+-m\s+test\b|{workflows.FOLDER}|GITHUB_ENV|\bexport\b")
_PYTHON = re.compile(r"(?:.*/)?python(?:\.exe)?|\./python")
_HOST = re.compile(r"--host=([a-z0-9_]+)-")
_NEVER_KNOWN = ("PATH", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class TestRun:
    """One call of `python -m test`: its arguments and the variables that the call or its step sets.

    `skipped` is the condition by which GitHub skips the step; `may_fail` tells whether the job passes if it fails.
    """

    arguments: tuple[str, ...]
    env: Mapping[str, str]
    place: str
    skipped: str = ""
    may_fail: bool = False


@dataclass(frozen=True)
class UpstreamJob:
    """A job: `configure` is its configure line without the program, and `env` the variables that configure sees.

    `arch` is the architecture of the CPython that it builds. `tests` are the calls of regrtest that GitHub runs, or
    those that it skips if it runs none. `obstacle` says why the job cannot be run in a container.
    """

    name: str
    runner: str
    place: str
    arch: Arch | None = None
    configure: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    tests: tuple[TestRun, ...] = ()
    obstacle: str = ""


def read(files: Mapping[str, bytes], names: Sequence[str] = FILES) -> tuple[UpstreamJob, ...]:
    """Read the jobs of a source's workflows, which are given by file name. Raises WorkflowError."""
    return tuple(understand(job) for name in names if name in files for job in workflows.jobs_of(files, name))


def find(jobs: Sequence[UpstreamJob], name: str) -> UpstreamJob:
    """Find a job by its name, with or without its workflow's; case and white space do not matter.

    Raises UserError if there is none, or more than one.
    """
    wanted = _folded(name)
    found = [job for job in jobs if wanted in (_folded(job.name), _folded(job.name.partition(" / ")[2]))]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"{name!r} is the name of {len(found)} jobs",
            hint="give the workflow's name, too",
            details=tuple(job.name for job in found),
        )
    names = [each for job in jobs for each in (job.name, job.name.partition(" / ")[2])]
    raise UserError(f"there is no job {name!r}{did_you_mean(name, names)}", hint="--list shows the jobs")


def _folded(name: str) -> str:
    return "".join(name.casefold().split())


def understand(job: Job) -> UpstreamJob:
    """Say what a job configures and tests."""
    known = UpstreamJob(job.name, job.runner, f"{job.file}:{job.line}")
    if job.problem:
        return replace(known, obstacle=job.problem)
    if job.system != "Linux":
        return replace(known, obstacle=f"it runs on {job.system}, which no container provides")
    try:
        return _on_linux(job, known)
    except _NotUnderstoodError as error:
        return replace(known, obstacle=str(error))


class _NotUnderstoodError(ValueError):
    pass


def _on_linux(job: Job, known: UpstreamJob) -> UpstreamJob:
    configure: tuple[Invocation, str] | None = None
    tests: list[TestRun] = []
    for step, command in _commands(job):
        place = f"{job.file}:{step.line}"
        if command.argv[0].rpartition("/")[2] == "configure" and step.runs is not False:
            configure = command, place  # a cross build configures its build Python before itself
        elif (arguments := _test_arguments(command)) is not None:
            _require_known(arguments, place)
            skipped = step.condition if step.runs is False else ""
            tests.append(TestRun(arguments, _own_env(command), place, skipped, step.may_fail))
    if configure is None:
        return replace(known, obstacle="it does not configure CPython by itself")
    command, place = configure
    dropped = translation().dropped
    _require_known([word for word in command.argv if word.partition("=")[0] not in dropped], place)
    return replace(
        known,
        arch=_arch_of(job.runner, command.argv),
        configure=command.argv[1:],
        env=_own_env(command),
        tests=tuple(test for test in tests if not test.skipped) or tuple(tests),
    )


def _commands(job: Job) -> Iterator[tuple[Step, Invocation]]:
    """Yield the commands of a job's steps; a step that GitHub skips is read for its tests alone."""
    env = {"GITHUB_WORKSPACE": WORKSPACE, **job.env}
    for step in job.steps:
        if not _MATTERS.search(step.script):
            continue
        try:
            script = interpret(step.script, {**env, **step.env})
        except ShellError as error:
            raise _NotUnderstoodError(f"{job.file}:{step.line}, line {error.line} of the script: {error}") from error
        if step.runs is not False:
            env |= script.later
        yield from ((step, command) for command in script.commands if command.argv)


def _test_arguments(command: Invocation) -> tuple[str, ...] | None:
    """Return what a command passes to `python -m test`, None if it does not run that."""
    argv = command.argv
    if argv[0] == "xvfb-run":
        argv = argv[1:]
    if not argv:
        return None
    if _PYTHON.fullmatch(argv[0]) and argv[1:3] == ("-m", "test"):
        return argv[3:]
    if argv[0] == "make" and (target := next((word for word in argv[1:] if word in MAKE_TESTS), "")):
        options = dict(word.partition("=")[::2] for word in argv[1:] if "=" in word)
        return (*MAKE_TESTS[target], *options.get("TESTOPTS", "").split(), *options.get("EXTRATESTOPTS", "").split())
    return None


def _own_env(command: Invocation) -> Mapping[str, str]:
    """Return the variables that the job's scripts set for a command, without those that say where things are."""
    return {
        name: value
        for name, value in command.env.items()
        if UNKNOWN_TEXT not in value and name not in _NEVER_KNOWN and not name.startswith("GITHUB_")
    }


def _require_known(words: Sequence[str], place: str) -> None:
    for word in words:
        if UNKNOWN_TEXT in word:
            shown = word.replace(UNKNOWN_TEXT, "…")
            raise _NotUnderstoodError(f"{place}: the argument {shown!r} depends on what only a running job knows")


def _arch_of(runner: str, configure: Sequence[str]) -> Arch | None:
    """Return the arch that is built for: the one of `--host`, or else the runner's."""
    hosts = (match[1] for word in configure if (match := _HOST.match(word)))
    name = next(hosts, "aarch64" if runner.endswith("-arm") else "x86_64")
    return next((arch for arch in Arch if arch.value == name), None)
