"""Both ends of OHTTP by hand: a client and an egress of which a test controls every octet."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from stage.conversation import Line, Service, service
from tng.wire import bhttp
from tng.wire.bhttp_decoder import Content, Decoder, End, ResponseHead
from tng.wire.bhttp_decoder import RequestHead as InnerHead
from tng.wire.http1_body import request_body, response_body
from tng.wire.http1_head import Fields, RequestHead, parse_request_head, parse_response_head
from tng.wire.ohttp_keys import (
    ADVERTISED_SUITES,
    KeyConfig,
    dump_key_config_list,
    parse_key_config_list,
)
from tng.wire.ohttp_metadata import AttestedKey, Metadata, frame_metadata
from tng.wire.ohttp_request import RequestSealer
from tng.wire.ohttp_request_reader import RequestReader
from tng.wire.ohttp_response import ResponseSealer, response_nonce_size

HOST: Fields = [(b"host", b"model.example")]


def post(
    api: str, content_type: str = "application/json", framing: str = "Transfer-Encoding: chunked"
) -> bytes:
    """The head of a request to an egress."""
    lines = [
        "POST / HTTP/1.1",
        "Host: x",
        f"X-Tng-Ohttp-Api: {api}",
        f"Content-Type: {content_type}",
    ]
    return "\r\n".join([*lines, framing, "", ""]).encode()


def tunnel(body: bytes) -> bytes:
    """A whole encapsulated request whose outer body is `body`."""
    return post("/tng/tunnel", "message/ohttp-chunked-req", f"Content-Length: {len(body)}") + body


def control(api: str, value: object) -> bytes:
    """A whole request to the control API."""
    body = json.dumps(value).encode()
    return post(api, framing=f"Content-Length: {len(body)}") + body


async def hear(line: Line, method: bytes = b"POST") -> tuple[int, Fields, bytes]:
    """One HTTP response: status, fields, body."""
    head = parse_response_head(await line.until(b"\r\n\r\n"))
    reader, body = response_body(head, method), b""
    while not reader.is_done:
        data = bytes(line.ahead) or await line.stream.receive_some()
        line.ahead.clear()
        assert data, f"the response was cut short after {body!r}"
        body += b"".join(reader.feed(data))
    line.ahead[:0] = reader.rest
    return head.status, head.fields, body


async def ask_key(line: Line) -> KeyConfig:
    """The key that an egress offers."""
    await line.say(control("/tng/key-config", {"attestation_request": None}))
    status, _, body = await hear(line)
    assert status == 200, body
    encoded = json.loads(body)["hpke_key_config"]["encoded_key_config_list"]
    return parse_key_config_list(base64.b64decode(encoded))[0]


class Encapsulated:
    """One request on its way to an egress, part by part.

    Args:
        config: the egress's key.
        sender: the client's own key and token, if it attests.
    """

    def __init__(
        self, config: KeyConfig, sender: tuple[X25519PrivateKey, str] | None = None
    ) -> None:
        shown = None
        if sender is not None:
            shown = AttestedKey(sender[1], sender[0].public_key().public_bytes_raw())
        metadata = Metadata(config.public_key, shown, is_anonymous=shown is None)
        self.sealer = RequestSealer(
            config, config.suites[0], X25519PrivateKey.generate(), sender[0] if sender else None
        )
        self.opener = self.sealer.response_opener()
        self.metadata = frame_metadata(metadata)
        self.begin = self.metadata + self.sealer.header

    def head(self, method: bytes = b"GET", path: bytes = b"/", fields: Fields = HOST) -> bytes:
        return self.sealer.seal(bhttp.dump_request_head(method, b"", b"", path, fields))

    def content(self, data: bytes) -> bytes:
        return self.sealer.seal(bhttp.dump_content(data))

    def end(self, trailers: Fields | None = None) -> bytes:
        return self.sealer.seal(bhttp.dump_end(trailers or [])) + self.sealer.finish()

    def whole(
        self,
        method: bytes = b"GET",
        path: bytes = b"/",
        fields: Fields = HOST,
        content: bytes = b"",
    ) -> bytes:
        """The outer body."""
        parts = [self.begin, self.head(method, path, fields)]
        if content:
            parts.append(self.content(content))
        return b"".join([*parts, self.end()])

    def opened(self, body: bytes) -> tuple[int, Fields, bytes, Fields]:
        """Status, fields, content and trailers of the inner response in a whole outer body."""
        decoder = Decoder("response")
        events = [event for plain in self.opener.feed(body) for event in decoder.feed(plain)]
        self.opener.finish()
        events += decoder.finish()
        head, end = events[0], events[-1]
        assert isinstance(head, ResponseHead)
        assert isinstance(end, End)
        content = b"".join(event.data for event in events if isinstance(event, Content))
        return head.status, head.fields, content, end.trailers


class Taken:
    """An encapsulated request that a scripted egress has read.

    Attributes:
        outer: its outer head.
        head: its inner head.
        content: its inner content.
        trailers: its inner trailers.
        sealer: encrypts the answer.
    """

    def __init__(
        self,
        outer: RequestHead,
        reader: RequestReader,
        private: X25519PrivateKey,
        config: KeyConfig,
        sender: bytes | None,
    ) -> None:
        reader.open(private, config, sender)
        decoder = Decoder("request")
        events = [event for plain in reader.read() for event in decoder.feed(plain)]
        reader.finish()
        events += decoder.finish()
        head, end = events[0], events[-1]
        assert isinstance(head, InnerHead)
        assert isinstance(end, End)
        self.outer = outer
        self.head = head
        self.content = b"".join(event.data for event in events if isinstance(event, Content))
        self.trailers = end.trailers
        suite = reader.header.suite  # type: ignore[union-attr]
        self.sealer: ResponseSealer = reader.response_sealer(b"n" * response_nonce_size(suite))

    def answer(
        self, status: int = 200, fields: Fields | None = None, content: bytes = b""
    ) -> bytes:
        """The whole outer body of an answer."""
        out = [self.sealer.prefix, self.sealer.seal(bhttp.dump_response_head(status, fields or []))]
        if content:
            out.append(self.sealer.seal(bhttp.dump_content(content)))
        out += [self.sealer.seal(bhttp.dump_end()), self.sealer.finish()]
        return b"".join(out)


class ScriptedEgress:
    """An egress whose answers a test chooses; use `serving`.

    Args:
        script: called with each encapsulated request and its connection; writes the answer.
        expires: Unix time that it says its key ends at.

    Attributes:
        asked: values of `x-tng-ohttp-api`, in order.
        bodies: bodies of control calls, in order.
        outer: all outer heads.
    """

    def __init__(
        self, script: Callable[[Taken, Line], Awaitable[None]], expires: int = 4102444800
    ) -> None:
        self._script = script
        self.expires = expires
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.outer: list[RequestHead] = []
        self.info: object = None
        self.control: Callable[[str], tuple[int, bytes] | None] = lambda _: None
        self.raw: Callable[[RequestHead], bytes | None] = lambda _: None
        self.new_key()

    def new_key(self) -> None:
        """Know only a new key from now on."""
        self.private = X25519PrivateKey.generate()
        public = self.private.public_key().public_bytes_raw()
        self.config = KeyConfig(0, public, ADVERTISED_SUITES)

    def serving(self) -> AbstractAsyncContextManager[Service]:
        """Listen while the block runs."""

        async def serve(line: Line) -> None:
            with suppress(trio.ClosedResourceError):  # the script has left
                await self._serve(line)

        return service(serve)

    async def _serve(self, line: Line) -> None:
        while data := bytes(line.ahead) or await line.stream.receive_some():
            line.ahead[:] = data
            head = parse_request_head(await line.until(b"\r\n\r\n"))
            self.outer.append(head)
            api = dict(head.fields)[b"x-tng-ohttp-api"].decode()
            self.asked.append(api)
            if (raw := self.raw(head)) is not None:
                await line.say(raw)
                return
            body = await _body(line, head)
            if api == "/tng/tunnel":
                await self._tunnel(line, head, body)
            else:
                self.bodies.append(body)
                status, answer = self.control(api) or (200, self.key_answer())
                await line.say(response(answer, status, b"application/json"))

    def key_answer(self) -> bytes:
        encoded = base64.b64encode(dump_key_config_list([self.config])).decode()
        key = {"expire_timestamp": self.expires, "encoded_key_config_list": encoded}
        return json.dumps({"hpke_key_config": key, "attestation_info": self.info}).encode()

    async def _tunnel(self, line: Line, head: RequestHead, body: bytes) -> None:
        reader = RequestReader()
        reader.feed(body)
        assert reader.metadata is not None
        if reader.metadata.key_hint != self.config.public_key:
            await line.say(response(b'{"code":"ServerKeyConfigNotFound"}', 422))
            return
        client = reader.metadata.client
        sender = client.public_key if client else None
        await self._script(Taken(head, reader, self.private, self.config, sender), line)


def response(body: bytes, status: int = 200, kind: bytes = b"message/ohttp-chunked-res") -> bytes:
    """A whole HTTP response."""
    return b"HTTP/1.1 %d x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (
        status,
        kind,
        len(body),
        body,
    )


async def _body(line: Line, head: RequestHead) -> bytes:
    reader, body = request_body(head), b""
    while not reader.is_done:
        data = bytes(line.ahead) or await line.stream.receive_some()
        line.ahead.clear()
        assert data
        body += b"".join(reader.feed(data))
    line.ahead[:0] = reader.rest
    return body


def answering(answer: bytes, seen: list[bytes] | None = None) -> Callable[[Line], Awaitable[None]]:
    """A service that answers each request with the same octets; `seen` gets what it was sent."""

    async def script(line: Line) -> None:
        while data := bytes(line.ahead) or await line.stream.receive_some():
            line.ahead[:] = data
            head = await line.until(b"\r\n\r\n")
            body = await _body(line, parse_request_head(head))
            if seen is not None:
                seen.append(head + body)
            await line.say(answer)

    return script
