from __future__ import annotations

import asyncio
import base64
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


class GpuVerifier:
    """Judges two GPUs, and remembers what each question was bound to."""

    def __init__(self):
        self.bound_to = []

    async def verify(self, request):
        self.bound_to.append(request.report_data)
        gpu = AppraisedEvidence({"nvidia": {"arch": "Hopper"}}, (), False, "gpu")
        return (gpu, gpu)


class Verifier:
    """Lets everything pass with the claims it was given, or raises."""

    def __init__(self, claims=None, error=None, simulated=False):
        self.claims, self.error, self.simulated = claims, error, simulated

    async def verify(self, request):
        if self.error is not None:
            raise self.error
        return (AppraisedEvidence(self.claims, (), self.simulated),)


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


def test_submodules_are_numbered_in_their_class_and_a_gpu_is_bound_to_the_first_request(
    attest, requests
):
    body = requests.listed("tdx", b"e", "trust_all")
    own = base64.urlsafe_b64encode(b"n" * 32).rstrip(b"=").decode()
    body["verification_requests"] += [
        requests.one("nvidia", b"e", runtime_data=None, runtime_data_hash_algorithm=None),
        requests.one("tdx", b"e", runtime_data=None),
        requests.one("nvidia", b"e", runtime_data={"raw": own}),
    ]
    gpus, cpus = GpuVerifier(), Verifier({"tdx": {}, "report_data": "00"})
    claims = attest(body, tdx=cpus, nvidia=gpus)
    assert list(claims["submods"]) == ["cpu0", "gpu0", "gpu1", "cpu1", "gpu2", "gpu3"]
    assert gpus.bound_to == [requests.digest, b"n" * 32]
    named = {n: m["ear.veraison.annotated-evidence"] for n, m in claims["submods"].items()}
    assert named["gpu0"] == {"nvidia": {"arch": "Hopper"}}
    # Another trust domain is not bound to the first one's claims unless the request says so.
    assert named["cpu1"]["runtime_data_claims"] is None


def test_policies_that_read_reference_values_get_them(tmp_path, challenger, requests, shared):
    text = shared / "vectors/attestation/policies/openanolis_v1.9_ear_default_policy_cpu.rego"
    asked = []

    async def references():
        asked.append(True)
        return {"measurement.kernel_cmdline.SHA-256": ["ab"]}

    evidence = {"tpm": {"kernel_cmdline": "x", "measurement.kernel_cmdline.SHA-256": "ab"}}
    with StateDirectory.open(tmp_path / "state") as state:
        policies = Policies(state)
        asyncio.run(policies.put("mine", text.read_text()))

        def vector(policy, **more):
            service = AttestationService(
                *(make_identity(NOW), challenger, policies, {"tdx": Verifier(evidence)}),
                FixedClock(NOW),
                **more,
            )
            body = json.dumps(requests.listed("tdx", b"e", policy)).encode()
            claims = jwt.decode(
                asyncio.run(service.attest(body)), options={"verify_signature": False}
            )
            return claims["submods"]["cpu0"]["ear.trustworthiness-vector"]

        assert vector("mine", references=references)["configuration"] == 2
        assert vector("mine")["configuration"] == 36
        assert vector("default", references=references)["configuration"] == 2
    assert len(asked) == 1


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
