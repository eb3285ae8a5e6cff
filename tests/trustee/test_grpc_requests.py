"""Messages of both generations become the body that says the same over REST."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.appraiser.grpc_messages import flat_message, list_message
from tng.attest.appraiser.trustee_messages import attestation_body, flat_body
from tng.errors import RemoteProtocolError
from tng.trustee.dialects import parse_attestation_request
from tng.trustee.grpc_requests import body_of
from tng.trustee.problems import TrusteeRequestError
from tng.wire.dice import CocoEvidence, HashAlgorithm
from tng.wire.protobuf import dump_fields

EVIDENCE = CocoEvidence("tdx", b'{"q":1}', None, '{"b":1,"a":"x"}', HashAlgorithm.SHA256)
DEVICES = CocoEvidence("tdx", b"{}", b'{"csv":{}}', "{}", HashAlgorithm.SHA384)


def entry(*fields):
    return (1, dump_fields(fields))


@pytest.mark.parametrize("evidence", [EVIDENCE, DEVICES])
def test_the_newer_message_says_the_same_as_the_list(evidence):
    message, body = (make(evidence, ["default"]) for make in (list_message, attestation_body))
    assert parse_attestation_request(body_of(message)) == parse_attestation_request(body)


def test_the_older_message_says_the_same_as_the_flat_form():
    message, body = (make(EVIDENCE, ["default"]) for make in (flat_message, flat_body))
    assert parse_attestation_request(body_of(message)) == parse_attestation_request(body)


def test_every_field_of_the_newer_message_has_its_member():
    device = [(1, b"tdx"), (3, b"e30"), (4, b"AA"), (7, b"toml"), (8, b"sha512"), (9, b"more")]
    assert json.loads(body_of(dump_fields([entry(*device), (2, b"p"), (2, b"q")]))) == {
        "verification_requests": [
            {
                "tee": "tdx",
                "evidence": "e30",
                "runtime_data": {"raw": "AA"},
                "init_data": {"init_data_toml": "toml"},
                "runtime_data_hash_algorithm": "sha512",
                "additional_data": "more",
            }
        ],
        "policy_ids": ["p", "q"],
    }


def test_every_field_of_the_older_message_has_its_member():
    fields = [(1, b"tdx"), (2, b"e30"), (3, b"AA"), (6, b'{"x":1}'), (7, b"sha256")]
    assert json.loads(body_of(dump_fields([*fields, (8, b"sha384"), (9, b"p")]))) == {
        "tee": "tdx",
        "evidence": "e30",
        "runtime_data": {"raw": "AA"},
        "init_data": {"structured": {"x": 1}},
        "runtime_data_hash_algorithm": "sha256",
        "init_data_hash_algorithm": "sha384",
        "policy_ids": ["p"],
    }


def test_an_empty_text_is_an_absent_one():
    message = dump_fields([entry((1, b"tdx"), (3, b"e30"), (8, b""))])
    assert json.loads(body_of(message))["verification_requests"] == [
        {"tee": "tdx", "evidence": "e30"}
    ]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\xff", "the message"),
        (dump_fields([(3, b"x")]), "unknown field 3"),
        (dump_fields([(1, 5)]), "unknown field 1"),
        (dump_fields([entry((1, b"tdx"), (2, b"e30"))]), "unknown field 2"),
        (dump_fields([entry((1, b"tdx"), (10, b"x"))]), "unknown field 10"),
        (dump_fields([(1, b"tdx"), (10, b"x")]), "unknown field 10"),
        (dump_fields([entry((1, b"tdx"), (1, b"csv"))]), "one value"),
        (dump_fields([entry((1, b"tdx"), (4, b"AA"), (5, b"{}"))]), "one value"),
        (dump_fields([entry((1, b"tdx"), (5, b"[]"))]), "JSON object"),
        (dump_fields([entry((1, b"tdx"), (5, b'{"a":1,"a":2}'))]), "JSON object"),
        (dump_fields([entry((1, b"tdx"), (3, b"\xff"))]), "UTF-8"),
        (dump_fields([entry((1, 7))]), "got a number"),
        (dump_fields([(1, b"\x0a\x09")]), "cut short"),
        (dump_fields([(1, b"tdx"), (9, 3)]), "got a number"),
    ],
)
def test_what_has_no_one_meaning_is_refused(message, words):
    with pytest.raises(TrusteeRequestError, match=words):
        body_of(message)


@given(st.binary(max_size=300))
def test_garbage_becomes_a_request_or_a_refusal(data):
    with contextlib.suppress(TrusteeRequestError, RemoteProtocolError):
        parse_attestation_request(body_of(data))
