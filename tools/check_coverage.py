"""Coverage thresholds per room, read from coverage.py's JSON report.

In: the path of the report.  Out: one line per room that has a threshold, and exit status 1 when
one of them is missed.  Invariant: a room that vanished from the report fails; it never passes by
being absent.

    python tools/check_coverage.py coverage.json
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from typing import Final

THRESHOLDS: Final = {"tng/wire": 95.0, "tng/attest": 95.0, "tng/config": 95.0, "tng": 90.0}
"""Room to the least share of branches (or of lines, where it has no branches), per cent."""


@dataclasses.dataclass(slots=True)
class Tally:
    """Branches and lines of one room.

    Attributes:
        branches: branches in all.
        taken: branches that a test took.
        lines: statements in all.
        run: statements that a test ran.
    """

    branches: int = 0
    taken: int = 0
    lines: int = 0
    run: int = 0

    @property
    def share(self) -> float:
        """Branches taken, or lines run where there are no branches; per cent."""
        if self.branches:
            return 100.0 * self.taken / self.branches
        return 100.0 * self.run / self.lines if self.lines else 0.0


def measure(report: dict[str, dict[str, dict[str, dict[str, int]]]], room: str) -> Tally:
    """Add up the files of `room`."""
    tally = Tally()
    for name, entry in report["files"].items():
        if name.replace("\\", "/").startswith(f"{room}/"):
            summary = entry["summary"]
            tally.branches += summary["num_branches"]
            tally.taken += summary["covered_branches"]
            tally.lines += summary["num_statements"]
            tally.run += summary["covered_lines"]
    return tally


def main(arguments: list[str]) -> int:
    """Print one line per room; 1 when a threshold is missed."""
    report = json.loads(pathlib.Path(arguments[0]).read_text(encoding="utf-8"))
    missed = 0
    for room, least in THRESHOLDS.items():
        share = measure(report, room).share
        verdict = "ok" if share >= least else f"TOO LOW, at least {least:.0f} % expected"
        missed += share < least
        print(f"branch coverage {room}: {share:.1f} % {verdict}")  # noqa: T201
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
