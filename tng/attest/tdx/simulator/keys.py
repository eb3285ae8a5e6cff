"""P-256 keys of the simulated platform: made, kept in files of mode 0600, used.

Quotes and collateral carry ECDSA signatures and public keys raw, 32 + 32 octets, where
certificates carry DER; this file is the one place that converts.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

if TYPE_CHECKING:
    from pathlib import Path

PrivateKey = ec.EllipticCurvePrivateKey


def make_key() -> PrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def sign_raw(key: PrivateKey, data: bytes) -> bytes:
    """64 octets r and s: ECDSA with SHA-256."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def public_point(key: PrivateKey) -> bytes:
    """64 octets x and y of the public key."""
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def write_key(key: PrivateKey, path: Path) -> None:
    """Write `key` as PKCS #8 PEM to a new file that only its owner can read.

    Raises:
        FileExistsError: `path` is there already.
        OSError: it cannot be written.
    """
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)


def read_key(path: Path) -> PrivateKey:
    """Read a key that `write_key` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no P-256 key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except TypeError as exc:
        raise ValueError(f"{path} is an encrypted key") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ValueError(f"{path} holds no P-256 key")
    return key
