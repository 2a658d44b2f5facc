"""`bisect`: which commit of a history broke a test, or fixed it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.errors import ExitCode, UserError
from crossjit.tasks.framework import note, show, show_json, words_after_dashes
from crossjit.tasks.options import Request, cell_command, describe, from_record, percentage
from crossjit.tasks.scripts import SCRIPT_HELP, read_script
from crossjit.tasks.session import RunSession, host_arch, opened, program_path, recipes_of
from crossjit.util.paths import full_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crossjit.bisect.history import History
    from crossjit.bisect.journal import Entry, Journal, Plan
    from crossjit.bisect.session import Result, Session
    from crossjit.bisect.trial import Trials
    from crossjit.config.recipes import Recipe
    from crossjit.triage.user_script import Script

ERROR = 0.01
_VARIABLE = re.compile(r"([A-Za-z_]\w*)=(.*)", re.S)
_URL = re.compile(r"\w[\w+.-]*://")


@dataclass(frozen=True)
class _Task:
    """What to do: the plan, the request of its cell, what is judged already, and the command that does it again."""

    plan: Plan
    request: Request
    entries: tuple[Entry, ...]
    reproduce: str


@cell_command(
    *("arch", "recipe", "variant", "strategy", "cpu", "jobs", "suite", "tests"),
    iterable=["script", "env", "with_"],
    rest="script",
    words=True,
    help=describe(
        "json",
        arch="x86_64 or aarch64; default: the engine's own",
        variant="the variant to build; default: jit",
        recipe="the recipe to build all commits by; default: the one of each commit's version",
        tests="the test: a module (test_dis), or the full name of a test or a class; can be repeated, or given as A,B; "
        "required without a script, --measure and --crash",
        script="a Python file as the test, with its arguments after --; can be given without --script; "
        "required without --tests, --measure and --crash",
        measure="the test is a benchmark: it fails if it needs more instructions than at --good, by more than "
        "--slower; required without a script, --tests and --crash",
        slower="with --measure: how many more instructions are accepted; default: 1%",
        crash="the test is the build itself with its probe: it fails if one of them does; default: off",
        good="a commit, branch or tag that passes; default: the newest release before --bad that passes",
        bad="a commit, branch or tag that fails; required",
        repo="a repository of CPython on this machine; default: the current folder",
        find_fix="look for the commit that fixed it: --good is newer than --bad; default: look for what broke it",
        env="a variable for the test, as NAME=VALUE, such as PYTHON_JIT_STRESS=1; can be repeated; default: none",
        error="the accepted probability that a flaky failure makes the answer wrong; default: 0.01",
        resume="go on with a bisection that was interrupted: its run's id, the beginning of it, or last; all other "
        "options come from that run; default: start a new one",
        **SCRIPT_HELP,
    ),
)
def bisect(
    context: Context,
    request: Request,
    script: list[str] | None = None,
    crash: bool = False,
    measure: str = "",
    slower: str = "",
    good: str = "",
    bad: str = "",
    repo: str = "",
    find_fix: bool = False,
    env: list[str] | None = None,
    error: str = "",
    expect: str = "",
    expect_status: str = "",
    seconds: str = "",
    with_: list[str] | None = None,
    resume: str = "",
    json: bool = False,
) -> ExitCode:
    """Find the commit that broke a test: `bisect --good REF --bad REF bug.py`.

    Both ends are checked first. A commit is bad if it fails in the same way as the bad end, however often that takes
    to show. One that does not build, or fails differently, is skipped. The answer says whether the other architecture
    and the JIT matter. Ends with 0 if there is an answer.
    """
    if resume:
        given = [script, crash, measure, slower, good, bad, repo, find_fix, env, error]
        given += [expect, expect_status, seconds, with_]
        if any(given) or not request.leaves_all_open:
            raise UserError(
                "--resume cannot be combined with other options: they are taken from the run",
                hint="leave the other options out",
            )
        return _run(_resumed(resume, request), json=json)
    if bool(script) + bool(request.selection.tests) + bool(measure) + crash != 1:
        raise UserError(
            "bisect needs either a script, --tests, --measure or --crash",
            hint=f"such as {PROGRAM} bisect --good v3.15.0a1 --bad main bug.py",
        )
    if not script and (expect or expect_status or seconds or with_):
        raise UserError("--expect, --expect-status, --seconds and --with are about a script", hint="leave them out")
    test = None
    if script:
        arguments = words_after_dashes(context)
        test = read_script(script, arguments, expect=expect, expect_status=expect_status, seconds=seconds, with_=with_)
    plan = _plan(request, test, good=good, bad=bad, repo=repo, find_fix=find_fix, env=env or (), error=error)
    plan = _with_benchmark(plan, measure, slower)
    return _run(_new(plan, request, full_path(script[0]) if script else None), json=json)


def _plan(
    request: Request,
    script: Script | None,
    *,
    good: str,
    bad: str,
    repo: str,
    find_fix: bool,
    env: Sequence[str],
    error: str,
) -> Plan:
    """Make a plan of the options, whose refs are not resolved yet. Raises UserError."""
    from crossjit.bisect.journal import Plan

    if not bad:
        raise UserError("--bad is missing", hint="give a commit, branch or tag that fails, such as --bad main")
    if find_fix and not good:
        raise UserError("--find-fix needs --good", hint="give a commit, branch or tag that passes, such as --good main")
    return Plan(
        repo=str(_repository(repo)),
        good_ref=good,
        bad=bad,
        bad_ref=bad,
        arch=str(_one("arch", request.arches) or host_arch()),
        variant=_one("variant", request.variants) or "jit",
        recipe=_one("recipe", request.recipes) or "",
        script=script,
        tests=request.selection.tests,
        suites=request.selection.suites,
        env=tuple(map(_variable, env)),
        error=_probability(error) if error else ERROR,
        find_fix=find_fix,
    )


def _with_benchmark(plan: Plan, name: str, slower: str) -> Plan:
    """Return a plan whose test is a benchmark, if there is a name. Raises UserError for one that does not exist."""
    from crossjit.measure import benchmarks

    if slower and not name:
        raise UserError("--slower is for --measure", hint="leave it out")
    if not name:
        return plan
    if not plan.good_ref:
        raise UserError("--measure needs --good", hint="its instructions are compared with those at --good")
    benchmarks.select(benchmarks.load(), (name,))
    return replace(plan, benchmark=name, slower=percentage("slower", slower) if slower else plan.slower)


def _one(option: str, values: Sequence[str]) -> str | None:
    """Return the only value of an option, None without one. Raises UserError for several."""
    if len(values) > 1 or "all" in values:
        raise UserError(f"only one --{option} at a time can be bisected", hint="start one bisection for each")
    return values[0] if values else None


def _repository(repo: str) -> Path:
    if _URL.match(repo):
        raise UserError(f"{repo} is not a folder", hint="clone it, and give the clone's folder with --repo")
    path = full_path(repo) if repo else Path.cwd()
    if not path.is_dir():
        raise UserError(f"there is no folder {path}", hint="give a clone of CPython with --repo")
    return path


def _variable(text: str) -> tuple[str, str]:
    match = _VARIABLE.fullmatch(text)
    if match is None:
        raise UserError(f"invalid --env {text!r}: expected NAME=VALUE", hint="such as --env PYTHON_JIT_STRESS=1")
    return match[1], match[2]


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise UserError(f"invalid --error {text!r}: expected a number between 0 and 1", hint="such as --error 0.01")
    return value


def _new(plan: Plan, request: Request, script: Path | None) -> _Task:
    """Resolve a plan's refs. Raises UserError and SourceError for those that cannot be bisected."""
    from crossjit import settings
    from crossjit.bisect import history
    from crossjit.bisect.trial import recipe_for
    from crossjit.config.recipes import name_of
    from crossjit.runs.command_line import reproduction

    path = Path(plan.repo)
    plan = replace(plan, bad=history.commit(path, plan.bad_ref), recipe=name_of(plan.recipe) if plan.recipe else "")
    version = history.version(path, plan.bad)
    if plan.good_ref:
        plan = _with_good(plan)
    recipes = recipes_of(request)
    recipe = request.recipes[0] if request.recipes else recipe_for(version, recipes).name
    request = replace(request, arches=request.arches or (host_arch(),), recipes=(recipe,), variants=(plan.variant,))
    reproduce = reproduction(settings.load(), [program_path(), *_command_line(plan, request, script)])
    return _Task(plan, request, (), reproduce)


def _with_good(plan: Plan) -> Plan:
    """Return a plan with the commit of its good ref; if the refs are on two branches, the older end is their base."""
    older, newer = (plan.bad_ref, plan.good_ref) if plan.find_fix else (plan.good_ref, plan.bad_ref)
    line = _line(plan, older, newer)
    if line.forked:
        note(f"{older} is not an ancestor of the other end: it begins at their merge base, {line.commits[0][:12]}")
    first, last = line.commits[0], line.commits[-1]
    return replace(plan, bad=first, good=last) if plan.find_fix else replace(plan, good=first)


def _line(plan: Plan, older: str = "", newer: str = "") -> History:
    """Return the commits between two refs, by default between the plan's ends."""
    from crossjit.bisect import history

    hint = "swap them, or leave out --find-fix" if plan.find_fix else "swap them, or look for a fix with --find-fix"
    ends = (plan.bad, plan.good) if plan.find_fix else (plan.good, plan.bad)
    return history.read(Path(plan.repo), older or ends[0], newer or ends[1], hint=hint)


def _command_line(plan: Plan, request: Request, script: Path | None) -> list[str]:
    """Return the words of the command that does it again, with commits instead of refs that move."""
    options: list[tuple[str, str]] = [("--good", plan.good)] if plan.good else []
    options += [("--bad", plan.bad), ("--repo", plan.repo), ("--arch", plan.arch), ("--variant", plan.variant)]
    options += [("--recipe", request.recipes[0])] if plan.recipe else []
    options += [("--strategy", str(request.strategy))] if request.strategy else []
    options += [("--cpu", request.cpu)] if request.cpu else []
    options += [*(("--suite", name) for name in plan.suites), *(("--tests", name) for name in plan.tests)]
    options += [("--env", f"{name}={value}") for name, value in plan.env]
    options += [("--error", f"{plan.error:g}")] if plan.error != ERROR else []
    options += [("--measure", plan.benchmark), ("--slower", f"{plan.slower:g}%")] if plan.benchmark else []
    flags = [*(["--find-fix"] if plan.find_fix else []), *(["--crash"] if plan.crash else [])]
    if plan.script is None or script is None:
        return ["bisect", *(word for option in options for word in option), *flags]
    options += [("--expect", plan.script.text)] if plan.script.text else []
    options += [("--expect-status", str(plan.script.status))] if plan.script.status is not None else []
    options += [("--seconds", str(plan.script.seconds))] if plan.script.seconds != type(plan.script).seconds else []
    options += [("--with", requirement) for requirement in plan.script.requirements]
    arguments = ["--", *plan.script.arguments] if plan.script.arguments else []
    return ["bisect", *(word for option in options for word in option), *flags, str(script), *arguments]


def _resumed(name: str, request: Request) -> _Task:
    """Read the bisection to go on with. Raises UserError if the run is none, or still running."""
    from crossjit import settings
    from crossjit.bisect import journal
    from crossjit.runs import history, model

    loaded = settings.load()
    runs = [run for run in history.list_runs(loaded) if journal.has_journal(run.folder)]
    if name == history.LAST and not runs:
        raise UserError("there is no bisection yet", hint=f"start one: `{PROGRAM} bisect --help`")
    run = runs[0] if name == history.LAST else history.load(loaded, name)
    if run.state is model.RunState.RUNNING:
        raise UserError(f"run {run.id} is still running", hint="wait for it, or stop it with Ctrl-C first")
    plan, entries = journal.load(run.folder)
    again = replace(from_record(run), jobs=request.jobs)
    return _Task(plan, again, entries, run.reproduce)


def _run(task: _Task, *, json: bool) -> ExitCode:
    from crossjit.bisect.journal import Journal
    from crossjit.bisect.session import Session
    from crossjit.bisect.trial import Trials
    from crossjit.report import answers
    from crossjit.report import bisect as report

    with opened(task.request, one=True, looks=True, reproduce=task.reproduce) as run:
        journal = Journal.start(run.record.folder, task.plan, task.entries)
        (base,) = run.requests
        folder = run.record.cell_folder(base.cell)
        recipes = recipes_of(task.request)
        trials = Trials(run.ctx, task.plan, recipes, base, folder)
        with _telling_how_to_resume(run, journal), trials.ahead:
            result = _find(Session(journal, trials, run.ctx.progress), trials, run, recipes)
        documents = report.documents(result, run=run.record.id, reproduce=task.reproduce)
        answers.write(run.record.folder, answers.BISECT, documents)
        run.record.finish(ExitCode.PASS)
    if json:
        show_json(report.as_json(result, run=run.record.id, reproduce=task.reproduce))
    else:
        show(report.as_text(result))
        show(f"\nrun:           {run.record.id}\nreports:       {run.record.folder / 'bisect.md'}, .html, .json")
        show(f"reproduce:     {task.reproduce}")
    return ExitCode.PASS


@contextlib.contextmanager
def _telling_how_to_resume(run: RunSession, journal: Journal) -> Iterator[None]:
    """Say how to go on if the block ends early, unless it is the user's input that ended it."""
    try:
        yield
    except UserError:
        raise
    except BaseException:
        if journal.entries:
            run.ctx.progress.say(f"to go on: {PROGRAM} bisect --resume {run.record.id}")
        raise


def _find(session: Session, trials: Trials, run: RunSession, recipes: Mapping[str, Recipe]) -> Result:
    """Verify the ends, search between them, and look at the answer elsewhere."""
    from crossjit.bisect.journal import Journal
    from crossjit.model import Arch

    session.verify_bad(following=session.plan.good)
    if not session.plan.good:
        tag, _ = session.find_good(_releases(session.plan, recipes))
        found = _with_good(replace(session.plan, good_ref=tag))
        session.journal = Journal.start(run.record.folder, found, tuple(session.journal.entries.values()))
    line = _line(session.plan)
    session.verify_good(line)
    result = session.result(line, session.search(line))
    failing = result.first_bad.commit
    other = Arch(session.plan.arch).others[0]
    conditions = {str(other): trials.on_other_arch(), "JIT off": trials.without_jit()}
    return replace(result, elsewhere=session.elsewhere(failing, conditions))


def _releases(plan: Plan, recipes: Mapping[str, Recipe]) -> tuple[tuple[str, str], ...]:
    """Return the releases before the bad end that can be built, newest first, with their commits."""
    from crossjit.bisect import history

    path = Path(plan.repo)
    tags = [tag for tag in history.releases(path, plan.bad) if plan.recipe or _is_supported(tag, recipes)]
    return tuple((tag, history.commit(path, tag)) for tag in tags)


def _is_supported(tag: str, recipes: Mapping[str, Recipe]) -> bool:
    from crossjit.bisect.trial import recipe_for

    major, minor = tag.removeprefix("v").split(".")[:2]
    try:
        return bool(recipe_for((int(major), int(minor)), recipes))
    except UserError:
        return False
