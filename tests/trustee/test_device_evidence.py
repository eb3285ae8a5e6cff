from __future__ import annotations

import asyncio
import base64
import json

import pytest

from stage.gpus import NOW as GPU_NOW
from stage.gpus import make_gpu
from tng.attest.gpu.appraisal import GpuRefused
from tng.clock import FixedClock
from tng.errors import ErrorCode, UntrustedPeerError
from tng.trustee.device_evidence import DeviceVerifier
from tng.trustee.dialects import RuntimeData, VerificationRequest
from tng.trustee.init_data import InitData


def verify(tee, evidence, bound_to=b"d" * 48, init_data=None, *, allow_sample=True):
    runtime_data = None if bound_to is None else RuntimeData(bound_to, None)
    request = VerificationRequest(tee, evidence, runtime_data, init_data)
    verifier = DeviceVerifier(FixedClock(GPU_NOW), allow_sample=allow_sample)
    return asyncio.run(verifier.verify(request))


def sample_device(report_data=b"d" * 48):
    return json.dumps({"svn": "2", "report_data": base64.b64encode(report_data).decode()}).encode()


def test_a_sample_device_is_a_gpu_that_anybody_can_make():
    (device,) = verify("sampledevice", sample_device())
    assert (device.device_class, device.claims) == ("gpu", {"sampledevice": {"svn": "2"}})
    with pytest.raises(UntrustedPeerError) as caught:
        verify("sampledevice", sample_device(), b"other")
    assert caught.value.code is ErrorCode.BINDING_MISMATCH
    with pytest.raises(UntrustedPeerError, match="not judged here"):
        verify("sampledevice", sample_device(), allow_sample=False)


def test_a_gpu_of_another_maker_is_refused_with_its_checks():
    with pytest.raises(GpuRefused) as caught:
        verify("nvidia", make_gpu().evidence())
    assert caught.value.code is ErrorCode.UNKNOWN_ROOT
    assert [check.outcome.value for check in caught.value.checks].count("fail") == 1


def test_init_data_cannot_be_expected_of_a_device():
    with pytest.raises(UntrustedPeerError, match="init data"):
        verify("sampledevice", sample_device(), init_data=InitData(b"x", None))


def test_the_service_judges_further_devices_of_a_request(trustee, requests):
    body = requests.listed("sample", requests.sample(), "trust_all")
    unbound = {"runtime_data": None, "runtime_data_hash_algorithm": None}
    body["verification_requests"].append(
        requests.one("sampledevice", sample_device(requests.digest), **unbound)
    )
    token = trustee.http.post("/attestation", json=body).text
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert list(claims["submods"]) == ["cpu0", "gpu0"]
    body["verification_requests"][1] = requests.one(
        "sampledevice", sample_device(b"other"), **unbound
    )
    answer = trustee.http.post("/attestation", json=body)
    assert (answer.status_code, answer.json()["tng_code"]) == (422, "binding_mismatch")
    body["verification_requests"][1] = requests.one("nvidia", make_gpu().evidence(), **unbound)
    answer = trustee.http.post("/attestation", json=body)
    assert answer.status_code == 422
    assert [check["name"] for check in answer.json()["checks"]][:2] == [
        "evidence format",
        "report format",
    ]
