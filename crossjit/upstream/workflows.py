"""Expand GitHub Actions workflows to their jobs: matrices, and workflows that others call.

The rules are those of https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from crossjit.errors import SourceError
from crossjit.upstream.expressions import (
    UNKNOWN,
    Contexts,
    ExpressionError,
    Partial,
    evaluate_condition,
    evaluate_text,
    interpolate,
    text_of,
)

FOLDER = ".github/workflows"
WORKSPACE = "/crossjit/src"
_LOCAL = f"./{FOLDER}/"
# GitHub's limits
_DEEPEST = 4  # workflows that call each other
_MOST = 256  # jobs of a matrix
_SYSTEMS = {"ubuntu": "Linux", "macos": "macOS", "windows": "Windows"}


class WorkflowError(SourceError):
    """A workflow that cannot be read, or that has something whose meaning is not known here."""


@dataclass(frozen=True)
class Step:
    """One step that runs a script. `condition` is the text of its `if:`, `runs` whether that is true; None: unknown."""

    name: str
    script: str
    env: Mapping[str, str]
    folder: str
    line: int
    condition: str = ""
    runs: bool | None = True
    may_fail: bool = False


@dataclass(frozen=True)
class Job:
    """One job as GitHub runs it: `name` as it shows it, with the workflow's; `runner` is the label it runs on.

    `env` is what all steps have; `file` and `line` say where the job is defined. `problem` says why nothing more is
    known of the job; it is empty for all others.
    """

    name: str
    runner: str
    env: Mapping[str, str]
    steps: tuple[Step, ...]
    file: str
    line: int
    problem: str = ""

    @property
    def system(self) -> str:
        """The runner's operating system: Linux, macOS, Windows, or the label if that does not tell."""
        return _system_of(self.runner)


def jobs_of(files: Mapping[str, bytes], name: str) -> tuple[Job, ...]:
    """Return the jobs of a workflow file, in order. `files` are the files of FOLDER by name.

    Raises WorkflowError with file and line.
    """
    document = _read(files, name)
    title = str(document.get("name") or name)
    return tuple(replace(job, name=f"{title} / {job.name}") for job in _Expansion(files, name, document, {}, 1).jobs())


def _read(files: Mapping[str, bytes], name: str) -> CommentedMap:
    try:
        document = YAML(typ="rt").load(files[name])
    except KeyError:
        raise WorkflowError(f"there is no workflow {name}", hint=f"{FOLDER} has: {', '.join(sorted(files))}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise WorkflowError(f"invalid workflow {name}: {' '.join(str(error).split())}") from error
    if not isinstance(document, CommentedMap) or not isinstance(document.get("jobs"), CommentedMap):
        raise WorkflowError(f"invalid workflow {name}: expected a table with `jobs`")
    return document


@dataclass(frozen=True)
class _Expansion:
    """A workflow being expanded, with its inputs where another one calls it."""

    files: Mapping[str, bytes]
    file: str
    document: CommentedMap
    inputs: Mapping[str, Any]
    depth: int

    def jobs(self) -> Iterator[Job]:
        for key, job in self.document["jobs"].items():
            line = self.document["jobs"].lc.key(key)[0] + 1
            try:
                for matrix in _combinations(job, {**self._contexts, "matrix": UNKNOWN}):
                    yield from self._job(str(key), job, matrix, line)
            except ExpressionError as error:
                yield self._unclear(str(key), line, str(error))
            except WorkflowError as error:
                yield self._unclear(str(key), line, error.message)
            except (AttributeError, KeyError, RecursionError, TypeError):
                yield self._unclear(str(key), line, "the job has an unknown form")

    @property
    def _contexts(self) -> Contexts:
        return {"inputs": self.inputs, "github": Partial(workspace=WORKSPACE)}

    def _unclear(self, key: str, line: int, reason: str) -> Job:
        return Job(key, "", {}, (), self.file, line, problem=f"{self.file}:{line}: {reason}")

    def _job(self, key: str, job: CommentedMap, matrix: Mapping[str, Any], line: int) -> Iterator[Job]:
        contexts: Contexts = {**self._contexts, "matrix": matrix}
        name = self._name(key, job, matrix, contexts)
        if called := job.get("uses"):
            for inner in self._called(str(called), job, contexts).jobs():
                yield replace(inner, name=f"{name} / {inner.name}")
            return
        runner = interpolate(_label(job.get("runs-on")), contexts)
        contexts = {**contexts, "runner": Partial(os=_system_of(runner))}
        env = self._env(self.document, contexts)
        env = {**env, **self._env(job, {**contexts, "env": env})}
        contexts = {**contexts, "env": env}
        steps = tuple(self._steps(job, contexts))
        yield Job(name, runner, env, steps, self.file, line)

    def _name(self, key: str, job: CommentedMap, matrix: Mapping[str, Any], contexts: Contexts) -> str:
        """Return the name as GitHub shows it: one that does not use the matrix is told apart by its values."""
        given = str(job.get("name") or key)
        name = " ".join(interpolate(given, contexts).split())
        if matrix and "matrix." not in given:
            name += f" ({', '.join(_leaves(matrix))})"
        return name

    def _called(self, path: str, job: CommentedMap, contexts: Contexts) -> _Expansion:
        if not path.startswith(_LOCAL):
            raise ExpressionError(f"the workflow {path} is in another repository")
        if self.depth == _DEEPEST:
            raise ExpressionError(f"more than {_DEEPEST} workflows call each other")
        name = path.removeprefix(_LOCAL)
        document = _read(self.files, name)
        declared = _mapping(_mapping(document.get("on")).get("workflow_call"))
        inputs = {key: (each or {}).get("default") for key, each in (declared.get("inputs") or {}).items()}
        given = {
            key: evaluate_text(value, contexts) if isinstance(value, str) else value
            for key, value in (job.get("with") or {}).items()
        }
        return _Expansion(self.files, name, document, {**inputs, **given}, self.depth + 1)

    def _steps(self, job: CommentedMap, contexts: Contexts) -> Iterator[Step]:
        defaults = ((job.get("defaults") or {}).get("run") or {}).get("working-directory", "")
        for step in job.get("steps") or ():
            if "run" not in step:
                continue
            line = step.lc.line + 1
            try:
                env = self._env(step, contexts)
                inner: Contexts = {**contexts, "env": {**_mapping(contexts["env"]), **env}}
                condition = step.get("if", True)
                may_fail = step.get("continue-on-error", False)
                yield Step(
                    name=interpolate(str(step.get("name", "")), inner),
                    script=interpolate(step["run"], inner),
                    env=env,
                    folder=interpolate(str(step.get("working-directory", defaults)), inner),
                    line=line,
                    condition="" if condition is True else str(condition),
                    runs=condition if isinstance(condition, bool) else evaluate_condition(str(condition), inner),
                    may_fail=may_fail if isinstance(may_fail, bool) else evaluate_text(may_fail, inner) is True,
                )
            except ExpressionError as error:
                raise ExpressionError(f"the step in line {line}: {error}") from error

    def _env(self, owner: CommentedMap, contexts: Contexts) -> dict[str, str]:
        table = owner.get("env") or {}
        return {
            str(name): interpolate(value, contexts) if isinstance(value, str) else text_of(value)
            for name, value in table.items()
        }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _label(runs_on: object) -> str:
    """Return the label that names the system; of several the first, since `self-hosted` says nothing."""
    if isinstance(runs_on, Mapping):
        runs_on = runs_on.get("labels", "")
    if isinstance(runs_on, Sequence) and not isinstance(runs_on, str):
        return str(runs_on[0])
    return str(runs_on)


def _system_of(runner: str) -> str:
    return next((system for head, system in _SYSTEMS.items() if runner.startswith(head)), runner)


def _leaves(value: object) -> Iterator[str]:
    """Yield the plain values of a matrix's combination, those of nested tables too."""
    match value:
        case Mapping():
            for each in value.values():
                yield from _leaves(each)
        case list() | tuple():
            for each in value:
                yield from _leaves(each)
        case _:
            yield text_of(value)  # type: ignore[arg-type]


def _combinations(job: CommentedMap, contexts: Contexts) -> list[dict[str, Any]]:
    """Return the combinations of a job's matrix, one empty one without a matrix. Raises ExpressionError."""
    matrix = (job.get("strategy") or {}).get("matrix")
    if matrix is None:
        return [{}]
    matrix = _known(matrix, contexts)
    extra, excluded = matrix.get("include") or [], matrix.get("exclude") or []
    axes = {key: values for key, values in matrix.items() if key not in ("include", "exclude")}
    if math.prod(len(values) for values in axes.values()) + len(extra) > _MOST:
        raise ExpressionError(f"the matrix has more than {_MOST} jobs")
    products = itertools.product(*axes.values()) if axes else ()
    combinations = [dict(zip(axes, values, strict=True)) for values in products]
    combinations = [each for each in combinations if not any(_fits(each, pattern) for pattern in excluded)]
    originals = [dict(each) for each in combinations]
    for include in extra:
        fitting = [
            each
            for each, original in zip(combinations, originals, strict=False)
            if all(original[key] == value for key, value in include.items() if key in original)
        ]
        if axes and fitting:
            for each in fitting:
                each.update(include)
        else:
            combinations.append(dict(include))
    return combinations


def _fits(combination: Mapping[str, Any], pattern: Mapping[str, Any]) -> bool:
    return all(combination.get(key) == value for key, value in pattern.items())


def _known(value: Any, contexts: Contexts) -> Any:
    """Evaluate the expressions in a matrix. Raises ExpressionError for one that only a running workflow knows."""
    match value:
        case str():
            evaluated = evaluate_text(value, contexts)
            if evaluated is UNKNOWN:
                shown = " ".join(value.split())
                raise ExpressionError(f"the matrix depends on {shown}, which only a running workflow knows")
            return evaluated
        case Mapping():
            return {key: _known(each, contexts) for key, each in value.items()}
        case Sequence():
            return [_known(each, contexts) for each in value]
    return value
