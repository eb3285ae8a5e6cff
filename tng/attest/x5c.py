"""The certificate chain that a token carries in its header (RFC 7515 section 4.1.6).

In: the `x5c` member as it stands in the JSON, trust anchors, the time.  Out: the leaf, once a
path from it to an anchor is proved; RFC 5280 section 6 with the few extensions that signing
certificates of attestation services use.

Rules, all of them on every path: signatures with SHA-256 or stronger by P-256, P-384, P-521 or
RSA keys of 2048-8192 bits; every certificate inside its dates, anchors included; the leaf is no
CA and, if it has an ExtendedKeyUsage, that names clientAuth; every issuer is a CA that may sign
certificates and keeps its path length; name constraints and unknown critical extensions are
refused, because nothing here would enforce them.

Invariant: `verify_chain` returns only a path whose every link was checked.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from tng.attest.base64_text import decode_base64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from tng.attest.strict_json import Json

MAX_CERTIFICATES: Final = 8
"""Certificates in one `x5c`; real services send two or three."""

MAX_CERTIFICATE_OCTETS: Final = 16 * 1024
"""DER octets of one certificate; a signing certificate has about 500."""

MAX_SIGNATURE_CHECKS: Final = 32
"""Signatures looked at per chain, so that look-alike names cannot buy work without end."""

RSA_BITS: Final = range(2048, 8192 + 1)
"""RSA moduli that are accepted: below is weak, above only costs time."""

_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)


_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


class ChainError(ValueError):
    """The chain proves nothing.  The message names the certificate and the rule."""


def parse_x5c(value: Json) -> list[x509.Certificate]:
    """The certificates of an `x5c` member, leaf first.

    Raises:
        ChainError: no list of 1 to `MAX_CERTIFICATES` texts, or an entry is no certificate.
    """
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_CERTIFICATES:
        raise ChainError(f"x5c is not a list of 1 to {MAX_CERTIFICATES} certificates")
    return [_parse_entry(index, entry) for index, entry in enumerate(value)]


def verify_chain(
    chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: float
) -> list[x509.Certificate]:
    """The path from `chain[0]` to one of `anchors`, both included.

    Args:
        chain: the leaf, then possible intermediates in any order.
        anchors: certificates that are trusted as issuers.
        now: Unix time, seconds.

    Raises:
        ChainError: no path keeps the rules of this module.
    """
    leaf = chain[0]
    when = dt.datetime.fromtimestamp(now, dt.UTC)
    _check_leaf(leaf, when)
    search = _Search(list(anchors), list(chain[1:]), when)
    path = search.extend([leaf])
    if path is None:
        raise ChainError(search.reason or _unknown_issuer(leaf, anchors))
    return path


def public_key(certificate: x509.Certificate) -> CertificatePublicKeyTypes:
    """The key that the certificate is for.

    Raises:
        ChainError: a kind of key that the library does not know.
    """
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ChainError(f"key of {_name(certificate)} cannot be read: {exc}") from exc


class _Search:
    """Depth-first search for a path, anchors first, with a budget of signature checks."""

    def __init__(
        self,
        anchors: list[x509.Certificate],
        intermediates: list[x509.Certificate],
        when: dt.datetime,
    ) -> None:
        self.anchors = anchors
        self.intermediates = intermediates
        self.when = when
        self.budget = MAX_SIGNATURE_CHECKS
        self.reason = ""

    def extend(self, path: list[x509.Certificate]) -> list[x509.Certificate] | None:
        for anchor in self.anchors:
            if self._issued(path, anchor):
                return [*path, anchor]
        for issuer in self.intermediates:
            if issuer not in path and self._issued(path, issuer):
                found = self.extend([*path, issuer])
                if found is not None:
                    return found
        return None

    def _issued(self, path: list[x509.Certificate], issuer: x509.Certificate) -> bool:
        """Whether `issuer` vouches for the end of `path`; the first reason why not is kept."""
        subject = path[-1]
        if subject.issuer != issuer.subject or subject == issuer:
            return False
        try:
            _check_issuer(issuer, len(path) - 1, self.when)
            self._check_signature(subject, issuer)
        except ChainError as exc:
            self.reason = self.reason or str(exc)
            return False
        return True

    def _check_signature(self, subject: x509.Certificate, issuer: x509.Certificate) -> None:
        self.budget -= 1
        if self.budget < 0:
            raise ChainError(f"no path found within {MAX_SIGNATURE_CHECKS} signature checks")
        if not isinstance(_signature_hash(subject), _HASHES):
            raise ChainError(f"{_name(subject)} is not signed with SHA-256, SHA-384 or SHA-512")
        try:
            subject.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise ChainError(f"signature on {_name(subject)} is not by {_name(issuer)}") from exc


def _parse_entry(index: int, entry: Json) -> x509.Certificate:
    if not isinstance(entry, str) or len(entry) > MAX_CERTIFICATE_OCTETS * 4 // 3 + 4:
        raise ChainError(f"x5c[{index}] is not the base64 text of a certificate")
    try:
        certificate = x509.load_der_x509_certificate(decode_base64(entry))
        # Parsed when first asked for: asked here, so that no later caller meets the error.
        _ = certificate.subject, certificate.issuer
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (ValueError, TypeError, x509.InvalidVersion, Warning) as exc:
        # A TypeError for a name that is a bit string; a Warning only where the process turns them
        # into errors: a serial below 1.
        raise ChainError(f"x5c[{index}] is not a certificate: {exc}") from exc
    return certificate


def _check_leaf(leaf: x509.Certificate, when: dt.datetime) -> None:
    _check_certificate(leaf, when)
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise ChainError(f"{_name(leaf)} is a CA, expected an end-entity certificate")
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise ChainError(f"extended key usage of {_name(leaf)} does not include clientAuth")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        raise ChainError(f"key usage of {_name(leaf)} does not include digitalSignature")


def _check_issuer(issuer: x509.Certificate, cas_below: int, when: dt.datetime) -> None:
    """Refuse an issuer that may not stand `cas_below` CA certificates above the leaf."""
    _check_certificate(issuer, when)
    constraints = _extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise ChainError(f"{_name(issuer)} signed a certificate and is not a CA")
    if constraints.path_length is not None and cas_below > constraints.path_length:
        raise ChainError(f"{_name(issuer)} allows {constraints.path_length} CAs below it")
    usage = _extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise ChainError(f"key usage of {_name(issuer)} does not include keyCertSign")


def _check_certificate(certificate: x509.Certificate, when: dt.datetime) -> None:
    """Refuse what no certificate of the path may have; dates first, they are the usual fault."""
    name = _name(certificate)
    if when > certificate.not_valid_after_utc:
        raise ChainError(f"{name} expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    if when < certificate.not_valid_before_utc:
        begin = certificate.not_valid_before_utc
        raise ChainError(f"{name} is not valid before {begin:%Y-%m-%dT%H:%M:%SZ}")
    try:
        extensions = list(certificate.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        raise ChainError(f"extensions of {name} cannot be read: {exc}") from exc
    key = public_key(certificate)
    for extension in extensions:
        if extension.oid == ExtensionOID.NAME_CONSTRAINTS:
            raise ChainError(f"{name} has name constraints, which are not supported")
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise ChainError(f"{name} has the unknown critical extension {extension.oid}")
    if isinstance(key, ec.EllipticCurvePublicKey):
        known = isinstance(key.curve, _CURVES)
    else:
        known = isinstance(key, rsa.RSAPublicKey) and key.key_size in RSA_BITS
    if not known:
        raise ChainError(f"{name} has a key that is neither a NIST curve nor RSA 2048-8192")


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """The extension of that kind; call `_check_certificate` first."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _signature_hash(certificate: x509.Certificate) -> hashes.HashAlgorithm | None:
    try:
        return certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None


def _name(certificate: x509.Certificate) -> str:
    """The subject as people read it, bounded: it was written by somebody else."""
    try:
        return repr(certificate.subject.rfc4514_string()[:120])
    except ValueError:
        return "a certificate whose subject cannot be read"


def _unknown_issuer(leaf: x509.Certificate, anchors: Sequence[x509.Certificate]) -> str:
    known = ", ".join(_name(anchor) for anchor in anchors[:4]) or "none"
    return f"no path from {_name(leaf)} to a trust anchor (known: {known})"
