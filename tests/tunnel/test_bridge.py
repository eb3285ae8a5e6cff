"""Questions from the reactor to trio, and what becomes of them when either side ends."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tng.dataplane.reactor import Reactor
from tng.endpoint import Endpoint
from tng.errors import ErrorCode, EvidenceError, NetError, TngError
from tng.tunnel import dialer
from tng.tunnel.bridge import Bridge
from tng.tunnel.dialer import Dialer, literal_address, resolve


async def double(number: int) -> int:
    await trio.lowlevel.checkpoint()
    return 2 * number


async def fail() -> None:
    raise EvidenceError("as told")


async def break_down() -> None:
    raise ZeroDivisionError


async def test_a_question_is_answered_with_a_value(plane) -> None:
    assert await plane.run(plane.bridge.ask(double, 21)) == 42


async def test_an_error_of_ours_comes_back_as_it_is(plane) -> None:
    with pytest.raises(EvidenceError, match="as told"):
        await plane.run(plane.bridge.ask(fail))


async def test_an_unforeseen_error_is_logged_and_ends_the_question_alone(plane, caplog) -> None:
    with pytest.raises(TngError, match="internal error: ZeroDivisionError"):
        await plane.run(plane.bridge.ask(break_down))
    assert "break_down" in caplog.text
    assert await plane.run(plane.bridge.ask(double, 1)) == 2


async def ending(plane: Any, bridge: Bridge) -> None:
    with pytest.raises(TngError) as caught:
        await plane.run(bridge.ask(double, 1))
    assert caught.value.code is ErrorCode.SHUTTING_DOWN


async def test_before_and_after_trio_there_is_no_answer(plane) -> None:
    bridge = Bridge(plane.reactor)
    await ending(plane, bridge)
    async with trio.open_nursery() as nursery:
        await nursery.start(bridge.run)
        nursery.cancel_scope.cancel()
    await ending(plane, bridge)


async def test_a_question_under_way_ends_with_trio(plane) -> None:
    bridge = Bridge(plane.reactor)
    async with trio.open_nursery() as nursery:
        await nursery.start(bridge.run)
        future = plane.reactor.spawn_threadsafe(bridge.ask(trio.sleep_forever), "question")
        await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        while not future.done():
            await trio.sleep(0.002)
    assert future.exception().code is ErrorCode.SHUTTING_DOWN


def test_after_the_end_of_trio_s_run_there_is_no_answer() -> None:
    reactor = Reactor()
    bridge = Bridge(reactor)

    async def run_and_end() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(bridge.run)
            nursery.cancel_scope.cancel()

    trio.run(run_and_end)
    reactor.start()
    future = reactor.spawn_threadsafe(bridge.ask(double, 1), "late")
    assert future.exception(5).code is ErrorCode.SHUTTING_DOWN
    reactor.stop(2)


async def test_a_name_is_resolved_and_an_address_is_taken_as_it_is() -> None:
    assert ("127.0.0.1", 80) in [address for _, address in await resolve(Endpoint("localhost", 80))]
    assert literal_address(Endpoint("::1", 80))[1] == ("::1", 80, 0, 0)
    assert literal_address(Endpoint("127.0.0.1", 80))[1] == ("127.0.0.1", 80)


@pytest.mark.parametrize("host", ["a..b", "x" * 300 + ".example"])
async def test_a_name_without_address_is_a_network_error(host: str) -> None:
    with pytest.raises(NetError, match="cannot resolve"):
        await resolve(Endpoint(host, 80))


async def test_resolving_takes_no_longer_than_its_limit(monkeypatch, autojump_clock) -> None:
    class Slow(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
            await trio.sleep_forever()

        async def getnameinfo(self, *args: Any) -> Any:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(Slow())
    with pytest.raises(NetError, match="not resolved within"):
        await resolve(Endpoint("slow.example", 80))
    assert trio.current_time() >= dialer.RESOLVE_TIMEOUT_S


async def test_dialling_by_name_goes_through_trio(plane) -> None:
    dialer_ = Dialer(plane.reactor, plane.bridge)
    with pytest.raises(NetError, match="cannot connect"):
        await plane.run(dialer_.connect(Endpoint("localhost", 1)))
