"""Verdicts as people and machines see them."""

from __future__ import annotations

import json

from tng.attest.verifier import explain
from tng.errors import ErrorCode
from tng.verdict import Check, Outcome, Verdict

CHECKS = (
    Check(1, "certificate", Outcome.PASS, "fine"),
    Check(4, "appraisal", Outcome.SKIP, "passport"),
)


def test_an_acceptance_names_tee_policies_and_end():
    verdict = Verdict(True, None, CHECKS, "tdx", False, ("default",), "ab", 0.0, 86400.0)
    assert explain.lines(verdict) == [
        "ACCEPTED tee=tdx policies=default until=1970-01-02T00:00:00Z",
        "PASS  1 certificate: fine",
        "SKIP  4 appraisal: passport",
    ]


def test_a_refusal_names_its_code_and_the_failed_check():
    check = Check(13, "policy", Outcome.FAIL, "wants\nanother")
    verdict = Verdict(False, ErrorCode.POLICY_DENIED, (check,), "", False, (), "", 0.0, 0)
    assert explain.lines(verdict) == [
        "REFUSED policy_denied tee=unknown",
        "FAIL 13 policy: wants?another",
    ]


def test_simulation_is_said_in_words():
    verdict = Verdict(True, None, (), "tdx", True, (), "", 0.0, 1.0)
    assert "tdx (SIMULATED) policies=none" in explain.summary(verdict)


def test_the_object_is_json_with_every_member():
    verdict = Verdict(False, ErrorCode.STALE, CHECKS, "tdx", True, ("p",), "ab", 1.0, 0)
    seen = json.loads(json.dumps(explain.as_json(verdict)))
    assert seen["code"] == "stale"
    assert seen["checks"][1] == {
        "number": 4,
        "name": "appraisal",
        "outcome": "skip",
        "detail": "passport",
    }
    accepted = Verdict(True, None, (), "", False, (), "", 0.0, 1.0)
    assert explain.as_json(accepted)["code"] is None
