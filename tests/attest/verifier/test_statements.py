"""Judging what peers show over OHTTP: evidence that answers a challenge, and tokens."""

from __future__ import annotations

import base64
import dataclasses
import json

import pytest
import trio

from tng.attest.binding import canonical_json
from tng.attest.checks import Step
from tng.attest.evidence import CocoToken
from tng.attest.evidence_json import parse_evidence_object
from tng.attest.statement import Statement
from tng.attest.user_data import ClientUserData, ServerUserData, claims_of, parse_key_config
from tng.attest.verifier.anchors import FetchedAnchors, PinnedAnchors
from tng.attest.verifier.trustee import TrusteeRules, TrusteeVerifier
from tng.clock import FixedClock
from tng.errors import AppraiserError, ErrorCode, UntrustedPeerError
from tng.verdict import Outcome
from tng.wire.dice import CocoEvidence

SERVER = ServerUserData("AAAA", 1_900_000_000, "our.challenge.x")
CLIENT = ClientUserData(bytes(range(32)), "our.challenge.x")
DAY = 86400


def background(service, clock, **rules):
    options = {"model": "background_check", "policy_ids": ("default",), **rules}
    return TrusteeVerifier(TrusteeRules(**options), service, FetchedAnchors(service), clock)


def passport(signer, clock, **rules):
    options = {"model": "passport", "policy_ids": ("default",), **rules}
    return TrusteeVerifier(TrusteeRules(**options), None, PinnedAnchors([signer.ca]), clock)


def evidence(about, claims=None, text=None):
    """A statement whose evidence says that it is about `claims`, by default what it should be."""
    text = text or canonical_json(claims or claims_of(about)).decode()
    return Statement(CocoEvidence("tdx", b"{}", None, text), about)


def token(signer, about, claims=None, **changes):
    """A statement with a token that vouches for `claims`, by default for challenge and key."""
    claims = {"challenge_token": "their.challenge.x", **about.key_claims, **(claims or {})}
    return Statement(CocoToken(signer.sign({**signer.claims(claims), **changes})), about)


async def refusal(verifier, statement, number=None):
    with pytest.raises((UntrustedPeerError, AppraiserError)) as caught:
        await verifier.judge_statement(statement, "peer")
    assert verifier.judged_statement_nowait(statement) is None
    kept = verifier.verdicts()["peer"]
    assert not kept.accepted
    assert kept.code is caught.value.code
    assert number is None or kept.checks[-1].number == number
    return caught.value


# -- background check -------------------------------------------------------------------


@pytest.mark.parametrize("about", [SERVER, CLIENT])
async def test_evidence_about_challenge_and_key_passes_every_check(
    service, clock, about, autojump_clock
):
    verifier = background(service, clock)
    attested = await verifier.judge_statement(evidence(about), "http://egress")
    verdict = attested.verdict
    assert verdict.accepted
    assert [check.number for check in verdict.checks] == list(range(1, 14))
    assert [c.number for c in verdict.checks if c.outcome is Outcome.SKIP] == [Step.CERTIFICATE]
    assert verdict.peer == about.key_digest
    assert (verdict.tee, verdict.valid_until) == ("tdx", clock.now() + 300)
    assert verifier.verdicts() == {"http://egress": verdict}
    assert verifier.models == ("background_check",)


@pytest.mark.parametrize(
    "claims",
    [
        {**claims_of(SERVER), "challenge_token": "an.older.challenge"},
        {**claims_of(SERVER), "hpke_key_config": {**SERVER.key_config, "expire_timestamp": 1}},
        {
            **claims_of(SERVER),
            "hpke_key_config": {**SERVER.key_config, "encoded_key_config_list": "AAAB"},
        },
        {**claims_of(SERVER), "hpke_key_config": {**SERVER.key_config, "more": 1}},
        {**claims_of(SERVER), "hpke_key_config": None},
        {"challenge_token": "our.challenge.x"},
        SERVER.key_claims,
        claims_of(CLIENT),
    ],
)
async def test_evidence_about_anything_else_is_refused_before_anybody_is_asked(
    service, clock, claims, autojump_clock
):
    error = await refusal(background(service, clock), evidence(SERVER, claims), Step.KEY_CLAIM)
    assert error.code is ErrorCode.BINDING_MISMATCH
    assert service.calls == 0


async def test_evidence_may_say_more_than_it_must(service, clock, autojump_clock):
    statement = evidence(SERVER, {**claims_of(SERVER), "build": [1, {"a": None}]})
    assert (await background(service, clock).judge_statement(statement, "x")).verdict.accepted


@pytest.mark.parametrize(
    "change",
    [
        lambda text: " " + text,
        lambda text: text.replace('":"', '": "'),
        lambda text: json.dumps(dict(reversed(list(json.loads(text).items())))),
        lambda text: text.replace("our", "\\u006fur"),
        lambda text: text[:-1] + ',"n":1e0}',
        lambda text: text[:-1] + ',"n":12345678901234567890123}',
        lambda text: text[:-1] + ',"n":"\\ud800"}',
        lambda text: text[:-1] + ',"challenge_token":"our.challenge.x"}',
        lambda text: f"[{text}]",
        lambda _: "{",
        lambda _: "\ud800",
    ],
)
async def test_runtime_data_that_is_not_canonical_is_refused(
    service, clock, change, autojump_clock
):
    text = canonical_json(claims_of(SERVER)).decode()
    statement = evidence(SERVER, text=change(text))
    error = await refusal(background(service, clock), statement, Step.KEY_CLAIM)
    assert error.code is ErrorCode.EVIDENCE_MALFORMED
    assert service.calls == 0


@pytest.mark.parametrize("about", [SERVER, CLIENT])
async def test_evidence_that_answers_no_challenge_is_refused(service, clock, about, autojump_clock):
    bare = dataclasses.replace(about, challenge_token=None)
    error = await refusal(background(service, clock), evidence(bare), Step.KEY_CLAIM)
    assert error.code is ErrorCode.STALE


@pytest.mark.parametrize("missing", ["challenge_token", "hpke_key_config"])
async def test_a_service_that_vouches_for_something_else_is_not_believed(
    service, clock, missing, autojump_clock
):
    def change(claims):
        inner = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
        del inner["runtime_data_claims"][missing]

    service.change = change
    error = await refusal(background(service, clock), evidence(SERVER), Step.KEY_BINDING)
    assert error.code is ErrorCode.BINDING_MISMATCH


async def test_a_server_must_attest_in_the_configured_model(signer, service, clock, autojump_clock):
    error = await refusal(background(service, clock), token(signer, SERVER), Step.EVIDENCE_FORMAT)
    assert "model 'passport'" in str(error)
    error = await refusal(passport(signer, clock), evidence(SERVER), Step.EVIDENCE_FORMAT)
    assert "model 'background_check'" in str(error)
    await refusal(passport(signer, clock), evidence(CLIENT), Step.EVIDENCE_FORMAT)


async def test_a_judgement_is_used_again_for_the_same_question_only(service, clock, autojump_clock):
    verifier, statement = background(service, clock), evidence(SERVER)
    first = await verifier.judge_statement(statement, "a")
    assert verifier.judged_statement_nowait(evidence(SERVER)) is first
    assert await verifier.judge_statement(statement, "b") is first
    assert service.calls == 1
    for about in (
        dataclasses.replace(SERVER, expire_timestamp=1_900_000_001),
        dataclasses.replace(SERVER, challenge_token="our.other.x"),
    ):
        assert verifier.judged_statement_nowait(Statement(statement.shown, about)) is None
        await refusal(verifier, Statement(statement.shown, about), Step.KEY_CLAIM)
    clock.at += 60
    assert verifier.judged_statement_nowait(statement) is None


async def test_many_at_once_ask_once(service, clock, autojump_clock):
    verifier = background(service, clock)
    async with trio.open_nursery() as nursery:
        for index in range(10):
            nursery.start_soon(verifier.judge_statement, evidence(SERVER), str(index))
    assert service.calls == 1
    assert len(verifier.verdicts()) == 10


async def test_a_service_that_is_away_is_no_refusal(service, clock, autojump_clock):
    service.error = AppraiserError("connection refused")
    verifier = background(service, clock)
    assert type(await refusal(verifier, evidence(SERVER))) is AppraiserError
    assert verifier.not_ready == "connection refused"


# -- challenges -------------------------------------------------------------------------


async def test_challenges_come_from_the_service_that_judges(service, clock, autojump_clock):
    verifier = background(service, clock)
    assert await verifier.challenge() != await verifier.challenge()
    service.error = AppraiserError("bad answer", code=ErrorCode.AS_REJECTED)
    with pytest.raises(AppraiserError, match="bad answer"):
        await verifier.challenge()
    assert "not answered yet" in str(verifier.not_ready)
    service.error = AppraiserError("away")
    with pytest.raises(AppraiserError, match="away"):
        await verifier.challenge()
    assert verifier.not_ready == "away"


async def test_a_passport_needs_no_challenge(signer, service, clock):
    rules = TrusteeRules("passport", ())
    for asked in (None, service):
        verifier = TrusteeVerifier(rules, asked, PinnedAnchors([signer.ca]), clock)
        with pytest.raises(AppraiserError, match="passport") as caught:
            await verifier.challenge()
        assert caught.value.code is ErrorCode.AS_REJECTED
    assert service.challenges == 0


# -- tokens -----------------------------------------------------------------------------


@pytest.mark.parametrize("about", [SERVER, CLIENT])
@pytest.mark.parametrize("kind", ["claims", "simple_claims"])
async def test_a_token_about_the_key_passes_without_our_challenge(signer, clock, about, kind):
    verifier = passport(signer, clock)
    claims = getattr(signer, kind)({**about.key_claims, "challenge_token": "their", "more": 1})
    statement = Statement(CocoToken(signer.sign(claims)), about)
    attested = await verifier.judge_statement(statement, "x")
    assert attested.verdict.accepted
    assert attested.token == statement.shown.text
    assert attested.verdict.peer == about.key_digest
    assert verifier.judged_statement_nowait(statement) is attested
    skipped = [c.number for c in attested.verdict.checks if c.outcome is Outcome.SKIP]
    assert skipped == [Step.CERTIFICATE, Step.KEY_CLAIM, Step.APPRAISAL]


@pytest.mark.parametrize(
    "config",
    [
        {**SERVER.key_config, "expire_timestamp": 1_900_000_001},
        {**SERVER.key_config, "expire_timestamp": "1900000000"},
        {**SERVER.key_config, "encoded_key_config_list": "AAAB"},
        {**SERVER.key_config, "more": 1},
        {"encoded_key_config_list": "AAAA"},
        None,
        "AAAA",
    ],
)
async def test_a_token_about_another_key_configuration_is_refused(signer, clock, config):
    statement = token(signer, SERVER, {"hpke_key_config": config})
    error = await refusal(passport(signer, clock), statement, Step.KEY_BINDING)
    assert error.code is ErrorCode.BINDING_MISMATCH


async def test_a_token_for_another_claim_is_refused(signer, clock):
    verifier = passport(signer, clock)
    for shown, about in (
        (token(signer, CLIENT), SERVER),
        (token(signer, SERVER), CLIENT),
        (token(signer, ClientUserData(bytes(32))), CLIENT),
        (token(signer, CLIENT, {"pk_s": None}), CLIENT),
    ):
        error = await refusal(verifier, Statement(shown.shown, about), Step.KEY_BINDING)
        assert error.code is ErrorCode.BINDING_MISMATCH


async def test_a_passport_is_stale_after_a_day_however_long_its_expiry(signer, clock):
    verifier = passport(signer, clock)
    long = {"exp": signer.now + 10**8}
    good = await verifier.judge_statement(token(signer, SERVER, **long), "x")
    assert good.verdict.valid_until == signer.now + DAY
    leeway = token(signer, SERVER, **long, iat=signer.now - DAY - 60)
    attested = await verifier.judge_statement(leeway, "x")
    assert attested.verdict.valid_until == signer.now
    for dates in (
        {**long, "iat": signer.now - DAY - 61},
        {**long, "iat": signer.now + 61},
        {"exp": signer.now - 61},
    ):
        error = await refusal(verifier, token(signer, SERVER, **dates), Step.TOKEN_TIME)
        assert error.code is ErrorCode.STALE


async def test_an_egress_takes_a_clients_token_in_either_model_and_asks_nobody(
    signer, service, clock, autojump_clock
):
    verifier, statement = background(service, clock), token(signer, CLIENT)
    assert (await verifier.judge_statement(statement, "x")).verdict.accepted
    assert service.calls == 0
    # Nobody was asked, so nothing is known of the service.
    assert verifier.not_ready is not None
    error = await refusal(verifier, token(signer, CLIENT, exp=0))
    assert error.code is ErrorCode.STALE


async def test_the_rules_of_the_section_hold_for_tokens_too(
    signer, make_signer, service, clock, autojump_clock
):
    strict = passport(signer, clock, policy_ids=("other",))
    assert (await refusal(strict, token(signer, CLIENT), Step.POLICY)).code is (
        ErrorCode.POLICY_DENIED
    )
    stranger = token(make_signer("stranger"), CLIENT)
    assert (await refusal(background(service, clock), stranger, Step.TOKEN_SIGNER)).code is (
        ErrorCode.AS_BAD_TOKEN
    )


# -- the reference ----------------------------------------------------------------------


def _claims(text):
    payload = text.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


async def test_what_the_reference_shows_is_judged_at_its_time(shared):
    folder = shared / "vectors/ohttp"
    vector = json.loads((folder / "11-server-attest-passport.json").read_text())
    answer = json.loads(vector["exchanges"][0]["outer_response"]["body_decoded"])
    text = answer["attestation_info"]["attestation_result"]
    about = parse_key_config(answer["hpke_key_config"])
    clock = FixedClock(_claims(text)["iat"] + 10.0)
    verifier = TrusteeVerifier(TrusteeRules("passport", ("default",)), None, None, clock)
    attested = await verifier.judge_statement(Statement(CocoToken(text), about), "reference")
    assert attested.verdict.tee == "sample"
    other = dataclasses.replace(about, expire_timestamp=about.expire_timestamp + 1)
    await refusal(verifier, Statement(CocoToken(text), other), Step.KEY_BINDING)
    clock.at += DAY
    await refusal(verifier, Statement(CocoToken(text), about), Step.TOKEN_TIME)


async def test_the_references_clients_are_judged_by_the_token_in_their_requests(shared):
    folder = shared / "vectors/ohttp"
    for name in ("12-client-attest-background-check", "13-client-attest-passport", "14-mutual"):
        (path,) = folder.glob(f"{name}*.json")
        tunnels = [e for e in json.loads(path.read_text())["exchanges"] if "api" not in e]
        metadata = tunnels[0]["metadata"]
        text = metadata["attestation_result"]
        about = ClientUserData(bytes.fromhex(metadata["pk_s"]))
        clock = FixedClock(_claims(text)["iat"] + 10.0)
        verifier = TrusteeVerifier(TrusteeRules("passport", ("default",)), None, None, clock)
        await verifier.judge_statement(Statement(CocoToken(text), about), "client")
        stolen = Statement(CocoToken(text), ClientUserData(bytes(32)))
        await refusal(verifier, stolen, Step.KEY_BINDING)


async def test_the_references_evidence_is_about_its_key_configuration(
    shared, service, clock, autojump_clock
):
    path = shared / "vectors/ohttp/10-server-attest-background-check.json"
    first = json.loads(path.read_text())["exchanges"][0]
    request, answer = (
        json.loads(body)
        for body in (first["outer_request"]["body"], first["outer_response"]["body_decoded"])
    )
    challenge = request["attestation_request"]["challenge_token"]
    about = parse_key_config(answer["hpke_key_config"])
    about = dataclasses.replace(about, challenge_token=challenge)
    shown = parse_evidence_object(answer["attestation_info"]["evidence"])
    verifier = background(service, clock)
    assert (await verifier.judge_statement(Statement(shown, about), "x")).verdict.accepted
    other = dataclasses.replace(about, challenge_token=challenge[:-1])
    await refusal(verifier, Statement(shown, other), Step.KEY_CLAIM)
