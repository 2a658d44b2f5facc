"""`report` and `compare` as commands: what goes where, and what is said if it cannot."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from crossjit.model import Verdict
from crossjit.runs.model import Run
from crossjit.settings import Settings
from crossjit.triage.decide import Layer
from crossjit.triage.diagnosis import save
from tests import example_runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def example(settings: Settings) -> Run:
    return example_runs.record(settings, example_runs.results())


def invoke(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "CROSSJIT_HOME": str(settings.home), "PYTHONIOENCODING": "ascii"}
    return subprocess.run(
        [sys.executable, "-m", "crossjit", *arguments], cwd=ROOT, env=environment, capture_output=True, check=False
    )


def test_files_are_written_and_stdout_stays_empty(settings: Settings, example: Run, tmp_path: Path) -> None:
    page, xml, summary = (tmp_path / name for name in ("page.html", "junit.xml", "summary.md"))
    page.write_text("old")
    done = invoke(settings, "report", example.id, "--html", str(page), "--junit", str(xml), "--markdown", str(summary))
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode().splitlines() == [f"wrote {path}" for path in (page, xml, summary)]
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert xml.read_bytes().startswith(b"<?xml")
    assert summary.read_text(encoding="utf-8").startswith("## crossjit: ")
    assert not list(tmp_path.glob(".*")), "what was written on the way is gone"


def test_a_dash_is_stdout_as_utf_8_whatever_the_locale(settings: Settings, example: Run) -> None:
    done = invoke(settings, "report", "--html", "-")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"<!DOCTYPE html>")
    assert "✗" in done.stdout.decode("utf-8")
    assert "❌" in invoke(settings, "report", example.id[:-2], "--markdown=-").stdout.decode("utf-8")


def test_without_a_file_it_is_text_or_json(settings: Settings, example: Run) -> None:
    text = invoke(settings, "report", "last").stdout.decode()
    assert f"run:       {example.id}" in text
    assert "crashed: jit: test.test_sys_settrace" in text
    whole = json.loads(invoke(settings, "report", "--json").stdout)
    cell = whole["cells"][1]
    assert (whole["id"], cell["cell"]) == (example.id, "3.15/aarch64/jit")
    assert cell["line"] == "./inv validate --recipe 3.15 --arch aarch64 --variant jit"
    (suite,) = cell["suites"]
    assert len(suite["tests"]) == len(example.results()[1].suites[0].results)
    assert [test["name"] for test in suite["unexpected_passes"]] == ["test.test_gdb.test_jit.JitTests.test_bt"]
    assert suite["modules"][0]["name"] == "test_generated_cases"
    assert suite["caveats"]


def test_what_triage_concluded_is_in_every_report(settings: Settings, example: Run) -> None:
    assert json.loads(invoke(settings, "report", "--json").stdout)["cells"][1]["diagnoses"] == []
    example_runs.triage(example)
    line = "JIT backend of one arch: passes with the JIT off, in the tier-2 interpreter and on the other arch"
    assert f"killed by SIGSEGV, Fatal Python error: Segmentation fault)\n    {line}" in (
        invoke(settings, "runs", "show").stdout.decode()
    )
    for command in (("report", "--json"), ("runs", "show", "--json")):
        told = json.loads(invoke(settings, *command).stdout)["cells"][1]["diagnoses"]
        assert [each["layer"] for each in told] == ["optimizer", "JIT backend of one arch"]
        assert told[1]["test"] == example_runs.SETTRACE
        assert told[1]["tries"][0]["changed"] == "as first seen"
    summary = invoke(settings, "report", "--markdown=-").stdout.decode()
    section = summary.partition("### Whose failure it is\n\n")[2].partition("\n\n")[0].splitlines()
    assert len(section) == 2
    assert "**JIT backend of one arch**" in section[0]
    assert f"<code>{example_runs.GUARD.replace('_', '&#95;')}</code> in 3.15/x86&#95;64/jit, 3.15/aarch64" in section[1]
    root = ElementTree.fromstring(invoke(settings, "report", "--junit=-").stdout)
    texts = [bad.text or "" for tag in ("failure", "error") for bad in root.iter(tag)]
    (crashed,) = [text for text in texts if line in text]
    assert f"\n\ntriage (run {example_runs.TRIAGE}): {line}" in crashed
    assert sum("triage (run" in text for text in texts) == 3


def test_a_run_of_triage_shows_what_it_concluded(settings: Settings) -> None:
    result = example_runs.results()[1]
    run = example_runs.record(settings, [], also=[result.cell])
    found = example_runs.diagnosis(result.cell, example_runs.GUARD, Layer.FLAKY, "passes and fails")
    (run.folder / "cells" / result.cell.slug).mkdir(parents=True)
    save(run.cell_folder(result.cell), run.id, [found])
    text = invoke(settings, "runs", "show").stdout.decode()
    assert f"{result.cell}: {example_runs.GUARD}\n  flaky (5 of 5): passes and fails\n" in text
    assert "tier-2 interpreter" in text
    assert "aborted" not in text


def test_json_beside_a_file(settings: Settings, example: Run, tmp_path: Path) -> None:
    done = invoke(settings, "report", "--json", "--junit", str(tmp_path / "junit.xml"))
    assert json.loads(done.stdout)["id"] == example.id
    assert (tmp_path / "junit.xml").exists()


def test_a_place_that_cannot_be_written_is_one_clear_error(settings: Settings, example: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, said, hint in (
        (tmp_path / "no" / "page.html", "no such file or directory", f"there is no folder {tmp_path / 'no'}"),
        (tmp_path, "is a directory", "give a file, such as"),
        (tmp_path / "file" / "page.html", "not a directory", "there is no folder"),
        (Path("/proc/page.html"), "cannot write /proc/page.html", "hint: "),
    ):
        done = invoke(settings, "report", "--html", str(place))
        error = done.stderr.decode()
        assert done.returncode == 2, error
        assert error.startswith(f"error: cannot write {place}: ")
        assert said in error
        assert hint in error
        assert "Traceback" not in error
        assert error.count("\n") == 2


def test_what_was_written_before_an_error_is_whole(settings: Settings, example: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("old")
    done = invoke(settings, "report", "--html", str(page), "--junit", str(tmp_path / "no" / "junit.xml"))
    assert done.returncode == 2
    assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


def test_links_are_followed_and_devices_are_written_to(settings: Settings, example: Run, tmp_path: Path) -> None:
    (tmp_path / "real.html").write_text("old")
    (tmp_path / "link.html").symlink_to("real.html")
    assert invoke(settings, "report", "--html", str(tmp_path / "link.html")).returncode == 0
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").read_text(encoding="utf-8").startswith("<!DOCTYPE")
    # a pipe stands for /dev/null and /dev/stdout: what is not a file must not be replaced by one
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        assert invoke(settings, "report", "--junit", str(pipe)).returncode == 0
        assert reader.stdout is not None
        assert reader.stdout.read().startswith(b"<?xml")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("report", "--html", "-", "--junit", "-"), "only one report at a time can go to stdout"),
        (("report", "--json", "--html", "-"), "only one report at a time can go to stdout"),
        (("report", "no-such-run"), "there is no run 'no-such-run'"),
        (("report", "a", "b"), "only one run at a time can be given"),
        (("report", "--html"), "--html needs a value"),
        (("compare", "last"), "compare needs AFTER"),
        (("compare", "last", "no-such-run"), "there is no run 'no-such-run'"),
    ],
)
def test_wrong_wishes_are_refused(settings: Settings, example: Run, arguments: tuple[str, ...], said: str) -> None:
    done = invoke(settings, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()


def test_comparing_ends_with_1_if_something_newly_fails(settings: Settings) -> None:
    results = example_runs.results()
    good = replace(results[1], verdict=Verdict.PASS, suites=())
    before = example_runs.record(settings, [good], also=())
    after = example_runs.record(settings, results[1:2], also=())
    worse = invoke(settings, "compare", before.id, after.id)
    assert worse.returncode == 1
    assert "3.15/aarch64/jit: pass -> fail" in worse.stdout.decode()
    assert "jit: test.test_monitoring [stress]: not there -> timed out" in worse.stdout.decode()
    better = invoke(settings, "compare", after.id, before.id, "--json")
    assert better.returncode == 0
    assert json.loads(better.stdout)["cells"][0]["suites_removed"] == ["jit"]
    assert invoke(settings, "compare", after.id, "last").returncode == 0


def test_runs_with_nothing_in_common_are_not_compared(settings: Settings) -> None:
    results = example_runs.results()
    first, second = (example_runs.record(settings, [result], also=()) for result in results[:2])
    done = invoke(settings, "compare", first.id, second.id)
    assert done.returncode == 2
    assert "no cell in common" in done.stderr.decode()
    assert f"{first.id}: 3.15/x86_64/jit" in done.stderr.decode()
