"""The QUIC library's connection, with the few changes that evidence in certificates needs.

In: settings and packets.  Out: the library's events.  This is the one file that uses names which
the library calls internal; `pyproject.toml` pins its minor version, and
`tests/tunnel/test_quic_connection.py` fails when one of them changes its meaning.

What differs from the library's own connection:

* a server can demand a certificate of its client;
* our certificate may be larger than the library's room for one flight (evidence is long);
* key exchange groups are those of our TLS over TCP, in the same order;
* there are no streams: this protocol has none;
* what waits behind the congestion window is counted, and the oldest of it can be dropped;
* a connection that has ended can be taken apart.

The peer's certificate is not judged here: the handshake proves that the peer holds its key (RFC
8446 section 4.4.3), and `Session` hands on nothing before the verdict.

Source: RFC 9000, RFC 9001, RFC 9221; aioquic 1.7.
"""

from __future__ import annotations

import logging
import ssl
from typing import Final

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import Group
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tng.tunnel.quic import ALPN_DATAGRAMS

VERSIONS: Final = (int(QuicProtocolVersion.VERSION_1),)
"""QUIC versions that we speak; the reference speaks this one."""

CONNECTION_ID_OCTETS: Final = 8
"""Length of the connection IDs that we give out: enough that nobody guesses one."""

SMALLEST_PACKET: Final = 1200
"""Octets of UDP payload that every path carries (RFC 9000 section 14)."""

_GROUPS: Final = (Group.X25519, Group.SECP256R1, Group.SECP384R1)
_CLIENT_SHARES: Final = 2  # a client makes a key for each group that it offers

# What holds the memory of a connection, and what refers back to it.
_PARTS: Final = (
    "_QuicConnection__frame_handlers",
    "_crypto_buffers",
    "_crypto_streams",
    "_cryptos",
    "_cryptos_initial",
    "_loss",
    "_spaces",
    "tls",
)

_FLIGHT_OCTETS: Final = 16_384  # all of a flight but our certificate, and more than that
_FRAME_LIMIT: Final = 65_535  # largest datagram frame that we take, as the reference announces
_LARGEST_FRAME_HEAD: Final = 3  # type, and a length below 16,384 (RFC 9221 section 4)
_PACKET_HEAD: Final = 3  # first octet and the packet number, of which the library sends two octets
_AEAD_TAG: Final = 16

# What the library reports about peers is said by `Session`, once and with the peer's name.
logging.getLogger("quic").setLevel(logging.CRITICAL)


def make_configuration(
    *,
    is_client: bool,
    idle_timeout_s: float,
    key: ec.EllipticCurvePrivateKey | None,
    certificate: x509.Certificate | None,
) -> QuicConfiguration:
    """Settings for the connections of one side.

    Args:
        is_client: whether we connect.
        idle_timeout_s: seconds without packets after which a connection has ended.
        key: of our certificate; None to have none to show (clients only).
        certificate: ours.
    """
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN_DATAGRAMS],
        supported_versions=list(VERSIONS),
        connection_id_length=CONNECTION_ID_OCTETS,
        idle_timeout=idle_timeout_s,
        max_datagram_frame_size=_FRAME_LIMIT,
        max_data=0,
        max_stream_data=0,
        certificate=certificate,
        private_key=key,
        verify_mode=ssl.CERT_NONE,  # noqa: TID251 - evidence is self-signed, and judged by us
    )


class DatagramConnection(QuicConnection):
    """One QUIC connection; see the module for what is special about it.

    Args:
        configuration: see `make_configuration`.
        ask_certificate: servers only: demand a certificate of the client.
        original_cid: servers only: the connection ID of the client's very first packet.
        retry_cid: servers only: our connection ID in the Retry packet, if one was sent.
    """

    def __init__(
        self,
        configuration: QuicConfiguration,
        *,
        ask_certificate: bool = False,
        original_cid: bytes | None = None,
        retry_cid: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_cid,
            retry_source_connection_id=retry_cid,
        )
        self._ask_certificate = ask_certificate
        self._local_max_streams_bidi.value = 0
        self._local_max_streams_uni.value = 0

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        known = self.tls._supported_groups  # noqa: SLF001 - see the module
        groups: list[Group] = [group for group in _GROUPS if group in known]
        self.tls._supported_groups = groups[:_CLIENT_SHARES] if self._is_client else groups  # noqa: SLF001
        self.tls._request_client_certificate = self._ask_certificate  # noqa: SLF001
        certificate = self._configuration.certificate
        ours = len(certificate.public_bytes(Encoding.DER)) if certificate is not None else 0
        for epoch in self._crypto_buffers:
            self._crypto_buffers[epoch] = Buffer(capacity=_FLIGHT_OCTETS + ours)

    @property
    def has_begun(self) -> bool:
        """Whether any packet of the peer could be opened."""
        return self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def ending(self) -> ConnectionTerminated | None:
        """Why the connection is being closed, by whichever side; None while it lives."""
        return self._close_event

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's leaf certificate as DER, whose key it has proved to hold; None without one.

        To be asked after the handshake.
        """
        certificate = self.tls._peer_certificate  # noqa: SLF001 - see the module
        return None if certificate is None else certificate.public_bytes(Encoding.DER)

    @property
    def takes_datagrams(self) -> bool:
        """Whether the peer has announced that it takes datagrams (RFC 9221 section 3)."""
        return bool(self._remote_max_datagram_frame_size)

    @property
    def largest_datagram(self) -> int:
        """Octets of the largest datagram that one packet carries now."""
        room = self._max_datagram_size - _PACKET_HEAD - len(self._peer_cid.cid) - _AEAD_TAG
        return min(room, self._remote_max_datagram_frame_size or 0) - _LARGEST_FRAME_HEAD

    @property
    def waiting(self) -> int:
        """Datagrams that wait for the congestion window."""
        return len(self._datagrams_pending)

    def drop_oldest(self) -> None:
        """Forget the datagram that has waited longest."""
        self._datagrams_pending.popleft()

    def use_packet_size(self, octets: int) -> None:
        """Send packets of up to `octets` from now on.

        Args:
            octets: of UDP payload that the path carries; at least `SMALLEST_PACKET`.
        """
        self._max_datagram_size = octets
        while self._datagrams_pending and len(self._datagrams_pending[0]) > self.largest_datagram:
            self.drop_oldest()  # it would stand in the way of all others for ever

    def dispose(self) -> None:
        """Let go of all keys and buffers, once nothing more is to be received or sent.

        The library's parts refer to each other in circles, which a long-running process would
        find late; taken apart, they go at once.
        """
        for space in self._spaces.values():
            space.sent_packets.clear()
        for name in _PARTS:
            self.__dict__.pop(name, None)
