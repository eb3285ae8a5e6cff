"""The certificate that a live egress shows in its handshake; nothing else is said to it.

An endpoint, and perhaps a certificate of ours, in; DER out.  Nothing is judged here.
Source: RFC 8446, in which the server's certificate comes before the client's is asked for.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from tng.dataplane.tls_context import TlsCredential, client_context
from tng.errors import NetError, RemoteProtocolError
from tng.tunnel.rats_tls import ALPN_MULTIPLEX, ALPN_RAW

if TYPE_CHECKING:
    from tng.attest.credential import Credential
    from tng.endpoint import Endpoint

TIMEOUT_S: Final = 20.0
"""Seconds for all of it; an egress may have to ask its TEE first."""

_MAX_FLIGHT: Final = 512 * 1024
"""Octets until the handshake is done; the largest certificate that is judged is smaller."""

_CHUNK: Final = 16 * 1024
_SHORTEST_S: Final = 0.001  # a socket takes 0 for "do not wait at all", which is another error


def fetch_certificate(
    endpoint: Endpoint, credential: Credential | None = None, timeout_s: float = TIMEOUT_S
) -> bytes:
    """The leaf certificate of the egress, DER.

    Args:
        endpoint: where it listens.
        credential: what to show to an egress that asks; None for nothing.
        timeout_s: seconds for all of it.

    Raises:
        NetError: nobody there, or no answer in time.
        RemoteProtocolError: what answers does not speak attested TLS.
    """
    shown = None if credential is None else TlsCredential(credential.key, credential.certificate)
    connection = SSL.Connection(client_context((ALPN_MULTIPLEX, ALPN_RAW), shown), None)
    connection.set_connect_state()
    ends = time.monotonic() + timeout_s
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout_s) as plain:
            _shake_hands(connection, plain, endpoint, ends)
    except OSError as exc:
        raise NetError(f"{endpoint}: {exc.strerror or exc}") from exc
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
    except ValueError as exc:
        raise RemoteProtocolError(f"{endpoint} shows what is no certificate: {exc}") from exc
    if certificate is None:
        raise RemoteProtocolError(f"{endpoint} showed no certificate")
    return certificate.public_bytes(Encoding.DER)


def _shake_hands(
    connection: SSL.Connection, plain: socket.socket, endpoint: Endpoint, ends: float
) -> None:
    received = 0
    while True:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            plain.settimeout(max(ends - time.monotonic(), _SHORTEST_S))
            _send(connection, plain)
            data = plain.recv(_CHUNK)
            received += len(data)
            if not data or received > _MAX_FLIGHT:
                raise RemoteProtocolError(
                    f"{endpoint} ended, or did not finish, its handshake after {received} octets"
                ) from None
            connection.bio_write(data)
        except SSL.Error as exc:
            reasons = ", ".join(str(part[-1]) for part in exc.args[0]) if exc.args else str(exc)
            raise RemoteProtocolError(
                f"{endpoint} does not speak attested TLS: {reasons or 'no reason given'}"
            ) from exc
        else:
            _send(connection, plain)
            return


def _send(connection: SSL.Connection, plain: socket.socket) -> None:
    with contextlib.suppress(SSL.WantReadError):
        while True:
            plain.sendall(connection.bio_read(_CHUNK))
