"""The client side: opens judged sessions to egresses.

One instance serves one `add_ingress` entry, over one UDP socket per address family.
"""

from __future__ import annotations

import socket
from typing import Final, NamedTuple

import trio

from tng.attest.verifier.base import Verifier
from tng.clock import Clock
from tng.endpoint import Endpoint
from tng.errors import NetError, StartError, TngError
from tng.tunnel.base import Peer
from tng.tunnel.dialer import literal_address, resolve
from tng.tunnel.quic import HANDSHAKE_TIMEOUT_S, LOCAL_IDLE_TIMEOUT_S
from tng.tunnel.quic.connection import DatagramConnection, make_configuration
from tng.tunnel.quic.judging import credential_for, judge
from tng.tunnel.quic.port import QuicPort
from tng.tunnel.quic.session import Session
from tng.tunnel.quic.sockets import Address, forbid_fragments, look_at_path, make_udp_socket
from tng.tunnel.rats_tls.identity import Identity
from tng.tunnel.rats_tls.judging import lifetime_s
from tng.verdict import AttestedPeer

MAX_OPENING: Final = 64
"""Handshakes at a time: each takes milliseconds of the thread, and further clients wait for a turn
rather than all of them for a time-out."""


class OpenedSession(NamedTuple):
    """A session with a judged peer.

    Attributes:
        session: not open yet: whoever serves it says where its datagrams go.
        peer: the judged peer.
        local: our address on the way there.
        packet_size: octets of UDP payload that the way there carries.
        lifetime_s: seconds that the session may last, None for no bound.
    """

    session: Session
    peer: Peer
    local: Endpoint
    packet_size: int
    lifetime_s: float | None

    @property
    def attested(self) -> bool:
        """Whether the peer was attested."""
        return isinstance(self.peer, AttestedPeer)


class QuicClient:
    """Opens sessions.

    Args:
        identity: our certificate, if the operator said `attest`.
        verifier: the judge of peers, if the operator said `verify`.
        clock: against which verdicts end.
        idle_timeout_s: seconds that a session may be silent.
        mark: firewall mark of the sockets that sessions run over; None for none.
    """

    def __init__(
        self,
        identity: Identity | None,
        verifier: Verifier | None,
        clock: Clock,
        idle_timeout_s: float,
        mark: int | None = None,
    ) -> None:
        self._identity = identity
        self._verifier = verifier
        self._clock = clock
        self._idle_timeout_s = max(idle_timeout_s, LOCAL_IDLE_TIMEOUT_S)
        self._mark = mark
        self._turns = trio.CapacityLimiter(MAX_OPENING)
        self._nursery: trio.Nursery | None = None
        self._ports: dict[int, tuple[QuicPort, socket.socket]] = {}

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; peers are told then."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def open(self, destination: Endpoint) -> OpenedSession:
        """A session with `destination`, which has been judged.

        Raises:
            NetError: nobody there.
            RemoteProtocolError: what answers does not speak our protocol, or refuses us.
            UntrustedPeerError: judged and refused.
            AppraiserError: there was no judge to ask.
            EvidenceError: we are to prove who we are, and cannot.
        """
        async with self._turns:
            addresses = await _addresses_of(destination)
            failure: TngError = NetError(f"{destination} has no address")
            for family, address in addresses:
                try:
                    return await self._open(destination, family, address, len(addresses))
                except NetError as error:
                    failure = error
            raise failure

    async def _open(
        self, destination: Endpoint, family: int, address: Address, of: int
    ) -> OpenedSession:
        credential = await credential_for(self._identity)
        configuration = make_configuration(
            is_client=True,
            idle_timeout_s=self._idle_timeout_s,
            key=None if credential is None else credential.key,
            certificate=None if credential is None else credential.certificate,
        )
        port, sock = self._port(family)
        connection = DatagramConnection(configuration)
        session = port.add(connection, str(destination))
        try:
            connection.connect(address, trio.current_time())
            port.serve(session)
            await session.wait_handshake(HANDSHAKE_TIMEOUT_S / of)
            peer = await judge(session, self._verifier)
        except BaseException:
            session.close("not opened")
            raise
        path, lifetime = look_at_path(address), lifetime_s(peer, self._clock.now())
        local = Endpoint(path.local, sock.getsockname()[1])
        return OpenedSession(session, peer, local, path.packet_size, lifetime)

    def _port(self, family: int) -> tuple[QuicPort, socket.socket]:
        if self._nursery is None:
            raise NetError("the QUIC client does not run")
        found = self._ports.get(family)
        if found is None:
            anywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104 - outgoing
            try:
                sock = make_udp_socket(Endpoint(anywhere, 0), self._mark)
            except StartError as exc:
                raise NetError(str(exc)) from exc
            forbid_fragments(sock)
            found = self._ports[family] = (QuicPort(sock), sock)
            self._nursery.start_soon(found[0].run)
        return found


async def _addresses_of(destination: Endpoint) -> list[tuple[int, Address]]:
    if destination.is_address:
        family, address = literal_address(destination)
        return [(int(family), address)]
    return [(int(family), address) for family, address in await resolve(destination)]
