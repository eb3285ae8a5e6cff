"""EAR tokens to write: what appraisal came to, as a signed JWT.

Appraised devices and a signer go in, a compact JWS (ES256) with the signer's chain in its header
comes out; `tng.attest.ear` and `tng.attest.token` read it.  Sources: draft-ietf-rats-ear; claims,
profile and lifetime are those of the Trustee attestation service.

Invariant: the status of a submodule is the worst tier of its vector, an empty vector makes no
token, and a token about simulated evidence says so in the verifier's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from tng import __version__
from tng.attest.base64_text import dump_base64url
from tng.attest.ear import PROFILE
from tng.attest.policy.base import Tier, tier_of
from tng.errors import LocalProtocolError

if TYPE_CHECKING:
    from tng.attest.signer_identity import SignerIdentity

TOKEN_LIFETIME_S: Final = 300
"""Seconds from `iat` to `exp`; the same as Trustee's (5 minutes)."""

_COORDINATE: Final = 32  # octets of a P-256 coordinate or of half a signature, RFC 7518 section 3.4
_ORDER: Final = tuple(Tier)


@dataclass(frozen=True, slots=True)
class Submodule:
    """One appraised device of a token.

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

    def claims(self) -> dict[str, object]:
        """What stands under its name in the token."""
        return {
            "ear.status": self.status.value,
            "ear.trustworthiness-vector": dict(self.vector),
            "ear.appraisal-policy-id": self.policy_id,
            "ear.veraison.annotated-evidence": dict(self.evidence),
        }


def sign_ear(
    signer: SignerIdentity,
    submodules: Sequence[Submodule],
    *,
    service: str,
    now: int,
    simulated: bool,
) -> str:
    """Sign what appraisal came to.

    Args:
        signer: signs, and vouches for its key by its chain.
        submodules: at least one; names distinct.
        service: what the verifier calls itself; our version is added.
        now: Unix time, seconds.
        simulated: no hardware stands behind the evidence; the verifier's name then says so.

    Returns:
        A compact JWS, ASCII.
    """
    build = f"{service} {__version__}" + (" SIMULATED" if simulated else "")
    claims = {
        "eat_profile": PROFILE,
        "iat": now,
        "exp": now + TOKEN_LIFETIME_S,
        "ear.verifier-id": {"developer": "tng-gateway", "build": build},
        "submods": {module.name: module.claims() for module in submodules},
    }
    header = {"typ": "JWT", "alg": "ES256", "jwk": _jwk(signer)}
    signing_input = f"{_part(header)}.{_part(claims)}"
    r, s = decode_dss_signature(
        signer.key.sign(signing_input.encode("ascii"), ec.ECDSA(hashes.SHA256()))
    )
    signature = r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")
    return f"{signing_input}.{dump_base64url(signature)}"


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """The members of a P-256 key that RFC 7638 requires, in its order."""
    point = key.public_numbers()
    return {
        "crv": "P-256",
        "kty": "EC",
        "x": dump_base64url(point.x.to_bytes(_COORDINATE, "big")),
        "y": dump_base64url(point.y.to_bytes(_COORDINATE, "big")),
    }


def _jwk(signer: SignerIdentity) -> dict[str, object]:
    # base64url, where RFC 7515 section 4.1.6 says base64: TNG 2.8 reads nothing else, and newer
    # readers take both.
    chain = [dump_base64url(item.public_bytes(Encoding.DER)) for item in signer.chain]
    return {"alg": "ES256", "x5c": chain, **public_jwk(signer.key.public_key())}


def _part(value: object) -> str:
    return dump_base64url(
        json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    )
