"""Runs workflows as GitHub Actions does, as far as ours need it: each `run:` for real, the actions of others simulated.

Every job has folders of its own for its workspace and its temporary files; what jobs hand on are outputs and artifacts.
Expressions are evaluated by `crossjit.upstream.expressions`. What is not understood raises.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from crossjit import PROJECT
from crossjit.upstream.expressions import UNKNOWN, evaluate_text, interpolate, is_true

SUCCESS, FAILURE, SKIPPED = "success", "failure", "skipped"
WORKFLOWS = PROJECT / ".github/workflows"
_STATUS = re.compile(r"\b(always|success|failure|cancelled)\(\)")
_OUTPUT = re.compile(r"([\w-]+)=(.*)")


def read(path: Path) -> dict[str, Any]:
    """Read a YAML file."""
    document = YAML(typ="safe", pure=True).load(path)
    assert isinstance(document, dict)
    return document


@dataclass
class JobRun:
    """How a job ended, or all jobs of its matrix."""

    result: str = SUCCESS
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass
class StepState:
    """What is known of a job's steps while they run."""

    contexts: dict[str, Any]
    failed: bool = False
    log: list[str] = field(default_factory=list)


@dataclass
class Actions:
    """A repository's runs of a workflow.

    `variables` are in every step's environment, `spoil` adds to those of a job in an attempt, and `seed` is copied into
    each job's state folder. `again` picks the jobs that run in this attempt, by name; others keep what they had.
    `attested` are the files that `actions/attest` was given.
    """

    root: Path
    github: Mapping[str, Any]
    variables: Mapping[str, str]
    seed: Path
    spoil: Callable[[str, int], Mapping[str, str]] = lambda name, attempt: {}
    attempt: int = 1
    again: Callable[[str], bool] = lambda name: True
    earlier: dict[str, JobRun] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    attested: list[Path] = field(default_factory=list)

    def run(
        self,
        workflow: Path,
        inputs: Mapping[str, Any] | None = None,
        prefix: str = "",
        secrets: Mapping[str, str] | None = None,
    ) -> dict[str, JobRun]:
        """Run a workflow's jobs in the order of their needs; return how each ended, by its key."""
        document = read(workflow)
        declared = document["on"]["workflow_call"] if inputs else {}
        defaults = {name: each.get("default", "") for name, each in (declared.get("inputs") or {}).items()}
        unknown = set(inputs or {}) - set(defaults)
        assert not unknown, f"{workflow} has no inputs {unknown}"
        base: dict[str, Any] = {
            "github": {**self.github, "run_attempt": str(self.attempt)},
            "inputs": {**defaults, **(inputs or {})},
            "secrets": self.secrets if secrets is None else secrets,
        }
        base["env"] = _texts(document.get("env") or {}, base)
        finished: dict[str, JobRun] = {}
        for key, job in document["jobs"].items():  # they are written in the order of their needs
            needs = {name: finished[name] for name in _names(job.get("needs"))}
            contexts = {
                **base,
                "needs": {name: {"result": run.result, "outputs": run.outputs} for name, run in needs.items()},
            }
            good = all(run.result == SUCCESS for run in needs.values())
            finished[key] = (
                self._job(f"{prefix}{key}", job, contexts) if _holds(job, contexts, good) else JobRun(SKIPPED)
            )
        outputs = declared.get("outputs") or {}
        results = {name: {"result": run.result, "outputs": run.outputs} for name, run in finished.items()}
        finished[""] = JobRun(
            outputs=_texts({name: each["value"] for name, each in outputs.items()}, {"jobs": results})
        )
        return finished

    def _job(self, key: str, job: Mapping[str, Any], contexts: Mapping[str, Any]) -> JobRun:
        if "uses" in job:
            given, secrets = (_texts(job.get(name) or {}, contexts) for name in ("with", "secrets"))
            called = self.run(_called(job["uses"]), given, f"{key}/", secrets)
            worst = FAILURE if any(run.result == FAILURE for run in called.values()) else SUCCESS
            return JobRun(worst, called[""].outputs)
        matrix = _value((job.get("strategy") or {}).get("matrix"), contexts) or {"include": [{}]}
        with ThreadPoolExecutor(2) as pool:
            runs = [*pool.map(lambda each: self._instance(key, job, {**contexts, "matrix": each}), matrix["include"])]
        return JobRun(FAILURE if any(run.result == FAILURE for run in runs) else SUCCESS, runs[-1].outputs)

    def _instance(self, key: str, job: Mapping[str, Any], contexts: dict[str, Any]) -> JobRun:
        prefix, _, own = key.rpartition("/")
        name = f"{prefix}/{interpolate(str(job.get('name', own)), contexts)}"
        if name in self.earlier and not self.again(name):
            return self.earlier[name]
        folder = self.root / f"{len(list(self.root.glob('job-*')))}-{os.urandom(2).hex()}"
        folder = folder.with_name(f"job-{folder.name}")
        workspace, temporary = folder / "workspace", folder / "temp"
        shutil.copytree(self.seed, workspace / "state", symlinks=True, copy_function=_seeded)
        temporary.mkdir()
        github = {**contexts["github"], "workspace": str(workspace)}
        contexts = {**contexts, "github": github, "runner": {"temp": str(temporary)}, "steps": {}}
        contexts["env"] = {**contexts["env"], **_texts(job.get("env") or {}, contexts)}
        state = StepState(contexts)
        for step in job["steps"]:
            self._step(step, state, folder, name)
        self.logs[name] = "".join(state.log)
        summary = folder / "summary"
        self.summaries[name] = summary.read_text() if summary.exists() else ""
        run = JobRun(FAILURE if state.failed else SUCCESS, _texts(job.get("outputs") or {}, state.contexts))
        self.earlier[name] = run
        return run

    def _step(self, step: Mapping[str, Any], state: StepState, folder: Path, name: str) -> None:
        identity = step.get("id", f"step-{len(state.contexts['steps'])}")
        if not _holds(step, state.contexts, not state.failed):
            state.contexts["steps"][identity] = {"outputs": {}, "outcome": SKIPPED}
            return
        contexts = {**state.contexts, "env": {**state.contexts["env"], **_texts(step.get("env") or {}, state.contexts)}}
        if "run" in step:
            ok, outputs = self._script(step, contexts, folder, state.log, name)
        elif str(step["uses"]).startswith("./"):
            ok, outputs = self._composite(step, contexts, folder, state.log, name)
        else:
            ok, outputs = self._action(step, contexts)
        state.contexts["steps"][identity] = {"outputs": outputs, "outcome": SUCCESS if ok else FAILURE}
        state.failed |= not ok

    def _script(
        self, step: Mapping[str, Any], contexts: Mapping[str, Any], folder: Path, log: list[str], name: str
    ) -> tuple[bool, dict[str, str]]:
        script, output = folder / f"script-{os.urandom(4).hex()}", folder / f"output-{os.urandom(4).hex()}"
        script.write_text(interpolate(str(step["run"]), contexts))
        output.touch()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CROSSJIT_", "GITHUB_"))}
        environ = {
            **kept,
            **self.variables,
            **self.spoil(name, self.attempt),
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(output),
            "GITHUB_RUN_ATTEMPT": str(self.attempt),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
            "RUNNER_TEMP": contexts["runner"]["temp"],
            **contexts["env"],
        }
        assert step.get("shell", "bash") == "bash"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            cwd=contexts["github"]["workspace"],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        log.append(done.stdout.decode("utf-8", "replace"))
        lines = output.read_text().splitlines()
        matches = [_OUTPUT.fullmatch(line) for line in lines]
        assert all(matches), lines
        return done.returncode == 0, {match[1]: match[2] for match in matches if match}

    def _composite(
        self, step: Mapping[str, Any], contexts: Mapping[str, Any], folder: Path, log: list[str], name: str
    ) -> tuple[bool, dict[str, str]]:
        place = Path(contexts["github"]["workspace"]) / str(step["uses"])
        action = read(place / "action.yml")
        given = _texts(step.get("with") or {}, contexts)
        assert set(given) <= set(action["inputs"]), set(given) - set(action["inputs"])
        inputs = {key: given.get(key, each.get("default", "")) for key, each in action["inputs"].items()}
        github = {**contexts["github"], "action_path": str(place)}
        state = StepState({**contexts, "inputs": inputs, "github": github, "steps": {}}, log=log)
        for each in action["runs"]["steps"]:
            self._step(each, state, folder, name)
        outputs = {key: each["value"] for key, each in action["outputs"].items()}
        return not state.failed, _texts(outputs, state.contexts)

    def _action(self, step: Mapping[str, Any], contexts: Mapping[str, Any]) -> tuple[bool, dict[str, str]]:
        given = _texts(step.get("with") or {}, contexts)
        workspace, store = Path(contexts["github"]["workspace"]), self.root / "artifacts"
        match str(step["uses"]).partition("@")[0]:
            case "actions/checkout":
                (workspace / given["path"]).symlink_to(PROJECT)
                return True, {}
            case "actions/setup-python":
                return True, {"python-path": sys.executable}
            case "actions/upload-artifact":
                source, target = workspace / given["path"], store / given["name"]
                if source.exists():
                    assert not target.exists(), f"there are two artifacts {given['name']}"
                    shutil.copytree(source, target)
                return True, {}
            case "actions/download-artifact":
                for artifact in sorted(store.glob(given["pattern"])):
                    shutil.copytree(artifact, workspace / given["path"] / artifact.name)
                return True, {}
            case "actions/attest":
                files = sorted(workspace.glob(given["subject-path"]))
                assert files, given["subject-path"]
                self.attested.extend(files)
                bundle = Path(contexts["runner"]["temp"]) / "attestation.json"
                bundle.write_text("{}\n")
                return True, {"bundle-path": str(bundle)}
        raise NotImplementedError(step["uses"])


def _seeded(source: str, target: str) -> None:
    """Copy a file of a state folder; trees in the stash are large, and nobody writes them again."""
    (os.link if source.endswith(".tar.zst") else shutil.copy2)(source, target)


def _called(uses: str) -> Path:
    """Return the file of a reusable workflow of ours."""
    match = re.fullmatch(r"(?:crossjit/crossjit|\.)/\.github/workflows/([\w-]+\.yml)(?:@v1)?", uses)
    assert match, uses
    return WORKFLOWS / match[1]


def _names(needs: str | list[str] | None) -> list[str]:
    return [needs] if isinstance(needs, str) else needs or []


def _holds(part: Mapping[str, Any], contexts: Mapping[str, Any], good: bool) -> bool:
    """Return whether a job's or a step's `if` holds; without a status function it needs success."""
    text = str(part.get("if", "success()"))
    states = {"always": True, "success": good, "failure": not good, "cancelled": False}
    told = _STATUS.sub(lambda match: str(states[match[1]]).lower(), text)
    value = _value(told if "${{" in told else f"${{{{ {told} }}}}", contexts)
    return is_true(value) and (good or told != text)


def _value(text: Any, contexts: Mapping[str, Any]) -> Any:
    """Evaluate a value; one that is no expression is itself."""
    if not isinstance(text, str):
        return text
    value = evaluate_text(text, contexts)
    assert value is not UNKNOWN, text
    return value


def _texts(table: Mapping[str, Any], contexts: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): interpolate(_plain(value), contexts) for name, value in table.items()}


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def scripts() -> Iterator[tuple[Path, str]]:
    """Yield every script of our workflows and our action."""
    for path in (*sorted(WORKFLOWS.glob("*.yml")), PROJECT / "action.yml"):
        document = read(path)
        jobs = document.get("jobs") or {"": document.get("runs")}
        yield from ((path, step["run"]) for job in jobs.values() for step in job.get("steps", ()) if "run" in step)
