"""A TLS 1.3 connection as an `End`: OpenSSL works directly on the socket's descriptor.

In: a connected socket and a context of `tls_context`.  Out: the `End` interface, after `handshake`.

Theory of operation.  OpenSSL encrypts a record before it tries to send it; a write that did not fit
must be repeated with the same octets.  Therefore those octets, one record at most, count as taken
and are held here until the socket takes them, so that callers are free to go on with other data.
Reading takes whole records off the socket, so octets, or the end, may wait inside OpenSSL without
the descriptor being readable: `TlsOctets.more` says so, and `on_readable` is called again.
`close` goes on in the background until what is held and close_notify are out: `SocketEnd.close`.

Invariants: nothing reaches the native object after `close` or `abort` has released it; the orderly
end is reported only for close_notify.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from tng.dataplane.ends import BLOCKED
from tng.dataplane.poller import ERROR, HANG_UP, READ, WRITE
from tng.dataplane.socket_end import SocketEnd
from tng.dataplane.tls_calls import (
    ENDED,
    ESTABLISHED,
    FASTEST,
    WANT_READ,
    WANT_WRITE,
    Calls,
)
from tng.dataplane.tls_octets import RECORD_SIZE, TlsOctets
from tng.endpoint import is_ip_literal
from tng.errors import LocalProtocolError, NetError, RemoteProtocolError, TngError

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor

CORK_FROM: Final = 32 * 1024
"""Writes of more octets than this are sent as full packets (TCP_CORK); smaller ones never wait."""

_READABLE: Final = READ | ERROR

_TCP_CORK: Final[int | None] = getattr(socket, "TCP_CORK", None)


class TlsEnd(SocketEnd):
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

    __slots__ = (
        "_calls",
        "_connection",
        "_held",
        "_is_established",
        "_is_shut",
        "_octets",
        "_read_wants_write",
        "_shut_is_sent",
        "_write_failure",
        "alpn",
    )

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
        super().__init__(reactor, sock, label)
        connection = SSL.Connection(context, sock)
        if server_side:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
            if server_name and not is_ip_literal(server_name):
                connection.set_tlsext_host_name(_to_sni(server_name))
        self._connection: SSL.Connection | None = connection
        self._octets: TlsOctets | None = TlsOctets(connection, self.label, calls)
        self._held = b""
        self._is_established = False
        self._is_shut = False
        self._shut_is_sent = False
        self._read_wants_write = False
        self._write_failure = ""
        self._calls = calls
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
        with self.reactor.deadline(timeout_s, self._make_late(timeout_s)):
            while (outcome := self._step_handshake()) != ESTABLISHED:
                if outcome == WANT_READ:
                    await self.wait_readable()
                else:
                    await self.wait_writable()

    def read_into(self, buffer: memoryview) -> int:
        """Decrypt what is there; see `End.read_into`."""
        if self._unread:
            return self._take_unread(buffer)
        octets = self._octets
        if octets is None or self.is_closed:
            raise self._closed_error()
        count = octets.read(buffer)
        if count > 0:
            self.bytes_in += count
            return count
        if (count == WANT_WRITE) is not self._read_wants_write:
            self._read_wants_write = count == WANT_WRITE
            self._update()
        if count == ENDED:
            self._saw_end = True
            return 0
        return BLOCKED

    def write(self, data: memoryview) -> int:
        """Encrypt and send; see `End.write`."""
        octets = self._octets
        if octets is None or self.is_closed:
            raise self._closed_error()
        if self._is_shut:
            raise NetError(f"our sending direction to {self.label} is ended already")
        if self._write_failure:
            raise NetError(self._write_failure)
        if self._held and not self._flush():
            return 0
        size = len(data)
        if size > CORK_FROM:
            self._cork(1)
            taken = octets.write(data)
            self._cork(0)
        else:
            taken = octets.write(data)
        if taken < size:
            self._held = bytes(data[taken : taken + RECORD_SIZE])
            taken += len(self._held)
            self._update()
        self.bytes_out += taken
        return taken

    def shut(self) -> None:
        """Send close_notify after what was taken; reading goes on (RFC 8446 section 6.1)."""
        if not (self.is_closed or self._is_shut):
            self._is_shut = True
            self._flush_or_note()

    # --- handshake ---

    def _step_handshake(self) -> int:
        connection = self._connection
        if connection is None or self.is_closed:
            raise self._closed_error()
        outcome = self._calls.handshake(connection, self.label)
        if outcome == ESTABLISHED:
            self._is_established = True
            self.alpn = connection.get_alpn_proto_negotiated()
        return outcome

    def _make_late(self, timeout_s: float) -> Callable[[], NetError]:
        return lambda: NetError(f"TLS handshake with {self.label} not finished in {timeout_s:g} s")

    # --- what OpenSSL wants from the socket ---

    def _has_more(self) -> bool:
        return self._octets is not None and self._octets.more

    def _has_output(self) -> bool:
        """Whether octets that count as taken, or close_notify, still have to be sent."""
        return bool(self._held) or (self._is_shut and not self._shut_is_sent)

    def _mask(self) -> int:
        events = super()._mask()
        if self._read_wants_write and events & READ:
            events = (events & ~READ) | WRITE
        if self._has_output():
            if self.is_closed:
                events = 0  # what the peer sends has to wait for our last octets
            if self._octets is not None and self._octets.write_wants_read:
                events = (events & ~WRITE) | READ
            else:
                events |= WRITE
        return events

    def _on_event(self, events: int) -> None:
        if self._held or self._read_wants_write or self._is_shut:
            events = self._settle(events)
        if self._wanted == READ and self.on_readable is not None:
            # What happens nearly always, without the detour over the base class.
            if events & _READABLE:
                self.on_readable()
        elif events:
            super()._on_event(events & ~HANG_UP)  # TCP's end says nothing about that of TLS
        octets = self._octets
        if octets is not None and octets.more and self._wanted & READ:
            self._fire_next_turn()

    def _settle(self, events: int) -> int:
        """Do what OpenSSL waited for; the events that are left for others."""
        if self._has_output():
            self._flush_or_note()
            if self.is_closed:
                self._go_on_closing()
                return 0
            if self._has_output():
                events &= ~WRITE  # there is no room for anybody else yet
        if self._read_wants_write and events & WRITE:
            events |= READ
        return events

    def _flush(self) -> bool:
        """Send what is held, then close_notify if asked for; False while the socket is full."""
        octets = self._octets
        if octets is None:
            return True
        if self._held:
            self._held = self._held[octets.write(memoryview(self._held)) :]
            if self._held:
                return False
        if self._is_shut and not self._shut_is_sent:
            self._shut_is_sent = not self._is_established or octets.say_close()
            return self._shut_is_sent
        return True

    def _flush_or_note(self) -> None:
        """Flush; a failure is kept for the next write, since nobody is there to catch it."""
        try:
            self._flush()
        except TngError as error:
            self._write_failure = str(error)
            self._held = b""
            self._shut_is_sent = True
        self._update()

    def _cork(self, switch: int) -> None:
        if _TCP_CORK is not None:
            with contextlib.suppress(OSError):  # a broken connection; the write tells
                self._sock.setsockopt(socket.IPPROTO_TCP, _TCP_CORK, switch)

    def _release(self) -> None:
        self._octets = self._connection = None
        self._held = b""
        super()._release()


def _to_sni(name: str) -> bytes:
    """The name as it goes into the server_name extension (RFC 6066 section 3)."""
    try:
        encoded = name.encode("idna")
    except UnicodeError as error:
        raise LocalProtocolError(f"{name!r} cannot be a TLS server name") from error
    if b"\0" in encoded:
        raise LocalProtocolError(f"{name!r} cannot be a TLS server name")
    return encoded
