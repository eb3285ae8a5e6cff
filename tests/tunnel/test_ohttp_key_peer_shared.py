"""Egresses that share keys, over a network in memory: start, rotation, partitions, restarts."""

from __future__ import annotations

import json
import pathlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tng.config.ohttp import OhttpKey
from tng.errors import ConfigError, NetError, RemoteProtocolError, StartError
from tng.tunnel.ohttp.key_source import make_key_source
from tng.tunnel.ohttp.keyring import KeyStatus
from tng.tunnel.ohttp.keys_peer_shared import PeerSharedKeys
from tng.tunnel.ohttp.peer_transport import Handler

START = 1_800_000_000.0
WHERE = "add_egress[0].ohttp.key"


class TrioClock:
    def now(self) -> float:
        return trio.current_time() + START


class Network:
    """Carries messages between nodes by name; links can be cut, and messages counted."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.cut: set[frozenset[str]] = set()
        self.silent: set[str] = set()
        self.messages = 0
        self.delay_s = 0.01


class Line:
    """One node's end of the network."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name

    async def exchange(self, peer: str, body: bytes) -> bytes:
        self.network.messages += 1
        await trio.sleep(self.network.delay_s)
        if peer in self.network.silent:
            await trio.sleep_forever()
        handler = self.network.handlers.get(peer)
        if handler is None or frozenset((self.name, peer)) in self.network.cut:
            raise NetError(f"{peer} is not reachable")
        return await handler(body)

    async def serve(
        self, handler: Handler, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self.network.handlers[self.name] = handler
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            self.network.handlers.pop(self.name, None)


def name(number: int) -> str:
    return f"10.0.0.{number}:8301"


def settings(*peers: int, **changes: object) -> OhttpKey:
    return OhttpKey.model_validate(
        {
            "source": "peer_shared",
            "rotation_interval": 100,
            "no_ra": True,
            "peers": [name(peer) for peer in peers],
            **changes,
        }
    )


def make(network: Network, number: int, config: OhttpKey, *, node: int = 0) -> PeerSharedKeys:
    node_id = str(uuid.UUID(int=node or number, version=4))
    return PeerSharedKeys(config, TrioClock(), Line(network, name(number)), WHERE, node_id)


@asynccontextmanager
async def running(*sources: PeerSharedKeys) -> AsyncIterator[trio.Nursery]:
    """All of them, started together."""
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as starting:
            for source in sources:
                starting.start_soon(nursery.start, source.run)
        yield nursery
        nursery.cancel_scope.cancel()


def trio_of(network: Network, interval: int = 20) -> list[PeerSharedKeys]:
    """Three that have each other as peers."""
    return [
        make(network, n, settings(*({1, 2, 3} - {n}), rotation_interval=interval))
        for n in (1, 2, 3)
    ]


def offered(source: PeerSharedKeys) -> bytes:
    key = source.keyring.active(TrioClock().now())
    assert key is not None
    return key.public_key


def publics(source: PeerSharedKeys) -> set[bytes]:
    return {key.public_key for key in source.keyring}


async def test_a_node_without_peers_begins_alone_and_at_once(autojump_clock) -> None:
    source = make(Network(), 1, settings())
    async with running(source):
        assert trio.current_time() < 0.1
        assert source.not_ready is None
        assert len(source.keyring) == 2


async def test_three_that_start_together_have_the_same_keys(autojump_clock) -> None:
    nodes = trio_of(Network())
    async with running(*nodes):
        await trio.sleep(3)
        assert publics(nodes[0]) == publics(nodes[1]) == publics(nodes[2])
        assert len(publics(nodes[0])) == 2, "one of them made keys, the others took them"


async def test_every_node_offers_the_same_key_at_every_moment(autojump_clock) -> None:
    nodes = trio_of(Network())
    async with running(*nodes):
        seen = set()
        for _ in range(80):
            assert offered(nodes[0]) == offered(nodes[1]) == offered(nodes[2])
            seen.add(offered(nodes[0]))
            await trio.sleep(1)
        assert len(seen) == 4
        assert len(nodes[0].keyring) <= 4


async def test_keys_of_a_second_are_shared_in_time(autojump_clock) -> None:
    network = Network()
    one = make(network, 1, settings(2, rotation_interval=1))
    two = make(network, 2, settings(1, rotation_interval=1))
    async with running(one, two):
        for _ in range(200):
            assert one.not_ready is None
            assert two.keyring.find(offered(one), TrioClock().now()) is not None
            await trio.sleep(0.1)


async def test_a_late_node_takes_the_keys_that_are_there(autojump_clock) -> None:
    network = Network()
    early, late = make(network, 2, settings()), make(network, 1, settings(2))
    async with running(early):
        await trio.sleep(10)
        async with running(late):
            assert publics(late) == publics(early)
            assert trio.current_time() < 11


async def test_a_node_that_starts_waits_for_every_peer(autojump_clock) -> None:
    """None has keys yet: who made some now would make others than the rest."""
    network = Network()
    one = make(network, 1, settings(2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio.sleep(30)
        assert len(one.keyring) == 0
        assert one.not_ready == f"no OHTTP key is active; peers that have not answered: {[name(2)]}"
        two = make(network, 2, settings(1))
        await nursery.start(two.run)
        await trio.sleep(3)
        assert publics(one) == publics(two)
        assert one.not_ready is None
        nursery.cancel_scope.cancel()


async def test_a_restarted_node_is_back_although_a_peer_is_gone(autojump_clock) -> None:
    network = Network()
    nodes = trio_of(network)
    async with running(*nodes):
        await trio.sleep(3)
        before = publics(nodes[1])
        network.cut = {frozenset((name(1), name(3))), frozenset((name(2), name(3)))}
        again = make(network, 1, settings(2, 3), node=9)
        async with running(again):
            assert publics(again) == before


async def test_joining_has_an_end(autojump_clock) -> None:
    network = Network()
    one = make(network, 1, settings(2, 3, join_timeout=7))
    with pytest.raises(StartError, match=r"within 7 s \(join_timeout\)") as caught:
        await one.run()
    assert f"{name(2)}: {name(2)} is not reachable; {name(3)}: " in str(caught.value)
    assert trio.current_time() == pytest.approx(7)


async def test_peers_that_are_silent_are_missed_too(autojump_clock) -> None:
    network = Network()
    network.silent = {name(2)}
    one = make(network, 1, settings(2, join_timeout=20))
    with pytest.raises(StartError, match="no answer within 5 s"):
        await one.run()


async def test_waiting_for_first_keys_has_an_end(autojump_clock) -> None:
    """The peer that should make them is itself still waiting for somebody."""
    network = Network()
    first = make(network, 1, settings(2, 3))
    second = make(network, 2, settings(1, preboot_timeout=9))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run)
        with pytest.raises(StartError, match=r"keys from a peer within 9 s \(preboot_timeout\)"):
            await second.run()
        nursery.cancel_scope.cancel()


async def test_a_leader_that_dies_before_the_first_key_is_replaced(autojump_clock) -> None:
    network = Network()
    first = make(network, 1, settings(2, 3))
    second = make(network, 2, settings(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run)
        nursery.start_soon(second.run)
        await trio.sleep(5)
        assert len(second.keyring) == 0
        network.cut = {frozenset((name(1), name(2)))}
        await trio.sleep(20)
        assert second.not_ready is None
        nursery.cancel_scope.cancel()


async def test_a_partition_ends_with_the_same_keys_everywhere(autojump_clock) -> None:
    network = Network()
    nodes = trio_of(network)
    async with running(*nodes):
        await trio.sleep(3)
        network.cut = {frozenset((name(1), name(3))), frozenset((name(2), name(3)))}
        for _ in range(70):
            assert all(node.not_ready is None for node in nodes)
            await trio.sleep(1)
        assert publics(nodes[0]) == publics(nodes[1])
        assert publics(nodes[2]).isdisjoint(publics(nodes[0]))
        network.cut = set()
        await trio.sleep(5)
        assert publics(nodes[0]) == publics(nodes[1]) == publics(nodes[2])
        assert offered(nodes[0]) == offered(nodes[2])


async def test_a_dead_leader_costs_no_key(autojump_clock) -> None:
    network = Network()
    nodes = trio_of(network)
    async with running(*nodes):
        network.cut = {frozenset((name(1), name(2))), frozenset((name(1), name(3)))}
        for _ in range(100):
            assert offered(nodes[1]) == offered(nodes[2])
            await trio.sleep(1)


async def test_a_slow_peer_delays_nobody_else(autojump_clock) -> None:
    network = Network()
    nodes = trio_of(network)
    async with running(*nodes):
        await trio.sleep(3)
        network.silent = {name(3)}
        for _ in range(60):
            assert offered(nodes[0]) == offered(nodes[1])
            await trio.sleep(1)


async def test_an_unknown_key_is_asked_for_and_not_too_often(autojump_clock) -> None:
    network = Network()
    async with running(*(nodes := trio_of(network))):
        await trio.sleep(3.5)
        network.messages = 0
        found = []

        async def find() -> None:
            found.append(await nodes[0].find_elsewhere(bytes(32)))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(find)
        assert found == [False] * 100
        assert network.messages <= 6
        assert await nodes[0].find_elsewhere(offered(nodes[0]))


async def test_a_key_that_a_peer_made_a_moment_ago_is_found(autojump_clock) -> None:
    network = Network()
    one, two = make(network, 1, settings(2)), make(network, 2, settings(1))
    async with running(one, two):
        await trio.sleep(3)
        network.cut = {frozenset((name(1), name(2)))}
        await trio.sleep(250)
        unknown = offered(two)
        assert one.keyring.find(unknown, TrioClock().now()) is None
        network.cut = set()
        assert await one.find_elsewhere(unknown)
        assert one.keyring.find(unknown, TrioClock().now()) is not None


async def test_asking_for_a_key_has_an_end(autojump_clock) -> None:
    network = Network()
    one, two = make(network, 1, settings(2)), make(network, 2, settings(1))
    async with running(one, two):
        network.silent = {name(2)}
        begun = trio.current_time()
        assert not await one.find_elsewhere(bytes(32))
        assert trio.current_time() - begun <= 3.01


async def test_peers_of_a_file_are_joined_as_it_changes(
    tmp_path: pathlib.Path, autojump_clock
) -> None:
    network, file = Network(), tmp_path / "peers.json"
    file.write_text("[]")
    one = make(network, 1, settings(peers_file=str(file)))
    two = make(network, 2, settings())
    async with running(one, two):
        await trio.sleep(5)
        assert publics(one).isdisjoint(publics(two))
        file.write_text(json.dumps([name(2)]))
        await trio.sleep(5)
        assert publics(one) == publics(two)


async def test_a_file_of_peers_that_is_missing_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    one = make(Network(), 1, settings(peers_file=str(tmp_path / "gone")))
    with pytest.raises(ConfigError, match=r"ohttp\.key\.peers_file: cannot use"):
        await one.run()


async def test_an_address_that_is_taken_is_an_error_of_its_own(autojump_clock) -> None:
    class Taken(Line):
        async def serve(
            self, handler: Handler, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
        ) -> None:
            await trio.lowlevel.checkpoint()
            raise StartError("port 8301 is in use")

    source = PeerSharedKeys(settings(), TrioClock(), Taken(Network(), name(1)), WHERE)
    with pytest.raises(StartError, match="in use"):
        await source.run()


async def test_a_message_that_is_none_is_refused_and_harms_nothing(autojump_clock) -> None:
    network = Network()
    one = make(network, 1, settings())
    async with running(one):
        before = publics(one)
        with pytest.raises(RemoteProtocolError):
            await network.handlers[name(1)](b"garbage")
        assert publics(one) == before


async def test_a_peer_that_answers_nonsense_has_not_answered(
    autojump_clock, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network()

    async def nonsense(_body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"HTTP/1.1 200 OK"

    network.handlers[name(2)] = nonsense
    one = make(network, 1, settings(2, join_timeout=20))
    with pytest.raises(StartError, match=name(2)):
        await one.run()
    assert caplog.text.count("OHTTP key peer does not answer") == 1


async def test_a_peer_that_comes_back_is_told_of_once(
    autojump_clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    network = Network()
    one, two = make(network, 1, settings(2)), make(network, 2, settings(1))
    async with running(one, two):
        network.cut = {frozenset((name(1), name(2)))}
        await trio.sleep(20)
        network.cut = set()
        await trio.sleep(20)
    assert caplog.text.count(f"OHTTP key peer does not answer peer={name(2)}") == 1
    assert caplog.text.count(f"OHTTP key peer answers peer={name(2)}") == 1


async def test_the_status_is_that_of_the_reference(autojump_clock) -> None:
    network = Network()
    one, two = make(network, 1, settings(2)), make(network, 2, settings(1))
    async with running(one, two):
        await trio.sleep(105)
        status = one.status(TrioClock().now())
    ids = [str(uuid.UUID(int=number, version=4)) for number in (1, 2)]
    keys = status["keys"]
    assert isinstance(keys, list)
    assert status["key_manager_type"] == "peer_shared"
    assert [key["status"] for key in keys] == ["Pending", "Active", "Stale"]
    assert list(keys[0]) == ["source_node_id", "key_id", "public_key", "status", "expire_at"]
    assert {key["source_node_id"] for key in keys} == {ids[0]}
    assert status["cluster"] == {
        "node_id": ids[0],
        "members": [
            {"node_id": f"{ids[0]}(0.0.0.0:8301)", "status": "alive"},
            {"node_id": f"{ids[1]}(10.0.0.2:8301)", "status": "alive"},
        ],
    }


async def test_the_factory_wants_a_way_to_peers(autojump_clock) -> None:
    with pytest.raises(ConfigError, match="no way to peers"):
        make_key_source(settings(), TrioClock(), where=WHERE)
    source = make_key_source(
        settings(), TrioClock(), where=WHERE, transport=Line(Network(), name(1))
    )
    assert isinstance(source, PeerSharedKeys)
    async with running(source):
        (pending, active) = source.keyring.unexpired(TrioClock().now())
        assert pending.status(TrioClock().now()) is KeyStatus.PENDING
        assert active.status(TrioClock().now()) is KeyStatus.ACTIVE
