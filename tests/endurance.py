"""How much survives: commands killed at random moments, and many that want the same cell at once. Prints the counts.

    .venv/bin/python -m tests.endurance --kills 100 --builds 8

Builds the tiny source (tests/e2e/tiny) in an engine, in a state folder of its own. Ends with 1 if anything is corrupt,
left over, or built more than once.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import tiny_source
from tests.e2e.conftest import ensure_images, new_driver
from tests.e2e.driver import Driver

LONGEST = 25.0  # seconds; the first command's own time, as long as it is shorter


@dataclass
class Counts:
    """What was seen. `corrupt` counts artifacts, `left` containers, volumes, processes and files."""

    kills: int = 0
    too_late: int = 0
    corrupt: int = 0
    left: int = 0
    failed: int = 0


def kill_at_random(driver: Driver, recipe: Path, kills: int, chance: random.Random) -> Counts:
    """Kill `validate --rebuild` so many times, each time at a random moment; look at what the next command leaves."""
    counts = Counts()
    command = ("validate", "--recipe", recipe, "--rebuild")
    longest = min(LONGEST, driver.run(*command).seconds)
    while counts.kills < kills:
        running = driver.start(*command)
        time.sleep(chance.uniform(0, longest))
        if running.process.poll() is not None:
            counts.too_late += 1
            continue
        running.kill()
        counts.kills += 1
        verified = driver.start("stash", "verify").wait()
        counts.corrupt += verified.returncode != 0
        # any command that takes up work sweeps first; this one finds its cell in the stash, or builds it
        counts.failed += driver.start("validate", "--recipe", recipe).wait().returncode != 0
        left = driver.leftovers()
        counts.left += len(left)
        found = verified.stderr.strip() or "intact"
        print(f"kill {counts.kills} of {kills}: {found}; left: {left or 'nothing'}", flush=True)
    return counts


def build_together(driver: Driver, recipe: Path, builds: int) -> tuple[int, int]:
    """Start so many builds of one cell at once; return how many built it, and how many did not pass."""
    running = [driver.start("build", "--recipe", recipe, "--json") for _ in range(builds)]
    done = [each.wait(patience=600 + 60 * builds) for each in running]
    cells = [each.json["cells"][0] for each in done if each.returncode == 0]
    return sum(not cell["from_stash"] for cell in cells), builds - len(cells)


def main() -> int:
    """Do as the options say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--builds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=None, help="for the moments of the kills; default: any")
    arguments = parser.parse_args()
    ensure_images()
    with tempfile.TemporaryDirectory(prefix="crossjit-endurance-") as name:
        folder = Path(name)
        recipe = tiny_source.recipe(folder / "tiny.toml", tiny_source.archive(folder))
        drivers = [new_driver(folder / each) for each in ("kills", "builds")]
        try:
            counts = kill_at_random(drivers[0], recipe, arguments.kills, random.Random(arguments.seed))
            print(
                f"{counts.kills} kills ({counts.too_late} came too late): {counts.corrupt} corrupt, "
                f"{counts.left} left after the next command, {counts.failed} of these failed"
            )
            built, failed = build_together(drivers[1], recipe, arguments.builds)
            print(f"{arguments.builds} builds at once: {built} built, {failed} failed")
        finally:
            for driver in drivers:
                driver.discard()
    return int(bool(counts.corrupt or counts.left or counts.failed or failed) or built != 1)


if __name__ == "__main__":
    sys.exit(main())
