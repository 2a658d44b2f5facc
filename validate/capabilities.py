"""Probe the capabilities of this machine, container and emulator: one feature check for each.

Runs inside the target with the CPython under test only, independent of crossjit. Start it with PYTHON_JIT=0.

    capabilities.py [--list] [NAME …]

Its last line is {"capabilities": {name: {"works": true | false | null, "detail": text}}}. If a check crashes or hangs,
the capability does not work; null means unknown: the check itself failed, or there was no time for it.

The checks test the kernel or its emulation, not the CPython under test: a bug of CPython must not look like a missing
capability and excuse the tests that find it. So they call the C library through ctypes, or modules that only wrap its
calls (os, signal, time, _socket, _thread, mmap); if more of Python is involved, a control without the tested feature
must work.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import tempfile
import time
import traceback

import feature_checks_files
import feature_checks_memory
import feature_checks_processes
import feature_checks_sockets
import feature_checks_time
from feature_check import PATIENCE, Inconclusive, Unsupported, error_name, how

LIMIT = 120.0  # seconds for all of them
DETAIL = 1000  # characters of a detail, at most

FEATURE_CHECKS = (
    *feature_checks_processes.FEATURE_CHECKS,
    *feature_checks_memory.FEATURE_CHECKS,
    *feature_checks_time.FEATURE_CHECKS,
    *feature_checks_files.FEATURE_CHECKS,
    *feature_checks_sockets.FEATURE_CHECKS,
)


def name_of(feature_check):
    """Return the name of a feature check's capability: `posix-spawn-errno`."""
    return feature_check.__name__.replace("_", "-")


def result_of(feature_check):
    """Run a feature check in this process."""
    try:
        return {"works": True, "detail": feature_check()}
    except Unsupported as missing:
        return {"works": False, "detail": str(missing)}
    except OSError as error:
        text = error.strerror or str(error)
        return {"works": False, "detail": f"{text} ({error_name(error.errno)})" if error.errno else text}
    except Inconclusive as unclear:
        return {"works": None, "detail": str(unclear)}
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        detail = f"the feature check went wrong: {type(error).__name__}: {error} (line {line})"
        return {"works": None, "detail": detail}


def short(fact):
    """Shorten a feature check's detail."""
    return {**fact, "detail": fact["detail"][:DETAIL]}


def ask(feature_check, patience=PATIENCE, channel=None):
    """Run a feature check in its own process and folder, which are removed afterwards with all that it started."""
    with (
        tempfile.TemporaryDirectory(prefix="check-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as result,
        tempfile.TemporaryFile() as noise,
    ):
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                os.chdir(folder)
                if channel is not None:
                    os.close(channel)
                os.dup2(noise.fileno(), 1)
                os.dup2(noise.fileno(), 2)
                os.write(result.fileno(), json.dumps(short(result_of(feature_check))).encode())
            finally:
                os._exit(0)
        status = end(pid, patience)
        result.seek(0)
        with contextlib.suppress(ValueError):
            return json.loads(result.read())
        if status is None:
            return {"works": False, "detail": f"it hangs: no answer in {patience:.0f} s"}
        noise.seek(0)
        last = noise.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        return {"works": False, "detail": f"the feature check was {how(status)}" + (f": {last[:200]}" if last else "")}


def end(pid, patience):
    """Wait for a child, then kill its session, and itself at its time limit; return its wait status, None if killed."""
    deadline = time.monotonic() + patience
    status, pause = None, 0.001
    while status is None and time.monotonic() < deadline:
        done, wait_status = os.waitpid(pid, os.WNOHANG)
        if done:
            status = wait_status
        else:
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
    for kill in (os.killpg, *([os.kill] if status is None else [])):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    if status is None:
        os.waitpid(pid, 0)
    return status


def main():
    """Run all feature checks, or the named ones."""
    parser = argparse.ArgumentParser(description="Find out what a program may do here, by trying.")
    parser.add_argument("--list", action="store_true", help="only tell what each feature check shows")
    parser.add_argument("names", nargs="*", help="names of capabilities (default: all)")
    arguments = parser.parse_args()
    checks = {name_of(feature_check): feature_check for feature_check in FEATURE_CHECKS}
    unknown = set(arguments.names) - set(checks)
    if unknown:
        parser.error(f"no such capability: {', '.join(sorted(unknown))}")
    chosen = {name: checks[name] for name in arguments.names or checks}
    if arguments.list:
        print(json.dumps({name: feature_check.__doc__.partition("\n")[0] for name, feature_check in chosen.items()}))
        return
    # crashing feature checks must not leave core files
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    channel = os.dup(1)  # feature checks do not inherit it
    os.dup2(2, 1)
    deadline = time.monotonic() + LIMIT
    results = {}
    for name, feature_check in chosen.items():
        if time.monotonic() < deadline:
            results[name] = ask(feature_check, channel=channel)
        else:
            results[name] = {"works": None, "detail": "there was no time left for it"}
    with os.fdopen(channel, "w", encoding="utf-8") as file:
        file.write(json.dumps({"capabilities": results}) + "\n")


if __name__ == "__main__":
    main()
