"""Attestation requests, in both forms in which clients send them.

The body of `POST /attestation` goes in, an `AttestationRequest` comes out.  Two forms exist: the
list form of Trustee 1.6 and later (`verification_requests`), and the flat form of 1.5.2 and
before, which clients fall back to.  TEE names are taken in the spelling of either Trustee
(`az-tdx-vtpm` and `aztdxvtpm`).

Invariant: every field has been checked for type and size; digests that the evidence must contain
are computed; whether it contains them is not looked at here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tng.attest.binding import canonical_json
from tng.attest.strict_json import Json
from tng.trustee.base64url import parse_base64url
from tng.trustee.hashing import digest, hash_name
from tng.trustee.init_data import InitData, parse_init_data, parse_init_data_flat
from tng.trustee.json_body import (
    invalid,
    join,
    json_type,
    parse_body,
    refuse_unknown,
    text_member,
)
from tng.trustee.problems import ProblemCode, TrusteeRequestError
from tng.wire.dice import TEE_TYPES

MAX_REQUESTS: Final = 16
"""Devices in one request: a host with eight GPUs and its switches has fewer."""

MAX_POLICY_IDS: Final = 16
"""Names in one request; more than one is refused later, with a message of its own."""

MAX_REPORT_DATA: Final = 64
"""Octets of the widest report data field (TDX)."""

_MEMBERS: Final = frozenset(
    {
        "tee",
        "evidence",
        "runtime_data",
        "init_data",
        "runtime_data_hash_algorithm",
        "additional_data",
    }
)
_FLAT_MEMBERS: Final = (_MEMBERS - {"additional_data"}) | {"init_data_hash_algorithm", "policy_ids"}


@dataclass(frozen=True, slots=True)
class RuntimeData:
    """What the evidence must be bound to.

    Attributes:
        report_data: expected report data, at most 64 octets, not padded.
        claims: the object that was hashed; None for data given as they are.
    """

    report_data: bytes
    claims: dict[str, Json] | None


@dataclass(frozen=True, slots=True)
class VerificationRequest:
    """One device.

    Attributes:
        tee: canonical name, e.g. "tdx".
        evidence: as the attestation agent gave it.
        runtime_data: None where the client asks for no binding.
        init_data: None where the client has no expectation.
    """

    tee: str
    evidence: bytes
    runtime_data: RuntimeData | None
    init_data: InitData | None

    @property
    def report_data(self) -> bytes | None:
        """What the evidence must be bound to; None for nothing."""
        return None if self.runtime_data is None else self.runtime_data.report_data


@dataclass(frozen=True, slots=True)
class AttestationRequest:
    """One call.

    Attributes:
        requests: 1 to 16 devices.
        policy_ids: as sent; empty means the default policy.
    """

    requests: tuple[VerificationRequest, ...]
    policy_ids: tuple[str, ...]


def parse_attestation_request(body: bytes) -> AttestationRequest:
    """Read the body of `POST /attestation`.

    Raises:
        TrusteeRequestError: not a request of either form.
        RemoteProtocolError: runtime data without a canonical form (evidence_malformed).
    """
    members = parse_body(body)
    if "verification_requests" not in members:
        return _parse_flat(members)
    refuse_unknown(members, frozenset({"verification_requests", "policy_ids"}), "")
    items = members["verification_requests"]
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_REQUESTS:
        raise invalid(f"expected an array of 1 to {MAX_REQUESTS}", "verification_requests")
    requests = tuple(
        _parse_one(item, f"verification_requests[{index}]") for index, item in enumerate(items)
    )
    return AttestationRequest(requests, _policy_ids(members))


def parse_tee(name: str, where: str) -> str:
    """Canonical spelling of a TEE's name.

    Raises:
        TrusteeRequestError: no Trustee knows it (400).
    """
    canonical = name.replace("-", "")
    if canonical not in TEE_TYPES:
        raise TrusteeRequestError(
            f"{where}: unknown TEE {name[:80]!r}", ProblemCode.UNSUPPORTED_TEE, field=where
        )
    return canonical


def _parse_one(item: Json, where: str) -> VerificationRequest:
    if not isinstance(item, dict):
        raise invalid(f"expected an object, got {json_type(item)}", where)
    refuse_unknown(item, _MEMBERS, where)
    return VerificationRequest(
        tee=parse_tee(text_member(item, "tee", where), join(where, "tee")),
        evidence=_evidence(item, where),
        runtime_data=_runtime_data(item, where),
        init_data=parse_init_data(item.get("init_data"), join(where, "init_data")),
    )


def _parse_flat(members: dict[str, Json]) -> AttestationRequest:
    if "tee" not in members:
        raise invalid(
            "expected `verification_requests`, or the flat form of Trustee 1.5.2",
            "verification_requests",
        )
    refuse_unknown(members, _FLAT_MEMBERS, "")
    algorithm = hash_name(members, "init_data_hash_algorithm", "")
    request = VerificationRequest(
        tee=parse_tee(text_member(members, "tee"), "tee"),
        evidence=_evidence(members, ""),
        runtime_data=_runtime_data(members, ""),
        init_data=parse_init_data_flat(members.get("init_data"), algorithm),
    )
    return AttestationRequest((request,), _policy_ids(members))


def _evidence(members: dict[str, Json], where: str) -> bytes:
    field = join(where, "evidence")
    evidence = parse_base64url(text_member(members, "evidence", where), field)
    if not evidence:
        raise invalid("expected evidence, got none", field)
    return evidence


def _runtime_data(members: dict[str, Json], where: str) -> RuntimeData | None:
    value = members.get("runtime_data")
    algorithm = hash_name(members, "runtime_data_hash_algorithm", where)
    where = join(where, "runtime_data")
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) != 1:
        raise invalid('expected {"structured": {...}}, {"raw": "..."} or null', where)
    refuse_unknown(value, frozenset({"structured", "raw"}), where)
    if "raw" in value:
        raw = parse_base64url(text_member(value, "raw", where), join(where, "raw"))
        # Stricter on purpose: what does not fit the field would be compared in part only.
        if len(raw) > MAX_REPORT_DATA:
            raise invalid(f"expected at most {MAX_REPORT_DATA} octets", join(where, "raw"))
        return RuntimeData(raw, None)
    claims = value["structured"]
    if not isinstance(claims, dict):
        raise invalid(f"expected an object, got {json_type(claims)}", join(where, "structured"))
    return RuntimeData(digest(algorithm, canonical_json(claims)), claims)


def _policy_ids(members: dict[str, Json]) -> tuple[str, ...]:
    value = members.get("policy_ids")
    if not isinstance(value, list) or len(value) > MAX_POLICY_IDS:
        raise invalid(f"expected an array of at most {MAX_POLICY_IDS} strings", "policy_ids")
    ids = tuple(item for item in value if isinstance(item, str))
    if len(ids) != len(value):
        raise invalid("expected an array of strings", "policy_ids")
    return ids
