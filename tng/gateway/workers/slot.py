"""The place of one worker: a process there, and another one after it has died.

In: how to start a process, the worker's sockets, and what answers its questions.  Out: a worker
that serves, with `FIRST_RESTART_S` to `LAST_RESTART_S` between a death and the next life.

The supervisor asks: `keys` and `models` (`workers.news`), `start` (configuration, sockets, table of
requests seen; answered when traffic is served), `report` (`workers.reports`), `drain` (answered
when nothing is in flight).  Closing the stream ends a worker at once.

Invariant: when `run` has ended, the process has.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from tng.errors import ErrorCode, RemoteProtocolError, StartError, TngError
from tng.gateway.workers.link import Link, Object
from tng.gateway.workers.reports import Report, parse_report

if TYPE_CHECKING:
    from tng.attest.strict_json import Json
    from tng.gateway.workers.news import News
    from tng.gateway.workers.sockets import Listening

log = logging.getLogger(__name__)

FIRST_RESTART_S: Final = 0.1
LAST_RESTART_S: Final = 5.0
"""Seconds between a death and the next start; doubled from the first to the last."""

SETTLED_S: Final = 10.0
"""Seconds of life after which a worker's next restart waits for `FIRST_RESTART_S` again."""

END_TIMEOUT_S: Final = 8.0
"""Seconds for a worker to end once its stream is closed: the reactor's 5, and the log's 2."""

REPORT_TIMEOUT_S: Final = 0.5
"""Seconds for a report: probes of the control interface give up after a second."""


class Process(Protocol):
    """A process that was started; `trio.Process` is the real one."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    async def wait(self) -> int:
        """Its exit status once it has ended, negative for a signal."""
        ...

    def kill(self) -> None:
        """End it at once; nothing happens if it has ended."""
        ...


Start = Callable[[int, Sequence[int]], Awaitable[Process]]
"""Starts a worker, given the descriptor of its stream and those of its listening sockets."""

Answer = Callable[[int, str, Object], Awaitable[Object]]
"""Answers a question of the worker process with that number, see `workers.shared`."""


@dataclass(frozen=True, slots=True)
class Outfit:
    """What a worker gets of its supervisor.

    Attributes:
        config_text: the configuration, for the worker to read.
        answer: answers its questions.
        news: makes what tells a worker, given its link, what is new.
        table: descriptor of the table of requests seen; None where no entry needs it.
    """

    config_text: str
    answer: Answer
    news: Callable[[Link], News]
    table: int | None = None


class Slot:
    """One of a supervisor's workers.

    Args:
        index: its position, from 0; for people.
        sockets: where it listens; stays open here.
        start: starts a process.
        outfit: what it gets.
        on_death: told the exit status of every process that ended unasked, and its last report;
            may raise to end all.

    Attributes:
        report: the last one of the process that runs now.
        servers: what it last told of the egresses that each ingress knows keys of, by path.
        has_served: set once a first process has begun to serve.
    """

    def __init__(
        self,
        index: int,
        sockets: Listening,
        start: Start,
        outfit: Outfit,
        on_death: Callable[[int, int, Report | None], None],
    ) -> None:
        self.index = index
        self.report: Report | None = None
        self.servers: Mapping[str, Sequence[Json]] = {}
        self.has_served = trio.Event()
        self._sockets = sockets
        self._start = start
        self._outfit = outfit
        self._on_death = on_death
        self._link: Link | None = None
        self._stopping = trio.Event()
        self._why_not: str | None = "starting"

    def not_ready(self) -> list[str]:
        """Why this worker cannot serve; empty when it can."""
        told = self.report.not_ready if self.report is not None else ()
        reasons = [self._why_not] if self._why_not is not None else told
        return [f"worker {self.index}: {reason}" for reason in reasons]

    async def run(self) -> None:
        """Keep a worker running, until cancelled or, after `drain`, until it has ended."""
        pause = FIRST_RESTART_S
        while True:
            began = trio.current_time()
            status = await self._live()
            if self._stopping.is_set():
                return
            last_report, self.report, self.servers = self.report, None, {}
            self._on_death(self.index, status, last_report)
            if trio.current_time() - began >= SETTLED_S:
                pause = FIRST_RESTART_S
            await trio.sleep(pause)
            if self._stopping.is_set():
                return
            pause = min(2 * pause, LAST_RESTART_S)

    async def refresh(self, *, servers: bool = False) -> None:
        """Ask for a new report, and if wanted for the egresses whose keys are known."""
        link = self._link
        if link is None or not self.has_served.is_set():
            return
        with trio.move_on_after(REPORT_TIMEOUT_S) as limit, contextlib.suppress(TngError):
            report = parse_report(await link.ask("report", servers=servers))
            if self._link is link:
                self.report, self._why_not = report, None
                if servers:
                    self.servers = {path: part.servers for path, part in report.entries.items()}
        if limit.cancelled_caught and self._link is link:
            self._why_not = f"does not answer within {REPORT_TIMEOUT_S:g} s"

    async def drain(self) -> None:
        """Have the worker take nothing new, until nothing is in flight in it."""
        self._stopping.set()
        if self._link is not None:
            with contextlib.suppress(TngError):  # a worker that has died has nothing in flight
                await self._link.ask("drain")

    # -- one life --------------------------------------------------------------------

    async def _live(self) -> int:
        """The exit status of one process."""
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        with theirs:
            descriptors = [sock.fileno() for each in self._sockets.values() for sock in each]
            if self._outfit.table is not None:
                descriptors.append(self._outfit.table)
            try:
                process = await self._start(theirs.fileno(), descriptors)
            except StartError as error:
                log.error("worker cannot be started worker=%d error=%s", self.index, error)  # noqa: TRY400
                await trio.aclose_forcefully(stream)
                return error.exit_status
        log.info("worker started worker=%d pid=%d", self.index, process.pid)
        link = Link(stream, functools.partial(self._outfit.answer, process.pid))
        self._link = link
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._talk, link, process)
                nursery.start_soon(self._begin, link, process, nursery)
                status = await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._link, self._why_not = None, "not running"
            await _end(process)
        return status

    async def _talk(self, link: Link, process: Process) -> None:
        try:
            await link.run()
        except RemoteProtocolError as error:
            log.error("worker is ended worker=%d error=%s", self.index, error)  # noqa: TRY400
        # Either it is about to end by itself, or it has lost us and must not go on.
        await trio.sleep(END_TIMEOUT_S)
        process.kill()

    async def _begin(self, link: Link, process: Process, nursery: trio.Nursery) -> None:
        self._why_not = "starting"
        news = self._outfit.news(link)
        carried: Object = {
            "config": self._outfit.config_text,
            "sockets": {
                str(where): [sock.fileno() for sock in sockets]
                for where, sockets in self._sockets.items()
            },
            "table": self._outfit.table,
        }
        try:
            await news.catch_up()
            nursery.start_soon(self._follow, news, process)
            await link.ask("start", **carried)
        except TngError as error:
            self._give_up(error, process)
        else:
            self._why_not = None
            self.has_served.set()

    async def _follow(self, news: News, process: Process) -> None:
        try:
            await news.follow()
        except TngError as error:
            self._give_up(error, process)

    def _give_up(self, error: TngError, process: Process) -> None:
        if error.code is not ErrorCode.SHUTTING_DOWN:  # it has died: that is said elsewhere
            log.error("worker cannot serve worker=%d error=%s", self.index, error)
        process.kill()


async def _end(process: Process) -> None:
    """Wait for a process whose stream has been closed, and make sure that it ends."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(END_TIMEOUT_S) as limit:
            await process.wait()
        if limit.cancelled_caught:
            log.warning("worker does not end and is killed pid=%d", process.pid)
            process.kill()
            await process.wait()
