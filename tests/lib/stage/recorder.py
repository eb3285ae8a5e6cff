"""A server that writes down every octet of application data it is given, plain or inside TLS."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import ssl
import threading
from collections.abc import Sequence
from types import TracebackType

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nforged"


class Recorder:
    """Listens on loopback; use as a context manager.

    Args:
        pem: key and certificate to speak TLS 1.3, None to speak plain.
        alpn: protocols it accepts inside TLS.

    Attributes:
        port: where it listens.
        accepted: connections taken.
        handshakes: TLS handshakes completed.
        recorded: all application octets of all connections.
    """

    def __init__(
        self, pem: pathlib.Path | None = None, alpn: Sequence[str] = ("h2", "rats-tls")
    ) -> None:
        self._context = None
        if pem is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.minimum_version = ssl.TLSVersion.TLSv1_3
            self._context.load_cert_chain(pem)
            self._context.set_alpn_protocols(list(alpn))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self.handshakes = 0
        self.recorded = bytearray()
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []

    def __enter__(self) -> Recorder:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                self.handshakes += 1
            self._open.append(connection)
            while data := connection.recv(65536):
                self.recorded += data
                if b"\r\n\r\n" in self.recorded:
                    connection.sendall(ANSWER)
        except OSError:
            pass
        finally:
            connection.close()
