"""The key of a TEE that secrets are sealed for, as JSON (RFC 7517).

    {"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":...,"y":...}
    {"kty":"RSA","alg":"RSA-OAEP-256","n":...,"e":...}        also RSA1_5, of older protocols

A parsed JSON value in, a `TeeKey` out, and back.  Source: `tee-pubkey` of the key broker's
protocol 0.1.0 to 0.4.0; RFC 7518 section 6.

Invariant: a `TeeKey` has a public key that fits its algorithm, on its curve or of a safe size.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tng.attest.base64_text import decode_base64, dump_base64url
from tng.attest.binding import canonical_json

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

ECDH: Final = "ECDH-ES+A256KW"
"""Key agreement with a fresh key of ours, then AES key wrap (RFC 7518 section 4.6)."""

RSA_OAEP: Final = "RSA-OAEP-256"
"""RSAES-OAEP with SHA-256 (RFC 7518 section 4.3)."""

RSA_PKCS1: Final = "RSA1_5"
"""RSAES-PKCS1-v1_5 (RFC 7518 section 4.2): what protocols before 0.4.0 ask for."""

CURVES: Final[dict[str, ec.EllipticCurve]] = {"P-256": ec.SECP256R1(), "P-521": ec.SECP521R1()}
"""Curves that clients of the protocol offer."""

_RSA_BITS: Final = range(2048, 4096 + 1)  # below is weak, above only costs time
_MAX_EXPONENT_OCTETS: Final = 4  # 65537 in practice
_EC_MEMBERS: Final = frozenset({"kty", "crv", "alg", "x", "y"})
_RSA_MEMBERS: Final = frozenset({"kty", "alg", "n", "e"})


@dataclass(frozen=True, slots=True)
class TeeKey:
    """A public key with what it is for.

    Attributes:
        algorithm: `ECDH`, `RSA_OAEP` or `RSA_PKCS1`.
        key: elliptic curve for `ECDH`, else RSA.
    """

    algorithm: str
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey

    @property
    def thumbprint(self) -> str:
        """SHA-256 of the canonical JWK, 64 hexadecimal digits; names the key in records."""
        return hashlib.sha256(canonical_json(dump_tee_key(self))).hexdigest()


def parse_tee_key(value: Json) -> TeeKey:
    """Read a JWK.

    Raises:
        ValueError: no key of the kinds above, other members than theirs, a point that is not on
            the curve, or an RSA key outside 2048 to 4096 bits.
    """
    if not isinstance(value, dict):
        raise ValueError("expected a JWK object")  # noqa: TRY004
    algorithm = value.get("alg")
    match value.get("kty"), algorithm:
        case "EC", str(name) if name == ECDH:
            return TeeKey(name, _parse_ec(value))
        case "RSA", str(name) if name in (RSA_OAEP, RSA_PKCS1):
            return TeeKey(name, _parse_rsa(value))
    raise ValueError(
        f"expected an EC key with alg {ECDH}, or an RSA key with alg {RSA_OAEP} or {RSA_PKCS1};"
        f" got kty {value.get('kty')!r:.40}, alg {algorithm!r:.40}"
    )


def dump_tee_key(key: TeeKey) -> dict[str, Json]:
    """The JWK of a key; the inverse of `parse_tee_key`."""
    if isinstance(key.key, rsa.RSAPublicKey):
        numbers = key.key.public_numbers()
        return {
            "kty": "RSA",
            "alg": key.algorithm,
            "n": dump_base64url(_octets(numbers.n)),
            "e": dump_base64url(_octets(numbers.e)),
        }
    return {"kty": "EC", "alg": key.algorithm, **dump_point(key.key)}


def parse_point(value: dict[str, Json]) -> ec.EllipticCurvePublicKey:
    """The point in the members `crv`, `x` and `y`.

    Raises:
        ValueError: an unknown curve, a coordinate of another size, or no point of the curve.
    """
    name = value.get("crv")
    curve = CURVES.get(name) if isinstance(name, str) else None
    if curve is None:
        raise ValueError(f"crv is {name!r:.40}, expected one of {', '.join(CURVES)}")
    size = (curve.key_size + 7) // 8
    x, y = (_number(value, member, size) for member in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()


def dump_point(key: ec.EllipticCurvePublicKey) -> dict[str, Json]:
    """Members `crv`, `x` and `y`; coordinates have the full width (RFC 7518 section 6.2.1.2)."""
    point = key.public_numbers()
    size = (key.key_size + 7) // 8
    return {
        "crv": next(name for name, curve in CURVES.items() if curve.name == key.curve.name),
        "x": dump_base64url(point.x.to_bytes(size, "big")),
        "y": dump_base64url(point.y.to_bytes(size, "big")),
    }


def _parse_ec(value: dict[str, Json]) -> ec.EllipticCurvePublicKey:
    _refuse_others(value, _EC_MEMBERS)
    return parse_point(value)


def _parse_rsa(value: dict[str, Json]) -> rsa.RSAPublicKey:
    _refuse_others(value, _RSA_MEMBERS)
    modulus = _number(value, "n", _RSA_BITS[-1] // 8)
    exponent = _number(value, "e", _MAX_EXPONENT_OCTETS)
    if modulus.bit_length() not in _RSA_BITS:
        raise ValueError(f"RSA key has {modulus.bit_length()} bits, expected 2048 to 4096")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _refuse_others(value: dict[str, Json], known: frozenset[str]) -> None:
    # A private part would be in the token for everybody to read.
    if others := sorted(value.keys() - known):
        raise ValueError(f"JWK has the member {others[0][:40]!r}, expected {sorted(known)}")


def _number(value: dict[str, Json], member: str, size: int) -> int:
    text = value.get(member)
    if not isinstance(text, str) or len(text) > 2 * size:
        raise ValueError(f"JWK member {member!r} is no base64url text of {size} octets")
    octets = decode_base64(text)
    if not 1 <= len(octets) <= size:
        raise ValueError(f"JWK member {member!r} has {len(octets)} octets, expected 1 to {size}")
    return int.from_bytes(octets, "big")


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
