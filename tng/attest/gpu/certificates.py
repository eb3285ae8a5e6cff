"""From a GPU's attestation key to NVIDIA's root: the certificates in GPU evidence.

PEM goes in, the attestation key and the firmware that it was made for come out.  Sources: RFC
5280 section 6; TCG "DICE Attestation Architecture" 1.1 section 6.1 (the firmware id in extension
2.23.133.5.4.1); NVIDIA's device identity hierarchy, which has one root for all GPUs.

Invariant: a `GpuKey` comes out only of a chain whose last certificate is the root's own.
Whether one in between was revoked is not known here.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tng.attest.evidence_text import malformed
from tng.attest.tdx.certificates import common_name, parse_chain
from tng.errors import ErrorCode, UntrustedPeerError

if TYPE_CHECKING:
    from collections.abc import Iterator

NVIDIA_ROOT_SPKI_SHA256: Final = "a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4"
"""SHA-256 of the SubjectPublicKeyInfo of "NVIDIA Device Identity CA"."""

FIRMWARE_ID_OCTETS: Final = 48

_FIRMWARE_ID: Final = x509.ObjectIdentifier("2.23.133.5.4.1")
_SHA384_AND_48_OCTETS: Final = bytes.fromhex("06096086480165030402020430")
"""What stands before the digest in that extension: the algorithm, and OCTET STRING (48)."""


@dataclass(frozen=True, slots=True)
class GpuKey:
    """The key that a GPU signs reports with.

    Attributes:
        key: on curve P-384.
        firmware_id: 48 octets, SHA-384 of the firmware that the device made the key for.
        name: common name of its certificate, e.g. "GH100 A01 GSP FMC LF".
    """

    key: ec.EllipticCurvePublicKey
    firmware_id: bytes
    name: str


def verify_gpu_chain(
    pem: bytes, *, now: float, root_spki_sha256: str = NVIDIA_ROOT_SPKI_SHA256
) -> GpuKey:
    """Verify the chain, leaf first and root last.

    Args:
        pem: 2 to 8 certificates.
        now: Unix time, seconds.
        root_spki_sha256: of the trusted root's key, lower-case hexadecimal.

    Raises:
        UntrustedPeerError: not certificates (evidence_malformed), another root (unknown_root), or
            a chain that does not hold (quote_invalid).
    """
    try:
        chain = parse_chain(pem)
    except ValueError as exc:
        raise malformed("the GPU's certificate chain cannot be read") from exc
    root = chain[-1]
    spki = root.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if not hmac.compare_digest(hashlib.sha256(spki).hexdigest(), root_spki_sha256):
        raise UntrustedPeerError(
            f"the GPU's chain ends in {common_name(root.subject)!r}, which is not the trusted root",
            code=ErrorCode.UNKNOWN_ROOT,
        )
    for position, certificate in enumerate(chain):
        _check_validity(certificate, now)
        _check_role(certificate, is_leaf=position == 0)
    for subject, issuer in _links(chain):
        _check_issuer(subject, issuer)
    leaf = chain[0]
    return GpuKey(_p384(leaf), _firmware_id(leaf), common_name(leaf.subject))


def _links(
    chain: tuple[x509.Certificate, ...],
) -> Iterator[tuple[x509.Certificate, x509.Certificate]]:
    """Each certificate with its issuer's; the root with itself."""
    yield from zip(chain, (*chain[1:], chain[-1]), strict=True)


def _check_validity(certificate: x509.Certificate, now: float) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin.timestamp() <= now <= end.timestamp():
        raise _invalid(certificate, f"is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d} only")


def _check_role(certificate: x509.Certificate, *, is_leaf: bool) -> None:
    """Only the leaf signs reports, and nothing but the leaf is no authority."""
    if _is_authority(certificate) is is_leaf:
        expected = "the GPU's own" if is_leaf else "an authority's"
        raise _invalid(certificate, f"stands where {expected} is expected")


def _is_authority(certificate: x509.Certificate) -> bool:
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            return _may_sign_certificates(certificate)
    return False


def _may_sign_certificates(certificate: x509.Certificate) -> bool:
    usages = [e.value for e in certificate.extensions if isinstance(e.value, x509.KeyUsage)]
    return all(usage.key_cert_sign for usage in usages)


def _check_issuer(subject: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        subject.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as exc:
        issuer_name = common_name(issuer.subject)
        raise _invalid(subject, f"is not issued by {issuer_name!r}, which follows it") from exc


def _p384(leaf: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _invalid(leaf, "has no key on curve P-384")
    return key


def _firmware_id(leaf: x509.Certificate) -> bytes:
    for extension in leaf.extensions:
        if extension.oid == _FIRMWARE_ID and isinstance(
            extension.value, x509.UnrecognizedExtension
        ):
            head, digest = (
                extension.value.value[:-FIRMWARE_ID_OCTETS],
                extension.value.value[-FIRMWARE_ID_OCTETS:],
            )
            if head.endswith(_SHA384_AND_48_OCTETS):
                return digest
    raise _invalid(leaf, "names no firmware by its SHA-384 (extension 2.23.133.5.4.1)")


def _invalid(certificate: x509.Certificate, problem: str) -> UntrustedPeerError:
    return UntrustedPeerError(
        f"GPU certificate {common_name(certificate.subject)!r} {problem}",
        code=ErrorCode.QUOTE_INVALID,
    )
