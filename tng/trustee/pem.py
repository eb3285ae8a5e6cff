"""Private keys and certificates as PEM text (RFC 7468).

Keys go out as PKCS #8 without encryption: the mode of the file they end in protects them, and a
service that starts unattended has nobody to ask for a pass phrase.
"""

from __future__ import annotations

import re
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from tng.errors import StartError

_KEY_BLOCK: Final = re.compile(
    rb"-----BEGIN PRIVATE KEY-----[^-]*-----END PRIVATE KEY-----", re.DOTALL
)


def dump_private_key(key: PrivateKeyTypes) -> bytes:
    """One PKCS #8 block."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def dump_certificate(certificate: x509.Certificate) -> bytes:
    """One certificate block."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def parse_private_keys(data: bytes, where: str) -> list[PrivateKeyTypes]:
    """Every PKCS #8 block of a text, in order.

    Raises:
        StartError: a block is damaged; the message names `where` and no part of the key.
    """
    try:
        return [
            serialization.load_pem_private_key(block, None) for block in _KEY_BLOCK.findall(data)
        ]
    except (ValueError, TypeError) as exc:
        raise StartError(f"{where}: a private key cannot be read: it is damaged") from exc


def parse_certificates(data: bytes, where: str) -> list[x509.Certificate]:
    """Every certificate of a text, in order.

    Raises:
        StartError: there is none, or one is damaged.
    """
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as exc:
        raise StartError(f"{where}: certificates cannot be read: {exc}") from exc
