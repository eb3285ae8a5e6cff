"""tng.wire.hpke_aead: sequences of messages that open only in their place."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.hpke_aead import (
    MAX_SEQUENCE,
    TAG_SIZE,
    DecryptionError,
    MessageOpener,
    MessageSealer,
    Suite,
)

AES, CHACHA = Suite(1, 1), Suite(1, 3)
SUITES = pytest.mark.parametrize("suite", [AES, CHACHA], ids=["aes-128-gcm", "chacha20-poly1305"])


def pair(suite: Suite) -> tuple[MessageSealer, MessageOpener]:
    key, base_nonce = bytes(range(suite.key_size)), bytes(range(12))
    return MessageSealer(suite, key, base_nonce), MessageOpener(suite, key, base_nonce)


@SUITES
def test_messages_open_in_the_order_in_which_they_were_sealed(suite: Suite) -> None:
    sealer, opener = pair(suite)
    for index in range(300):
        plaintext = b"message %d" % index
        sealed = sealer.seal(plaintext, b"aad")
        assert len(sealed) == len(plaintext) + TAG_SIZE
        assert opener.open(sealed, b"aad") == plaintext


@SUITES
def test_message_number_257_has_the_nonce_that_the_rfc_gives_it(suite: Suite) -> None:
    sealer, _ = pair(suite)
    sealed = [sealer.seal(b"x") for _ in range(258)]
    cipher = AESGCM if suite == AES else ChaCha20Poly1305
    nonce = bytes((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 ^ 1, 11 ^ 1))
    assert sealed[257] == cipher(bytes(range(suite.key_size))).encrypt(nonce, b"x", b"")


@SUITES
def test_equal_messages_are_sealed_differently(suite: Suite) -> None:
    sealer, _ = pair(suite)
    assert sealer.seal(b"same") != sealer.seal(b"same")


@SUITES
@pytest.mark.parametrize(
    "spoil",
    [
        lambda sealed: sealed[:-1],
        lambda sealed: sealed + b"\0",
        lambda sealed: bytes([sealed[0] ^ 1]) + sealed[1:],
        lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 0x80]),
        lambda _: b"",
        lambda _: bytes(15),
    ],
)
def test_what_was_not_sealed_does_not_open(suite: Suite, spoil) -> None:
    sealer, opener = pair(suite)
    with pytest.raises(DecryptionError, match="message 0 is forged"):
        opener.open(spoil(sealer.seal(b"plaintext")))


@SUITES
def test_another_place_or_other_associated_data_does_not_open(suite: Suite) -> None:
    sealer, opener = pair(suite)
    first, second = sealer.seal(b"1", b"aad"), sealer.seal(b"2", b"aad")
    for sealed, aad in ((second, b"aad"), (first, b"")):
        with pytest.raises(DecryptionError):
            opener.open(sealed, aad)
    assert opener.open(first, b"aad") == b"1"  # a failure has used no place
    with pytest.raises(DecryptionError):
        opener.open(first, b"aad")
    assert opener.open(second, b"aad") == b"2"


def test_views_are_sealed_and_opened_without_being_held() -> None:
    sealer, opener = pair(AES)
    plaintext = bytearray(b"0123456789")
    sealed = bytearray(sealer.seal(memoryview(plaintext)[2:5]))
    assert opener.open(memoryview(sealed)) == b"234"
    plaintext.clear(), sealed.clear()


def test_a_key_is_given_up_before_a_nonce_repeats() -> None:
    sealer, opener = pair(AES)
    sealer._sequence = opener._sequence = MAX_SEQUENCE - 1
    assert opener.open(sealer.seal(b"last")) == b"last"
    with pytest.raises(LocalProtocolError, match="no nonce is left"):
        sealer.seal(b"one more")
    with pytest.raises(LocalProtocolError, match="no nonce is left"):
        opener.open(bytes(16))


@pytest.mark.parametrize("suite", [Suite(1, 2), Suite(3, 1), Suite(1, 0xFFFF), Suite(0, 0)])
def test_suites_that_cannot_be_used_say_so(suite: Suite) -> None:
    assert not suite.is_supported
    with pytest.raises(LocalProtocolError, match=f"KDF {suite.kdf} and AEAD {suite.aead}"):
        _ = suite.key_size


def test_a_forged_message_is_the_peers_fault() -> None:
    assert issubclass(DecryptionError, RemoteProtocolError)
