"""A UDP service that echoes, and clients of UDP ports."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

LOOPBACK = "127.0.0.1"
WAIT_S = 8.0
_SO_RCVBUFFORCE = 33


def udp_port() -> int:
    """A UDP port of loopback that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


def address_of(number: int) -> str:
    """An address of loopback's network that no other client has: the kernel gives ports out again.

    Args:
        number: of the client, 0 to 63,999.
    """
    return f"127.1.{number // 250}.{number % 250 + 1}"


class Echo:
    """Sends every datagram back; one that begins with `LARGE n` is answered with n octets.

    Attributes:
        port: where it listens.
        seen: every datagram.
        clients: addresses that they came from.
    """

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sock.setblocking(False)
        self.sock.bind((LOOPBACK, 0))
        self.port = int(self.sock.getsockname()[1])
        self.seen: list[bytes] = []
        self.clients: set[tuple[str, int]] = set()

    def stop(self) -> None:
        """Listen no more."""
        trio.lowlevel.notify_closing(self.sock)
        self.sock.close()

    async def run(self) -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            await self._serve()

    async def _serve(self) -> None:
        while self.sock.fileno() != -1:
            await trio.lowlevel.wait_readable(self.sock)
            while True:
                try:
                    datagram, address = self.sock.recvfrom(65535)
                except OSError:
                    break
                self.seen.append(datagram)
                self.clients.add(address)
                words = datagram.split()
                if words[:1] == [b"LARGE"]:
                    datagram = b"x" * int(words[1])
                self.sock.sendto(datagram, address)


@asynccontextmanager
async def echo() -> AsyncIterator[Echo]:
    """An echo service for the block."""
    service = Echo()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.run)
            yield service
            nursery.cancel_scope.cancel()
    finally:
        service.sock.close()


class Client:
    """One client of a UDP port; use as a context manager.

    Args:
        port: of loopback.
        source: address of its own, of loopback's network; None for the usual one.
    """

    def __init__(self, port: int, source: str | None = None) -> None:
        self._sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._port = port
        self._source = source

    async def __aenter__(self) -> Client:
        if self._source is not None:
            await self._sock.bind((self._source, 0))
        await self._sock.connect((LOOPBACK, self._port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sock.close()

    async def send(self, datagram: bytes) -> None:
        await self._sock.send(datagram)

    async def receive(self) -> bytes:
        with trio.fail_after(WAIT_S):
            return await self._sock.recv(65535)

    async def ask(self, datagram: bytes) -> bytes:
        await self.send(datagram)
        return await self.receive()

    async def hears_nothing(self, seconds: float) -> bool:
        """Whether nothing comes within `seconds`."""
        with trio.move_on_after(seconds):
            await self._sock.recv(65535)
            return False
        return True
