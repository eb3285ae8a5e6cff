"""Tokens and challenges of the builtin service."""

from __future__ import annotations

import jwt
import pytest

from tng.attest.appraiser.ear_issuer import (
    CHALLENGE_LIFETIME_S,
    MAX_CHALLENGE,
    EarIssuer,
)
from tng.attest.ear_token import TOKEN_LIFETIME_S, Submodule
from tng.attest.policy.base import make_appraisal
from tng.attest.token import check_token
from tng.errors import ErrorCode, UntrustedPeerError

NOW = 1_800_000_000
CLAIMS = {"pubkey-hash": "abc"}


@pytest.fixture(scope="module")
def issuer():
    return EarIssuer(NOW)


def device(name="cpu0", value=2, claims=None):
    appraisal = make_appraisal("default", {"hardware": value, "executables": 2}, {})
    annotated = {"tdx": {}, "report_data": "00", "runtime_data_claims": claims or CLAIMS}
    return Submodule(name, "default", appraisal.vector, annotated)


def judge(issuer, token, *, now=NOW, anchors=None, expected=None):
    return check_token(
        token,
        anchors=anchors or [issuer.ca_certificate],
        expected_claims=expected or CLAIMS,
        policy_ids=["default"],
        now=now,
        allow_simulated=False,
    )


def test_a_token_passes_every_check_of_a_verifier(issuer):
    verdict = judge(issuer, issuer.token([device(), device("cpu1")], NOW, simulated=False))
    assert verdict.tee == "tdx"
    assert verdict.policy_ids == ("default",)
    assert verdict.expires_at == NOW + TOKEN_LIFETIME_S


@pytest.mark.parametrize(
    ("token", "changes", "code"),
    [
        ({}, {"anchors": [EarIssuer(NOW).ca_certificate]}, ErrorCode.AS_BAD_TOKEN),
        ({}, {"now": NOW + TOKEN_LIFETIME_S + 61}, ErrorCode.STALE),
        ({}, {"expected": {"pubkey-hash": "abd"}}, ErrorCode.BINDING_MISMATCH),
        ({"value": 97}, {}, ErrorCode.POLICY_DENIED),
        ({"value": 33}, {}, ErrorCode.POLICY_DENIED),
    ],
)
def test_a_token_is_refused_for_what_it_says(issuer, token, changes, code):
    text = issuer.token([device(**token)], NOW, simulated=False)
    with pytest.raises(UntrustedPeerError) as caught:
        judge(issuer, text, **changes)
    assert caught.value.code is code


def test_the_name_of_the_verifier_says_simulated(issuer):
    for simulated in (False, True):
        text = issuer.token([device()], NOW, simulated=simulated)
        claims = jwt.decode(text, options={"verify_signature": False})
        assert ("SIMULATED" in claims["ear.verifier-id"]["build"]) is simulated


def test_a_challenge_is_known_again_until_it_ends(issuer):
    challenge = issuer.challenge(NOW)
    assert len(challenge) < MAX_CHALLENGE
    issuer.check_challenge(challenge, NOW)
    issuer.check_challenge(challenge, NOW + CHALLENGE_LIFETIME_S - 1)
    assert issuer.challenge(NOW) != challenge


@pytest.mark.parametrize(
    ("make", "now"),
    [
        (lambda issuer: issuer.challenge(NOW), NOW + CHALLENGE_LIFETIME_S),
        (lambda issuer: issuer.challenge(NOW), NOW - 1),
        (lambda issuer: EarIssuer(NOW).challenge(NOW), NOW),
        (lambda issuer: issuer.challenge(NOW)[:-2], NOW),
        (lambda issuer: issuer.token([device()], NOW, simulated=False), NOW),
        (lambda issuer: "x" * (MAX_CHALLENGE + 1), NOW),
        (lambda issuer: "", NOW),
        (lambda issuer: jwt.encode({"iat": NOW, "exp": NOW + 9}, "", algorithm="none"), NOW),
    ],
)
def test_what_is_no_challenge_of_ours_is_stale(issuer, make, now):
    with pytest.raises(UntrustedPeerError) as caught:
        issuer.check_challenge(make(issuer), now)
    assert caught.value.code is ErrorCode.STALE
