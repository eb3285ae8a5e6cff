"""Reports of GPUs: what is read, and that every other form is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.gpu.spdm import MAX_REPORT_OCTETS, parse_report
from tng.errors import ErrorCode, TngError, UntrustedPeerError


def refused(data: bytes, match: str) -> None:
    with pytest.raises(UntrustedPeerError, match=match) as caught:
        parse_report(data)
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


def test_a_report_comes_apart(gpu):
    data = gpu.report()
    report = parse_report(data)
    assert report.nonce == gpu.nonce
    assert report.measurements == {1: b"\1" * 48, 2: b"\2" * 48}
    assert report.signed_part + report.signature == data


def test_zeros_may_follow_a_report_and_nothing_else(gpu):
    data = gpu.report()
    assert parse_report(data + bytes(3)) == parse_report(data)
    refused(data + b"\0\1", "padding")


def test_every_cut_report_is_refused(gpu):
    data = gpu.report()
    for length in range(len(data)):
        with pytest.raises(UntrustedPeerError):
            parse_report(data[:length])


def test_a_report_has_a_greatest_size():
    refused(bytes(MAX_REPORT_OCTETS + 1), "at most")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"question": b"\x10\xe0\x01\xff"}, "question begins with 10e0"),
        ({"question": b"\x11\xe1\x01\xff"}, "question begins with"),
        ({"question": b"\x11\xe0\x00\xff"}, "all measurements, signed"),
        ({"question": b"\x11\xe0\x01\x01"}, "all measurements, signed"),
        ({"answer": b"\x11\x7f\x01\x00"}, "answer begins with 117f"),
        ({"slot": 8}, "slot is 0 to 7"),
        ({"blocks": ()}, "at least one"),
    ],
)
def test_other_messages_are_refused(gpu, change, match):
    refused(gpu.but(**change).report(), match)


def test_blocks_of_other_forms_are_refused(gpu):
    one, two = gpu.blocks
    refused(gpu.but(blocks=(one, one)).report(), "each of its blocks once")
    refused(gpu.but(blocks=(one[:1] + b"\2" + one[2:], two)).report(), "no DMTF measurement")
    refused(gpu.but(blocks=(b"\0" + one[1:], two)).report(), "no DMTF measurement")
    longer = one[:2] + (int.from_bytes(one[2:4], "little") + 1).to_bytes(2, "little") + one[4:]
    refused(gpu.but(blocks=(longer + b"x", two)).report(), "1 octets after the value")
    whole = gpu.report()
    refused(whole[:41] + b"\1" + whole[42:], "no more")


@given(st.binary(max_size=300))
def test_garbage_gives_an_error_of_ours(data):
    for attempt in (data, b"\x11\xe0\x01\xff" + bytes(33) + b"\x11\x60\0\0" + data):
        try:
            parse_report(attempt)
        except TngError:
            continue
