"""Services that answer over HTTP in every way but the right one.

Each fault is a script for `stage.conversation.service`: it reads one request and does its worst.
`Cured` plays a fault, or answers as it should once `fault` is None.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from stage.conversation import Line

PAGE: Final = b"<!DOCTYPE html><html><body>Please sign in</body></html>"
TEN_MEGABYTES: Final = 10 * 1024 * 1024
_PIECE: Final = b"a" * 65_536

Fault = Callable[[Line], Awaitable[None]]


async def read_request(line: Line) -> bytes:
    """The request line and its body; the fields are not looked at but for the length."""
    head = await line.until(b"\r\n\r\n")
    length = 0
    for field in head.lower().split(b"\r\n"):
        if field.startswith(b"content-length:"):
            length = int(field.partition(b":")[2])
    while len(line.ahead) < length:
        line.ahead += await line.stream.receive_some()
    del line.ahead[:length]
    return head.partition(b"\r\n")[0]


def answer(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def says(octets: bytes) -> Fault:
    """A service that says these octets and hangs up."""

    async def script(line: Line) -> None:
        await read_request(line)
        await line.say(octets)

    return script


def _nested(text: bytes) -> bytes:
    part = base64.urlsafe_b64encode(text).rstrip(b"=")
    return part + b"." + part + b".AAAA"


async def _endless_body(line: Line) -> None:
    await read_request(line)
    await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await line.say(b"10000\r\n" + _PIECE + b"\r\n")


async def _endless_fields(line: Line) -> None:
    await read_request(line)
    await line.say(b"HTTP/1.1 200 OK\r\n")
    while True:
        await line.say(b"x-a: " + _PIECE[:1000] + b"\r\n")


async def _ever_continue(line: Line) -> None:
    await read_request(line)
    while True:
        await line.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await trio.sleep(0.01)


async def _ten_megabytes(line: Line) -> None:
    await read_request(line)
    await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TEN_MEGABYTES)
    for _ in range(TEN_MEGABYTES // len(_PIECE)):
        await line.say(_PIECE)


async def _silent(line: Line) -> None:
    await read_request(line)
    await trio.sleep_forever()


async def _dripping(line: Line) -> None:
    await read_request(line)
    for octet in answer(b"a.b.c" * 1000):
        await line.say(bytes([octet]))
        await trio.sleep(0.01)


async def _reset(line: Line) -> None:
    await read_request(line)
    line.reset()


async def _closed_at_once(line: Line) -> None:
    pass


FAULTS: Final[dict[str, Fault]] = {
    "a page instead of an answer": says(answer(PAGE, "200 OK", "Content-Type: text/html")),
    "a page that says broken": says(answer(PAGE, "502 Bad Gateway", "Content-Type: text/html")),
    "nothing in the answer": says(answer(b"")),
    "octets that are no text": says(answer(bytes(range(256)))),
    "a token of ten megabytes": _ten_megabytes,
    "a token without an end": _endless_body,
    "fields without an end": _endless_fields,
    "deeply nested lists": says(answer(_nested(b"[" * 100_000))),
    "deeply nested objects": says(answer(_nested(b'{"a":' * 50_000))),
    "deeply nested JSON for a token": says(answer(b'{"token":' * 50_000)),
    "compressed": says(answer(gzip.compress(b"a.b.c"), "200 OK", "Content-Encoding: gzip")),
    "closed at once": _closed_at_once,
    "closed without an answer": says(b""),
    "closed within the head": says(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "closed within the body": says(answer(b"a.b.c" * 100)[:-100]),
    "reset": _reset,
    "redirected": says(answer(b"", "302 Found", "Location: http://127.0.0.1:1/")),
    "redirected for ever": says(answer(b"", "307 Temporary Redirect", "Location: /attestation")),
    "another protocol": says(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "two lengths": says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\na.b.c"),
    "a status that is none": says(b"HTTP/1.1 999999 what\r\n\r\n"),
    "wrong password": says(answer(b"who are you", "401 Unauthorized")),
}
"""What a service can do wrong at once."""

SLOW_FAULTS: Final[dict[str, Fault]] = {
    "silent": _silent,
    "octet by octet, slowly": _dripping,
    "continued for ever": _ever_continue,
}
"""What only a time limit ends."""


class Cured:
    """A service with a fault, until it is taken away.

    Args:
        fault: what it does wrong; None for nothing.
        good: the body of a right answer, given the request line.
    """

    def __init__(self, fault: Fault | None, good: Callable[[bytes], bytes]) -> None:
        self.fault = fault
        self._good = good

    async def __call__(self, line: Line) -> None:
        if self.fault is not None:
            await self.fault(line)
        else:
            await line.say(answer(self._good(await read_request(line))))
