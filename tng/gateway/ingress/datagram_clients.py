"""Clients of a UDP port: a session with an egress for each of them, as long as it is used.

In: datagrams, through a `Door`.  Out: sessions, and what comes back through them.

Source: spec of the RATS-TLS transport, section 7.  A client is an address and a port, and where
its datagrams were captured also their destination.  Its datagrams wait, a few of them, until the
session with the egress has been opened and judged; a client whose session could not be opened hears
nothing, as with UDP itself, and the log says why.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import trio

from tng.endpoint import Endpoint
from tng.errors import TngError
from tng.gateway.datagrams import HasDoor, close_as_they_fall_silent, log_end, watch
from tng.observe.access_log import AccessRecord, log_access
from tng.tunnel.quic import MAX_HELD
from tng.tunnel.quic.sockets import LARGEST_READ

if TYPE_CHECKING:
    from tng.gateway.datagrams import Door
    from tng.observe.metrics import EntryMeter
    from tng.tunnel.quic.client import OpenedSession, QuicClient
    from tng.tunnel.quic.session import Session
    from tng.tunnel.quic.sockets import Address, PacketSocket

log = logging.getLogger(__name__)

MAX_CLIENTS: Final = 4096
"""Sessions of one entry; each holds about 100 KiB."""

MAX_WAITING_OCTETS: Final = 16 << 20
"""Octets of datagrams that wait for sessions to open, all clients of an entry together."""

HOLD_OFF_S: Final = 1.0
"""Seconds that a client is not listened to after its session could not be opened."""

_BATCH: Final = 64
"""Datagrams read before other tasks have their turn."""


class _Client:
    """One client, and what it has sent so far."""

    __slots__ = ("dropped", "has_complained", "session", "waiting")

    def __init__(self) -> None:
        self.waiting: collections.deque[bytes] = collections.deque()
        self.session: Session | None = None
        self.dropped = 0
        self.has_complained = False


class DatagramIngress(HasDoor):
    """Serves the clients of one UDP port.

    Args:
        door: where they come in, and which egress they are to reach.
        client: opens sessions.
        idle_timeout_s: seconds without a datagram that end a session.
        largest: octets of the largest datagram that is passed on; None for what a packet carries.
        meter: counts.
    """

    def __init__(
        self,
        door: Door,
        client: QuicClient,
        idle_timeout_s: float,
        largest: int | None,
        meter: EntryMeter,
    ) -> None:
        super().__init__(door)
        self._quic = client
        self._idle_timeout_s = idle_timeout_s
        self._largest = LARGEST_READ if largest is None else largest
        self._meter = meter
        self._clients: dict[Address, _Client] = {}
        self._waiting_octets = 0
        self._turned_away = 0
        self._is_draining = False
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; see `DatagramEntry`."""
        sock = self._sock or self.bind()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self._quic.run)
                task_status.started()
                await self._read(sock)
        finally:
            self.unbind()

    async def drain(self) -> None:
        """See `DatagramEntry`."""
        self._is_draining = True
        await close_as_they_fall_silent(self._sessions)

    def _sessions(self) -> Iterable[Session]:
        return [c.session for c in self._clients.values() if c.session is not None]

    # -- from clients -----------------------------------------------------------------

    async def _read(self, sock: PacketSocket) -> None:
        while True:
            await trio.lowlevel.wait_readable(sock)
            for _ in range(_BATCH):
                try:
                    datagram, address = sock.recvfrom(LARGEST_READ)
                except OSError:  # nothing more, or an error of an earlier datagram
                    break
                self._take(datagram, address)

    def _take(self, datagram: bytes, address: Address) -> None:
        client = self._clients.get(address)
        if client is None:
            if self._is_draining or not self._has_room() or self._nursery is None:
                return
            client = self._clients[address] = _Client()
            self._nursery.start_soon(self._serve, client, address)
        if len(datagram) > self._largest:
            self._complain(client, address, len(datagram), self._largest)
        elif client.session is None or client.session.ended.is_set():
            self._keep(client, datagram)
        else:
            self._pass_on(client, client.session, datagram, address)

    def _has_room(self) -> bool:
        if len(self._clients) < MAX_CLIENTS:
            self._turned_away = 0
            return True
        if not self._turned_away:
            log.warning("clients turned away on %s: %d have sessions", self._listen, MAX_CLIENTS)
        self._turned_away += 1
        return False

    def _keep(self, client: _Client, datagram: bytes) -> None:
        if self._waiting_octets + len(datagram) > MAX_WAITING_OCTETS:
            client.dropped += 1
            return
        if len(client.waiting) >= MAX_HELD:
            self._waiting_octets -= len(client.waiting.popleft())
            client.dropped += 1
        client.waiting.append(datagram)
        self._waiting_octets += len(datagram)

    def _pass_on(
        self, client: _Client, session: Session, datagram: bytes, address: Address
    ) -> None:
        if session.send(datagram):
            self._meter.octets_from_client += len(datagram)
        elif session.ended.is_set():
            self._keep(client, datagram)
        else:
            self._complain(client, address, len(datagram), session.largest_datagram)

    def _complain(self, client: _Client, address: Address, size: int, largest: int) -> None:
        """Say it once per session; how many there were is said at its end."""
        client.dropped += 1
        if not client.has_complained:
            client.has_complained = True
            log.warning(
                "datagram size %d exceeds max_datagram_size %d client=%s:%d: dropped",
                size,
                largest,
                *address[:2],
            )

    # -- sessions ---------------------------------------------------------------------

    async def _serve(self, client: _Client, address: Address) -> None:
        where, target = Endpoint(*address[:2]), self._door.target_of(address)
        try:
            await self._serve_session(client, address, where, target)
            while client.waiting and not self._is_draining:  # they came as the session ended
                await self._serve_session(client, address, where, target)
        except TngError as error:
            self._meter.cx_failed += 1
            mode = self._door.mode
            log_access(AccessRecord(where, self._listen, mode, target, encrypted=True))
            log.warning("not connected dst=%s code=%s: %s", target, error.code, error)
            self._forget_waiting(client)
            await trio.sleep(HOLD_OFF_S)
        except Exception:
            log.exception("unexpected error while serving client=%s", where)
        finally:
            self._forget_waiting(client)
            del self._clients[address]

    async def _serve_session(
        self, client: _Client, address: Address, where: Endpoint, target: Endpoint
    ) -> None:
        self._meter.cx_total += 1
        self._meter.cx_active += 1
        try:
            opened = await self._quic.open(target)
            record = AccessRecord(
                where,
                self._listen,
                self._door.mode,
                target,
                opened.local,
                encrypted=True,
                attested=opened.attested,
            )
            log_access(record)
            await self._carry(client, opened, address, where)
        finally:
            self._meter.cx_active -= 1

    async def _carry(
        self, client: _Client, opened: OpenedSession, address: Address, where: Endpoint
    ) -> None:
        session = opened.session
        try:
            self._connect(client, opened, address)
            reason = await watch(session, self._idle_timeout_s, opened.lifetime_s)
        finally:
            session.close("idle")
            client.session = None
        session.dropped += client.dropped
        client.dropped = 0
        log_end(session, where, reason)

    def _connect(self, client: _Client, opened: OpenedSession, address: Address) -> None:
        session, sock, meter = opened.session, self._sock, self._meter
        assert sock is not None

        def deliver(datagram: bytes) -> None:
            try:
                sock.sendto(datagram, address)
            except OSError:
                client.dropped += 1  # lost, as datagrams are
            else:
                meter.octets_to_client += len(datagram)

        session.open(opened.peer, deliver, opened.packet_size)
        client.session = session
        for _ in range(len(client.waiting)):
            datagram = client.waiting.popleft()
            self._waiting_octets -= len(datagram)
            self._pass_on(client, session, datagram, address)

    def _forget_waiting(self, client: _Client) -> None:
        self._waiting_octets -= sum(map(len, client.waiting))
        client.waiting.clear()
