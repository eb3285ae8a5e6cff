"""An api-server-rest whose TEE is a simulated TDX platform."""

from __future__ import annotations

import base64
import contextlib
import http.server
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from tng.attest.tdx.simulator.platform import SimulatedPlatform

INFO = b'{"version":"0.1.0","tee":"tdx","additional_tees":[]}'


@contextlib.contextmanager
def evidence_server(platform: SimulatedPlatform) -> Iterator[str]:
    """The address, `http://127.0.0.1:port`, of a server that vouches as `platform` does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            match url.path:
                case "/info":
                    self._answer(200, INFO)
                case "/aa/evidence":
                    text = parse_qs(url.query)["runtime_data"][0]
                    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
                    self._answer(200, platform.evidence(data))
                case _:
                    self._answer(404, b"not found")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
