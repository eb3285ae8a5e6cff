"""Peers with evidence and tokens for Intel Trust Authority, judged with a fake of it."""

from __future__ import annotations

import json

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding

from stage.fake_ita import KEY, fake_guest, fake_ita
from tng.attest.appraiser.ita import ItaAppraiser
from tng.attest.attester.asr import AsrAttester
from tng.attest.attester.ita import ItaAttester
from tng.attest.binding import runtime_data_for
from tng.attest.credential_source import CredentialSource
from tng.attest.evidence import CocoToken, ItaToken, dump_evidence
from tng.attest.statement import Statement
from tng.attest.statement_source import StatementSource
from tng.attest.user_data import ClientUserData, ServerUserData, with_challenge
from tng.attest.verifier.factory import make_verifier
from tng.attest.verifier.ita import ItaVerifier
from tng.attest.verifier.ita_keys import ItaKeys, parse_jwks
from tng.attest.verifier.service import Rules
from tng.clock import FixedClock, SystemClock
from tng.config.model import Verify
from tng.config.secret import Secret
from tng.errors import (
    AppraiserError,
    ConfigError,
    ErrorCode,
    LocalProtocolError,
    UntrustedPeerError,
)
from tng.wire.dice import CocoEvidence
from tng.wire.ita_evidence import ItaEvidence

CLOCK = SystemClock()
SERVER = ServerUserData("AAAA", 4_000_000_000)
CLIENT = ClientUserData(bytes(range(32)))
NONCE = "/appraisal/v2/nonce"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with fake_ita(tmp_path_factory.mktemp("ita")) as service, fake_guest() as guest:
        yield service, guest


@pytest.fixture
def ita(running, monkeypatch):
    service, guest = running
    monkeypatch.setenv("SSL_CERT_FILE", str(service.ca))
    yield service
    service.answers.clear()
    service.requests.clear()
    service.change = lambda _claims: None
    guest.change = lambda data: data


@pytest.fixture
def attester(running):
    return ItaAttester(AsrAttester(running[1].url))


def section(ita, **members):
    members = {"as_addr": ita.api, "api_key": KEY, "policy_ids": ["p1"], **members}
    members = {"as_provider": "ita", "ita_jwks_addr": ita.portal, **members}
    return Verify.model_validate({k: v for k, v in members.items() if v is not None})


def passports(ita):
    return make_verifier(section(ita, model="passport", as_addr=None, api_key=None), CLOCK)


async def certificate(attester, appraiser=None):
    credential = await CredentialSource(attester, CLOCK, appraiser, ["p1"]).make()
    return credential.certificate.public_bytes(Encoding.DER)


async def test_a_certificate_with_evidence_is_accepted(ita, attester):
    verifier = make_verifier(section(ita), CLOCK)
    der = await certificate(attester)
    judged = await verifier.judge(der, "peer")
    assert judged.verdict.tee == "tdx"
    assert judged.verdict.policy_ids == ("p1",)
    assert [check.number for check in judged.verdict.checks] == list(range(1, 14))
    assert verifier.judged_nowait(der) is judged
    assert verifier.models == ("background_check",)
    await verifier.aclose()


async def test_a_certificate_with_a_token_is_accepted_without_asking_the_service(ita, attester):
    appraiser = ItaAppraiser(ita.api, Secret(KEY), user_agent="t")
    der = await certificate(attester, appraiser)
    await appraiser.aclose()
    ita.requests.clear()
    verifier = passports(ita)
    assert (await verifier.judge(der, "peer")).verdict.accepted
    assert [path for path, _, _ in ita.requests] == ["/certs"]
    with pytest.raises(AppraiserError, match="passport"):
        await verifier.challenge()
    await verifier.aclose()


async def test_evidence_over_another_key_is_refused_before_the_service_is_asked(
    ita, attester, peer
):
    evidence = await attester.collect(runtime_data_for(b"another key"))
    verifier = make_verifier(section(ita), FixedClock(peer.now))
    with pytest.raises(UntrustedPeerError) as refused:
        await verifier.judge(peer.certificate(dump_evidence(evidence)), "peer")
    assert refused.value.code is ErrorCode.BINDING_MISMATCH
    assert ita.requests == []
    await verifier.aclose()


async def test_evidence_that_the_service_refuses_is_refused(ita, attester, running):
    running[1].change = lambda data: bytes(64)
    verifier = make_verifier(section(ita), CLOCK)
    with pytest.raises(UntrustedPeerError, match="report data"):
        await verifier.judge(await certificate(attester), "peer")
    await verifier.aclose()


@pytest.mark.parametrize("shown", [CocoEvidence("tdx", b"{}", None, "{}"), CocoToken("a.b.c")])
async def test_what_was_made_for_trustee_is_refused(ita, peer, shown):
    verifier = make_verifier(section(ita), FixedClock(peer.now))
    with pytest.raises(UntrustedPeerError, match="provider 'coco'") as refused:
        await verifier.judge(peer.certificate(dump_evidence(shown)), "peer")
    assert refused.value.code is ErrorCode.EVIDENCE_MALFORMED
    await verifier.aclose()


@pytest.mark.parametrize("shown", [ItaEvidence(b"q", b"{}"), ItaToken("a.b.c")])
async def test_trustee_is_not_shown_what_was_made_for_intel(peer, shown):
    coco = Verify.model_validate({"as_addr": "http://127.0.0.1:1", "policy_ids": ["p"]})
    verifier = make_verifier(coco, FixedClock(peer.now))
    with pytest.raises(UntrustedPeerError, match="provider 'ita'"):
        await verifier.judge(peer.certificate(dump_evidence(shown)), "peer")
    await verifier.aclose()


async def test_the_other_model_is_refused(ita, attester):
    verifier = passports(ita)
    with pytest.raises(UntrustedPeerError, match="background_check"):
        await verifier.judge(await certificate(attester), "peer")
    await verifier.aclose()


@pytest.mark.parametrize("about", [SERVER, CLIENT])
async def test_a_statement_that_answers_the_nonce_is_accepted(ita, attester, about):
    verifier = make_verifier(section(ita), CLOCK)
    asked = with_challenge(about, await verifier.challenge())
    source = StatementSource(attester, CLOCK)
    assert source.provider == "ita"
    evidence = await source.evidence(asked)
    judged = await verifier.judge_statement(Statement(evidence, asked), "peer")
    assert judged.verdict.accepted
    later = with_challenge(about, await verifier.challenge())
    with pytest.raises(UntrustedPeerError) as refused:
        await verifier.judge_statement(Statement(evidence, later), "peer")
    assert refused.value.code is ErrorCode.BINDING_MISMATCH
    await verifier.aclose()


async def test_the_nonce_beside_the_evidence_is_the_one_among_the_claims(ita, attester):
    verifier = make_verifier(section(ita), CLOCK)
    asked = with_challenge(CLIENT, await verifier.challenge())
    evidence = await StatementSource(attester, CLOCK).evidence(asked)
    without = ItaEvidence(evidence.tdx_quote, evidence.runtime_data)
    with pytest.raises(UntrustedPeerError, match="nonce") as refused:
        await verifier.judge_statement(Statement(without, asked), "peer")
    assert refused.value.code is ErrorCode.BINDING_MISMATCH
    await verifier.aclose()


async def test_a_servers_passport_over_ohttp_is_accepted_for_its_own_key_alone(ita, attester):
    appraiser = ItaAppraiser(ita.api, Secret(KEY), user_agent="t")
    source = StatementSource(attester, CLOCK, appraiser, ["p1"])
    passport = await source.passport(SERVER)
    assert passport.provider == "ita"
    verifier = passports(ita)
    await verifier.judge_statement(Statement(ItaToken(passport.token), SERVER), "peer")
    with pytest.raises(UntrustedPeerError) as refused:
        await verifier.judge_statement(Statement(ItaToken(passport.token), CLIENT), "peer")
    assert refused.value.code is ErrorCode.BINDING_MISMATCH
    with pytest.raises(UntrustedPeerError, match="provider"):
        await verifier.judge_statement(Statement(CocoToken(passport.token), SERVER), "peer")
    await source.aclose()
    await verifier.aclose()


async def test_a_token_of_an_unknown_key_makes_the_keys_be_asked_for_once(ita, attester, peer):
    verifier = make_verifier(section(ita, model="passport"), FixedClock(peer.now))
    unknown = ita.sign({}, {"alg": "PS384", "kid": "other"})
    for _ in range(3):
        with pytest.raises(UntrustedPeerError, match="kid") as refused:
            await verifier.judge(peer.certificate(dump_evidence(ItaToken(unknown))), "peer")
        assert refused.value.verdict.checks[-1].number == 6
    assert [path for path, _, _ in ita.requests] == ["/certs"]
    wrong = ita.sign({}, {"alg": "PS256", "kid": ita.kid})
    with pytest.raises(UntrustedPeerError, match="PS384"):
        await verifier.judge(peer.certificate(dump_evidence(ItaToken(wrong))), "peer")
    await verifier.aclose()


async def test_without_the_portal_nobody_is_judged(ita, attester):
    ita.answers["/certs"] = (500, b"")
    verifier = make_verifier(section(ita), CLOCK)
    with pytest.raises(AppraiserError, match=r"answered 500"):
        await verifier.judge(await certificate(attester), "peer")
    assert "500" in verifier.not_ready
    await verifier.aclose()


async def test_a_portal_with_an_unknown_certificate_is_not_believed(ita, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    keys = ItaKeys(ita.portal, user_agent="t")
    with pytest.raises(AppraiserError, match="ita_jwks_addr") as refused:
        await keys.find(ita.kid)
    assert refused.value.code is ErrorCode.AS_UNREACHABLE
    assert ita.requests == []
    await keys.aclose()


async def test_without_the_service_nobody_is_judged(ita, attester):
    der = await certificate(attester)
    verifier = make_verifier(section(ita, api_key="wrong"), CLOCK)
    with pytest.raises(AppraiserError, match="api_key"):
        await verifier.judge(der, "peer")
    with pytest.raises(AppraiserError, match="api_key"):
        await verifier.challenge()
    await verifier.aclose()


async def test_a_service_that_answered_is_not_asked_just_to_see(ita, nursery):
    verifier = make_verifier(section(ita), CLOCK)
    nursery.start_soon(verifier.run)
    with trio.fail_after(5):
        while verifier.not_ready is not None:
            await trio.sleep(0.005)
    for _ in range(3):
        await verifier._service.probe()
    assert [path for path, _, _ in ita.requests] == ["/certs", NONCE]
    verifier._service.forget()
    await verifier._service.probe()
    assert [path for path, _, _ in ita.requests] == ["/certs", NONCE, NONCE]
    nursery.cancel_scope.cancel()


def test_keys_come_over_https_alone(ita):
    for url in ("http://127.0.0.1:1", "ftp://x"):
        with pytest.raises(ConfigError, match="https"):
            ItaKeys(url, user_agent="t")


async def test_a_background_check_needs_a_service(ita):
    keys = ItaKeys(ita.portal, user_agent="t")
    with pytest.raises(ValueError, match="service"):
        ItaVerifier(Rules("background_check", ()), None, keys, CLOCK)
    verifier = ItaVerifier(Rules("passport", ()), None, keys, CLOCK)
    with pytest.raises(LocalProtocolError):
        await verifier._ask(ItaEvidence(b"q", b"{}"))
    with pytest.raises(LocalProtocolError):
        await verifier._ask_challenge()
    await verifier._service.probe()
    await verifier.aclose()


def jwks(ita, **changes):
    return json.dumps({"keys": [{**ita.jwks()["keys"][0], **changes}]}).encode()


def test_a_key_set_is_read(ita):
    assert list(parse_jwks(jwks(ita, use="sig"))) == [ita.kid]
    both = ita.jwks()["keys"] + [{"kty": "EC", "kid": "x"}]
    assert list(parse_jwks(json.dumps({"keys": both}).encode())) == [ita.kid]


@pytest.mark.parametrize(
    "changes",
    [{"alg": "RS256"}, {"use": "enc"}, {"kty": "EC"}, {"kid": None}, {"kid": ""}, {"n": "AQAB"}],
)
def test_a_key_for_something_else_is_no_key(ita, changes):
    with pytest.raises(ValueError, match=r"key|kid|bits"):
        parse_jwks(jwks(ita, **changes))


def test_another_document_is_no_key_set(ita):
    twice = json.dumps({"keys": ita.jwks()["keys"] * 2}).encode()
    many = json.dumps({"keys": ita.jwks()["keys"] * 40}).encode()
    for body in (b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":[1]}', twice, many):
        with pytest.raises(ValueError, match=r".+"):
            parse_jwks(body)


class Portal:
    """Keys over no network at all."""

    def __init__(self, ita):
        self.ita, self.calls, self.answer = ita, 0, None

    async def call(self, method, path, content, limit):
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or (200, jwks(self.ita))

    async def aclose(self):
        pass


async def test_keys_are_kept_for_an_hour_and_a_failure_for_a_moment(ita, mock_clock):
    keys = ItaKeys(ita.portal, user_agent="t")
    keys._exchange = portal = Portal(ita)
    await keys.get()
    assert await keys.find(ita.kid) is not None
    assert await keys.find("other") is None
    assert portal.calls == 1
    mock_clock.jump(31)
    assert await keys.find("other") is None
    assert portal.calls == 2
    mock_clock.jump(3601)
    portal.answer = AppraiserError("away")
    for _ in range(2):
        with pytest.raises(AppraiserError, match="away"):
            await keys.find(ita.kid)
    assert portal.calls == 3
    mock_clock.jump(1)
    portal.answer = (404, b"")
    with pytest.raises(AppraiserError) as refused:
        await keys.find(ita.kid)
    assert refused.value.code is ErrorCode.AS_REJECTED
    mock_clock.jump(1)
    portal.answer = (200, b"{}")
    with pytest.raises(AppraiserError):
        await keys.find(ita.kid)
    mock_clock.jump(1)
    portal.answer = None
    assert await keys.find(ita.kid) is not None
