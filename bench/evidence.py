"""A stand-in for api-server-rest that hands out evidence of a simulated TDX platform.

In: the platform's directory.  Out: GET /info, /aa/evidence and /aa/additional-evidence on a free
port of loopback, which it prints.  Both implementations ask it in the same way, so both pairs show
the same evidence.  Anybody may ask: the evidence is worth nothing outside this machine.

    python -m bench.evidence DIRECTORY
"""

from __future__ import annotations

import base64
import http.server
import pathlib
import sys
import urllib.parse
from typing import Final

from bench.processes import HOST
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.clock import SystemClock

_INFO: Final = b'{"version":"0.1.0","tee":"tdx","additional_tees":[]}'


class Server(http.server.ThreadingHTTPServer):
    """Holds the platform for its handlers."""

    daemon_threads = True

    def __init__(self, platform: SimulatedPlatform) -> None:
        super().__init__((HOST, 0), Handler)
        self.platform = platform


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer the three paths that are asked for."""
        parts = urllib.parse.urlsplit(self.path)
        if parts.path == "/info":
            self._answer(200, _INFO)
        elif parts.path == "/aa/evidence":
            data = urllib.parse.parse_qs(parts.query).get("runtime_data", [""])[0]
            octets = base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))
            assert isinstance(self.server, Server)
            self._answer(200, self.server.platform.evidence(octets))
        elif parts.path == "/aa/additional-evidence":
            self._answer(200, b"")
        else:
            self._answer(404, b"URL NOT FOUND")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(words: list[str]) -> int:
    """Serve until killed."""
    now = int(SystemClock().now())
    server = Server(SimulatedPlatform.load_or_create(pathlib.Path(words[0]), now))
    sys.stdout.write(f"listening on {server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
