"""A reactor with its bridge to trio, and both ends of tunnels in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tng.dataplane.listener import Listener, make_listening_socket
from tng.dataplane.reactor import Reactor
from tng.endpoint import Endpoint
from tng.tunnel.bridge import Bridge
from tng.tunnel.rats_tls.server import RatsTlsServer, Serve


class Plane:
    """A running reactor and its bridge.

    Args:
        reactor: running.
        bridge: serving.
    """

    def __init__(self, reactor: Reactor, bridge: Bridge) -> None:
        self.reactor = reactor
        self.bridge = bridge
        self.accepted = 0
        self.errors: list[BaseException] = []

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine in the reactor."""
        future = self.reactor.spawn_threadsafe(work, "test")
        with trio.fail_after(8):
            while not future.done():
                await trio.sleep(0.002)
        return future.result()

    async def call(self, function: Callable[[], Any]) -> Any:
        """The result of a function in the reactor's thread."""

        async def call() -> Any:
            return function()

        return await self.run(call())

    async def listen(self, server: RatsTlsServer, serve: Serve) -> Endpoint:
        """Accept tunnels on a free port; what goes wrong is kept in `errors`."""
        sock = make_listening_socket("127.0.0.1", 0)

        async def accept(accepted: Any, address: Any) -> None:
            self.accepted += 1
            try:
                await server.accept(accepted, "client", serve)
            except Exception as error:  # noqa: BLE001 - tests look at it
                self.errors.append(error)

        await self.call(lambda: Listener(self.reactor, sock, accept, "tunnels"))
        return Endpoint("127.0.0.1", sock.getsockname()[1])


@asynccontextmanager
async def _plane() -> AsyncIterator[Plane]:
    reactor = Reactor()
    bridge = Bridge(reactor)
    reactor.start()
    async with trio.open_nursery() as nursery:
        await nursery.start(bridge.run)
        try:
            yield Plane(reactor, bridge)
        finally:
            nursery.cancel_scope.cancel()
            reactor.stop(2)


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with _plane() as plane:
        yield plane
