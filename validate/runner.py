"""Run a suite's modules with the CPython under test, each in a process of its own.

Runs inside the target with that CPython only, independent of crossjit. Start it with PYTHON_JIT=0, so that it does not
depend on the tested feature. Its children get the suite's environment, and none of its own `PYTHON…` variables.

    runner.py --suite-json FILE --output DIR --jobs N

FILE holds {"limit": seconds, "resources": [...], "ignore": [patterns], "items": [item, …], "shard": [i, n] | null,
"tests": [patterns], "seconds": {key: seconds}, "done": [keys]}; an item is {"kind": "module" | "script", "name",
"without": [modules], "label", "arguments", "env", "timeout", "weight", "weights": {module: weight}, "optional"}. A
module's name may end in `.*` for all test modules of a package, or be `*` for all of regrtest's modules, except those
in `without`. A key is a name with its label, such as `test_dict [stress]`: `seconds` are the modules' durations in
earlier runs, `done` are modules that do not run again. The n shards together have each module once, if their FILEs
differ only in `shard`, `seconds` and `done`. A pattern in `tests` is a module's name, or a pattern for regrtest's
`--match`; modules that cannot have such a test are skipped.

On stdout, JSON lines: first {"event": "plan", "modules": […], "missing": […]}, several times for many modules; then
`start` and `end` for each module. `end` has `status` (negative for a signal), `signal`, `timed_out`, `suite_timed_out`
(its limit was the suite's remaining time), `memory_kills`, `seconds`, `junit`, `checks` and `log` (names of files in
the folder DIR/<id>, or null), `tail` (the end of its output), `command`, and `env` (the variables set for it). A module
that could not be run gets `not started` with a `reason`; `done` is last. A module's folder is complete before its
`end`. `crossjit/channels/runner.py` has the types.

Tests cannot write such lines: the runner uses a descriptor that no child inherits, and its process is not dumpable,
so that others cannot open its descriptors.
"""

import argparse
import contextlib
import json
import os
import pathlib
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from runner_jobs import key, plan, test_directory

TAIL = 6000  # characters of a module's output in its `end`
GRACE = 60  # seconds after regrtest's own timeout, in which it writes all threads' stacks
LINE = 60_000  # characters of a line, at most
PLANNED = 100  # modules in a line of the plan, at most
PR_SET_DUMPABLE = 4  # <linux/prctl.h>


class Runner:
    """Runs the jobs, several at a time."""

    def __init__(self, suite, output, scratch, channel):
        self.suite = suite
        self.channel = channel
        self.output = output
        self.scratch = scratch
        self.deadline = time.monotonic() + suite["limit"]
        self.lock = threading.Lock()
        self.children = set()
        self.stopping = False

    def emit(self, event, **fields):
        """Write a JSON line; if it is too long, the start of its `tail` is cut."""
        line = json.dumps({"event": event, **fields})
        while len(line) > LINE and fields.get("tail"):
            fields["tail"] = fields["tail"][len(fields["tail"]) // 2 + 1 :]
            line = json.dumps({"event": event, **fields})
        with self.lock:
            self.channel.write(line + "\n")
            self.channel.flush()

    def work(self, jobs):
        """Run jobs from the queue until it is empty: the body of each thread."""
        while not self.stopping:
            try:
                job = jobs.get_nowait()
            except queue.Empty:
                return
            about = {key: job[key] for key in ("id", "kind", "name", "label")}
            if time.monotonic() >= self.deadline:
                self.emit("not started", **about, reason="the suite's time was over")
                continue
            self.emit("start", **about)
            try:
                result = self.run(job)
            except OSError as error:
                self.emit("not started", **about, reason=f"{type(error).__name__}: {error}")
            else:
                self.emit("end", **about, **result)

    def run(self, job):
        """Run one module or script until it ends or reaches its time limit."""
        directory = self.scratch / job["id"][:3]  # short, because socket paths have at most 107 bytes
        directory.mkdir()
        folder = self.output / job["id"]
        folder.mkdir()
        junit = folder / f"{job['id']}.xml"
        log = folder / f"{job['id']}.log"
        checks = folder / f"{job['id']}.jsonl" if job["kind"] == "script" else None
        started, kills = time.monotonic(), memory_kills()
        remaining = max(1.0, self.deadline - started)
        own = job["timeout"] + (GRACE if job["kind"] == "module" else 0)
        timeout = min(own, remaining)
        command = self.command(job, junit, directory)
        status, timed_out = self.wait(command, self.environment(job, directory), directory, log, checks, timeout)
        shutil.rmtree(directory, ignore_errors=True)
        return {
            "status": status,
            "signal": signal_name(-status) if status < 0 else None,
            "timed_out": timed_out,
            "suite_timed_out": timed_out and remaining < own,
            "memory_kills": memory_kills() - kills,
            "seconds": round(time.monotonic() - started, 3),
            "junit": junit.name if junit.exists() else None,
            "checks": checks.name if checks else None,
            "log": log.name,
            "tail": tail(log),
            "command": command,
            "env": job["env"],
        }

    def wait(self, command, env, directory, log, checks, timeout):
        """Run a command until it ends or reaches its time limit; return its status and whether it timed out."""
        with contextlib.ExitStack() as stack:
            text = stack.enter_context(log.open("wb"))
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stack.enter_context(checks.open("wb")) if checks else text,
                stderr=text,
                cwd=directory,
                env=env,
                start_new_session=True,
            )
            with self.lock:
                self.children.add(child)
            timed_out = False
            try:
                child.wait(timeout)
            except subprocess.TimeoutExpired:
                timed_out = True
            finally:
                self.end(child)
        return child.returncode, timed_out

    def command(self, job, junit, directory):
        """Return the command line.

        `python -m test` as in upstream's JIT job: `--fast-ci` and `--slow-ci` would start Python with -E, which ignores
        the suite's environment (`_add_ci_python_opts` in Lib/test/libregrtest/main.py). Verbose output has a test's
        name before it runs, which shows the test that crashed; it also has failed subtests and `setUpClass`, which the
        report lacks (`_add_result` in Lib/test/libregrtest/testresult.py).
        """
        if job["kind"] == "script":
            return [sys.executable, job["name"], *job["arguments"]]
        ignored = [argument for pattern in self.suite["ignore"] for argument in ("--ignore", pattern)]
        return [
            *(sys.executable, "-m", "test", "--verbose", "--fail-env-changed"),
            *("--junit-xml", str(junit), "--timeout", str(job["timeout"]), "--tempdir", str(directory)),
            *("--use", ",".join(self.suite["resources"]) or "none"),
            *(argument for pattern in job.get("match", ()) for argument in ("--match", pattern)),
            *ignored,  # after the patterns to match: the last one that matches a test decides
            *job["arguments"],
            job["name"],
        ]

    def environment(self, job, directory):
        """Return the child's environment: the container's, its own folder for temporary files, and the suite's."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**inherited, "TMPDIR": str(directory), **job["env"]}

    def end(self, child):
        """Kill the rest of a child's process group, and reap the child."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        with self.lock:
            self.children.discard(child)

    def stop(self, *_):
        """Kill all children and exit at once."""
        self.stopping = True
        for child in list(self.children):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
        os._exit(143)


def open_channel():
    """Reserve stdout for the events: move it to a descriptor that children do not inherit, and discard prints."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return channel


def hide():
    """Keep other processes of this user from this one's descriptors and memory, if the kernel supports it.

    Executed programs become visible again.
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def signal_name(number):
    """Return a signal's name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def memory_kills():
    """Return the number of the kernel's kills for memory in this container (cgroup v2 or v1)."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError), pathlib.Path(path).open() as file:
            for line in file:
                name, _, number = line.partition(" ")
                if name == "oom_kill":
                    return int(number)
    return 0


def tail(path):
    """Read the end of a text file."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4 * TAIL))
        return file.read().decode("utf-8", "replace")[-TAIL:]


def main():
    """Run the suite. Exits with 0 when all jobs are finished, with any outcome."""
    parser = argparse.ArgumentParser(description="Run a suite's modules, each in a process of its own.")
    parser.add_argument("--suite-json", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    arguments = parser.parse_args()
    channel = open_channel()
    hide()
    suite = json.loads(pathlib.Path(arguments.suite_json).read_text(encoding="utf-8"))
    output = pathlib.Path(arguments.output).absolute()
    output.mkdir(parents=True, exist_ok=True)
    jobs, missing = plan(suite, test_directory())
    # core files of crashing tests must not fill the target's disk
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    waiting = queue.SimpleQueue()
    for job in jobs:
        if key(job) not in suite["done"]:
            waiting.put(job)
    with tempfile.TemporaryDirectory(prefix="cj-", ignore_cleanup_errors=True) as scratch:
        runner = Runner(suite, output, pathlib.Path(scratch), channel)
        signal.signal(signal.SIGTERM, runner.stop)
        signal.signal(signal.SIGINT, runner.stop)
        modules = [{key: job[key] for key in ("id", "kind", "name", "label")} for job in jobs]
        for first in range(0, max(1, len(modules), len(missing)), PLANNED):
            part = slice(first, first + PLANNED)
            runner.emit("plan", modules=modules[part], missing=missing[part])
        threads = [threading.Thread(target=runner.work, args=(waiting,)) for _ in range(max(1, arguments.jobs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        runner.emit("done")


if __name__ == "__main__":
    main()
