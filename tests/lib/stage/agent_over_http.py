"""An api-server-rest of any TEE, whose evidence a test makes."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit


@contextlib.contextmanager
def agent_over_http(tee: str, evidence: Callable[[bytes], bytes]) -> Iterator[str]:
    """The address, `http://127.0.0.1:port`, of a server that gives `evidence(report_data)`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/info":
                info = {"version": "0.1.0", "tee": tee, "additional_tees": []}
                self._answer(200, json.dumps(info).encode())
            elif url.path == "/aa/evidence":
                text = parse_qs(url.query)["runtime_data"][0]
                data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
                self._answer(200, evidence(data))
            else:
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
