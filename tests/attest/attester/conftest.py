"""Stand-ins for the services that give evidence: an Attestation Agent and an api-server-rest."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import pathlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest
import trio

from tng.attest.attester.agent import SERVICE
from tng.errors import RemoteProtocolError
from tng.wire.protobuf import dump_fields, last_bytes, parse_fields
from tng.wire.ttrpc import (
    Frame,
    FrameReader,
    FrameType,
    Request,
    Response,
    dump_frame,
    dump_response,
    parse_request,
)


def sample_evidence(report_data: bytes) -> bytes:
    """What the `sample` attester says about report data."""
    text = base64.b64encode(report_data).decode()
    return json.dumps({"svn": "1", "report_data": text, "measure_register": "00" * 32}).encode()


@dataclass
class FakeAgent:
    """An agent; `answers` and `raw` overrule single methods."""

    path: str
    answers: dict[str, Response] = field(default_factory=dict)
    raw: dict[str, Callable[[int], bytes]] = field(default_factory=dict)
    requests: list[tuple[int, Request]] = field(default_factory=list)

    async def serve(self, stream: trio.SocketStream) -> None:
        reader = FrameReader()
        with contextlib.suppress(RemoteProtocolError, trio.BrokenResourceError):
            while True:
                while (frame := reader.next_frame()) is None:
                    reader.receive_data(await stream.receive_some())
                request = parse_request(frame.payload)
                self.requests.append((frame.stream, request))
                if (raw := self.raw.get(request.method)) is not None:
                    if not (data := raw(frame.stream)):
                        await trio.sleep_forever()
                    await stream.send_all(data)
                    continue
                payload = dump_response(self._answer(request))
                await stream.send_all(dump_frame(Frame(frame.stream, FrameType.RESPONSE, payload)))

    def _answer(self, request: Request) -> Response:
        if request.service != SERVICE:
            return Response(12, "unknown service", b"")
        if request.method in self.answers:
            return self.answers[request.method]
        match request.method:
            case "GetEvidence":
                said = sample_evidence(last_bytes(parse_fields(request.payload), 1))
                return Response(0, "", dump_fields([(1, said)]))
            case "GetTeeType":
                return Response(0, "", dump_fields([(1, b"sample")]))
        return Response(12, "unimplemented", b"")


@pytest.fixture
async def agent(tmp_path: pathlib.Path) -> AsyncIterator[FakeAgent]:
    """An agent that listens."""
    fake = FakeAgent(str(tmp_path / "aa.sock"))
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(fake.path)
    listening.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, fake.serve, [trio.SocketListener(listening)])
        yield fake
        nursery.cancel_scope.cancel()


@dataclass
class FakeAsr:
    """An api-server-rest; `answers` overrule single paths with (status, headers, body)."""

    url: str = ""
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def answer(self, target: str) -> tuple[int, dict[str, str], bytes]:
        url = urlsplit(target)
        query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        self.requests.append((url.path, query))
        if url.path in self.silent:
            self.released.wait(30)
        if url.path in self.answers:
            return self.answers[url.path]
        if url.path == "/info":
            return 200, {}, b'{"version":"1","tee":"sample","additional_tees":[]}'
        if url.path == "/aa/evidence":
            text = query["runtime_data"]
            data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            return 200, {}, sample_evidence(data)
        return 404, {}, b"URL NOT FOUND"


@pytest.fixture
def asr() -> Iterator[FakeAsr]:
    """A service that listens."""
    fake = FakeAsr()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            status, headers, body = fake.answer(self.path)
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield fake
        fake.released.set()
        server.shutdown()
        thread.join()
