from __future__ import annotations

import asyncio
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tng.clock import FixedClock
from tng.errors import AppraiserError, ErrorCode
from tng.trustee.appraised import AppraisedEvidence
from tng.trustee.attestation import AttestationService
from tng.trustee.challenge import Challenger
from tng.trustee.identity import make_identity
from tng.trustee.policies import Policies
from tng.trustee.state import StateDirectory

NOW = 1_795_000_000


class Verifier:
    """Lets everything pass with the claims it was given, or raises."""

    def __init__(self, claims=None, error=None, simulated=False):
        self.claims, self.error, self.simulated = claims, error, simulated

    async def verify(self, request):
        if self.error is not None:
            raise self.error
        return AppraisedEvidence(self.claims, (), self.simulated)


@pytest.fixture(scope="module")
def challenger():
    return Challenger(rsa.generate_private_key(public_exponent=65537, key_size=2048))


@pytest.fixture
def attest(tmp_path, challenger):
    with StateDirectory.open(tmp_path / "state") as state:

        def run(body, **verifiers):
            service = AttestationService(
                make_identity(NOW), challenger, Policies(state), verifiers, FixedClock(NOW)
            )
            token = asyncio.run(service.attest(json.dumps(body).encode()))
            return jwt.decode(token, options={"verify_signature": False})

        yield run


def test_claims_that_were_hashed_stand_beside_the_register_that_held_the_hash(attest, requests):
    toml = 'algorithm = "sha384"\nversion = "1"\n[data]\na = "b"\n'
    body = requests.listed("tdx", b"e", init_data={"init_data_toml": toml})
    claims = attest(body, tdx=Verifier({"tdx": {}, "report_data": "00", "init_data": "11"}))
    assert claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"] == {
        "tdx": {},
        "report_data": "00",
        "init_data": "11",
        "runtime_data_claims": requests.claims,
        "init_data_claims": {"a": "b"},
    }


def test_claims_without_a_register_are_left_out(attest, requests):
    claims = attest(requests.listed("tdx", b"e"), tdx=Verifier({"tdx": {}}))
    assert claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"] == {"tdx": {}}


def test_one_simulated_device_marks_the_whole_token(attest, requests):
    body = requests.listed("tdx", b"e")
    body["verification_requests"].append(requests.one("sample", b"e"))
    verifiers = {"tdx": Verifier({}, simulated=True), "sample": Verifier({})}
    assert attest(body, **verifiers)["ear.verifier-id"]["build"].endswith("SIMULATED")


def test_trouble_with_a_dependency_is_logged_and_passed_on(attest, requests, caplog):
    error = AppraiserError("no PCCS", code=ErrorCode.COLLATERAL_UNAVAILABLE)
    with pytest.raises(AppraiserError):
        attest(requests.listed("tdx", b"e"), tdx=Verifier(error=error))
    assert "evidence not judged tee=tdx code=collateral_unavailable: no PCCS" in caplog.text


def test_a_challenge_is_checked_before_the_evidence(attest, requests, challenger):
    requests.claims["challenge_token"] = challenger.issue(NOW).token
    attest(requests.listed("tdx", b"e"), tdx=Verifier({}))
    requests.claims["challenge_token"] = challenger.issue(NOW - 400).token
    with pytest.raises(Exception, match="out of its time") as caught:
        attest(requests.listed("tdx", b"e"), tdx=Verifier(error=AssertionError("judged")))
    assert caught.value.code is ErrorCode.STALE
