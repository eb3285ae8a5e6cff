"""Somebody who answers in the model server's place: an ordinary TLS server without evidence.

In: whatever connects.  Out: a count of handshakes, and of application octets received, which must
stay 0.  Invariant: it offers the tunnel's own ALPN names, so that nothing but the missing
evidence gives it away.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import pathlib
import socket
import ssl
import tempfile
import threading
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from tng.clock import Clock

_ALPN: Final = ("h2", "rats-tls")
_TIMEOUT: Final = 5.0
"""Seconds that one connection may take."""


class Impostor:
    """A TLS server in a thread of its own, on a free port of loopback.

    Args:
        clock: for the dates of its certificate.
    """

    def __init__(self, clock: Clock) -> None:
        self._context = _context(clock.now())
        self._listener = socket.create_server(("127.0.0.1", 0))
        address: tuple[str, int] = self._listener.getsockname()
        self.port = address[1]
        self.handshakes = 0
        """TLS handshakes that a client completed."""
        self.octets = 0
        """Octets of application data that arrived; one would be one too many."""
        self._thread = threading.Thread(target=self._serve, name="impostor")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._listen_to(connection)

    def _listen_to(self, connection: socket.socket) -> None:
        connection.settimeout(_TIMEOUT)
        with self._context.wrap_socket(connection, server_side=True) as secured:
            # In TLS 1.3 a server is done before the client has looked at the certificate: what
            # tells that the client went on is that it sent something, if only a close.
            self.handshakes += 1
            while data := secured.recv(4096):
                self.octets += len(data)


def _context(now: float) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "impostor")])
    start = dt.datetime.fromtimestamp(int(now), dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - dt.timedelta(hours=1))
        .not_valid_after(start + dt.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(list(_ALPN))
    with tempfile.TemporaryDirectory() as folder:
        chain = pathlib.Path(folder) / "impostor.pem"
        chain.touch(mode=0o600)
        chain.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context.load_cert_chain(chain)
    return context
