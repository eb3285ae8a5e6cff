"""One judge, one attester and one set of HPKE keys for several workers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from stage.gateways import free_port, http_proxy, listen, mapping
from stage.identities import Ordinary
from stage.judges import Judge, verdict
from tng.attest.evidence import CocoToken
from tng.attest.statement import Statement
from tng.attest.statement_source import Passport, StatementSource
from tng.attest.user_data import ClientUserData, ServerUserData, UserData
from tng.clock import FixedClock, SystemClock
from tng.config.loader import prepare_config
from tng.config.ohttp import EgressOhttp
from tng.errors import (
    AppraiserError,
    ConfigError,
    ErrorCode,
    EvidenceError,
    LocalProtocolError,
    RemoteProtocolError,
    TngError,
    UntrustedPeerError,
)
from tng.gateway.app import Gateway
from tng.gateway.entries import Services, Trust
from tng.gateway.ohttp_entries import key_source
from tng.gateway.workers.link import Link
from tng.gateway.workers.news import LOOK_S, SHORTEST_LOOK_S, News
from tng.gateway.workers.ohttp_messages import dump_keyring
from tng.gateway.workers.remote import RemoteVerifier
from tng.gateway.workers.remote_keys import RemoteKeys
from tng.gateway.workers.remote_statements import RemoteStatements
from tng.gateway.workers.shared import SHARE_FOR_S, Shared, SharedTrust
from tng.gateway.workers.shared_keys import SharedKeys, run_sources
from tng.tunnel.ohttp.keyring import Key, Keyring, make_key
from tng.verdict import AttestedPeer
from tng.wire.dice import CocoEvidence, HashAlgorithm

NOW = 1_000_000.0
TOKEN = Statement(CocoToken("a.b.c"), ClientUserData(bytes(32)))
OTHER = Statement(CocoToken("a.b.d"), ClientUserData(bytes(32)))
SERVER = ServerUserData("YWJj", 1_000_000)
KEYS = "add_egress[0].ohttp.key"


class StatementJudge(Judge):
    """Accepts every statement for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.error: TngError | None = None
        self.preferred: tuple[str, ...] = ("background_check", "passport")
        self.seen: list[Statement] = []

    @property
    def models(self) -> tuple[str, ...]:
        return self.preferred

    async def judge_statement(self, statement: Statement, peer: str) -> AttestedPeer:
        self.seen.append(statement)
        if self.error is not None:
            raise self.error
        made = verdict(accepted=True, valid_until=NOW + 600)
        return AttestedPeer(dataclasses.replace(made, judged_at=NOW), "token")

    def judged_statement_nowait(self, statement: Statement) -> AttestedPeer | None:
        return None

    async def challenge(self) -> str:
        if self.error is not None:
            raise self.error
        self.asked += 1
        return f"challenge {self.asked}"


class Source(StatementSource):
    """Makes statements that say how many were made before."""

    def __init__(self) -> None:
        self.made = 0
        self.life = 4e9
        self.error: TngError | None = None
        self.asked: list[UserData] = []

    async def evidence(self, user_data: UserData) -> CocoEvidence:
        self.asked.append(user_data)
        self.made += 1
        if self.error is not None:
            raise self.error
        return CocoEvidence("tdx", b"%d" % self.made, None, "{}", HashAlgorithm.SHA384)

    async def passport(self, user_data: UserData) -> Passport:
        await trio.sleep(0.01)
        self.asked.append(user_data)
        self.made += 1
        return Passport(f"token {self.made}", self.life)

    async def aclose(self) -> None:
        pass


class Keys:
    """A key source whose ring the test sets."""

    def __init__(self, *keys: Key) -> None:
        self.keyring = Keyring(keys)
        self.not_ready = None
        self.elsewhere: list[Key] = []
        self.asked = 0
        self.error: TngError | None = None
        self.delay_s = 0.0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        if self.error is not None:
            raise self.error
        task_status.started()
        await trio.sleep_forever()

    def status(self, now: float) -> dict[str, object]:
        return {}

    async def find_elsewhere(self, public_key: bytes) -> bool:
        self.asked += 1
        await trio.sleep(self.delay_s)
        if any(key.public_key == public_key for key in self.elsewhere):
            self.keyring = Keyring([*self.keyring, *self.elsewhere])
            return True
        return False


def a_key(number: int = 0, begins: float = NOW) -> Key:
    return make_key(number, X25519PrivateKey.generate(), begins, 300)


def make_config(interval: int = 600, key: dict[str, object] | None = None) -> dict[str, object]:
    attest = {
        "aa_type": "simulated",
        "simulated_platform": "/nowhere",
        "refresh_interval": interval,
    }
    check = {"as_addr": "http://127.0.0.1:1/", "policy_ids": ["default"]}
    egress: dict[str, object] = {**mapping(5, 6), "attest": attest, "ohttp": {}}
    if key is not None:
        egress["ohttp"] = {"key": key}
    return {
        "add_ingress": [
            {**http_proxy(4), "ohttp": {}, "verify": check},
            {**http_proxy(7), "ohttp": {}, "verify": [check, {**check, "model": "passport"}]},
        ],
        "add_egress": [egress],
    }


class Stage:
    """A supervisor's trust, and links of workers to it."""

    def __init__(
        self, judge: StatementJudge | None = None, interval: int = 600, keys: Keys | None = None
    ) -> None:
        self.judge = judge or StatementJudge()
        self.source = Source()
        self.keys = keys or Keys(a_key())
        self.trust = Trust(
            lambda _a, _c: Ordinary(),
            lambda _v, _c: self.judge,
            lambda _a, _c: self.source,
            lambda _w, _s, _v: self.keys,
        )
        config = prepare_config(json.dumps(make_config(interval)))
        self.shared = SharedTrust(config, self.trust)
        self.gateway = Gateway(config, FixedClock(NOW), self.shared.registered())

    @asynccontextmanager
    async def workers(self, count: int = 1) -> AsyncIterator[list[Link]]:
        async with trio.open_nursery() as nursery:
            links = []
            for number in range(count):
                ours, theirs = trio.testing.memory_stream_pair()

                async def answer(
                    question: str, carried: dict[str, object], n: int = number
                ) -> object:
                    return await self.shared.answer(n, question, carried)

                nursery.start_soon(Link(ours, answer).run)
                links.append(Link(theirs, answer))
                nursery.start_soon(links[-1].run)
            yield links
            nursery.cancel_scope.cancel()


def verifier(link: Link, now: float = NOW) -> tuple[RemoteVerifier, FixedClock]:
    clock = FixedClock(now)
    return RemoteVerifier(link, "add_ingress[0]", ["background_check"], clock), clock


# -- the judge ----------------------------------------------------------------------------


async def test_a_statement_that_passed_is_remembered_by_the_worker_that_asked() -> None:
    stage = Stage()
    async with stage.workers() as [link]:
        remote, clock = verifier(link)
        assert remote.judged_statement_nowait(TOKEN) is None
        first = await remote.judge_statement(TOKEN, "peer")
        assert await remote.judge_statement(TOKEN, "peer") == first
        assert remote.judged_statement_nowait(TOKEN) == first
        assert remote.judged_statement_nowait(OTHER) is None
        assert stage.judge.seen == [TOKEN]
        clock.at = NOW + 59
        assert remote.judged_statement_nowait(TOKEN) == first
        clock.at = NOW + 60
        assert remote.judged_statement_nowait(TOKEN) is None


async def test_a_verdict_that_has_ended_is_no_pass() -> None:
    async with Stage().workers() as [link]:
        remote, _ = verifier(link, NOW + 600)
        with pytest.raises(AppraiserError) as caught:
            await remote.judge_statement(TOKEN, "peer")
        assert caught.value.code is ErrorCode.STALE


async def test_a_refused_statement_arrives_with_its_checks_and_is_never_remembered() -> None:
    stage = Stage()
    stage.judge.error = UntrustedPeerError("no", verdict=verdict(accepted=False))
    async with stage.workers() as [link]:
        remote, _ = verifier(link)
        for _ in range(2):
            with pytest.raises(UntrustedPeerError) as caught:
                await remote.judge_statement(TOKEN, "peer")
            assert caught.value.verdict == verdict(accepted=False)
        assert remote.judged_statement_nowait(TOKEN) is None
    assert len(stage.judge.seen) == 2


async def test_every_challenge_is_asked_for_anew() -> None:
    stage = Stage()
    async with stage.workers() as [link]:
        remote, _ = verifier(link)
        assert [await remote.challenge() for _ in range(2)] == ["challenge 1", "challenge 2"]
        stage.judge.error = AppraiserError("away")
        with pytest.raises(AppraiserError, match="away"):
            await remote.challenge()
    with pytest.raises(AppraiserError) as caught:
        await remote.challenge()
    assert caught.value.code is ErrorCode.SHUTTING_DOWN


async def test_a_worker_prefers_what_the_supervisors_judge_prefers() -> None:
    async with Stage().workers() as [link]:
        models = ["background_check", "passport", "background_check"]
        remote = RemoteVerifier(link, "add_ingress[1]", models, FixedClock(NOW))
        assert remote.models == ("background_check", "passport")
        remote.prefer(["passport", "background_check"])
        assert remote.models == ("passport", "background_check")
        remote.prefer(["unheard-of"])  # nothing that the configuration does not name
        assert remote.models == ("passport", "background_check")


# -- statements of our own ----------------------------------------------------------------


def statements(link: Link, model: str = "passport") -> RemoteStatements:
    return RemoteStatements(link, "add_egress[0]", model)


async def test_evidence_is_made_for_every_challenge() -> None:
    stage = Stage()
    about = dataclasses.replace(SERVER, challenge_token="c")
    async with stage.workers(2) as links:
        made = [await statements(link, "background_check").evidence(about) for link in links]
        assert [one.aa_evidence for one in made] == [b"1", b"2"]
        assert stage.source.asked == [about, about]
        assert statements(links[0], "background_check").model == "background_check"
        await statements(links[0]).aclose()


async def test_workers_share_a_passport_about_the_same_key(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stage = Stage()
    got: list[Passport] = []

    async def ask(link: Link) -> None:
        got.append(await statements(link).passport(SERVER))

    async with stage.workers(3) as links:
        async with trio.open_nursery() as nursery:
            for link in links:
                nursery.start_soon(ask, link)
        assert got == [Passport("token 1", 4e9)] * 3
        again = [await statements(link).passport(SERVER) for link in links]
        assert again == [Passport("token 2", 4e9)] * 3  # each had the first: they want a new one


async def test_a_passport_about_another_key_is_another_passport() -> None:
    stage = Stage()
    other = ServerUserData("YWJk", 1_000_000)
    clients = [ClientUserData(bytes(32))] * 2
    async with stage.workers(2) as [one, another]:
        await statements(one).passport(SERVER)
        assert (await statements(another).passport(other)).token == "token 2"
        for link, about in zip((one, another), clients, strict=True):
            await statements(link).passport(about)  # a client's key is one worker's own
    assert stage.source.asked == [SERVER, other, *clients]


async def test_a_passport_that_is_about_to_end_is_not_handed_on() -> None:
    stage = Stage()
    async with stage.workers(2) as [one, another]:
        stage.source.life = NOW + 31
        assert (await statements(one).passport(SERVER)).token == "token 1"
        assert (await statements(another).passport(SERVER)).token == "token 1"
        stage.source.life = NOW + 30
        await statements(one).passport(SERVER)
        stage.source.life = NOW + 600
        made = stage.source.made
        await statements(another).passport(SERVER)
        assert stage.source.made == made + 1


async def test_with_an_interval_of_zero_no_passport_is_shared() -> None:
    stage = Stage(interval=0)
    async with stage.workers(2) as links:
        tokens = [(await statements(link).passport(SERVER)).token for link in links]
    assert tokens == ["token 1", "token 2"]


async def test_an_old_thing_is_not_handed_to_a_worker_that_comes_later() -> None:
    seconds, made = 0.0, 0

    async def make() -> int:
        nonlocal made
        made += 1
        return made

    shared = Shared[int](SHARE_FOR_S, lambda: seconds)
    assert await shared.get(1, None, make) == 1
    seconds = SHARE_FOR_S - 1
    assert await shared.get(2, None, make) == 1
    seconds = SHARE_FOR_S
    assert await shared.get(3, None, make) == 2


async def test_a_tee_that_gives_nothing_is_an_evidence_error_for_the_worker() -> None:
    stage = Stage()
    stage.source.error = EvidenceError("the agent is away")
    async with stage.workers() as [link]:
        with pytest.raises(EvidenceError, match="the agent is away"):
            await statements(link).evidence(SERVER)
    with pytest.raises(EvidenceError) as caught:
        await statements(link).passport(SERVER)
    assert caught.value.code is ErrorCode.SHUTTING_DOWN


@pytest.mark.parametrize(
    ("question", "entry"),
    [
        ("judge_statement", "add_egress[0]"),
        ("challenge", "add_egress[0]"),
        ("evidence", "add_ingress[0]"),
        ("passport", "add_ingress[0]"),
        ("find_key", "add_egress[0]"),
        ("find_key", "add_egress[1].ohttp.key"),
    ],
)
async def test_a_question_about_something_else_is_refused(question: str, entry: str) -> None:
    with pytest.raises(LocalProtocolError):
        await Stage().shared.answer(1, question, {"entry": entry})


@pytest.mark.parametrize(
    ("question", "entry"),
    [
        ("judge_statement", "add_ingress[0]"),
        ("evidence", "add_egress[0]"),
        ("passport", "add_egress[0]"),
        ("find_key", KEYS),
    ],
)
async def test_a_question_that_lacks_what_it_is_about_is_refused(question: str, entry: str) -> None:
    with pytest.raises(RemoteProtocolError):
        await Stage().shared.answer(1, question, {"entry": entry})


# -- keys ---------------------------------------------------------------------------------


def remote_keys(link: Link, now: float = NOW) -> RemoteKeys:
    return RemoteKeys(link, KEYS, FixedClock(now))


async def test_a_worker_that_has_no_active_key_says_so() -> None:
    async with Stage().workers() as [link]:
        keys = remote_keys(link)
        assert keys.not_ready == "no OHTTP key is active"
        keys.take({"serial": 1, "keys": dump_keyring(Keyring([a_key(begins=NOW - 300)]))})
        assert keys.not_ready == "no OHTTP key is active"


async def test_a_worker_has_the_keys_that_it_was_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stage = Stage()
    async with stage.workers() as [link], trio.open_nursery() as nursery:
        keys = remote_keys(link)
        keys.take(stage.shared.keys[KEYS].telling())
        await nursery.start(keys.run)
        assert keys.not_ready is None
        assert list(keys.keyring) == list(stage.keys.keyring)
        [shown] = keys.status(NOW)["local_keys"]
        assert shown["status"] == "Active"
        nursery.cancel_scope.cancel()


async def test_keys_that_were_overtaken_are_passed_over() -> None:
    async with Stage().workers() as [link]:
        keys, first, second = remote_keys(link), a_key(1), a_key(2)
        keys.take({"serial": 2, "keys": dump_keyring(Keyring([second]))})
        keys.take({"serial": 1, "keys": dump_keyring(Keyring([first]))})
        assert list(keys.keyring) == [second]
        with pytest.raises(RemoteProtocolError):
            keys.take({"serial": 3, "keys": [None]})
        assert list(keys.keyring) == [second]


async def test_a_key_that_was_not_told_yet_is_asked_for() -> None:
    stage = Stage()
    async with stage.workers() as [link]:
        keys = remote_keys(link)
        keys.take(stage.shared.keys[KEYS].telling())
        new = a_key(1)
        stage.keys.keyring = Keyring([*stage.keys.keyring, new])
        assert await keys.find_elsewhere(new.public_key)
        assert keys.keyring.find(new.public_key, NOW) == new
        assert stage.keys.asked == 0
        assert await keys.find_elsewhere(new.public_key)


async def test_a_key_that_a_peer_of_the_supervisor_has_is_found() -> None:
    stage, foreign = Stage(), a_key(9)
    stage.keys.elsewhere = [foreign]
    async with stage.workers() as [link]:
        keys = remote_keys(link)
        assert await keys.find_elsewhere(foreign.public_key)
        assert keys.keyring.find(foreign.public_key, NOW) == foreign
        assert stage.keys.asked == 1


async def test_a_key_that_nobody_has_is_not_found() -> None:
    stage = Stage()
    async with stage.workers() as [link]:
        keys = remote_keys(link)
        assert not await keys.find_elsewhere(a_key().public_key)
        assert stage.keys.asked == 1
        for nonsense in (b"", b"x" * 31, b"x" * 1000):
            assert not await keys.find_elsewhere(nonsense)
        assert stage.keys.asked == 1  # what is no key is not asked for
    assert not await keys.find_elsewhere(a_key().public_key)  # the supervisor has ended


async def test_unknown_keys_are_asked_for_one_at_a_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stage = Stage()
    stage.keys.delay_s = 1.0
    async with stage.workers() as [link]:
        keys = remote_keys(link)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(keys.find_elsewhere, a_key().public_key)
        assert trio.current_time() - began == pytest.approx(3.0)


class Hearing:
    """A worker's end of a link that writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, object]]] = []
        self.on_keys = lambda: None

    async def answer(self, question: str, carried: dict[str, object]) -> dict[str, object]:
        self.heard.append((question, carried))
        if question == "keys":
            self.on_keys()
        return {}

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            link = Link(ours, self.answer)
            nursery.start_soon(link.run)
            nursery.start_soon(Link(theirs, self.answer).run)
            yield link
            nursery.cancel_scope.cancel()


async def test_a_worker_is_told_of_every_change_and_of_nothing_twice(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keys, judge, worker = Keys(a_key()), StatementJudge(), Hearing()
    async with worker.link() as link, trio.open_nursery() as nursery:
        shared = {KEYS: SharedKeys(keys, FixedClock(NOW))}
        news = News(link, shared, {"add_ingress[1]": judge})
        await news.catch_up()
        assert [question for question, _ in worker.heard] == ["keys", "models"]
        nursery.start_soon(news.follow)
        await trio.sleep(1)
        assert len(worker.heard) == 2
        keys.keyring = Keyring([a_key(1)])
        await trio.sleep(LOOK_S + 0.01)
        assert [question for question, _ in worker.heard] == ["keys", "models", "keys"]
        assert worker.heard[2][1]["serial"] == 2
        judge.preferred = ("passport", "background_check")
        await trio.sleep(LOOK_S + 0.01)
        assert worker.heard[3][1] == {"entry": "add_ingress[1]", "models": list(judge.models)}
        keys.keyring = Keyring([make_key(2, X25519PrivateKey.generate(), NOW, 1)])
        await trio.sleep(LOOK_S + 0.01)
        keys.keyring = Keyring([make_key(3, X25519PrivateKey.generate(), NOW, 1)])
        await trio.sleep(SHORTEST_LOOK_S + 0.01)  # such keys do not wait for long
        assert worker.heard[-1][1]["serial"] == 4
        nursery.cancel_scope.cancel()


async def test_keys_that_change_while_a_worker_starts_are_told_before_it_serves() -> None:
    keys, worker = Keys(a_key()), Hearing()
    newer = a_key(1)

    def change() -> None:
        if len(worker.heard) == 1:
            keys.keyring = Keyring([newer])

    worker.on_keys = change
    async with worker.link() as link:
        await News(link, {KEYS: SharedKeys(keys, FixedClock(NOW))}, {}).catch_up()
    assert [carried["serial"] for _, carried in worker.heard] == [1, 2]
    assert worker.heard[1][1]["keys"] == dump_keyring(Keyring([newer]))


async def test_where_there_is_nothing_to_tell_nobody_waits_for_news() -> None:
    worker = Hearing()
    async with worker.link() as link:
        news = News(link, {}, {})
        await news.catch_up()
        await news.follow()
    assert worker.heard == []


def test_only_judges_with_several_sections_may_change_their_preference() -> None:
    assert list(Stage().shared.undecided) == ["add_ingress[1]"]


async def test_a_source_that_cannot_begin_says_so() -> None:
    keys = Keys()
    keys.error = ConfigError(["no such file"])
    with pytest.raises(ExceptionGroup) as caught:
        await run_sources({KEYS: SharedKeys(keys, FixedClock(NOW))}, None)
    assert caught.group_contains(ConfigError, match="no such file")


@pytest.mark.slow
async def test_peers_that_share_keys_meet_the_supervisor_and_not_its_workers() -> None:
    """Two supervisors share keys over the reactors of gateways that never serve."""
    ports = [free_port(), free_port()]
    async with trio.open_nursery() as nursery:
        supervisors = []
        for own, other in (ports, ports[::-1]):
            key = {
                "source": "peer_shared",
                "rotation_interval": 300,
                **listen(own),
                "peers": [f"127.0.0.1:{other}"],
                "no_ra": True,
            }
            config = prepare_config(json.dumps(make_config(key=key)))
            shared = SharedTrust(config, Trust())
            Gateway(config, SystemClock(), shared.registered())
            assert shared.services is not None
            supervisors.append(shared)
        with trio.fail_after(10):
            async with trio.open_nursery() as starting:
                for shared in supervisors:
                    starting.start_soon(nursery.start, run_sources, shared.keys, shared.services)
            [one, other] = [shared.keys[KEYS] for shared in supervisors]
            offered = one.source.keyring.active(SystemClock().now())
            assert offered is not None
            assert await other.find(offered.public_key) != {}
        nursery.cancel_scope.cancel()


async def test_a_way_to_peers_that_breaks_ends_the_supervisor() -> None:
    services: list[Services] = []

    def note(where: str, settings: EgressOhttp, given: Services) -> Keys:
        services.append(given)
        assert where == KEYS
        assert key_source(where, EgressOhttp(), given).not_ready is not None
        return Keys(a_key())

    config = prepare_config(json.dumps(make_config()))
    shared = SharedTrust(config, dataclasses.replace(Stage().trust, make_key_source=note))
    Gateway(config, FixedClock(NOW), shared.registered())
    assert shared.services is None  # nothing here needs a way to peers
    reactor = services[0].reactor

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(run_sources, shared.keys, services[0])
            assert reactor.on_crash is not None
            reactor.on_crash()

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(TngError, match="peers that share keys")
