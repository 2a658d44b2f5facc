"""What a suite leaves on disk, module by module, so that a run that died can be taken up where it stopped.

<run>/cells/<cell>/<suite>/order.json   what was to be run, and on what
<run>/cells/<cell>/<suite>/runner.log   the runner's lines, as they came
<run>/cells/<cell>/<suite>/<id>.*       a module's log, and its JUnit XML or JSON lines
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from crossjit.channels import MalformedError, ModuleExit, read
from crossjit.errors import InfrastructureError, UserError
from crossjit.known_failures.entries import may_begin
from crossjit.util import files, safe_files
from crossjit.util.budget import BUDGET, BudgetError
from crossjit.util.safe_files import UnfitFilesError

ORDER = "order.json"
LOG = "runner.log"

_ANEW = "run it from the start, without --resume"
_HINTS = ("seconds", "done")  # keys of an order that change when and whether a module runs, not how


def _as_good(name: str, then: Any, now: Any) -> bool:
    """Tell whether what was run under one value is what would be run under another.

    More may be left out now: a test that hangs is found by a run, and is no reason to begin that anew.
    """
    if name == "ignore" and then is not None:
        return set(then) <= set(now)
    return json.dumps(then) == json.dumps(now)


class SuiteLog:
    """One suite's folder of one cell of a run. Writing raises InfrastructureError for what the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._heard = 0
        self._left = BUDGET.results

    def start(self, order: Mapping[str, object], subject: Mapping[str, object]) -> None:
        """Make the folder anew and write down what is to be run on what: `subject` is all that could matter."""
        with self._writing():
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True)
            files.write(self.path / ORDER, json.dumps({"order": order, "subject": subject}).encode())

    def append(self, line: str) -> None:
        """Keep a line of the runner. Raises BudgetError for more than a log may have."""
        content = (line + "\n").encode("utf-8", "backslashreplace")
        self._heard += len(content)
        if self._heard > BUDGET.messages:
            raise BudgetError(f"the runner wrote more than {BUDGET.messages:,} bytes")
        with self._writing(), (self.path / LOG).open("ab") as log:
            log.write(content)

    def save(self, tar: BinaryIO, ended: ModuleExit) -> None:
        """Keep the files of a module that ended, of the tar of its folder.

        Raises UnfitFilesError for files that are not what the module's end says, BudgetError for too much.
        """
        with self._writing():
            self._left -= safe_files.extract(tar, self.path, ended.files, under=ended.id, room=self._left)
        absent = [name for name in ended.files if not safe_files.is_file(self.path, name)]
        if absent:
            raise UnfitFilesError(f"there is no {', '.join(absent)}")

    def ended(self) -> tuple[ModuleExit, ...]:
        """Return the modules that ended and whose files are here, in order; none where there is no such folder."""
        return tuple(ended for _, ended in self._ends())

    def _ends(self) -> Iterator[tuple[str, ModuleExit]]:
        """Go through the lines of the modules that ended and whose files are here."""
        try:
            log = safe_files.open_file(self.path, LOG)
        except OSError:
            return
        with log:
            for line in (raw.decode("utf-8", "replace") for raw in log if raw.startswith(b"{")):
                with contextlib.suppress(MalformedError):  # an event of another kind, or of a version that took any
                    ended = read(ModuleExit, line.rstrip("\n"))
                    if ended.has_own_names and all(safe_files.is_file(self.path, name) for name in ended.files):
                        yield line.rstrip("\n"), ended

    def resume_from(self, earlier: SuiteLog, order: Mapping[str, object], subject: Mapping[str, object]) -> None:
        """Take over what an earlier run of the same got done.

        What was ended by a limit that is not the module's own is not taken, and runs again. Raises UserError if that
        run was of something else: then the two would not be one result.
        """
        there = [each for each in earlier._ends() if not each[1].suite_timed_out and not each[1].memory_kills]
        if not there:
            return
        then = earlier._started()
        differences = [
            name
            for before, now in ((then["order"], order), (then["subject"], subject))
            for name in sorted({*before, *now} - {*_HINTS})
            if not _as_good(name, before.get(name), now.get(name))
        ]
        if differences:
            raise UserError(
                f"{earlier.path.name} cannot continue where it stopped: changed since then: {', '.join(differences)}",
                hint=_ANEW,
            )
        spared = set(cast("list[str]", order["ignore"])) - set(then["order"]["ignore"])
        for line, ended in there:
            if ended.was_killed and any(may_begin(pattern, f"{ended.test}.") for pattern in spared):
                continue  # what took it along is left out now, so it can tell of its other tests
            with self._writing():
                for name in ended.files:
                    safe_files.copy(earlier.path, self.path, name)
            self.append(line)

    def _started(self) -> dict[str, dict[str, Any]]:
        """Read what was to be run. Raises UserError where that is damaged."""
        try:
            found = json.loads(safe_files.read_whole(self.path, ORDER))
            return {"order": {"ignore": [], **found["order"]}, "subject": {**found["subject"]}}
        except (OSError, ValueError, KeyError, TypeError, BudgetError) as error:
            raise UserError(f"{self.path.name} cannot continue where it stopped: {error}", hint=_ANEW) from error

    def _writing(self) -> Any:
        return files.translate_os_errors(InfrastructureError, "cannot store the suite's output", self.path)
