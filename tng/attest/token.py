"""The judgement of an attestation service's token: EAR or simple, against what we expect.

In: the token's text, trust anchors, the claims that the peer's key demands, policy ids, the time.
Out: a `TokenVerdict`, or an `UntrustedPeerError` with a `Verdict` that lists every check up to
the one that failed.  Checks 5 to 13 of `attest.checks`, in that order, are made here, and 14
where it is asked for.

Source: Trustee's two token brokers as TNG 2.12.0 reads them (RFC 7519 claims; EAR profile
`tag:github.com,2024:confidential-containers/Trustee`).  Stricter on purpose:
- repeated JSON members, `crit`, NaN, and `exp` beyond the year 9999 are refused;
- values are compared as JSON, so `true` does not pass for `1`;
- a simple token whose report says "not allowed" is refused, whatever its policy id;
- evidence of a platform in software is refused unless asked for.

Invariant: no claim is looked at before the signature over it was verified.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest import ear, simple_token
from tng.attest.checks import Findings, Step
from tng.attest.jws import SignedToken, parse_token, same_key
from tng.attest.signer_transparency import CLAIM, check_signer_transparency
from tng.attest.strict_json import parse_object, same_json
from tng.attest.x5c import parse_x5c, public_key, verify_chain
from tng.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from tng.attest.strict_json import Json
    from tng.verdict import Check

LEEWAY_S: Final = 60.0
"""Clock difference, in seconds, that `exp` and `nbf` forgive; the reference's value."""

MAX_NUMERIC_DATE: Final = 253402300799
"""9999-12-31T23:59:59Z; later dates are no dates."""

SOFTWARE_TEES: Final = frozenset({"sample", "sampledevice"})
"""Stand-ins that say by their name that no hardware is behind them; the service's policy decides
about them, and the verdict shows it."""


@dataclass(frozen=True, slots=True)
class TokenVerdict:
    """A token that passed.

    Attributes:
        checks: numbers 5 to 13, in order, and perhaps 14.
        tee: "tdx", "sample", ...; "" if the token does not say.
        simulated: the evidence came from a platform in software.
        policy_ids: policies named by the token.
        expires_at: the `exp` claim, or the end of the greatest age if that comes first; Unix time
            in seconds.
    """

    checks: tuple[Check, ...]
    tee: str
    simulated: bool
    policy_ids: tuple[str, ...]
    expires_at: float


def check_token(
    text: str,
    *,
    anchors: Sequence[x509.Certificate] | None,
    expected_claims: Mapping[str, Json],
    policy_ids: Sequence[str],
    now: float,
    allow_simulated: bool,
    max_age_s: float | None = None,
    transparency_logs: Mapping[str, Ed25519PublicKey] | None = None,
    findings: Findings | None = None,
) -> TokenVerdict:
    """Judge one token.

    Args:
        text: the compact JWS.
        anchors: trusted issuers of the signing certificate; None to trust the embedded key
            itself (`skip_as_token_cert_verify`).
        expected_claims: members that the appraised runtime data must have; empty to compare
            nothing.
        policy_ids: every one of these must have been applied; empty for any.
        now: Unix time, seconds.
        allow_simulated: accept evidence of a platform in software.
        max_age_s: seconds since the token was issued; None to look at its end alone.
        transparency_logs: keys of the logs, by their origins, in one of which the signer must
            stand; None to ask for no log.
        findings: the record to continue; by default a new one.

    Raises:
        UntrustedPeerError: a check failed; code and verdict say which.
    """
    record = findings if findings is not None else Findings(now)
    first = len(record.checks)
    token = _parse(text, record)
    _check_signer(token, anchors, now, record)
    claims = check_signature(token, record)
    expires_at = check_time(claims, now, max_age_s, record)
    appraisal = _read(claims, record)
    record.tee, record.policy_ids = appraisal.tee or record.tee, appraisal.policy_ids
    check_binding(appraisal.runtime_data, expected_claims, record)
    check_hardware(appraisal, record, allow_simulated=allow_simulated)
    if appraisal.objection:
        raise record.refusal(Step.APPRAISAL_RESULT, ErrorCode.POLICY_DENIED, appraisal.objection)
    record.passed(Step.APPRAISAL_RESULT, appraisal.result)
    check_policy(appraisal.policy_ids, policy_ids, record)
    if transparency_logs is not None:
        _check_transparency(token, claims, transparency_logs, record)
    return TokenVerdict(
        record.checks[first:], record.tee, record.simulated, record.policy_ids, expires_at
    )


def _parse(text: str, record: Findings) -> SignedToken:
    try:
        token = parse_token(text)
    except ValueError as exc:
        raise record.refusal(Step.TOKEN_FORMAT, ErrorCode.AS_BAD_TOKEN, str(exc)) from exc
    record.passed(Step.TOKEN_FORMAT, f"{len(text)} characters, alg {token.algorithm}")
    return token


def _check_signer(
    token: SignedToken,
    anchors: Sequence[x509.Certificate] | None,
    now: float,
    record: Findings,
) -> None:
    if anchors is None:
        record.skipped(Step.TOKEN_SIGNER, "skip_as_token_cert_verify is set: any key may sign")
        return
    try:
        path = verify_chain(_signer_chain(token), anchors, now)
    except ValueError as exc:
        raise record.refusal(Step.TOKEN_SIGNER, ErrorCode.AS_BAD_TOKEN, str(exc)) from exc
    names = " <- ".join(certificate.subject.rfc4514_string() for certificate in path)
    record.passed(Step.TOKEN_SIGNER, names)


def _signer_chain(token: SignedToken) -> list[x509.Certificate]:
    """The certificates in the token; the first is for the key in its header."""
    if token.x5c is None:
        raise ValueError("token carries no certificate chain (x5c), nothing leads to an anchor")
    chain = parse_x5c(token.x5c)
    if not same_key(public_key(chain[0]), token.key):
        raise ValueError("the key in jwk is not the key of the certificate x5c[0]")
    return chain


def _check_transparency(
    token: SignedToken,
    claims: dict[str, Json],
    logs: Mapping[str, Ed25519PublicKey],
    record: Findings,
) -> None:
    """Check 14, where `verify_signer_transparency` is set."""
    try:
        signer = _signer_chain(token)[0]
        seen = check_signer_transparency(claims.get(CLAIM), signer, logs)
    except ValueError as exc:
        raise record.refusal(Step.SIGNER_TRANSPARENCY, ErrorCode.AS_BAD_TOKEN, str(exc)) from exc
    record.passed(Step.SIGNER_TRANSPARENCY, seen)


def check_signature(token: SignedToken, record: Findings) -> dict[str, Json]:
    """Check 7; the claims, which nobody has looked at before."""
    try:
        token.verify_signature()
        claims = parse_object(token.payload)
    except ValueError as exc:
        raise record.refusal(Step.TOKEN_SIGNATURE, ErrorCode.AS_BAD_TOKEN, str(exc)) from exc
    record.passed(Step.TOKEN_SIGNATURE, token.algorithm)
    return claims


def check_time(
    claims: dict[str, Json], now: float, max_age_s: float | None, record: Findings
) -> float:
    """Check 8; when the token ends, Unix time in seconds."""
    try:
        expires_at = _numeric_date(claims, "exp")
        begins_at = _numeric_date(claims, "nbf") if "nbf" in claims else None
        ages_at = None if max_age_s is None else _end_of_age(claims, max_age_s)
    except ValueError as exc:
        raise record.refusal(Step.TOKEN_TIME, ErrorCode.AS_BAD_TOKEN, str(exc)) from exc
    if now > expires_at + LEEWAY_S:
        detail = f"token expired {now - expires_at:.0f} s ago, {LEEWAY_S:.0f} s are forgiven"
        raise record.refusal(Step.TOKEN_TIME, ErrorCode.STALE, detail)
    if begins_at is not None and now < begins_at - LEEWAY_S:
        detail = f"token is valid in {begins_at - now:.0f} s only, {LEEWAY_S:.0f} s are forgiven"
        raise record.refusal(Step.TOKEN_TIME, ErrorCode.STALE, detail)
    if max_age_s is not None and ages_at is not None:
        _check_age(ages_at, now, max_age_s, record)
        expires_at = min(expires_at, ages_at)
    record.passed(Step.TOKEN_TIME, f"expires in {expires_at - now:.0f} s")
    return expires_at


def _end_of_age(claims: dict[str, Json], max_age_s: float) -> float:
    """When the token becomes older than `max_age_s`, by its `iat`, or else its `nbf`.

    Some versions of the simple token have neither: then the whole life that is left to it must fit
    into the greatest age, as if it had been issued when that begins.
    """
    for name in ("iat", "nbf"):
        if name in claims:
            return _numeric_date(claims, name) + max_age_s
    return _numeric_date(claims, "exp")


def _check_age(ages_at: float, now: float, max_age_s: float, record: Findings) -> None:
    """Refuse a token issued too long ago, or in the future (which would make it look younger)."""
    age = now - (ages_at - max_age_s)
    if age > max_age_s + LEEWAY_S:
        detail = (
            f"token was issued {age:.0f} s ago, at most {max_age_s:.0f} s are accepted: it answers "
            "no challenge of ours, and its age is all there is of freshness"
        )
    elif age < -LEEWAY_S:
        detail = f"token dates from {-age:.0f} s ahead, or lives longer than {max_age_s:.0f} s"
    else:
        return
    raise record.refusal(Step.TOKEN_TIME, ErrorCode.STALE, detail)


def _read(claims: dict[str, Json], record: Findings) -> ear.Appraisal:
    """What the token says of the evidence, whichever broker made it."""
    is_ear = "eat_profile" in claims
    try:
        appraisal = ear.read_ear(claims) if is_ear else simple_token.read_simple(claims)
    except ValueError as exc:
        raise record.refusal(Step.TOKEN_PROFILE, ErrorCode.AS_BAD_TOKEN, str(exc)) from exc
    record.passed(Step.TOKEN_PROFILE, "EAR" if is_ear else "simple CoCo token")
    return appraisal


def check_binding(
    runtime_data: Mapping[str, Json], expected: Mapping[str, Json], record: Findings
) -> None:
    """Check 10: the runtime data has every expected claim."""
    if not expected:
        record.skipped(Step.KEY_BINDING, "no key to compare with")
        return
    for name, value in expected.items():
        if name not in runtime_data:
            detail = f"runtime data has no {name!r}, expected {value!r:.120}"
        elif not same_json(runtime_data[name], value):
            detail = f"{name!r} is {runtime_data[name]!r:.120}, the peer needs {value!r:.120}"
        else:
            continue
        raise record.refusal(Step.KEY_BINDING, ErrorCode.BINDING_MISMATCH, detail)
    record.passed(Step.KEY_BINDING, "runtime data names the peer's key")


def check_hardware(appraisal: ear.Appraisal, record: Findings, *, allow_simulated: bool) -> None:
    """Check 11: no platform in software, unless that is wanted."""
    record.simulated = appraisal.simulated or appraisal.tee in SOFTWARE_TEES
    if appraisal.simulated and not allow_simulated:
        detail = "evidence comes from a simulated platform, and allow_simulated is not set"
        raise record.refusal(Step.REAL_HARDWARE, ErrorCode.SIMULATED_EVIDENCE, detail)
    if appraisal.simulated:
        record.skipped(Step.REAL_HARDWARE, "SIMULATED platform, admitted by allow_simulated")
    elif record.simulated:
        tee = appraisal.tee
        record.skipped(Step.REAL_HARDWARE, f"{tee!r} is no hardware, left to the service's policy")
    else:
        record.passed(Step.REAL_HARDWARE, f"no mark of a simulated platform, tee {record.tee!r}")


def check_policy(applied: Sequence[str], wanted: Sequence[str], record: Findings) -> None:
    """Check 13: every wanted policy is among those applied."""
    missing = [policy for policy in wanted if policy not in applied]
    if missing:
        detail = f"policy {missing[0]!r} was not applied, the token names {sorted(applied)!r:.200}"
        raise record.refusal(Step.POLICY, ErrorCode.POLICY_DENIED, detail)
    if wanted:
        record.passed(Step.POLICY, f"applied: {', '.join(repr(policy) for policy in applied)}")
    else:
        record.skipped(Step.POLICY, f"no policy asked for, applied: {sorted(applied)!r:.200}")


def _numeric_date(claims: dict[str, Json], name: str) -> float:
    """RFC 7519 section 2, NumericDate."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"token claim {name!r} is {value!r:.40}, expected seconds")  # noqa: TRY004
    if not (math.isfinite(value) and 0 <= value <= MAX_NUMERIC_DATE):
        raise ValueError(f"token claim {name!r} is no date of the years 1970 to 9999")
    return float(value)
