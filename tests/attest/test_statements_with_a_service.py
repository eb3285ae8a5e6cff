"""The four ways of attesting over OHTTP, each with a running attestation service."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import pytest

from tng.attest.appraiser.trustee_rest import TrusteeRestAppraiser
from tng.attest.attester.simulated import SimulatedAttester
from tng.attest.evidence import CocoToken
from tng.attest.evidence_json import dump_evidence_object, parse_evidence_object
from tng.attest.statement import Statement
from tng.attest.statement_source import StatementSource
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.attest.user_data import ClientUserData, ServerUserData, read_user_data, with_challenge
from tng.attest.verifier.factory import make_any_verifier
from tng.clock import FixedClock
from tng.config.model import Verify
from tng.endpoint import Endpoint
from tng.errors import ErrorCode, UntrustedPeerError
from tng.trustee.server import TrusteeSettings, serve

NOW = 1_795_000_000
SERVER = ServerUserData("AAAA", NOW + 600)
CLIENT = ClientUserData(bytes(range(32)))


class RunningService:
    """The embedded attestation service in a thread of its own; its clock can be moved."""

    def __init__(self, settings):
        self.clock = FixedClock(NOW)
        self.url = ""
        self._settings = settings
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()
        assert self._up.wait(20)

    async def _main(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await serve(self._settings, self.clock, ready=self._ready, stop=self._stop)

    def _ready(self, url):
        self.url = url
        self._up.set()

    def stop(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    directory = tmp_path_factory.mktemp("simulated") / "platform"
    SimulatedPlatform.create(directory, now=NOW)
    return directory


@pytest.fixture(scope="module")
def running(tmp_path_factory, platform):
    state = tmp_path_factory.mktemp("trustee") / "state"
    service = RunningService(
        TrusteeSettings(Endpoint("127.0.0.1", 0), state, simulated=platform, allow_sample=True)
    )
    yield service
    service.stop()


@pytest.fixture
def service(running):
    running.clock.at = NOW
    return running


def attester(platform):
    return SimulatedAttester(platform, clock=FixedClock(NOW))


def verifier(service, *models, **members):
    sections = tuple(
        Verify.model_validate(
            {
                "model": model,
                "as_addr": service.url,
                "policy_ids": ["default"],
                "allow_simulated": True,
                **members,
            }
        )
        for model in models
    )
    return make_any_verifier(sections, FixedClock(NOW))


async def passport_of(about, service, platform):
    appraiser = TrusteeRestAppraiser(service.url, {}, user_agent="test/1")
    source = StatementSource(attester(platform), FixedClock(NOW), appraiser, ["default"])
    try:
        return await source.passport(about)
    finally:
        await source.aclose()


async def test_a_server_answers_the_clients_challenge(service, platform):
    judge = verifier(service, "background_check")
    about = with_challenge(SERVER, await judge.challenge())
    shown = await StatementSource(attester(platform), FixedClock(NOW)).evidence(about)
    carried = parse_evidence_object(dump_evidence_object(shown))
    attested = await judge.judge_statement(Statement(carried, about), "egress")
    assert (attested.verdict.tee, attested.verdict.simulated) == ("tdx", True)
    other = dataclasses.replace(about, expire_timestamp=NOW + 601)
    with pytest.raises(UntrustedPeerError) as caught:
        await judge.judge_statement(Statement(carried, other), "egress")
    assert caught.value.code is ErrorCode.BINDING_MISMATCH
    await judge.aclose()


async def test_a_challenge_of_an_hour_ago_is_refused_by_the_service(service, platform):
    judge = verifier(service, "background_check")
    about = with_challenge(SERVER, await judge.challenge())
    shown = await StatementSource(attester(platform), FixedClock(NOW)).evidence(about)
    service.clock.at = NOW + 3600
    with pytest.raises(UntrustedPeerError) as caught:
        await judge.judge_statement(Statement(shown, about), "egress")
    assert caught.value.code is ErrorCode.STALE
    made_up = with_challenge(SERVER, "made.up.challenge")
    shown = await StatementSource(attester(platform), FixedClock(NOW)).evidence(made_up)
    with pytest.raises(UntrustedPeerError) as caught:
        await judge.judge_statement(Statement(shown, made_up), "egress")
    assert caught.value.code is ErrorCode.STALE
    await judge.aclose()


async def test_a_server_shows_a_passport(service, platform):
    judge = verifier(service, "passport")
    passport = await passport_of(SERVER, service, platform)
    statement = Statement(CocoToken(passport.token), SERVER)
    attested = await judge.judge_statement(statement, "egress")
    assert attested.verdict.valid_until == passport.expires_at
    await judge.aclose()


@pytest.mark.parametrize("model", ["background_check", "passport"])
async def test_a_client_shows_a_token_in_each_request(service, platform, model):
    judge = verifier(service, model)
    if model == "passport":
        token = (await passport_of(CLIENT, service, platform)).token
    else:
        about = with_challenge(CLIENT, await judge.challenge())
        shown = await StatementSource(attester(platform), FixedClock(NOW)).evidence(about)
        carried = parse_evidence_object(dump_evidence_object(shown))
        given = await judge.judge_statement(Statement(carried, read_user_data(carried)), "client")
        token = given.token
    statement = Statement(CocoToken(token), CLIENT)
    assert judge.judged_statement_nowait(statement) is None
    attested = await judge.judge_statement(statement, "client")
    assert judge.judged_statement_nowait(statement) is attested
    stolen = Statement(CocoToken(token), ClientUserData(bytes(32)))
    with pytest.raises(UntrustedPeerError) as caught:
        await judge.judge_statement(stolen, "thief")
    assert caught.value.code is ErrorCode.BINDING_MISMATCH
    await judge.aclose()


async def test_any_of_two_sections_takes_evidence_and_passports(service, platform):
    judge = verifier(service, "passport", "background_check")
    passport = await passport_of(SERVER, service, platform)
    token = Statement(CocoToken(passport.token), SERVER)
    assert (await judge.judge_statement(token, "a")).verdict.accepted
    about = with_challenge(SERVER, await judge.challenge())
    shown = await StatementSource(attester(platform), FixedClock(NOW)).evidence(about)
    attested = await judge.judge_statement(Statement(shown, about), "b")
    assert attested.verdict.checks[-1].name == "verify[1] policy"
    await judge.aclose()
