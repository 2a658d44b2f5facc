"""Turn upstream's jobs into variants of ours, and say in what a variant differs from its job."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossjit.config.recipes import Git
from crossjit.errors import UserError
from crossjit.upstream.jobs import TestRun, UpstreamJob
from crossjit.upstream.translation import translation

SUITE = "full"


@dataclass(frozen=True)
class JobVariant:
    """A job as a variant: its table in a recipe, and what is not as upstream has it."""

    job: UpstreamJob
    name: str
    table: Mapping[str, Any]
    differences: tuple[str, ...]


def variant_of(job: UpstreamJob) -> JobVariant:
    """Make a variant of a job. Raises UserError for one that cannot be run."""
    if job.arch is None or job.obstacle:
        raise UserError(
            f"{job.name} cannot be run here: {job.obstacle or f'{job.runner} is not supported'}",
            hint="--list shows the jobs that can",
        )
    differences: dict[str, None] = {}
    configure = tuple(_configure(job, differences))
    tests = job.tests[0] if job.tests else None
    table: dict[str, Any] = {
        "summary": f"{job.name} of CPython's CI",
        "configure": list(configure),
        "expects": _expected(configure),
        "suites": [SUITE],
        "debug": "--with-pydebug" in configure,
        "free_threaded": "--disable-gil" in configure,
        "arches": [job.arch.value],
        "environment": _picked(job.env, translation().environment.built),
        "test_environment": _picked(tests.env, translation().environment.tested) if tests else {},
    }
    differences |= dict.fromkeys(_test_differences(job.tests))
    return JobVariant(job, slug(job.name), table, tuple(differences))


def recipe_text(variants: Sequence[JobVariant], source: Git) -> str:
    """Write a recipe that offers these variants, as TOML."""
    names = [variant.name for variant in variants]
    lines = [
        'summary = "jobs of CPython\'s CI"',
        f"offers = {_toml(names)}",
        f"default_variants = {_toml(names)}",
        "",
        "[git]",
        f"url = {_toml(source.url)}",
        f"ref = {_toml(source.ref)}",
    ]
    for variant in variants:
        lines += ["", f"[variants.{_toml(variant.name)}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in variant.table.items()]
    return "\n".join(lines) + "\n"


def recipe_name(text: str) -> str:
    """Name a recipe after its content."""
    return f"ci-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def slug(name: str) -> str:
    """Turn a job's name into a variant's: `JIT / Free-Threaded (Debug)` is `jit-free-threaded-debug`."""
    return re.sub(r"[^a-z0-9_]+", "-", name.casefold()).strip("-")


def _toml(value: object) -> str:
    """Write a value as TOML: its booleans and arrays are JSON's, and its strings but for one character."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _configure(job: UpstreamJob, differences: dict[str, None]) -> Iterator[str]:
    rules = translation()
    for argument in job.configure:
        name = argument.partition("=")[0]
        if name not in rules.dropped:
            yield argument
        elif reason := rules.dropped[name]:
            differences[f"{argument} is left out: {reason}"] = None
    given = {argument.partition("=")[0] for argument in job.configure}
    for name, value in _picked(job.env, rules.arguments).items():
        if name not in given and (value := _compiler(value) if name in ("CC", "CXX") else value):
            yield f"{name}={value}"


def _compiler(command: str) -> str:
    """Return a compiler as a variant names it: without an arch, and none for GCC, which is ours anyway."""
    program = command.split()[0] if command.split() else ""
    return "" if re.fullmatch(r"(?:[a-z0-9_]+-linux-gnu-)?(?:gcc|g\+\+)", program) else program


def _expected(configure: Iterable[str]) -> str:
    """Return what the probe must find, by the JIT's option."""
    options = [each.partition("=") for each in configure if each.startswith("--enable-experimental-jit")]
    value = options[-1][2] or "yes" if options else "no"
    return {"interpreter": "uops", "yes": "machine-code", "no": "none"}.get(value, "none")


def _picked(env: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: env[name] for name in names if name in env}


def _test_differences(tests: Sequence[TestRun]) -> Iterator[str]:
    if not tests:
        yield f"upstream runs no regrtest in this job; the suite {SUITE} runs here"
    for test in tests:
        if test.skipped:
            yield f"upstream skips these tests ({test.place}: `{test.skipped}` is false); they run here"
        if chosen := list(_chosen(test.arguments)):
            yield f"upstream passes {' '.join(chosen)} to regrtest; the suite {SUITE} runs here"
        if test.may_fail:
            yield "upstream's job passes even if these tests fail"


def _chosen(arguments: Iterable[str]) -> Iterator[str]:
    """Yield the arguments that choose tests: all but options that do not, and their values."""
    ignored = translation().ignored
    follows_ignored = False
    for argument in arguments:
        name = re.match(r"--[\w-]+|-[A-Za-z]", argument)
        is_ignored = name[0] in ignored if name else follows_ignored
        follows_ignored = bool(name) and is_ignored and "=" not in argument
        if not is_ignored:
            yield argument
