"""Evidence of GPUs as an agent returns it: both spellings, and every other form refused."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.evidence_text import MAX_EVIDENCE_OCTETS
from tng.attest.gpu.evidence import MAX_GPUS, parse_gpu_evidence
from tng.errors import ErrorCode, TngError, UntrustedPeerError

GOOD = {"arch": "HOPPER", "uuid": "GPU-1", "evidence": "11e0", "certificate": "QUJD"}


def evidence(*devices: object) -> bytes:
    return json.dumps({"device_evidence_list": list(devices)}).encode()


def test_reports_come_in_hexadecimal_and_in_base64():
    first, second = parse_gpu_evidence(evidence(GOOD, GOOD | {"evidence": "EeD+", "uuid": None}))
    assert (first.report, first.uuid, first.chain_pem) == (b"\x11\xe0", "GPU-1", b"ABC")
    assert (second.report, second.uuid) == (base64.b64decode("EeD+"), None)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"arch": "BLACKWELL"}, "not verified here, only HOPPER"),
        ({"arch": 1}, "needs 'arch'"),
        ({"evidence": ""}, "needs 'evidence'"),
        ({"evidence": "?"}, "'evidence' of a GPU is not base64"),
        ({"certificate": "QUJ"}, "'certificate' of a GPU is"),
        ({"certificate": None}, "needs 'certificate'"),
        ({"uuid": "a b"}, "uuid of a GPU"),
        ({"uuid": 1}, "uuid of a GPU"),
        ({"more": 1}, "unknown member 'more'"),
        ({"evidence": "a" * 200_000}, "1 to 131072 characters"),
    ],
)
def test_other_members_are_refused(change, match):
    with pytest.raises(UntrustedPeerError, match=match) as caught:
        parse_gpu_evidence(evidence(GOOD | change))
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"{", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"{}", "one member"),
        (b'{"device_evidence_list": {}}', "one member"),
        (b'{"device_evidence_list": [], "x": 1}', "one member"),
        (evidence(), "1 to 16 devices, got 0"),
        (evidence(*[GOOD] * (MAX_GPUS + 1)), "1 to 16 devices, got 17"),
        (evidence([]), "is an object"),
        (b" " * (MAX_EVIDENCE_OCTETS + 1), "at most"),
    ],
)
def test_other_documents_are_refused(data, match):
    with pytest.raises(UntrustedPeerError, match=match):
        parse_gpu_evidence(data)


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_value_gives_an_error_of_ours(value):
    for member in GOOD:
        try:
            parse_gpu_evidence(evidence(GOOD | {member: value}))
        except TngError:
            continue
