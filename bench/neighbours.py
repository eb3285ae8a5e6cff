"""What else the machine did during a run: the one thing that makes numbers worthless.

In: the processor time before and after, and our own.  Out: the share that others took.  Source:
/proc/stat (proc(5)), getrusage(2) of the children that have ended.
Invariant: asked only when every child has ended, else their time would count as somebody else's.
"""

from __future__ import annotations

import os
import pathlib
import resource
from typing import Final

TOO_MUCH: Final = 5.0
"""Per cent of processor time from which on a table is not worth keeping."""

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_IDLE: Final = (3, 4)  # columns `idle` and `iowait` of /proc/stat


class Neighbours:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._busy, self._total = _processor_time()
        self._own = _own_time()

    def share(self) -> float:
        """Per cent of all processor time that went to others, stolen time included."""
        busy, total = _processor_time()
        others = busy - self._busy - (_own_time() - self._own)
        return max(0.0, others / max(total - self._total, 1 / _TICKS) * 100)

    def describe(self) -> str:
        """The share in words."""
        share = self.share()
        warning = "" if share < TOO_MUCH else "; TOO MUCH, measure again on a quiet machine"
        return f"{share:.0f} % of processor time{warning}"


def _processor_time() -> tuple[float, float]:
    """(busy, in all), seconds of all processors together."""
    first = pathlib.Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    # Guests' time, in the columns after these eight, is contained in the user's.
    ticks = [int(word) for word in first.split()[1:9]]
    idle = sum(ticks[column] for column in _IDLE)
    return (sum(ticks) - idle) / _TICKS, sum(ticks) / _TICKS


def _own_time() -> float:
    """Seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
