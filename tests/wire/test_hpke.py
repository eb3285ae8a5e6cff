"""tng.wire.hpke: RFC 9180's vectors, an independent implementation, and what must not open."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

from tng.errors import LocalProtocolError
from tng.wire.hpke import PublicKeyError, setup_recipient, setup_sender
from tng.wire.hpke_aead import DecryptionError, Suite

SUITES = pytest.mark.parametrize("suite", [Suite(1, 1), Suite(1, 3)], ids=["aes", "chacha"])
PLAINTEXT = b"Beauty is truth, truth beauty"
INFO = b"Ode on a Grecian Urn"


@dataclass(frozen=True)
class Vector:
    """One "Setup Information" of RFC 9180 appendix A; ciphertexts by sequence number."""

    section: str
    suite: Suite
    ephemeral: str
    recipient: str
    enc: str
    key: str
    exporter_secret: str
    sealed: dict[int, str]
    sender: str | None = None
    exported: dict[str, str] = field(default_factory=dict)


VECTORS = [
    Vector(
        section="A.1.1",
        suite=Suite(1, 1),
        ephemeral="52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736",
        recipient="4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
        enc="37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
        key="4531685d41d65f03dc48f6b8302c05b0",
        exporter_secret="45ff1c2e220db587171952c0592d5f5ebe103f1561a2614e38f2ffd47e99e3f8",
        sealed={
            0: "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a9"
            "6d8770ac83d07bea87e13c512a",
            1: "af2d7e9ac9ae7e270f46ba1f975be53c09f8d875bdc8535458c2494e8a6eab25"
            "1c03d0c22a56b8ca42c2063b84",
            2: "498dfcabd92e8acedc281e85af1cb4e3e31c7dc394a1ca20e173cb7251649158"
            "8d96a19ad4a683518973dcc180",
            255: "7175db9717964058640a3a11fb9007941a5d1757fda1a6935c805c21af32505b"
            "f106deefec4a49ac38d71c9e0a",
        },
        exported={
            "": "3853fe2b4035195a573ffc53856e77058e15d9ea064de3e59f4961d0095250ee",
            "00": "2e8f0b54673c7029649d4eb9d5e33bf1872cf76d623ff164ac185da9e88c21a5",
        },
    ),
    Vector(
        section="A.1.3",
        suite=Suite(1, 1),
        ephemeral="ff4442ef24fbc3c1ff86375b0be1e77e88a0de1e79b30896d73411c5ff4c3518",
        recipient="fdea67cf831f1ca98d8e27b1f6abeb5b7745e9d35348b80fa407ff6958f9137e",
        sender="dc4a146313cce60a278a5323d321f051c5707e9c45ba21a3479fecdf76fc69dd",
        enc="23fb952571a14a25e3d678140cd0e5eb47a0961bb18afcf85896e5453c312e76",
        key="b062cb2c4dd4bca0ad7c7a12bbc341e6",
        exporter_secret="ee1a093e6e1c393c162ea98fdf20560c75909653550540a2700511b65c88c6f1",
        sealed={
            0: "5fd92cc9d46dbf8943e72a07e42f363ed5f721212cd90bcfd072bfd9f44e06b8"
            "0fd17824947496e21b680c141b",
            1: "d3736bb256c19bfa93d79e8f80b7971262cb7c887e35c26370cfed62254369a1"
            "b52e3d505b79dd699f002bc8ed",
            2: "122175cfd5678e04894e4ff8789e85dd381df48dcaf970d52057df2c9acc3b12"
            "1313a2bfeaa986050f82d93645",
            255: "55d53d85fe4d9e1e97903101eab0b4865ef20cef28765a47f840ff99625b7d69"
            "dee927df1defa66a036fc58ff2",
        },
    ),
    Vector(
        section="A.2.1",
        suite=Suite(1, 3),
        ephemeral="f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600",
        recipient="8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
        enc="1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
        key="ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91",
        exporter_secret="a3b010d4994890e2c6968a36f64470d3c824c8f5029942feb11e7a74b2921922",
        sealed={
            0: "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db"
            "21993c62ce81883d2dd1b51a28",
            1: "6b53c051e4199c518de79594e1c4ab18b96f081549d45ce015be002090bb119e"
            "85285337cc95ba5f59992dc98c",
        },
        exported={"": "4bbd6243b8bb54cec311fac9df81841b6fd61f56538a775e7c80a9f40160606e"},
    ),
]


def key(octets: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(octets))


def public(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


EPHEMERAL, RECIPIENT, SENDER, OTHER = (key(octet * 32) for octet in ("11", "22", "33", "44"))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.section)
def test_the_vectors_of_rfc_9180(vector: Vector) -> None:
    recipient = key(vector.recipient)
    sender = None if vector.sender is None else key(vector.sender)
    enc, sealing = setup_sender(
        vector.suite, public(recipient), INFO, key(vector.ephemeral), sender
    )
    opening = setup_recipient(vector.suite, recipient, enc, INFO, sender and public(sender))
    assert enc.hex() == vector.enc
    assert sealing._schedule.key.hex() == vector.key
    assert sealing._schedule.exporter_secret.hex() == vector.exporter_secret
    for number in range(max(vector.sealed) + 1):
        aad = b"Count-%d" % number
        sealed = sealing.seal(PLAINTEXT, aad)
        assert sealed.hex() == vector.sealed.get(number, sealed.hex())
        assert opening.open(sealed, aad) == PLAINTEXT
    for label, exported in vector.exported.items():
        assert sealing.export(bytes.fromhex(label), 32).hex() == exported
        assert opening.export(bytes.fromhex(label), 32).hex() == exported


KEYS = st.binary(min_size=32, max_size=32).map(X25519PrivateKey.from_private_bytes)


@SUITES
@given(ephemeral=KEYS, recipient=KEYS, sender=st.none() | KEYS, info=st.binary(max_size=80))
@settings(max_examples=25)
def test_an_independent_implementation_opens_and_exports_the_same(
    suite: Suite,
    ephemeral: X25519PrivateKey,
    recipient: X25519PrivateKey,
    sender: X25519PrivateKey | None,
    info: bytes,
) -> None:
    enc, sealing = setup_sender(suite, public(recipient), info, ephemeral, sender)
    aead = AEADId.AES128_GCM if suite.aead == 1 else AEADId.CHACHA20_POLY1305
    oracle = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, aead)
    opening = oracle.create_recipient_context(
        enc,
        KEMKey.from_pyca_cryptography_key(recipient),
        info=info,
        pks=None if sender is None else KEMKey.from_pyca_cryptography_key(sender.public_key()),
    )
    for plaintext in (b"", b"one", bytes(5000)):
        assert opening.open(sealing.seal(plaintext, b"aad"), b"aad") == plaintext
    assert opening.export(b"label", 77) == sealing.export(b"label", 77)


@SUITES
@given(recipient=KEYS, sender=st.none() | KEYS, info=st.binary(max_size=80))
@settings(max_examples=25)
def test_what_an_independent_implementation_sealed_opens(
    suite: Suite, recipient: X25519PrivateKey, sender: X25519PrivateKey | None, info: bytes
) -> None:
    aead = AEADId.AES128_GCM if suite.aead == 1 else AEADId.CHACHA20_POLY1305
    oracle = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, aead)
    enc, sealing = oracle.create_sender_context(
        KEMKey.from_pyca_cryptography_key(recipient.public_key()),
        info=info,
        sks=None if sender is None else KEMKey.from_pyca_cryptography_key(sender),
    )
    opening = setup_recipient(suite, recipient, enc, info, sender and public(sender))
    assert opening.open(sealing.seal(b"text", b"aad"), b"aad") == b"text"
    assert opening.export(b"", 16) == sealing.export(b"", 16)


@SUITES
def test_a_context_opens_nothing_that_was_set_up_differently(suite: Suite) -> None:
    enc, sealing = setup_sender(suite, public(RECIPIENT), INFO, EPHEMERAL, SENDER)
    sealed = sealing.seal(PLAINTEXT)
    other_enc = public(OTHER)
    recipients = [
        setup_recipient(suite, OTHER, enc, INFO, public(SENDER)),
        setup_recipient(suite, RECIPIENT, other_enc, INFO, public(SENDER)),
        setup_recipient(suite, RECIPIENT, enc, INFO + b"!", public(SENDER)),
        setup_recipient(suite, RECIPIENT, enc, INFO, public(OTHER)),
        setup_recipient(suite, RECIPIENT, enc, INFO, None),
        setup_recipient(Suite(1, 4 - suite.aead), RECIPIENT, enc, INFO, public(SENDER)),
    ]
    for opening in recipients:
        with pytest.raises(DecryptionError):
            opening.open(sealed)
        assert opening.export(b"", 32) != sealing.export(b"", 32)
    right = setup_recipient(suite, RECIPIENT, enc, INFO, public(SENDER))
    assert right.open(sealed) == PLAINTEXT


@SUITES
def test_base_mode_does_not_open_where_a_sender_is_expected(suite: Suite) -> None:
    enc, sealing = setup_sender(suite, public(RECIPIENT), INFO, EPHEMERAL)
    opening = setup_recipient(suite, RECIPIENT, enc, INFO, public(SENDER))
    with pytest.raises(DecryptionError):
        opening.open(sealing.seal(PLAINTEXT))


LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
def test_a_point_of_low_order_is_refused_wherever_it_stands(point: bytes) -> None:
    suite = Suite(1, 1)
    with pytest.raises(PublicKeyError, match="recipient's X25519 key is a point of low order"):
        setup_sender(suite, point, INFO, EPHEMERAL)
    with pytest.raises(PublicKeyError, match="ephemeral X25519 key is a point of low order"):
        setup_recipient(suite, RECIPIENT, point, INFO)
    with pytest.raises(PublicKeyError, match="sender's X25519 key is a point of low order"):
        setup_recipient(suite, RECIPIENT, public(EPHEMERAL), INFO, point)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_is_refused_wherever_it_stands(size: int) -> None:
    suite, octets = Suite(1, 1), b"\x09" * size
    with pytest.raises(PublicKeyError, match=f"has {size} octets"):
        setup_sender(suite, octets, INFO, EPHEMERAL)
    with pytest.raises(PublicKeyError, match=f"has {size} octets"):
        setup_recipient(suite, RECIPIENT, octets, INFO)
    with pytest.raises(PublicKeyError, match=f"has {size} octets"):
        setup_recipient(suite, RECIPIENT, public(EPHEMERAL), INFO, octets)


@pytest.mark.parametrize("suite", [Suite(1, 2), Suite(2, 1)])
def test_a_suite_that_is_not_supported_is_refused(suite: Suite) -> None:
    with pytest.raises(LocalProtocolError, match="no HPKE suite"):
        setup_sender(suite, public(RECIPIENT), INFO, EPHEMERAL)
    with pytest.raises(LocalProtocolError, match="no HPKE suite"):
        setup_recipient(suite, RECIPIENT, public(EPHEMERAL), INFO)


@pytest.mark.parametrize("length", [-1, 0, 8161, 65536, 1 << 40])
def test_lengths_that_cannot_be_exported_are_refused(length: int) -> None:
    _, context = setup_sender(Suite(1, 1), public(RECIPIENT), INFO, EPHEMERAL)
    with pytest.raises(LocalProtocolError, match="1 to 8160"):
        context.export(b"", length)


def test_no_secret_is_in_a_repr() -> None:
    _, context = setup_sender(Suite(1, 1), public(RECIPIENT), INFO, EPHEMERAL)
    schedule = context._schedule
    for text in (repr(context), repr(schedule), str(schedule)):
        for secret in (schedule.key, schedule.base_nonce, schedule.exporter_secret):
            assert repr(secret) not in text
            assert secret.hex() not in text
