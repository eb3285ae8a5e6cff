"""The token signer and its certification authority, made once and kept.

A `SignerIdentity` goes out as one PEM text and comes back: the signer's key, its certificate, the
authority's certificate, the authority's key.

Invariant: a `SignerIdentity` that was read is consistent: keys fit certificates, the chain
verifies.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tng.attest.signer_identity import SignerIdentity, make_signer
from tng.errors import StartError
from tng.trustee.pem import (
    dump_private_key,
    parse_certificates,
    parse_private_keys,
)

RENEW_BEFORE_S: Final = 365 * 86_400
"""Seconds before the end from which a start makes a new identity."""

_ORGANISATION: Final = "tng trustee"


def make_identity(now: float) -> SignerIdentity:
    """Make an authority and a signer.

    Args:
        now: Unix time, seconds.
    """
    return make_signer(_name("tng trustee CA"), _name("tng trustee token signer"), now)


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
