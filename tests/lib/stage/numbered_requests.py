"""Clients whose requests carry a number and secrets, and the service that answers with both.

In: the port that leads to the service.  Out: how many were answered as they should, and which were
not, with when they began and ended.  Invariant: an answer counts only if it is the whole answer to
that very request.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

STEP_TIMEOUT_S: Final = 20.0
"""What one request may take, also on a slow machine."""

PLACES: Final = ("path", "field", "body", "answer")
"""Where a request or its answer holds a secret."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was not served.

    Attributes:
        number: its own.
        began: monotonic seconds.
        ended: monotonic seconds.
        what: in words.
    """

    number: int
    began: float
    ended: float
    what: str


@dataclass(slots=True)
class Tally:
    """What happened.

    Attributes:
        answered: requests served as they should.
        failures: all others.
        delivered: number of a request to how often the service got it.
        slowest_s: the longest that a request took.
    """

    answered: int = 0
    failures: list[Failure] = field(default_factory=list)
    delivered: collections.Counter[int] = field(default_factory=collections.Counter)
    slowest_s: float = 0.0


class NumberedRequests:
    """Both ends: the service is this process's, the clients reach it through something else."""

    def __init__(self) -> None:
        self.secrets = {place: f"{place}-{secrets.token_hex(12)}".encode() for place in PLACES}
        self.tally = Tally()
        self._numbers = itertools.count()

    # -- the service ---------------------------------------------------------------------------

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, to its end."""
        reader = _Reader(stream)
        with contextlib.suppress(trio.BrokenResourceError, EOFError):
            async with stream:
                while True:
                    head = await reader.head()
                    number = int(_field(head, b"x-number"))
                    body = await reader.exactly(int(_field(head, b"content-length") or b"0"))
                    self.tally.delivered[number] += 1
                    answer = self._answer(number, head, body)
                    await stream.send_all(
                        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
                    )

    def _answer(self, number: int, head: bytes, body: bytes) -> bytes:
        is_whole = (
            self.secrets["path"] in head.partition(b"\r\n")[0]
            and _field(head, b"x-secret") == self.secrets["field"]
            and (not body or body == self._body(number))
        )
        return b"%s %d %s" % (self.secrets["answer"], number, b"whole" if is_whole else b"damaged")

    # -- the clients ---------------------------------------------------------------------------

    async def run(self, port: int, clients: int, may_end: Callable[[], bool]) -> None:
        """Send requests, one after the other in each of `clients`, until `may_end`."""
        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(self._client, port, may_end)

    async def _client(self, port: int, may_end: Callable[[], bool]) -> None:
        while not may_end():
            began = time.monotonic()
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError as exc:
                self._failed(next(self._numbers), began, exc)
                continue
            try:
                await self._ask_on(_Reader(stream), may_end)
            finally:
                await trio.aclose_forcefully(stream)

    async def _ask_on(self, reader: _Reader, may_end: Callable[[], bool]) -> None:
        """One request after the other, until one fails."""
        while not may_end():
            number, began = next(self._numbers), time.monotonic()
            try:
                with trio.fail_after(STEP_TIMEOUT_S):
                    await self._ask(reader, number)
            except (EOFError, ValueError, trio.BrokenResourceError, trio.TooSlowError) as exc:
                self._failed(number, began, exc)
                return
            self.tally.answered += 1
            self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - began)

    def _failed(self, number: int, began: float, error: Exception) -> None:
        what = f"{type(error).__name__}: {error}"
        self.tally.failures.append(Failure(number, began, time.monotonic(), what))

    async def _ask(self, reader: _Reader, number: int) -> None:
        body = self._body(number) if number % 2 else b""
        head = b"%s /%s HTTP/1.1\r\nHost: model\r\nX-Number: %d\r\nX-Secret: %s\r\n" % (
            *(b"POST" if body else b"GET", self.secrets["path"], number, self.secrets["field"]),
        )
        if body:
            head += b"Content-Length: %d\r\n" % len(body)
        half = len(body) // 2
        await reader.stream.send_all(head + b"\r\n" + body[:half])
        if body:
            await reader.stream.send_all(body[half:])
        head = await reader.head()
        answer = await reader.exactly(int(_field(head, b"content-length") or b"0"))
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ValueError(f"{head[:30]!r} {answer[:200]!r}")
        if answer != b"%s %d whole" % (self.secrets["answer"], number):
            raise ValueError(f"request {number} was answered {answer[:80]!r}")

    def _body(self, number: int) -> bytes:
        return b"%d %s " % (number, self.secrets["body"]) + b"." * (number % 997)


class _Reader:
    """Heads and bodies from a stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._held = b""

    async def head(self) -> bytes:
        """Up to an empty line, which is left out.

        Raises:
            EOFError: the stream ended.
        """
        while (end := self._held.find(b"\r\n\r\n")) < 0:
            await self._more()
        head, self._held = self._held[:end], self._held[end + 4 :]
        return head

    async def exactly(self, size: int) -> bytes:
        """So many octets.

        Raises:
            EOFError: the stream ended.
        """
        while len(self._held) < size:
            await self._more()
        data, self._held = self._held[:size], self._held[size:]
        return data

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError("the connection ended before its answer")
        self._held += data


def _field(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        found, _, value = line.partition(b":")
        if found.lower() == name:
            return value.strip()
    return b""
