"""Shrinking a failing script with shrinkray, which runs beside the CPython under test.

shrinkray and Debian's Python run natively in a toolchain container, whatever arch the script fails on: that image has
the libraries of all archs, so the CPython under test runs there as well, under QEMU if it is foreign. Each candidate
then costs one start of that CPython. The smallest script is run again in the cell's own target.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, log
from pathlib import Path
from typing import Any

import crossjit
from crossjit.build.container import container_name
from crossjit.engine.base import Container, ContainerOptions
from crossjit.errors import InfrastructureError, Interrupted, UserError
from crossjit.host import LocalShell, Shell
from crossjit.host.wheels import WheelTarget, fetch
from crossjit.images import Image, Role
from crossjit.model import Cell
from crossjit.pipeline.context import BuildContext, PreparedCell
from crossjit.pipeline.packages import FOLDER as PACKAGES
from crossjit.progress import Step
from crossjit.triage.decide import Experiment, Next
from crossjit.triage.diagnosis import ExperimentResult
from crossjit.triage.experiments import Experiments
from crossjit.triage.failure import of_counts
from crossjit.triage.odds import REPEATS_STABLE, Count
from crossjit.triage.rerun import RerunCounts, TestRerun, factor
from crossjit.triage.user_script import FOLDER, SUITE, Script, condition_tests
from crossjit.util.safe_files import first_file
from crossjit.util.tar import packed
from crossjit.util.text import pluralize
from crossjit.validation.failure import Failure
from crossjit.validation.target import (
    HOME,
    MARGIN,
    PYTHON,
    SCRIPTS,
    TESTER,
    Target,
    container_options,
    memory_for,
    target_limits,
)

SHRINKRAY = "shrinkray>=25.12,<=26.7.5.3"  # later ones download grammars while they run, and need a language model
ROOT = "/usr/local/libexec/reducer"  # of what is installed for it in the container
LIBRARIES = f"{ROOT}/libraries"
CONTRAST = f"{ROOT}/passing"  # the root of a CPython in which the script passes
WORK = f"{HOME}/reduce"
ORDER = f"{WORK}/order.json"
HANG_SECONDS = 10  # the limit of a script that hangs, natively
MISSED = 0.05  # the accepted probability that a script with an intermittent failure is thought to pass
MOST_RUNS = 20

# Where a script that fails may pass: there a smaller one must pass as well, or else any failure of the same kind would
# do, such as `assert 0`. A further one is taken only if its run is cheap and it is built already.
_CONTRASTS = (Experiment.JIT_OFF, Experiment.NATIVE, Experiment.OTHER_ARCH)
_CHEAP = Experiment.NATIVE


class End(StrEnum):
    """Why it went no further."""

    SMALLEST = "nothing more can be left out"
    TIME = "the time was up"
    INTERRUPTED = "it was interrupted"


@dataclass(frozen=True)
class Reduction:
    """A smaller script that fails as the original. `passes` describes where both pass.

    `count` are its outcomes in the cell's target, None if it was not run there.
    """

    cell: Cell
    before: Script
    after: Script
    failure: Failure
    env: Mapping[str, str]
    passes: tuple[str, ...]
    tried: int
    end: End
    count: Count | None = None


@dataclass(frozen=True)
class FailingScript:
    """A script's failure: under which condition, how, and how often."""

    test: TestRerun
    result: ExperimentResult
    failure: Failure

    @property
    def runs(self) -> int:
        """The number of runs after which a script that fails as often has failed at least once, almost surely."""
        count = self.result.count
        return 1 if count.fails else min(MOST_RUNS, ceil(log(MISSED) / log(count.passed / count.ran)))


@dataclass(frozen=True)
class _Contrast:
    """Where the script passes: the target and the variables."""

    experiment: Experiment
    target: Target
    env: Mapping[str, str]

    @property
    def is_native(self) -> bool:
        """Whether it is a different CPython, in a root of its own."""
        return self.experiment is not Experiment.JIT_OFF


MakeExperiments = Callable[[Script, bool], Experiments]
"""Makes the experiments of a script; the second argument says whether they may build."""


def reduce(
    ctx: BuildContext,
    prepared: PreparedCell,
    script: Script,
    make: MakeExperiments,
    *,
    minutes: int,
    shell: Shell | None = None,
) -> Reduction:
    """Shrink a script for as long as it fails in the same way in this cell; `verify` runs the result there.

    The script passes where the original passes: with the JIT off, or else natively. Raises UserError for a script that
    passes everywhere, EngineErrors.
    """
    experiments = make(script, True)
    failing = first_failure(experiments, prepared.cell, script)
    contrasts = _contrasts(make, script, failing)
    target, _ = experiments.target(Experiment.AGAIN)
    image = ctx.ensure_image(prepared.image, Role.TOOLCHAIN, ctx.facts.arch)
    libraries = _shrinkray(ctx, image, shell or LocalShell())
    order = _order(ctx, script, failing, contrasts, target, minutes)
    with ctx.progress.step("reduce", f"{prepared.cell}: {script.name}") as step:
        options = _options(ctx, prepared, image, target, minutes)
        with ctx.engine.container(options) as container:
            _install(container, target, contrasts, libraries, order)
            found = _Listener(step, len(script.content))
            try:
                container.run(
                    ("/usr/bin/python3", f"{ROOT}/reduce_script.py", ORDER),
                    on_line=found.take,
                    timeout=minutes * 60 + MARGIN,
                )
                end = found.end(script)
            except (Interrupted, KeyboardInterrupt):
                end = End.INTERRUPTED
            after = replace(script, content=_taken_out(container, script))
    passes = tuple(f"{contrast.target.cell}: {contrast.experiment}" for contrast in contrasts)
    env = dict(failing.test.env)
    return Reduction(prepared.cell, script, after, failing.failure, env, passes, found.tried, end)


def first_failure(experiments: Experiments, cell: Cell, script: Script) -> FailingScript:
    """Find the first condition in which the script fails. Raises UserError if there is none."""
    for test in condition_tests(experiments, script).values():
        (result,) = experiments.run([test], Next(Experiment.AGAIN, REPEATS_STABLE)).values()
        failure = _failure_of(result)
        if failure is not None:
            return FailingScript(test, result, failure)
    raise UserError(
        f"{script.name} passes in {cell} under every condition", hint="give the cell in which it fails, with --cell"
    )


def _failure_of(result: ExperimentResult) -> Failure | None:
    return of_counts(RerunCounts(result.count, result.message))


def _contrasts(make: MakeExperiments, script: Script, failing: FailingScript) -> tuple[_Contrast, ...]:
    """Find where the script passes; the cheapest come first."""
    found: list[_Contrast] = []
    for experiment in _CONTRASTS:
        experiments = make(script, not found)
        if experiment not in experiments.subject.can or (found and experiment is not _CHEAP):
            continue
        (result,) = experiments.run([failing.test], Next(experiment, REPEATS_STABLE)).values()
        if result.count.passes:
            target, env = experiments.target(experiment)
            contrast = _Contrast(experiment, target, env)
            if not (contrast.is_native and target.variant.is_shared):  # both have their library in the same place
                found.append(contrast)
    return tuple(sorted(found, key=lambda contrast: contrast.experiment is not _CHEAP))


def _shrinkray(ctx: BuildContext, image: Image, shell: Shell) -> Mapping[str, bytes]:
    """Get shrinkray for Debian's Python of the toolchain image."""
    python, libc = image.version("python3") or "", image.version("libc6") or ""
    major, minor = map(int, python.split(".")[:2])
    with ctx.progress.step("packages", "shrinkray"):
        target = WheelTarget(image.arch, (major, minor), free_threaded=False, glibc=int(libc.split(".")[1]))
        return fetch((SHRINKRAY,), target, shell).files


def _order(
    ctx: BuildContext,
    script: Script,
    failing: FailingScript,
    contrasts: Sequence[_Contrast],
    target: Target,
    minutes: int,
) -> dict[str, Any]:
    """Return the input of `reducer/reduce_script.py`."""
    order = json.loads(script.test.arguments[0])
    packages = PACKAGES if script.requirements else ""
    env = dict(failing.test.env)
    slower = factor(SUITE, target.conditions)
    passing = []
    for contrast in contrasts:
        root = CONTRAST if contrast.is_native else ""
        passing.append(
            {
                "python": f"{root}{PYTHON}",
                "packages": packages and f"{root}{packages}",
                "env": {**contrast.target.environment, **env, **contrast.env},
            }
        )
    return {
        "script": f"{WORK}/{script.name}",
        "order": {name: order[name] for name in ("arguments", "status", "text")},
        "runner": f"{SCRIPTS}/user_script.py",
        "failing": {"python": PYTHON, "packages": packages, "env": {**target.environment, **env}},
        "passing": passing,
        "cheap": sum(contrast.experiment is _CHEAP for contrast in contrasts),
        "runs": failing.runs,
        "seconds": failing.test.seconds * slower,
        "hang_seconds": min(HANG_SECONDS, script.seconds) * slower,
        "minutes": minutes,
        "jobs": ctx.jobs,
        "libraries": LIBRARIES,
    }


def _options(ctx: BuildContext, prepared: PreparedCell, image: Image, target: Target, minutes: int) -> ContainerOptions:
    limits = target_limits(memory_for(ctx.facts, ctx.jobs), minutes * 60 + 2 * MARGIN)
    base = {"HOME": HOME, "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", **target.emulation}
    name = container_name(f"reduce-{prepared.cell.slug}", ctx.run)
    return container_options(image, name, ctx.labels, base, limits)


def _install(
    container: Container,
    target: Target,
    contrasts: Sequence[_Contrast],
    libraries: Mapping[str, bytes],
    order: Mapping[str, Any],
) -> None:
    """Install the CPython under test, where the script passes, shrinkray, and our scripts."""
    target.install(container)
    own = {path.name: path.read_bytes() for path in sorted((crossjit.PROJECT / "reducer").glob("*.py"))}
    for name in ("__init__.py", "validation/__init__.py", "validation/failure.py", "validation/reason.py"):
        own[f"crossjit/{name}"] = (crossjit.PACKAGE / name).read_bytes()
    files = {f"{ROOT}/{name}": content for name, content in own.items()}
    files |= {f"{LIBRARIES}/{name}": content for name, content in libraries.items()}
    script = order["script"]
    own_files = {ORDER: json.dumps(order).encode(), script: target.files[f"{FOLDER}/{Path(script).name}"]}
    container.put(packed(files, {CONTRAST: 0}), "/")
    container.put(packed(own_files, {HOME: TESTER, WORK: TESTER}, owner=TESTER), "/")
    for contrast in (contrast for contrast in contrasts if contrast.is_native):
        with contrast.target.tree() as tar:
            container.put(tar, CONTRAST)
        packages = {path: content for path, content in contrast.target.files.items() if path.startswith(PACKAGES)}
        container.put(packed(packages), CONTRAST)


class _Listener:
    """Handles the lines of `reduce_script.py`."""

    def __init__(self, step: Step, size: int) -> None:
        self.tried = 0
        self._step = step
        self._last: dict[str, Any] = {}
        self._size = size

    def take(self, line: str) -> None:
        """Handle one line."""
        try:
            said = json.loads(line)
        except ValueError:
            self._step.line(line)
            return
        if not isinstance(said, dict):
            return
        self._last = said
        tried = said.get("tried")
        self.tried = tried if isinstance(tried, int) else self.tried
        if "size" in said:
            self._step.update(
                detail=(
                    f"{said['size']} of {self._size} bytes, {said.get('lines')} lines; "
                    f"{pluralize(self.tried, 'candidate')} tried"
                )
            )

    def end(self, script: Script) -> End:
        """Return why it ended. Raises an error if it could not do its work."""
        match self._last.get("ended"):
            case "smallest":
                return End.SMALLEST
            case "time":
                return End.TIME
            case "passes" | "fails everywhere" as how:
                raise UserError(
                    f"{script.name} fails in the target, and beside the compilers it {how}",
                    hint="it depends on the container that it runs in; look at it with debug",
                )
        raise InfrastructureError(
            "shrinkray failed",
            hint="its output is above; a different version may help: see docs/bug-reports.md",
            details=tuple(str(self._last.get("said", "")).splitlines()[-20:]),
        )


def _taken_out(container: Container, script: Script) -> bytes:
    with container.get(f"{WORK}/{script.name}") as tar:
        return first_file(tar, end=len(script.content))


def verify(done: Reduction, experiments: Experiments) -> Reduction:
    """Run the smaller script in the cell's target. Raises InfrastructureError if it does not fail as the original."""
    test = replace(done.after.test, env=tuple(sorted(done.env.items())))
    (result,) = experiments.run([test], Next(Experiment.AGAIN, REPEATS_STABLE)).values()
    failure = _failure_of(result)
    if failure is None or not failure.is_same(done.failure):
        raise InfrastructureError(
            f"the smaller script does not fail in {done.cell} as it did beside the compilers",
            hint="its failure may be rare: run it again, or try a part of the script by hand",
        )
    return replace(done, count=result.count)
