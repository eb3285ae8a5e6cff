"""The simple CoCo token of older and configured Trustee services, read.

In: claims whose signature was verified, without `eat_profile`.  Out: an `Appraisal`.

The service makes such a token only when its policy said "allow".  Some versions also write the
evaluation's result into the report; a report that says no is an objection here, stricter than
reading the policy id alone.

Invariant: an `Appraisal` without objection means that no report denies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tng.attest.ear import Appraisal, marks_simulation
from tng.attest.strict_json import parse_json

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

MAX_REPORTS: Final = 64
"""Evaluation reports in one token; one per policy."""

_RESULTS: Final = ("evaluation-result", "evaluation_result", "allow")
_MARK: Final = "simulated_platform"


def read_simple(claims: dict[str, Json]) -> Appraisal:
    """The appraisal in a simple token.

    Raises:
        ValueError: a member that every such token has is missing or of another kind.
    """
    customized = claims.get("customized_claims")
    runtime_data = customized.get("runtime_data") if isinstance(customized, dict) else None
    if not isinstance(runtime_data, dict):
        raise ValueError("customized_claims/runtime_data is missing or no object")  # noqa: TRY004
    tee = claims.get("tee", "")
    reports = _reports(claims)
    denied = [policy for policy, report in reports if _denies(report)]
    return Appraisal(
        runtime_data=runtime_data,
        tee=tee if isinstance(tee, str) else "",
        simulated=_is_simulated(claims.get("tcb-status")),
        policy_ids=tuple(dict.fromkeys(policy for policy, _ in reports)),
        objection=f"the report of policy {denied[0]!r:.80} says 'not allowed'" if denied else "",
        result=f"{len(reports)} reports, none denies",
    )


def _reports(claims: dict[str, Json]) -> list[tuple[str, dict[str, Json]]]:
    """Policy id and report, for each; none when the token has no reports."""
    reports = claims.get("evaluation-reports", [])
    if not isinstance(reports, list) or len(reports) > MAX_REPORTS:
        raise ValueError(f"evaluation-reports is not a list of at most {MAX_REPORTS}")
    named = []
    for report in reports:
        policy = report.get("policy-id") if isinstance(report, dict) else None
        if not isinstance(report, dict) or not isinstance(policy, str):
            raise ValueError("an evaluation report has no text member 'policy-id'")  # noqa: TRY004
        named.append((policy, report))
    return named


def _denies(report: dict[str, Json]) -> bool:
    return any(_is_negative(report[name]) for name in _RESULTS if name in report)


def _is_negative(result: Json) -> bool:
    """Whether a result says no: false, {"allow": not true}, or the JSON text of either."""
    if isinstance(result, str):
        try:
            result = parse_json(result.encode())
        except ValueError:
            return False
    if isinstance(result, dict):
        return "allow" in result and result["allow"] is not True
    return result is False


def _is_simulated(status: Json) -> bool:
    """Whether the flattened claims (a JSON text: "tdx.simulated_platform") carry the mark."""
    if isinstance(status, str):
        try:
            status = parse_json(status.encode())
        except ValueError as exc:
            raise ValueError(f"tcb-status is not JSON: {exc}") from exc
    if isinstance(status, dict) and any(
        name.rpartition(".")[2] == _MARK and value is not False for name, value in status.items()
    ):
        return True
    return marks_simulation(status)
