"""Scripted services and clients that say exactly which octets, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

PATIENCE_S: Final = 5.0
"""Seconds after which a test that waits in vain has failed."""


class Line:
    """One side of a TCP connection, with what was read ahead.

    Args:
        stream: owned from now on.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.ahead = bytearray()

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`."""
        with trio.fail_after(PATIENCE_S):
            while mark not in self.ahead:
                more = await self.stream.receive_some()
                assert more, f"ended after {bytes(self.ahead)!r}, expected {mark!r}"
                self.ahead += more
        end = self.ahead.index(mark) + len(mark)
        said = bytes(self.ahead[:end])
        del self.ahead[:end]
        return said

    async def rest(self) -> bytes:
        """Everything up to an orderly end.

        Raises:
            trio.BrokenResourceError: the connection was reset instead.
        """
        with trio.fail_after(PATIENCE_S):
            while more := await self.stream.receive_some():
                self.ahead += more
        said = bytes(self.ahead)
        self.ahead.clear()
        return said

    async def is_cut(self) -> bool:
        """Whether the connection ends with a reset rather than in order."""
        try:
            await self.rest()
        except trio.BrokenResourceError:
            return True
        return False

    def reset(self) -> None:
        """Leave without a word."""
        self.stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of no time
        self.stream.socket.close()


async def is_cut_at_once(port: int) -> bool:
    """Whether a connection to a port of loopback is reset, be it while it is being made."""
    try:
        async with calling(port) as client:
            return await client.is_cut()
    except OSError:
        return True


@asynccontextmanager
async def calling(port: int) -> AsyncIterator[Line]:
    """A connection to a port of loopback."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield Line(stream)


class Service:
    """What a scripted service has seen."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections = 0


@asynccontextmanager
async def service(script: Callable[[Line], Awaitable[None]]) -> AsyncIterator[Service]:
    """A TCP service on a free port that runs `script` for each connection, then closes it."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    seen = Service(listeners[0].socket.getsockname()[1])

    async def serve(stream: trio.SocketStream) -> None:
        seen.connections += 1
        with suppress(trio.BrokenResourceError):
            await script(Line(stream))

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, listeners)
        yield seen
        nursery.cancel_scope.cancel()


async def eventually(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Wait until `condition` holds; fail when it does not within `seconds`."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.005)
