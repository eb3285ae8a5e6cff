"""How HPKE and OHTTP seal many messages under one key: the suite, and one direction of messages.

Plaintext goes into a `MessageSealer`, and comes out of the `MessageOpener` with the same key:
message i has the nonce `base_nonce` XOR i (RFC 9180 section 5.2).

Invariant: no nonce is used twice; what `open` returns was sealed at the same place of the
sequence with the same associated data. No key is in a `repr`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from tng.errors import LocalProtocolError, RemoteProtocolError

Octets = bytes | bytearray | memoryview
"""What can be sealed, opened and fed without a copy."""

KDF_SHA256: Final = 0x0001
"""HKDF-SHA256."""
AEAD_AES_128_GCM: Final = 0x0001
"""AES-128-GCM."""
AEAD_CHACHA20_POLY1305: Final = 0x0003
"""ChaCha20-Poly1305."""

TAG_SIZE: Final = 16
"""Octets that sealing adds, for every AEAD here."""
NONCE_SIZE: Final = 12
"""Octets of a nonce, for every AEAD here."""
MAX_SEQUENCE: Final = (1 << 8 * NONCE_SIZE) - 1
"""Messages under one key: then the nonces would repeat (RFC 9180 section 5.2)."""

_KEY_SIZES: Final = {AEAD_AES_128_GCM: 16, AEAD_CHACHA20_POLY1305: 32}


class DecryptionError(RemoteProtocolError):
    """A ciphertext is forged, in the wrong place, or made for another key."""


@dataclass(frozen=True, slots=True)
class Suite:
    """How keys are derived and messages sealed; numbers of the IANA registry "HPKE".

    Attributes:
        kdf: 0-65535; only `KDF_SHA256` can be used.
        aead: 0-65535; only `AEAD_AES_128_GCM` and `AEAD_CHACHA20_POLY1305` can be used.
    """

    kdf: int
    aead: int

    @property
    def is_supported(self) -> bool:
        """Whether messages can be sealed with it."""
        return self.kdf == KDF_SHA256 and self.aead in _KEY_SIZES

    @property
    def key_size(self) -> int:
        """Octets of the AEAD's key.

        Raises:
            LocalProtocolError: the suite is not supported.
        """
        if not self.is_supported:
            raise LocalProtocolError(f"no HPKE suite here has KDF {self.kdf} and AEAD {self.aead}")
        return _KEY_SIZES[self.aead]


class _Sequence:
    """The key, and the nonces one after the other."""

    def __init__(self, suite: Suite, key: bytes, base_nonce: bytes) -> None:
        self._aead = AESGCM(key) if suite.aead == AEAD_AES_128_GCM else ChaCha20Poly1305(key)
        self._base_nonce = int.from_bytes(base_nonce, "big")
        self._sequence = 0

    def _nonce(self) -> bytes:
        if self._sequence >= MAX_SEQUENCE:
            raise LocalProtocolError("no nonce is left under this HPKE key")
        return (self._base_nonce ^ self._sequence).to_bytes(NONCE_SIZE, "big")


class MessageSealer(_Sequence):
    """The side that seals.

    Args:
        suite: a supported suite.
        key: `suite.key_size` octets; nothing else is sealed under it.
        base_nonce: `NONCE_SIZE` octets.
    """

    def seal(self, plaintext: Octets, aad: bytes = b"") -> bytes:
        """Ciphertext of the next message, `TAG_SIZE` octets longer.

        Raises:
            LocalProtocolError: `MAX_SEQUENCE` messages were sealed.
        """
        nonce = self._nonce()
        self._sequence += 1
        return self._aead.encrypt(nonce, plaintext, aad)


class MessageOpener(_Sequence):
    """The side that opens.

    Args:
        suite: a supported suite.
        key: `suite.key_size` octets.
        base_nonce: `NONCE_SIZE` octets.
    """

    def open(self, ciphertext: Octets, aad: bytes = b"") -> bytes:
        """Plaintext of the next message; a failure leaves the sequence where it was.

        Raises:
            DecryptionError: it is not what was sealed as this message with this `aad`.
            LocalProtocolError: `MAX_SEQUENCE` messages were opened.
        """
        nonce = self._nonce()
        try:
            plaintext = self._aead.decrypt(nonce, ciphertext, aad)
        except InvalidTag as exc:
            raise DecryptionError(
                f"message {self._sequence} is forged, out of order or for another key"
            ) from exc
        self._sequence += 1
        return plaintext
