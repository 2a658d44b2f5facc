"""Run a script from a bug report once, and say whether it ended as expected.

    user_script.py '{"script": path, "arguments": [words], "status": number or null, "text": text, "packages": folder,
                     "python": path}'

Runs inside the target with nothing but the CPython under test, and prints JSON lines as `ft_workload.py` does: one
check, named after the script. The script passes if it exits with the status and prints the text. Without a text only
the status counts, 0 by default, and without a status only the text. A script that dies of a signal takes this process
with it, so that the runner sees the crash; the runner also ends one that hangs. The script's output goes to stderr. It
imports packages from the folder, if there is one, and runs in a different Python than this, if one is named.
"""

import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

CHUNK = 1 << 16
TAIL = 4_000  # bytes of output in a failure's message


def run(python, script, arguments, text, packages):
    """Run the script; return its exit status, the end of its output, and whether the text was in it."""
    process = subprocess.Popen(
        [python, "-X", "faulthandler", script, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": packages} if packages else None,
    )
    wanted = os.fsencode(text)
    tail, found = b"", not wanted
    while chunk := process.stdout.read1(CHUNK):
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
        found = found or wanted in tail[-len(wanted) :] + chunk
        tail = (tail + chunk)[-max(TAIL, len(wanted)) :]
    return process.wait(), tail[-TAIL:].decode("utf-8", "replace"), found


def judge(status, expected, output, text, found):
    """Return the outcome of a script that did not die of a signal, and the message of a failure."""
    problems = []
    if expected is not None and status != expected:
        problems.append(f"exit status {status}, expected {expected}")
    if not found:
        problems.append(f"{text!r} was not printed")
    return ("failed", f"{output.rstrip()}\n{'; '.join(problems)}") if problems else ("passed", "")


def die(number):
    """End this process by a signal, without a core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def main():
    """Run the script."""
    order = json.loads(sys.argv[1])
    expected = 0 if order["status"] is None and not order["text"] else order["status"]
    check = re.sub(r"[^\w.-]", "_", pathlib.Path(order["script"]).stem)
    print(json.dumps({"check": check, "outcome": "started"}), flush=True)
    began = time.perf_counter()
    python = order["python"] or sys.executable
    status, output, found = run(python, order["script"], order["arguments"], order["text"], order["packages"])
    if status < 0:
        die(-status)
    outcome, message = judge(status, expected, output, order["text"], found)
    seconds = round(time.perf_counter() - began, 3)
    print(json.dumps({"check": check, "outcome": outcome, "seconds": seconds, "message": message}), flush=True)


if __name__ == "__main__":
    main()
