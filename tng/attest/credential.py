"""A credential of our own: a key, and the certificate in which our TEE vouches for it.

What TLS endpoints hold; `attest.credential_source` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True, slots=True)
class Credential:
    """What a TLS endpoint presents.

    Attributes:
        key: P-256 private key.
        certificate: attested certificate for it.
        not_after: Unix time after which peers refuse it, seconds.
        tee: name of the TEE that vouches for the key.
    """

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate
    not_after: float
    tee: str
