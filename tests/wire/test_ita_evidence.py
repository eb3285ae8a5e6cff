"""Evidence for Intel Trust Authority in a certificate: the reference's octets, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import json
import pathlib

import cbor2
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import ErrorCode, RemoteProtocolError
from tng.wire.dice import MAX_RUNTIME_DATA, TAG_ITA_EVIDENCE, parse_dice
from tng.wire.ita_evidence import (
    MAX_QUOTE,
    GpuEvidence,
    ItaEvidence,
    ItaNonce,
    dump_ita_evidence,
    parse_ita_evidence,
)

NONCE = {"val": "VlZW", "iat": "MjAyNg==", "signature": "U1NT"}
GPU = {"evidence": "ZQ==", "certificate": "Yw==", "arch": "HOPPER", "runtime_data_hash": bytes(32)}
GOOD = {"tdx_quote": b"quote", "nonce": NONCE, "runtime_data": b"{}", "nvgpu_evidence": GPU}


@pytest.mark.parametrize("name", ["ita_bc", "ita_bc_gpu"])
def test_the_references_octets_come_out_as_they_went_in(shared: pathlib.Path, name: str) -> None:
    der = (shared / f"vectors/ratls/{name}.der").read_bytes()
    extensions = x509.load_der_x509_certificate(der).extensions
    value = extensions.get_extension_for_oid(x509.ObjectIdentifier("2.23.133.5.4.9")).value
    assert isinstance(value, x509.UnrecognizedExtension)
    dice = parse_dice(value.value)
    assert dice.tag == TAG_ITA_EVIDENCE
    evidence = parse_ita_evidence(dice.payload)
    assert dump_ita_evidence(evidence) == dice.payload
    assert (evidence.gpu is not None) == name.endswith("gpu")
    assert "pubkey-hash" in json.loads(evidence.runtime_data)


def test_every_member_is_read_and_written() -> None:
    evidence = parse_ita_evidence(cbor2.dumps({**GOOD, "unknown": 1}))
    assert evidence.nonce == ItaNonce(**NONCE)
    assert evidence.nonce.octets == b"VVV2026"
    assert evidence.gpu == GpuEvidence("ZQ==", "Yw==", "HOPPER", bytes(32))
    assert evidence.tee_type == "tdx"
    assert cbor2.loads(dump_ita_evidence(evidence)) == GOOD
    assert "quote" not in repr(evidence).replace("tdx_quote", "")
    without = ItaEvidence(b"q", b"{}")
    assert parse_ita_evidence(dump_ita_evidence(without)) == without


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"tdx_quote": None}, "tdx_quote"),
        ({"tdx_quote": "text"}, "tdx_quote"),
        ({"tdx_quote": b""}, "tdx_quote"),
        ({"tdx_quote": bytes(MAX_QUOTE + 1)}, "tdx_quote"),
        ({"runtime_data": "{}"}, "runtime_data"),
        ({"runtime_data": b""}, "runtime_data"),
        ({"runtime_data": bytes(MAX_RUNTIME_DATA + 1), "nvgpu_evidence": None}, "runtime_data"),
        ({"nonce": "x"}, "nonce"),
        ({"nonce": {"val": "VlZW"}}, "nonce"),
        ({"nonce": {**NONCE, "val": "!"}}, "base64"),
        ({"nonce": {**NONCE, "iat": ""}}, "iat"),
        ({"nonce": {**NONCE, "signature": "A" * 4000}}, "signature"),
        ({"nvgpu_evidence": []}, "map"),
        ({"nvgpu_evidence": {**GPU, "evidence": 1}}, "evidence"),
        ({"nvgpu_evidence": {**GPU, "arch": ""}}, "arch"),
        ({"nvgpu_evidence": {**GPU, "runtime_data_hash": bytes(31)}}, "runtime_data_hash"),
        ({"nvgpu_evidence": {**GPU, "runtime_data_hash": "0" * 64}}, "runtime_data_hash"),
    ],
)
def test_a_member_of_another_form_is_refused(change: dict[str, object], word: str) -> None:
    with pytest.raises(RemoteProtocolError, match=word) as refused:
        parse_ita_evidence(cbor2.dumps({**GOOD, **change}))
    assert refused.value.code is ErrorCode.EVIDENCE_MALFORMED


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="map"):
        parse_ita_evidence(b"\x80")


@given(st.binary(max_size=200))
def test_garbage_is_a_remote_error_or_nothing(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        parse_ita_evidence(data)


@given(st.binary(min_size=1, max_size=20), st.binary(min_size=1, max_size=20))
def test_any_evidence_survives_the_round_trip(quote: bytes, runtime: bytes) -> None:
    nonce = ItaNonce(*(base64.b64encode(part).decode() for part in (quote, runtime, quote)))
    evidence = ItaEvidence(quote, runtime, nonce)
    assert parse_ita_evidence(dump_ita_evidence(evidence)) == evidence
