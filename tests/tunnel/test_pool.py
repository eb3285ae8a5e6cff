"""Shared connections: when one is opened, used, left alone and closed."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from stage.conversation import eventually
from stage.judges import Judge, verdict
from tng.clock import FixedClock
from tng.dataplane.ends import End
from tng.endpoint import Endpoint
from tng.errors import ErrorCode, NetError, RemoteProtocolError, UntrustedPeerError
from tng.tunnel.base import Opened
from tng.tunnel.dialer import Dialer
from tng.tunnel.rats_tls import DRAIN_AFTER_VERDICT_S, pool
from tng.tunnel.rats_tls.client import ClientOptions, RatsTlsClient
from tng.tunnel.rats_tls.pool import PoolLimits
from tng.tunnel.rats_tls.server import RatsTlsServer
from tng.verdict import AttestedPeer

NOW = 1_000_000.0
NOWHERE = Endpoint("127.0.0.1", 1)


class Lasting(Judge):
    """Its verdicts last for a while; it may be told to take its time, or to refuse."""

    def __init__(self, clock: FixedClock, seconds: float = 100.0) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = seconds
        self.go_on = trio.Event()
        self.go_on.set()
        self.refuses = False

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        self.asked += 1
        await self.go_on.wait()
        if self.refuses:
            raise UntrustedPeerError("no", code=ErrorCode.POLICY_DENIED)
        ends = self.clock.now() + self.seconds
        return AttestedPeer(verdict(accepted=True, valid_until=ends), "token")


class Stage:
    """A client, and a server that accepts every stream and keeps it."""

    def __init__(self, plane: Any, limits: PoolLimits, multiplex: bool | None, offer: bool | None):
        self.plane = plane
        self.clock = FixedClock(NOW)
        self.judge = Lasting(self.clock)
        self.status = 200
        dialer = Dialer(plane.reactor, plane.bridge)
        parts = (plane.reactor, plane.bridge)
        self.server = RatsTlsServer(*parts, offer, None, None, self.clock)
        options = ClientOptions(multiplex, limits)
        self.client = RatsTlsClient(*parts, dialer, options, None, self.judge, self.clock)
        self.where = NOWHERE
        self.opened: list[Opened] = []

    async def start(self) -> None:
        async def serve(opened: Opened, stream: Any) -> None:
            if stream is not None:
                if self.status != 200:
                    stream.refuse(self.status, "upstream_unreachable")
                    return
                stream.accept()
            try:
                while data := await opened.end.receive():
                    await opened.end.send(data)
            finally:
                opened.end.close()

        self.where = await self.plane.listen(self.server, serve)

    async def open(self) -> Opened:
        opened: Opened = await self.plane.run(self.client.open(self.where))
        self.opened.append(opened)
        return opened

    async def open_together(self, count: int) -> list[Opened]:
        found: list[Opened] = []

        async def one() -> None:
            found.append(await self.open())

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(one)
        return found

    async def close(self, end: End) -> None:
        await self.plane.call(end.close)

    async def echo(self, end: End) -> bytes:
        async def talk() -> bytes:
            await end.send(b"hello")
            return await end.receive()

        said: bytes = await self.plane.run(talk())
        return said

    def shards(self) -> list[dict[str, int]]:
        endpoints: Any = self.client.pool.status(True)["endpoints"]
        return endpoints[0]["shards"] if endpoints else []


@pytest.fixture
async def make(plane: Any) -> Any:
    made: list[Stage] = []

    async def make(
        max_streams: int | None = None,
        max_connections: int | None = None,
        *,
        multiplex: bool | None = True,
        offer: bool | None = None,
    ) -> Stage:
        stage = Stage(plane, PoolLimits(max_streams, max_connections), multiplex, offer)
        await stage.start()
        made.append(stage)
        return stage

    yield make
    for stage in made:
        for opened in stage.opened:
            await plane.call(opened.end.abort)


async def test_who_comes_together_shares_one_connection_and_one_judgement(make) -> None:
    stage = await make()
    opened = await stage.open_together(20)
    assert (stage.plane.accepted, stage.judge.asked) == (1, 1)
    assert stage.shards() == [{"id": 0, "active_streams": 20}]
    assert await stage.echo(opened[7].end) == b"hello"


async def test_a_full_connection_is_followed_by_another(make) -> None:
    stage = await make(max_streams=2)
    await stage.open_together(5)
    assert [shard["active_streams"] for shard in stage.shards()] == [2, 2, 1]
    assert stage.client.pool.status(None)["overflowed_streams"] == 0


async def test_a_stream_that_ends_makes_room(make) -> None:
    stage = await make(max_streams=1)
    first = await stage.open()
    await stage.close(first.end)
    await stage.open()
    assert len(stage.shards()) == 1


async def test_beyond_the_last_connection_streams_overflow_and_are_counted(make) -> None:
    stage = await make(max_streams=1, max_connections=2)
    for _ in range(5):
        await stage.open()
    assert sorted(shard["active_streams"] for shard in stage.shards()) == [2, 3]
    status = stage.client.pool.status(False)
    assert status["overflowed_streams"] == 3
    assert status["multiplex"] is False
    assert status["multiplex_max_connections"] == 2


async def test_no_more_streams_overflow_than_the_peer_admits(make, monkeypatch) -> None:
    stage = await make(max_streams=1, max_connections=1)
    await stage.open()
    monkeypatch.setattr(
        type(stage.client.pool._destinations[stage.where].shards[0].mux), "max_streams", 1
    )
    with pytest.raises(NetError, match="admits no further stream"):
        await stage.open()


async def test_a_raw_peer_is_remembered_and_dialled_side_by_side(make) -> None:
    stage = await make(multiplex=None, offer=False)
    first = await stage.open()
    assert await stage.echo(first.end) == b"hello"
    assert first.lifetime_s == 100.0 + DRAIN_AFTER_VERDICT_S
    stage.judge.go_on = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(stage.open)
        await eventually(lambda: stage.judge.asked == 4)  # all at once, none waits for another
        stage.judge.go_on.set()
    assert stage.shards() == []


async def test_who_waits_shares_the_failure_of_the_attempt(make) -> None:
    """A peer that is away costs everybody one attempt, not one after the other."""
    stage = await make()
    stage.judge.go_on, stage.judge.refuses = trio.Event(), True
    refused: list[UntrustedPeerError] = []

    async def one() -> None:
        try:
            await stage.open()
        except UntrustedPeerError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        await eventually(lambda: stage.judge.asked == 1)
        for _ in range(4):
            nursery.start_soon(one)
        known = stage.client.pool._destinations[stage.where]
        await eventually(lambda: len(known.waiters) == 4)
        stage.judge.go_on.set()
    assert len(refused) == 5
    assert {error.code for error in refused} == {ErrorCode.POLICY_DENIED}
    assert len({id(error) for error in refused}) == 5
    assert stage.judge.asked == 1


async def test_a_cancelled_attempt_leaves_its_turn_to_the_next(make) -> None:
    stage = await make()
    stage.judge.go_on = trio.Event()
    tasks: list[Any] = []

    async def first() -> None:
        tasks.append(stage.plane.reactor.current)
        await stage.client.open(stage.where)

    future = stage.plane.reactor.spawn_threadsafe(first(), "first")
    await eventually(lambda: stage.judge.asked == 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.open)
        known = stage.client.pool._destinations[stage.where]
        await eventually(lambda: len(known.waiters) == 1)
        await stage.plane.call(tasks[0].cancel)
        await eventually(future.done)
        stage.judge.go_on.set()
    assert stage.plane.accepted == 2


async def test_after_the_verdict_no_stream_is_opened_and_those_open_go_on(make) -> None:
    stage = await make()
    old = await stage.open()
    stage.clock.at = NOW + 101
    new = await stage.open()
    assert stage.judge.asked == 2
    assert await stage.echo(old.end) == b"hello"
    assert await stage.echo(new.end) == b"hello"
    status: Any = stage.client.pool.status(True)["endpoints"]
    assert status[0]["cooling_shards"] == 1
    assert status[0]["shard_count"] == 2
    await stage.close(old.end)
    await eventually(lambda: [shard["id"] for shard in stage.shards()] == [1])


async def test_a_stream_lasts_for_the_rest_of_the_verdict_and_an_hour(make) -> None:
    stage = await make()
    assert (await stage.open()).lifetime_s == 100 + DRAIN_AFTER_VERDICT_S
    stage.clock.at = NOW + 60
    assert (await stage.open()).lifetime_s == 40 + DRAIN_AFTER_VERDICT_S


async def test_a_broken_connection_is_replaced(make) -> None:
    stage = await make()
    await stage.open()
    shard = stage.client.pool._destinations[stage.where].shards[0]
    await stage.plane.call(lambda: shard.mux.close("the test breaks it"))
    opened = await stage.open()
    assert await stage.echo(opened.end) == b"hello"
    assert [shard["id"] for shard in stage.shards()] == [1]


async def test_a_stream_that_was_not_sent_anything_moves_to_another_connection(make) -> None:
    """The connection ends while the stream is being opened on it."""
    stage = await make()
    await stage.open()
    mux = stage.client.pool._destinations[stage.where].shards[0].mux

    async def open_and_break() -> Opened:
        stage.plane.reactor.soon(lambda: mux.close("broken just now"))
        return await stage.client.open(stage.where)

    opened = await stage.plane.run(open_and_break())
    assert await stage.echo(opened.end) == b"hello"
    assert stage.plane.accepted == 2


async def test_connections_that_keep_breaking_are_given_up(make) -> None:
    stage = await make()

    async def break_all() -> Opened:
        def again() -> None:
            for shard in stage.client.pool._destinations[stage.where].shards:
                shard.mux.close("broken")
            stage.plane.reactor.next_turn(again)

        stage.plane.reactor.next_turn(again)
        return await stage.client.open(stage.where)

    with pytest.raises(NetError):
        await stage.plane.run(break_all())
    assert stage.plane.accepted <= pool.FULL_ATTEMPTS


async def test_a_refused_stream_is_the_peer_s_word_and_is_not_tried_again(make) -> None:
    stage = await make()
    stage.status = 502
    with pytest.raises(NetError, match="502"):
        await stage.open()
    assert stage.plane.accepted == 1


async def test_a_peer_that_does_not_answer_gets_no_further_stream(make, monkeypatch) -> None:
    monkeypatch.setattr(pool, "OPEN_TIMEOUT_S", 0.05)
    stage = await make()
    await stage.open()
    mux = stage.client.pool._destinations[stage.where].shards[0].mux
    await stage.plane.call(lambda: setattr(mux._end, "on_readable", None))
    with pytest.raises(NetError, match="in time"):
        await stage.open()
    assert not mux.is_open
    await stage.open()
    assert stage.plane.accepted == 2


async def test_an_idle_connection_is_closed_and_a_used_one_is_not(make, monkeypatch) -> None:
    monkeypatch.setattr(pool, "IDLE_TIMEOUT_S", 0.05)
    stage = await make()
    used = await stage.open()
    await trio.sleep(0.15)
    assert len(stage.shards()) == 1
    await stage.close(used.end)
    await eventually(lambda: stage.shards() == [])


async def test_draining_closes_what_is_idle_and_lets_streams_end(make) -> None:
    stage = await make(max_streams=1)
    busy, idle = await stage.open_together(2)
    await stage.close(idle.end)
    await stage.plane.call(stage.client.drain)
    await eventually(lambda: len(stage.shards()) == 1)
    assert await stage.echo(busy.end) == b"hello"
    await stage.close(busy.end)
    await eventually(lambda: stage.shards() == [])


async def test_the_table_of_destinations_is_bounded(make, monkeypatch) -> None:
    monkeypatch.setattr(pool, "DESTINATIONS", 3)
    stage = await make()
    await stage.open()
    for port in range(2, 12):
        with pytest.raises(NetError):
            await stage.plane.run(stage.client.open(Endpoint("127.0.0.1", port)))
    assert len(stage.client.pool._destinations) <= 3
    assert stage.where in stage.client.pool._destinations, "what is in use stays"


@pytest.mark.parametrize(("multiplex", "offer"), [(True, False), (False, True)])
async def test_a_peer_of_the_other_protocol_is_refused(make, multiplex, offer) -> None:
    stage = await make(multiplex=multiplex, offer=offer)
    with pytest.raises((RemoteProtocolError, NetError)):
        await stage.open()
    assert stage.judge.asked == 0


async def test_raw_by_configuration_never_shares(make) -> None:
    stage = await make(multiplex=False)
    await stage.open_together(3)
    assert stage.plane.accepted == 3
    assert stage.judge.asked == 3


async def test_a_probe_judges_and_sends_nothing(make) -> None:
    stage = await make(multiplex=None)
    peer = await stage.plane.run(stage.client.probe(stage.where))
    assert isinstance(peer, AttestedPeer)
    assert stage.shards() == []
