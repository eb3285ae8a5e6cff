"""The exporter `stdout`: numbers as lines of the log.

In: snapshots.  Out: `current metrics ...` at INFO, one line per label set, since a line of the log
has a limit and the number of entries need not have that one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from tng.observe.snapshot import snapshot_lines

if TYPE_CHECKING:
    from tng.observe.snapshot import Snapshot

log = logging.getLogger(__name__)


class LogExporter:
    """Writes numbers into the log."""

    where: Final = "the log"
    """See `Exporter.where`."""

    attempts: Final = 1
    """See `Exporter.attempts`."""

    async def send(self, snapshot: Snapshot) -> None:
        """See `Exporter.send`; it always arrives."""
        await trio.lowlevel.checkpoint()
        for line in snapshot_lines(snapshot):
            log.info("current metrics %s", line)

    async def aclose(self) -> None:
        """See `Exporter.aclose`: nothing is open."""
        await trio.lowlevel.checkpoint()
