"""The embedded service's gRPC endpoint in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from tng.endpoint import Endpoint
from tng.trustee.grpc_endpoint import GrpcParts, grpc_endpoint


@contextlib.contextmanager
def running_endpoint(parts: GrpcParts) -> Iterator[int]:
    """The port on which these parts answer for the block."""
    ready = threading.Event()
    ports: list[int] = []
    stops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        try:
            async with grpc_endpoint(Endpoint("127.0.0.1", 0), parts) as port:
                stops.append((asyncio.get_running_loop(), asyncio.Event()))
                ports.append(port)
                ready.set()
                await stops[0][1].wait()
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(20)
    try:
        yield ports[0]
    finally:
        for loop, stop in stops:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
