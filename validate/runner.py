"""Run a suite's modules with the CPython that runs this, each in a process of its own.

Runs inside the target with nothing but the CPython under test; knows nothing of crossjit. Start it with PYTHON_JIT=0:
it must not depend on what it tests. Its children get the suite's environment and nothing of `PYTHON…` from its own.

    runner.py --suite-json FILE --output DIR --jobs N

FILE holds {"limit": seconds, "resources": [...], "ignore": [patterns], "items": [item, …], "shard": [i, n] | null,
"tests": [patterns], "seconds": {key: seconds}, "done": [keys]}; an item is {"kind": "module" | "script", "name",
"without": [modules], "label", "arguments", "env", "timeout", "weight", "weights": {module: weight}, "optional"}. A
module's name may end in `.*` for all test modules of a package, or be `*` for all that regrtest runs, but for those
that it is `without`. A key is a name with its label, as `test_dict [stress]`: `seconds` says how long modules took
before, `done` what is not to be run again. Of n shards, all together hold each module once, as long as FILE is the same
but for `seconds` and `done`. A pattern among `tests` is a module's name, or what regrtest's `--match` takes; modules
that can have no such test are left out.

On stdout, JSON lines: {"event": "plan", "modules": […], "missing": […]} first, several times where there are many;
then `start` and `end` for each module, where `end` has `status` (negative for a signal), `signal`, `timed_out`,
`suite_timed_out` (it had as much time as the suite had left, and not its own), `memory_kills`, `seconds`, `junit`,
`checks` and `log` (names of files in the folder DIR/<id>, or null), `tail`, the end of its output, and `command` and
`env`, what was run and what was set for it; `not started` with a `reason` for what could not be run; `done` last. A
module's folder is whole when its `end` comes. `crossjit/channels/runner.py` has the types.

What runs here cannot write such lines: they go through a descriptor that no child has, of a process whose descriptors
the kernel shows to nobody.
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

TAIL = 6000  # characters of a module's output that go into its line
GRACE = 60  # seconds beyond regrtest's own timeout, in which it writes all threads' stacks
LINE = 60_000  # characters of a line
PLANNED = 100  # modules in a line of the plan
PR_SET_DUMPABLE = 4  # <linux/prctl.h>


class Runner:
    """Works through the jobs, several at a time."""

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
        """Write one JSON line; one that is too long loses the beginning of its `tail`."""
        line = json.dumps({"event": event, **fields})
        while len(line) > LINE and fields.get("tail"):
            fields["tail"] = fields["tail"][len(fields["tail"]) // 2 + 1 :]
            line = json.dumps({"event": event, **fields})
        with self.lock:
            self.channel.write(line + "\n")
            self.channel.flush()

    def work(self, jobs):
        """Take jobs from the queue until it is empty: the body of each thread."""
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
                ended = self.run(job)
            except OSError as error:
                self.emit("not started", **about, reason=f"{type(error).__name__}: {error}")
            else:
                self.emit("end", **about, **ended)

    def run(self, job):
        """Run one module or script to its end, or until its time is over."""
        directory = self.scratch / job["id"][:3]  # short: sockets' paths have at most 107 bytes
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
        """Run a command to its end, or until its time is over; return its status and whether it was."""
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
        """Make the command line.

        `python -m test` as upstream's JIT job calls it: `--fast-ci` and `--slow-ci` would start Python with -E, and the
        suite's environment would be ignored (`_add_ci_python_opts` in Lib/test/libregrtest/main.py). Verbose, since
        only then a test's name is written before it runs, and known when it crashes; and since the report leaves out
        which subtests and which `setUpClass` failed (`_add_result` in Lib/test/libregrtest/testresult.py).
        """
        if job["kind"] == "script":
            return [sys.executable, job["name"], *job["arguments"]]
        ignored = [argument for pattern in self.suite["ignore"] for argument in ("--ignore", pattern)]
        return [
            *(sys.executable, "-m", "test", "--verbose", "--fail-env-changed"),
            *("--junit-xml", str(junit), "--timeout", str(job["timeout"]), "--tempdir", str(directory)),
            *("--use", ",".join(self.suite["resources"]) or "none"),
            *(argument for pattern in job.get("match", ()) for argument in ("--match", pattern)),
            *ignored,  # after what is to match: the last that fits a test decides
            *job["arguments"],
            job["name"],
        ]

    def environment(self, job, directory):
        """Make the child's environment: the container's, a folder of its own for temporary files, and the suite's."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**inherited, "TMPDIR": str(directory), **job["env"]}

    def end(self, child):
        """Kill what is left of a child's process group, and reap the child."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        with self.lock:
            self.children.discard(child)

    def stop(self, *_):
        """End at once, with everything that was started."""
        self.stopping = True
        for child in list(self.children):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
        os._exit(143)


def open_channel():
    """Take stdout for the events alone: under another descriptor, which children do not get; print goes nowhere."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return channel


def hide():
    """Keep other processes of this user from this one's descriptors and memory, as far as that can be had here.

    What is run becomes visible again as it is executed.
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def signal_name(number):
    """Name a signal as people know it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def memory_kills():
    """Count what the kernel has killed in this container for its memory: cgroup v2, or v1."""
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
    """Run the suite. Ends with 0 when all jobs were dealt with, whatever their outcomes."""
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
    # a crashing test must not fill the target with its memory
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
