"""A suite's files on disk, stored module by module, so that a run that died can be resumed.

<run>/cells/<cell>/<suite>/order.json   the runner's input, and the target
<run>/cells/<cell>/<suite>/runner.log   the runner's lines
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

_NO_RESUME = "run it from the start, without --resume"
_HINTS = ("seconds", "done")  # keys of an order that affect when and whether a module runs, not how


def _as_good(name: str, then: Any, now: Any) -> bool:
    """Whether results under an earlier value of a key are still valid.

    More tests may be ignored now: a hang found by the run is no reason to repeat all of it.
    """
    if name == "ignore" and then is not None:
        return set(then) <= set(now)
    return json.dumps(then) == json.dumps(now)


class SuiteLog:
    """One suite's folder of one cell of a run. Writing raises InfrastructureError for disk errors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._logged = 0
        self._remaining = BUDGET.results

    def start(self, order: Mapping[str, object], subject: Mapping[str, object]) -> None:
        """Make an empty folder, and record the order and its subject: all facts that the results depend on."""
        with self._writing():
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True)
            files.write(self.path / ORDER, json.dumps({"order": order, "subject": subject}).encode())

    def append(self, line: str) -> None:
        """Append a line of the runner to the log. Raises BudgetError if the log is too long."""
        content = (line + "\n").encode("utf-8", "backslashreplace")
        self._logged += len(content)
        if self._logged > BUDGET.messages:
            raise BudgetError(f"the runner wrote more than {BUDGET.messages:,} bytes")
        with self._writing(), (self.path / LOG).open("ab") as log:
            log.write(content)

    def save(self, tar: BinaryIO, module: ModuleExit) -> None:
        """Store the files of a finished module, from a tar of its folder.

        Raises UnfitFilesError for missing or invalid files, BudgetError if the results are too large.
        """
        with self._writing():
            size = safe_files.extract(tar, self.path, module.files, under=module.id, room=self._remaining)
            self._remaining -= size
        missing = [name for name in module.files if not safe_files.is_file(self.path, name)]
        if missing:
            raise UnfitFilesError(f"there is no {', '.join(missing)}")

    def ended(self) -> tuple[ModuleExit, ...]:
        """Return the finished modules whose files are here, in order; none if the folder does not exist."""
        return tuple(module for _, module in self._ends())

    def _ends(self) -> Iterator[tuple[str, ModuleExit]]:
        """Yield the finished modules whose files are here, with their lines."""
        try:
            log = safe_files.open_file(self.path, LOG)
        except OSError:
            return
        with log:
            for line in (raw.decode("utf-8", "replace") for raw in log if raw.startswith(b"{")):
                with contextlib.suppress(MalformedError):  # an event of a different kind, or from a less strict version
                    module = read(ModuleExit, line.rstrip("\n"))
                    if module.has_own_names and all(safe_files.is_file(self.path, name) for name in module.files):
                        yield line.rstrip("\n"), module

    def resume_from(self, earlier: SuiteLog, order: Mapping[str, object], subject: Mapping[str, object]) -> None:
        """Copy the finished modules of an earlier run of the same order and subject.

        Modules ended by a limit that is not their own run again. Raises UserError if the order or the subject differs,
        since the results would not belong together.
        """
        finished = [entry for entry in earlier._ends() if not entry[1].suite_timed_out and not entry[1].memory_kills]
        if not finished:
            return
        recorded = earlier._started()
        differences = [
            name
            for old, new in ((recorded["order"], order), (recorded["subject"], subject))
            for name in sorted({*old, *new} - {*_HINTS})
            if not _as_good(name, old.get(name), new.get(name))
        ]
        if differences:
            raise UserError(
                f"{earlier.path.name} cannot continue where it stopped: changed since then: {', '.join(differences)}",
                hint=_NO_RESUME,
            )
        spared = set(cast("list[str]", order["ignore"])) - set(recorded["order"]["ignore"])
        for line, module in finished:
            if module.was_killed and any(may_begin(pattern, f"{module.test}.") for pattern in spared):
                continue  # the test that killed it is ignored now, so its other tests can run
            with self._writing():
                for name in module.files:
                    safe_files.copy(earlier.path, self.path, name)
            self.append(line)

    def _started(self) -> dict[str, dict[str, Any]]:
        """Read the order and the subject. Raises UserError if the file is damaged."""
        try:
            record = json.loads(safe_files.read_whole(self.path, ORDER))
            return {"order": {"ignore": [], **record["order"]}, "subject": {**record["subject"]}}
        except (OSError, ValueError, KeyError, TypeError, BudgetError) as error:
            raise UserError(f"{self.path.name} cannot continue where it stopped: {error}", hint=_NO_RESUME) from error

    def _writing(self) -> Any:
        return files.translate_os_errors(InfrastructureError, "cannot store the suite's output", self.path)
