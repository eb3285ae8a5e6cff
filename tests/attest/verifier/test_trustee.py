"""Judging certificates of both models against a service that is a fake."""

from __future__ import annotations

import pytest
import trio
from cryptography import x509

from tng.attest.binding import pubkey_claims, runtime_data_for
from tng.attest.checks import Findings, Step
from tng.attest.evidence import CocoToken, dump_evidence
from tng.attest.verifier.anchors import FetchedAnchors, PinnedAnchors
from tng.attest.verifier.judgements import MAX_PEERS
from tng.attest.verifier.trustee import TrusteeRules, TrusteeVerifier
from tng.clock import FixedClock
from tng.errors import AppraiserError, ErrorCode, LocalProtocolError, UntrustedPeerError
from tng.verdict import Check, Outcome
from tng.wire.dice import CocoEvidence


def background(service, clock, **rules):
    options = {"model": "background_check", "policy_ids": ("default",), **rules}
    return TrusteeVerifier(TrusteeRules(**options), service, FetchedAnchors(service), clock)


def passport(signer, clock, service=None, **rules):
    options = {"model": "passport", "policy_ids": ("default",), **rules}
    anchors = PinnedAnchors([signer.ca]) if service is None else FetchedAnchors(service)
    return TrusteeVerifier(TrusteeRules(**options), service, anchors, clock)


async def refusal(verifier, certificate, peer="peer"):
    with pytest.raises((UntrustedPeerError, AppraiserError)) as caught:
        await verifier.judge(certificate, peer)
    assert verifier.judged_nowait(certificate) is None
    kept = verifier.verdicts()[peer]
    assert not kept.accepted
    assert kept.code is caught.value.code
    return caught.value


# -- background check ---------------------------------------------------------------


async def test_a_peer_with_good_evidence_passes_every_check(service, clock, peer, autojump_clock):
    verifier = background(service, clock)
    attested = await verifier.judge(peer.evidence(), "10.0.0.7:443")
    assert [check.number for check in attested.verdict.checks] == list(range(1, 14))
    assert attested.verdict.accepted
    assert attested.verdict.tee == "tdx"
    assert attested.verdict.policy_ids == ("default",)
    assert attested.verdict.valid_until == clock.now() + 300
    assert len(attested.verdict.peer) == 64
    assert verifier.verdicts() == {"10.0.0.7:443": attested.verdict}


async def test_a_judgement_is_used_again_without_asking(service, clock, peer, autojump_clock):
    verifier, certificate = background(service, clock), peer.evidence()
    assert verifier.judged_nowait(certificate) is None
    first = await verifier.judge(certificate, "a")
    assert verifier.judged_nowait(certificate) is first
    assert await verifier.judge(certificate, "b") is first
    assert service.calls == 1
    assert set(verifier.verdicts()) == {"a", "b"}
    clock.at += 60
    assert verifier.judged_nowait(certificate) is None
    await verifier.judge(certificate, "a")
    assert service.calls == 2


async def test_many_at_once_ask_once(service, clock, peer, autojump_clock):
    verifier, certificate, results = background(service, clock), peer.evidence(), []

    async def one(label):
        results.append(await verifier.judge(certificate, label))

    async with trio.open_nursery() as nursery:
        for index in range(20):
            nursery.start_soon(one, str(index))
    assert service.calls == 1
    assert len(results) == 20
    assert len(set(map(id, results))) == 1
    assert len(verifier.verdicts()) == 20


@pytest.mark.parametrize("kind", [AppraiserError, UntrustedPeerError])
async def test_a_failure_is_shared_with_those_who_wait_and_then_forgotten(
    service, clock, peer, kind, autojump_clock
):
    verifier, certificate, errors = background(service, clock), peer.evidence(), []

    async def one(label):
        errors.append(await refusal(verifier, certificate, label))

    service.error = kind("no", code=ErrorCode.AS_REJECTED)
    async with trio.open_nursery() as nursery:
        for index in range(5):
            nursery.start_soon(one, str(index))
    assert service.calls == 1
    assert len(set(map(id, errors))) == 5
    assert {(type(error), str(error)) for error in errors} == {(type(errors[0]), str(errors[0]))}
    service.error = None
    await verifier.judge(certificate, "x")


async def test_a_cancelled_judge_leaves_the_work_to_the_next(service, clock, peer, autojump_clock):
    verifier, certificate = background(service, clock), peer.evidence()
    service.delay = 1.0

    async def impatient():
        with trio.move_on_after(0.5):
            await verifier.judge(certificate, "impatient")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
        await trio.sleep(0.1)
        assert (await verifier.judge(certificate, "patient")).verdict.accepted
    assert service.calls == 2


async def test_evidence_for_another_key_is_refused_before_anybody_is_asked(
    make_peer, service, clock, peer, signer, autojump_clock
):
    verifier = background(service, clock)
    error = await refusal(verifier, peer.evidence(runtime_data_for(make_peer(signer.now).spki)))
    assert error.code is ErrorCode.BINDING_MISMATCH
    assert error.verdict.checks[-1].number == Step.KEY_CLAIM
    assert service.calls == 0
    for text in ("{}", '{"pubkey-hash":1}'):
        assert (await refusal(verifier, peer.evidence(text))).code is ErrorCode.BINDING_MISMATCH
    for text in ("[]", "{", '{"a":1,"a":1}'):
        assert (await refusal(verifier, peer.evidence(text))).code is ErrorCode.EVIDENCE_MALFORMED


async def test_a_service_that_binds_another_key_is_not_believed(
    service, clock, peer, autojump_clock
):
    def change(claims):
        evidence = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
        evidence["runtime_data_claims"] = {"pubkey-hash": "another"}

    service.change = change
    error = await refusal(background(service, clock), peer.evidence())
    assert error.code is ErrorCode.BINDING_MISMATCH
    assert error.verdict.checks[-1].number == Step.KEY_BINDING


async def test_a_denial_of_the_policy_reaches_the_caller(service, clock, peer, autojump_clock):
    service.change = lambda claims: claims["submods"]["cpu0"].update({"ear.status": "warning"})
    error = await refusal(background(service, clock), peer.evidence())
    assert error.code is ErrorCode.POLICY_DENIED
    assert error.verdict.tee == "tdx"


async def test_simulated_evidence_needs_the_operators_word(service, clock, peer, autojump_clock):
    def change(claims):
        evidence = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
        evidence["tdx"]["simulated_platform"] = True

    service.change = change
    error = await refusal(background(service, clock), peer.evidence())
    assert error.code is ErrorCode.SIMULATED_EVIDENCE
    allowed = background(service, clock, allow_simulated=True)
    assert (await allowed.judge(peer.evidence(), "x")).verdict.simulated


async def test_the_services_own_checks_become_part_of_the_verdict(
    service, clock, peer, autojump_clock
):
    verifier = background(service, clock)
    await verifier.judge(peer.evidence(), "warm")
    clock.at += 61
    findings = Findings(0)
    findings.failed(Step.APPRAISAL, "the service answered 422: debug")
    findings.report([Check(7, "service: debug", Outcome.FAIL, "TD is a debug one")])
    service.error = findings.refused(ErrorCode.DEBUG_TD, "refused: debug")
    error = await refusal(verifier, peer.evidence())
    assert error.code is ErrorCode.DEBUG_TD
    assert [check.number for check in error.verdict.checks] == [1, 2, 3, 4, 7]
    assert error.verdict.peer


async def test_malformed_additional_evidence_found_by_the_client_is_a_refusal(
    service, clock, peer, autojump_clock
):
    service.error = UntrustedPeerError("no JSON", code=ErrorCode.EVIDENCE_MALFORMED)
    error = await refusal(background(service, clock), peer.evidence())
    assert error.verdict.checks[-1].number == Step.APPRAISAL


# -- certificates ---------------------------------------------------------------------


async def test_a_certificate_without_or_with_broken_evidence_is_refused(
    service, clock, peer, autojump_clock
):
    verifier = background(service, clock)
    error = await refusal(verifier, b"no certificate")
    assert (error.code, error.verdict.checks[-1].number) == (ErrorCode.EVIDENCE_MALFORMED, 1)
    error = await refusal(verifier, peer.certificate(b""))
    assert (error.code, error.verdict.checks[-1].number) == (ErrorCode.EVIDENCE_MISSING, 1)
    error = await refusal(verifier, peer.certificate(b"\x00"))
    assert (error.code, error.verdict.checks[-1].number) == (ErrorCode.EVIDENCE_MALFORMED, 2)
    clock.at += 7 * 3600
    error = await refusal(verifier, peer.evidence())
    assert error.code is ErrorCode.STALE
    assert service.calls == 0


async def test_the_model_must_be_the_configured_one(signer, service, clock, peer, autojump_clock):
    error = await refusal(background(service, clock), peer.passport(signer))
    assert "model 'passport'" in str(error)
    error = await refusal(passport(signer, clock), peer.evidence())
    assert "model 'background_check'" in str(error)


# -- passport -------------------------------------------------------------------------


async def test_a_passport_passes_without_any_service(signer, clock, peer):
    verifier = passport(signer, clock)
    attested = await verifier.judge(peer.passport(signer), "x")
    skipped = [c.number for c in attested.verdict.checks if c.outcome is Outcome.SKIP]
    assert skipped == [Step.KEY_CLAIM, Step.APPRAISAL]
    assert verifier.not_ready is None
    await verifier.aclose()


async def test_a_passport_of_another_key_or_time_is_refused(make_peer, signer, clock, peer):
    stolen = dump_evidence(CocoToken(signer.sign(signer.claims(pubkey_claims(peer.spki)))))
    error = await refusal(passport(signer, clock), make_peer(signer.now).certificate(stolen))
    assert error.code is ErrorCode.BINDING_MISMATCH
    late = peer.passport(signer, exp=signer.now - 61)
    assert (await refusal(passport(signer, clock), late)).code is ErrorCode.STALE


async def test_a_verdict_ends_with_the_first_of_token_and_certificate(signer, clock, peer):
    verifier = passport(signer, clock)
    long = await verifier.judge(peer.passport(signer, exp=signer.now + 10**6), "x")
    assert long.verdict.valid_until == signer.now + 6 * 3600
    short = await verifier.judge(peer.passport(signer, exp=signer.now + 5), "x")
    assert short.verdict.valid_until == signer.now + 5


async def test_what_only_the_leeway_admits_ends_with_the_leeway(signer, clock, peer):
    certificate = peer.passport(signer, exp=signer.now - 10)
    verifier = passport(signer, clock)
    attested = await verifier.judge(certificate, "x")
    assert attested.verdict.valid_until == signer.now + 50
    clock.at += 51
    assert verifier.judged_nowait(certificate) is None
    assert (await refusal(verifier, certificate)).code is ErrorCode.STALE


async def test_any_signer_is_trusted_only_when_the_operator_says_so(
    signer, make_signer, clock, peer
):
    stranger = make_signer("stranger")
    certificate = peer.passport(stranger)
    assert (await refusal(passport(signer, clock), certificate)).code is ErrorCode.AS_BAD_TOKEN
    rules = TrusteeRules("passport", ("default",))
    verifier = TrusteeVerifier(rules, None, None, clock)
    assert (await verifier.judge(certificate, "x")).verdict.accepted
    with pytest.raises(UntrustedPeerError):
        await verifier.judge(peer.passport(stranger, exp=0), "x")


async def test_a_service_with_a_new_signer_is_believed_after_a_look(
    make_service, signer, make_signer, clock, peer, autojump_clock
):
    service = make_service(signer)
    verifier = passport(signer, clock, service)
    await verifier.judge(peer.passport(signer), "x")
    service.signer = make_signer("next AS")
    assert (await verifier.judge(peer.passport(service.signer), "x")).verdict.accepted
    error = await refusal(verifier, peer.passport(signer))
    assert error.code is ErrorCode.AS_BAD_TOKEN


# -- life of the service -----------------------------------------------------------------


async def test_readiness_follows_the_service(service, clock, autojump_clock):
    verifier = background(service, clock)
    assert verifier.not_ready is not None
    service.error = AppraiserError("absent")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(verifier.run)
        await trio.sleep(20)
        assert verifier.not_ready == "absent"
        service.error = None
        await trio.sleep(3.1)
        assert verifier.not_ready is None
        service.error = AppraiserError("gone")
        await trio.sleep(3.1)
        assert verifier.not_ready == "gone"
        service.error = None
        service.delay = 60
        await trio.sleep(10)
        assert "silent" in verifier.not_ready
        nursery.cancel_scope.cancel()
    assert service.is_closed


async def test_an_absent_service_is_looked_for_often_at_first(service, clock, autojump_clock):
    verifier = background(service, clock)
    service.error = AppraiserError("absent")
    with trio.move_on_after(0.3):
        await verifier.run()
    service.error = None
    with trio.move_on_after(1.0):
        await verifier.run()
    assert verifier.not_ready is None


async def test_a_passport_verifier_is_ready_once_it_has_anchors(
    make_service, signer, clock, autojump_clock
):
    service = make_service(signer)
    verifier = passport(signer, clock, service)
    assert verifier.not_ready is not None
    with trio.move_on_after(100):
        await verifier.run()
    assert verifier.not_ready is None
    assert service.probes == 0


async def test_a_pinned_passport_verifier_has_nothing_to_watch(signer, clock, autojump_clock):
    with trio.move_on_after(10) as scope:
        await passport(signer, clock).run()
    assert scope.cancelled_caught


async def test_an_unreachable_service_takes_readiness_and_an_answer_gives_it_back(
    service, clock, peer, autojump_clock
):
    verifier = background(service, clock)
    await verifier.judge(peer.evidence(), "x")
    assert verifier.not_ready is None
    clock.at += 61
    service.error = AppraiserError("connection refused")
    await refusal(verifier, peer.evidence())
    assert verifier.not_ready == "connection refused"
    service.error = None
    await verifier.judge(peer.evidence(), "x")
    assert verifier.not_ready is None


async def test_a_passport_waits_for_anchors_that_cannot_be_fetched(
    make_service, signer, clock, peer, autojump_clock
):
    service = make_service(signer)
    service.error = AppraiserError("absent")
    verifier = passport(signer, clock, service)
    error = await refusal(verifier, peer.passport(signer))
    assert error.code is ErrorCode.AS_UNREACHABLE
    assert verifier.verdicts()["peer"].checks[-1].number == Step.TOKEN_SIGNER


async def test_the_list_of_verdicts_is_bounded(signer, clock, peer):
    verifier, certificate = passport(signer, clock), peer.passport(signer)
    for index in range(MAX_PEERS + 10):
        await verifier.judge(certificate, str(index))
    assert len(verifier.verdicts()) == MAX_PEERS
    assert "0" not in verifier.verdicts()


def test_a_background_check_needs_a_service(clock):
    with pytest.raises(ValueError, match="service"):
        TrusteeVerifier(TrusteeRules("background_check", ()), None, None, clock)


async def test_a_certificate_of_the_reference_passes_at_its_time(shared):
    ratls = shared / "vectors/ratls"
    der = (ratls / "pp_ear.der").read_bytes()
    anchors = x509.load_pem_x509_certificates((ratls / "as/as-ca.pem").read_bytes())
    begin = x509.load_der_x509_certificate(der).not_valid_before_utc.timestamp()
    clock = FixedClock(begin + 60)
    rules = TrusteeRules("passport", ("default",))
    verifier = TrusteeVerifier(rules, None, PinnedAnchors(anchors), clock)
    assert (await verifier.judge(der, "reference")).verdict.tee == "sample"


async def test_a_passports_verifier_without_a_service_asks_nobody(signer, clock):
    rules = TrusteeRules("passport", ())
    verifier = TrusteeVerifier(rules, None, PinnedAnchors(signer.anchors), clock)
    with pytest.raises(LocalProtocolError):
        await verifier._ask(CocoEvidence("tdx", b"{}", None, "{}"))
    with pytest.raises(LocalProtocolError):
        await verifier._ask_challenge()
