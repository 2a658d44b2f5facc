"""Find out what this machine, container and emulator let a program do: one feature check for each capability.

Runs inside the target with nothing but the CPython under test; knows nothing of crossjit. Start it with PYTHON_JIT=0.

    capabilities.py [--list] [NAME …]

Its last line is {"capabilities": {name: {"works": true | false | null, "detail": text}}}. A check that crashes
or hangs is a capability that does not work; null means that nothing can be said: the check itself went wrong, or had
no time.

The checks ask the kernel, or what stands for it, and not the CPython under test: a bug there must not pass for a
missing capability and excuse the tests that find it. So they call the C library through ctypes, or modules that are no
more than its calls (os, signal, time, _socket, _thread, mmap); where more of Python is in between, a control without
the thing in question has to work.
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
DETAIL = 1000  # characters that are told of one

FEATURE_CHECKS = (
    *feature_checks_processes.FEATURE_CHECKS,
    *feature_checks_memory.FEATURE_CHECKS,
    *feature_checks_time.FEATURE_CHECKS,
    *feature_checks_files.FEATURE_CHECKS,
    *feature_checks_sockets.FEATURE_CHECKS,
)


def name_of(feature_check):
    """Name a feature check's capability: `posix-spawn-errno`."""
    return feature_check.__name__.replace("_", "-")


def answer(feature_check):
    """Try a feature check in this process."""
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
        said = f"the feature check went wrong: {type(error).__name__}: {error} (line {line})"
        return {"works": None, "detail": said}


def short(fact):
    """Cut what a feature check tells where it is too long to be of use."""
    return {**fact, "detail": fact["detail"][:DETAIL]}


def ask(feature_check, patience=PATIENCE, channel=None):
    """Try a feature check in a process and a folder of its own, which are gone afterwards with all that it started."""
    with (
        tempfile.TemporaryDirectory(prefix="check-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as said,
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
                os.write(said.fileno(), json.dumps(short(answer(feature_check))).encode())
            finally:
                os._exit(0)
        status = end(pid, patience)
        said.seek(0)
        with contextlib.suppress(ValueError):
            return json.loads(said.read())
        if status is None:
            return {"works": False, "detail": f"it hangs: no answer in {patience:.0f} s"}
        noise.seek(0)
        last = noise.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        return {"works": False, "detail": f"the feature check was {how(status)}" + (f": {last[:200]}" if last else "")}


def end(pid, patience):
    """Wait for a child, and kill it and its session when its time is over; return its wait status, None if it was."""
    deadline = time.monotonic() + patience
    status, pause = None, 0.001
    while status is None and time.monotonic() < deadline:
        ended, found = os.waitpid(pid, os.WNOHANG)
        if ended:
            status = found
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
    """Try all feature checks, or those that are named."""
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
    # a feature check that crashes leaves no core: what it shows is told
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    channel = os.dup(1)  # no feature check has it
    os.dup2(2, 1)
    deadline = time.monotonic() + LIMIT
    found = {}
    for name, feature_check in chosen.items():
        if time.monotonic() < deadline:
            found[name] = ask(feature_check, channel=channel)
        else:
            found[name] = {"works": None, "detail": "there was no time left for it"}
    with os.fdopen(channel, "w", encoding="utf-8") as file:
        file.write(json.dumps({"capabilities": found}) + "\n")


if __name__ == "__main__":
    main()
