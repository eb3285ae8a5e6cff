from __future__ import annotations

import pytest

from tng.attest.gpu.appraisal import GpuRefused
from tng.attest.tdx.appraisal import TdxRefused
from tng.errors import (
    AppraiserError,
    ErrorCode,
    RemoteProtocolError,
    StartError,
    UntrustedPeerError,
)
from tng.trustee.problems import Problem, ProblemCode, TrusteeRequestError, problem_of, status_of
from tng.verdict import Check, Outcome


@pytest.mark.parametrize(
    ("error", "code", "status", "retryable"),
    [
        (
            UntrustedPeerError("x", code=ErrorCode.QUOTE_INVALID),
            ProblemCode.INVALID_QUOTE,
            422,
            False,
        ),
        (
            UntrustedPeerError("x", code=ErrorCode.REVOKED),
            ProblemCode.VERIFICATION_FAILED,
            422,
            False,
        ),
        (
            UntrustedPeerError("x", code=ErrorCode.POLICY_DENIED),
            ProblemCode.VERIFICATION_FAILED,
            422,
            False,
        ),
        (
            UntrustedPeerError("x", code=ErrorCode.BINDING_MISMATCH),
            ProblemCode.BINDING_MISMATCH,
            422,
            False,
        ),
        (
            RemoteProtocolError("x", code=ErrorCode.EVIDENCE_MALFORMED),
            ProblemCode.INVALID_FORMAT,
            400,
            False,
        ),
        (
            AppraiserError("x", code=ErrorCode.COLLATERAL_UNAVAILABLE),
            ProblemCode.DEPENDENCY_UNAVAILABLE,
            503,
            True,
        ),
        (TrusteeRequestError("x", ProblemCode.TOO_LARGE), ProblemCode.TOO_LARGE, 413, False),
    ],
)
def test_every_error_has_its_answer(error, code, status, retryable):
    body = problem_of(error).as_json()
    assert body["code"] == code.value
    assert body["status"] == status
    assert body["retryable"] is retryable
    assert body["tng_code"] == error.code.value
    assert body["detail"] == "x"
    assert "field" not in body
    assert "checks" not in body


def test_our_own_trouble_is_not_told_to_clients():
    body = problem_of(StartError("/var/lib/secret: cannot be written")).as_json()
    assert body["status"] == 500
    assert "secret" not in str(body)


@pytest.mark.parametrize("refused", [TdxRefused, GpuRefused])
def test_checks_travel_with_a_refusal(refused):
    checks = (Check(1, "one", Outcome.PASS, "d"), Check(2, "two", Outcome.FAIL, "e" * 5000))
    body = problem_of(refused("x", code=ErrorCode.DEBUG_TD, checks=checks)).as_json()
    assert body["checks"][0] == {"number": 1, "name": "one", "outcome": "pass", "detail": "d"}
    assert len(body["checks"][1]["detail"]) == 1000


def test_a_long_detail_is_cut_and_a_field_is_named():
    error = TrusteeRequestError("x" * 5000, ProblemCode.INVALID_ARGUMENT, field="a.b")
    body = problem_of(error).as_json()
    assert len(body["detail"]) == 1000
    assert body["field"] == "a.b"


def test_every_code_has_a_title():
    for code in ProblemCode:
        body = Problem(code, "", ErrorCode.INTERNAL).as_json()
        assert body["title"]
        assert body["status"] == status_of(code)
