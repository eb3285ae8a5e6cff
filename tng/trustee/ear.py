"""EAR tokens: EAT Attestation Results as a signed JWT.

Trustworthiness vectors and annotated evidence go in, a compact JWS (ES256) with the signer's
chain in its header comes out.  Sources: draft-ietf-rats-ear; the claims, the profile and the
status tiers are those of the Trustee attestation service (eat_profile below).

Invariant: the status of a submodule is the worst tier of its vector; an empty vector makes no
token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from tng import __version__
from tng.attest.base64_text import dump_base64url
from tng.attest.policy.base import Tier, tier_of
from tng.errors import LocalProtocolError
from tng.trustee.identity import SignerIdentity

EAT_PROFILE: Final = "tag:github.com,2024:confidential-containers/Trustee"
"""Profile by which a reader knows an EAR of Trustee from any other token."""

LIFETIME_S: Final = 300
"""Seconds from `iat` to `exp`; the service's own default (5 minutes)."""

_COORDINATE: Final = 32  # octets of a P-256 coordinate or of half a signature, RFC 7518 section 3.4


_ORDER: Final = tuple(Tier)


@dataclass(frozen=True, slots=True)
class Submodule:
    """One appraised device.

    Attributes:
        name: "cpu0", "gpu0", "gpu1", ...
        policy_id: the policy that made the vector.
        vector: trust claims, -128..127, by hyphenated name.
        evidence: annotated evidence; a JSON object.
    """

    name: str
    policy_id: str
    vector: Mapping[str, int]
    evidence: Mapping[str, object]

    @property
    def status(self) -> Tier:
        """Worst tier of the vector.

        Raises:
            LocalProtocolError: the vector is empty.
        """
        if not self.vector:
            raise LocalProtocolError("expected a vector with a claim, got an empty one")
        return max((tier_of(value) for value in self.vector.values()), key=_ORDER.index)


def make_token(
    identity: SignerIdentity, submodules: Sequence[Submodule], *, now: int, simulated: bool
) -> str:
    """Sign what appraisal came to.

    Args:
        identity: signs, and vouches for its key by its chain.
        submodules: at least one; names distinct.
        now: Unix time, seconds.
        simulated: no hardware stands behind the evidence; the verifier's name then says so.

    Returns:
        A compact JWS, ASCII.
    """
    build = f"tng-trustee {__version__}" + (" SIMULATED" if simulated else "")
    claims = {
        "eat_profile": EAT_PROFILE,
        "iat": now,
        "exp": now + LIFETIME_S,
        "ear.verifier-id": {"developer": "tng-gateway", "build": build},
        "submods": {module.name: _submodule_claims(module) for module in submodules},
    }
    header = {"typ": "JWT", "alg": "ES256", "jwk": _jwk(identity)}
    signing_input = f"{_json_part(header)}.{_json_part(claims)}"
    r, s = decode_dss_signature(
        identity.key.sign(signing_input.encode("ascii"), ec.ECDSA(hashes.SHA256()))
    )
    signature = r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")
    return f"{signing_input}.{dump_base64url(signature)}"


def _submodule_claims(module: Submodule) -> dict[str, object]:
    return {
        "ear.status": module.status.value,
        "ear.trustworthiness-vector": dict(module.vector),
        "ear.appraisal-policy-id": module.policy_id,
        "ear.veraison.annotated-evidence": dict(module.evidence),
    }


def _jwk(identity: SignerIdentity) -> dict[str, object]:
    point = identity.key.public_key().public_numbers()
    return {
        "alg": "ES256",
        # base64url, where RFC 7515 section 4.1.6 says base64: TNG 2.8 reads nothing else,
        # and newer readers take both.
        "x5c": [
            dump_base64url(certificate.public_bytes(Encoding.DER))
            for certificate in (identity.certificate, identity.ca_certificate)
        ],
        "kty": "EC",
        "crv": "P-256",
        "x": dump_base64url(point.x.to_bytes(_COORDINATE, "big")),
        "y": dump_base64url(point.y.to_bytes(_COORDINATE, "big")),
    }


def _json_part(value: object) -> str:
    return dump_base64url(
        json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    )
