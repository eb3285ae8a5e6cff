"""Evidence is one JSON object, bounded, with octets as base64; anything else is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.evidence_text import MAX_EVIDENCE_OCTETS, evidence_members, member_octets
from tng.errors import ErrorCode, UntrustedPeerError


def test_members_and_the_octets_in_them_are_read() -> None:
    members = evidence_members(b'{"a":"AAE=","b":1}', "evidence")
    assert member_octets(members, "a", "evidence") == b"\0\1"
    for name, words in (("b", "needs the text member 'b'"), ("c", "needs the text member 'c'")):
        with pytest.raises(UntrustedPeerError, match=words):
            member_octets(members, name, "evidence")


@pytest.mark.parametrize("text", ["AA", "AA=", "A A=", "AA==\n", "é", "-_8="])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(UntrustedPeerError, match="'a' of evidence is not base64") as caught:
        member_octets({"a": text}, "a", "evidence")
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


def test_the_longest_evidence_is_parsed_and_no_longer_one() -> None:
    assert evidence_members(b"{}".ljust(MAX_EVIDENCE_OCTETS), "evidence") == {}
    with pytest.raises(UntrustedPeerError, match="at most"):
        evidence_members(b"{}".ljust(MAX_EVIDENCE_OCTETS + 1), "evidence")


@given(st.binary(max_size=64))
def test_garbage_is_refused_and_nothing_else_happens(data: bytes) -> None:
    with contextlib.suppress(UntrustedPeerError):
        evidence_members(data, "evidence")
