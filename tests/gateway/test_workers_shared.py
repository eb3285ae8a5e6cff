"""One judge and one attester for several workers."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from stage.gateways import free_port, http_proxy, mapping
from stage.identities import Ordinary
from stage.judges import Absent, Judge, Refusing, verdict
from tng.attest.credential import Credential
from tng.clock import FixedClock, SystemClock
from tng.config.loader import prepare_config
from tng.endpoint import Endpoint
from tng.errors import (
    AppraiserError,
    ErrorCode,
    EvidenceError,
    LocalProtocolError,
    RemoteProtocolError,
    StartError,
    UntrustedPeerError,
)
from tng.gateway.app import Gateway
from tng.gateway.entries import Trust
from tng.gateway.workers.link import Link
from tng.gateway.workers.remote import RemoteSource, RemoteVerifier
from tng.gateway.workers.sections import path_of
from tng.gateway.workers.shared import SHARE_FOR_S, SharedSource, SharedTrust
from tng.gateway.workers.sockets import bind_for_workers, close_all
from tng.verdict import AttestedPeer

CERTIFICATE = b"certificate"
NOW = 1_000_000.0


class Dated(Judge):
    """Accepts everybody, at a time of its own, for a time of its own."""

    def __init__(self, judged_at: float, valid_until: float) -> None:
        super().__init__()
        self._times = judged_at, valid_until

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        self.asked += 1
        judged_at, valid_until = self._times
        made = verdict(accepted=True, valid_until=valid_until)
        return AttestedPeer(dataclasses.replace(made, judged_at=judged_at), "token")


def make_config(refresh_interval: int = 600) -> dict[str, object]:
    attest = {
        "aa_type": "simulated",
        "simulated_platform": "/nowhere",
        "refresh_interval": refresh_interval,
    }
    verify = {"as_addr": "http://127.0.0.1:1/", "policy_ids": ["default"]}
    return {
        "add_ingress": [{**http_proxy(4), "verify": verify}],
        "add_egress": [{**mapping(5, 6), "attest": attest}],
    }


@asynccontextmanager
async def workers(
    count: int, judge: Judge | None = None, source: Ordinary | None = None, interval: int = 600
) -> AsyncIterator[list[Link]]:
    """Links of workers to one supervisor's trust."""
    config = prepare_config(json.dumps(make_config(interval)))
    trust = Trust(lambda _a, _c: source or Ordinary(), lambda _v, _c: judge or Judge())
    shared = SharedTrust(config, trust)
    Gateway(config, SystemClock(), shared.registered())
    async with trio.open_nursery() as nursery:
        links = []
        for number in range(count):
            ours, theirs = trio.testing.memory_stream_pair()

            async def answer(question: str, carried: dict[str, object], n: int = number) -> object:
                return await shared.answer(n, question, carried)

            nursery.start_soon(Link(ours, answer).run)
            link = Link(theirs, answer)
            nursery.start_soon(link.run)
            links.append(link)
        yield links
        nursery.cancel_scope.cancel()


def verifier(link: Link, now: float = NOW) -> tuple[RemoteVerifier, FixedClock]:
    clock = FixedClock(now)
    return RemoteVerifier(link, "add_ingress[0]", ["background_check"], clock), clock


async def test_a_pass_is_remembered_by_the_worker_that_asked() -> None:
    judge = Dated(NOW, NOW + 600)
    async with workers(1, judge) as [link]:
        remote, _ = verifier(link)
        assert remote.judged_nowait(CERTIFICATE) is None
        first = await remote.judge(CERTIFICATE, "peer")
        assert await remote.judge(CERTIFICATE, "peer") == first
        assert remote.judged_nowait(CERTIFICATE) == first
        assert remote.judged_nowait(b"another certificate") is None
    assert judge.asked == 1


async def test_a_pass_lives_no_longer_for_being_kept_twice() -> None:
    async with workers(1, Dated(NOW, NOW + 600)) as [link]:
        remote, clock = verifier(link, NOW + 40)
        await remote.judge(CERTIFICATE, "peer")
        clock.at = NOW + 59
        assert remote.judged_nowait(CERTIFICATE) is not None
        clock.at = NOW + 60
        assert remote.judged_nowait(CERTIFICATE) is None


async def test_a_pass_ends_with_its_verdict() -> None:
    async with workers(1, Dated(NOW, NOW + 10)) as [link]:
        remote, clock = verifier(link)
        await remote.judge(CERTIFICATE, "peer")
        clock.at = NOW + 10
        assert remote.judged_nowait(CERTIFICATE) is None
        with pytest.raises(AppraiserError) as caught:
            await remote.judge(CERTIFICATE, "peer")
        assert caught.value.code is ErrorCode.STALE


async def test_a_refusal_arrives_with_its_checks_and_is_never_remembered() -> None:
    judge = Refusing()
    async with workers(1, judge) as [link]:
        remote, _ = verifier(link)
        for _ in range(2):
            with pytest.raises(UntrustedPeerError) as caught:
                await remote.judge(CERTIFICATE, "peer")
            assert caught.value.verdict == verdict(accepted=False)
        assert remote.judged_nowait(CERTIFICATE) is None
    assert judge.asked == 2


async def test_an_absent_judge_is_no_pass() -> None:
    async with workers(1, Absent()) as [link]:
        remote, _ = verifier(link)
        with pytest.raises(AppraiserError):
            await remote.judge(CERTIFICATE, "peer")


async def test_the_rest_of_a_remote_judge_is_the_supervisors_business(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with workers(1) as [link]:
        remote, _ = verifier(link)
        assert remote.not_ready is None
        assert remote.verdicts() == {}
        await remote.aclose()
        with trio.move_on_after(1) as limit:
            await remote.run()
        assert limit.cancelled_caught


async def test_workers_share_one_certificate_and_one_key() -> None:
    source = Ordinary()
    async with workers(3, source=source) as links:
        made = [await RemoteSource(link, "add_egress[0]").make() for link in links]
    assert source.made == 1
    assert len({one.certificate for one in made}) == 1


async def test_a_worker_that_asks_again_gets_a_new_one_and_the_others_then_share_that() -> None:
    source = Ordinary()
    async with workers(2, source=source) as links:
        one, other = (RemoteSource(link, "add_egress[0]") for link in links)
        first = await one.make()
        second = await one.make()
        assert second.certificate != first.certificate
        assert (await other.make()).certificate == second.certificate
    assert source.made == 2


async def test_a_certificate_per_connection_is_never_shared() -> None:
    source = Ordinary()
    async with workers(2, source=source, interval=0) as links:
        made = [await RemoteSource(link, "add_egress[0]").make() for link in links]
    assert made[0].certificate != made[1].certificate


async def test_an_old_certificate_is_not_handed_to_a_worker_that_comes_later() -> None:
    seconds = 0.0
    source = Ordinary()
    shared = SharedSource(source, SHARE_FOR_S, lambda: seconds)
    first = await shared.make_for(1)
    seconds = SHARE_FOR_S - 1
    assert await shared.make_for(2) is first
    seconds = SHARE_FOR_S
    assert await shared.make_for(3) is not first


class Slow(Ordinary):
    async def make(self) -> Credential:
        await trio.sleep(1)
        return await super().make()


class Failing(Ordinary):
    async def make(self) -> Credential:
        self.made += 1
        raise EvidenceError("the agent is away")


async def test_workers_that_ask_at_the_same_time_share_one_attempt(
    autojump_clock: trio.testing.MockClock,
) -> None:
    source = Slow()
    async with workers(2, source=source) as links, trio.open_nursery() as nursery:
        for link in links:
            nursery.start_soon(RemoteSource(link, "add_egress[0]").make)
    assert source.made == 1


async def test_an_attester_that_is_away_is_an_evidence_error_for_the_worker() -> None:
    async with workers(1, source=Failing()) as [link]:
        with pytest.raises(EvidenceError, match="the agent is away"):
            await RemoteSource(link, "add_egress[0]").make()


async def test_a_supervisor_that_has_ended_gives_no_certificate() -> None:
    async with workers(1) as [link]:
        pass
    with pytest.raises(EvidenceError) as caught:
        await RemoteSource(link, "add_egress[0]").make()
    assert caught.value.code is ErrorCode.SHUTTING_DOWN


@pytest.mark.parametrize(
    ("question", "entry"),
    [
        ("judge", "add_egress[0]"),
        ("credential", "add_ingress[0]"),
        ("credential", "add_egress[1]"),
        ("verdict", "add_ingress[0]"),
    ],
)
async def test_a_question_about_something_else_is_refused(question: str, entry: str) -> None:
    config = prepare_config(json.dumps(make_config()))
    shared = SharedTrust(config, Trust(lambda _a, _c: Ordinary(), lambda _v, _c: Judge()))
    Gateway(config, SystemClock(), shared.registered())
    with pytest.raises(LocalProtocolError):
        await shared.answer(1, question, {"entry": entry})
    with pytest.raises(RemoteProtocolError):
        await shared.answer(1, "judge", {"entry": "add_ingress[0]"})


def test_sections_that_look_the_same_are_told_apart() -> None:
    text = make_config()
    text["add_egress"] = [*text["add_egress"], {**text["add_egress"][0], **mapping(7, 8)}]
    config = prepare_config(json.dumps(text))
    paths = [path_of(config, entry.attest) for entry in config.add_egress]
    assert paths == ["add_egress[0]", "add_egress[1]"]
    with pytest.raises(AssertionError):
        path_of(config, config.add_egress[0].attest.model_copy())


def test_what_peers_that_share_keys_show_and_want_has_a_path_of_its_own() -> None:
    text = make_config()
    [egress] = text["add_egress"]
    verify = text["add_ingress"][0]["verify"]
    key = {"source": "peer_shared", "rotation_interval": 300, "verify": verify}
    text["add_egress"] = [{**egress, "ohttp": {"key": {**key, "attest": egress["attest"]}}}]
    config = prepare_config(json.dumps(text))
    [entry] = config.add_egress
    shared = entry.ohttp.key
    assert path_of(config, entry.attest) == "add_egress[0]"
    assert path_of(config, shared.attest) == "add_egress[0].ohttp.key"
    assert path_of(config, shared.verify) == "add_egress[0].ohttp.key"
    with pytest.raises(AssertionError):
        path_of(config, shared.verify.model_copy())


def test_connections_are_spread_over_the_sockets_of_all_workers() -> None:
    endpoint = Endpoint("127.0.0.1", free_port())
    bound = bind_for_workers([endpoint], 2)
    try:
        clients = [socket.create_connection(("127.0.0.1", endpoint.port)) for _ in range(64)]
        counts = []
        for sockets in bound:
            [listening] = sockets[endpoint]
            listening.setblocking(False)
            counts.append(_accept_all(listening))
        assert sum(counts) == 64
        assert min(counts) > 0
        for client in clients:
            client.close()
    finally:
        close_all(bound)
    assert bound == [{}, {}]


def _accept_all(listening: socket.socket) -> int:
    count = 0
    while True:
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.parametrize("shares", [False, True])
def test_a_port_in_use_is_an_error_even_if_its_owner_would_share(shares: bool) -> None:
    free = Endpoint("127.0.0.1", free_port())
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StartError, match="in use"):
            bind_for_workers([free, Endpoint("127.0.0.1", taken.getsockname()[1])], 2)
    close_all(bind_for_workers([free], 2))  # nothing stayed open


def test_entries_that_let_the_system_choose_a_port_do_not_share_one() -> None:
    anywhere = Endpoint("127.0.0.1", 0)
    bound = bind_for_workers([anywhere, anywhere], 2)
    try:
        first, second = ([sock.getsockname() for sock in each[anywhere]] for each in bound)
        assert first == second, "all workers have the same ports, in the same order"
        assert len(set(first)) == 2
    finally:
        close_all(bound)
    assert bound == [{}, {}]


def test_a_gateway_that_shares_keeps_others_out() -> None:
    endpoint = Endpoint("127.0.0.1", free_port())
    bound = bind_for_workers([endpoint], 2)
    try:
        with pytest.raises(StartError, match="in use"):
            bind_for_workers([endpoint], 2)
    finally:
        close_all(bound)
