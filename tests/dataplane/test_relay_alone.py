"""Relays that no task waits for: how they are told of, counted, and ended."""

from __future__ import annotations

import contextlib
import gc
import select
import socket

import pytest

from tng.dataplane.ends import BLOCKED, End
from tng.dataplane.mux import MuxConnection
from tng.dataplane.plain import PlainEnd
from tng.dataplane.poller import EpollPoller
from tng.dataplane.reactor import Reactor
from tng.dataplane.relay import CANCELLED, DONE, Relay, RelayResult
from tng.dataplane.task import Wait


class Silent(End):
    """An end with octets that come when they are handed over, and a failure to order."""

    def __init__(self, reactor, failure=None):
        super().__init__(reactor, "silent")
        self.failure = failure
        self.taken = bytearray()
        self.room = 10**6
        self.log = []

    @property
    def has_octets(self):
        return self.failure is not None

    def read_into(self, buffer):
        if self.failure is not None:
            raise self.failure
        return BLOCKED

    def write(self, data):
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
        pass


async def pause(reactor):
    wait = Wait()
    reactor.call_later(0.02, wait.set, None)
    await wait


@pytest.fixture
def line(sockets):
    """Client socket, left end's socket, right end's socket, server socket."""
    client, left = sockets()
    right, server = sockets()
    return client, left, right, server


def start(reactor, run, left, right, **limits):
    """Begin a relay of two sockets; what it tells arrives in the list."""
    told = []

    async def begin():
        ends = PlainEnd(reactor, left), PlainEnd(reactor, right)
        relay = Relay(reactor, *ends, told.append)
        relay.start(**limits)

    run(reactor, begin)
    return told


def until_idle(reactor, run):
    async def wait():
        for _ in range(200):
            if len(reactor.tasks) == 1:
                return
            await pause(reactor)
        raise AssertionError(f"still there: {reactor.tasks}")

    run(reactor, wait)


def test_its_end_is_told_once_with_both_counts(reactor, run, line):
    client, left, right, server = line
    told = start(reactor, run, left, right)
    client.sendall(b"question")
    assert server.recv(100) == b"question"
    server.sendall(b"answer")
    server.close()
    assert client.recv(100) == b"answer"
    assert client.recv(100) == b""
    assert not told
    client.close()
    until_idle(reactor, run)
    assert told == [RelayResult(8, 6, DONE)]


def test_what_was_not_taken_yet_goes_before_anything_else(reactor, run):
    async def go():
        left, right = Silent(reactor), Silent(reactor)
        left.room = 0
        relay = Relay(reactor, left, right, lambda result: None)
        relay.start(unsent=memoryview(b"your answer, "))
        assert relay.backward.pour(memoryview(b"and more")) == 0
        left.room = 100
        left.on_writable()
        assert relay.backward.pour(memoryview(b"and more")) == 8
        relay.cancel()
        return bytes(left.taken)

    assert run(reactor, go) == b"your answer, and more"


def test_what_is_poured_beyond_the_room_is_kept_and_holds_up_the_source(reactor, run):
    async def go():
        left, right = Silent(reactor), Silent(reactor)
        right.room = 3
        relay = Relay(reactor, left, right, lambda result: None)
        relay.start()
        assert relay.forward.pour(memoryview(b"12345")) == 5
        assert relay.forward.pour(memoryview(b"6")) == 0
        right.room = 100
        right.on_writable()
        relay.cancel()
        return bytes(right.taken)

    assert run(reactor, go) == b"12345"


def test_a_reactor_that_ends_ends_it_and_tells(run, line):
    client, left, right, _ = line
    reactor = Reactor()
    reactor.start()
    told = start(reactor, run, left, right)
    assert [work.name.startswith("relay between") for work in reactor.tasks] == [True]
    reactor.stop(timeout_s=5)
    assert [result.reason for result in told] == [CANCELLED]
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_one_that_is_abandoned_tells_nobody(reactor, run):
    async def go():
        told = []
        left, right = Silent(reactor), Silent(reactor)
        relay = Relay(reactor, left, right, told.append)
        relay.start()
        pump = left.on_readable
        relay.finish("first")
        relay.abandon()
        relay.abandon()
        pump()  # an event was under way
        await pause(reactor)
        return told, left.log, right.log

    assert run(reactor, go) == ([], ["abort"], ["abort"])


def test_an_error_of_ours_is_logged_and_told_where_nobody_else_hears_of_it(reactor, run, caplog):
    async def go():
        told = []
        ends = Silent(reactor, ZeroDivisionError("by nought")), Silent(reactor)
        Relay(reactor, *ends, told.append).start()
        await pause(reactor)
        return told, [end.log for end in ends]

    told, logs = run(reactor, go)
    assert told == [RelayResult(0, 0, "by nought")]
    assert logs == [["abort"], ["abort"]]
    assert "relay failed" in caplog.text


def test_an_end_that_is_closed_already_ends_it(reactor, run, line):
    _, left, right, server = line
    told = []

    async def go():
        ends = PlainEnd(reactor, left, "the left one"), PlainEnd(reactor, right)
        ends[0].abort()
        Relay(reactor, *ends, told.append).start()
        await pause(reactor)

    run(reactor, go)
    assert [result.reason for result in told] == ["the left one was closed on our side"]
    with pytest.raises(ConnectionResetError):
        server.recv(1)


def test_the_first_reason_counts_and_limits_hold(reactor, run, line):
    _, left, right, _ = line
    told = start(reactor, run, left, right, total_timeout_s=0.02, idle_timeout_s=60)
    until_idle(reactor, run)
    assert [result.reason for result in told] == ["over the time limit of 0.02 s"]


def test_nothing_that_has_ended_waits_for_the_collector(reactor, run, line):
    client, left, right, server = line

    def kept():
        return sum(isinstance(one, (Relay, PlainEnd)) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    before = kept()
    try:
        told = start(reactor, run, left, right)
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        server.close()
        client.close()
        until_idle(reactor, run)
        assert [result.reason for result in told] == [DONE]
        assert kept() == before
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="other pollers do not tell")
def test_the_last_octets_of_a_service_and_its_end_share_a_frame(run, sockets):
    """What the peer of a stream reads off the wire ends with DATA that has END_STREAM."""
    reactor = Reactor(EpollPoller())
    reactor.start()
    (near, far), (backend, service) = sockets(), sockets()
    served = []

    async def on_stream(stream):
        stream.accept()
        Relay(reactor, stream, PlainEnd(reactor, backend), served.append).start()

    async def begin():
        ends = PlainEnd(reactor, near), PlainEnd(reactor, far)
        server = MuxConnection(reactor, ends[1], role="server", on_stream=on_stream)
        client = MuxConnection(reactor, ends[0], role="client")
        server.start()
        client.start()
        return client, await client.open(5)

    try:
        client, stream = run(reactor, begin)
        frames = []
        pass_on = client.machine.data_frame

        def data_frame(stream_id, data, *, ends):
            frames.append((len(data), ends))
            pass_on(stream_id, data, ends=ends)

        client.machine.data_frame = data_frame
        service.sendall(b"answer")
        service.shutdown(socket.SHUT_WR)

        async def read():
            return [await stream.receive(), await stream.receive()]

        assert run(reactor, read) == [b"answer", b""]
        assert frames in ([(6, True)], [(6, False), (0, True)])  # the end may come a moment later
    finally:
        reactor.stop(timeout_s=5)
    with contextlib.suppress(OSError):
        service.close()
