"""Hybrid public key encryption (RFC 9180), as far as OHTTP needs it.

DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, and AES-128-GCM or ChaCha20-Poly1305; base mode and auth
mode. A recipient's public key goes in, a context that seals many messages comes out:

    enc, sender = setup_sender(suite, recipient_public, info, ephemeral)
    sealed = sender.seal(b"plaintext")
    recipient = setup_recipient(suite, recipient_private, enc, info)
    recipient.open(sealed)

Randomness is an argument: the caller makes a fresh ephemeral key for each `setup_sender`.

Invariant: only the owner of the recipient's key can make the matching context, and in auth mode
only together with the owner of the sender's. A key with which no secret can be agreed is refused.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from tng.errors import RemoteProtocolError
from tng.wire.hkdf import HASH_SIZE, hkdf_expand, hkdf_extract
from tng.wire.hpke_aead import NONCE_SIZE, MessageOpener, MessageSealer, Suite

KEM_X25519: Final = 0x0020
"""DHKEM(X25519, HKDF-SHA256)."""
PUBLIC_KEY_SIZE: Final = 32
"""Octets of an X25519 public key, and of `enc`."""

_MAX_CONTEXTS: Final = 256
"""What keys are bound to is remembered for so many recipients and suites."""

_MODE_BASE, _MODE_AUTH = b"\x00", b"\x02"
_KEM_SUITE_ID: Final = b"KEM" + KEM_X25519.to_bytes(2, "big")


class PublicKeyError(RemoteProtocolError):
    """The peer's public key is none, or a point with which no secret can be agreed."""


@dataclass(frozen=True, slots=True)
class _Schedule:
    """What both sides derive at the setup."""

    suite: Suite
    suite_id: bytes
    key: bytes = field(repr=False)
    base_nonce: bytes = field(repr=False)
    exporter_secret: bytes = field(repr=False)

    def export(self, label: bytes, length: int) -> bytes:
        return _labeled_expand(self.suite_id, self.exporter_secret, b"sec", label, length)


class SenderContext(MessageSealer):
    """The side that seals; made by `setup_sender`."""

    def __init__(self, schedule: _Schedule) -> None:
        super().__init__(schedule.suite, schedule.key, schedule.base_nonce)
        self._schedule = schedule

    def export(self, label: bytes, length: int) -> bytes:
        """A secret for another use, the same on both sides (RFC 9180 section 5.3).

        Args:
            label: what the secret is for.
            length: octets, 1 to `tng.wire.hkdf.MAX_DERIVED`.

        Raises:
            LocalProtocolError: a length outside its range.
        """
        return self._schedule.export(label, length)


class RecipientContext(MessageOpener):
    """The side that opens; made by `setup_recipient`."""

    def __init__(self, schedule: _Schedule) -> None:
        super().__init__(schedule.suite, schedule.key, schedule.base_nonce)
        self._schedule = schedule

    def export(self, label: bytes, length: int) -> bytes:
        """As `SenderContext.export`."""
        return self._schedule.export(label, length)


def setup_sender(
    suite: Suite,
    recipient_public: bytes,
    info: bytes,
    ephemeral: X25519PrivateKey,
    sender: X25519PrivateKey | None = None,
) -> tuple[bytes, SenderContext]:
    """Make a context that only the recipient can follow (RFC 9180 sections 4.1 and 5.1).

    Args:
        suite: a supported suite.
        recipient_public: the recipient's public key, 32 octets.
        info: what the context is bound to; both sides give the same.
        ephemeral: a fresh key, used for this context alone.
        sender: a key of our own that the recipient knows, for auth mode.

    Returns:
        The 32 octets `enc` for the recipient, and the context.

    Raises:
        PublicKeyError: the recipient's key is not 32 octets, or a point of low order.
        LocalProtocolError: the suite is not supported.
    """
    recipient = _load_public(recipient_public, "recipient's")
    enc = ephemeral.public_key().public_bytes_raw()
    agreed = _agree(ephemeral, recipient, "recipient's")
    bound = enc + recipient_public
    mode = _MODE_BASE
    if sender is not None:
        agreed += _agree(sender, recipient, "recipient's")
        bound += sender.public_key().public_bytes_raw()
        mode = _MODE_AUTH
    return enc, SenderContext(_schedule(suite, mode, _kem_secret(agreed, bound), info))


def setup_recipient(
    suite: Suite,
    recipient: X25519PrivateKey,
    enc: bytes,
    info: bytes,
    sender_public: bytes | None = None,
) -> RecipientContext:
    """Follow a sender's context (RFC 9180 sections 4.1 and 5.1).

    Args:
        suite: a supported suite.
        recipient: our key.
        enc: what the sender's setup returned, 32 octets.
        info: what the context is bound to; both sides give the same.
        sender_public: the key that the sender has to own, for auth mode. Whether it does shows
            when the first message is opened.

    Raises:
        PublicKeyError: one of the peer's keys is not 32 octets, or a point of low order.
        LocalProtocolError: the suite is not supported.
    """
    agreed = _agree(recipient, _load_public(enc, "ephemeral"), "ephemeral")
    bound = enc + recipient.public_key().public_bytes_raw()
    mode = _MODE_BASE
    if sender_public is not None:
        agreed += _agree(recipient, _load_public(sender_public, "sender's"), "sender's")
        bound += sender_public
        mode = _MODE_AUTH
    return RecipientContext(_schedule(suite, mode, _kem_secret(agreed, bound), info))


def _load_public(octets: bytes, whose: str) -> X25519PublicKey:
    if len(octets) != PUBLIC_KEY_SIZE:
        raise PublicKeyError(
            f"{whose} X25519 key has {len(octets)} octets, expected {PUBLIC_KEY_SIZE}"
        )
    return X25519PublicKey.from_public_bytes(octets)


def _agree(private: X25519PrivateKey, public: X25519PublicKey, whose: str) -> bytes:
    try:
        return private.exchange(public)
    except ValueError as exc:  # the secret would be all zero: RFC 9180 section 7.1.4
        raise PublicKeyError(f"{whose} X25519 key is a point of low order") from exc


def _kem_secret(agreed: bytes, bound: bytes) -> bytes:
    key = _labeled_extract(_KEM_SUITE_ID, b"", b"eae_prk", agreed)
    return _labeled_expand(_KEM_SUITE_ID, key, b"shared_secret", bound, HASH_SIZE)


def _schedule(suite: Suite, mode: bytes, shared_secret: bytes, info: bytes) -> _Schedule:
    """Derive the key, the base nonce and the exporter secret (RFC 9180 section 5.1)."""
    key_size = suite.key_size
    suite_id, bound = _key_schedule_context(suite.kdf, suite.aead, mode, info)
    secret = _labeled_extract(suite_id, shared_secret, b"secret", b"")
    return _Schedule(
        suite,
        suite_id,
        key=_labeled_expand(suite_id, secret, b"key", bound, key_size),
        base_nonce=_labeled_expand(suite_id, secret, b"base_nonce", bound, NONCE_SIZE),
        exporter_secret=_labeled_expand(suite_id, secret, b"exp", bound, HASH_SIZE),
    )


@functools.lru_cache(maxsize=_MAX_CONTEXTS)
def _key_schedule_context(kdf: int, aead: int, mode: bytes, info: bytes) -> tuple[bytes, bytes]:
    """The suite's id and what its keys are bound to: the same for every request to one key."""
    suite_id = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (KEM_X25519, kdf, aead))
    # There is no pre-shared key in either mode: its id and value are empty.
    psk_id_hash = _labeled_extract(suite_id, b"", b"psk_id_hash", b"")
    info_hash = _labeled_extract(suite_id, b"", b"info_hash", info)
    return suite_id, mode + psk_id_hash + info_hash


def _labeled_extract(suite_id: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    return hkdf_extract(salt, b"HPKE-v1" + suite_id + label + secret)


def _labeled_expand(suite_id: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    # A length that does not fit two octets is refused by hkdf_expand; here it must not overflow.
    size = (length & 0xFFFF).to_bytes(2, "big")
    return hkdf_expand(key, size + b"HPKE-v1" + suite_id + label + info, length)
