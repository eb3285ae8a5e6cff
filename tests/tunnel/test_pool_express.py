"""Streams that are asked for at once: only where a connection stands and its verdict is valid."""

from __future__ import annotations

from typing import Any

import pytest

from stage.conversation import eventually
from stage.judges import Judge, verdict
from tng.clock import FixedClock
from tng.endpoint import Endpoint
from tng.errors import TngError
from tng.tunnel.base import Opened
from tng.tunnel.dialer import Dialer
from tng.tunnel.express import Asked, ExpressTunnel
from tng.tunnel.rats_tls import pool
from tng.tunnel.rats_tls.client import ClientOptions, RatsTlsClient
from tng.tunnel.rats_tls.pool import PoolLimits
from tng.tunnel.rats_tls.server import RatsTlsServer
from tng.verdict import AttestedPeer

NOW = 1_000_000.0
VALID_S = 100.0


class Lasting(Judge):
    """Its verdicts last for `VALID_S`."""

    def __init__(self) -> None:
        super().__init__()
        self.peer = AttestedPeer(verdict(accepted=True, valid_until=NOW + VALID_S), "token")

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        return self.peer


class Asking:
    """A taker that notes what it was told, and in which order."""

    def __init__(self) -> None:
        self.opened: list[Opened] = []
        self.failed: list[tuple[TngError, bool]] = []

    def tunnel_opened(self, opened: Opened) -> None:
        self.opened.append(opened)

    def tunnel_failed(self, error: TngError, *, is_final: bool) -> None:
        self.failed.append((error, is_final))


class Stage:
    """A client, and a server that answers as it is told."""

    def __init__(self, plane: Any, *, multiplex: bool = True) -> None:
        self.plane = plane
        self.clock = FixedClock(NOW)
        self.judge = Lasting()
        self.status = 200
        parts = (plane.reactor, plane.bridge)
        self.server = RatsTlsServer(*parts, None, None, None, self.clock)
        options = ClientOptions(multiplex, PoolLimits(max_streams=2))
        dialer = Dialer(*parts)
        self.client = RatsTlsClient(*parts, dialer, options, None, self.judge, self.clock)
        self.where = Endpoint("127.0.0.1", 1)

    async def start(self) -> None:
        async def serve(opened: Opened, stream: Any) -> None:
            if self.status == 200:
                stream.accept()
            elif self.status:
                stream.refuse(self.status, "upstream_unreachable")
                return
            await opened.end.receive()

        self.where = await self.plane.listen(self.server, serve)

    async def stand(self) -> Opened:
        """Have a connection stand, with one stream on it."""
        opened: Opened = await self.plane.run(self.client.open(self.where))
        return opened

    async def ask(self, taker: Asking) -> Asked | None:
        """What `open_nowait` gives; it must not tell the taker anything by itself."""

        def ask() -> Asked | None:
            asked = self.client.open_nowait(self.where, taker)
            assert not taker.opened
            assert not taker.failed
            return asked

        asked: Asked | None = await self.plane.call(ask)
        return asked


@pytest.fixture
async def stage(plane: Any) -> Stage:
    stage = Stage(plane)
    await stage.start()
    return stage


async def test_there_is_none_before_a_peer_was_judged(stage: Stage) -> None:
    assert await stage.ask(Asking()) is None
    assert stage.plane.accepted == 0


async def test_what_is_opened_at_once_has_the_judged_peer_and_its_lifetime(stage: Stage) -> None:
    first, taker = await stage.stand(), Asking()
    assert await stage.ask(taker) is not None
    await eventually(lambda: taker.opened)
    (opened,) = taker.opened
    assert opened.peer is stage.judge.peer
    assert (opened.local, opened.lifetime_s) == (first.local, first.lifetime_s)
    assert stage.plane.accepted == 1


async def test_there_is_none_from_the_moment_the_verdict_ends(stage: Stage) -> None:
    await stage.stand()
    stage.clock.at = NOW + VALID_S
    assert await stage.ask(Asking()) is None


async def test_there_is_none_on_a_full_or_leaving_connection(stage: Stage) -> None:
    await stage.stand()
    second = await stage.stand()
    assert await stage.ask(Asking()) is None
    await stage.plane.call(second.end.close)
    await stage.plane.call(stage.client.drain)
    assert await stage.ask(Asking()) is None


async def test_there_is_none_for_a_client_that_shares_nothing(plane: Any) -> None:
    stage = Stage(plane, multiplex=False)
    assert not isinstance(stage.client, ExpressTunnel)


async def test_a_refusal_by_the_peer_is_final(stage: Stage) -> None:
    await stage.stand()
    stage.status = 502
    taker = Asking()
    await stage.ask(taker)
    await eventually(lambda: taker.failed)
    (error, is_final), *_ = taker.failed
    assert "status 502" in str(error)
    assert is_final


async def test_the_loss_of_the_connection_is_not_final(stage: Stage) -> None:
    await stage.stand()
    stage.status = 0
    taker = Asking()
    await stage.ask(taker)
    mux = next(iter(stage.client.pool._destinations.values())).shards[0].mux
    await stage.plane.call(lambda: mux.close("a test's wish"))
    ((_, is_final),) = taker.failed
    assert not is_final


async def test_silence_is_final_and_the_connection_gets_no_further_stream(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.stand()
    monkeypatch.setattr(pool, "OPEN_TIMEOUT_S", 0.05)
    stage.status = 0
    taker = Asking()
    await stage.ask(taker)
    await eventually(lambda: taker.failed)
    ((error, is_final),) = taker.failed
    assert "did not answer" in str(error)
    assert is_final
    assert await stage.ask(Asking()) is None


async def test_who_gives_up_is_told_nothing_any_more(stage: Stage) -> None:
    await stage.stand()
    stage.status = 0
    taker = Asking()
    asked = await stage.ask(taker)
    assert asked is not None
    await stage.plane.call(asked.give_up)
    mux = next(iter(stage.client.pool._destinations.values())).shards[0].mux
    assert mux.active_streams == 1
    await stage.plane.call(lambda: mux.close("a test's wish"))
    assert not taker.opened
    assert not taker.failed
