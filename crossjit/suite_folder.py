"""What a suite leaves on disk, module by module, so that a run that died can be taken up where it stopped.

<run>/cells/<cell>/<suite>/order.json   what was to be run, and on what
<run>/cells/<cell>/<suite>/runner.log   the runner's lines, as they came
<run>/cells/<cell>/<suite>/<id>.*       a module's log, and its JUnit XML or JSON lines
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from crossjit import durable
from crossjit.errors import InfrastructureError, UserError
from crossjit.known_failures import may_begin
from crossjit.outcomes import Ended

ORDER = "order.json"
LOG = "runner.log"

_HINTS = ("seconds", "done")  # keys of an order that change when and whether a module runs, not how


def event(line: str) -> dict[str, Any] | None:
    """Read a line of the runner; None for one that is no event (QEMU's own warnings come there, too)."""
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _as_good(name: str, then: Any, now: Any) -> bool:
    """Tell whether what was run under one value is what would be run under another.

    More may be left out now: a test that hangs is found by a run, and is no reason to begin that anew.
    """
    if name == "ignore" and then is not None:
        return set(then) <= set(now)
    return json.dumps(then) == json.dumps(now)


class SuiteFolder:
    """One suite's folder of one cell of a run. Writing raises InfrastructureError for what the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, order: Mapping[str, object], subject: Mapping[str, object]) -> None:
        """Make the folder anew and write down what is to be run on what: `subject` is all that could matter."""
        with self._writing():
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True)
            durable.write(self.path / ORDER, json.dumps({"order": order, "subject": subject}).encode())

    def hear(self, line: str) -> None:
        """Keep a line of the runner."""
        with self._writing(), (self.path / LOG).open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(line + "\n")

    def keep(self, tar: BinaryIO) -> None:
        """Keep the files of a module's tar. What was tested could write anything there: nothing leaves the folder."""
        with self._writing(), tarfile.open(fileobj=tar, mode="r|") as members:
            for member in members:
                name = os.path.basename(member.name)  # noqa: PTH119 - a name in a tar, not a path
                if member.isreg() and name not in ("", ".", "..") and (content := members.extractfile(member)):
                    with (self.path / name).open("wb") as file:
                        shutil.copyfileobj(content, file)

    def ended(self) -> tuple[Ended, ...]:
        """Return the modules that ended and whose files are here, in order; none where there is no such folder."""
        return tuple(ended for _, ended in self._ends())

    def _ends(self) -> Iterator[tuple[str, Ended]]:
        """Go through the lines of the modules that ended and whose files are here."""
        try:
            lines = (self.path / LOG).read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for line in lines:
            if (told := event(line)) and told.get("event") == "end":
                ended = Ended.read(told)
                if all((self.path / name).is_file() for name in ended.files):
                    yield line, ended

    def take(self, earlier: SuiteFolder, order: Mapping[str, object], subject: Mapping[str, object]) -> None:
        """Take over what an earlier run of the same got done.

        Raises UserError if that was of something else: then the two would not be one result.
        """
        there = list(earlier._ends())
        if not there:
            return
        before = json.loads((earlier.path / ORDER).read_bytes())
        differences = [
            name
            for then, now in ((before["order"], order), (before["subject"], subject))
            for name in sorted({*then, *now} - {*_HINTS})
            if not _as_good(name, then.get(name), now.get(name))
        ]
        if differences:
            raise UserError(
                f"{earlier.path.name} cannot go on where it stopped: changed since then: {', '.join(differences)}",
                hint="run it from its beginning, without --resume",
            )
        spared = set(cast("list[str]", order["ignore"])) - set(before["order"]["ignore"])
        for line, ended in there:
            if ended.was_killed and any(may_begin(pattern, f"{ended.test}.") for pattern in spared):
                continue  # what took it along is left out now, so it can tell of its other tests
            with self._writing():
                for name in ended.files:
                    shutil.copyfile(earlier.path / name, self.path / name)
            self.hear(line)

    def _writing(self) -> Any:
        return durable.explained(InfrastructureError, "cannot keep what the suite wrote", self.path)
