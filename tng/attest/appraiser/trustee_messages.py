"""Bodies of Trustee's REST interface, both dialects, without any transport.

Evidence in, the JSON octets of `POST /attestation` out; answers in, a token, a challenge,
certificates or a refusal out.  Source: Trustee 1.6 and later (a list of verification requests,
challenges as JWTs), Trustee up to 1.5.2 (one flat request), Trustee 1.9 errors (RFC 9457 problem
details), and the members `tng_code` and `checks` that this project's own service adds to those.

Invariant: whatever a service answers, reading it gives a value or one of the errors of
`tng.errors`, and texts in them are bounded and printable.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from cryptography import x509

from tng.attest.base64_text import dump_base64url
from tng.attest.checks import MAX_DETAIL
from tng.attest.jws import MAX_TOKEN
from tng.attest.strict_json import parse_object
from tng.errors import AppraiserError, ErrorCode, UntrustedPeerError
from tng.verdict import Check, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tng.attest.strict_json import Json
    from tng.wire.dice import CocoEvidence

MAX_DEVICES: Final = 64
"""Additional devices in one request; a large machine has 16 GPUs."""

MAX_EXCERPT: Final = 300
"""Characters of a service's error text that a message repeats."""

MAX_CHALLENGE: Final = 8 * 1024
"""Characters of a challenge: a nonce signed with RSA has about 500, one that brings its signer's
certificate along 1,500; Trustee itself reads no longer ones."""

CHALLENGE_BODY: Final = b"{}"
"""The request of `POST /challenge` for a challenge that fits every TEE."""

MAX_ANCHORS: Final = 64
"""Certificates taken from one answer; services publish two or three."""

MAX_REPORTED: Final = 64
"""Checks taken from one problem document; the embedded service makes about ten."""

WANTS_FLAT: Final = "missing field `tee`"
"""Part of an old service's complaint about a list of requests."""

WANTS_LIST: Final = "missing field `verification_requests`"
"""Part of a newer service's complaint about a flat request."""

SERVICE_CODES: Final = frozenset(
    {
        ErrorCode.AS_UNREACHABLE,
        ErrorCode.BINDING_MISMATCH,
        ErrorCode.COLLATERAL_EXPIRED,
        ErrorCode.COLLATERAL_UNAVAILABLE,
        ErrorCode.DEBUG_TD,
        ErrorCode.EVENT_LOG_MISMATCH,
        ErrorCode.EVIDENCE_MALFORMED,
        ErrorCode.POLICY_DENIED,
        ErrorCode.QUOTE_INVALID,
        ErrorCode.REVOKED,
        ErrorCode.SIMULATED_EVIDENCE,
        ErrorCode.STALE,
        ErrorCode.TCB_NOT_ACCEPTED,
        ErrorCode.UNKNOWN_ROOT,
    }
)
"""Values of `tng_code` that are taken over; any other is `AS_REJECTED`."""

_CHALLENGE_REFUSED: Final = "AS.CHALLENGE.INVALID_TOKEN"
"""Value of `code` in a problem document about the challenge in the evidence."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


def attestation_body(evidence: CocoEvidence, policy_ids: Sequence[str]) -> bytes:
    """The request of Trustee 1.6 and later: a list, the CPU's evidence first.

    Raises:
        UntrustedPeerError: runtime data or additional evidence is not a JSON object.
    """
    requests = verification_requests(evidence)
    return dump_json({"verification_requests": requests, "policy_ids": list(policy_ids)})


def verification_requests(evidence: CocoEvidence) -> list[dict[str, Json]]:
    """The entries of that list, one per device.

    Raises:
        UntrustedPeerError: runtime data or additional evidence is not a JSON object.
    """
    cpu: dict[str, Json] = {
        "tee": evidence.tee_type,
        "evidence": dump_base64url(evidence.aa_evidence),
        "runtime_data": {"structured": runtime_claims(evidence)},
        "init_data": None,
        "runtime_data_hash_algorithm": _algorithm(evidence),
    }
    unbound: dict[str, Json] = {
        "runtime_data": None,
        "init_data": None,
        "runtime_data_hash_algorithm": None,
    }
    return [
        cpu,
        *(
            {"tee": tee, "evidence": dump_base64url(dump_json(item)), **unbound}
            for tee, item in further_devices(evidence).items()
        ),
    ]


def flat_body(evidence: CocoEvidence, policy_ids: Sequence[str]) -> bytes:
    """The request of Trustee up to 1.5.2, which takes one device.

    Raises:
        UntrustedPeerError: runtime data or additional evidence is not a JSON object.
        AppraiserError: there are further devices, which would go unjudged.
    """
    return dump_json(
        {
            **flat_request(evidence),
            "init_data": None,
            "init_data_hash_algorithm": None,
            "policy_ids": list(policy_ids),
        }
    )


def flat_request(evidence: CocoEvidence) -> dict[str, Json]:
    """What that request says of the one device.

    Raises:
        UntrustedPeerError: runtime data or additional evidence is not a JSON object.
        AppraiserError: there are further devices, which would go unjudged.
    """
    devices = further_devices(evidence)
    if devices:
        raise AppraiserError(
            f"the attestation service speaks the dialect of Trustee 1.5 and can judge one device, "
            f"the evidence has {len(devices)} more: update the service",
            code=ErrorCode.AS_REJECTED,
        )
    return {
        "tee": evidence.tee_type,
        "evidence": dump_base64url(evidence.aa_evidence),
        "runtime_data": {"structured": runtime_claims(evidence)},
        "runtime_data_hash_algorithm": _algorithm(evidence),
    }


def parse_token_answer(body: bytes) -> str:
    """The token that is the whole body of a 200.

    Raises:
        AppraiserError: the body is something else, such as a web page.
    """
    text = body.decode("ascii", "replace").strip()
    if len(text) > MAX_TOKEN or not _TOKEN.fullmatch(text):
        raise AppraiserError(
            f"expected a token (header.payload.signature), got {excerpt(body)}",
            code=ErrorCode.AS_BAD_TOKEN,
        )
    return text


def parse_challenge_answer(body: bytes) -> str:
    """The challenge, a JWT, in a 200: member `jwt` of `extra_params` (or `extra-params`).

    Raises:
        AppraiserError: the body is something else.
    """
    try:
        answer = parse_object(body)
    except ValueError:
        answer = {}
    extra = answer.get("extra_params", answer.get("extra-params"))
    text = extra.get("jwt") if isinstance(extra, dict) else None
    if not isinstance(text, str) or len(text) > MAX_CHALLENGE or not _TOKEN.fullmatch(text):
        raise AppraiserError(
            f"expected an object with a token of at most {MAX_CHALLENGE} characters at "
            f"extra_params.jwt, got {excerpt(body)}; services before Trustee 1.6 give none",
            code=ErrorCode.AS_REJECTED,
        )
    return text


def parse_certificates_answer(body: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file, 1 to `MAX_ANCHORS`.

    Raises:
        AppraiserError: no such file.
    """
    try:
        certificates = x509.load_pem_x509_certificates(body)
        for certificate in certificates:
            # Parsed when first asked for: asked here, so that no later caller meets the error.
            _ = certificate.subject, certificate.issuer
            _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (ValueError, TypeError, x509.InvalidVersion, Warning) as exc:
        # A TypeError for a name that is a bit string; a Warning only where the process turns them
        # into errors: a serial below 1.
        raise AppraiserError(
            f"expected certificates in PEM, got {excerpt(body)}", code=ErrorCode.AS_REJECTED
        ) from exc
    if len(certificates) > MAX_ANCHORS:
        raise AppraiserError(
            f"expected at most {MAX_ANCHORS} certificates, got {len(certificates)}",
            code=ErrorCode.AS_REJECTED,
        )
    return certificates


def parse_refusal(body: bytes) -> tuple[ErrorCode, str, tuple[Check, ...]]:
    """What an error answer says: code, words, and the service's own checks.

    Problem details are read as such, everything else is quoted.  Never raises.
    """
    try:
        problem = parse_object(body)
    except ValueError:
        return ErrorCode.AS_REJECTED, excerpt(body), ()
    detail = problem.get("detail") or problem.get("title")
    words = _printable(detail) if isinstance(detail, str) else excerpt(body)
    return _error_code(problem), words, tuple(_checks(problem.get("checks")))


def excerpt(body: bytes) -> str:
    """The beginning of a body for a message: quoted, printable, bounded."""
    if not body:
        return "an empty body"
    text = body[: 4 * MAX_EXCERPT].decode("utf-8", "replace")
    return repr(text[:MAX_EXCERPT]) + ("..." if len(text) > MAX_EXCERPT else "")


def runtime_claims(evidence: CocoEvidence) -> dict[str, Json]:
    """The claims that the TEE was given.

    Raises:
        UntrustedPeerError: they are not a JSON object.
    """
    return _object(evidence.aa_runtime_data.encode("utf-8", "surrogatepass"), "aa_runtime_data")


def further_devices(evidence: CocoEvidence) -> dict[str, Json]:
    """TEE name to evidence of the devices beside the CPU; empty, null and {} mean none.

    Raises:
        UntrustedPeerError: they are not a JSON object, or more than `MAX_DEVICES`.
    """
    if not evidence.aa_additional_evidence:
        return {}
    devices = _object(evidence.aa_additional_evidence, "aa_additional_evidence")
    if len(devices) > MAX_DEVICES:
        raise UntrustedPeerError(
            f"aa_additional_evidence has {len(devices)} devices, at most {MAX_DEVICES} are allowed",
            code=ErrorCode.EVIDENCE_MALFORMED,
        )
    return devices


def _object(data: bytes, where: str) -> dict[str, Json]:
    try:
        return parse_object(data)
    except ValueError as exc:
        raise UntrustedPeerError(
            f"{where} is not a JSON object: {exc}", code=ErrorCode.EVIDENCE_MALFORMED
        ) from exc


def _algorithm(evidence: CocoEvidence) -> str:
    return evidence.hash_algorithm.name.lower()


def dump_json(value: object) -> bytes:
    """The octets of a JSON value, compact, members in their order."""
    # A lone surrogate cannot stand in UTF-8; escaped it stays what it is.
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return (
        text.encode() if _is_encodable(text) else json.dumps(value, separators=(",", ":")).encode()
    )


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _error_code(problem: dict[str, Json]) -> ErrorCode:
    """The code a service gives, if it is one that a service has a say in."""
    value = problem.get("tng_code")
    if isinstance(value, str) and value in SERVICE_CODES:
        return ErrorCode(value)
    # Its status is 401, which otherwise says something about the call and not about the evidence.
    return ErrorCode.STALE if problem.get("code") == _CHALLENGE_REFUSED else ErrorCode.AS_REJECTED


def _checks(value: Json) -> list[Check]:
    """The well-formed entries of `checks`; the others are left out, they change no decision."""
    found = []
    for entry in value[:MAX_REPORTED] if isinstance(value, list) else []:
        if not isinstance(entry, dict):
            continue
        match entry:
            case {"number": int(number), "name": str(name), "outcome": str(outcome)} if (
                outcome in Outcome.__members__.values() and 0 <= number < 1000
            ):
                detail = entry.get("detail")
                words = _printable(detail) if isinstance(detail, str) else ""
                found.append(Check(number, f"service: {_printable(name)}", Outcome(outcome), words))
    return found


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_DETAIL])
