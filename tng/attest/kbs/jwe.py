"""A secret sealed for one key: JSON Web Encryption, flattened (RFC 7516 section 7.2.2).

    {"protected": base64url of {"alg","enc":"A256GCM","epk"?}, "encrypted_key", "iv",
     "ciphertext", "tag"}

`seal` is the broker's half, `open_sealed` the TEE's.  Key management as the `TeeKey` asks:
ECDH-ES+A256KW (RFC 7518 section 4.6, Concat KDF of section 4.6.2 with empty party information),
RSA-OAEP-256, and RSA1_5 for sealing alone.

Invariant: every seal has a content key, an initialisation vector and, with ECDH, an ephemeral key
of its own.
"""

from __future__ import annotations

import json
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash

from tng.attest.base64_text import decode_base64, dump_base64url
from tng.attest.kbs.tee_key import ECDH, RSA_OAEP, RSA_PKCS1, TeeKey, dump_point, parse_point
from tng.attest.strict_json import Json, parse_object

MAX_SEALED: Final = 1024 * 1024
"""Octets of a sealed secret as JSON: half a MiB of secret in base64, and some."""

_ENCRYPTION: Final = "A256GCM"
_KEY: Final = 32  # octets of content and wrapping keys
_VECTOR: Final = 12  # octets, RFC 7518 section 5.3
_TAG: Final = 16  # octets, RFC 7518 section 5.3
_MEMBERS: Final = ("protected", "encrypted_key", "iv", "ciphertext", "tag")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def seal(secret: bytes, recipient: TeeKey) -> bytes:
    """A JWE that only the recipient's private key opens; JSON.

    Args:
        secret: any octets.
        recipient: whose key it is for.
    """
    content_key = secrets.token_bytes(_KEY)
    header: dict[str, Json] = {"alg": recipient.algorithm, "enc": _ENCRYPTION}
    if isinstance(recipient.key, rsa.RSAPublicKey):
        encrypted_key = recipient.key.encrypt(content_key, _rsa_padding(recipient.algorithm))
    else:
        ephemeral = ec.generate_private_key(recipient.key.curve)
        header["epk"] = {"kty": "EC", **dump_point(ephemeral.public_key())}
        shared = ephemeral.exchange(ec.ECDH(), recipient.key)
        encrypted_key = keywrap.aes_key_wrap(_wrapping_key(shared), content_key)
    protected = dump_base64url(json.dumps(header, separators=(",", ":")).encode("ascii"))
    vector = secrets.token_bytes(_VECTOR)
    sealed = AESGCM(content_key).encrypt(vector, secret, protected.encode("ascii"))
    parts = (encrypted_key, vector, sealed[:-_TAG], sealed[-_TAG:])
    texts = [protected, *map(dump_base64url, parts)]
    return json.dumps(dict(zip(_MEMBERS, texts, strict=True)), separators=(",", ":")).encode()


def open_sealed(data: bytes, private_key: PrivateKey) -> bytes:
    """The secret in a JWE.

    Args:
        data: JSON, at most `MAX_SEALED` octets.
        private_key: whose public half the secret was sealed for.

    Raises:
        ValueError: not such a JWE, for another key, or changed on its way.  The message never
            tells which part of an authentic-looking one failed.
    """
    if len(data) > MAX_SEALED:
        raise ValueError(f"expected a JWE of at most {MAX_SEALED} octets, got {len(data)}")
    members = parse_object(data)
    texts = [members.get(name) for name in _MEMBERS]
    protected, *others = [text for text in texts if isinstance(text, str)] or [""]
    if len(others) != len(_MEMBERS) - 1 or members.keys() != set(_MEMBERS):
        raise ValueError(f"expected a flattened JWE with the members {', '.join(_MEMBERS)}")
    encrypted_key, vector, ciphertext, tag = (decode_base64(text) for text in others)
    header = parse_object(decode_base64(protected))
    if len(vector) != _VECTOR or len(tag) != _TAG or header.get("enc") != _ENCRYPTION:
        raise ValueError(f"expected a JWE with enc {_ENCRYPTION}")
    if header.keys() - {"alg", "enc", "epk"}:
        raise ValueError("the JWE's header asks for processing that is not done here")
    content_key = _content_key(header, encrypted_key, private_key)
    try:
        return AESGCM(content_key).decrypt(vector, ciphertext + tag, protected.encode("ascii"))
    except (InvalidTag, ValueError):  # ValueError: a content key of another length
        raise ValueError("the JWE does not open with our key, or was changed") from None


def _content_key(header: dict[str, Json], encrypted_key: bytes, private_key: PrivateKey) -> bytes:
    expected = ECDH if isinstance(private_key, ec.EllipticCurvePrivateKey) else RSA_OAEP
    if header.get("alg") != expected:
        raise ValueError(f"JWE alg is {header.get('alg')!r:.40}, expected {expected}")
    if isinstance(private_key, rsa.RSAPrivateKey):
        try:
            return private_key.decrypt(encrypted_key, _rsa_padding(RSA_OAEP))
        except ValueError:
            return b""  # fails where a changed ciphertext fails
    epk = header.get("epk")
    if not isinstance(epk, dict) or epk.get("kty") != "EC":
        raise ValueError("JWE has no EC key in epk")
    point = parse_point(epk)
    if point.curve.name != private_key.curve.name:
        raise ValueError(f"JWE epk is on {point.curve.name}, our key on {private_key.curve.name}")
    shared = private_key.exchange(ec.ECDH(), point)
    try:
        return keywrap.aes_key_unwrap(_wrapping_key(shared), encrypted_key)
    except (keywrap.InvalidUnwrap, ValueError):
        return b""


def _rsa_padding(algorithm: str) -> padding.AsymmetricPadding:
    if algorithm == RSA_PKCS1:
        return padding.PKCS1v15()
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def _wrapping_key(shared: bytes) -> bytes:
    """Concat KDF: AlgorithmID, empty PartyUInfo and PartyVInfo, SuppPubInfo = bits of the key."""
    name = ECDH.encode("ascii")
    other_info = len(name).to_bytes(4, "big") + name + bytes(8) + (_KEY * 8).to_bytes(4, "big")
    return ConcatKDFHash(hashes.SHA256(), _KEY, other_info).derive(shared)
