"""A signed token in compact form, and the key that signed it.

In: `header.payload.signature` (RFC 7515 section 7.1) as an attestation service sends it.  Out: a
`SignedToken` with header, key (embedded, or published under a `kid`) and signature taken apart;
the payload stays octets until `verify_signature` has returned, so that nothing unsigned is ever
interpreted.

The algorithms are pinned (RFC 8725 section 3.1), and each goes with one kind of key.

Invariant: `SignedToken.key` fits `SignedToken.algorithm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tng.attest.base64_text import decode_base64
from tng.attest.strict_json import parse_object
from tng.attest.x5c import RSA_BITS

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

MAX_TOKEN: Final = 1024 * 1024
"""Characters of a token; one for a TDX guest with a long event log has about 55,000."""

MAX_HEADER: Final = 64 * 1024
"""Octets of the decoded header: eight certificates of 4 KiB and the key are less."""

MAX_KEY_ID: Final = 256
"""Characters of a `kid`; services use a hash or a UUID."""

MAX_RSA_EXPONENT_BITS: Final = 64
"""Public exponents are 65537 in practice; a huge one only costs time."""

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_CURVES: Final[dict[str, tuple[str, ec.EllipticCurve]]] = {
    "ES256": ("P-256", ec.SECP256R1()),
    "ES384": ("P-384", ec.SECP384R1()),
}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})

ALGORITHMS: Final = frozenset(_CURVES) | _RSA
"""Accepted values of `alg`."""

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A token whose signature has not been checked yet.

    Attributes:
        algorithm: one of `ALGORITHMS`.
        key: the public key from the header's `jwk`.
        x5c: the `x5c` member of that `jwk`, as it came; None when absent.
        payload: the claims, uninterpreted.
    """

    algorithm: str
    key: PublicKey
    x5c: Json
    payload: bytes
    _signed: bytes
    _signature: bytes

    def verify_signature(self) -> None:
        """Return if the signature is by `key` over header and payload.

        Raises:
            ValueError: it is not.
        """
        try:
            if isinstance(self.key, ec.EllipticCurvePublicKey):
                self._verify_ec(self.key)
            else:
                self._verify_rsa(self.key)
        except InvalidSignature as exc:
            raise ValueError(f"{self.algorithm} signature does not verify") from exc

    def _verify_ec(self, key: ec.EllipticCurvePublicKey) -> None:
        size = (key.key_size + 7) // 8
        if len(self._signature) != 2 * size:
            raise ValueError(
                f"{self.algorithm} signature has {len(self._signature)} octets, expected {2 * size}"
            )
        r, s = (int.from_bytes(self._signature[at : at + size], "big") for at in (0, size))
        key.verify(encode_dss_signature(r, s), self._signed, ec.ECDSA(_HASHES[self.algorithm[2:]]))

    def _verify_rsa(self, key: rsa.RSAPublicKey) -> None:
        digest = _HASHES[self.algorithm[2:]]
        scheme: padding.AsymmetricPadding = padding.PKCS1v15()
        if self.algorithm.startswith("PS"):
            # RFC 7518 section 3.5: the salt is as long as the digest.
            scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
        key.verify(self._signature, self._signed, scheme, digest)


def parse_token(text: str) -> SignedToken:
    """Take a compact JWS apart.

    Raises:
        ValueError: too large, not three base64url segments, a header without the members that
            Trustee tokens have, or one that asks for processing that is not done here.
    """
    header, payload, signature = _take_apart(text)
    algorithm, key = header.get("alg"), header.get("jwk")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise ValueError(f"token alg is {algorithm!r:.40}, expected one of {sorted(ALGORITHMS)}")
    if not isinstance(key, dict):
        raise ValueError("token header carries no jwk object")  # noqa: TRY004
    if key.get("alg") != algorithm:
        raise ValueError(f"token alg is {algorithm!r} but its jwk is for {key.get('alg')!r:.40}")
    signed = text.rpartition(".")[0].encode()
    return SignedToken(
        algorithm, _parse_jwk(algorithm, key), key.get("x5c"), payload, signed, signature
    )


def parse_key_id(text: str, algorithm: str) -> str:
    """The `kid` of a token whose key is not embedded but published.

    Args:
        text: the compact JWS.
        algorithm: the one value of `alg` that is accepted.

    Raises:
        ValueError: as `parse_token`, or another algorithm, or no `kid`.
    """
    header, _, _ = _take_apart(text)
    seen, key_id = header.get("alg"), header.get("kid")
    if seen != algorithm:
        raise ValueError(f"token alg is {seen!r:.40}, expected {algorithm!r}")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
        raise ValueError(
            f"token header names no key: expected a kid of 1 to {MAX_KEY_ID} characters"
        )
    return key_id


def parse_token_of(text: str, algorithm: str, key: PublicKey) -> SignedToken:
    """A token whose key was published, together with that key.

    Args:
        text: a token that `parse_key_id` took.
        algorithm: as there.
        key: what was published under its `kid`; must fit the algorithm.

    Raises:
        ValueError: as `parse_token`.
    """
    _, payload, signature = _take_apart(text)
    return SignedToken(algorithm, key, None, payload, text.rpartition(".")[0].encode(), signature)


def parse_rsa_jwk(jwk: dict[str, Json]) -> rsa.RSAPublicKey:
    """The RSA key of RFC 7518 section 6.3.

    Raises:
        ValueError: no such key, or not of 2048 to 8192 bits.
    """
    key = _parse_jwk("PS384", jwk)
    assert isinstance(key, rsa.RSAPublicKey)  # PS384 goes with no other kind
    return key


def _take_apart(text: str) -> tuple[dict[str, Json], bytes, bytes]:
    """Header, payload and signature."""
    if len(text) > MAX_TOKEN:
        raise ValueError(f"token has {len(text)} characters, at most {MAX_TOKEN} are allowed")
    segments = text.split(".")
    if len(segments) != 3 or not text.isascii():
        raise ValueError(f"expected three segments with dots between, got {len(segments)}")
    header_octets, payload, signature = (_decode(segment) for segment in segments)
    if len(header_octets) > MAX_HEADER:
        raise ValueError(f"token header has {len(header_octets)} octets, at most {MAX_HEADER}")
    header = parse_object(header_octets)
    for member in ("crit", "b64"):
        if member in header:  # RFC 7515 section 4.1.11: refuse what is not understood
            raise ValueError(f"token header has {member!r}, which is not supported")
    return header, payload, signature


def same_key(one: object, other: PublicKey) -> bool:
    """Whether `one` is the public key `other`."""
    if isinstance(one, ec.EllipticCurvePublicKey) and isinstance(other, ec.EllipticCurvePublicKey):
        return one.public_numbers() == other.public_numbers()
    if isinstance(one, rsa.RSAPublicKey) and isinstance(other, rsa.RSAPublicKey):
        return one.public_numbers() == other.public_numbers()
    return False


def _decode(segment: str) -> bytes:
    """RFC 7515 section 2: base64url without padding, and nothing else."""
    if "=" in segment or "+" in segment or "/" in segment:
        raise ValueError("a token segment is not unpadded base64url")
    return decode_base64(segment)


def _parse_jwk(algorithm: str, jwk: dict[str, Json]) -> PublicKey:
    """The key of RFC 7518 section 6; a "d" or "p" beside it is ignored like any unknown member."""
    if algorithm in _CURVES:
        name, curve = _CURVES[algorithm]
        if (jwk.get("kty"), jwk.get("crv")) != ("EC", name):
            raise ValueError(f"jwk is not an EC key on {name}, which {algorithm} needs")
        size = (curve.key_size + 7) // 8
        x, y = _number(jwk, "x", size), _number(jwk, "y", size)
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    if jwk.get("kty") != "RSA":
        raise ValueError(f"jwk is not an RSA key, which {algorithm} needs")
    modulus = _number(jwk, "n", RSA_BITS[-1] // 8 + 1)
    exponent = _number(jwk, "e", MAX_RSA_EXPONENT_BITS // 8)
    if modulus.bit_length() not in RSA_BITS:
        raise ValueError(f"RSA key has {modulus.bit_length()} bits, expected 2048 to 8192")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _number(jwk: dict[str, Json], member: str, size: int) -> int:
    """A Base64urlUInt of at most `size` octets; old services drop leading zeros."""
    text = jwk.get(member)
    if not isinstance(text, str):
        raise ValueError(f"jwk has no text member {member!r}")  # noqa: TRY004
    octets = decode_base64(text)
    if not 1 <= len(octets) <= size:
        raise ValueError(f"jwk member {member!r} has {len(octets)} octets, expected 1 to {size}")
    return int.from_bytes(octets, "big")
