"""Relays: every octet once, every end passed on, every failure a reset."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import pathlib
import socket
import struct
import threading
import time

import pytest

from tng.dataplane.ends import BLOCKED, End
from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import SCRATCH_SIZE
from tng.dataplane.relay import BUDGET, DONE, RelayResult, relay
from tng.dataplane.task import Wait
from tng.dataplane.tls import TlsEnd
from tng.dataplane.tls_context import client_context, server_context
from tng.errors import NetError

BULK = bytes(range(256)) * 40_000


async def pause(reactor, seconds=0.0):
    wait = Wait()
    reactor.call_later(seconds, wait.set, None)
    await wait


def start(reactor, left, right, **limits):
    async def talk():
        return await relay(reactor, PlainEnd(reactor, left), PlainEnd(reactor, right), **limits)

    return reactor.spawn_threadsafe(talk(), "relay")


def receive_all(sock):
    got = bytearray()
    while chunk := sock.recv(1 << 20):
        got += chunk
    return bytes(got)


@pytest.fixture
def line(sockets):
    """Client socket, the relay's two sockets, server socket."""
    client, left = sockets()
    right, server = sockets()
    return client, left, right, server


def test_bulk_both_ways_with_half_close_both_ways(reactor, line):
    client, left, right, server = line
    future = start(reactor, left, right)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        sends = [pool.submit(sock.sendall, BULK) for sock in (client, server)]
        shut = pool.submit(lambda: (sends[0].result(), client.shutdown(socket.SHUT_WR)))
        at_server = pool.submit(receive_all, server)
        shut.result(10)
        assert at_server.result(10) == BULK  # the end has arrived, the way back is open
        at_client = pool.submit(receive_all, client)
        sends[1].result(10)
        server.sendall(b"late")
        server.shutdown(socket.SHUT_WR)
        assert at_client.result(10) == BULK + b"late"
    assert future.result(5) == RelayResult(len(BULK), len(BULK) + 4, DONE)


@pytest.mark.parametrize("small", [1, 7])
def test_octets_handed_back_go_first(reactor, line, small):
    client, left, right, server = line

    async def talk():
        end = PlainEnd(reactor, left)
        end.unread(b"request line")
        return await relay(reactor, end, PlainEnd(reactor, right))

    future = reactor.spawn_threadsafe(talk(), "relay")
    client.sendall(b" and body"[:small])
    client.close()
    assert receive_all(server) == b"request line" + b" and body"[:small]
    server.close()
    assert future.result(5).reason == DONE


def tunnel(reactor, sockets, credential):
    """Client socket, server socket, futures of two relays with TLS between them."""
    client, left = sockets()
    near, far = sockets()
    right, server = sockets()
    connect, accept = client_context([], None), server_context([], credential, False)

    async def ingress():
        end = TlsEnd(reactor, near, connect, server_side=False)
        await end.handshake(5)
        return await relay(reactor, PlainEnd(reactor, left), end)

    async def egress():
        end = TlsEnd(reactor, far, accept, server_side=True)
        await end.handshake(5)
        return await relay(reactor, end, PlainEnd(reactor, right))

    return (
        client,
        server,
        reactor.spawn_threadsafe(ingress(), "ingress"),
        reactor.spawn_threadsafe(egress(), "egress"),
    )


def test_a_tls_tunnel_carries_bulk_both_ways_and_both_half_closes(reactor, sockets, credential):
    client, server, ingress, egress = tunnel(reactor, sockets, credential)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        down = pool.submit(lambda: (server.sendall(BULK), server.shutdown(socket.SHUT_WR)))
        at_client = pool.submit(receive_all, client)
        down.result(10)
        assert at_client.result(10) == BULK
        up = pool.submit(lambda: (client.sendall(BULK), client.shutdown(socket.SHUT_WR)))
        assert receive_all(server) == BULK
        up.result(10)
    assert ingress.result(5) == RelayResult(len(BULK), len(BULK), DONE)
    assert egress.result(5) == RelayResult(len(BULK), len(BULK), DONE)


def test_a_reset_goes_through_the_tunnel_as_a_reset(reactor, sockets, credential):
    client, server, ingress, egress = tunnel(reactor, sockets, credential)
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert "Connection reset" in egress.result(5).reason
    assert "Connection reset" in ingress.result(5).reason


def test_a_stalled_reader_stops_the_writer_and_bounds_memory(reactor, sockets, credential):
    """64 MiB are offered; what the gateway holds stays under a megabyte per direction."""
    client, server, ingress, egress = tunnel(reactor, sockets, credential)
    client.settimeout(0.2)
    chunk = bytes(1 << 20)
    offered = 0
    with contextlib.suppress(TimeoutError):
        while offered < 64 << 20:
            offered += client.send(chunk)
    assert offered < 40 << 20  # kernel buffers of three connections
    held = Wait()

    def measure():
        gc.collect()
        objects = gc.get_objects()
        directions = [item for item in objects if type(item).__name__ == "_Direction"]
        rests = [len(item.rest) for item in directions if item.rest is not None]
        ends = [item for item in objects if type(item) is TlsEnd]
        held.set((sum(rests), max(len(end._held) for end in ends), len(rests)))

    async def ask():
        reactor.soon(measure)
        return await held

    # Looking at every object there is takes seconds in a process that has run many tests.
    rest, record, count = reactor.spawn_threadsafe(ask(), "ask").result(60)
    assert count == 2
    assert rest <= 2 * SCRATCH_SIZE
    assert record <= 16384
    client.settimeout(10)
    client.shutdown(socket.SHUT_WR)
    got = 0
    while data := server.recv(1 << 20):
        got += len(data)
    assert got == offered
    server.close()
    assert ingress.result(5).left_to_right == egress.result(5).left_to_right == offered


def test_cancelling_resets_both_sides(reactor, line):
    client, left, right, server = line

    async def talk():
        inner = Wait()

        async def child():
            try:
                await relay(reactor, PlainEnd(reactor, left), PlainEnd(reactor, right))
            finally:
                inner.set(None)

        task = reactor.spawn(child(), "child")
        await pause(reactor, 0.02)
        task.cancel()
        await inner

    reactor.spawn_threadsafe(talk(), "talk").result(5)
    for sock in (client, server):
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_silence_ends_a_relay_with_an_idle_limit_but_traffic_does_not(reactor, line):
    client, left, right, server = line
    began = time.monotonic()
    future = start(reactor, left, right, idle_timeout_s=0.5)
    for _ in range(3):  # together longer than the limit, each far below it
        threading.Event().wait(0.2)
        client.sendall(b"x")
        assert server.recv(1) == b"x"
    result = future.result(5)
    assert time.monotonic() - began >= 1.0
    assert result == RelayResult(3, 0, "no octet for 0.5 s")
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_the_total_limit_ends_a_busy_relay(reactor, line):
    _, left, right, server = line
    future = start(reactor, left, right, total_timeout_s=0.05, idle_timeout_s=30)
    assert future.result(5).reason == "over the time limit of 0.05 s"
    with pytest.raises(ConnectionResetError):
        server.recv(1)


@pytest.mark.parametrize("blocked", [False, True])
def test_an_end_closed_by_somebody_else_ends_the_relay(reactor, line, blocked):
    client, left, right, _ = line

    async def talk():
        ends = PlainEnd(reactor, left), PlainEnd(reactor, right)
        reactor.call_later(0.05, ends[0].abort)
        return await relay(reactor, *ends)

    future = reactor.spawn_threadsafe(talk(), "talk")
    if blocked:
        client.settimeout(0.02)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                client.sendall(bytes(1 << 20))
    assert "closed on our side" in future.result(5).reason


class FakeEnd(End):
    """An end that reads from a list and takes as much as it is told to."""

    def __init__(self, reactor, reads=(), room=10**9):
        super().__init__(reactor, "fake")
        self.reads = list(reads)
        self.room = room
        self.taken = bytearray()
        self.log = []
        self.interest = (False, False)

    def read_into(self, buffer):
        if not self.reads:
            return BLOCKED
        item = self.reads.pop(0)
        if isinstance(item, Exception):
            raise item
        buffer[: len(item)] = item
        return len(item)

    def write(self, data):
        if self.room < 0:
            raise NetError("no longer there")
        count = min(self.room, len(data))
        self.room -= count
        self.taken += data[:count]
        return count

    def shut(self):
        self.log.append("shut")

    def close(self):
        self.log.append("close")

    def abort(self):
        self.log.append("abort")

    def watch(self, readable, writable):
        self.interest = (readable, writable)


def test_a_blocked_sink_stops_reading_until_the_rest_is_gone(reactor, run):
    async def talk():
        left = FakeEnd(reactor, [b"0123456789", b"more", b""])
        right = FakeEnd(reactor, [b""], room=4)
        result = Wait()

        async def child():
            result.set(await relay(reactor, left, right))

        reactor.spawn(child(), "child")
        await pause(reactor, 0.01)
        assert (left.interest, right.interest) == ((False, False), (False, True))
        assert left.reads == [b"more", b""]
        left.on_readable()  # an event fetched before the interest was dropped
        right.room = 3
        flush = right.on_writable
        flush()
        assert (bytes(right.taken), left.log) == (b"0123456", ["shut"])
        right.room = 100
        flush()
        assert right.on_writable is None
        flush()  # nothing left: harmless
        assert left.interest == (True, False)
        while left.reads:
            left.on_readable()
        left.on_readable()  # the end was read already: harmless
        return await result, bytes(right.taken), left.log, right.log

    assert run(reactor, talk) == (
        RelayResult(14, 0, DONE),
        b"0123456789more",
        ["shut", "close"],
        ["close"],  # both have ended: closing says it
    )


@pytest.mark.parametrize(
    ("left_reads", "room"),
    [([NetError("no longer there")], 10), ([b"x"], -1), ([b"xyz"], 2)],
    ids=["read", "write", "late write"],
)
def test_a_failure_in_either_place_aborts_both_ends(reactor, run, left_reads, room):
    async def talk():
        left, right = FakeEnd(reactor, left_reads), FakeEnd(reactor, room=room)

        def break_later():
            right.room = -1
            if right.on_writable is not None:
                right.on_writable()

        reactor.call_later(0.01, break_later)
        result = await relay(reactor, left, right)
        return result.reason, left.log, right.log

    assert run(reactor, talk) == ("no longer there", ["abort"], ["abort"])


def test_a_bug_in_an_end_aborts_both_and_reaches_the_task(reactor, run):
    ends = []

    async def talk():
        ends.extend((FakeEnd(reactor, [ZeroDivisionError()]), FakeEnd(reactor)))
        await relay(reactor, *ends)

    with pytest.raises(ZeroDivisionError):
        run(reactor, talk)
    assert [end.log for end in ends] == [["abort"], ["abort"]]


def test_one_event_moves_a_limited_number_of_buffers(reactor, run):
    async def talk():
        full = bytes(SCRATCH_SIZE)
        left, right = FakeEnd(reactor, [full] * (BUDGET + 1)), FakeEnd(reactor, [b""])
        task = reactor.spawn(relay(reactor, left, right), "relay")
        await pause(reactor, 0.02)
        remaining = len(left.reads)
        task.cancel()
        return remaining

    assert run(reactor, talk) == 1


@pytest.mark.slow
def test_opening_closing_and_cancelling_at_random_moments_leaks_nothing(reactor, run, credential):
    """A hammer: half the tunnels end in order, half are torn down somewhere on the way."""
    contexts = client_context([], None), server_context([], credential, False)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    before = descriptors()

    async def side(sock, context, *, server_side):
        end = TlsEnd(reactor, sock, context, server_side=server_side)
        try:
            await end.handshake(5)
            if server_side:
                while data := await end.receive():
                    await end.send(data)
            else:
                await end.send(bytes(50_000))
                end.shut()
                while await end.receive():
                    pass
        finally:
            end.close()

    async def hammer():
        ends_at = time.monotonic() + 1.0
        number = 0
        while time.monotonic() < ends_at:
            number += 1
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
            tasks = [
                reactor.spawn(side(near, contexts[0], server_side=False), "near"),
                reactor.spawn(side(far, contexts[1], server_side=True), "far"),
            ]
            if number % 2:
                reactor.call_later(number % 17 / 4000, tasks[number // 2 % 2].cancel)
            await pause(reactor, 0.001)
        return number

    with listener:
        assert run(reactor, hammer) > 10
        idle = threading.Event()
        reactor.call(reactor.wait_idle, idle.set)
        assert idle.wait(10)
        reactor.call(lambda: None)
        run(reactor, pause, reactor, 0.05)
        assert descriptors() <= before
        assert not reactor.at_stop


def descriptors():
    return len(list(pathlib.Path("/proc/self/fd").iterdir()))
