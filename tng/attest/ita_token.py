"""The judgement of a token of Intel Trust Authority, against what we expect.

In: the token's text, the published key for its `kid`, the claims that the peer's key demands,
policy ids, the time.  Out: a `TokenVerdict`, or an `UntrustedPeerError` with a `Verdict` that
lists every check up to the one that failed: 5 to 13 of `attest.checks`.

Source: the service's tokens, version 2, as TNG 2.12.0 reads them: PS384 and nothing else, issuer,
expiry, `tdx.attester_runtime_data` (or `attester_held_data`), `policy_ids_matched` and
`policy_ids_unmatched`.  Stricter on purpose: a TDX guest in debug mode, whose memory its host can
read, and a revoked TCB are refused, whatever the policies say.

Invariant: no claim is looked at before the signature over it was verified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tng.attest.checks import Step
from tng.attest.ear import Appraisal, marks_simulation
from tng.attest.jws import parse_token_of
from tng.attest.token import (
    TokenVerdict,
    check_binding,
    check_hardware,
    check_policy,
    check_signature,
    check_time,
)
from tng.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from tng.attest.checks import Findings
    from tng.attest.strict_json import Json

ALGORITHM: Final = "PS384"
"""The one algorithm that the service signs with for us, and that is accepted."""

ISSUERS: Final = frozenset({"Intel Trust Authority", "https://portal.trustauthority.intel.com"})
"""Values of `iss` that the service writes."""

MAX_POLICIES: Final = 256
"""Policies that one token names."""

_RUNTIME_DATA: Final = ("attester_runtime_data", "attester_held_data")


def check_ita_token(
    text: str,
    key: RSAPublicKey,
    *,
    issuers: Collection[str],
    expected_claims: Mapping[str, Json],
    policy_ids: Sequence[str],
    now: float,
    allow_simulated: bool,
    max_age_s: float | None,
    findings: Findings,
) -> TokenVerdict:
    """Judge one token, of which the checks 5 and 6 have been made (`verifier.ita`).

    Args:
        text: the compact JWS.
        key: what the service publishes under the token's `kid`.
        issuers: accepted values of `iss`.
        expected_claims: members that the appraised runtime data must have.
        policy_ids: every one of these must have matched; empty for any.
        now: Unix time, seconds.
        allow_simulated: accept evidence of a platform in software.
        max_age_s: seconds since the token was issued; None to look at its end alone.
        findings: the record to continue.

    Raises:
        UntrustedPeerError: a check failed; code and verdict say which.
    """
    try:
        token = parse_token_of(text, ALGORITHM, key)
    except ValueError as exc:
        raise findings.refusal(Step.TOKEN_FORMAT, ErrorCode.AS_BAD_TOKEN, str(exc)) from exc
    claims = check_signature(token, findings)
    expires_at = check_time(claims, now, max_age_s, findings)
    try:
        _check_issuer(claims, issuers)
        appraisal = read_ita(claims)
    except ValueError as exc:
        raise findings.refusal(Step.TOKEN_PROFILE, ErrorCode.AS_BAD_TOKEN, str(exc)) from exc
    findings.passed(Step.TOKEN_PROFILE, f"Intel Trust Authority, iss {claims['iss']!r:.80}")
    findings.tee, findings.policy_ids = appraisal.tee, appraisal.policy_ids
    check_binding(appraisal.runtime_data, expected_claims, findings)
    check_hardware(appraisal, findings, allow_simulated=allow_simulated)
    _check_result(claims, appraisal, findings)
    check_policy(appraisal.policy_ids, policy_ids, findings)
    return TokenVerdict(
        findings.checks, findings.tee, findings.simulated, findings.policy_ids, expires_at
    )


def read_ita(claims: dict[str, Json]) -> Appraisal:
    """The appraisal in a token of the service.

    Raises:
        ValueError: a member that every such token has is missing or of another kind.
    """
    tdx = claims.get("tdx")
    if not isinstance(tdx, dict):
        raise ValueError("the token has no object tdx: only TDX guests are known here")  # noqa: TRY004
    kind = tdx.get("attester_type", "TDX")
    if kind != "TDX":
        raise ValueError(f"tdx.attester_type is {kind!r:.40}, expected 'TDX'")
    runtime_data = next((tdx[name] for name in _RUNTIME_DATA if name in tdx), None)
    if not isinstance(runtime_data, dict):
        raise ValueError(f"tdx has no object {' or '.join(_RUNTIME_DATA)}")  # noqa: TRY004
    matched, unmatched = (
        _policies(claims, f"policy_ids_{word}") for word in ("matched", "unmatched")
    )
    # What the attester wrote itself cannot make its platform a simulated one, or a real one.
    vouched = {name: value for name, value in tdx.items() if name not in _RUNTIME_DATA}
    return Appraisal(
        runtime_data=runtime_data,
        tee="tdx",
        simulated=marks_simulation(vouched),
        policy_ids=matched,
        objection=f"policies did not match: {', '.join(unmatched):.200}" if unmatched else "",
        result=f"TCB status {tdx.get('attester_tcb_status', 'not said')!r:.40}, "
        f"{len(matched)} policies matched",
    )


def _check_issuer(claims: dict[str, Json], issuers: Collection[str]) -> None:
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or issuer not in issuers:
        raise ValueError(f"iss is {issuer!r:.120}, expected one of {sorted(issuers)}")


def _check_result(claims: dict[str, Json], appraisal: Appraisal, findings: Findings) -> None:
    tdx = claims["tdx"]
    assert isinstance(tdx, dict)  # `read_ita` has seen it
    if tdx.get("tdx_is_debuggable", False) is not False or tdx.get("dbgstat", "disabled") not in (
        "disabled",
        "disabled-since-boot",
        "disabled-permanently",
        "disabled-fully-and-permanently",
    ):
        detail = "the TDX guest can be debugged by its host"
        raise findings.refusal(Step.APPRAISAL_RESULT, ErrorCode.DEBUG_TD, detail)
    if tdx.get("attester_tcb_status") == "Revoked":
        detail = "the TCB of the platform is revoked"
        raise findings.refusal(Step.APPRAISAL_RESULT, ErrorCode.TCB_NOT_ACCEPTED, detail)
    if appraisal.objection:
        raise findings.refusal(Step.APPRAISAL_RESULT, ErrorCode.POLICY_DENIED, appraisal.objection)
    findings.passed(Step.APPRAISAL_RESULT, appraisal.result)


def _policies(claims: dict[str, Json], name: str) -> tuple[str, ...]:
    """The ids in a list of {"id", ...}; none when the list is absent or null."""
    policies = claims.get(name)
    if policies is None:
        return ()
    if not isinstance(policies, list) or len(policies) > MAX_POLICIES:
        raise ValueError(f"{name} is no list of at most {MAX_POLICIES}")
    ids = [policy.get("id") if isinstance(policy, dict) else None for policy in policies]
    texts = [policy_id for policy_id in ids if isinstance(policy_id, str)]
    if len(texts) != len(ids):
        raise ValueError(f"a member of {name} has no text id")
    return tuple(dict.fromkeys(texts))
