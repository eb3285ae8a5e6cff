"""Further devices: judged by kind, refused when nobody can judge them."""

from __future__ import annotations

import json

import pytest

from stage.gpus import NONCE, NOW, make_gpu
from tng.attest.devices import judge_device, judge_devices
from tng.attest.evidence_text import MAX_EVIDENCE_OCTETS
from tng.attest.gpu.appraisal import GpuRefused
from tng.errors import ErrorCode, UntrustedPeerError

SAMPLE = {"svn": "2", "report_data": "AQI="}


def judge(additional, expected=b"\1\2", *, allow_sample=True):
    return judge_devices(additional, expected=expected, now=NOW, allow_sample=allow_sample)


@pytest.mark.parametrize("additional", [None, b"", b"{}"])
def test_there_may_be_none(additional):
    assert judge(additional) == ()


@pytest.mark.parametrize("member", [SAMPLE, json.dumps(SAMPLE)])
def test_a_sample_device_is_of_the_class_of_gpus(member):
    (device,) = judge(json.dumps({"sampledevice": member}).encode())
    assert device.device_class == "gpu"
    assert device.claims == {"sampledevice": {"svn": "2"}}


def test_a_sample_device_must_be_asked_for_and_bound():
    additional = json.dumps({"sampledevice": SAMPLE}).encode()
    with pytest.raises(UntrustedPeerError, match=r"not judged here, only of nvidia$"):
        judge(additional, allow_sample=False)
    with pytest.raises(UntrustedPeerError, match="report data"):
        judge(additional, b"other")


def test_gpus_are_judged_under_the_makers_root():
    additional = json.dumps({"nvidia": json.loads(make_gpu().evidence())}).encode()
    with pytest.raises(GpuRefused, match="not the trusted root") as caught:
        judge(additional, NONCE)
    assert caught.value.code is ErrorCode.UNKNOWN_ROOT


def test_a_device_that_nobody_knows_is_refused():
    with pytest.raises(UntrustedPeerError, match="'tpu' is not judged here") as caught:
        judge_device("tpu", b"{}", expected=None, now=NOW, allow_sample=True)
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


@pytest.mark.parametrize("additional", [b"[]", b"{", b" " * (MAX_EVIDENCE_OCTETS + 1)])
def test_additional_evidence_of_another_form_is_refused(additional):
    with pytest.raises(UntrustedPeerError, match="additional evidence"):
        judge(additional)
