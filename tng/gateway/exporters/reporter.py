"""Reports at intervals: a snapshot every `step` seconds, and a last one when the gateway stops.

In: something that is watched, and an exporter.  Out: what the exporter sends.  The first report
goes out after one step.  A report is tried as often as its exporter says, until the next one is
due, which says everything that it said; then it is dropped.  The log hears of the first one of an
outage, and of the end of the outage with the number of all.

Invariant: one report at a time, none in store, and nothing that goes wrong here ends the gateway
or holds up its end for longer than `LAST_REPORT_S`.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

import trio

from tng.errors import NetError
from tng.observe.snapshot import take_snapshot

if TYPE_CHECKING:
    from tng.clock import Clock
    from tng.gateway.exporters.base import Exporter
    from tng.gateway.watched import Watched
    from tng.observe.snapshot import Snapshot

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""Seconds between two attempts; as TNG 2.12 has it."""

LAST_REPORT_S: Final = 2.0
"""Seconds for the report at the end: who waits for the process to end should not notice."""

_CLOSE_S: Final = 1.0
"""Seconds to close connections in good order."""


class Reporter:
    """Sends the numbers of a gateway, or of a supervisor with those of all its workers.

    Args:
        watched: whose entries have the numbers.
        exporter: where they go; closed when `run` ends.
        step: seconds between two reports.
        clock: the time of day.

    Attributes:
        dropped: reports that did not arrive.
    """

    def __init__(self, watched: Watched, exporter: Exporter, step: float, clock: Clock) -> None:
        self.dropped = 0
        self._watched = watched
        self._exporter = exporter
        self._step = step
        self._clock = clock
        self._started_at = clock.now()
        self._lost = 0
        self._steps = trio.CancelScope()
        self._ended: trio.Event | None = None

    async def run(self) -> None:
        """Report until `finish` is called."""
        self._ended = trio.Event()
        try:
            with self._steps:
                await self._report_at_intervals()
            with trio.move_on_after(LAST_REPORT_S) as limit:
                await self._report(-math.inf)
            if limit.cancelled_caught:
                log.warning(
                    "the last metric report did not arrive within %g s where=%s",
                    LAST_REPORT_S,
                    self._exporter.where,
                )
        finally:
            self._ended.set()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
                await self._exporter.aclose()

    async def finish(self) -> None:
        """Have the last report sent, and wait until it is; does nothing if `run` is not running."""
        self._steps.cancel()
        if self._ended is not None:
            await self._ended.wait()

    async def _report_at_intervals(self) -> None:
        due = trio.current_time() + self._step
        while True:
            await trio.sleep_until(due)
            due += self._step
            await self._report(due)
            # One that took longer than a step has been the report of the steps that it missed.
            late = max(0.0, trio.current_time() - due)
            due += self._step * math.ceil(late / self._step)

    async def _report(self, until: float) -> None:
        """Take a snapshot and send it; tried again only before `until`, monotonic seconds."""
        try:
            await self._watched.refresh()
            snapshot = take_snapshot(
                [entry.meter for entry in self._watched.entries],
                started_at=self._started_at,
                taken_at=self._clock.now(),
            )
            await self._deliver(snapshot, until)
        except NetError as error:
            self._note_loss(error)
        except Exception:
            log.exception("unexpected error in a metric report")  # traffic goes on
        else:
            self._note_arrival()

    async def _deliver(self, snapshot: Snapshot, until: float) -> None:
        attempt = 1
        while True:
            try:
                return await self._exporter.send(snapshot)
            except NetError as error:
                if attempt == self._exporter.attempts or trio.current_time() + RETRY_S >= until:
                    raise
                log.debug("metric report is tried again attempt=%d error=%s", attempt, error)
            await trio.sleep(RETRY_S)
            attempt += 1

    def _note_loss(self, error: NetError) -> None:
        self.dropped += 1
        self._lost += 1
        if self._lost == 1:
            log.warning(
                "metric reports do not arrive and are dropped where=%s error=%s",
                self._exporter.where,
                error,
            )

    def _note_arrival(self) -> None:
        if self._lost:
            log.info(
                "metric reports arrive again where=%s dropped=%d", self._exporter.where, self._lost
            )
        self._lost = 0
