"""Peers that have finished the handshake and then keep us busy: what each costs, and who waits."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable

import pytest

from stage.tls_records import APPLICATION_DATA, Sealer, shake_hands
from tng.dataplane.ends import BLOCKED
from tng.dataplane.mux import FRAMES_PER_READ, SMALLEST_READ, MuxConnection
from tng.dataplane.plain import PlainEnd
from tng.dataplane.poller import EpollPoller
from tng.dataplane.reactor import Reactor
from tng.dataplane.relay import DONE, relay
from tng.dataplane.task import Wait
from tng.dataplane.tls import TlsEnd
from tng.dataplane.tls_calls import FASTEST, PUBLIC
from tng.dataplane.tls_context import server_context
from tng.wire.h2_frames import PREFACE
from tng.wire.h2_stream import H2Limits


async def pause(reactor, seconds: float = 0.0) -> None:
    wait: Wait[None] = Wait()
    reactor.call_later(seconds, wait.set, None)
    await wait


@pytest.fixture
def hostile(reactor, sockets, credential, run, tmp_path) -> Callable[..., tuple]:
    """Makes a TLS end of ours, and the sealer and socket of its peer."""

    def make() -> tuple[TlsEnd, Sealer, socket.socket]:
        far, near = sockets()
        context = server_context([b"rats-tls"], credential, ask_client_certificate=False)

        async def begin() -> TlsEnd:
            end = TlsEnd(reactor, near, context, server_side=True)

            async def serve() -> None:
                await end.handshake(5)

            reactor.spawn(serve(), "serve")
            return end

        end = run(reactor, begin)
        return end, shake_hands(far, tmp_path / "keys"), far

    return make


@pytest.mark.skipif(FASTEST is PUBLIC, reason="pyOpenSSL's own methods read on")
def test_one_read_deals_with_one_key_update_however_many_wait(reactor, run, hostile) -> None:
    """A peer that sends nothing but key updates takes turns with everybody else."""
    end, sealer, far = hostile()
    far.sendall(b"".join(sealer.key_update() for _ in range(50)))
    far.sendall(sealer.data(b"after fifty keys"))

    async def go() -> tuple[int, bytes]:
        await pause(reactor, 0.05)
        reads = 0
        buffer = memoryview(bytearray(100))
        while (count := end.read_into(buffer)) == BLOCKED:
            reads += 1
            await end.wait_readable()
        end.abort()
        return reads, bytes(buffer[:count])

    reads, data = run(reactor, go)
    assert data == b"after fifty keys"
    assert reads >= 50


def test_empty_records_without_end_are_refused(reactor, run, hostile) -> None:
    end, sealer, far = hostile()
    far.sendall(b"".join(sealer.record(APPLICATION_DATA, b"") for _ in range(1000)))

    async def go() -> str:
        try:
            while await end.receive():
                pass
        except Exception as error:  # noqa: BLE001 - its class and text are what is asked for
            return f"{type(error).__name__}: {error}"
        finally:
            end.abort()
        return "no error"

    assert run(reactor, go).startswith("RemoteProtocolError: ")


class Counting(PlainEnd):
    """A plain end that writes down how much each read was allowed to give."""

    __slots__ = ("sizes",)

    def read_into(self, buffer: memoryview) -> int:
        self.sizes.append(len(buffer))
        return super().read_into(buffer)


class Stuck(PlainEnd):
    """A plain end that takes nothing."""

    __slots__ = ()

    def write(self, data: memoryview) -> int:
        return 0


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBL", kind, flags, stream_id) + payload


GREETING = PREFACE + frame(4, 0, 0)
CONNECT = frame(1, 4, 1, bytes((2, 7)) + b"CONNECT" + bytes((1, 4)) + b"t:80")
DATA = 0
RST_STREAM = 3
WINDOW_UPDATE = 8


@pytest.fixture
def served(reactor, sockets, run):
    """A server's connection, its peer's plain socket, and why it ended."""
    far, near = sockets()
    reasons: list[str] = []
    received = bytearray()

    async def swallow(stream) -> None:
        stream.accept()
        while data := await stream.receive():
            received.extend(data)

    async def begin() -> tuple[MuxConnection, Counting]:
        end = Counting(reactor, near)
        end.sizes = []
        connection = MuxConnection(
            reactor, end, role="server", on_stream=swallow, on_closed=reasons.append
        )
        connection.start()
        return connection, end

    connection, end = run(reactor, begin)
    yield connection, end, far, reasons, received

    async def finish() -> None:
        connection.close("the test is over")
        end.abort()

    run(reactor, finish)


def wait_until(condition: Callable[[], object], reactor, run) -> None:
    async def go() -> None:
        for _ in range(400):
            if condition():
                return
            await pause(reactor, 0.01)
        raise AssertionError("did not come true in 4 s")

    run(reactor, go)


def test_frames_of_one_octet_come_in_small_reads(reactor, run, served) -> None:
    """However small the frames, one read of a connection is a few milliseconds of work."""
    _, end, far, _, received = served
    count = 50_000
    far.sendall(GREETING + CONNECT)
    far.sendall(frame(DATA, 0, 1, b"x") * count)
    wait_until(lambda: len(received) == count, reactor, run)
    frame_size = 10
    assert max(end.sizes) <= 2 * FRAMES_PER_READ * frame_size + SMALLEST_READ


def test_large_frames_come_in_large_reads(reactor, run, served) -> None:
    _, end, far, _, received = served
    count, payload = 12, bytes(16_000)
    far.sendall(GREETING + CONNECT + frame(DATA, 0, 1, payload) * count)
    wait_until(lambda: len(received) == count * len(payload), reactor, run)
    assert max(end.sizes) >= 65_536


def test_window_updates_that_answer_nothing_end_the_connection(reactor, run, served) -> None:
    _, _, far, reasons, _ = served
    limits = H2Limits()
    update = frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4, "big"))
    far.sendall(GREETING + update * (limits.chatter_burst + 4000))
    wait_until(lambda: reasons, reactor, run)
    assert "move nothing" in reasons[0]


def test_window_updates_within_the_budget_are_fine(reactor, run, served) -> None:
    connection, _, far, reasons, received = served
    update = frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4, "big"))
    far.sendall(GREETING + update * (H2Limits().chatter_burst - 100) + CONNECT)
    far.sendall(frame(DATA, 0, 1, b"still here"))
    wait_until(lambda: received == b"still here", reactor, run)
    assert not reasons
    assert connection.is_open


# -- a peer that goes while the other side stalls ----------------------------------------------


RESET = struct.pack("ii", 1, 0)


def stalled_relay(reactor, run, left, right) -> list:
    """Start a relay in its own task; the result arrives in the list."""
    results: list = []

    async def begin() -> None:
        async def go() -> None:
            results.append(await relay(reactor, await left(), await right()))

        reactor.spawn(go(), "relay")

    run(reactor, begin)
    return results


def fill(sock: socket.socket) -> None:
    """Send until nothing is taken any more."""
    sock.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while True:
            sock.sendall(bytes(1 << 20))


def ends_in_order(sock: socket.socket) -> bool:
    """Read to the end; False when that is a reset."""
    try:
        while sock.recv(1 << 20):
            pass
    except ConnectionResetError:
        return False
    return True


def break_off(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="other pollers do not tell")
def test_a_reset_is_noticed_while_the_other_side_takes_nothing(run, sockets) -> None:
    """The client is gone, the service reads nothing: the relay does not wait for the service."""
    reactor = Reactor(EpollPoller())
    reactor.start()
    (client, near), (far, service) = sockets(), sockets()

    async def left() -> PlainEnd:
        return PlainEnd(reactor, near, "the client")

    async def right() -> PlainEnd:
        return PlainEnd(reactor, far, "the service")

    try:
        results = stalled_relay(reactor, run, left, right)
        fill(client)
        assert not results
        break_off(client)
        wait_until(lambda: results, reactor, run)
        assert "the client broke: Connection reset" in results[0].reason
        assert not ends_in_order(service)
    finally:
        reactor.stop(timeout_s=5)


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="other pollers do not tell")
def test_an_orderly_end_while_the_other_side_takes_nothing_is_no_failure(run, sockets) -> None:
    reactor = Reactor(EpollPoller())
    reactor.start()
    (client, near), (far, service) = sockets(), sockets()

    async def left() -> PlainEnd:
        return PlainEnd(reactor, near, "the client")

    async def right() -> PlainEnd:
        return PlainEnd(reactor, far, "the service")

    try:
        results = stalled_relay(reactor, run, left, right)
        service.shutdown(socket.SHUT_WR)
        fill(client)
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: client.recv(1) == b"", reactor, run)
        time.sleep(0.05)
        assert not results, "both ended in order, and octets are still under way"
        assert ends_in_order(service)
        wait_until(lambda: results, reactor, run)
        assert results[0].reason == DONE
    finally:
        reactor.stop(timeout_s=5)


def test_a_stream_that_is_reset_while_the_service_takes_nothing_ends(reactor, run, sockets) -> None:
    (peer, near), (far, _) = sockets(), sockets()
    results: list = []

    async def on_stream(stream) -> None:
        stream.accept()
        results.append(await relay(reactor, stream, Stuck(reactor, far)))

    async def begin() -> MuxConnection:
        end = PlainEnd(reactor, near)
        connection = MuxConnection(reactor, end, role="server", on_stream=on_stream)
        connection.start()
        return connection

    connection = run(reactor, begin)
    peer.sendall(GREETING + CONNECT + frame(DATA, 0, 1, bytes(16_000)) * 12)
    wait_until(lambda: connection.machine.streams[1].held, reactor, run)
    assert not results
    peer.sendall(frame(RST_STREAM, 0, 1, bytes(4)))
    wait_until(lambda: results, reactor, run)
    assert "reset by the peer" in results[0].reason

    async def finish() -> None:
        connection.close("the test is over")

    run(reactor, finish)
