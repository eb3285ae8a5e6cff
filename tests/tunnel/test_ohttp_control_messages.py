"""The JSON of the control API, in both dialects."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.evidence import CocoToken, ItaToken
from tng.attest.user_data import ServerUserData
from tng.errors import RemoteProtocolError, TngError
from tng.tunnel.ohttp.control_messages import (
    MAX_CHALLENGE,
    Wanted,
    dump_challenge_answer,
    dump_evidence_request,
    dump_key_config_answer,
    dump_token_answer,
    dump_wanted,
    parse_challenge_answer,
    parse_evidence_request,
    parse_key_config_answer,
    parse_token_answer,
    parse_wanted,
)
from tng.tunnel.ohttp.problems import OhttpError
from tng.wire.dice import CocoEvidence, HashAlgorithm
from tng.wire.ita_evidence import ItaEvidence

JSON = b"application/json"
KEY = ServerUserData("AAAA", 1000)
EVIDENCE = CocoEvidence("tdx", b"{}", b"more", '{"a":1}', HashAlgorithm.SHA384)
TOKEN = CocoToken("a.b.c")
ITA_EVIDENCE = ItaEvidence(b"q", b"{}")
STATEMENTS = {
    "nothing": None,
    "evidence": EVIDENCE,
    "a token": TOKEN,
    "evidence for Intel": ITA_EVIDENCE,
    "a token of Intel": ItaToken("a.b.c"),
}


@pytest.mark.parametrize(
    ("model", "challenge"), [(None, None), ("passport", None), ("background_check", "n")]
)
def test_what_an_ingress_wants_is_read_as_it_was_written(model, challenge) -> None:
    assert parse_wanted(dump_wanted(model, challenge), JSON) == Wanted(model, challenge)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", JSON),
        (b"", None),
        (b"garbage", None),
        (b"{}", JSON),
        (b"{}", b"Application/JSON; x=y"),
    ],
)
def test_whoever_says_nothing_wants_nothing(body: bytes, kind: bytes | None) -> None:
    assert parse_wanted(body, kind) == Wanted(None)


@pytest.mark.parametrize(
    "body",
    [
        b"garbage",
        b"[]",
        b'{"attestation_request": []}',
        b'{"attestation_request": {"model": "other"}}',
        b'{"attestation_request": {"model": "background_check"}}',
        b'{"attestation_request": {"model": "background_check", "challenge_token": ""}}',
        b'{"attestation_request": {"model": "background_check", "challenge_token": 1}}',
        b'{"attest_request": []}',
        b'{"attest_request": {"proposals": {}}}',
        b'{"attest_request": {"proposals": [{"model": "background_check"}]}}',
        json.dumps(
            {
                "attestation_request": {
                    "model": "background_check",
                    "challenge_token": "x" * (MAX_CHALLENGE + 1),
                }
            }
        ).encode(),
    ],
)
def test_a_wish_that_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(OhttpError) as error:
        parse_wanted(body, JSON)
    assert (error.value.problem.title, error.value.http_status) == ("InvalidRequestPayload", 400)


def test_another_content_type_is_refused() -> None:
    with pytest.raises(OhttpError):
        parse_wanted(b"{}", b"text/plain")


@pytest.mark.parametrize("shown", STATEMENTS)
def test_a_key_and_what_is_shown_with_it_are_read_as_written(shown: str) -> None:
    statement = STATEMENTS[shown]
    answer = parse_key_config_answer(dump_key_config_answer(KEY, statement, Wanted(None)))
    assert answer.key == KEY
    assert answer.statement == statement


@pytest.mark.parametrize(
    ("statement", "wanted", "answer"),
    [
        (None, Wanted(None, is_cohere=True), {"Ok": None}),
        (None, Wanted("passport", is_cohere=True), {"Err": "not_configured"}),
        (
            None,
            Wanted(None, is_cohere=True, is_unservable=True),
            {"Err": "no_compatible_proposal"},
        ),
        (
            TOKEN,
            Wanted("passport", is_cohere=True),
            {"Ok": {"passport": {"provider": "coco", "token": "a.b.c"}}},
        ),
    ],
)
def test_the_other_dialect_finds_its_answer_beside_ours(statement, wanted, answer) -> None:
    told = json.loads(dump_key_config_answer(KEY, statement, wanted))
    assert told["attest_response"] == answer
    assert told["hpke_key_config"] == KEY.key_config


def test_evidence_in_the_other_dialect_is_the_same_object() -> None:
    told = json.loads(dump_key_config_answer(KEY, EVIDENCE, Wanted("background_check", "n", True)))
    shown = told["attest_response"]["Ok"]["background_check"]
    assert shown == {"provider": "coco", "evidence": told["attestation_info"]["evidence"]}


@pytest.mark.parametrize(
    ("proposals", "wanted"),
    [
        ([], Wanted(None, is_cohere=True)),
        ([{"model": "passport", "provider": "ita"}], Wanted(None, None, True, True)),
        (
            [
                {"model": "passport", "provider": "ita"},
                {"model": "background_check", "provider": "coco", "challenge_token": "n"},
            ],
            Wanted("background_check", "n", is_cohere=True),
        ),
        ([1, {"model": "passport"}], Wanted("passport", is_cohere=True)),
    ],
)
def test_of_several_proposals_the_first_that_can_be_served_counts(proposals, wanted) -> None:
    body = json.dumps({"attest_request": {"proposals": proposals}}).encode()
    assert parse_wanted(body, JSON) == wanted


def test_a_proposal_of_the_provider_that_can_be_served_counts() -> None:
    proposals = [
        {"model": "background_check", "challenge_token": "n"},
        {"model": "passport", "provider": "ita"},
    ]
    body = json.dumps({"attest_request": {"proposals": proposals}}).encode()
    assert parse_wanted(body, JSON, ("ita",)) == Wanted("passport", is_cohere=True)
    assert parse_wanted(body, JSON, ("coco",)) == Wanted("background_check", "n", is_cohere=True)


def test_a_background_check_with_intel_says_so() -> None:
    assert parse_evidence_request(dump_evidence_request(ITA_EVIDENCE), None) == ITA_EVIDENCE
    assert parse_token_answer(dump_token_answer("a.b.c", "ita")) == ItaToken("a.b.c")


def test_the_calls_of_a_background_check_are_read_as_written() -> None:
    assert parse_evidence_request(dump_evidence_request(EVIDENCE), None) == EVIDENCE
    assert parse_challenge_answer(dump_challenge_answer("n")) == "n"
    assert parse_token_answer(dump_token_answer("a.b.c")) == TOKEN


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"hpke_key_config": 1}',
        b'{"hpke_key_config": {"encoded_key_config_list": 1, "expire_timestamp": 1}}',
        b'{"hpke_key_config": {"encoded_key_config_list": "", "expire_timestamp": true}}',
    ],
)
def test_an_answer_without_a_key_is_none(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_key_config_answer(body)


@pytest.mark.parametrize(
    "info",
    [
        1,
        {},
        {"model": "other"},
        {"model": "passport"},
        {"model": "passport", "attestation_result": "a.b.c", "as_provider": "other"},
        {"model": "background_check", "evidence": {}},
        {"model": "background_check", "evidence": {}, "aa_provider": "x"},
    ],
)
def test_a_statement_of_another_kind_is_refused(info: object) -> None:
    body = json.dumps({"hpke_key_config": KEY.key_config, "attestation_info": info}).encode()
    with pytest.raises(RemoteProtocolError):
        parse_key_config_answer(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["model", "evidence", "attestation_info", "hpke_key_config", "challenge_token"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_gives_an_answer_or_words(value: object) -> None:
    body = json.dumps(value).encode()
    for parse in (
        lambda: parse_wanted(body, JSON),
        lambda: parse_key_config_answer(body),
        lambda: parse_evidence_request(body, JSON),
        lambda: parse_challenge_answer(body),
        lambda: parse_token_answer(body),
    ):
        with contextlib.suppress(TngError):
            parse()
