"""The express lane: when it is taken, what it never does, and how it ends."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.endpoint import Endpoint
from tng.errors import NetError, UntrustedPeerError
from tng.gateway.flow import Accepted, Flow
from tng.gateway.router import Router
from tng.observe.metrics import EntryMeter
from tng.tunnel.base import Opened
from tng.tunnel.express import ExpressTunnel, Taker
from tng.verdict import NoRa

WHERE = Endpoint("service.example", 80)
OURS = Endpoint("127.0.0.1", 1)
ANSWER = b"you are connected"


class ScriptedTunnel:
    """A tunnel whose answers the test gives; it notes what it was asked."""

    def __init__(self) -> None:
        self.has_express = True
        self.takers: list[Taker] = []
        self.given_up = 0
        self.slow: Callable[[], Opened] | None = None
        self.asked_slowly = 0

    async def open(self, destination: Endpoint) -> Opened:
        assert destination == WHERE
        self.asked_slowly += 1
        if self.slow is None:
            raise UntrustedPeerError("judged and refused")
        return self.slow()

    def open_nowait(self, destination: Endpoint, taker: Taker) -> ScriptedTunnel | None:
        assert destination == WHERE
        if not self.has_express:
            return None
        self.takers.append(taker)
        return self

    def give_up(self) -> None:
        self.given_up += 1


class Stage:
    """A client's socket, a flow, and a peer's socket that an opened tunnel leads to."""

    def __init__(self, reactor: Reactor, stack: contextlib.ExitStack) -> None:
        self.reactor = reactor
        self.tunnel = ScriptedTunnel()
        self.meter = EntryMeter()
        self.flow = Flow(reactor, "test", Router(), self.tunnel, None, self.meter)  # type: ignore[arg-type]
        self.client, self._near = (stack.enter_context(sock) for sock in socket.socketpair())
        self._far, self.peer = (stack.enter_context(sock) for sock in socket.socketpair())
        for sock in (self.client, self.peer):
            sock.settimeout(5)
        self.end: PlainEnd | None = None

    def run(self, function: Callable[[], Any]) -> Any:
        async def go() -> Any:
            return function()

        return self.reactor.spawn_threadsafe(go(), "test").result(5)

    def carry(self) -> None:
        async def go() -> None:
            self.end = PlainEnd(self.reactor, self._near, "the client")
            self.end.unread(b"early")
            await self.flow.carry(
                Accepted(self.end, WHERE, ANSWER, lambda error: str(error.code).encode())
            )

        self.reactor.spawn_threadsafe(go(), "carry").result(5)

    def opened(self) -> Opened:
        return Opened(PlainEnd(self.reactor, self._far, "the tunnel"), NoRa.NO_RA, OURS, None)

    def is_silent(self) -> bool:
        """Whether neither side has been told anything."""
        for sock in (self.client, self.peer):
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.recv(1)
                return False
            sock.settimeout(5)
        return True

    def is_over(self) -> bool:
        """Whether nobody is served any more; waits until then."""
        over = concurrent.futures.Future[None]()
        self.reactor.call(lambda: self.reactor.wait_idle(lambda: over.set_result(None)))
        over.result(5)
        return self.meter.cx_active == 0 and not self.reactor.tasks


@pytest.fixture
def stage() -> Iterator[Stage]:
    reactor = Reactor()
    reactor.start()
    with contextlib.ExitStack() as stack:
        yield Stage(reactor, stack)
        reactor.stop(timeout_s=5)


def test_the_lane_needs_a_tunnel_that_has_one() -> None:
    assert isinstance(ScriptedTunnel(), ExpressTunnel)
    assert not isinstance(Router(), ExpressTunnel)


def test_nothing_moves_before_the_tunnel_has_answered(stage: Stage) -> None:
    stage.carry()
    assert stage.is_silent()
    assert stage.meter.cx_active == 1
    assert len(stage.reactor.tasks) == 1
    stage.run(lambda: stage.tunnel.takers[0].tunnel_opened(stage.opened()))
    assert stage.client.recv(100) == ANSWER
    assert stage.peer.recv(100) == b"early"
    assert stage.meter.cx_active == 1
    stage.client.shutdown(socket.SHUT_WR)
    assert stage.peer.recv(1) == b""
    stage.peer.sendall(b"late")
    stage.peer.close()
    assert stage.client.recv(100) == b"late"
    assert stage.is_over()
    assert (stage.meter.octets_from_client, stage.meter.octets_to_client) == (5, 4)
    assert not stage.tunnel.asked_slowly


def test_without_a_connection_at_hand_the_ordinary_way_is_gone(stage: Stage) -> None:
    stage.tunnel.has_express = False
    stage.tunnel.slow = stage.opened
    stage.carry()
    assert stage.client.recv(100) == ANSWER
    assert stage.peer.recv(100) == b"early"


def test_a_refusal_by_the_egress_is_final_and_told(stage: Stage) -> None:
    stage.carry()
    error = NetError("the peer refused")
    stage.run(lambda: stage.tunnel.takers[0].tunnel_failed(error, is_final=True))
    assert stage.client.recv(100) == str(error.code).encode()
    stage.client.close()
    assert stage.is_over()
    assert stage.meter.cx_failed == 1
    assert not stage.tunnel.asked_slowly


def test_a_lost_connection_leads_back_to_the_ordinary_way(stage: Stage) -> None:
    stage.tunnel.slow = stage.opened
    stage.carry()
    error = NetError("the connection is lost")
    stage.run(lambda: stage.tunnel.takers[0].tunnel_failed(error, is_final=False))
    assert stage.client.recv(100) == ANSWER
    assert stage.peer.recv(100) == b"early"
    assert (stage.tunnel.asked_slowly, stage.meter.cx_failed) == (1, 0)


def test_who_is_refused_on_the_way_back_hears_nothing_of_success(stage: Stage) -> None:
    stage.carry()
    error = NetError("the connection is lost")
    stage.run(lambda: stage.tunnel.takers[0].tunnel_failed(error, is_final=False))
    answer = stage.client.recv(100)
    assert ANSWER not in answer
    assert answer == str(UntrustedPeerError("").code).encode()
    assert stage.meter.cx_failed == 1


def test_a_client_that_has_gone_meanwhile_takes_the_stream_with_it(stage: Stage) -> None:
    stage.carry()

    def open_for_nobody() -> None:
        assert stage.end is not None
        stage.end.abort()
        stage.tunnel.takers[0].tunnel_opened(stage.opened())

    stage.run(open_for_nobody)
    with contextlib.suppress(ConnectionResetError):
        assert stage.peer.recv(100) == b""
    assert stage.is_over()


def test_a_client_that_goes_while_it_is_refused_ends_only_itself(stage: Stage) -> None:
    stage.carry()
    stage.client.close()
    error = NetError("the peer refused")
    stage.run(lambda: stage.tunnel.takers[0].tunnel_failed(error, is_final=True))
    assert stage.is_over()
    assert stage.meter.cx_failed == 1


def test_a_reactor_that_ends_gives_up_the_request(stage: Stage) -> None:
    stage.carry()
    assert "the client" in next(iter(stage.reactor.tasks)).name
    stage.reactor.stop(timeout_s=5)
    assert stage.tunnel.given_up == 1
    with contextlib.suppress(ConnectionResetError):
        assert stage.client.recv(100) == b""
    assert stage.meter.cx_active == 0


def test_a_tunnel_that_is_lost_while_the_reactor_ends_starts_nothing(stage: Stage) -> None:
    stage.carry()

    def lose() -> None:
        stage.reactor.is_stopping = True
        error = NetError("shutting down")
        stage.tunnel.takers[0].tunnel_failed(error, is_final=False)
        assert len(stage.reactor.tasks) == 1  # this test's own
        stage.reactor.is_stopping = False

    stage.run(lose)
    with contextlib.suppress(ConnectionResetError):
        assert stage.client.recv(100) == b""
    assert not stage.tunnel.asked_slowly
