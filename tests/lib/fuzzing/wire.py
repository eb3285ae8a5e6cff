"""Parsers of what travels between gateways, clients and servers.

Parsers of streams are fed each message whole, in halves and in many pieces, and must read the same.
"""

from __future__ import annotations

import contextlib
import json

import h11
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fuzzing.target import Target, read_alike
from tng.attest.evidence import CocoToken
from tng.attest.user_data import ServerUserData
from tng.errors import TngError
from tng.gateway.workers.frames import FrameReader as WorkerFrames
from tng.gateway.workers.frames import dump_frame as dump_worker_frame
from tng.tunnel.ohttp.control_messages import (
    Wanted,
    dump_evidence_request,
    dump_key_config_answer,
    dump_token_answer,
    dump_wanted,
    parse_challenge_answer,
    parse_evidence_request,
    parse_key_config_answer,
    parse_token_answer,
    parse_wanted,
)
from tng.wire import bhttp, ttrpc
from tng.wire.bhttp_decoder import Content, Decoder
from tng.wire.dice import CocoEvidence
from tng.wire.h2 import H2Machine
from tng.wire.h2_stream import H2Limits, H2Stream, StreamHandler
from tng.wire.hpke_aead import Suite
from tng.wire.http1 import connect_destination, forward_request, match_plain_connect
from tng.wire.http1_body import request_body, response_body
from tng.wire.http1_head import find_head_end, parse_request_head, parse_response_head
from tng.wire.ohttp_cluster import (
    ClusterMessage,
    HeardMember,
    SharedKey,
    dump_cluster_message,
    parse_cluster_message,
)
from tng.wire.ohttp_keys import KeyConfig, dump_key_config_list, parse_key_config_list
from tng.wire.ohttp_metadata import (
    AttestedKey,
    Metadata,
    dump_metadata,
    frame_metadata,
    parse_metadata,
)
from tng.wire.ohttp_request import RequestSealer
from tng.wire.ohttp_request_reader import RequestReader
from tng.wire.ohttp_response import ResponseOpener
from tng.wire.protobuf import parse_fields
from tng.wire.socks5 import Connect, Credentials, NeedData, Send, Socks5Server

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
RECIPIENT, EPHEMERAL, SENDER = (
    X25519PrivateKey.from_private_bytes(bytes([octet]) * 32) for octet in (1, 2, 3)
)
CONFIG = KeyConfig(5, RECIPIENT.public_key().public_bytes_raw())
AES = Suite(1, 1)
NODE = "0f0e0d0c-0b0a-4908-8706-050403020100"


def targets() -> list[Target]:
    """All of them."""
    return [*_http1(), *_h2(), *_bhttp(), *_ohttp(), *_others()]


# -- HTTP/1 -----------------------------------------------------------------------------------

REQUESTS = (
    b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
    b"GET http://user@[::1]:8080/a?b HTTP/1.1\r\nHost: x\r\nConnection: close, te\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n",
)
RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.0 204 \r\n\r\n",
)


def _request(pieces: list[bytes]) -> object:
    data = b"".join(pieces)
    end = find_head_end(data)
    if end < 0:
        return None
    head = parse_request_head(data[:end])
    match_plain_connect(data)
    if head.method == b"CONNECT":
        connect_destination(head.target)
    body = request_body(head)
    return head, _content(body, data[end:], pieces)


def _response(pieces: list[bytes]) -> object:
    data = b"".join(pieces)
    end = find_head_end(data)
    if end < 0:
        return None
    head = parse_response_head(data[:end])
    return head, _content(response_body(head, b"GET"), data[end:], pieces)


def _content(body: object, data: bytes, pieces: list[bytes]) -> object:
    """What a body reader makes of `data`, cut as often as the message was."""
    step = max(1, len(data) // len(pieces))
    found = b""
    for at in range(0, len(data), step):
        if body.is_done:  # type: ignore[attr-defined]
            break
        found += b"".join(body.feed(data[at : at + step]))  # type: ignore[attr-defined]
    return found, body.is_done  # type: ignore[attr-defined]


def _forward(data: bytes) -> object:
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(data)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if isinstance(event, h11.Request) and event.method != b"CONNECT":
        return forward_request(event)
    return None


def _http1() -> list[Target]:
    return [
        Target("HTTP/1 request", REQUESTS, lambda data: read_alike(_request, data)),
        Target("HTTP/1 response", RESPONSES, lambda data: read_alike(_response, data)),
        Target("HTTP/1 request to forward", REQUESTS, _forward),
    ]


# -- HTTP/2 -----------------------------------------------------------------------------------


class _Owner:
    """Owner of a connection and its streams; remembers what it was told."""

    def __init__(self, role: str) -> None:
        self.lines: list[object] = []
        self.sizes: dict[int, int] = {}
        self.machine = H2Machine(role, self, now=0.0, limits=H2Limits(stream_window=70_000))  # type: ignore[arg-type]
        if role == "client":
            for _ in range(3):
                self.machine.open_stream(_Stream(self, 2 * _ + 1))

    def stream_requested(self, stream: H2Stream, method: bytes) -> StreamHandler:
        self.lines.append(("requested", stream.id, method))
        self.machine.answer(stream, 200)
        return _Stream(self, stream.id)

    def window_opened(self) -> None:
        pass

    def settings_received(self) -> None:
        self.lines.append("settings")

    def going_away(self, code: object, reason: object) -> None:
        self.lines.append(("going away", code, reason))

    def drain_confirmed(self) -> None:
        self.lines.append("drained")


class _Stream:
    def __init__(self, owner: _Owner, number: int) -> None:
        self.owner = owner
        self.number = number

    def answered(self, status: object, headers: object) -> None:
        self.owner.lines.append(("answered", self.number, status, headers))

    def data_received(self, data: memoryview) -> int:
        sizes = self.owner.sizes
        sizes[self.number] = sizes.get(self.number, 0) + len(data)
        return 0

    def end_received(self) -> None:
        self.owner.lines.append(("end", self.number))

    def reset_received(self, code: object) -> None:
        self.owner.lines.append(("reset", self.number, code))

    def window_opened(self) -> None:
        pass


def _h2_of(role: str, data: bytes) -> object:
    start = PREFACE if role == "server" else b""

    def read(pieces: list[bytes]) -> object:
        owner = _Owner(role)
        for piece in [start, *pieces] if start else pieces:
            owner.machine.receive(piece, 0.0)
        return owner.lines, owner.sizes

    return read_alike(read, data)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def _h2() -> list[Target]:
    block = b"\x02\x07CONNECT\x01\x0ctng.internal"
    settings = _frame(4, 0, 0) + _frame(4, 0, 0, b"\0\x03\0\0\0\x64") + _frame(4, 1, 0)
    of_client = settings + _frame(1, 4, 1, block) + _frame(0, 0, 1, b"hello") + _frame(0, 1, 1)
    of_client += _frame(1, 0, 3, block[:5]) + _frame(9, 4, 3, block[5:]) + _frame(3, 0, 3, bytes(4))
    of_server = settings + _frame(1, 4, 1, b"\x88") + _frame(0, 8, 1, b"\x02hello\0\0")
    of_server += _frame(8, 0, 0, b"\0\0\x10\0") + _frame(6, 0, 0, bytes(8))
    of_server += _frame(7, 0, 0, b"\0\0\0\x01" + bytes(4) + b"bye")
    return [
        Target("HTTP/2 of a client", (of_client,), lambda data: _h2_of("server", data)),
        Target("HTTP/2 of a server", (of_server,), lambda data: _h2_of("client", data)),
    ]


# -- binary HTTP ------------------------------------------------------------------------------


def _bhttp_of(kind: str, data: bytes) -> object:
    def read(pieces: list[bytes]) -> object:
        decoder, events = Decoder(kind), []  # type: ignore[arg-type]
        for piece in pieces:
            events += decoder.feed(piece)
        events += decoder.finish()
        content = b"".join(event.data for event in events if isinstance(event, Content))
        return [event for event in events if not isinstance(event, Content)], content

    return read_alike(read, data)


def _bhttp() -> list[Target]:
    fields = [(b"content-type", b"text/plain"), (b"x-a", b"b")]
    request = bhttp.dump_request_head(b"POST", b"https", b"a.example", b"/x?y", fields)
    response = bhttp.dump_response_head(200, fields)
    rest = bhttp.dump_content(b"hello") + bhttp.dump_content(b"x" * 70) + bhttp.dump_end(fields[1:])
    known = b"\x03POST\x05https\x00\x01/\x04\x01a\x01b\x05hello\x00"
    requests = (request + rest, b"\x00\x04" + known[1:])
    return [
        Target("binary HTTP request", requests, lambda data: _bhttp_of("request", data)),
        Target(
            "binary HTTP response", (response + rest,), lambda data: _bhttp_of("response", data)
        ),
    ]


# -- OHTTP ------------------------------------------------------------------------------------


def _ohttp_request(pieces: list[bytes]) -> object:
    reader, opened, is_open = RequestReader(), b"", False
    for piece in pieces:
        reader.feed(piece)
        if reader.header is not None and not is_open:
            client = reader.metadata and reader.metadata.client
            reader.open(RECIPIENT, CONFIG, client.public_key if client else None)
            is_open = True
        if is_open:
            opened += b"".join(reader.read())
    reader.finish()
    return opened


def _ohttp() -> list[Target]:
    client = AttestedKey("token", SENDER.public_key().public_bytes_raw())
    anonymous = Metadata(CONFIG.public_key, is_anonymous=True)
    attested = Metadata(CONFIG.public_key, client)
    bodies = []
    for metadata, sender in ((anonymous, None), (attested, SENDER)):
        sealer = RequestSealer(CONFIG, AES, EPHEMERAL, sender)
        chunks = sealer.seal(b"hello") + sealer.seal(b"x" * 100) + sealer.finish()
        bodies.append(frame_metadata(metadata) + sealer.header + chunks)

    request = RequestReader()
    request.feed(bodies[0])
    request.open(RECIPIENT, CONFIG)
    sealed = request.response_sealer(bytes(16))
    response = sealed.prefix + sealed.seal(b"hello") + sealed.seal(b"x" * 100) + sealed.finish()

    def read_response(pieces: list[bytes]) -> object:
        opener: ResponseOpener = RequestSealer(CONFIG, AES, EPHEMERAL).response_opener()
        opened = b"".join(b"".join(opener.feed(piece)) for piece in pieces)
        opener.finish()
        return opened

    key = SharedKey(0, b"\x30" * 48, 1_795_311_622.8125, 1_795_311_922.8125, 1_795_312_222.8125)
    member = HeardMember("00000000-0000-4000-8000-000000000000", 1.5, "10.0.0.1:8301")
    message = ClusterMessage(NODE, "[::1]:8301", 300, (member,), (key,))
    return [
        Target("OHTTP request", tuple(bodies), lambda data: read_alike(_ohttp_request, data)),
        Target("OHTTP response", (response,), lambda data: read_alike(read_response, data)),
        Target("OHTTP metadata", tuple(map(dump_metadata, (anonymous, attested))), parse_metadata),
        Target("OHTTP key list", (dump_key_config_list([CONFIG, CONFIG]),), parse_key_config_list),
        Target("cluster message", (dump_cluster_message(message),), parse_cluster_message),
        _control(),
    ]


def _control() -> Target:
    """All messages of the control API: whichever is not meant is one more refusal."""
    key = ServerUserData("AAAA", 1000)
    evidence = CocoEvidence("tdx", b"{}", b"more", '{"a":1}')
    proposals = [{"provider": "coco", "model": "background_check", "challenge_token": "n"}]
    good = (
        dump_wanted("passport", None),
        dump_wanted("background_check", "n"),
        json.dumps({"attest_request": {"proposals": proposals}}).encode(),
        dump_key_config_answer(key, evidence, Wanted(None)),
        dump_key_config_answer(key, CocoToken("a.b.c"), Wanted(None)),
        dump_evidence_request(evidence),
        dump_token_answer("a.b.c"),
    )

    def read(data: bytes) -> None:
        for parse in (
            lambda: parse_wanted(data, b"application/json"),
            lambda: parse_evidence_request(data, b"application/json"),
            lambda: parse_key_config_answer(data),
            lambda: parse_challenge_answer(data),
            lambda: parse_token_answer(data),
        ):
            with contextlib.suppress(TngError):
                parse()

    return Target("OHTTP control message", good, read)


# -- others -----------------------------------------------------------------------------------


def _socks(pieces: list[bytes]) -> object:
    server, events = Socks5Server(Credentials(b"alice", b"secret")), []
    for at, piece in enumerate(pieces):
        server.receive_data(piece)
        while not isinstance(event := server.next_event(), NeedData):
            if not isinstance(event, Send):
                if isinstance(event, Connect):
                    early = event.trailing_data + b"".join(pieces[at + 1 :])
                    return [*events, event.target, early]
                return [*events, event]
            events.append(event)
    return events


def _ttrpc(pieces: list[bytes]) -> object:
    reader, frames = ttrpc.FrameReader(), []
    for piece in pieces:
        reader.receive_data(piece)
        while (frame := reader.next_frame()) is not None:
            frames.append(frame)
            with contextlib.suppress(TngError):
                ttrpc.parse_request(frame.payload)
            with contextlib.suppress(TngError):
                ttrpc.parse_response(frame.payload)
    return frames


def _workers(pieces: list[bytes]) -> object:
    reader, found = WorkerFrames(), []
    for piece in pieces:
        reader.receive_data(piece)
        while (message := reader.next_message()) is not None:
            found.append(message)
    return repr(found)  # NaN is not equal to itself


def _others() -> list[Target]:
    greeting = b"\x05\x01\x02\x01\x05alice\x06secret"
    connects = (
        b"\x05\x01\x00\x03\x0bexample.org\x01\xbb",
        b"\x05\x01\x00\x01\x7f\0\0\x01\0\x50",
        b"\x05\x01\x00\x04" + bytes(15) + b"\x01\0\x50early",
    )
    call = ttrpc.dump_request(ttrpc.Request("a.Service", "Get", b"\x0a\x01x", 5))
    calls = ttrpc.dump_frame(ttrpc.Frame(1, ttrpc.FrameType.REQUEST, call)) * 2
    frames = dump_worker_frame({"kind": "judge", "n": 1, "octets": "AAAA"}) * 2
    return [
        Target(
            "SOCKS5",
            tuple(greeting + connect for connect in connects),
            lambda data: read_alike(_socks, data),
        ),
        Target("ttrpc", (calls,), lambda data: read_alike(_ttrpc, data)),
        Target("frames of workers", (frames,), lambda data: read_alike(_workers, data)),
        Target("protobuf", (call,), parse_fields),
    ]
