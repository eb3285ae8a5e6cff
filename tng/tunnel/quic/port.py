"""One UDP socket and all QUIC sessions that run over it.

In: packets from the socket, timers of sessions.  Out: packets of sessions; first packets of
unknown clients, to whoever admits them.

Theory of operation.  The socket is read until it is empty or a batch is full; each packet goes to
its session by connection ID, and then every session that was touched has its turn once.  All of it
is synchronous, so that no packet waits for another task.  Timers are a heap; a session has an
entry at or before the moment at which it wants to be woken, and an entry that comes too early
only makes the next one.  Entries name sessions by number, so that none outlives its end in there.

Invariant: a packet of a peer ends at most that peer's session.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import logging
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import trio
from aioquic._buffer import Buffer
from aioquic.quic.packet import QuicHeader, pull_quic_header

from tng.tunnel.quic.connection import CONNECTION_ID_OCTETS
from tng.tunnel.quic.memory import release_memory
from tng.tunnel.quic.session import Session
from tng.tunnel.quic.sockets import LARGEST_READ, Address, PacketSocket

if TYPE_CHECKING:
    from tng.tunnel.quic.connection import DatagramConnection

log = logging.getLogger(__name__)

Admit = Callable[[QuicHeader, bytes, "Address"], None]
"""Takes a packet that belongs to no session."""

_BATCH: Final = 16
"""Packets read before other tasks have their turn."""

_TICK_S: Final = 0.001
"""Seconds; the resolution of the protocol's timers (RFC 9002 section 6.1.2)."""

_MANY: Final = 64
"""Sessions after which it is worth while to look for memory that can be given back."""

_LONG_HEADER: Final = 0x80  # RFC 9000 section 17.2


class QuicPort:
    """Sends, receives and keeps time for sessions.

    Args:
        sock: bound, non-blocking; owned by the port, which closes it at the end of `run`.
        admit: takes packets of unknown peers; None to ignore them.
    """

    def __init__(self, sock: PacketSocket, admit: Admit | None = None) -> None:
        self._sock = sock
        self._admit = admit
        self._by_cid: dict[bytes, Session] = {}
        self._known: dict[Session, set[bytes]] = {}
        self._numbers = itertools.count()
        self._by_number: dict[int, Session] = {}
        self._heap: list[tuple[float, int]] = []
        self._earlier = trio.Event()
        self._sleeps_until = -math.inf
        self._forgotten = 0
        self.is_closed = False

    @property
    def sessions(self) -> Iterable[Session]:
        """All sessions, also those that are ending; a copy."""
        return list(self._known)

    def add(self, connection: DatagramConnection, label: str, *other_cids: bytes) -> Session:
        """A session for a new connection.

        Args:
            connection: not used by anybody else.
            label: the peer in words.
            other_cids: connection IDs, beside its own, under which its packets come.
        """
        number = next(self._numbers)
        session = Session(connection, label, self.serve, number, trio.current_time())
        session.cids.update(other_cids)
        self._known[session] = set()
        self._by_number[session.number] = session
        self._follow_cids(session)
        return session

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then tell all peers that it is over, and close the socket."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_time)
                task_status.started()
                await self._read()
        finally:
            for session in self.sessions:
                session.close("shutting down")
            self.is_closed = True
            self._sock.close()

    def serve(self, session: Session) -> None:
        """Deal with what a session has received, and send what it has to say."""
        self._send(session, session.packets(trio.current_time()))
        if session.is_terminated:
            self._forget(session)
            return
        self._follow_cids(session)
        alarm = session.next_alarm()
        if alarm is not None:
            alarm = max(alarm, trio.current_time() + _TICK_S)
            if not session.alarms or alarm < session.alarms[0]:
                self._arm(session, alarm)

    def send(self, data: bytes, address: Address) -> bool:
        """Send one packet; whether the path can carry packets of that size."""
        if self.is_closed:
            return True
        try:
            self._sock.sendto(data, address)
        except OSError as exc:
            # Anything else is a packet lost on its way, which QUIC is made for.
            return exc.errno != errno.EMSGSIZE
        return True

    # -- packets ----------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            touched: dict[Session, None] = {}
            now = trio.current_time()
            for _ in range(_BATCH):
                try:
                    data, address = self._sock.recvfrom(LARGEST_READ)
                except OSError:  # nothing more, or an error of an earlier packet
                    break
                session = self._session_of(data, address)
                if session is not None:
                    session.receive(data, address, now)
                    touched[session] = None
            for session in touched:
                self.serve(session)

    def _session_of(self, data: bytes, address: Address) -> Session | None:
        if data and not data[0] & _LONG_HEADER:
            return self._by_cid.get(data[1 : 1 + CONNECTION_ID_OCTETS])
        try:
            header = pull_quic_header(Buffer(data=data), CONNECTION_ID_OCTETS)
        except ValueError:  # also of the library's BufferReadError
            return None
        session = self._by_cid.get(header.destination_cid)
        if session is None and self._admit is not None:
            self._admit(header, data, address)
        return session

    def _send(self, session: Session, packets: Iterable[tuple[bytes, Address]]) -> None:
        for data, address in packets:
            if not self.send(data, address):
                session.shrink()

    # -- the tables -------------------------------------------------------------------

    def _follow_cids(self, session: Session) -> None:
        known = self._known.get(session)
        if known is None or known == session.cids:
            return
        for cid in known - session.cids:
            self._by_cid.pop(cid, None)
        for cid in session.cids - known:
            self._by_cid[cid] = session
        self._known[session] = set(session.cids)

    def _forget(self, session: Session) -> None:
        self._by_number.pop(session.number, None)
        for cid in self._known.pop(session, ()):
            self._by_cid.pop(cid, None)
        self._forgotten += 1
        if not self._known and self._forgotten >= _MANY:
            self._forgotten = 0
            release_memory()

    # -- time -------------------------------------------------------------------------

    def _arm(self, session: Session, at: float) -> None:
        heapq.heappush(self._heap, (at, session.number))
        heapq.heappush(session.alarms, at)
        if at < self._sleeps_until:
            self._earlier.set()

    async def _keep_time(self) -> None:
        while True:
            self._earlier = trio.Event()
            self._sleeps_until = self._heap[0][0] if self._heap else math.inf
            with trio.move_on_at(self._sleeps_until):
                await self._earlier.wait()
            self._sleeps_until = -math.inf
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                session = self._by_number.get(heapq.heappop(self._heap)[1])
                if session is not None:
                    heapq.heappop(session.alarms)
                    session.wake(now)
                    self.serve(session)
