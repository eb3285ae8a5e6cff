from __future__ import annotations

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tng.errors import ErrorCode
from tng.trustee.challenge import Challenger
from tng.trustee.problems import TrusteeRequestError

NOW = 1_795_000_000


@pytest.fixture(scope="module")
def key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def challenger(key):
    return Challenger(key)


def test_a_challenge_carries_its_nonce_twice_and_keys_sorted(challenger):
    challenge = challenger.issue(NOW)
    body = challenge.dump()
    assert body.startswith(b'{"extra-params":{"jwt":"')
    answer = json.loads(body)
    assert len(base64.b64decode(answer["nonce"])) == 32
    token = answer["extra-params"]["jwt"]
    assert jwt.get_unverified_header(token)["alg"] == "RS384"
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims == {"nonce": answer["nonce"], "iat": NOW, "exp": NOW + 300}
    assert challenger.issue(NOW).nonce != challenge.nonce


@pytest.mark.parametrize("age", [0, 299])
def test_a_fresh_challenge_is_accepted(challenger, age):
    challenger.check(challenger.issue(NOW).token, NOW + age)


@pytest.mark.parametrize("age", [300, -61])
def test_a_challenge_out_of_its_time_is_stale(challenger, age):
    with pytest.raises(TrusteeRequestError, match="out of its time") as caught:
        challenger.check(challenger.issue(NOW).token, NOW + age)
    assert caught.value.code is ErrorCode.STALE
    assert caught.value.http_status == 401


def test_a_challenge_survives_a_restart_with_the_same_key(challenger, key):
    Challenger(key).check(challenger.issue(NOW).token, NOW)


def _signed(key, algorithm="RS384", **claims):
    full = {"nonce": "n", "iat": NOW, "exp": NOW + 300} | claims
    return jwt.encode({k: v for k, v in full.items() if v is not None}, key, algorithm=algorithm)


@pytest.mark.parametrize(
    "make",
    [
        lambda key: "dummy nonce",
        lambda key: "",
        lambda key: "a.b.c",
        lambda key: "ä.ö.ü",
        lambda key: "x" * 10_000,
        lambda key: _signed(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        lambda key: _signed(key, "RS256"),
        lambda key: _signed(key, "PS384"),
        lambda key: _signed("s" * 48, "HS384"),
        lambda key: _signed(None, "none"),
        lambda key: _signed(key, exp=None),
        lambda key: _signed(key, nonce=None),
        lambda key: _signed(key)[:-8] + "AAAAAAAA",
    ],
)
def test_whatever_this_service_did_not_issue_is_refused(challenger, key, make):
    with pytest.raises(TrusteeRequestError) as caught:
        challenger.check(make(key), NOW)
    assert caught.value.http_status == 401
