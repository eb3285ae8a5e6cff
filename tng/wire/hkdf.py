"""HKDF with SHA-256 (RFC 5869): secrets in, derived octets out.

    key = hkdf_extract(salt, secret)
    hkdf_expand(key, b"nonce", 12)

Invariant: a length that cannot be derived ends in `LocalProtocolError`.
"""

from __future__ import annotations

import hmac
from typing import Final

from tng.errors import LocalProtocolError

HASH_SIZE: Final = 32
"""Octets of a SHA-256 digest."""
MAX_DERIVED: Final = 255 * HASH_SIZE
"""Octets that can be expanded to (RFC 5869 section 2.3)."""


def hkdf_extract(salt: bytes, secret: bytes) -> bytes:
    """A pseudorandom key of `HASH_SIZE` octets (RFC 5869 section 2.2)."""
    return hmac.digest(salt or bytes(HASH_SIZE), secret, "sha256")


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """Derived octets (RFC 5869 section 2.3).

    Args:
        key: what `hkdf_extract` returned.
        info: what they are for.
        length: octets, 1 to `MAX_DERIVED`.

    Raises:
        LocalProtocolError: a length outside its range.
    """
    if not 1 <= length <= MAX_DERIVED:
        raise LocalProtocolError(f"HKDF gives 1 to {MAX_DERIVED} octets, not {length}")
    out = block = hmac.digest(key, info + b"\x01", "sha256")
    counter = 1
    while len(out) < length:
        counter += 1
        block = hmac.digest(key, block + info + bytes((counter,)), "sha256")
        out += block
    return out[:length]
