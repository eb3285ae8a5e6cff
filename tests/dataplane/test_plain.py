"""Plain ends, and what every end has from its base class."""

from __future__ import annotations

import socket
import time

import pytest

from tng.dataplane.ends import BLOCKED
from tng.dataplane.plain import PlainEnd
from tng.dataplane.poller import READ
from tng.dataplane.task import Wait
from tng.endpoint import Endpoint
from tng.errors import LocalProtocolError, NetError


async def pause(reactor, seconds=0.0):
    wait = Wait()
    reactor.call_later(seconds, wait.set, None)
    await wait


def test_receive_gives_what_comes_and_then_the_end(reactor, run, sockets):
    near, far = sockets()

    async def talk():
        end = PlainEnd(reactor, near)
        reactor.call_later(0.01, far.sendall, b"hello")
        got = [await end.receive(2), await end.receive()]
        reactor.call_later(0.01, far.shutdown, socket.SHUT_WR)
        got += [await end.receive(), await end.receive()]
        counted = end.bytes_in
        end.close()
        return got, counted

    assert run(reactor, talk) == ([b"he", b"llo", b"", b""], 5)


def test_octets_handed_back_are_read_first_and_counted_once(reactor, run, sockets):
    near, far = sockets()
    far.sendall(b"abcdef")

    async def talk():
        end = PlainEnd(reactor, near)
        await end.wait_readable()
        head = await end.receive(4)
        end.unread(head[2:])
        end.unread(b"X")
        await end.wait_readable()  # handed-back octets count as readable
        got = [await end.receive(2), await end.receive(), await end.receive()]
        counted = end.bytes_in
        end.close()
        return got, counted

    assert run(reactor, talk) == ([b"Xc", b"d", b"ef"], 6)


def test_send_waits_for_room_and_loses_nothing(reactor, run, sockets):
    near, far = sockets()
    data = bytes(range(256)) * 40_000

    async def talk():
        end = PlainEnd(reactor, near)
        await end.send(data)
        await end.send(memoryview(b"tail"))
        end.shut()
        end.shut()
        assert await end.receive() == b"answer"
        assert await end.receive() == b""
        counted = end.bytes_out
        end.close()
        return counted

    future = reactor.spawn_threadsafe(talk(), "talk")
    got = bytearray()
    while chunk := far.recv(1 << 20):
        got += chunk
    far.sendall(b"answer")  # half-close: the other direction is still open
    far.shutdown(socket.SHUT_WR)
    assert future.result(5) == len(data) + 4
    assert bytes(got) == data + b"tail"


def test_a_reset_by_the_peer_is_an_error_not_an_end(reactor, run, sockets):
    near, far = sockets()

    async def talk():
        end = PlainEnd(reactor, near)
        other = PlainEnd(reactor, far)
        other.abort()
        other.abort()
        try:
            await end.receive()
        finally:
            with pytest.raises(NetError, match="writing to"):
                end.write(memoryview(b"x"))
            end.shut()
            end.abort()

    with pytest.raises(NetError, match=r"reading from .* failed: Connection reset"):
        run(reactor, talk)


def test_closing_in_order_is_an_end_for_the_peer(reactor, run, sockets):
    near, far = sockets()

    async def talk():
        end = PlainEnd(reactor, near)
        await end.send(b"bye")
        end.close()
        end.close()
        end.abort()
        end.shut()
        end.watch(True, True)
        for call in (lambda: end.read_into(reactor.scratch), lambda: end.write(memoryview(b"x"))):
            with pytest.raises(NetError, match="closed on our side"):
                call()
        return end

    end = run(reactor, talk)
    assert far.recv(10) == b"bye"
    assert far.recv(10) == b""
    far.close()
    run(reactor, pause, reactor, 0.02)
    with pytest.raises(NetError):
        _ = end.remote
    with pytest.raises(NetError):
        _ = end.local
    assert not reactor.at_stop


def test_closing_with_unread_octets_does_not_lose_what_was_sent_last(reactor, run, sockets):
    """The answer to a request that nobody reads to its end must arrive."""
    near, far = sockets()
    far.sendall(bytes(100_000))
    answer = bytes(3_000_000)

    async def talk():
        end = PlainEnd(reactor, near)
        await end.receive(10)
        await end.send(answer)
        end.close()

    future = reactor.spawn_threadsafe(talk(), "talk")
    got = bytearray()
    while chunk := far.recv(1 << 16):
        got += chunk
        far.sendall(b"still sending")
    assert bytes(got) == answer
    future.result(5)


@pytest.mark.parametrize("how", ["flood", "time", "reset", "stop"])
def test_a_closed_end_is_not_kept_open_by_its_peer(reactor, run, sockets, monkeypatch, how):
    monkeypatch.setattr("tng.dataplane.socket_end.LINGER_OCTETS", 100_000)
    monkeypatch.setattr("tng.dataplane.socket_end.LINGER_S", 0.02 if how == "time" else 60)
    near, far = sockets()

    async def talk():
        end = PlainEnd(reactor, near)
        end.close()
        if how == "reset":
            PlainEnd(reactor, far).abort()

    run(reactor, talk)
    if how == "flood":
        with pytest.raises(ConnectionError):
            far.sendall(bytes(50_000_000))
    if how != "stop":
        run(reactor, pause, reactor, 0.05)
        assert not reactor.at_stop
    reactor.stop(5)
    assert near.fileno() == -1


@pytest.mark.parametrize("how", ["close", "abort"])
def test_whoever_waits_on_an_end_that_we_close_is_told(reactor, run, sockets, how):
    near, _ = sockets()

    async def reader(end):
        await end.receive()

    async def talk():
        end = PlainEnd(reactor, near)
        failed = Wait()
        reactor.spawn(reader(end), "reader", lambda task, error: failed.set(error))
        await pause(reactor, 0.01)
        getattr(end, how)()
        raise await failed

    with pytest.raises(NetError, match="closed on our side"):
        run(reactor, talk)


def test_two_tasks_cannot_read_or_write_one_end(reactor, run, sockets):
    near, _ = sockets()

    async def talk():
        end = PlainEnd(reactor, near)
        reader = reactor.spawn(end.wait_readable(), "reader")

        async def fill():
            await end.send(bytes(1 << 24))

        writer = reactor.spawn(fill(), "writer")
        await pause(reactor, 0.02)
        with pytest.raises(LocalProtocolError, match="being read"):
            await end.wait_readable()
        with pytest.raises(LocalProtocolError, match="being written"):
            await end.wait_writable()
        reader.cancel()
        writer.cancel()
        await pause(reactor)
        end.abort()

    run(reactor, talk)


def test_a_deadline_while_receiving_leaves_the_end_usable(reactor, run, sockets):
    near, far = sockets()

    async def talk():
        end = PlainEnd(reactor, near)
        with (
            pytest.raises(NetError, match="late"),
            reactor.deadline(0.01, lambda: NetError("late")),
        ):
            await end.receive()
        far.sendall(b"x")
        got = await end.receive()
        end.close()
        return got

    assert run(reactor, talk) == b"x"


@pytest.mark.parametrize("ending", ["data", "fin", "reset"])
def test_nobody_reading_costs_nothing_whatever_the_peer_does(reactor, run, sockets, ending):
    """Data, an end or a reset that nobody waits for must not keep the loop busy."""
    near, far = sockets()

    async def talk():
        end = PlainEnd(reactor, near)
        far.sendall(b"first")
        assert await end.receive() == b"first"
        if ending == "data":
            far.sendall(b"more")
        elif ending == "fin":
            end.shut()
            far.close()
        else:
            PlainEnd(reactor, far).abort()
        before = time.thread_time()
        await pause(reactor, 0.1)
        spent = time.thread_time() - before
        if ending == "reset":
            with pytest.raises(NetError):
                await end.receive()
        else:
            assert await end.receive() == (b"more" if ending == "data" else b"")
        end.close()
        return spent

    assert run(reactor, talk) < 0.03


def test_interest_in_writing_is_dropped_when_nobody_takes_it(reactor, run, sockets):
    near, _ = sockets()

    async def talk():
        end = PlainEnd(reactor, near)
        end.watch(False, True)
        before = time.thread_time()
        await pause(reactor, 0.05)
        assert time.thread_time() - before < 0.03
        calls = []
        end.on_writable = lambda: (calls.append(1), end.watch(False, False))
        end.watch(False, True)
        await pause(reactor, 0.02)
        count = len(calls)
        end.close()
        return count

    assert run(reactor, talk) == 1


def test_reading_without_data_blocks_and_both_addresses_are_known(reactor, run, sockets):
    near, far = sockets()
    here, there = near.getsockname(), far.getsockname()

    async def talk():
        end = PlainEnd(reactor, near, label="the service")
        blocked = end.read_into(reactor.scratch)
        result = blocked, end.local, end.remote, repr(end)
        end.close()
        return result

    assert run(reactor, talk) == (
        BLOCKED,
        Endpoint(*here),
        Endpoint(*there),
        "<PlainEnd the service>",
    )


def test_small_writes_are_sent_at_once(reactor, run, sockets):
    near, _ = sockets()

    async def talk():
        end = PlainEnd(reactor, near)
        no_delay = near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        end.close()
        return no_delay

    assert run(reactor, talk)


def test_a_unix_socket_is_an_end_too(reactor, run):
    near, far = socket.socketpair()

    async def talk():
        end = PlainEnd(reactor, near)
        await end.send(b"x")
        remote = end.remote
        end.close()
        return remote

    with far:
        assert run(reactor, talk) == Endpoint("unix", 0)
        assert far.recv(2) == b"x"


def hand_out(end, count):
    """Have octets handed out, `count` of them taken each time; what arrives, and what is told."""
    taken, told = bytearray(), []

    def take(data):
        taken.extend(data[:count])
        return min(count, len(data))

    end.on_octets, end.on_broken = take, told.append
    end.on_readable = lambda: told.append(end.read_into(end.reactor.scratch))
    end.watch(True, False)
    return taken, told


def test_octets_are_handed_out_and_what_nobody_took_is_read_later(reactor, run, sockets):
    near, far = sockets()

    async def talk():
        end = PlainEnd(reactor, near)
        taken, told = hand_out(end, 4)
        far.sendall(b"abcdef")
        await pause(reactor, 0.01)
        end.on_octets = end.on_readable = None
        seen = bytes(taken), list(told), await end.receive(), end.bytes_in
        end.close()
        return seen

    assert run(reactor, talk) == (b"abcd", [], b"ef", 6)


def test_the_end_is_left_to_whoever_reads(reactor, run, sockets):
    near, far = sockets()

    async def talk():
        end = PlainEnd(reactor, near)
        taken, told = hand_out(end, 10)
        far.sendall(b"last")
        far.shutdown(socket.SHUT_WR)
        end._on_event(READ)  # an event fetched before the end had come
        end._on_event(READ)
        end.close()
        return bytes(taken), told

    assert run(reactor, talk) == (b"last", [0])


def test_a_failure_found_while_handing_out_is_told_and_never_an_end(reactor, run, sockets):
    near, far = sockets()

    async def talk():
        end = PlainEnd(reactor, near)
        taken, told = hand_out(end, 10)
        end._on_event(READ)  # an event in vain
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        end._on_event(READ)  # an event fetched before the reset had come
        end.abort()
        return bytes(taken), told

    taken, [reason] = run(reactor, talk)
    assert not taken
    assert "reset by peer" in reason
