"""Several `verify` sections, of which any one may accept."""

from __future__ import annotations

import pytest
import trio

from tng.attest.binding import canonical_json, pubkey_claims
from tng.attest.checks import Step
from tng.attest.evidence import CocoToken, dump_evidence
from tng.attest.statement import Statement
from tng.attest.user_data import ClientUserData, ServerUserData, claims_of
from tng.attest.verifier.anchors import FetchedAnchors, PinnedAnchors
from tng.attest.verifier.any_of import AnyOfVerifier
from tng.attest.verifier.trustee import TrusteeRules, TrusteeVerifier
from tng.errors import AppraiserError, ErrorCode, UntrustedPeerError
from tng.verdict import Outcome
from tng.wire.dice import CocoEvidence

SERVER = ServerUserData("AAAA", 1_900_000_000, "our.challenge.x")


def background(service, clock, *policies):
    rules = TrusteeRules("background_check", policies or ("default",))
    return TrusteeVerifier(rules, service, FetchedAnchors(service), clock)


def passport(signer, clock, *policies):
    rules = TrusteeRules("passport", policies or ("default",))
    return TrusteeVerifier(rules, None, PinnedAnchors([signer.ca]), clock)


@pytest.fixture
def other(make_service, make_signer):
    """Another service, with a signer and a policy of its own."""
    service = make_service(make_signer("another AS"))
    service.policy = "strict"
    return service


@pytest.fixture
def both(service, other, clock):
    """Any of two background checks, at two services."""
    return AnyOfVerifier([background(service, clock), background(other, clock, "strict")], clock)


async def refusal(verifier, certificate):
    with pytest.raises((UntrustedPeerError, AppraiserError)) as caught:
        await verifier.judge(certificate, "peer")
    assert verifier.judged_nowait(certificate) is None
    kept = verifier.verdicts()["peer"]
    assert not kept.accepted
    assert kept.code is caught.value.code
    return caught.value


def names(verdict, outcome):
    return [check.name for check in verdict.checks if check.outcome is outcome]


async def test_the_first_that_accepts_is_enough(service, other, both, peer, autojump_clock):
    certificate = peer.evidence()
    attested = await both.judge(certificate, "x")
    assert attested.verdict.accepted
    assert attested.verdict.policy_ids == ("default",)
    assert {name.partition(" ")[0] for name in names(attested.verdict, Outcome.PASS)} == {
        "verify[0]"
    }
    assert (service.calls, other.calls) == (1, 0)
    assert both.judged_nowait(certificate) is attested
    assert both.verdicts() == {"x": attested.verdict}


async def test_a_later_one_accepts_whom_the_first_refuses(
    service, other, both, peer, autojump_clock, caplog
):
    service.change = lambda claims: claims["submods"]["cpu0"].update({"ear.status": "warning"})
    attested = await both.judge(peer.evidence(), "x")
    verdict = attested.verdict
    assert verdict.accepted
    assert verdict.policy_ids == ("strict",)
    assert [c.number for c in verdict.checks[1:]] == list(range(1, 14))
    first = verdict.checks[0]
    assert (first.number, first.name, first.outcome) == (12, "any of", Outcome.SKIP)
    assert "verify[0]" in first.detail
    assert "warning" in first.detail
    assert names(verdict, Outcome.FAIL) == []
    assert (service.calls, other.calls) == (1, 1)
    assert "peer refused" not in caplog.text


async def test_checks_of_different_sections_do_not_add_up(
    service, other, both, peer, autojump_clock
):
    """One service affirms under the wrong policy, the other has the policy and does not affirm."""
    service.policy = "lax"
    other.change = lambda claims: claims["submods"]["cpu0"].update({"ear.status": "none"})
    error = await refusal(both, peer.evidence())
    assert type(error) is UntrustedPeerError
    assert names(error.verdict, Outcome.FAIL) == ["verify[0] policy", "verify[1] appraisal result"]
    assert "verify[0]: policy: policy 'default' was not applied" in str(error)
    assert "verify[1]: appraisal result" in str(error)


async def test_a_token_of_one_service_does_not_pass_with_the_policy_of_the_other(
    signer, make_signer, clock, peer
):
    stranger = make_signer("another AS")
    verifier = AnyOfVerifier(
        [passport(signer, clock, "strict"), passport(stranger, clock, "default")], clock
    )
    error = await refusal(verifier, peer.passport(signer))
    assert names(error.verdict, Outcome.FAIL) == ["verify[0] policy", "verify[1] token signer"]
    # The code is that of the section that got furthest.
    assert error.code is ErrorCode.POLICY_DENIED
    assert error.verdict.peer


async def test_the_section_of_another_model_asks_nobody(
    signer, service, clock, peer, autojump_clock
):
    mixed = AnyOfVerifier([background(service, clock), passport(signer, clock)], clock)
    assert mixed.models == ("passport", "background_check")  # the one that is ready comes first
    assert (await mixed.judge(peer.passport(signer), "x")).verdict.accepted
    assert service.calls == 0
    attested = await mixed.judge(peer.evidence(), "y")
    assert attested.verdict.checks[0].detail.startswith("did not accept: verify[1]: evidence")
    assert service.calls == 1


async def test_a_broken_certificate_is_read_once(both, peer, service, other, autojump_clock):
    error = await refusal(both, b"no certificate")
    assert [check.number for check in error.verdict.checks] == [Step.CERTIFICATE]
    error = await refusal(both, peer.certificate(b""))
    assert error.code is ErrorCode.EVIDENCE_MISSING
    assert (service.calls, other.calls) == (0, 0)


async def test_a_service_that_is_away_leaves_it_to_the_others(
    service, other, both, peer, autojump_clock
):
    service.error = AppraiserError("connection refused")
    assert (await both.judge(peer.evidence(), "x")).verdict.accepted
    other.error = UntrustedPeerError("no", code=ErrorCode.POLICY_DENIED)
    # Whom the other refuses may be accepted by the absent one later: that is no refusal.
    error = await refusal(both, peer.evidence())
    assert both.verdicts()["peer"].code is ErrorCode.AS_UNREACHABLE
    assert type(error) is AppraiserError
    assert error.retryable
    assert "verify[0]: connection refused; verify[1]: appraisal: no" in str(error)
    assert names(both.verdicts()["peer"], Outcome.FAIL) == [
        "verify[0] appraisal",
        "verify[1] appraisal",
    ]


async def test_an_absent_service_is_asked_last(service, other, both, peer, autojump_clock):
    service.error = AppraiserError("connection refused")
    await both.judge(peer.evidence(), "x")
    assert service.calls == 1
    await both.judge(peer.certificate(_fresh(peer)), "y")
    assert (service.calls, other.calls) == (1, 2)


def _fresh(peer):
    """The same evidence in an extension that differs: with a further member of runtime data."""
    text = canonical_json({**pubkey_claims(peer.spki), "n": 1}).decode()
    return dump_evidence(CocoEvidence("tdx", b"{}", None, text))


async def test_many_at_once_ask_each_service_once(service, other, both, peer, autojump_clock):
    service.change = lambda claims: claims["submods"]["cpu0"].update({"ear.status": "warning"})
    certificate = peer.evidence()
    async with trio.open_nursery() as nursery:
        for index in range(10):
            nursery.start_soon(both.judge, certificate, str(index))
    assert (service.calls, other.calls) == (1, 1)


async def test_readiness_is_that_of_the_best(service, other, both, autojump_clock):
    assert both.not_ready.startswith("verify[0]: ")
    assert "; verify[1]: " in both.not_ready
    service.error = AppraiserError("away")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(both.run)
        await trio.sleep(1)
        assert both.not_ready is None
        nursery.cancel_scope.cancel()
    assert service.is_closed
    assert other.is_closed


async def test_closing_closes_every_service(service, other, both):
    await both.aclose()
    assert service.is_closed
    assert other.is_closed


def test_any_of_none_is_refused(clock):
    with pytest.raises(ValueError, match="no verifiers"):
        AnyOfVerifier([], clock)


# -- over OHTTP ---------------------------------------------------------------------------


def evidence(about):
    text = canonical_json(claims_of(about)).decode()
    return Statement(CocoEvidence("tdx", b"{}", None, text), about)


async def test_statements_are_judged_by_any_of_them(service, other, both, autojump_clock):
    service.error = UntrustedPeerError("not our challenge", code=ErrorCode.STALE)
    attested = await both.judge_statement(evidence(SERVER), "x")
    assert attested.verdict.policy_ids == ("strict",)
    assert both.judged_statement_nowait(evidence(SERVER)) is attested
    other.error = service.error
    bare = Statement(evidence(SERVER).shown, ServerUserData("AAAA", 1_900_000_000, "b.c.d"))
    with pytest.raises(UntrustedPeerError) as caught:
        await both.judge_statement(bare, "x")
    assert caught.value.code is ErrorCode.BINDING_MISMATCH
    assert both.judged_statement_nowait(bare) is None


async def test_a_statement_that_every_section_refuses_names_all_reasons(signer, make_signer, clock):
    client = ClientUserData(bytes(32))
    shown = CocoToken(signer.sign(signer.claims(ClientUserData(bytes(31) + b"\1").key_claims)))
    verifier = AnyOfVerifier(
        [passport(signer, clock), passport(make_signer("stranger"), clock)], clock
    )
    with pytest.raises(UntrustedPeerError) as caught:
        await verifier.judge_statement(Statement(shown, client), "x")
    assert caught.value.code is ErrorCode.BINDING_MISMATCH
    assert caught.value.verdict.peer == client.key_digest
    assert names(caught.value.verdict, Outcome.FAIL) == [
        "verify[0] key binding",
        "verify[1] token signer",
    ]


async def test_a_challenge_comes_from_the_first_service_that_gives_one(
    signer, service, other, both, clock, autojump_clock
):
    assert (await both.challenge()).startswith("c.")
    assert (service.challenges, other.challenges) == (1, 0)
    service.error = AppraiserError("away")
    await both.challenge()
    await both.challenge()
    assert (service.challenges, other.challenges) == (3, 2)
    other.error = AppraiserError("bad answer", code=ErrorCode.AS_REJECTED)
    with pytest.raises(AppraiserError, match=r"verify\[1\]: bad answer"):
        await both.challenge()


async def test_a_challenge_is_not_asked_of_a_section_for_passports(
    signer, service, clock, autojump_clock
):
    mixed = AnyOfVerifier([passport(signer, clock), background(service, clock)], clock)
    assert await mixed.challenge()
    passports = AnyOfVerifier([passport(signer, clock), passport(signer, clock)], clock)
    with pytest.raises(AppraiserError, match="no challenge") as caught:
        await passports.challenge()
    assert caught.value.code is ErrorCode.AS_REJECTED


async def test_reasons_in_a_message_are_bounded(service, other, both, peer, autojump_clock):
    service.error = other.error = UntrustedPeerError("x" * 5000, code=ErrorCode.AS_REJECTED)
    assert len(str(await refusal(both, peer.evidence()))) < 700
