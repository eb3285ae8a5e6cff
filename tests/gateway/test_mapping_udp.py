"""UDP clients and a UDP service, with an ingress and an egress of ours between them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from stage.datagrams import Client, Echo, echo, udp_port
from stage.gateways import listen, serving
from stage.identities import Ordinary
from stage.judges import Absent, Broken, Judge, Refusing
from tng.clock import SystemClock
from tng.config.loader import prepare_config
from tng.errors import ConfigError, StartError
from tng.gateway.app import Gateway
from tng.gateway.datagrams import need_quic
from tng.gateway.ingress.datagram_clients import (
    MAX_CLIENTS,
    MAX_WAITING_OCTETS,
    DatagramIngress,
    _Client,
)
from tng.tunnel.quic import MAX_HELD

NO_RA = {"no_ra": True}
VERIFY = {"verify": {"as_addr": "http://127.0.0.1:1", "policy_ids": ["default"]}}
ATTEST = {"attest": {"aa_addr": "unix:///nowhere"}}


def mode(port: int, target: int, **more: object) -> dict[str, object]:
    return {"mapping_udp": {"in": listen(port), "out": listen(target), **more}}


class Way:
    """An ingress and an egress with a service behind them."""

    def __init__(self, service: Echo, ingress: Gateway, egress: Gateway, port: int) -> None:
        self.service = service
        self.ingress = ingress.entries[0]
        self.egress = egress.entries[0]
        self.port = port


@asynccontextmanager
async def way(
    ingress: dict[str, object] = NO_RA,
    egress: dict[str, object] = NO_RA,
    *,
    judge: Judge | None = None,
    idle: int = 30,
) -> AsyncIterator[Way]:
    """A whole way; sections say who is trusted, `judge` takes the place of every judge."""
    entrance, middle = udp_port(), udp_port()
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(echo())
        near_egress = {**mode(middle, service.port, idle_timeout_secs=idle), **egress}
        near_client = {**mode(entrance, middle, idle_timeout_secs=idle), **ingress}
        second = await stack.enter_async_context(
            serving(
                {"add_egress": [near_egress]}, judge, Ordinary() if "attest" in egress else None
            )
        )
        first = await stack.enter_async_context(
            serving(
                {"add_ingress": [near_client]}, judge, Ordinary() if "attest" in ingress else None
            )
        )
        yield Way(service, first, second, entrance)


@pytest.mark.parametrize("size", [0, 1, 500, 1170, 1414])
async def test_a_datagram_comes_back_whole(size: int) -> None:
    async with way() as between, Client(between.port) as client:
        await client.ask(b"first")
        assert await client.ask(b"x" * size) == b"x" * size


async def test_every_client_has_an_address_of_its_own_at_the_service() -> None:
    async with way() as between, Client(between.port) as one, Client(between.port) as other:
        assert await one.ask(b"one") == b"one"
        assert await other.ask(b"other") == b"other"
        assert await one.ask(b"again") == b"again"
        assert len(between.service.clients) == 2
        assert between.ingress.meter.cx_total == between.egress.meter.cx_total == 2
        assert between.egress.meter.octets_from_client == len(b"oneotheragain")


async def test_what_is_sent_while_the_session_opens_arrives_in_order() -> None:
    async with way() as between, Client(between.port) as client:
        for number in range(100):
            await client.send(b"%d" % number)
        answers = [await client.receive() for _ in range(100)]
        assert answers == [b"%d" % number for number in range(100)]


@pytest.mark.parametrize(
    ("ingress", "egress"),
    [(VERIFY, ATTEST), (ATTEST, VERIFY), ({**VERIFY, **ATTEST}, {**VERIFY, **ATTEST})],
    ids=["one way", "reverse", "mutual"],
)
async def test_an_accepted_peer_is_served_after_it_was_judged(
    ingress: dict[str, object], egress: dict[str, object]
) -> None:
    judge = Judge()
    async with way(ingress, egress, judge=judge) as between, Client(between.port) as client:
        assert await client.ask(b"hello") == b"hello"
        assert judge.asked == sum("verify" in section for section in (ingress, egress))


@pytest.mark.parametrize("judge", [Refusing, Absent, Broken])
async def test_nothing_leaves_towards_an_egress_that_is_not_accepted(
    judge: type[Judge], caplog: pytest.LogCaptureFixture
) -> None:
    async with way(VERIFY, ATTEST, judge=judge()) as between, Client(between.port) as client:
        await client.send(b"secret")
        while not between.ingress.meter.cx_failed:
            await trio.sleep(0.01)
        assert await client.hears_nothing(0.1)
        assert between.service.seen == []
        assert between.egress.meter.octets_from_client == 0
    assert "not connected" in caplog.text
    assert "secret" not in caplog.text


async def test_nothing_reaches_the_service_from_a_client_that_is_not_accepted() -> None:
    async with way(ATTEST, VERIFY, judge=Refusing()) as between, Client(between.port) as client:
        await client.send(b"secret")
        while not between.egress.meter.cx_failed:
            await trio.sleep(0.01)
        assert await client.hears_nothing(0.1)
        assert between.service.seen == []


async def test_a_client_without_a_certificate_is_refused_by_an_egress_that_verifies() -> None:
    judge = Judge()
    async with way(NO_RA, VERIFY, judge=judge) as between, Client(between.port) as client:
        await client.send(b"secret")
        while not between.egress.meter.cx_failed:
            await trio.sleep(0.01)
        assert between.service.seen == []
        assert judge.asked == 0


async def test_an_oversized_datagram_ends_nothing_but_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with way() as between, Client(between.port) as client:
        assert await client.ask(b"before") == b"before"
        await client.send(b"x" * 5000)
        assert await client.ask(b"after") == b"after"
        assert all(len(datagram) < 10 for datagram in between.service.seen)
    assert "datagram size 5000 exceeds max_datagram_size 14" in caplog.text


async def test_an_oversized_reply_ends_nothing_but_itself() -> None:
    async with way() as between, Client(between.port) as client:
        await client.send(b"LARGE 5000")
        await client.send(b"LARGE 6000")
        assert await client.ask(b"after") == b"after"


async def test_a_configured_limit_holds_in_both_directions() -> None:
    limit = {"quic": {"max_datagram_size": 100}, **NO_RA}
    async with way(limit) as between, Client(between.port) as client:
        await client.send(b"x" * 101)
        assert await client.ask(b"x" * 100) == b"x" * 100
        assert len(between.service.seen) == 1
    async with way(NO_RA, limit) as between, Client(between.port) as client:
        await client.send(b"x" * 101)
        await client.send(b"LARGE 101")
        assert await client.ask(b"x" * 100) == b"x" * 100
        assert len(between.service.seen) == 2


async def test_a_service_that_does_not_listen_ends_nothing() -> None:
    async with way() as between, Client(between.port) as client:
        assert await client.ask(b"one") == b"one"
        between.service.stop()
        for _ in range(3):
            await client.send(b"nobody")
            await trio.sleep(0.01)
        assert between.egress.meter.cx_active == 1


@pytest.mark.slow
async def test_a_silent_session_is_closed_and_the_next_datagram_opens_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with way(idle=1) as between, Client(between.port) as client:
        assert await client.ask(b"one") == b"one"
        while between.ingress.meter.cx_active or between.egress.meter.cx_active:
            await trio.sleep(0.02)
        assert await client.ask(b"two") == b"two"
        assert between.ingress.meter.cx_total == 2
    assert ": idle" in caplog.text


async def test_a_datagram_that_meets_the_end_of_a_session_goes_through_the_next() -> None:
    async with way() as between, Client(between.port) as client:
        assert await client.ask(b"one") == b"one"
        ingress = between.ingress.datagrams
        assert isinstance(ingress, DatagramIngress)
        ((address, known),) = ingress._clients.items()
        assert known.session is not None
        known.session.close("for a test")  # nobody has been told yet: no task has run since
        ingress._take(b"two", address)
        assert await client.receive() == b"two"
        assert between.service.seen == [b"one", b"two"]
        assert between.ingress.meter.cx_total == 2
        assert between.ingress.meter.cx_active == 1


@pytest.mark.slow
async def test_an_egress_waits_longer_than_its_ingress() -> None:
    async with way(idle=1) as between, Client(between.port) as client:
        assert await client.ask(b"one") == b"one"
        ingress = between.ingress.datagrams
        assert isinstance(ingress, DatagramIngress)
        ingress._idle_timeout_s = 3  # of sessions from now on
        async with Client(between.port) as other:
            assert await other.ask(b"other") == b"other"
            while between.ingress.meter.cx_active > 1:
                await trio.sleep(0.05)
            assert between.egress.meter.cx_active == 1
            await trio.sleep(0.5)
            assert await other.ask(b"again") == b"again"
            assert between.ingress.meter.cx_total == 2, "the egress has closed it"


@pytest.mark.slow
async def test_draining_closes_sessions_that_are_silent() -> None:
    async with way() as between, Client(between.port) as client:
        assert await client.ask(b"one") == b"one"
        assert between.ingress.datagrams is not None
        with trio.fail_after(3):
            await between.ingress.datagrams.drain()
        async with Client(between.port) as late:
            await late.send(b"late")
            assert await late.hears_nothing(0.1)


async def test_a_port_in_use_is_an_error_at_the_start() -> None:
    async with echo() as service:
        config = {"add_egress": [{**mode(service.port, 9), **NO_RA}]}
        gateway = Gateway(prepare_config(json.dumps(config)), SystemClock())
        with pytest.raises(StartError, match=r"cannot listen on 127\.0\.0\.1:\d+ \(UDP\)"):
            await gateway.serve()


def test_without_the_extra_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_quic("add_ingress[0]")
    monkeypatch.setitem(sys.modules, "aioquic", None)
    with pytest.raises(ConfigError, match=r"add_ingress\[0\]: .*pip install 'tng-gateway\[quic\]'"):
        need_quic("add_ingress[0]")


async def test_more_than_waits_for_a_session_is_dropped_from_the_front(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    sent = MAX_HELD + 20
    async with way() as between:
        ingress = between.ingress.datagrams
        assert isinstance(ingress, DatagramIngress)
        for number in range(sent):
            ingress._take(b"%d" % number, ("127.0.0.1", 9))
        while len(between.service.seen) < MAX_HELD:
            await trio.sleep(0.01)
        assert between.service.seen == [b"%d" % number for number in range(20, sent)]
        assert ingress._waiting_octets == 0


async def test_what_waits_in_all_and_how_many_wait_has_a_limit() -> None:
    async with way() as between:
        ingress = between.ingress.datagrams
        assert isinstance(ingress, DatagramIngress)
        ingress._waiting_octets = MAX_WAITING_OCTETS
        ingress._take(b"one", ("127.0.0.1", 9))
        assert not ingress._clients["127.0.0.1", 9].waiting
        ingress._waiting_octets = 0
        taken = {("127.0.0.1", 10_000 + number): _Client() for number in range(MAX_CLIENTS)}
        ingress._clients.update(taken)
        ingress._take(b"two", ("127.0.0.1", 8))
        ingress._take(b"two", ("127.0.0.1", 8))
        assert ("127.0.0.1", 8) not in ingress._clients
        assert ingress._turned_away == 2
        for address in taken:
            del ingress._clients[address]


@pytest.mark.slow
async def test_an_egress_whose_service_has_no_address_refuses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    entrance, middle = udp_port(), udp_port()
    nowhere = mode(middle, 9)
    nowhere["mapping_udp"]["out"] = {"host": "255.255.255.255", "port": 9}  # type: ignore[index]
    async with (
        serving({"add_egress": [{**nowhere, **NO_RA}]}) as egress,
        serving({"add_ingress": [{**mode(entrance, middle), **NO_RA}]}),
        Client(entrance) as client,
    ):
        await client.send(b"hello")
        while not egress.entries[0].meter.cx_failed:
            await trio.sleep(0.01)
    assert "service not reached" in caplog.text
