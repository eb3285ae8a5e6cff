"""The record of checks, and the verdicts that come of it."""

from __future__ import annotations

import pytest

from tng.attest.checks import MAX_DETAIL, Findings, Step
from tng.errors import ErrorCode
from tng.verdict import Check, Outcome


def test_numbers_and_names_are_those_of_the_documented_list():
    import tng.attest.checks as module

    for step in Step:
        assert f"{step.value:>2}  {step.title}" in (module.__doc__ or "")


def test_an_accepted_record_becomes_a_verdict_with_an_end():
    findings = Findings(10.0, "ab")
    findings.passed(Step.CERTIFICATE, "fine")
    findings.skipped(Step.APPRAISAL, "passport")
    verdict = findings.verdict(valid_until=20.0)
    assert verdict.accepted
    assert (verdict.peer, verdict.judged_at, verdict.valid_until) == ("ab", 10.0, 20.0)
    assert [check.outcome for check in verdict.checks] == [Outcome.PASS, Outcome.SKIP]


def test_a_record_with_a_failure_is_never_accepted():
    findings = Findings(0)
    findings.failed(Step.POLICY, "no")
    with pytest.raises(AssertionError):
        findings.verdict()


def test_a_refusal_carries_code_step_and_all_checks():
    findings = Findings(0)
    findings.report([Check(7, "service: quote", Outcome.PASS, "")])
    error = findings.refusal(Step.POLICY, ErrorCode.POLICY_DENIED, "wants another")
    assert str(error) == "policy: wants another"
    assert error.code is ErrorCode.POLICY_DENIED
    assert [check.number for check in error.verdict.checks] == [7, 13]
    assert error.verdict.valid_until == 0


def test_details_are_bounded():
    findings = Findings(0)
    error = findings.refusal(Step.POLICY, ErrorCode.POLICY_DENIED, "x" * 10_000)
    assert len(findings.checks[0].detail) == MAX_DETAIL
    assert len(str(error)) < MAX_DETAIL + 20


def test_a_copy_goes_its_own_way():
    findings = Findings(0)
    findings.tee = "tdx"
    twin = findings.copy()
    twin.passed(Step.POLICY, "")
    assert (len(findings.checks), len(twin.checks), twin.tee) == (0, 1, "tdx")
