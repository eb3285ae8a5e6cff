"""Time as an argument: the one place that reads the wall clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What tells the time of day."""

    def now(self) -> float:
        """Unix time, seconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Unix time, seconds."""
        return time.time()  # noqa: TID251 - everything else takes a Clock


class FixedClock:
    """A clock that stands still until it is told to move; for tests and for old evidence.

    Args:
        at: Unix time, seconds.
    """

    def __init__(self, at: float) -> None:
        self.at = at

    def now(self) -> float:
        """The time it was set to."""
        return self.at
