"""Check 3: what evidence says it is about, compared before anybody is asked about it.

Evidence and expected claims in; the answer goes into the findings, or the refusal is raised.  The
attestation service proves later that the TEE vouches for these claims; evidence about something
else is not worth the question.

Invariant: nothing passes in which an expected claim is absent or has another value.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from tng.attest.binding import canonical_json
from tng.attest.checks import Findings, Step
from tng.attest.evidence import runtime_data_of
from tng.attest.ita_json import dump_nonce_text
from tng.attest.strict_json import parse_object, same_json
from tng.attest.user_data import CHALLENGE_CLAIM
from tng.errors import ErrorCode, RemoteProtocolError
from tng.wire.ita_evidence import ItaEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.evidence import Evidence
    from tng.attest.strict_json import Json


def check_certificate_claims(
    evidence: Evidence, expected: Mapping[str, Json], findings: Findings
) -> None:
    """Evidence in a certificate is about the certificate's key.

    Raises:
        UntrustedPeerError: it is not (BINDING_MISMATCH), or cannot be read (EVIDENCE_MALFORMED).
    """
    _compare(_read(evidence, findings), expected, "the certificate's key", findings)
    findings.passed(Step.KEY_CLAIM, "runtime data names the certificate's key")


def check_statement_claims(
    evidence: Evidence, expected: Mapping[str, Json], findings: Findings
) -> None:
    """Evidence over OHTTP is about the key beside it, and answers the challenge.

    Stricter than for certificates: the runtime data must be written in canonical form, the one
    that is hashed, so that text and hash have one meaning.

    Raises:
        UntrustedPeerError: it is not (BINDING_MISMATCH), answers no challenge (STALE), or cannot
            be read or is not canonical (EVIDENCE_MALFORMED).
    """
    if CHALLENGE_CLAIM not in expected:
        detail = "evidence answers no challenge, so it may be of any age"
        raise findings.refusal(Step.KEY_CLAIM, ErrorCode.STALE, detail)
    claims = _read(evidence, findings)
    try:
        canonical = canonical_json(claims)
    except RemoteProtocolError as exc:
        raise findings.refusal(Step.KEY_CLAIM, exc.code, str(exc)) from exc
    if not hmac.compare_digest(canonical, runtime_data_of(evidence)):
        detail = "the runtime data is not canonical JSON (RFC 8785)"
        raise findings.refusal(Step.KEY_CLAIM, ErrorCode.EVIDENCE_MALFORMED, detail)
    if isinstance(evidence, ItaEvidence):
        _check_nonce(evidence, expected[CHALLENGE_CLAIM], findings)
    _compare(claims, expected, "the peer", findings)
    findings.passed(Step.KEY_CLAIM, f"runtime data has the expected {', '.join(expected)}")


def _check_nonce(evidence: ItaEvidence, challenge: Json, findings: Findings) -> None:
    """The service looks at the nonce beside the quote: it must be the one we asked it for."""
    if evidence.nonce is None or dump_nonce_text(evidence.nonce) != challenge:
        detail = "the nonce beside the evidence is not the challenge that was given"
        raise findings.refusal(Step.KEY_CLAIM, ErrorCode.BINDING_MISMATCH, detail)


def _read(evidence: Evidence, findings: Findings) -> dict[str, Json]:
    try:
        return parse_object(runtime_data_of(evidence))
    except ValueError as exc:
        detail = f"the runtime data is not a JSON object: {exc}"
        raise findings.refusal(Step.KEY_CLAIM, ErrorCode.EVIDENCE_MALFORMED, detail) from exc


def _compare(
    claims: Mapping[str, Json], expected: Mapping[str, Json], who: str, findings: Findings
) -> None:
    for name, value in expected.items():
        if name not in claims or not same_json(claims[name], value):
            seen = claims.get(name)
            detail = f"{name!r} is {seen!r:.120}, {who} needs {value!r:.120}"
            raise findings.refusal(Step.KEY_CLAIM, ErrorCode.BINDING_MISMATCH, detail)
