"""Several gateway processes as one: started, healed, watched, drained together.

In: the text of a configuration, and how to start a process.  Out: its traffic, served by that many
workers on the same ports; one control interface; one attester and one judge for all of them.

Theory of operation.  The supervisor binds every address once per worker and keeps the sockets open
(`workers.sockets`), so that a connection that waits for a worker that has just died is served by
the next one.  It runs the verifiers and holds the sources of certificates and statements; workers
ask it over a socket pair (`workers.shared`, `workers.remote`).  It runs the sources of HPKE keys,
tells workers of every change (`workers.news`), and makes the table in which they note the requests
that they have seen (`workers.replays`).  Its `Gateway` never serves: it is the plan of the entries,
and its meters hold the sums (`workers.reports`).  See decision 2.

Invariant: the supervisor touches no connection of a client.
"""

from __future__ import annotations

import collections
import functools
import logging
import os
from typing import TYPE_CHECKING, Final

import trio

from tng.config.loader import prepare_config
from tng.errors import ConfigError, StartError
from tng.gateway.app import Gateway
from tng.gateway.control import ControlInterface
from tng.gateway.entries import Trust
from tng.gateway.exporters.factory import make_reporter
from tng.gateway.lifetime import run_until_signalled
from tng.gateway.workers.news import News
from tng.gateway.workers.replays import make_table
from tng.gateway.workers.reports import Totals, merge_pools, merge_servers
from tng.gateway.workers.shared import SharedTrust
from tng.gateway.workers.shared_keys import run_sources
from tng.gateway.workers.slot import Outfit, Slot
from tng.gateway.workers.sockets import Listening, bind_for_workers, close_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tng.clock import Clock
    from tng.gateway.entries import Entry
    from tng.gateway.workers.link import Link
    from tng.gateway.workers.reports import Report
    from tng.gateway.workers.slot import Start

log = logging.getLogger(__name__)

MAX_DEATHS: Final = 5
DEATHS_WITHIN_S: Final = 10.0
"""So many deaths in so many seconds are no accident: restarting would only hide the cause."""

REPORT_INTERVAL_S: Final = 1.0
"""Seconds between reports: what a worker counted after its last one dies with it."""

DRAIN_GRACE_S: Final = 2.0
"""Seconds beyond the configured deadline for workers to say that they are done."""


class Supervisor:
    """All workers of one configuration.

    Args:
        config_text: the configuration.
        workers: processes to keep running, 1 or more.
        start: starts a process, see `workers.slot`.
        clock: the time of day.
        trust: who makes certificates, and who judges them.

    Raises:
        ConfigError: the configuration is wrong, asks for what this version does not have, or for a
            mode that is served by one process.
    """

    def __init__(
        self,
        config_text: str,
        workers: int,
        start: Start,
        clock: Clock,
        trust: Trust | None = None,
    ) -> None:
        self._config = prepare_config(config_text)
        self._config_text = config_text
        self._shared = SharedTrust(self._config, trust or Trust())
        self._plan = Gateway(self._config, clock, self._shared.registered())
        self._reporter = make_reporter(self._config, self, clock)
        _refuse_datagrams(self._plan.entries)
        self._start = start
        self._count = workers
        self._sockets: list[Listening] = []
        self._slots: list[Slot] = []
        self._totals = Totals()
        self._deaths: collections.deque[float] = collections.deque(maxlen=MAX_DEATHS)
        self._is_stopping = False

    async def run(self) -> None:
        """Serve until a signal says stop; then drain.

        Raises:
            StartError: an address cannot be bound, or workers die as fast as they are started.
        """
        await run_until_signalled(self)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; what is then in flight is cut.

        Raises:
            StartError: capturing is not allowed, an address cannot be bound, or workers die as fast
                as they are started.
        """
        # What we ask services must not be captured by the workers' rules.
        self._plan.prepare_capturing()
        endpoints = [to for entry in self.entries for to, _ in entry.listeners]
        self._sockets = bind_for_workers(endpoints, self._count)
        table = make_table(self._count) if self._shared.keys else None
        outfit = Outfit(self._config_text, self._shared.answer, self._news, table)
        self._slots = [self._slot(index, outfit) for index in range(self._count)]
        try:
            control = ControlInterface(self._config.control_interface, self)
            async with trio.open_nursery() as nursery:
                await nursery.start(control.run)
                for entry in self.entries:
                    if entry.verifier is not None:
                        nursery.start_soon(entry.verifier.run)
                    if entry.source is not None:
                        nursery.start_soon(entry.source.run)
                if self._shared.keys:
                    await nursery.start(run_sources, self._shared.keys, self._shared.services)
                for slot in self._slots:
                    nursery.start_soon(slot.run)
                for slot in self._slots:
                    await slot.has_served.wait()
                if self._reporter is not None:
                    nursery.start_soon(self._reporter.run)
                task_status.started()
                await self._keep_counting()
        finally:
            close_all(self._sockets)
            if table is not None:
                os.close(table)

    async def drain(self) -> None:
        """Take nothing new, and wait for what is in flight in all workers."""
        log.info("Shutting down the instance workers=%d", self._count)
        self._is_stopping = True
        close_all(self._sockets)
        with trio.move_on_after(self._config.drain_timeout_secs + DRAIN_GRACE_S):
            async with trio.open_nursery() as nursery:
                for slot in self._slots:
                    nursery.start_soon(slot.drain)
        if self._reporter is not None:
            await self._reporter.finish()

    # -- what the control interface tells ----------------------------------------------

    @property
    def entries(self) -> list[Entry]:
        """The entries, with meters that hold the sums as of the last `refresh`."""
        return self._plan.entries

    @property
    def dangers(self) -> list[str]:
        """What the configuration leaves unchecked, in words."""
        return self._plan.dangers

    def not_ready(self) -> list[str]:
        """Why traffic cannot be served: by any worker, or for want of a judge."""
        if not self._slots:
            return ["starting"]
        if self._is_stopping:
            return ["stopping"]
        reasons = [
            f"{entry.path}: {entry.verifier.not_ready}"
            for entry in self.entries
            if entry.verifier is not None and entry.verifier.not_ready is not None
        ]
        return reasons + [reason for slot in self._slots for reason in slot.not_ready()]

    def keys_status(self, entry: Entry) -> dict[str, object] | None:
        """The HPKE keys of an entry whose transport is OHTTP; None for the others.

        An egress has the keys of our source, an ingress knows egresses by all of its workers.
        """
        status = self._plan.keys_status(entry)
        if status is None or entry.side == "egress":
            return status
        return merge_servers(slot.servers.get(entry.path, ()) for slot in self._slots)

    def pool_status(self, entry: Entry) -> dict[str, object] | None:
        """The tunnels of all workers; each shard says whose it is."""
        empty = self._plan.pool_status(entry)
        pools = {
            slot.index: part.pool
            for slot in self._slots
            if slot.report is not None
            and (part := slot.report.entries.get(entry.path)) is not None
            and part.pool is not None
        }
        return None if empty is None else merge_pools(empty, pools)

    async def refresh(self) -> None:
        """Ask all workers at the same time, and add up."""
        await self._refresh(servers=True)

    async def _refresh(self, *, servers: bool) -> None:
        async with trio.open_nursery() as nursery:
            for slot in self._slots:
                nursery.start_soon(functools.partial(slot.refresh, servers=servers))
        reports = [slot.report for slot in self._slots if slot.report is not None]
        self._totals.write_to(self.entries, reports)

    # -- workers -----------------------------------------------------------------------

    def _slot(self, index: int, outfit: Outfit) -> Slot:
        return Slot(index, self._sockets[index], self._start, outfit, self._note_death)

    def _news(self, link: Link) -> News:
        return News(link, self._shared.keys, self._shared.undecided)

    async def _keep_counting(self) -> None:
        while True:
            await self._refresh(servers=False)
            await trio.sleep(REPORT_INTERVAL_S)

    def _note_death(self, index: int, status: int, last_report: Report | None) -> None:
        if last_report is not None:
            self._totals.retire(last_report)
        how = f"signal {-status}" if status < 0 else f"status {status}"
        log.error("worker has died and is restarted worker=%d by=%r", index, how)
        now = trio.current_time()
        self._deaths.append(now)
        if len(self._deaths) == MAX_DEATHS and now - self._deaths[0] < DEATHS_WITHIN_S:
            raise StartError(
                f"{MAX_DEATHS} workers died within {DEATHS_WITHIN_S:g} s, the last one by {how};"
                " their last log lines say why"
            )


def _refuse_datagrams(entries: Sequence[Entry]) -> None:
    """UDP sessions belong to the one process that has their socket.

    Raises:
        ConfigError: there is a UDP mode.
    """
    if problems := [
        f"{entry.path}.{entry.mode}: UDP modes are served by one process: leave out --workers, or "
        "move the entry to a gateway of its own"
        for entry in entries
        if entry.datagrams is not None
    ]:
        raise ConfigError(problems)
