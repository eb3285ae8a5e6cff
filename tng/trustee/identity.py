"""The token signer and its certification authority.

Made once, kept in one PEM text: the signer's key, its certificate, the authority's certificate,
the authority's key.  Both keys are P-256.  The certificates follow RFC 5280 as far as readers of
tokens look: BasicConstraints, key usage, key identifiers; no extended key usage, which every
reader takes.

Invariant: a `SignerIdentity` that exists is consistent: keys fit certificates, the chain
verifies.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tng.attest.key_usage import ISSUER_USES, key_usage
from tng.errors import StartError
from tng.trustee.pem import (
    dump_certificate,
    dump_private_key,
    parse_certificates,
    parse_private_keys,
)

LIFETIME_S: Final = 10 * 365 * 86_400
"""Seconds that both certificates are valid: pinned files are exchanged by hand, so seldom."""

RENEW_BEFORE_S: Final = 365 * 86_400
"""Seconds before the end from which a start makes a new identity."""

_BACKDATED_S: Final = 3600  # clocks of readers may be an hour behind
_ORGANISATION: Final = "tng trustee"


@dataclass(frozen=True, slots=True)
class SignerIdentity:
    """What signs tokens.

    Attributes:
        key: signs; P-256.
        certificate: of `key`, issued by `ca_certificate`.
        ca_key: issued `certificate`.
        ca_certificate: self-signed; what a verifier pins.
    """

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    ca_key: ec.EllipticCurvePrivateKey
    ca_certificate: x509.Certificate

    def __repr__(self) -> str:
        return f"SignerIdentity(serial={self.certificate.serial_number:x})"

    @property
    def chain_pem(self) -> bytes:
        """Signer's certificate, then the authority's; PEM."""
        return dump_certificate(self.certificate) + dump_certificate(self.ca_certificate)

    @property
    def ca_pem(self) -> bytes:
        """The authority's certificate; PEM."""
        return dump_certificate(self.ca_certificate)

    @property
    def not_after(self) -> float:
        """Unix time at which the first of both certificates ends, seconds."""
        return min(
            item.not_valid_after_utc.timestamp() for item in (self.certificate, self.ca_certificate)
        )


def make_identity(now: float) -> SignerIdentity:
    """Make an authority and a signer.

    Args:
        now: Unix time, seconds.
    """
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, name = _name("tng trustee CA"), _name("tng trustee token signer")
    ca_certificate = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(*ISSUER_USES), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        _builder(ca_name, name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage("digital_signature"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    return SignerIdentity(key, certificate, ca_key, ca_certificate)


def dump_identity(identity: SignerIdentity) -> bytes:
    """Everything as one PEM text; holds private keys."""
    return dump_private_key(identity.key) + identity.chain_pem + dump_private_key(identity.ca_key)


def parse_identity(data: bytes, where: str) -> SignerIdentity:
    """Read what `dump_identity` wrote, and check that it fits together.

    Args:
        data: PEM text.
        where: name of the file, for messages.

    Raises:
        StartError: a part is missing, foreign, or not of the kind that this service makes.
    """
    certificates = parse_certificates(data, where)
    keys = [
        key
        for key in parse_private_keys(data, where)
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    ]
    if len(certificates) != 2 or len(keys) != 2:
        raise StartError(
            f"{where}: expected two P-256 keys and two certificates,"
            f" got {len(keys)} and {len(certificates)}"
        )
    identity = SignerIdentity(keys[0], certificates[0], keys[1], certificates[1])
    _check(identity, where)
    return identity


def _check(identity: SignerIdentity, where: str) -> None:
    pairs = (
        (identity.key, identity.certificate, "signer"),
        (identity.ca_key, identity.ca_certificate, "CA"),
    )
    for key, certificate, name in pairs:
        if key.public_key() != certificate.public_key():
            raise StartError(f"{where}: the {name} key does not belong to the {name} certificate")
        try:
            certificate.verify_directly_issued_by(identity.ca_certificate)
        except (InvalidSignature, ValueError, TypeError) as exc:
            raise StartError(f"{where}: the {name} certificate is not issued by the CA") from exc


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: float
) -> x509.CertificateBuilder:
    start = dt.datetime.fromtimestamp(int(now) - _BACKDATED_S, dt.UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(seconds=_BACKDATED_S + LIFETIME_S))
    )
