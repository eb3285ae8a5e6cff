"""Bodies of Trustee's REST interface, without any transport."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.appraiser import trustee_messages as messages
from tng.errors import AppraiserError, ErrorCode, TngError, UntrustedPeerError
from tng.verdict import Check, Outcome
from tng.wire.dice import CocoEvidence, HashAlgorithm


def make(additional=None, runtime_data='{"pubkey-hash":"abc"}', algorithm=HashAlgorithm.SHA384):
    return CocoEvidence("sample", b'{"svn":1}', additional, runtime_data, algorithm)


def test_the_request_is_octet_for_octet_the_references(shared):
    recorded = (shared / "vectors/ratls/as_attestation_request.txt").read_text()
    body = recorded[recorded.index('{"verification_requests') :].strip()
    facts = json.loads(body)["verification_requests"][0]
    raw = base64.urlsafe_b64decode(facts["evidence"] + "=" * (-len(facts["evidence"]) % 4))
    runtime_data = json.dumps(facts["runtime_data"]["structured"])
    evidence = CocoEvidence("sample", raw, None, runtime_data, HashAlgorithm.SHA384)
    assert messages.attestation_body(evidence, ["default"]).decode() == body


def test_each_additional_device_is_one_request_without_runtime_data():
    body = messages.attestation_body(make(b'{"nvidia": {"a": [1, 2]}, "hygondcu": "x"}'), [])
    first, gpu, other = json.loads(body)["verification_requests"]
    assert first["runtime_data_hash_algorithm"] == "sha384"
    assert (gpu["tee"], other["tee"]) == ("nvidia", "hygondcu")
    assert base64.urlsafe_b64decode(gpu["evidence"] + "==") == b'{"a":[1,2]}'
    assert gpu["runtime_data"] is gpu["runtime_data_hash_algorithm"] is None


@pytest.mark.parametrize("nothing", [None, b"", b"{}"])
def test_no_additional_evidence_is_no_request(nothing):
    body = json.loads(messages.attestation_body(make(nothing), ["a", "b"]))
    assert len(body["verification_requests"]) == 1
    assert body["policy_ids"] == ["a", "b"]


@pytest.mark.parametrize("algorithm", HashAlgorithm)
def test_the_hash_algorithm_is_named(algorithm):
    body = json.loads(messages.attestation_body(make(algorithm=algorithm), []))
    name = body["verification_requests"][0]["runtime_data_hash_algorithm"]
    assert name == algorithm.name.lower()


def test_the_old_dialect_is_one_flat_request():
    body = json.loads(messages.flat_body(make(), ["default"]))
    assert body["tee"] == "sample"
    assert body["runtime_data"] == {"structured": {"pubkey-hash": "abc"}}
    assert body["policy_ids"] == ["default"]
    assert "verification_requests" not in body


def test_the_old_dialect_cannot_leave_devices_unjudged():
    with pytest.raises(AppraiserError, match="1 more"):
        messages.flat_body(make(b'{"nvidia":{}}'), [])


@pytest.mark.parametrize(
    "evidence",
    [
        make(runtime_data="[]"),
        make(runtime_data="{"),
        make(b"[]"),
        make(b"\xff"),
        make(json.dumps({str(n): 1 for n in range(65)}).encode()),
    ],
)
@pytest.mark.parametrize("dialect", [messages.attestation_body, messages.flat_body])
def test_evidence_that_cannot_be_asked_about_is_the_peers_fault(dialect, evidence):
    with pytest.raises(UntrustedPeerError) as caught:
        dialect(evidence, [])
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


def test_a_lone_surrogate_survives():
    body = messages.attestation_body(make(runtime_data='{"a":"\\ud800"}'), [])
    assert json.loads(body)["verification_requests"][0]["runtime_data"]["structured"] == {
        "a": "\ud800"
    }


def test_a_token_is_taken_without_blanks_around_it():
    assert messages.parse_token_answer(b" a.b.c-_\r\n") == "a.b.c-_"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html></html>", b'"a.b.c"', b"a.b", b"a.b.c.d", b"a..c", b"\xff.a.b", b"a.b.c d"],
)
def test_what_is_no_token_is_quoted_in_the_error(body):
    with pytest.raises(AppraiserError, match="expected a token") as caught:
        messages.parse_token_answer(body)
    assert caught.value.code is ErrorCode.AS_BAD_TOKEN


def test_certificates_are_read_and_counted(signer):
    assert messages.parse_certificates_answer(signer.chain_pem) == [signer.leaf, signer.ca]
    for body in (b"", b"<html>", signer.chain_pem * 33):
        with pytest.raises(AppraiserError) as caught:
            messages.parse_certificates_answer(body)
        assert caught.value.code is ErrorCode.AS_REJECTED


def test_a_problem_document_gives_code_words_and_checks():
    body = json.dumps(
        {
            "title": "no",
            "detail": "the TD is a debug one",
            "tng_code": "debug_td",
            "checks": [
                {"number": 7, "name": "debug", "outcome": "fail", "detail": "bit 0\nset"},
                {"number": 8, "name": "x", "outcome": "pass"},
                {"number": "9", "name": "x", "outcome": "pass"},
                {"number": 9, "name": "x", "outcome": "perhaps"},
                "text",
            ],
        }
    ).encode()
    code, words, checks = messages.parse_refusal(body)
    assert (code, words) == (ErrorCode.DEBUG_TD, "the TD is a debug one")
    assert checks == (
        Check(7, "service: debug", Outcome.FAIL, "bit 0?set"),
        Check(8, "service: x", Outcome.PASS, ""),
    )


@pytest.mark.parametrize("code", ["no_such_code", "config_invalid", 7, None, ["stale"], {}])
def test_a_code_that_is_no_business_of_a_service_is_a_plain_rejection(code):
    body = json.dumps({"title": "no", "tng_code": code, "checks": 5}).encode()
    assert messages.parse_refusal(body) == (ErrorCode.AS_REJECTED, "no", ())


def test_other_errors_are_quoted_printable_and_bounded():
    code, words, checks = messages.parse_refusal(b"boom\r\n" + b"x" * 10_000)
    assert code is ErrorCode.AS_REJECTED
    assert words.startswith("'boom\\r\\n")
    assert len(words) < 400
    assert checks == ()
    assert messages.parse_refusal(b"")[1] == "an empty body"
    assert messages.parse_refusal(b'{"detail":7}')[1] == "'{\"detail\":7}'"


@given(st.binary(max_size=200))
def test_garbage_gives_values_or_our_errors(body):
    messages.parse_refusal(body)
    for parse in (messages.parse_token_answer, messages.parse_certificates_answer):
        try:
            parse(body)
        except TngError:
            continue
