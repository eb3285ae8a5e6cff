"""A service whose answers show whether octets arrived whole, in time, and both ways.

POST /digest      SHA-256 of the body; without Content-Length the body ends with the stream
GET  /octets/N    N octets, always the same
GET  /events      server-sent events, one every `EVENT_GAP_S`
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from typing import Final

EVENTS: Final = 5
_HEARD_TIMEOUT_S: Final = 10.0
_CHUNK: Final = 1 << 16
_PATTERN: Final = bytes(range(251)) * 261  # its period is no power of two, so that a shift shows


def octets(size: int) -> bytes:
    """What `/octets/size` answers."""
    return (_PATTERN * (size // len(_PATTERN) + 1))[:size]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: OctetService
    wbufsize = 0

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        digest = hashlib.sha256()
        length = self.headers.get("Content-Length")
        left = int(length) if length is not None else None
        while left is None or left > 0:
            data = self.rfile.read1(_CHUNK if left is None else min(_CHUNK, left))
            if not data:
                break
            digest.update(data)
            left = None if left is None else left - len(data)
        self._answer(digest.hexdigest().encode())

    def do_GET(self) -> None:
        if self.path == "/events":
            self._head("text/event-stream")
            for number in range(EVENTS):
                self.wfile.write(b"data: %d\n\n" % number)
                if not self.server.heard.acquire(timeout=_HEARD_TIMEOUT_S):
                    return  # the event is held back somewhere
        else:
            self._answer(octets(int(self.path.removeprefix("/octets/"))))

    def _answer(self, body: bytes) -> None:
        self._head("application/octet-stream", len(body))
        self.wfile.write(body)

    def parse_request(self) -> bool:
        self.server.requests += 1
        return super().parse_request()

    def _head(self, kind: str, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()


class OctetService(http.server.ThreadingHTTPServer):
    """Listens on loopback.

    Attributes:
        requests: how many it was asked.
        heard: to be released by whoever has received an event.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = 0
        self.heard = threading.Semaphore(0)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave early are part of the tests."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def port(self) -> int:
        return int(self.server_address[1])


@contextlib.contextmanager
def octet_service() -> Iterator[OctetService]:
    """The service, for the block."""
    with OctetService() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
