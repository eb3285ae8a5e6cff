"""Evidence for Intel Trust Authority in control messages, and nonces as text."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.evidence import make_token, provider_of
from tng.attest.evidence_json import dump_evidence_object, parse_evidence_object, parse_token_text
from tng.attest.ita_json import (
    MAX_NONCE_JSON,
    dump_ita_object,
    dump_nonce_text,
    parse_ita_object,
    parse_nonce_text,
)
from tng.errors import ErrorCode, RemoteProtocolError

# As TNG 2.12.0 wrote it, with a quote that is none.
OBJECT = {
    "tdx_quote": "RkFLRQ==",
    "nonce": {"val": "VlZW", "iat": "MjAyNg==", "signature": "U1NT"},
    "runtime_data": "e30=",
    "nvgpu_evidence": {
        "evidence": "Njc=",
        "certificate": "LS0tLS1CRUdJTg==",
        "arch": "HOPPER",
        "runtime_data_hash": "dc90455a6511266227b22ed0d3e8e522fbd4026bf2bfd43d1c323935125d7e29",
    },
}
GPU = OBJECT["nvgpu_evidence"]
NONCE_TEXT = '{"val":"VlZW","iat":"MjAyNg==","signature":"U1NT"}'


def test_the_references_object_comes_out_as_it_went_in() -> None:
    evidence = parse_evidence_object(OBJECT, "ita")
    assert json.dumps(dump_evidence_object(evidence)) == json.dumps(OBJECT)
    assert provider_of(evidence) == "ita"
    small = {"tdx_quote": "RkFLRQ==", "runtime_data": "e30="}
    assert dump_ita_object(parse_ita_object(small)) == small


def test_evidence_of_one_provider_is_not_read_as_the_others() -> None:
    with pytest.raises(RemoteProtocolError, match="aa_tee_type"):
        parse_evidence_object(OBJECT, "coco")


def test_a_token_is_of_the_provider_that_was_named() -> None:
    assert parse_token_text("a.b.c", "ita") == make_token("a.b.c", "ita")
    assert parse_token_text("a.b.c", "ita") != parse_token_text("a.b.c", "coco")


@pytest.mark.parametrize(
    "value",
    [
        [],
        {**OBJECT, "tdx_quote": 1},
        {**OBJECT, "tdx_quote": "!"},
        {**OBJECT, "tdx_quote": "RkFLRR=="},
        {**OBJECT, "runtime_data": None},
        {**OBJECT, "runtime_data": "A" * (6 << 20)},
        {**OBJECT, "nonce": {"val": 1}},
        {**OBJECT, "nvgpu_evidence": "gpu"},
        {**OBJECT, "nvgpu_evidence": {**GPU, "runtime_data_hash": "zz"}},
        {**OBJECT, "nvgpu_evidence": {**GPU, "runtime_data_hash": "00"}},
        {**OBJECT, "nvgpu_evidence": {**GPU, "runtime_data_hash": None}},
    ],
)
def test_a_member_of_another_form_is_refused(value: object) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        parse_ita_object(value)
    assert refused.value.code is ErrorCode.EVIDENCE_MALFORMED


def test_a_nonce_has_one_spelling() -> None:
    assert dump_nonce_text(parse_nonce_text(NONCE_TEXT)) == NONCE_TEXT
    blanks = json.dumps(json.loads(NONCE_TEXT), indent=1)
    assert dump_nonce_text(parse_nonce_text(blanks)) == NONCE_TEXT


@pytest.mark.parametrize("text", ["", "a.b.c", "null", "[]", "{}", " " * (MAX_NONCE_JSON + 1)])
def test_a_challenge_of_another_service_is_no_nonce(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_nonce_text(text)


@given(st.text(max_size=80))
def test_garbage_is_no_nonce(text: str) -> None:
    with contextlib.suppress(RemoteProtocolError):
        parse_nonce_text(text)
