"""Shrink a script with shrinkray for as long as it fails in the same way.

    reduce_script.py ORDER              shrink it, and print JSON lines about the progress
    reduce_script.py ORDER CANDIDATE    exit with 0 if this script fails in the same way

Runs in a toolchain container with Debian's Python, beside the CPython under test. ORDER is a JSON file:

    script          the script's path; its file always has the smallest script so far
    order           what validate/user_script.py, at `runner`, is told beside `script`, `python` and `packages`
    failing         the `python`, the `packages` and the `env` with which the script fails
    passing         a list of the same, of the conditions under which it passes and must go on passing
    cheap           how many of these take less time than the failing one, and are tried before it
    runs            how many times a script is run until it fails: more than once if the failure is intermittent
    seconds         the time limit of the first runs
    hang_seconds    the limit of all others if the script hangs
    minutes         the time for everything
    jobs            how many scripts run at a time
    libraries       the folder with shrinkray

`failure`, `limit` and `compiles` are added for the second form.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time

from crossjit.validation.failure import Failure

TAIL = 8_000  # bytes of a script's output that are searched for the reason of a crash
SLACK, SHORTEST = 10, 2  # a script may take so many times as long as the original, and at least so many seconds
INTERVAL = 1.0
TRIED = ".tried"  # beside the order: a byte for each script that was tried
LOG = ".log"


def run(order, condition, script, seconds):
    """Run a script once; return its Failure, or None if it passed."""
    told = {**order["order"], "script": script, "python": condition["python"], "packages": condition["packages"]}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, order["runner"], json.dumps(told)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, **condition["env"]},
            start_new_session=True,
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return Failure("hung", "")
        finally:
            end(process)
        if status < 0:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - TAIL))
            message = errors.read().decode("utf-8", "replace")
            return Failure.of("crashed", f"{message}\nscript: killed by {signal.Signals(-status).name}")
        output.seek(0)
        check = json.loads(output.read().splitlines()[-1])
        return None if check["outcome"] == "passed" else Failure.of("failed", check["message"])


def end(process):
    """Kill a process's session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def is_same(order, candidate):
    """Whether a script fails as the original, and passes where that passes."""
    if order["compiles"] and not compiles(candidate):
        return False
    expected, limit, cheap = Failure(**order["failure"]), order["limit"], order["cheap"]

    def passes(conditions):
        return all(run(order, condition, candidate, limit) is None for condition in conditions)

    if not passes(order["passing"][:cheap]):
        return False
    failures = (run(order, order["failing"], candidate, limit) for _ in range(order["runs"]))
    first = next((failure for failure in failures if failure), None)
    return first is not None and first.is_same(expected) and passes(order["passing"][cheap:])


def compiles(script):
    """Whether a script is one for this Python: most candidates are none, and this shows it at once."""
    try:
        compile(pathlib.Path(script).read_bytes(), script, "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True


def measure(order):
    """Run the original until it fails; return its failure, and the time limit for all others."""
    longest = 0.0
    for _ in range(order["runs"]):
        began = time.monotonic()
        failure = run(order, order["failing"], order["script"], order["seconds"])
        longest = max(longest, time.monotonic() - began)
        if failure:
            limit = order["hang_seconds"] if failure.how == "hung" else max(SHORTEST, math.ceil(SLACK * longest))
            return failure, min(limit, order["seconds"])
    return None, 0


def tell(**facts):
    """Print facts."""
    print(json.dumps(facts), flush=True)


def shrink(path):
    """Shrink the script of an order, and say how it went."""
    deadline = time.monotonic()
    order = json.loads(path.read_bytes())
    deadline += 60 * order["minutes"]
    failure, limit = measure(order)
    if failure is None:
        return tell(ended="passes")
    order |= {"failure": dataclasses.asdict(failure), "limit": limit, "compiles": compiles(order["script"])}
    if any(run(order, condition, order["script"], order["seconds"]) for condition in order["passing"]):
        return tell(ended="fails everywhere")
    path.write_text(json.dumps(order))
    tell(failure=order["failure"], limit=limit)
    tried, script = path.with_suffix(TRIED), pathlib.Path(order["script"])
    tried.touch()
    command = [sys.executable, "-m", "shrinkray", "--ui", "basic", "--volume", "quiet", "--formatter", "none"]
    command += ["--no-history", "--trivial-is-not-error", "--input-type", "arg", "--memory-limit", "0"]
    command += ["--timeout", "0", "--parallelism", str(order["jobs"])]
    check = shlex.join([sys.executable, str(pathlib.Path(__file__).resolve()), str(path)])
    with path.with_suffix(LOG).open("wb+") as log:
        process = subprocess.Popen(
            [*command, check, str(script)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": order["libraries"]},
            start_new_session=True,
        )
        try:
            while process.poll() is None and time.monotonic() < deadline:
                content = script.read_bytes()
                tell(size=len(content), lines=content.count(b"\n"), tried=tried.stat().st_size)
                time.sleep(INTERVAL)
            status = process.poll()
        finally:
            end(process)
        log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
        said = log.read().decode("utf-8", "replace")
    ended = "time" if status is None else "failed" if status else "smallest"
    return tell(ended=ended, tried=tried.stat().st_size, said=said if ended == "failed" else "")


def main():
    """Shrink a script, or look at a candidate."""
    path, *candidates = sys.argv[1:]
    if not candidates:
        return shrink(pathlib.Path(path))
    order = json.loads(pathlib.Path(path).read_bytes())
    with pathlib.Path(path).with_suffix(TRIED).open("ab") as tried:
        tried.write(b".")
    return 0 if is_same(order, candidates[0]) else 1


if __name__ == "__main__":
    sys.exit(main())
