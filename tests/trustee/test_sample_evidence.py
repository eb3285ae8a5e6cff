from __future__ import annotations

import asyncio
import json

import pytest

from tng.errors import ErrorCode, UntrustedPeerError
from tng.trustee.dialects import RuntimeData, VerificationRequest
from tng.trustee.init_data import InitData
from tng.trustee.sample_evidence import SampleVerifier


def _request(evidence, digest, init_data=None):
    runtime_data = None if digest is None else RuntimeData(digest, {})
    return VerificationRequest("sample", evidence, runtime_data, init_data)


def _verify(request):
    return asyncio.run(SampleVerifier().verify(request))


def test_evidence_that_names_the_digest_passes(requests):
    request = _request(requests.sample(), requests.digest)
    claims = _verify(request)[0].claims
    assert claims["sample"] == {
        "cc_eventlog": None,
        "measure_register": "00" * 32,
        "svn": "1",
    }
    assert claims["report_data"] == json.loads(requests.sample())["report_data"]


def test_without_an_expectation_nothing_is_compared(requests):
    assert _verify(_request(requests.sample(), None))


@pytest.mark.parametrize("change", [lambda d: d + b"\0", lambda d: d[:-1], lambda d: b"\0" * 48])
def test_another_digest_is_a_mismatch_even_if_only_longer(requests, change):
    with pytest.raises(UntrustedPeerError) as caught:
        _verify(_request(requests.sample(), change(requests.digest)))
    assert caught.value.code is ErrorCode.BINDING_MISMATCH


@pytest.mark.parametrize(
    "changes",
    [
        {"svn": 1},
        {"svn": "2"},
        {"measure_register": "00"},
        {"measure_register": "zz" * 32},
        {"measure_register": None},
        {"report_data": None},
        {"report_data": "!"},
        {"report_data": "A" * 88},
        {"report_data": "ä"},
        {"cc_eventlog": "AA"},
        {"more": 1},
    ],
)
def test_other_evidence_is_malformed(requests, changes):
    with pytest.raises(UntrustedPeerError) as caught:
        _verify(_request(requests.sample(**changes), requests.digest))
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


@pytest.mark.parametrize("evidence", [b"", b"[]", b"x", b"\xff"])
def test_garbage_is_malformed(requests, evidence):
    with pytest.raises(UntrustedPeerError) as caught:
        _verify(_request(evidence, requests.digest))
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


def test_init_data_cannot_be_expected_of_sample_evidence(requests):
    request = _request(requests.sample(), requests.digest, InitData(b"x", None))
    with pytest.raises(UntrustedPeerError, match="init data"):
        _verify(request)
