"""HKDF with SHA-256 (RFC 5869): secrets in, derived octets out.

    key = hkdf_extract(salt, secret)
    hkdf_expand(key, b"nonce", 12)

Invariant: a length that cannot be derived ends in `LocalProtocolError`.
"""

from __future__ import annotations

import hashlib
from typing import Final

from tng.errors import LocalProtocolError

HASH_SIZE: Final = 32
"""Octets of a SHA-256 digest."""
MAX_DERIVED: Final = 255 * HASH_SIZE
"""Octets that can be expanded to (RFC 5869 section 2.3)."""

_BLOCK_SIZE: Final = 64  # octets that SHA-256 takes at a time
_INNER: Final = bytes(octet ^ 0x36 for octet in range(256))
_OUTER: Final = bytes(octet ^ 0x5C for octet in range(256))


def hkdf_extract(salt: bytes, secret: bytes) -> bytes:
    """A pseudorandom key of `HASH_SIZE` octets (RFC 5869 section 2.2)."""
    return _hmac(salt, secret)


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
    out = block = _hmac(key, info + b"\x01")
    counter = 1
    while len(out) < length:
        counter += 1
        block = _hmac(key, block + info + bytes((counter,)))
        out += block
    return out[:length]


def _hmac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256 (RFC 2104) under a key of one block at most.

    A request takes ten of them on either side, and `hmac.digest` looks its algorithm up for each,
    which takes longer than the two hashes.
    """
    if len(key) > _BLOCK_SIZE:
        key = hashlib.sha256(key).digest()
    block = key.ljust(_BLOCK_SIZE, b"\0")
    inner = hashlib.sha256(block.translate(_INNER) + message).digest()
    return hashlib.sha256(block.translate(_OUTER) + inner).digest()
