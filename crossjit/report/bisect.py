"""The answer of a bisection: as text, JSON, Markdown for an issue, and as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from crossjit.bisect.history import Commit
from crossjit.bisect.journal import Entry
from crossjit.bisect.search import Judgement
from crossjit.bisect.session import PHASES, Result
from crossjit.model import Arch
from crossjit.report import html, output
from crossjit.report.markdown import escaped, preformatted
from crossjit.report.size_budget import LINE
from crossjit.util.text import duration, pluralize, shortened

PULL = "https://github.com/python/cpython/pull"
FILES = 20  # files of a commit, at most


@dataclass(frozen=True)
class Fact:
    """A line of the answer."""

    name: str
    value: str


@dataclass(frozen=True)
class Step:
    """A judged commit, for a table."""

    commit: str
    judgement: str
    said: str
    time: str


def documents(result: Result, *, run: str, reproduce: str) -> dict[str, str]:
    """Return the answer in all forms, as `answers.write` takes them."""
    return {
        "json": json.dumps(as_json(result, run=run, reproduce=reproduce), indent=2),
        "markdown": as_markdown(result, run=run, reproduce=reproduce),
        "html": page(result, run=run, reproduce=reproduce),
        "text": as_text(result),
    }


def headline(result: Result) -> str:
    """Return the answer in one line."""
    verb = "fixed" if result.plan.find_fix else "broke"
    number = len(result.search.suspects)
    if number == 1:
        return f"{result.search.suspects[0][:12]} {verb} it: {result.suspects[0].subject}"
    return f"one of {number} commits {verb} it: those between could not be judged"


def conclusion(result: Result) -> str:
    """Say where else the failure is, in one line; empty if nothing is known of it."""
    own = result.plan.arch
    parts = []
    for each in result.elsewhere:
        if each.fails is not None:
            if each.condition in tuple(Arch):
                parts.append("on both architectures" if each.fails else f"on {own} only")
            else:
                parts.append("also with the JIT off" if each.fails else "only with the JIT on")
    return ", ".join(parts)


def facts(result: Result) -> tuple[Fact, ...]:
    """Return the lines of the answer."""
    return tuple(Fact(name, shortened(value, LINE)) for name, value in _facts(result) if value)


def _facts(result: Result) -> Iterator[tuple[str, str]]:
    plan = result.plan
    yield "test", f"{plan.what}, in {plan.arch}/{plan.variant}{_environment(result)}"
    yield "failure", str(result.symptom)
    if len(result.search.suspects) == 1:
        commit = result.suspects[0]
        yield "commit", commit.id
        yield "author", f"{commit.author}, {commit.day}"
        yield "pull request", f"{PULL}/{commit.pull_request}" if commit.pull_request else ""
        more = len(result.files) - FILES
        yield "files", ", ".join((*result.files[:FILES], *([f"and {more} more"] if more > 0 else [])))
    yield "happens", conclusion(result)
    for each in result.elsewhere:
        yield each.condition, each.said if each.fails is not None else f"not known: {each.said}"
    last, first = ("first good", "last bad") if plan.find_fix else ("last good", "first bad")
    for name, entry in ((last, result.last_good), (first, result.first_bad)):
        yield name, f"{entry.commit[:12]}, artifact {entry.artifact}" if entry.artifact else entry.commit[:12]
    yield "steps", _steps_line(result)
    if not plan.once:
        yield "odds", odds(result)


def _environment(result: Result) -> str:
    return "".join(f" {name}={value}" for name, value in result.plan.env)


def odds(result: Result) -> str:
    """Say how often the failure was seen, and what error that leaves."""
    return (
        f"{result.rate} at the bad end, so a commit is good after {pluralize(result.needed, 'run')} without it; "
        f"with that, the answer is wrong with a probability of {result.plan.error:.2g} at most"
    )


def means(result: Result) -> dict[str, float]:
    """Return the mean seconds of a step by phase."""
    steps = result.steps
    totals = {phase: sum(entry.seconds.get(phase, 0.0) for entry in steps) for phase in PHASES}
    return {phase: round(total / len(steps), 1) for phase, total in totals.items()} if steps else {}


def _steps_line(result: Result) -> str:
    means_by_phase = means(result)
    line = f"{pluralize(len(result.steps), 'step')} for {pluralize(len(result.search.commits) - 1, 'commit')}"
    if not means_by_phase:
        return line
    phases = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in means_by_phase.items())
    return f"{line}, {duration(sum(means_by_phase.values()))} each: {phases}"


def as_text(result: Result) -> str:
    """Return the answer as text."""
    lines = [headline(result), ""]
    lines += [f"{fact.name + ':':<14} {fact.value}" for fact in facts(result)]
    lines += [f"  {line}" for line in _suspects(result)]
    return "\n".join([*lines, *(f"skipped:       {_called(entry)}: {entry.why}" for entry in result.skipped)])


def _suspects(result: Result) -> list[str]:
    """Return a line for each of several suspects."""
    if len(result.search.suspects) == 1:
        return []
    omitted = len(result.search.suspects) - len(result.suspects)
    more = [f"and {pluralize(omitted, 'older commit')}"] if omitted else []
    return [*(f"{commit.id[:12]} {commit.day} {commit.subject}" for commit in result.suspects), *more]


def as_json(result: Result, *, run: str, reproduce: str) -> dict[str, object]:
    """Return the answer as JSON values."""
    plan = result.plan
    return {
        "run": run,
        "found": headline(result),
        "change": "fix" if plan.find_fix else "break",
        "good": plan.good,
        "bad": plan.bad,
        "arch": plan.arch,
        "variant": plan.variant,
        "test": plan.what,
        "env": dict(plan.env),
        "failures": [asdict(failure) for failure in result.symptom.failures],
        "suspects": [_commit_json(commit) for commit in result.suspects],
        "number_of_suspects": len(result.search.suspects),
        "files": list(result.files),
        "skipped": [{"commit": entry.commit, "reason": entry.why} for entry in result.skipped],
        "happens": conclusion(result),
        "elsewhere": [asdict(each) for each in result.elsewhere],
        "last_good": _entry_json(result.last_good),
        "first_bad": _entry_json(result.first_bad),
        "error": plan.error,
        "passes_needed": result.needed,
        "failed_at_bad_end": {"failed": result.rate.failed, "ran": result.rate.ran},
        "commits": len(result.search.commits) - 1,
        "steps": [_entry_json(entry) for entry in result.steps],
        "mean_seconds": means(result),
        "reproduce": reproduce,
    }


def _commit_json(commit: Commit) -> dict[str, object]:
    return {**asdict(commit), "pull_request": commit.pull_request}


def _entry_json(entry: Entry) -> dict[str, object]:
    return {
        "commit": entry.commit,
        "judgement": entry.judgement.value,
        "why": entry.why,
        "runs": len(entry.runs),
        "artifact": entry.artifact or None,
        "seconds": {phase: round(seconds, 1) for phase, seconds in entry.seconds.items()},
    }


def as_markdown(result: Result, *, run: str, reproduce: str) -> str:
    """Return a report to paste into an issue."""
    blocks = [f"## {escaped(headline(result))}"]
    rows = (f"| {escaped(fact.name)} | {escaped(fact.value)} |" for fact in facts(result))
    blocks.append("\n".join(["| | |", "|---|---|", *rows]))
    if suspects := _suspects(result):
        blocks.append("\n".join(f"- {escaped(line)}" for line in suspects))
    if result.skipped:
        blocks.append("\n".join(f"- skipped {_called(entry)}: {escaped(entry.why)}" for entry in result.skipped))
    if result.plan.script is not None:
        source = result.plan.script.content.decode("utf-8", "replace")
        blocks.append(
            f"<details><summary>{escaped(result.plan.what)}</summary>\n\n{preformatted(source)}\n\n</details>"
        )
    blocks.append(f"Found by crossjit, run {escaped(run)}. The same again:\n\n{preformatted(reproduce)}")
    return output.markup("\n\n".join(blocks)) + "\n"


def page(result: Result, *, run: str, reproduce: str) -> str:
    """Return the answer as a self-contained HTML page."""
    words = {Judgement.OLD: "bad" if result.plan.find_fix else "good", Judgement.SKIPPED: "skipped"}
    words[Judgement.NEW] = "good" if result.plan.find_fix else "bad"
    ordered = [result.entries[each] for each in result.search.commits if each in result.entries]
    script = result.plan.script
    text = html.template("bisect.html.j2").render(
        run=run,
        headline=headline(result),
        facts=facts(result),
        suspects=_suspects(result),
        steps=[
            Step(_called(entry), words[entry.judgement], entry.why or _ran(result, entry), _time(entry))
            for entry in ordered
        ],
        script=script.content.decode("utf-8", "replace") if script else "",
        reproduce=reproduce,
    )
    return output.markup(text) + "\n"


def _ran(result: Result, entry: Entry) -> str:
    return f"failed {entry.failed(result.symptom)} of {pluralize(len(entry.runs), 'run')}"


def _time(entry: Entry) -> str:
    return duration(sum(entry.seconds.values()))


def _called(entry: Entry) -> str:
    return entry.commit[:12]
