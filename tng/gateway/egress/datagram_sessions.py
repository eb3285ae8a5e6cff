"""Sessions of a UDP port, each with a socket of its own towards its service.

In: judged sessions of ingresses, through a `Door`.  Out: their datagrams, to the service.

Source: spec of the RATS-TLS transport, section 7.  The service sees an address of ours per
session.  A service that does not listen, and a reply that is too large for a packet, cost the
datagrams concerned and nothing else.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Final

import trio

from tng.clock import Clock
from tng.endpoint import Endpoint
from tng.errors import NetError, TngError
from tng.gateway.datagrams import (
    PATIENCE_S,
    HasDoor,
    close_as_they_fall_silent,
    log_end,
    watch,
)
from tng.observe.access_log import AccessRecord, log_access
from tng.tunnel.base import Peer
from tng.tunnel.dialer import literal_address, resolve
from tng.tunnel.quic.server import QuicServer
from tng.tunnel.quic.sockets import LARGEST_READ, connect_udp, look_at_path
from tng.tunnel.rats_tls.judging import lifetime_s
from tng.verdict import AttestedPeer

if TYPE_CHECKING:
    from tng.attest.verifier.base import Verifier
    from tng.gateway.datagrams import Door
    from tng.observe.metrics import EntryMeter
    from tng.tunnel.quic.session import Deliver, Session
    from tng.tunnel.quic.sockets import Address
    from tng.tunnel.rats_tls.identity import Identity

log = logging.getLogger(__name__)

_BATCH: Final = 32
"""Replies read before other tasks have their turn."""


class DatagramEgress(HasDoor):
    """Serves the sessions of one UDP port.

    Args:
        door: where they come in, and which service they are to reach.
        identity: our certificate, if the operator said `attest`.
        verifier: the judge of clients, if the operator said `verify`.
        clock: against which verdicts end.
        idle_timeout_s: seconds without a datagram that end a session.
        largest: octets of the largest datagram that is passed on; None for what a packet carries.
        meter: counts.
    """

    def __init__(
        self,
        door: Door,
        identity: Identity | None,
        verifier: Verifier | None,
        clock: Clock,
        idle_timeout_s: float,
        largest: int | None,
        meter: EntryMeter,
    ) -> None:
        super().__init__(door)
        self._server = QuicServer(identity, verifier, idle_timeout_s, self._serve, self._failed)
        self._clock = clock
        self._idle_timeout_s = idle_timeout_s
        self._largest = LARGEST_READ if largest is None else largest
        self._meter = meter
        self._sessions: set[Session] = set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; see `DatagramEntry`."""
        await self._server.run(self._sock or self.bind(), task_status)

    async def drain(self) -> None:
        """See `DatagramEntry`."""
        self._server.is_draining = True
        await close_as_they_fall_silent(lambda: list(self._sessions))

    def _failed(self, address: Address, error: TngError) -> None:
        client = Endpoint(*address[:2])
        self._meter.cx_failed += 1
        log_access(AccessRecord(client, self._listen, self._door.mode))
        log.warning("session refused client=%s code=%s: %s", client, error.code, error)

    async def _serve(self, session: Session, peer: Peer, address: Address) -> None:
        client, target = Endpoint(*address[:2]), self._door.target_of(address)
        meter, mode = self._meter, self._door.mode
        meter.cx_total += 1
        meter.cx_active += 1
        self._sessions.add(session)
        try:
            try:
                backend = connect_udp(await _address_of(target), self._door.mark)
            except NetError as error:
                meter.cx_failed += 1
                log_access(AccessRecord(client, self._listen, mode, target, encrypted=True))
                log.warning("service not reached dst=%s: %s", target, error)
                return
            with backend:
                record = AccessRecord(
                    client,
                    self._listen,
                    mode,
                    target,
                    Endpoint(*backend.getsockname()[:2]),
                    encrypted=True,
                    attested=isinstance(peer, AttestedPeer),
                )
                log_access(record)
                await self._relay(session, peer, client, backend)
        finally:
            self._sessions.discard(session)
            meter.cx_active -= 1

    async def _relay(
        self, session: Session, peer: Peer, client: Endpoint, backend: socket.socket
    ) -> None:
        path = look_at_path((client.host, client.port))
        session.open(peer, self._deliverer(session, backend), path.packet_size)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_replies, session, backend)
            reason = await watch(
                session,
                self._idle_timeout_s + PATIENCE_S,
                lifetime_s(peer, self._clock.now()),
            )
            nursery.cancel_scope.cancel()
        log_end(session, client, reason)

    def _deliverer(self, session: Session, backend: socket.socket) -> Deliver:
        def deliver(datagram: bytes) -> None:
            if len(datagram) > self._largest:
                session.dropped += 1
                return
            try:
                backend.send(datagram)
            except OSError:
                session.dropped += 1  # the service does not listen, or its buffer is full
            else:
                self._meter.octets_from_client += len(datagram)

        return deliver

    async def _read_replies(self, session: Session, backend: socket.socket) -> None:
        has_complained = False
        while True:
            await trio.lowlevel.wait_readable(backend)
            for _ in range(_BATCH):
                try:
                    datagram = backend.recv(LARGEST_READ)
                except OSError:  # nothing more, or the service did not listen a moment ago
                    break
                largest = min(self._largest, session.largest_datagram)
                if len(datagram) <= largest:
                    session.send(datagram)
                    self._meter.octets_to_client += len(datagram)
                    continue
                session.dropped += 1
                if not has_complained:
                    has_complained = True
                    log.warning(
                        "datagram size %d exceeds max_datagram_size %d from the service for %s: "
                        "dropped",
                        len(datagram),
                        largest,
                        session.label,
                    )


async def _address_of(target: Endpoint) -> Address:
    if target.is_address:
        return literal_address(target)[1]
    return (await resolve(target))[0][1]
