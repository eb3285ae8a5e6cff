"""Every check on a token of Intel Trust Authority: what passes, and the nearest that does not."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from stage.fake_ita import FakeIta
from tng.attest.checks import Findings
from tng.attest.ita_token import ISSUERS, check_ita_token
from tng.attest.jws import parse_key_id
from tng.attest.token import TokenVerdict
from tng.attest.verifier.ita_keys import parse_jwks
from tng.errors import ErrorCode, UntrustedPeerError

NOW = 1_800_000_000
CLAIMS = {"pubkey-hash": "abc"}


@pytest.fixture(scope="module")
def ita() -> FakeIta:
    return FakeIta(now=lambda: NOW)


def check(ita: FakeIta, claims: object, **changes: object) -> TokenVerdict:
    text = claims if isinstance(claims, str) else ita.sign(claims)
    settings = {
        "issuers": ISSUERS,
        "expected_claims": CLAIMS,
        "policy_ids": ["p1"],
        "now": NOW,
        "allow_simulated": False,
        "max_age_s": None,
        "findings": Findings(NOW),
        **changes,
    }
    return check_ita_token(text, settings.pop("key", ita.key.public_key()), **settings)


def test_a_token_that_answers_all_questions_passes(ita: FakeIta) -> None:
    verdict = check(ita, ita.claims({**CLAIMS, "more": 1}, ("p1", "p2")))
    assert (verdict.tee, verdict.policy_ids, verdict.simulated) == ("tdx", ("p1", "p2"), False)
    assert verdict.expires_at == NOW + 300
    assert [one.number for one in verdict.checks] == [7, 8, 9, 10, 11, 12, 13]


def test_the_references_passport_passes(shared: pathlib.Path) -> None:
    text = (shared / "vectors/ratls/ita_pp.verify_out.txt").read_text().strip().strip('"')
    keys = parse_jwks((shared / "vectors/ratls/ita/jwks.json").read_bytes())
    expected = json.loads((shared / "vectors/ratls/ita_pp.json").read_text())["evidence"]
    check_ita_token(
        text,
        keys[parse_key_id(text, "PS384")],
        issuers=ISSUERS,
        expected_claims=expected["expected_claims"],
        policy_ids=["p1"],
        now=NOW,
        allow_simulated=False,
        max_age_s=None,
        findings=Findings(NOW),
    )


def tdx(**changes: object) -> Callable[[dict], None]:
    return lambda claims: claims["tdx"].update(changes)


def top(**changes: object) -> Callable[[dict], None]:
    return lambda claims: claims.update(changes)


@pytest.mark.parametrize(
    ("spoil", "code", "number"),
    [
        (top(exp=NOW - 61), ErrorCode.STALE, 8),
        (top(exp=None), ErrorCode.AS_BAD_TOKEN, 8),
        (top(nbf=NOW + 61), ErrorCode.STALE, 8),
        (top(iss="https://portal.example"), ErrorCode.AS_BAD_TOKEN, 9),
        (top(iss=None), ErrorCode.AS_BAD_TOKEN, 9),
        (top(tdx=None), ErrorCode.AS_BAD_TOKEN, 9),
        (tdx(attester_type="SGX"), ErrorCode.AS_BAD_TOKEN, 9),
        (tdx(attester_runtime_data="e30="), ErrorCode.AS_BAD_TOKEN, 9),
        (top(policy_ids_matched="p1"), ErrorCode.AS_BAD_TOKEN, 9),
        (top(policy_ids_matched=["p1"]), ErrorCode.AS_BAD_TOKEN, 9),
        (top(policy_ids_matched=[{"id": "p1"}] * 300), ErrorCode.AS_BAD_TOKEN, 9),
        (tdx(attester_runtime_data={"pubkey-hash": "abd"}), ErrorCode.BINDING_MISMATCH, 10),
        (tdx(attester_runtime_data={}), ErrorCode.BINDING_MISMATCH, 10),
        (tdx(simulated_platform=True), ErrorCode.SIMULATED_EVIDENCE, 11),
        (tdx(tdx_is_debuggable=True), ErrorCode.DEBUG_TD, 12),
        (tdx(tdx_is_debuggable=None), ErrorCode.DEBUG_TD, 12),
        (tdx(dbgstat="enabled"), ErrorCode.DEBUG_TD, 12),
        (tdx(attester_tcb_status="Revoked"), ErrorCode.TCB_NOT_ACCEPTED, 12),
        (top(policy_ids_unmatched=[{"id": "p2"}]), ErrorCode.POLICY_DENIED, 12),
        (top(policy_ids_matched=[{"id": "p2"}]), ErrorCode.POLICY_DENIED, 13),
        (top(policy_ids_matched=None), ErrorCode.POLICY_DENIED, 13),
    ],
)
def test_a_claim_that_answers_otherwise_is_refused(
    ita: FakeIta, spoil: Callable[[dict], None], code: ErrorCode, number: int
) -> None:
    claims = ita.claims(dict(CLAIMS), ("p1",))
    spoil(claims)
    with pytest.raises(UntrustedPeerError) as refused:
        check(ita, claims)
    assert refused.value.code is code
    assert refused.value.verdict is not None
    assert refused.value.verdict.checks[-1].number == number


def test_held_data_stand_in_for_runtime_data(ita: FakeIta) -> None:
    claims = ita.claims({}, ("p1",))
    claims["tdx"] = {"attester_held_data": CLAIMS}
    check(ita, claims)


def test_policies_are_not_needed_if_none_is_configured(ita: FakeIta) -> None:
    claims = ita.claims(CLAIMS)
    del claims["policy_ids_unmatched"]
    assert check(ita, claims, policy_ids=[]).policy_ids == ()


def test_what_the_attester_wrote_does_not_make_its_platform_a_simulated_one(ita: FakeIta) -> None:
    runtime = {**CLAIMS, "simulated_platform": True}
    assert not check(ita, ita.claims(runtime, ("p1",))).simulated
    claims = ita.claims(CLAIMS, ("p1",))
    claims["tdx"]["simulated_platform"] = True
    assert check(ita, claims, allow_simulated=True).simulated


def test_a_portal_of_another_region_issues_in_its_own_name(ita: FakeIta) -> None:
    claims = {**ita.claims(CLAIMS, ("p1",)), "iss": "https://portal.eu.example"}
    check(ita, claims, issuers=ISSUERS | {"https://portal.eu.example"})


def test_a_token_over_ohttp_must_be_young(ita: FakeIta) -> None:
    claims = {**ita.claims(CLAIMS, ("p1",)), "iat": NOW - 1000, "exp": NOW + 10**6}
    assert check(ita, claims, max_age_s=2000).expires_at == NOW + 1000
    with pytest.raises(UntrustedPeerError, match="issued"):
        check(ita, claims, max_age_s=900)


def test_another_key_or_another_signature_is_refused(ita: FakeIta) -> None:
    token = ita.sign(ita.claims(CLAIMS, ("p1",)))
    other = rsa.generate_private_key(65537, 2048).public_key()
    for text, key in ((token, other), (token[:-8] + "AAAAAAAA", ita.key.public_key())):
        with pytest.raises(UntrustedPeerError) as refused:
            check(ita, text, key=key)
        assert refused.value.verdict.checks[-1].number == 7
    with pytest.raises(UntrustedPeerError, match="segments"):
        check(ita, "a.b")


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "PS256", "kid": "k"},
        {"alg": "RS384", "kid": "k"},
        {"alg": "none", "kid": "k"},
        {"alg": "PS384"},
        {"alg": "PS384", "kid": ""},
        {"alg": "PS384", "kid": 1},
        {"alg": "PS384", "kid": "k" * 300},
        {"alg": "PS384", "kid": "k", "crit": ["x"]},
    ],
)
def test_another_algorithm_or_no_key_id_is_refused(ita: FakeIta, header: dict) -> None:
    with pytest.raises(ValueError, match=r"alg|kid|crit"):
        parse_key_id(ita.sign({}, header), "PS384")
    assert parse_key_id(ita.sign({}, {"alg": "PS384", "kid": "k"}), "PS384") == "k"
