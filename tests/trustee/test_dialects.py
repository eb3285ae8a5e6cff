from __future__ import annotations

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import ErrorCode, RemoteProtocolError, TngError
from tng.trustee.dialects import parse_attestation_request
from tng.trustee.problems import ProblemCode, TrusteeRequestError


def _parse(body):
    return parse_attestation_request(json.dumps(body).encode())


def test_the_recorded_request_of_the_reference_is_read(shared):
    text = (shared / "vectors" / "ratls" / "as_attestation_request.txt").read_text()
    body = text[text.index('{"verification_requests"') :].strip()
    request = parse_attestation_request(body.encode())
    assert request.policy_ids == ("default",)
    assert request.requests[0].tee == "sample"
    assert json.loads(request.requests[0].evidence)["svn"] == "1"


@pytest.mark.parametrize("form", ["listed", "flat"])
def test_both_dialects_mean_the_same(requests, form):
    request = _parse(getattr(requests, form)("tdx", b"evidence"))
    assert request.policy_ids == ("default",)
    (item,) = request.requests
    assert (item.tee, item.evidence, item.init_data) == ("tdx", b"evidence", None)
    assert item.runtime_data.report_data == requests.digest
    assert item.runtime_data.claims == requests.claims


def test_absent_members_mean_no_expectation_and_sha384(requests):
    body = {"verification_requests": [{"tee": "tdx", "evidence": "QUI"}], "policy_ids": []}
    (item,) = _parse(body).requests
    assert item.runtime_data is None
    assert item.init_data is None
    body["verification_requests"][0]["runtime_data"] = {"structured": requests.claims}
    assert _parse(body).requests[0].runtime_data.report_data == requests.digest


@pytest.mark.parametrize("name", ["sha256", "sha384", "sha512", "sm3"])
def test_the_named_algorithm_hashes_the_canonical_claims(requests, name):
    body = requests.listed("tdx", b"e", runtime_data_hash_algorithm=name)
    body["verification_requests"][0]["runtime_data"] = {"structured": {"b": "ä", "a": [1, True]}}
    seen = _parse(body).requests[0].runtime_data.report_data
    if name == "sm3":
        assert len(seen) == 32
    else:
        assert seen == hashlib.new(name, '{"a":[1,true],"b":"ä"}'.encode()).digest()


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 64])
def test_raw_runtime_data_are_expected_as_they_are(requests, data):
    text = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    item = _parse(requests.listed("tdx", b"e", runtime_data={"raw": text})).requests[0]
    assert item.runtime_data.report_data == data
    assert item.runtime_data.claims is None


@pytest.mark.parametrize("tee", ["az-tdx-vtpm", "aztdxvtpm"])
def test_both_spellings_of_a_tee_are_one(requests, tee):
    assert _parse(requests.listed(tee, b"e")).requests[0].tee == "aztdxvtpm"


@pytest.mark.parametrize("tee", ["TDX", "", "unknown", "tdx ", "x" * 500])
def test_an_unknown_tee_is_refused(requests, tee):
    with pytest.raises(TrusteeRequestError) as caught:
        _parse(requests.listed(tee, b"e"))
    assert caught.value.problem is ProblemCode.UNSUPPORTED_TEE
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "changes",
    [
        {"tee": None},
        {"tee": 1},
        {"evidence": ""},
        {"evidence": None},
        {"evidence": "A"},
        {"evidence": {"a": 1}},
        {"runtime_data": []},
        {"runtime_data": {}},
        {"runtime_data": "x"},
        {"runtime_data": {"raw": "AA", "structured": {}}},
        {"runtime_data": {"other": "AA"}},
        {"runtime_data": {"raw": 1}},
        {"runtime_data": {"raw": "A" * 88}},
        {"runtime_data": {"structured": "x"}},
        {"runtime_data": {"structured": None}},
        {"runtime_data_hash_algorithm": "md5"},
        {"runtime_data_hash_algorithm": 1},
        {"runtime_data_hash_algorithm": ["sha384"]},
        {"init_data": 1},
        {"init_data": {}},
        {"surprise": 1},
    ],
)
@pytest.mark.parametrize("form", ["listed", "flat"])
def test_a_member_of_the_wrong_kind_is_refused_in_either_dialect(requests, changes, form):
    with pytest.raises(TrusteeRequestError) as caught:
        _parse(getattr(requests, form)("tdx", b"e", **changes))
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"verification_requests": [], "policy_ids": []},
        {"verification_requests": {}, "policy_ids": []},
        {"verification_requests": [1], "policy_ids": []},
        {"verification_requests": [{"tee": "tdx", "evidence": "QQ"}]},
        {"verification_requests": [{"tee": "tdx", "evidence": "QQ"}], "policy_ids": "default"},
        {"verification_requests": [{"tee": "tdx", "evidence": "QQ"}], "policy_ids": [1]},
        {"verification_requests": [{"tee": "tdx", "evidence": "QQ"}], "policy_ids": ["a"] * 17},
        {"verification_requests": [{"tee": "tdx", "evidence": "QQ"}] * 17, "policy_ids": []},
        {"verification_requests": [{"tee": "tdx", "evidence": "QQ"}], "policy_ids": [], "tee": "x"},
        {"tee": "tdx", "evidence": "QQ"},
    ],
)
def test_a_body_of_neither_dialect_is_refused(body):
    with pytest.raises(TrusteeRequestError) as caught:
        _parse(body)
    # A client that reads these words would fall back to the older dialect for nothing.
    assert "missing field `tee`" not in str(caught.value)


def test_claims_without_a_canonical_form_are_refused(requests):
    requests.claims = {"n": 2**60}
    with pytest.raises(RemoteProtocolError) as caught:
        _parse(requests.listed("tdx", b"e"))
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["tee", "evidence", "runtime_data", "init_data", "policy_ids", "verification_requests"]
        ),
        st.sampled_from(["tdx", "QUI", [], ["default"], {"raw": "QQ"}, {"structured": {}}]) | _json,
    )
)
def test_any_object_gives_a_request_or_a_refusal(body):
    try:
        _parse(body)
    except TngError as exc:
        assert exc.http_status in (400, 502)  # noqa: PT017 - either outcome is right
