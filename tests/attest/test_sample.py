"""Evidence that anybody can make: its form, its binding, and its event log."""

from __future__ import annotations

import base64
import hashlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.evidence_text import MAX_EVIDENCE_OCTETS
from tng.attest.sample import judge_sample, judge_sample_device
from tng.errors import ErrorCode, TngError, UntrustedPeerError

REGISTER = "00" * 32
REPORT_DATA = base64.b64encode(b"report data").decode()


def event_log(*entries: tuple[int, int, bytes]) -> bytes:
    """A log of (register index, algorithm, digest)."""
    sizes = {0x0B: 32, 0x0C: 48}
    table = b"".join(struct.pack("<HH", number, size) for number, size in sizes.items())
    specification = b"Spec ID Event03\0" + bytes(8) + struct.pack("<I", len(sizes)) + table
    data = struct.pack("<II20xI", 0, 3, len(specification)) + specification
    for index, algorithm, digest in entries:
        data += struct.pack("<IIIH", index, 4, 1, algorithm) + digest + struct.pack("<I", 0)
    return data


def evidence(**members: object) -> bytes:
    whole = {"svn": "1", "measure_register": REGISTER, "report_data": REPORT_DATA} | members
    return json.dumps({n: v for n, v in whole.items() if v is not Ellipsis}).encode()


def judge(data: bytes, expected: bytes | None = b"report data"):
    return judge_sample(data, expected_report_data=expected)


def refused(data: bytes, code: ErrorCode, match: str, expected: bytes | None = None) -> None:
    with pytest.raises(UntrustedPeerError, match=match) as caught:
        judge(data, expected)
    assert caught.value.code is code


def test_claims_are_those_of_the_reference():
    assert judge(evidence()) == {
        "sample": {"svn": "1", "cc_eventlog": None, "measure_register": REGISTER},
        "report_data": REPORT_DATA,
    }


@pytest.mark.parametrize("expected", [b"report dat", b"report data\0", b""])
def test_report_data_compare_exactly(expected):
    refused(evidence(), ErrorCode.BINDING_MISMATCH, "report data", expected)


def test_a_log_that_leads_to_the_register_is_accepted():
    one, two = hashlib.sha256(b"1").digest(), hashlib.sha256(b"2").digest()
    register = hashlib.sha256(hashlib.sha256(bytes(32) + one).digest() + two).hexdigest()
    log = event_log((1, 0x0B, one), (2, 0x0C, bytes(48)), (1, 0x0B, two))
    text = base64.b64encode(log).decode()
    claims = judge(evidence(cc_eventlog=text, measure_register=register))
    assert claims["sample"]["cc_eventlog"] == text
    swapped = base64.b64encode(event_log((1, 0x0B, two), (1, 0x0B, one))).decode()
    bad = evidence(cc_eventlog=swapped, measure_register=register)
    refused(bad, ErrorCode.EVENT_LOG_MISMATCH, "replays to")
    empty = evidence(cc_eventlog=base64.b64encode(event_log()).decode(), measure_register=register)
    refused(empty, ErrorCode.EVENT_LOG_MISMATCH, "replays to")


def test_an_entry_without_the_digest_that_is_replayed_is_refused():
    log = base64.b64encode(event_log((1, 0x0C, bytes(48)))).decode()
    refused(evidence(cc_eventlog=log), ErrorCode.EVENT_LOG_MISMATCH, "no SHA-256 digest")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"{", "is not a JSON object"),
        (evidence(more=1), "other members"),
        (evidence(svn="2"), "needs svn, the text '1'"),
        (evidence(svn=1), "needs svn"),
        (evidence(measure_register=...), "needs measure_register"),
        (evidence(measure_register="0" * 63), "needs measure_register"),
        (evidence(report_data=...), "needs the text member .report_data"),
        (evidence(report_data="?"), "report_data. of sample evidence is not base64"),
        (evidence(report_data=base64.b64encode(bytes(65)).decode()), "more than 64"),
        (evidence(cc_eventlog=1), "needs the text member .cc_eventlog"),
        (evidence(cc_eventlog="AAAA"), "event log"),
        (b" " * (MAX_EVIDENCE_OCTETS + 1), "at most"),
    ],
)
def test_evidence_of_another_form_is_refused(data, match):
    refused(data, ErrorCode.EVIDENCE_MALFORMED, match)


def test_a_sample_device_has_another_number_and_no_register():
    device = evidence(svn="2", measure_register=...)
    claims = judge_sample_device(device, expected_report_data=b"report data")
    assert claims == {"sampledevice": {"svn": "2"}}
    for bad in (evidence(svn="1", measure_register=...), evidence(svn="2")):
        with pytest.raises(UntrustedPeerError):
            judge_sample_device(bad, expected_report_data=None)
    with pytest.raises(UntrustedPeerError, match="report data"):
        judge_sample_device(device, expected_report_data=b"other")


@given(st.binary(max_size=100), st.text(max_size=20))
def test_garbage_gives_an_error_of_ours(data, text):
    for attempt in (data, evidence(report_data=text, cc_eventlog=text)):
        with pytest.raises(TngError):
            judge(attempt)
