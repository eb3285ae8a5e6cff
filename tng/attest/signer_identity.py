"""The signer of tokens of our own making, and the certification authority that vouches for it.

Names and the time go in; two P-256 keys and their certificates come out.  The certificates follow
RFC 5280 as far as readers of tokens look: BasicConstraints, key usage, key identifiers; no extended
key usage, which every reader takes.

Invariant: in what `make_signer` makes, keys fit certificates and the chain verifies.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tng.attest.key_usage import ISSUER_USES, key_usage

LIFETIME_S: Final = 10 * 365 * 86_400
"""Seconds that both certificates are valid: longer than a process runs, and pinned files are
exchanged by hand, so seldom."""

_BACKDATED_S: Final = 3600  # clocks of readers may be an hour behind, and ours may be set back


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
    def chain(self) -> tuple[x509.Certificate, x509.Certificate]:
        """Signer's certificate, then the authority's."""
        return self.certificate, self.ca_certificate

    @property
    def chain_pem(self) -> bytes:
        """The chain; PEM."""
        return b"".join(item.public_bytes(Encoding.PEM) for item in self.chain)

    @property
    def ca_pem(self) -> bytes:
        """The authority's certificate; PEM."""
        return self.ca_certificate.public_bytes(Encoding.PEM)

    @property
    def not_after(self) -> float:
        """Unix time at which the first of both certificates ends, seconds."""
        return min(item.not_valid_after_utc.timestamp() for item in self.chain)


def make_signer(ca_name: x509.Name, name: x509.Name, now: float) -> SignerIdentity:
    """Make an authority and a signer.

    Args:
        ca_name: of the authority.
        name: of the signer.
        now: Unix time, seconds.
    """
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_certificate = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(*ISSUER_USES), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        _builder(ca_name, name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage("digital_signature"), critical=True)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return SignerIdentity(key, certificate, ca_key, ca_certificate)


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
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
