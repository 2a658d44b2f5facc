"""Workflows: matrices and called workflows expanded as GitHub does, and told with the line if that is not possible."""

from __future__ import annotations

from textwrap import dedent

import pytest

from crossjit.upstream.workflows import Job, WorkflowError, jobs_of

HEAD = "name: CI\non: push\njobs:\n"


def expand(jobs: str, **others: str) -> tuple[Job, ...]:
    files = {"ci.yml": HEAD + _indented(jobs), **{f"{name}.yml": dedent(text) for name, text in others.items()}}
    return jobs_of({name: text.encode() for name, text in files.items()}, "ci.yml")


def _indented(text: str) -> str:
    return "".join(f"  {line}" for line in dedent(text).strip("\n").splitlines(keepends=True)) + "\n"


def names(jobs: str, **others: str) -> list[str]:
    return [job.name.removeprefix("CI / ") for job in expand(jobs, **others)]


def test_a_matrix() -> None:
    jobs = """
        test:
          name: ${{ matrix.os }} ${{ matrix.debug && 'Debug' || 'Release' }} ${{ matrix.extra }}
          runs-on: ${{ matrix.os }}
          strategy:
            matrix:
              os: [ubuntu, macos]
              debug: [true, false]
              exclude:
                - {os: macos, debug: false}
              include:
                - {os: ubuntu, extra: one}
                - {debug: true, extra: two}
                - {os: windows, debug: true, extra: alone}
                - {extra: all}
    """
    # an entry may change what entries before it added, and nothing that was there; one that fits nowhere stands alone
    assert names(jobs) == ["ubuntu Debug all", "ubuntu Release all", "macos Debug all", "windows Debug alone"]
    assert [job.system for job in expand(jobs)] == ["Linux", "Linux", "macOS", "Windows"]


def test_a_matrix_of_entries_alone() -> None:
    jobs = """
        test:
          runs-on: ubuntu-24.04
          strategy: {matrix: {include: [{name: a, ssl: {version: 3.0, lib: x}}, {name: b}]}}
    """
    assert names(jobs) == ["test (a, 3, x)", "test (b)"]


def test_a_name_without_its_matrix_is_told_apart_by_the_values() -> None:
    jobs = """
        test:
          name: SSL tests
          runs-on: ubuntu-24.04
          strategy: {matrix: {os: [a, b]}}
    """
    assert names(jobs) == ["SSL tests (a)", "SSL tests (b)"]


def test_environment_and_steps() -> None:
    (job,) = expand("""
        test:
          runs-on: [ubuntu-24.04-arm, self-hosted]
          env:
            A: ${{ inputs.nothing }}x
            N: 1
          defaults: {run: {working-directory: build}}
          steps:
            - uses: actions/checkout@v4
            - name: Say ${{ env.A }}
              run: echo ${{ env.N }} ${{ env.B }} ${{ github.sha }}
              env: {B: "${{ env.A }}y"}
            - run: make
              if: runner.os == 'Windows'
              working-directory: ../x
              continue-on-error: ${{ matrix.nothing }}
            - run: make
              if: ${{ needs.a.outputs.b }}
              continue-on-error: true
    """)
    assert job.runner == "ubuntu-24.04-arm"
    assert job.env == {"A": "x", "N": "1"}
    say, skipped, unclear = job.steps
    assert (say.name, say.script, say.env, say.folder) == ("Say x", "echo 1 xy \ufffd", {"B": "xy"}, "build")
    assert (say.runs, skipped.runs, unclear.runs) == (True, False, None)
    assert (skipped.condition, skipped.folder) == ("runner.os == 'Windows'", "../x")
    assert (skipped.may_fail, unclear.may_fail) == (False, True)
    assert (job.file, job.line, say.line) == ("ci.yml", 4, 12)


def test_a_called_workflow() -> None:
    called = """
        name: Reusable
        on:
          workflow_call:
            inputs:
              os: {type: string, required: true}
              free: {type: boolean, default: false}
        env: {FORCE: 1}
        jobs:
          inner:
            name: build (${{ inputs.os }})
            runs-on: ${{ inputs.os }}
            steps: [{run: "${{ inputs.free && '--free' || '--gil' }}"}]
    """
    jobs = """
        outer:
          name: Ubuntu ${{ matrix.free && '(free)' || '' }}
          strategy: {matrix: {free: [false, true]}}
          uses: ./.github/workflows/called.yml
          with: {os: ubuntu-26.04, free: "${{ matrix.free }}"}
    """
    first, second = expand(jobs, called=called)
    assert (first.name, second.name) == (
        "CI / Ubuntu / build (ubuntu-26.04)",
        "CI / Ubuntu (free) / build (ubuntu-26.04)",
    )
    assert (first.steps[0].script, second.steps[0].script) == ("--gil", "--free")
    assert (first.env, first.file) == ({"FORCE": "1"}, "called.yml")


@pytest.mark.parametrize(
    ("job", "problem"),
    [
        ('strategy: {matrix: {os: "${{ fromJSON(needs.x.outputs.y) }}"}}', "only a running workflow knows"),
        ("runs-on: ${{ matrix.os + 1 }}", "invalid expression"),
        ("uses: other/repository/.github/workflows/x.yml@main", "in another repository"),
        ("steps: [{run: x, if: nonsense.x}]", "unknown name 'nonsense'"),
        ("strategy: {matrix: {a: &a [1, 2, 3, 4, 5, 6, 7, 8], b: *a, c: *a, d: *a}}", "more than 256 jobs"),
        ("strategy: 3", "unknown form"),
        ("steps: [3]", "unknown form"),
    ],
)
def test_a_job_that_is_not_understood_is_told_and_the_others_are_there(job: str, problem: str) -> None:
    odd, plain = expand(f"odd:\n  {job}\nplain:\n  runs-on: ubuntu-24.04")
    assert problem in odd.problem
    assert odd.problem.startswith("ci.yml:4: ")
    assert (odd.steps, plain.name, plain.problem) == ((), "CI / plain", "")


def test_workflows_that_call_each_other_for_ever() -> None:
    again = HEAD + "  again:\n    uses: ./.github/workflows/ci.yml\n"
    (job,) = jobs_of({"ci.yml": again.encode()}, "ci.yml")
    assert "call each other" in job.problem


@pytest.mark.parametrize("text", ["", "jobs: 3", "a: [" * 5000, "\x00", "jobs: {a: &a [*a]}\nb: *nothing", "[1]"])
def test_a_file_that_is_not_a_workflow(text: str) -> None:
    with pytest.raises(WorkflowError, match=r"invalid workflow ci\.yml"):
        jobs_of({"ci.yml": text.encode()}, "ci.yml")


def test_a_workflow_that_is_not_there() -> None:
    with pytest.raises(WorkflowError, match=r"no workflow x\.yml"):
        jobs_of({}, "x.yml")
