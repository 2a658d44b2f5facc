"""List the tests of the CPython that runs this: the modules of its test package, and what regrtest lists of them.

Runs inside the target with nothing but the CPython under test; knows nothing of crossjit. Start it with PYTHON_JIT=0.

On stdout, JSON lines: {"modules": [names]} and {"tests": [names]}, several of each. The modules come from the files of
the test package; regrtest lists no tests of a module that cannot be imported here. If regrtest fails, the list is not
complete: this ends with 1, and regrtest's last line is on stderr.

`crossjit/channels/test_list.py` has the types.
"""

import json
import os
import subprocess
import sys
import tempfile

from runner_jobs import test_directory

LINE = 30_000  # characters of a line
TAIL = 2_000  # bytes of what regrtest said


def modules(directory):
    """Return the names of all modules and packages of the test package: `test`, `test.test_os` and so on."""
    files = (path.relative_to(directory).with_suffix("") for path in directory.rglob("*.py"))
    names = (".".join(("test", *path.parts)).removesuffix(".__init__") for path in files)
    return sorted(name for name in names if all(part.isidentifier() for part in name.split(".")))


def emit(kind, names):
    """Write names as JSON lines of limited length."""
    batch, size = [], 0
    for name in names:
        size += len(json.dumps(name)) + 2
        if size > LINE:
            print(json.dumps({kind: batch}), flush=True)
            batch, size = [], len(json.dumps(name)) + 2
        batch.append(name)
    print(json.dumps({kind: batch}), flush=True)


def main():
    """List modules, then tests."""
    emit("modules", modules(test_directory()))
    with tempfile.TemporaryFile() as said, tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "test", "--list-cases"]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": said}
        # some modules write files in the working folder when they are imported
        with subprocess.Popen(command, cwd=scratch, **streams) as child:
            lines = (line.decode("utf-8", "replace").rstrip("\n") for line in child.stdout)
            emit("tests", (line for line in lines if line))
        if child.returncode:
            said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL))
            last = said.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit status {child.returncode}"
            print(f"regrtest ended with {how}: {last}", file=sys.stderr)
    return 1 if child.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
