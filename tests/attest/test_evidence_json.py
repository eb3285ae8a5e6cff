"""tng.attest.evidence_json: evidence and tokens in control messages."""

from __future__ import annotations

import contextlib
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest import evidence_json
from tng.attest.evidence import CocoToken
from tng.attest.evidence_json import (
    dump_evidence_object,
    parse_evidence_object,
    parse_token_text,
    read_provider,
)
from tng.attest.jws import MAX_TOKEN
from tng.errors import ErrorCode, RemoteProtocolError
from tng.wire.dice import MAX_RUNTIME_DATA, TEE_TYPES, CocoEvidence, HashAlgorithm

GOOD = {
    "aa_tee_type": "tdx",
    "aa_evidence": "e30=",
    "aa_runtime_data": '{"pk_s":""}',
    "aa_runtime_data_hash_algo": "sha384",
}


def refused(value: object) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_evidence_object(value)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED
    return str(caught.value)


def test_the_object_is_read_with_and_without_further_devices() -> None:
    evidence = CocoEvidence("tdx", b"{}", None, '{"pk_s":""}', HashAlgorithm.SHA384)
    assert parse_evidence_object(GOOD) == evidence
    assert parse_evidence_object({**GOOD, "aa_additional_evidence": None}) == evidence
    more = parse_evidence_object({**GOOD, "aa_additional_evidence": "e30=", "new": 1})
    assert more.aa_additional_evidence == b"{}"
    assert "aa_additional_evidence" not in dump_evidence_object(evidence)


@pytest.mark.parametrize(
    "changes",
    [
        {"aa_tee_type": None},
        {"aa_tee_type": "abacus"},
        {"aa_evidence": None},
        {"aa_evidence": [1, 2]},
        {"aa_evidence": "e30"},
        {"aa_evidence": "e31="},
        {"aa_evidence": "e3 0="},
        {"aa_evidence": "_-=="},
        {"aa_additional_evidence": {}},
        {"aa_additional_evidence": "!"},
        {"aa_runtime_data": {"pk_s": ""}},
        {"aa_runtime_data": "x" * (MAX_RUNTIME_DATA + 1)},
        {"aa_runtime_data_hash_algo": 7},
        {"aa_runtime_data_hash_algo": "SHA384"},
        {"aa_runtime_data_hash_algo": "sm3"},
    ],
)
def test_members_of_another_form_are_refused(changes: dict[str, object]) -> None:
    assert next(iter(changes)) in refused({**GOOD, **changes})


@pytest.mark.parametrize("name", list(GOOD))
def test_a_member_that_is_missing_is_named(name: str) -> None:
    assert name in refused({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize("value", [None, [], "{}", 1])
def test_what_is_no_object_is_refused(value: object) -> None:
    assert "object" in refused(value)


@pytest.mark.parametrize("name", ["aa_evidence", "aa_additional_evidence"])
def test_evidence_beyond_the_limit_is_not_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_json, "_MAX_BASE64", 8)
    parse_evidence_object({**GOOD, name: "A" * 8})
    assert "at most 8" in refused({**GOOD, name: "A" * 12})


def test_a_token_is_text_of_a_bounded_length() -> None:
    assert parse_token_text("a.b.c") == CocoToken("a.b.c")
    for value in (None, 1, {}, "", "é", "x" * (MAX_TOKEN + 1)):
        with pytest.raises(RemoteProtocolError, match="attestation_result"):
            parse_token_text(value)


def test_a_provider_that_is_not_named_is_coco() -> None:
    for provider in (None, "", "coco"):
        assert read_provider(provider, "as_provider") == "coco"
    assert read_provider("ita", "as_provider") == "ita"
    for other in ("ITA", "COCO", 1, [], "x" * 1000):
        with pytest.raises(RemoteProtocolError, match="aa_provider") as caught:
            read_provider(other, "aa_provider")
        assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    "name", ["10-server-attest-background-check", "12-client-attest-background-check-hpke-auth"]
)
def test_the_references_evidence_comes_out_as_it_went_in(shared: pathlib.Path, name: str) -> None:
    vector = json.loads((shared / f"vectors/ohttp/{name}.json").read_text())
    found = 0
    for exchange in vector["exchanges"]:
        if exchange.get("api") == "/tng/key-config":
            body = exchange["outer_response"]["body_decoded"]
        elif exchange.get("api") == "/tng/background-check/verify":
            body = exchange["outer_request"]["body"]
        else:
            continue
        message = body if isinstance(body, dict) else json.loads(body)
        carried = message.get("attestation_info", message) or {}
        if "evidence" in carried:
            found += 1
            again = dump_evidence_object(parse_evidence_object(carried["evidence"]))
            assert json.dumps(again) == json.dumps(carried["evidence"])
            assert read_provider(carried["aa_provider"], "aa_provider") == "coco"
    assert found == 1


@given(
    st.builds(
        CocoEvidence,
        st.sampled_from(sorted(TEE_TYPES)),
        st.binary(),
        st.none() | st.binary(),
        st.text(max_size=50),
        st.sampled_from(HashAlgorithm),
    )
)
def test_what_is_dumped_is_parsed_to_the_same(evidence: CocoEvidence) -> None:
    assert parse_evidence_object(dump_evidence_object(evidence)) == evidence


@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "aa_additional_evidence"]),
        st.none() | st.integers() | st.text() | st.lists(st.integers()),
    )
)
def test_garbage_gives_evidence_or_a_refusal(changes: dict[str, object]) -> None:
    with contextlib.suppress(RemoteProtocolError):
        parse_evidence_object({**GOOD, **changes})  # type: ignore[dict-item]
