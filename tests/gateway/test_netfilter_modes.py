"""What the netfilter ways in and out do with a connection; the kernel's part is a stand-in here."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import trio

from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.endpoint import Endpoint
from tng.errors import NetError, RemoteProtocolError, StartError, TngError
from tng.gateway.egress import delivery
from tng.gateway.egress.delivery import Delivery, TunnelEgress
from tng.gateway.egress.routes import captured_route
from tng.gateway.flow import Accepted
from tng.gateway.ingress.netfilter import NetfilterIngress
from tng.gateway.netfilter import slot
from tng.gateway.netfilter.sockets import original_destination
from tng.observe.metrics import EntryMeter
from tng.tunnel.bridge import Bridge
from tng.tunnel.dialer import Dialer

CLIENT = Endpoint("10.77.0.1", 50000)
SERVICE = Endpoint("10.77.0.2", 80)


class Carrier:
    """Writes down what a way in hands over."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.meter = EntryMeter()
        self.carried: list[Accepted] = []
        self.refused: list[TngError] = []

    async def carry(self, accepted: Accepted) -> None:
        self.carried.append(accepted)

    def unrouted(self, client: PlainEnd, error: TngError) -> None:
        self.refused.append(error)


class Client:
    """A captured connection."""

    def __init__(self, local: Endpoint) -> None:
        self.local = local
        self.is_closed = False

    def abort(self) -> None:
        self.is_closed = True


async def test_a_captured_connection_goes_where_it_was_going() -> None:
    carrier, client = Carrier(), Client(SERVICE)
    await NetfilterIngress(carrier).serve(client)  # type: ignore[arg-type]
    ((_, destination, answer, refusal),) = carrier.carried
    assert (destination, answer) == (SERVICE, b"")
    assert refusal(NetError("no")) == b"", "there is no protocol to say no in"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9"])
async def test_a_connection_to_the_listener_itself_is_refused(host: str) -> None:
    carrier, client = Carrier(), Client(Endpoint(host, 5000))
    await NetfilterIngress(carrier).serve(client)  # type: ignore[arg-type]
    assert carrier.carried == []
    assert client.is_closed
    assert len(carrier.refused) == 1


class Redirected:
    """A socket whose connection was redirected by the kernel, or was not."""

    def __init__(self, original: Endpoint | None) -> None:
        self.original = original
        self.is_closed = False

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (socket.IPPROTO_IP, 80, 16)
        if self.original is None:
            raise OSError(errno.ENOENT, "No such file or directory")
        address = socket.inet_aton(self.original.host)
        return struct.pack("=H", socket.AF_INET) + struct.pack(
            "!H4s8x", self.original.port, address
        )

    def getsockname(self) -> tuple[str, int]:
        return "10.77.0.2", 4000

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("original", "found"),
    [(SERVICE, SERVICE), (Endpoint("10.77.0.2", 4000), None), (None, None)],
)
def test_the_kernel_knows_where_a_redirected_connection_was_going(
    original: Endpoint | None, found: Endpoint | None
) -> None:
    assert original_destination(Redirected(original)) == found  # type: ignore[arg-type]


class Server:
    """Takes no tunnel, and writes down whose it was."""

    def __init__(self) -> None:
        self.accepted: list[str] = []

    async def accept(self, _plain: object, label: str, *_more: object) -> None:
        self.accepted.append(label)
        raise RemoteProtocolError("not a tunnel")


def way_out(server: Server, meter: EntryMeter) -> TunnelEgress:
    listen = Endpoint("0.0.0.0", 4000)
    delivered = Delivery(Reactor(), None, "netfilter", meter)  # type: ignore[arg-type]
    return TunnelEgress(server, delivered, listen, captured_route)  # type: ignore[arg-type]


async def test_a_redirected_connection_is_taken_as_a_tunnel_to_its_service(caplog) -> None:
    server, meter = Server(), EntryMeter()
    with caplog.at_level(logging.INFO):
        await way_out(server, meter).serve(Redirected(SERVICE), CLIENT)  # type: ignore[arg-type]
    assert server.accepted == [str(CLIENT)]
    assert f"downstream_local={SERVICE}(netfilter)" in caplog.text
    assert meter.cx_failed == 1


async def test_a_connection_that_was_not_redirected_is_closed_unheard(caplog) -> None:
    server, meter, accepted = Server(), EntryMeter(), Redirected(None)
    with caplog.at_level(logging.INFO, logger=delivery.__name__):
        await way_out(server, meter).serve(accepted, CLIENT)  # type: ignore[arg-type]
    assert server.accepted == []
    assert accepted.is_closed
    assert meter.cx_failed == 1
    assert "not captured" in caplog.text


@pytest.fixture
async def dialer() -> AsyncIterator[tuple[Reactor, Dialer]]:
    reactor = Reactor()
    bridge = Bridge(reactor)
    reactor.start()
    async with trio.open_nursery() as nursery:
        await nursery.start(bridge.run)
        try:
            yield reactor, Dialer(reactor, bridge, 77)
        finally:
            nursery.cancel_scope.cancel()
            reactor.stop(2)


@pytest.mark.skipif(os.geteuid() != 0, reason="SO_MARK needs CAP_NET_ADMIN")
async def test_connections_of_our_own_are_marked(dialer: tuple[Reactor, Dialer]) -> None:
    reactor, marked = dialer

    async def connect(port: int) -> int:
        end = await marked.connect(Endpoint("localhost", port))
        mark = end._sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)
        end.abort()
        return mark

    with socket.create_server(("127.0.0.1", 0)) as listener:
        future = reactor.spawn_threadsafe(connect(listener.getsockname()[1]), "test")
        with trio.fail_after(5):
            while not future.done():
                await trio.sleep(0.002)
    assert future.result() == 77


class NoSocket:
    """A socket module that has run out of something."""

    AF_UNIX = SOCK_STREAM = 1

    def __init__(self, *, makes: bool) -> None:
        self.makes = makes
        self.is_closed = False

    def socket(self, *_: int) -> NoSocket:
        if not self.makes:
            raise OSError(errno.EMFILE, "Too many open files")
        return self

    def bind(self, _name: str) -> None:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(("makes", "words"), [(False, "Too many open files"), (True, "No buffer")])
def test_a_slot_that_cannot_be_held_is_an_error(monkeypatch, makes: bool, words: str) -> None:
    system = NoSocket(makes=makes)
    monkeypatch.setattr(slot, "socket", system)
    with pytest.raises(StartError, match=words):
        slot.take_slot(0)
    assert system.is_closed is makes
