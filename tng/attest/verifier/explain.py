"""Views of a verdict: lines for people, members for machines.

In: a `Verdict`.  Out: the text that the log, HTTP error bodies and `tng verify` show, and the
object that the status page returns.  Source: `tng.attest.checks` for what the numbers mean.

Invariant: a skipped check is never shown as a pass.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tng.attest.strict_json import Json
    from tng.verdict import Check, Verdict


def lines(verdict: Verdict) -> list[str]:
    """One line with the result, then one line per check, without line ends."""
    return [summary(verdict), *(_line(check) for check in verdict.checks)]


def summary(verdict: Verdict) -> str:
    """The result in one line."""
    tee = verdict.tee or "unknown"
    kind = f"{tee} (SIMULATED)" if verdict.simulated else tee
    if not verdict.accepted:
        return f"REFUSED {verdict.code} tee={kind}"
    policies = ",".join(verdict.policy_ids) or "none"
    return f"ACCEPTED tee={kind} policies={policies} until={_utc(verdict.valid_until)}"


def as_json(verdict: Verdict) -> dict[str, Json]:
    """The verdict as an object; times are Unix seconds."""
    return {
        "accepted": verdict.accepted,
        "code": None if verdict.code is None else verdict.code.value,
        "tee": verdict.tee,
        "simulated": verdict.simulated,
        "policy_ids": list(verdict.policy_ids),
        "peer": verdict.peer,
        "judged_at": verdict.judged_at,
        "valid_until": verdict.valid_until,
        "checks": [
            {
                "number": check.number,
                "name": check.name,
                "outcome": check.outcome.value,
                "detail": check.detail,
            }
            for check in verdict.checks
        ],
    }


def _line(check: Check) -> str:
    detail = "".join(c if c.isprintable() else "?" for c in check.detail)
    return f"{check.outcome.upper()} {check.number:>2} {check.name}: {detail}"


def _utc(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
