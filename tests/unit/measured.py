"""What a call costs a process of its own: its memory, and how it ended."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_CHILD = """
import json, re, resource, sys
from pathlib import Path
from crossjit.errors import CrossjitError

def peak():  # getrusage tells no less than what its parent had taken
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

arguments = [Path(argument) for argument in sys.argv[1:]]
{imports}
before = peak()
try:
    {call}
except CrossjitError as error:
    kind, message = type(error).__name__, error.message
else:
    kind, message = "", ""
print(json.dumps([kind, message, peak() - before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


@dataclass(frozen=True)
class Cost:
    """The name and message of the error that ended it, empty for none; MiB that it took, and its largest child."""

    error: str
    message: str
    memory: float
    child: float


def measure(imports: str, call: str, *arguments: Path, seconds: float = 60) -> Cost:
    """Call something of crossjit's with `arguments` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD.format(imports=imports, call=call), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=seconds,
    )
    error, message, memory, child = json.loads(done.stdout)
    return Cost(error, message, memory / 1024, child / 1024)
