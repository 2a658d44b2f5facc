"""Install only the tests of a source, as `make install` in its build would.

    install_tests.py --makefile MAKEFILE --source SOURCE --root DESTDIR --folder FOLDER

MAKEFILE is the build's. SOURCE needs only Lib/test; FOLDER is its destination in DESTDIR. Runs in the toolchain
container, with the image's Python. The Makefile's own rule for the library decides which file goes where: make runs it
with an `install` that prints its arguments, and this script does the part for Lib/test without a process for each file.
Finally prints a line of JSON: {"files": n, "folders": n}.

Exits with 1 if the rule does anything with Lib/test except installing files into FOLDER: such a rule is unknown here.
Exits with FAULT if the machine is at its limits, such as a full disk.
"""

import argparse
import errno
import json
import pathlib
import shutil
import subprocess
import sys

FAULT = 97  # SCRIPT_FAULT of crossjit/build/layout.py
MACHINE_ERRORS = ("EAGAIN", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EROFS")
MARK = "crossjit-install"
MODES = {"INSTALL_DATA": 0o644, "INSTALL_SCRIPT": 0o755}


def printing(name, words):
    """Return a make assignment that replaces a command with one that prints its arguments, if it has `words` of them.

    With more arguments, printf repeats the format, which gives several lines.
    """
    return f"{name}=printf '{MARK} {name}{' %s' * words}\\n'"


def install_calls(makefile, source, root):
    """Run the Makefile's rule, and yield its calls of `install`: the make variable's name and the arguments."""
    command = (
        "make", "--silent", f"--file={makefile}", "libinstall",
        "--assume-old=all", f"--assume-old={source}/Modules/xxmodule.c",
        f"DESTDIR={root}", "PYTHON_FOR_BUILD=:", "RUNSHARED=",
        printing("INSTALL", 4), *(printing(name, 2) for name in MODES),
    )  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", check=False)
    if result.returncode:
        raise ValueError(f"make libinstall ended with {result.returncode}: {result.stderr}")
    for line in result.stdout.splitlines():
        words = line.split(" ")
        if words[0] == MARK:
            yield words[1], words[2:]


def install(calls, root, tests, folder):
    """Do the calls for files in `tests`; return the numbers of files and folders. Raises ValueError, OSError."""
    counts = {"files": 0, "folders": 0}
    for name, arguments in calls:
        *rest, target = arguments
        target = pathlib.Path(target)
        if root not in target.parents:
            raise ValueError(f"{name} {arguments} goes elsewhere")
        if name == "INSTALL":
            if rest[:2] != ["-d", "-m"]:
                raise ValueError(f"{name} {arguments} makes no folder")
            if folder in (target, *target.parents):
                target.mkdir(parents=True, exist_ok=True)
                counts["folders"] += 1
            continue
        (source,) = map(pathlib.Path, rest)
        if (tests in source.parents) != (folder in (target, *target.parents)):
            raise ValueError(f"{name} {arguments} is no copy of a test, and no copy of anything else")
        if tests in source.parents:
            if not target.is_dir():
                raise ValueError(f"{name} {arguments} has no folder to go to")
            shutil.copyfile(source, target / source.name)
            (target / source.name).chmod(MODES[name])
            counts["files"] += 1
    return counts


def main():
    """Install the tests; return the exit status."""
    parser = argparse.ArgumentParser(description="Install the tests of a source.")
    for name in ("makefile", "source", "root", "folder"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    root, tests = pathlib.Path(arguments.root), pathlib.Path(arguments.source, "Lib", "test")
    try:
        calls = install_calls(arguments.makefile, arguments.source, arguments.root)
        counts = install(calls, root, tests, root / arguments.folder)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(error, file=sys.stderr)
        return FAULT if errno.errorcode.get(error.errno) in MACHINE_ERRORS else 1
    if not counts["files"]:
        print("the rule installs no tests", file=sys.stderr)
        return 1
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
