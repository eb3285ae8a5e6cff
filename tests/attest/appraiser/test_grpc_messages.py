"""Messages of both generations: what they hold, and what reading an answer may come to."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.appraiser.grpc_messages import (
    flat_message,
    list_message,
    parse_challenge_message,
    parse_token_message,
)
from tng.errors import AppraiserError, UntrustedPeerError
from tng.wire.dice import CocoEvidence, HashAlgorithm
from tng.wire.protobuf import dump_fields, parse_fields

EVIDENCE = CocoEvidence("tdx", b'{"quote":""}', None, '{"a": 1}', HashAlgorithm.SHA512)
DEVICES = CocoEvidence("tdx", b"{}", b'{"nvidia":{"x":1}}', "{}", HashAlgorithm.SHA384)


def b64u(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def test_the_newer_message_has_one_entry_per_device():
    fields = parse_fields(list_message(DEVICES, ["default", "strict"]))
    assert [number for number, _ in fields] == [1, 1, 2, 2]
    assert parse_fields(fields[0][1]) == [
        (1, b"tdx"),
        (3, b64u(b"{}")),
        (5, b"{}"),
        (8, b"sha384"),
    ]
    assert parse_fields(fields[1][1]) == [(1, b"nvidia"), (3, b64u(b'{"x":1}'))]
    assert [value for _, value in fields[2:]] == [b"default", b"strict"]


def test_the_older_message_is_flat():
    assert parse_fields(flat_message(EVIDENCE, ["default"])) == [
        (1, b"tdx"),
        (2, b64u(b'{"quote":""}')),
        (4, b'{"a":1}'),
        (7, b"sha512"),
        (9, b"default"),
    ]


def test_the_older_message_leaves_no_device_out():
    with pytest.raises(AppraiserError, match="update the service"):
        flat_message(DEVICES, [])


@pytest.mark.parametrize("make", [list_message, flat_message])
def test_evidence_that_cannot_be_read_is_refused_before_anybody_is_asked(make):
    with pytest.raises(UntrustedPeerError):
        make(CocoEvidence("tdx", b"{}", None, "[]", HashAlgorithm.SHA384), [])


def test_a_token_and_a_challenge_are_read():
    assert parse_token_message(dump_fields([(1, b"a.b.c")])) == "a.b.c"
    answer = json.dumps({"nonce": "x", "extra-params": {"jwt": "d.e.f"}}).encode()
    assert parse_challenge_message(dump_fields([(1, answer)])) == "d.e.f"


@pytest.mark.parametrize(
    "message", [b"", dump_fields([(1, 5)]), dump_fields([(1, b"ab")]), b"\xff"]
)
def test_an_answer_without_a_token_is_none(message):
    with pytest.raises(AppraiserError):
        parse_token_message(message)


@given(st.binary(max_size=200))
def test_garbage_gives_a_text_or_a_defined_error(data):
    for parse in (parse_token_message, parse_challenge_message):
        with contextlib.suppress(AppraiserError):
            assert isinstance(parse(data), str)
