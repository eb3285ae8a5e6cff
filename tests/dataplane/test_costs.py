"""What one connection and one chunk cost, in counts that are the same on every machine.

A benchmark means nothing where others share the machine; these counts do.  They are of a whole way
through an ingress and an egress.  Each budget is what was counted when it was set, and a quarter
more, because versions of Python differ.  A change that needs more either is worth it, and raises
the budget in the same commit, or is a mistake.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import select
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from types import FrameType

import pytest
import trio

from stage.gateways import free_port, http_proxy, mapping, serving

SYSTEM_CALLS = frozenset(
    {
        *("recv", "recv_into", "send", "poll", "modify", "register", "unregister", "read", "write"),
        *("_accept", "close", "connect_ex", "socket", "shutdown", "setsockopt", "getsockopt"),
        *("getsockname", "getpeername", "setblocking", "SSL_read", "SSL_write", "SSL_do_handshake"),
    }
)
"""Names of C functions that ask the kernel for something; a TLS record counts as one."""

MULTIPLEXED: dict[str, object] = {}
RAW: dict[str, object] = {"rats_tls": {"multiplex": False}}

ROUNDS = 100
CHUNKS = 4
"""Moves that a round trip takes: there and back, through ingress and egress."""
CONNECTIONS = 40
WARM = 5
BULK = 8 << 20
TOKEN = b"t" * 200
TIMEOUT_S = 10.0

pytestmark = pytest.mark.skipif(
    not hasattr(select, "epoll"), reason="the counts are those of epoll"
)


class Meter:
    """Counts the calls of the reactors' threads between `start` and `stop`."""

    def __init__(self) -> None:
        self.python = 0
        self.native: collections.Counter[str] = collections.Counter()
        self._threads: frozenset[int] = frozenset()

    def profile(self, _frame: FrameType, event: str, argument: object) -> None:
        if threading.get_ident() not in self._threads:
            return
        if event == "call":
            self.python += 1
        elif event == "c_call":
            self.native[getattr(argument, "__name__", "?")] += 1

    def start(self) -> None:
        threads = [thread for thread in threading.enumerate() if thread.name == "tng-reactor"]
        assert len(threads) == 2
        self._threads = frozenset(thread.ident or 0 for thread in threads)

    def stop(self) -> None:
        self._threads = frozenset()

    @property
    def system(self) -> int:
        return sum(count for name, count in self.native.items() if name in SYSTEM_CALLS)


class Way:
    """A way through an ingress and an egress to a service that the test plays itself."""

    def __init__(self, listener: socket.socket, proxy: int, egress: int) -> None:
        self._listener = listener
        self._proxy = proxy
        self._egress = egress

    @contextlib.contextmanager
    def open(self):
        """(client's socket, service's socket) of one new connection."""
        with socket.create_connection(("127.0.0.1", self._proxy), TIMEOUT_S) as client:
            client.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % self._egress)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(4096)
            assert b" 200 " in head
            service, _ = self._listener.accept()
            with service:
                service.settimeout(TIMEOUT_S)
                yield client, service


def exchange(client: socket.socket, service: socket.socket, rounds: int) -> None:
    for _ in range(rounds):
        for sender, receiver in ((client, service), (service, client)):
            sender.sendall(TOKEN)
            assert receiver.recv(4096) == TOKEN


def connect_often(way: Way, count: int) -> None:
    """So many connections after one another, each with one exchange, ended by the client."""
    for _ in range(count):
        with way.open() as (client, service):
            exchange(client, service, 1)
            client.shutdown(socket.SHUT_WR)
            assert service.recv(1) == b""
            service.close()
            assert client.recv(1) == b""


@contextlib.asynccontextmanager
async def standing(transport: dict[str, object]) -> AsyncIterator[Way]:
    proxy, port = free_port(), free_port()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        service = listener.getsockname()[1]
        egress = {"add_egress": [{**mapping(port, service), "no_ra": True, **transport}]}
        ingress = {"add_ingress": [{**http_proxy(proxy), "no_ra": True, **transport}]}
        async with serving(egress), serving(ingress):
            way = Way(listener, proxy, port)
            await trio.to_thread.run_sync(connect_often, way, WARM)
            yield way


@pytest.fixture
def profiler():
    """A meter that hears of every thread started from now on."""
    meter = Meter()
    threading.setprofile(meter.profile)
    yield meter
    threading.setprofile(None)


def within(counted: float, budget: float) -> bool:
    """Whether the budget holds, and is not so loose that it guards nothing."""
    return budget * 0.4 <= counted <= budget


@pytest.mark.parametrize(
    ("transport", "python", "system"),
    [pytest.param(MULTIPLEXED, 14, 3.75, id="multiplexed"), pytest.param(RAW, 5, 3.75, id="raw")],
)
async def test_a_chunk_is_moved_within_its_budget_of_calls(
    profiler: Meter, transport: dict[str, object], python: float, system: float
) -> None:
    def work(way: Way) -> None:
        with way.open() as (client, service):
            exchange(client, service, WARM)
            profiler.start()
            exchange(client, service, ROUNDS)
            profiler.stop()

    async with standing(transport) as way:
        await trio.to_thread.run_sync(work, way)
    chunks = ROUNDS * CHUNKS
    assert within(profiler.python / chunks, python), profiler.python / chunks
    assert within(profiler.system / chunks, system), (profiler.system / chunks, profiler.native)


@pytest.mark.parametrize(
    ("transport", "python", "system"),
    [pytest.param(MULTIPLEXED, 425, 63, id="multiplexed"), pytest.param(RAW, 447, 78, id="raw")],
)
async def test_a_connection_is_served_within_its_budget_of_calls(
    profiler: Meter, transport: dict[str, object], python: float, system: float
) -> None:
    """Both sides together, from accepting to closing, with one exchange in between."""
    async with standing(transport) as way:
        profiler.start()
        await trio.to_thread.run_sync(connect_often, way, CONNECTIONS)
        profiler.stop()
    assert within(profiler.python / CONNECTIONS, python), profiler.python / CONNECTIONS
    assert within(profiler.system / CONNECTIONS, system), (
        profiler.system / CONNECTIONS,
        profiler.native,
    )


def measure_memory(settle: Callable[[], object], work: Callable[[], object]) -> tuple[int, int]:
    """(octets more after `work` than before, octets more at its highest point), Python's own.

    Args:
        settle: wakes every thread once, so that what each holds while it waits counts as before.
        work: what is measured.
    """
    tracemalloc.start()
    try:
        settle()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        work()
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before, peak - before


@pytest.mark.parametrize("transport", [MULTIPLEXED, RAW], ids=["multiplexed", "raw"])
async def test_moving_chunks_leaves_nothing_behind(transport: dict[str, object]) -> None:
    def work(way: Way) -> int:
        with way.open() as (client, service):
            settle = functools.partial(exchange, client, service, WARM)
            return measure_memory(settle, functools.partial(exchange, client, service, ROUNDS))[0]

    async with standing(transport) as way:
        left = await trio.to_thread.run_sync(work, way)
    assert left < ROUNDS * CHUNKS * 8, "a chunk may not leave even one pointer"


@pytest.mark.parametrize(
    ("transport", "budget"),
    [pytest.param(MULTIPLEXED, 1 << 20, id="multiplexed"), pytest.param(RAW, 512 << 10, id="raw")],
)
async def test_bulk_needs_no_more_memory_than_its_windows(
    transport: dict[str, object], budget: int
) -> None:
    """8 MiB go through; what is allocated meanwhile stays far below, and is given back."""

    def send(service: socket.socket) -> None:
        service.sendall(bytes(BULK))

    def move(client: socket.socket, service: socket.socket, buffer: bytearray) -> None:
        sender = threading.Thread(target=send, args=(service,))
        sender.start()
        left = BULK
        while left:
            left -= client.recv_into(buffer)
        sender.join()

    def work(way: Way) -> tuple[int, int]:
        with way.open() as (client, service):
            settle = functools.partial(exchange, client, service, WARM)
            buffer = bytearray(1 << 16)
            return measure_memory(settle, functools.partial(move, client, service, buffer))

    async with standing(transport) as way:
        left, peak = await trio.to_thread.run_sync(work, way)
    assert peak - BULK < budget  # the sender holds BULK itself
    assert left < 64 * 1024


@pytest.mark.parametrize(
    ("transport", "budget"),
    [pytest.param(MULTIPLEXED, 6_400, id="multiplexed"), pytest.param(RAW, 8_000, id="raw")],
)
async def test_an_idle_connection_keeps_within_its_budget_of_memory(
    transport: dict[str, object], budget: int
) -> None:
    """Of Python's memory, both sides together; OpenSSL's own comes on top for raw tunnels."""

    def work(way: Way) -> int:
        with contextlib.ExitStack() as held:

            def hold() -> None:
                for _ in range(CONNECTIONS):
                    exchange(*held.enter_context(way.open()), 1)

            settle = functools.partial(connect_often, way, WARM)
            return measure_memory(settle, hold)[0] // CONNECTIONS

    async with standing(transport) as way:
        each = await trio.to_thread.run_sync(work, way)
    assert each < budget
