"""Attested certificates: making our own, and reading a peer's.

A key, an extension value and a time in, a self-signed X.509 certificate out, laid out octet for
octet as the reference (2.12.0) lays it out.  A peer's DER in, `PeerCertificate` out.

Checks of `parse_peer_certificate`, in this order; each refusal names its check:

    certificate   DER of one X.509 v3 certificate with a positive serial number
    issuer        equals the subject
    key           P-256, or RSA with 2048 to 8192 bits
    algorithm     ecdsa-with-SHA256 for P-256; PKCS #1 v1.5 with SHA-256/384/512 for RSA
    signature     by the certificate's own key
    validity      holds now, give or take `CLOCK_TOLERANCE`
    extension     present exactly once, and not empty

Invariant: the returned key is the one that signed the certificate.  Whether a TEE vouches for
the key is for `attest.verifier` to find out from the extension.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from tng.attest.key_usage import key_usage
from tng.errors import ErrorCode, UntrustedPeerError

EVIDENCE_OID: Final = x509.ObjectIdentifier("2.23.133.5.4.9")
"""TCG DICE tagged evidence."""
ENDORSEMENT_OID: Final = x509.ObjectIdentifier("2.23.133.5.4.2")
"""TCG DICE endorsement manifest; always empty here."""

LIFETIME: Final = 6 * 3600
"""Seconds from notBefore to notAfter of a certificate we make."""
CLOCK_TOLERANCE: Final = 60
"""Seconds by which the clocks of two honest machines may differ."""
MAX_CERTIFICATE: Final = 5 << 20
"""Octets of a peer's certificate: the largest extension (4 MiB) and ample room for the rest."""

_SERIAL: Final = 42
_NAME: Final = x509.Name(
    [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Inclavare Containers"),
        x509.NameAttribute(NameOID.COMMON_NAME, "TNG"),
    ]
)
_RSA_ALGORITHMS: Final = frozenset(
    {
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
    }
)


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A peer's certificate that is well formed, current and signed by its own key.

    Attributes:
        spki_der: the key, SubjectPublicKeyInfo, DER.
        extension: value of the evidence extension; unjudged.
        not_before: Unix time, seconds.
        not_after: Unix time, seconds.
    """

    spki_der: bytes
    extension: bytes
    not_before: float
    not_after: float


def make_certificate(
    key: ec.EllipticCurvePrivateKey, extension: bytes, now: int
) -> x509.Certificate:
    """Make an attested certificate, valid for `LIFETIME` from now.

    Args:
        key: a P-256 key; signs, and is certified.
        extension: value of the evidence extension (`tng.wire.dice.dump_dice`).
        now: Unix time, seconds; notBefore.
    """
    start = dt.datetime.fromtimestamp(now, tz=dt.UTC)
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    return (
        x509.CertificateBuilder()
        .serial_number(_SERIAL)
        .issuer_name(_NAME)
        .subject_name(_NAME)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(seconds=LIFETIME))
        .public_key(public)
        .add_extension(identifier, critical=False)
        .add_extension(authority, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            key_usage(
                "digital_signature", "content_commitment", "key_encipherment", "key_agreement"
            ),
            critical=True,
        )
        .add_extension(x509.UnrecognizedExtension(EVIDENCE_OID, extension), critical=False)
        .add_extension(x509.UnrecognizedExtension(ENDORSEMENT_OID, b""), critical=False)
        .sign(key, hashes.SHA256())
    )


def parse_peer_certificate(der: bytes, now: float) -> PeerCertificate:
    """Check a peer's certificate as far as it can be checked without judging evidence.

    Args:
        der: the leaf certificate that the peer presented.
        now: Unix time, seconds.

    Raises:
        UntrustedPeerError: EVIDENCE_MALFORMED for the certificate itself, STALE for its validity,
            EVIDENCE_MISSING when it carries no evidence.
    """
    certificate = _load(der)
    if certificate.issuer != certificate.subject:
        raise _malformed("issuer", "issuer and subject differ, expected a self-signed certificate")
    _check_key(certificate)
    _check_signature(certificate)
    not_before = certificate.not_valid_before_utc.timestamp()
    not_after = certificate.not_valid_after_utc.timestamp()
    # Stricter on purpose: in RA-TLS the age of the key is all there is of freshness.
    if not not_before - CLOCK_TOLERANCE <= now <= not_after + CLOCK_TOLERANCE:
        raise UntrustedPeerError(
            f"check validity: certificate is valid from {certificate.not_valid_before_utc:%FT%TZ} "
            f"to {certificate.not_valid_after_utc:%FT%TZ}, and now it is Unix time {now:.0f}; "
            "compare the clocks of both machines",
            code=ErrorCode.STALE,
        )
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PeerCertificate(spki, _evidence_extension(certificate), not_before, not_after)


def _load(der: bytes) -> x509.Certificate:
    if len(der) > MAX_CERTIFICATE:
        raise _malformed("certificate", f"{len(der)} octets, the limit is {MAX_CERTIFICATE}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        # The library reads these only when they are asked for.
        _ = certificate.issuer, certificate.subject
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (ValueError, TypeError, x509.InvalidVersion, Warning) as exc:
        # A TypeError for a name that is a bit string; a Warning only where the process turns them
        # into errors: a serial below 1.
        raise _malformed("certificate", f"not an X.509 certificate: {exc}") from exc
    if certificate.serial_number < 1:
        # Stricter on purpose: RFC 5280 section 4.1.2.2 wants a positive one.
        raise _malformed("certificate", "its serial number is below 1")
    return certificate


def _check_key(certificate: x509.Certificate) -> None:
    algorithm = certificate.signature_algorithm_oid
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise _malformed("key", f"its public key is unusable: {exc}") from exc
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            allowed = algorithm == SignatureAlgorithmOID.ECDSA_WITH_SHA256
        case rsa.RSAPublicKey(key_size=size) if 2048 <= size <= 8192:
            allowed = algorithm in _RSA_ALGORITHMS
        case _:
            raise _malformed("key", "expected a P-256 key or an RSA key of 2048 to 8192 bits")
    if not allowed:
        raise _malformed(
            "algorithm", f"signature algorithm {algorithm.dotted_string} is not allowed"
        )


def _check_signature(certificate: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, ValueError, TypeError) as exc:
        reason = str(exc) or "it was not made by the certificate's own key"
        raise _malformed("signature", reason) from exc


def _evidence_extension(certificate: x509.Certificate) -> bytes:
    try:
        extension = certificate.extensions.get_extension_for_oid(EVIDENCE_OID)
    except x509.ExtensionNotFound as exc:
        raise _missing("it has no evidence extension, so the peer does not attest") from exc
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        raise _malformed("extension", f"its extensions cannot be read: {exc}") from exc
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    if not extension.value.value:
        raise _missing("its evidence extension is empty")
    return extension.value.value


def _malformed(check: str, detail: str) -> UntrustedPeerError:
    return UntrustedPeerError(
        f"check {check} of the peer's certificate: {detail}", code=ErrorCode.EVIDENCE_MALFORMED
    )


def _missing(detail: str) -> UntrustedPeerError:
    return UntrustedPeerError(
        f"check extension of the peer's certificate: {detail}", code=ErrorCode.EVIDENCE_MISSING
    )
