"""The server side: takes handshakes, hands on sessions whose peer has been judged.

One instance serves one UDP socket of an `add_egress` entry.  While many handshakes are under way,
a client has to show that its address is its own before anything is kept for it (RFC 9000 section
8.1.2), so that forged addresses use up no room.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from tng.attest.dummy import load_dummy
from tng.endpoint import Endpoint
from tng.errors import TngError
from tng.tunnel.quic import HANDSHAKE_TIMEOUT_S, LOCAL_IDLE_TIMEOUT_S
from tng.tunnel.quic.connection import (
    CONNECTION_ID_OCTETS,
    SMALLEST_PACKET,
    VERSIONS,
    DatagramConnection,
    make_configuration,
)
from tng.tunnel.quic.judging import credential_for, judge
from tng.tunnel.quic.port import QuicPort
from tng.tunnel.quic.session import Session
from tng.tunnel.quic.sockets import Address, PacketSocket

if TYPE_CHECKING:
    from tng.attest.credential import Credential
    from tng.attest.verifier.base import Verifier
    from tng.tunnel.base import Peer
    from tng.tunnel.rats_tls.identity import Identity

log = logging.getLogger(__name__)

MAX_SESSIONS: Final = 4096
"""Sessions of one socket; each holds about 100 KiB, and a descriptor towards the service."""

MAX_OPENING: Final = 256
"""Sessions among them that are not judged yet."""

TRUSTING_OPENING: Final = 64
"""So many may be opening before addresses have to be shown to be real, at the cost of a round trip:
as many as a client of ours opens at a time."""

_FIRST_PACKETS: Final = 4  # a first message with large keys takes two

Serve = Callable[[Session, "Peer", Address], Awaitable[None]]
"""Serves one session with a judged peer, to its end."""

Failed = Callable[[Address, TngError], None]
"""Told about a client that did not come to be served."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A client whose first packet has come.

    Attributes:
        cid: the connection ID that its packets bear.
        original: the one of its very first packet; another one if it had to come twice.
        retry: our connection ID in the Retry packet, if it had to.
        address: of the client.
        packets: the first ones, until there is a session to take them.
    """

    cid: bytes
    original: bytes
    retry: bytes | None
    address: Address
    packets: list[bytes] = field(default_factory=list)

    def keep(self, packet: bytes) -> None:
        """Keep one of the first packets; what is lost here is sent again."""
        if len(self.packets) < _FIRST_PACKETS:
            self.packets.append(packet)


class QuicServer:
    """Accepts sessions.

    Args:
        identity: our certificate, if the operator said `attest`.
        verifier: the judge of clients, if the operator said `verify`.
        idle_timeout_s: seconds that a session may be silent.
        serve: called for each session, after the verdict.
        failed: called for each client that is not served.
    """

    def __init__(
        self,
        identity: Identity | None,
        verifier: Verifier | None,
        idle_timeout_s: float,
        serve: Serve,
        failed: Failed,
    ) -> None:
        self._identity = identity
        self._verifier = verifier
        self._idle_timeout_s = max(idle_timeout_s, LOCAL_IDLE_TIMEOUT_S)
        self._serve = serve
        self._failed = failed
        self._tokens = QuicRetryTokenHandler()
        self._made: tuple[Credential | None, QuicConfiguration | None] = (None, None)
        self._opening: dict[bytes, Newcomer] = {}
        self._serving = 0
        self._port: QuicPort | None = None
        self._nursery: trio.Nursery | None = None
        self.is_draining = False

    async def run(
        self,
        sock: PacketSocket,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; peers are told then.

        Args:
            sock: bound, non-blocking, and sending no fragments; closed at the end.
            task_status: told when packets are taken.
        """
        self._port = QuicPort(sock, self._admit)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self._port.run(task_status)

    # -- who may come in, in the order of what it costs us ----------------------------

    def _admit(self, header: QuicHeader, data: bytes, address: Address) -> None:
        if len(data) < SMALLEST_PACKET or header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
            return
        if header.version not in VERSIONS:
            self._negotiate_version(header, address)
            return
        if header.packet_type is not QuicPacketType.INITIAL:
            return
        known = self._opening.get(header.destination_cid)
        if known is not None:
            known.keep(data)
            return
        if self.is_draining or not self._has_room():
            log.debug("client not taken: no room client=%s", address[0])
            return
        newcomer = Newcomer(header.destination_cid, header.destination_cid, None, address)
        if header.token:
            original = self._original_of(header, address)
            if original is None:
                return
            newcomer = Newcomer(newcomer.cid, original, newcomer.cid, address)
        elif len(self._opening) >= TRUSTING_OPENING:
            self._ask_again(header, address)
            return
        newcomer.keep(data)
        self._begin(newcomer)

    def _has_room(self) -> bool:
        opening = len(self._opening)
        return opening < MAX_OPENING and opening + self._serving < MAX_SESSIONS

    def _negotiate_version(self, header: QuicHeader, address: Address) -> None:
        if self._port is not None and header.version is not None:
            packet = encode_quic_version_negotiation(
                source_cid=header.destination_cid,
                destination_cid=header.source_cid,
                supported_versions=list(VERSIONS),
            )
            self._port.send(packet, address)

    def _ask_again(self, header: QuicHeader, address: Address) -> None:
        """Send a Retry packet: who returns its token has received it (RFC 9000 section 8.1.2)."""
        if self._port is None or header.version is None:
            return
        ours = secrets.token_bytes(CONNECTION_ID_OCTETS)
        token = self._tokens.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=ours,
            now=trio.current_time(),
        )
        packet = encode_quic_retry(
            version=header.version,
            source_cid=ours,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
        self._port.send(packet, address)

    def _original_of(self, header: QuicHeader, address: Address) -> bytes | None:
        """The connection ID of the client's first packet, from the token that we gave it."""
        try:
            return self._tokens.validate_token(
                address=address,
                destination_cid=header.destination_cid,
                token=header.token,
                now=trio.current_time(),
            )
        except ValueError:
            return None

    # -- from the first packet to the verdict -----------------------------------------

    def _begin(self, newcomer: Newcomer) -> None:
        if self._nursery is not None:
            self._opening[newcomer.cid] = newcomer
            self._nursery.start_soon(self._take, newcomer)

    async def _take(self, newcomer: Newcomer) -> None:
        """Serve one client, from its first packet to its end."""
        try:
            try:
                session = await self._shake_hands(newcomer)
                if session is None:
                    return
                peer = await judge(session, self._verifier)
            finally:
                del self._opening[newcomer.cid]
        except TngError as error:
            self._failed(newcomer.address, error)
            return
        self._serving += 1
        try:
            await self._serve(session, peer, newcomer.address)
        except TngError as error:
            self._failed(newcomer.address, error)
        except Exception:
            log.exception("unexpected error while serving client=%s", session.label)
        finally:
            self._serving -= 1
            session.close("done")

    async def _shake_hands(self, newcomer: Newcomer) -> Session | None:
        """The session of a client; None if its packets were no beginning of one."""
        configuration = self._configuration_for(await credential_for(self._identity))
        if self._port is None:
            return None
        connection = DatagramConnection(
            configuration,
            ask_certificate=self._verifier is not None,
            original_cid=newcomer.original,
            retry_cid=newcomer.retry,
        )
        label = str(Endpoint(newcomer.address[0], newcomer.address[1]))
        session = self._port.add(connection, label, newcomer.cid)
        try:
            for packet in newcomer.packets:
                session.receive(packet, newcomer.address, trio.current_time())
            if not session.has_begun:
                session.abandon()
            self._port.serve(session)
            if session.is_terminated:
                return None
            await session.wait_handshake(HANDSHAKE_TIMEOUT_S)
        except BaseException:
            session.close("not served")
            raise
        return session

    def _configuration_for(self, credential: Credential | None) -> QuicConfiguration:
        made_for, configuration = self._made
        if configuration is None or credential is not made_for:
            key, certificate = (
                load_dummy() if credential is None else (credential.key, credential.certificate)
            )
            configuration = make_configuration(
                is_client=False,
                idle_timeout_s=self._idle_timeout_s,
                key=key,
                certificate=certificate,
            )
            self._made = (credential, configuration)
        return configuration
