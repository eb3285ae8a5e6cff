"""The key broker's handshake as requests: who asks, and evidence bound to nonce and key.

    POST /auth     {"version", "tee", "extra-params"}
    POST /attest   {"init-data"?, "runtime-data": {"nonce", "tee-pubkey"}, "tee-evidence"}
                   {"tee-pubkey", "tee-evidence"}          before 0.2.0

Bodies in, values out: an `AuthRequest`, and an `AttestRequest` whose `appraisal` the attestation
service can judge.  Source: the key broker's protocol (RCAR), versions 0.1.0 to 0.4.0.

Invariant: the evidence of every device is required to be bound to the session's nonce and to the
TEE's key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from tng.attest.binding import canonical_json
from tng.attest.kbs.binding import COMPOSITE, VERSIONS, bound_claims
from tng.attest.kbs.tee_key import RSA_PKCS1, TeeKey, parse_tee_key
from tng.attest.strict_json import Json, parse_object
from tng.trustee.dialects import (
    MAX_REQUESTS,
    AttestationRequest,
    RuntimeData,
    VerificationRequest,
    parse_tee,
)
from tng.trustee.hashing import DEFAULT_HASH, digest
from tng.trustee.init_data import InitData, parse_init_data
from tng.trustee.json_body import invalid, json_type, parse_body, refuse_unknown, text_member

APPRAISAL_POLICY: Final = "default"
"""The appraisal policy under which the key broker has evidence judged, and takes tokens."""

_NEW: Final = frozenset({"init-data", "runtime-data", "tee-evidence"})
_OLD: Final = frozenset({"tee-pubkey", "tee-evidence"})
_COMPOSITE: Final = frozenset({"primary_evidence", "additional_evidence"})


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """First request.

    Attributes:
        version: of the handshake; one of `VERSIONS`.
        tee: canonical name.
    """

    version: str
    tee: str


@dataclass(frozen=True, slots=True)
class AttestRequest:
    """Second request.

    Attributes:
        nonce: what the client says it is; None in the old form, which does not repeat it.
        tee_key: whose secrets shall be sealed.
        appraisal: for the attestation service; bound to the session's nonce.
    """

    nonce: str | None
    tee_key: TeeKey
    appraisal: AttestationRequest


def parse_auth(body: bytes) -> AuthRequest:
    """Read the body of `POST /auth`.

    Raises:
        TrusteeRequestError: not such a request, or a version that is unknown (400).
    """
    members = parse_body(body)
    refuse_unknown(members, frozenset({"version", "tee", "extra-params"}), "")
    version = text_member(members, "version")
    if version not in VERSIONS:
        raise invalid(f"expected one of {', '.join(VERSIONS)}, got {version[:40]!r}", "version")
    return AuthRequest(version, parse_tee(text_member(members, "tee"), "tee"))


def auth_answer(nonce: str) -> bytes:
    """The answer to the first request, JSON; extra parameters are empty for every TEE here."""
    return json.dumps({"nonce": nonce, "extra-params": ""}, separators=(",", ":")).encode("ascii")


def parse_attest(body: bytes, nonce: str, tee: str, version: str) -> AttestRequest:
    """Read the body of `POST /attest`.

    Args:
        body: JSON.
        nonce: of the session; what the evidence must be bound to.
        tee: that the session began for.
        version: of the session's handshake.

    Raises:
        TrusteeRequestError: not such a request (400).
        RemoteProtocolError: evidence for a key that has no canonical form.
    """
    members = parse_body(body)
    if "runtime-data" not in members:
        refuse_unknown(members, _OLD, "")
        said, key = None, members.get("tee-pubkey")
    else:
        refuse_unknown(members, _NEW, "")
        runtime = members["runtime-data"]
        if not isinstance(runtime, dict):
            raise invalid(f"expected an object, got {json_type(runtime)}", "runtime-data")
        refuse_unknown(runtime, frozenset({"nonce", "tee-pubkey"}), "runtime-data")
        said, key = text_member(runtime, "nonce", "runtime-data"), runtime.get("tee-pubkey")
    tee_key = _tee_key(key, version)
    devices = _devices(members.get("tee-evidence"), nonce, key, tee)
    first, *others = devices
    first = VerificationRequest(
        first.tee, first.evidence, first.runtime_data, _init_data(members.get("init-data"))
    )
    return AttestRequest(said, tee_key, AttestationRequest((first, *others), (APPRAISAL_POLICY,)))


def _tee_key(value: Json, version: str) -> TeeKey:
    try:
        key = parse_tee_key(value)
    except ValueError as exc:
        raise invalid(str(exc), "tee-pubkey") from exc
    if key.algorithm == RSA_PKCS1 and version == COMPOSITE:
        raise invalid(f"{RSA_PKCS1} is of handshakes before {COMPOSITE}", "tee-pubkey.alg")
    return key


def _devices(value: Json, nonce: str, key: Json, tee: str) -> list[VerificationRequest]:
    """One request per device, each bound to the nonce and the key."""
    claims = bound_claims(nonce, key)
    if not isinstance(value, dict) or value.keys() != _COMPOSITE:
        return [_device(tee, value, claims, "tee-evidence")]
    where = "tee-evidence.additional_evidence"
    text = value["additional_evidence"]
    if not isinstance(text, str):
        raise invalid(f"expected a string, got {json_type(text)}", where)
    # The first device vouches for the others by having their evidence in what it is bound to.
    first = _device(
        tee,
        value["primary_evidence"],
        bound_claims(nonce, key, text),
        "tee-evidence.primary_evidence",
    )
    try:
        others = parse_object(text.encode("utf-8", "surrogatepass")) if text else {}
    except ValueError as exc:
        raise invalid(f"expected the text of a JSON object: {str(exc)[:200]}", where) from exc
    if len(others) >= MAX_REQUESTS:
        raise invalid(f"expected fewer than {MAX_REQUESTS} devices", where)
    return [
        first,
        *(_device(parse_tee(name, where), item, claims, where) for name, item in others.items()),
    ]


def _device(tee: str, evidence: Json, claims: dict[str, Json], where: str) -> VerificationRequest:
    if isinstance(evidence, str) and evidence:
        octets = evidence.encode()  # before 0.2.0: the text of the evidence
    elif isinstance(evidence, dict):
        octets = json.dumps(evidence, separators=(",", ":"), ensure_ascii=False).encode()
    else:
        raise invalid(f"expected evidence, got {json_type(evidence)}", where)
    expected = RuntimeData(digest(DEFAULT_HASH, canonical_json(claims)), claims)
    return VerificationRequest(tee, octets, expected, None)


def _init_data(value: Json) -> InitData | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("format") != "toml":
        raise invalid('expected null or {"format": "toml", "body": ...}', "init-data")
    refuse_unknown(value, frozenset({"format", "body"}), "init-data")
    text = text_member(value, "body", "init-data")
    return parse_init_data({"init_data_toml": text}, "init-data")
