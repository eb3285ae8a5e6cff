"""A signed envelope (DSSE) and the keys that may sign one.

An envelope and trusted public keys go in, the signed octets come out.  Source: DSSE protocol 1.0.2
(secure-systems-lab/dsse): the signature is over `DSSEv1`, the type and the payload, each with its
length.  Keys are pinned by the operator: `keyid` is only a hint there and is not used here.

Invariant: octets leave this file only after a signature by a trusted key was verified over them.

    payload = open_envelope(document, IN_TOTO, load_keys([pem]))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tng.attest.base64_text import decode_base64
from tng.attest.strict_json import Json

MAX_SIGNATURES: Final = 16
"""Signatures of one envelope: a few maintainers; each costs one verification for each key."""

MAX_KEYS: Final = 16
"""Trusted keys."""

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
"""Kinds of keys that are trusted to sign: Ed25519, and ECDSA on P-256 or P-384."""

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
}


@dataclass(frozen=True, slots=True)
class _Envelope:
    kind: str
    payload: bytes
    signatures: tuple[bytes, ...]

    @property
    def signed(self) -> bytes:
        """The pre-authentication encoding."""
        kind = self.kind.encode()
        head = b"DSSEv1 %d %s %d " % (len(kind), kind, len(self.payload))
        return head + self.payload


def load_key(pem: bytes) -> PublicKey:
    """A trusted public key.

    Raises:
        ValueError: no public key in PEM, or of another kind.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ValueError("expected a public key in PEM") from exc
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASHES:
        return key
    raise ValueError("expected an Ed25519 key, or an ECDSA key on P-256 or P-384")


def open_envelope(
    document: dict[str, Json], kinds: Sequence[str], keys: Sequence[PublicKey]
) -> bytes:
    """The payload of an envelope that a trusted key has signed.

    Args:
        document: the envelope, parsed.
        kinds: payload types that are expected.
        keys: trusted, at most `MAX_KEYS`.

    Raises:
        ValueError: no such envelope, of another type, or no signature by a trusted key verifies.
    """
    envelope = _parse(document)
    if envelope.kind not in kinds:
        raise ValueError(f"payloadType is {envelope.kind!r:.80}, expected {' or '.join(kinds)}")
    if not keys:
        raise ValueError(
            "signed, but no public key is trusted to sign reference values: name files in "
            "trusted_keys_paths"
        )
    if len(keys) > MAX_KEYS:
        raise ValueError(f"more than {MAX_KEYS} trusted keys")
    if not any(_verifies(envelope, s, key) for s in envelope.signatures for key in keys):
        raise ValueError(
            f"none of {len(envelope.signatures)} signatures is by one of {len(keys)} trusted keys"
        )
    return envelope.payload


def _parse(document: dict[str, Json]) -> _Envelope:
    kind, payload = document.get("payloadType"), document.get("payload")
    signatures = document.get("signatures")
    if not isinstance(kind, str) or not isinstance(payload, str):
        raise ValueError("expected a DSSE envelope with texts payloadType and payload")  # noqa: TRY004
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise ValueError(f"expected a DSSE envelope with 1 to {MAX_SIGNATURES} signatures")
    found = [item.get("sig") if isinstance(item, dict) else None for item in signatures]
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) != len(found):
        raise ValueError("expected each signature to have the text sig")
    return _Envelope(kind, decode_base64(payload), tuple(decode_base64(text) for text in texts))


def _verifies(envelope: _Envelope, signature: bytes, key: PublicKey) -> bool:
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, envelope.signed)
        else:
            key.verify(signature, envelope.signed, ec.ECDSA(_HASHES[key.curve.name]))
    except InvalidSignature:
        return False
    return True
