"""tng.attest.certificate: the reference's layout, and one refusal per check."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
import warnings
from typing import Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.certificate import (
    CLOCK_TOLERANCE,
    ENDORSEMENT_OID,
    EVIDENCE_OID,
    LIFETIME,
    MAX_CERTIFICATE,
    make_certificate,
    parse_peer_certificate,
)
from tng.errors import ErrorCode, UntrustedPeerError

NOW = 1_800_000_000
KEY = ec.derive_private_key(1001, ec.SECP256R1())
OTHER = ec.derive_private_key(1002, ec.SECP256R1())
P384 = ec.derive_private_key(1003, ec.SECP384R1())
EXTENSION = b"evidence"
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "TNG")])
ELSE = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody else")])
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
GOLDEN = [
    "bc_sample", "bc_sample_additional", "bc_tdx_fake", "pp_ear", "pp_simple", "ita_bc",
    "ita_bc_gpu", "ita_pp",
]  # fmt: skip


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def moment(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC)


def forge(
    key: Key = KEY,
    signer: Key | None = None,
    *,
    subject: x509.Name = NAME,
    issuer: x509.Name = NAME,
    serial: int = 42,
    start: int = NOW,
    end: int = NOW + 3600,
    extension: bytes | None = EXTENSION,
    critical: bool = False,
    hash_with: Hash | None = None,
    rsa_padding: padding.PSS | None = None,
) -> bytes:
    """A certificate with nothing in it but what the arguments say."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(serial)
        .not_valid_before(moment(start))
        .not_valid_after(moment(end))
        .public_key(key.public_key())
    )
    if extension is not None:
        value = x509.UnrecognizedExtension(EVIDENCE_OID, extension)
        builder = builder.add_extension(value, critical=critical)
    signing = signer or key
    algorithm = None if isinstance(signing, ed25519.Ed25519PrivateKey) else hash_with
    if algorithm is None and not isinstance(signing, ed25519.Ed25519PrivateKey):
        algorithm = hashes.SHA256()
    certificate = builder.sign(signing, algorithm, rsa_padding=rsa_padding)
    return certificate.public_bytes(Encoding.DER)


def length(size: int) -> bytes:
    return bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")


def patch(der: bytes, old: bytes, new: bytes) -> bytes:
    """Change the signed part of a certificate of `KEY`, and sign it anew."""
    signed = x509.load_der_x509_certificate(der).tbs_certificate_bytes
    assert signed.count(old) == 1
    signed = signed.replace(old, new)
    signature = b"\0" + KEY.sign(signed, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    body = signed + algorithm + b"\x03" + length(len(signature)) + signature
    return b"\x30" + length(len(body)) + body


def refusal(der: bytes, now: float = NOW) -> tuple[ErrorCode, str]:
    with pytest.raises(UntrustedPeerError) as refused:
        parse_peer_certificate(der, now)
    text = str(refused.value)
    return refused.value.code, text.partition("check ")[2].split(" ")[0].rstrip(":")


# -- making ---------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
def test_the_signed_part_equals_the_reference_octet_for_octet(
    shared: pathlib.Path, name: str
) -> None:
    folder = shared / "vectors" / "ratls"
    der = (folder / f"{name}.der").read_bytes()
    vector = json.loads((folder / f"{name}.json").read_text())
    now = int(dt.datetime.fromisoformat(vector["not_before"]).timestamp())
    key = load_pem_private_key((folder / f"{name}.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)

    peer = parse_peer_certificate(der, now)
    assert peer.spki_der.hex() == vector["spki_der_hex"]
    made = make_certificate(key, peer.extension, now)
    assert made.tbs_certificate_bytes == x509.load_der_x509_certificate(der).tbs_certificate_bytes


def test_what_we_make_is_accepted_and_holds_for_six_hours() -> None:
    certificate = make_certificate(KEY, EXTENSION, NOW)
    peer = parse_peer_certificate(certificate.public_bytes(Encoding.DER), NOW)
    assert peer.extension == EXTENSION
    assert (peer.not_before, peer.not_after) == (NOW, NOW + LIFETIME)
    assert peer.spki_der == KEY.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    endorsement = certificate.extensions.get_extension_for_oid(ENDORSEMENT_OID).value
    assert isinstance(endorsement, x509.UnrecognizedExtension)
    assert endorsement.value == b""


# -- accepted, as the reference accepts it ------------------------------------------


@pytest.mark.parametrize(
    "der",
    [
        pytest.param(forge(), id="no other extension at all"),
        pytest.param(forge(subject=ELSE, issuer=ELSE), id="another name"),
        pytest.param(forge(serial=2**158), id="another serial"),
        pytest.param(forge(critical=True), id="critical extension"),
        pytest.param(forge(end=NOW + 100 * 365 * 86400), id="a hundred years"),
        pytest.param(forge(extension=b"\0" * 90_000), id="long extension"),
    ],
)
def test_harmless_variants_are_accepted(der: bytes) -> None:
    assert parse_peer_certificate(der, NOW).not_before == NOW


@pytest.mark.parametrize("hash_with", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_rsa_of_2048_bits_is_accepted_with_each_hash(
    rsa_key: rsa.RSAPrivateKey, hash_with: Hash
) -> None:
    peer = parse_peer_certificate(forge(rsa_key, hash_with=hash_with), NOW)
    assert peer.spki_der == rsa_key.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )


# -- refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("der", "code", "check"),
    [
        (b"", ErrorCode.EVIDENCE_MALFORMED, "certificate"),
        (b"\x30\x03\x02\x01\x01", ErrorCode.EVIDENCE_MALFORMED, "certificate"),
        (forge() + b"\0", ErrorCode.EVIDENCE_MALFORMED, "certificate"),
        (forge()[:-1], ErrorCode.EVIDENCE_MALFORMED, "certificate"),
        (bytes(MAX_CERTIFICATE + 1), ErrorCode.EVIDENCE_MALFORMED, "certificate"),
        (forge(issuer=ELSE), ErrorCode.EVIDENCE_MALFORMED, "issuer"),
        (forge(P384, hash_with=hashes.SHA256()), ErrorCode.EVIDENCE_MALFORMED, "key"),
        (forge(P384, hash_with=hashes.SHA384()), ErrorCode.EVIDENCE_MALFORMED, "key"),
        (forge(ed25519.Ed25519PrivateKey.generate()), ErrorCode.EVIDENCE_MALFORMED, "key"),
        (
            forge(rsa.generate_private_key(65537, 1024)),
            ErrorCode.EVIDENCE_MALFORMED,
            "key",
        ),
        (forge(hash_with=hashes.SHA384()), ErrorCode.EVIDENCE_MALFORMED, "algorithm"),
        (forge(signer=P384), ErrorCode.EVIDENCE_MALFORMED, "signature"),
        (forge(signer=OTHER), ErrorCode.EVIDENCE_MALFORMED, "signature"),
        (forge(start=NOW - 99, end=NOW - 61), ErrorCode.STALE, "validity"),
        (forge(start=NOW + 61), ErrorCode.STALE, "validity"),
        (forge(extension=None), ErrorCode.EVIDENCE_MISSING, "extension"),
        (forge(extension=b""), ErrorCode.EVIDENCE_MISSING, "extension"),
    ],
)
def test_each_fault_is_refused_by_its_check(der: bytes, code: ErrorCode, check: str) -> None:
    assert refusal(der) == (code, check)


def test_rsa_with_pss_is_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    der = forge(rsa_key, rsa_padding=pss)
    assert refusal(der) == (ErrorCode.EVIDENCE_MALFORMED, "algorithm")


def test_one_changed_octet_of_the_evidence_breaks_the_signature() -> None:
    der = forge().replace(EXTENSION, b"evidencf")
    assert refusal(der) == (ErrorCode.EVIDENCE_MALFORMED, "signature")


def test_two_evidence_extensions_are_refused() -> None:
    der = make_certificate(KEY, EXTENSION, NOW).public_bytes(Encoding.DER)
    endorsement, evidence = bytes.fromhex("0606678105050402"), bytes.fromhex("0606678105050409")
    assert refusal(patch(der, endorsement, evidence)) == (
        ErrorCode.EVIDENCE_MALFORMED,
        "extension",
    )


@pytest.mark.parametrize("serial", [b"\x00", b"\xff"])
@pytest.mark.parametrize("warnings_are", ["ignore", "error"])
def test_a_serial_below_one_is_refused(
    serial: bytes, warnings_are: Literal["ignore", "error"]
) -> None:
    der = patch(forge(), b"\x02\x01\x2a", b"\x02\x01" + serial)
    with warnings.catch_warnings():
        warnings.simplefilter(warnings_are)
        assert refusal(der) == (ErrorCode.EVIDENCE_MALFORMED, "certificate")


def test_a_resigned_certificate_is_accepted_so_the_patches_above_test_what_they_say() -> None:
    assert parse_peer_certificate(patch(forge(), b"\x02\x01\x2a", b"\x02\x01\x2b"), NOW)


def test_a_point_that_is_not_on_the_curve_is_refused() -> None:
    point = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    der = patch(forge(), point, point[:-1] + bytes([point[-1] ^ 1]))
    assert refusal(der) == (ErrorCode.EVIDENCE_MALFORMED, "key")


def test_clocks_may_differ_by_a_minute_and_no_more() -> None:
    der = forge(start=NOW, end=NOW + 100)
    for now in (NOW - CLOCK_TOLERANCE, NOW + 100 + CLOCK_TOLERANCE):
        assert parse_peer_certificate(der, now)
    for now in (NOW - CLOCK_TOLERANCE - 1, NOW + 100 + CLOCK_TOLERANCE + 1):
        assert refusal(der, now) == (ErrorCode.STALE, "validity")


@given(st.binary(max_size=200))
def test_garbage_gives_untrusted_peer_errors_only(data: bytes) -> None:
    assert refusal(data)[0] is ErrorCode.EVIDENCE_MALFORMED


@pytest.mark.parametrize(
    "der",
    [forge(), make_certificate(KEY, EXTENSION, NOW).public_bytes(Encoding.DER)],
    ids=["bare", "ours"],
)
def test_a_flipped_bit_is_refused_or_changes_nothing(der: bytes) -> None:
    """Nothing of the signed part can be changed; the signature has more than one spelling."""
    signed = x509.load_der_x509_certificate(der).tbs_certificate_bytes
    start = der.index(signed)
    genuine = parse_peer_certificate(der, NOW)
    for bit in range(8 * len(der)):
        at = bit // 8
        flipped = bytearray(der)
        flipped[at] ^= 1 << bit % 8
        try:
            peer = parse_peer_certificate(bytes(flipped), NOW)
        except UntrustedPeerError:
            continue
        assert at >= start + len(signed), f"octet {at} of the signed part"
        assert peer == genuine
