"""A TLS 1.3 connection as an `End`: OpenSSL works directly on the socket's descriptor.

In: a connected socket and a context of `tls_context`.  Out: the `End` interface, after `handshake`;
how octets are read and written is `tls_octets`' affair.

Invariant: who the peer says that it is can be asked only once the handshake is finished.
"""

from __future__ import annotations

import functools
import socket
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from tng.dataplane.task import Deadline
from tng.dataplane.tls_calls import ESTABLISHED, FASTEST, WANT_READ, Calls
from tng.dataplane.tls_octets import TlsOctets
from tng.endpoint import is_ip_literal
from tng.errors import LocalProtocolError, NetError, RemoteProtocolError

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor


class TlsEnd(TlsOctets):
    """One TLS connection.

    Args:
        reactor: see `End`.
        sock: connected stream socket; owned by the end from now on.
        context: see `tls_context`.
        server_side: whether to accept rather than connect.
        server_name: name to ask for (SNI), clients only; None, or an IP address, to send none.
        label: see `SocketEnd`.
        calls: how to reach OpenSSL; for tests.

    Attributes:
        alpn: protocol agreed on, b"" if none; after the handshake.
    """

    __slots__ = ("alpn",)

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        context: SSL.Context,
        *,
        server_side: bool,
        server_name: str | None = None,
        label: str = "",
        calls: Calls = FASTEST,
    ) -> None:
        super().__init__(reactor, sock, label, calls)
        connection = SSL.Connection(context, sock)
        if server_side:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
            if server_name and not is_ip_literal(server_name):
                connection.set_tlsext_host_name(_to_sni(server_name))
        self._connection = connection
        self._handle = calls.handle_of(connection)
        self.alpn = b""

    @property
    def peer_certificate(self) -> bytes | None:
        """DER of the peer's certificate, None if it showed none.  Not judged: see `tls_context`.

        Made when asked for: where nobody verifies, nobody asks.

        Raises:
            NetError: the connection is closed, or its handshake not finished.
            RemoteProtocolError: the certificate is not X.509 in DER.
        """
        connection = self._connection
        if connection is None or self.is_closed:
            raise self._closed_error()
        if not self._is_established:
            raise NetError(f"the TLS handshake with {self.label} is not finished")
        try:
            certificate = connection.get_peer_certificate(as_cryptography=True)
            return None if certificate is None else certificate.public_bytes(Encoding.DER)
        except ValueError as error:
            raise RemoteProtocolError(
                f"{self.label} shows a certificate that is not X.509 in DER"
            ) from error

    def peer_chain(self, limit: int) -> list[x509.Certificate]:
        """The certificates that the peer showed, leaf first, at most `limit` of them.

        Raises:
            NetError: the connection is closed, or a certificate cannot be read.
        """
        if self._connection is None:
            raise self._closed_error()
        try:
            chain = self._connection.get_peer_cert_chain(as_cryptography=True)
        except ValueError as error:
            raise NetError(f"{self.label} showed a certificate that cannot be read") from error
        return list(chain or [])[:limit]

    async def handshake(self, timeout_s: float) -> None:
        """Agree on keys with the peer; `alpn` and `peer_certificate` are known afterwards.

        Args:
            timeout_s: for the whole handshake.

        Raises:
            RemoteProtocolError: the peer does not speak TLS 1.3, sent an alert, shares no protocol
                with us, showed no certificate where one is needed, or one too large.
            NetError: the connection broke, or the time is over.
        """
        with Deadline(self.reactor, timeout_s, functools.partial(self._late, timeout_s)):
            while (connection := self._connection) is not None and not self.is_closed:
                outcome = self._calls.handshake(connection, self.label)
                if outcome == ESTABLISHED:
                    self._is_established = True
                    self.alpn = connection.get_alpn_proto_negotiated()
                    return
                if outcome == WANT_READ:
                    await self.wait_readable()
                else:
                    await self.wait_writable()
        raise self._closed_error()

    def _late(self, timeout_s: float) -> NetError:
        return NetError(f"TLS handshake with {self.label} not finished in {timeout_s:g} s")


def _to_sni(name: str) -> bytes:
    """The name as it goes into the server_name extension (RFC 6066 section 3)."""
    try:
        encoded = name.encode("idna")
    except UnicodeError as error:
        raise LocalProtocolError(f"{name!r} cannot be a TLS server name") from error
    if b"\0" in encoded:
        raise LocalProtocolError(f"{name!r} cannot be a TLS server name")
    return encoded
