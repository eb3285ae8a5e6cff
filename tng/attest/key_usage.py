"""What the key of a certificate may be used for (RFC 5280 section 4.2.1.3).

Names of uses in, the extension out.  Invariant: what is not named is not granted.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from cryptography import x509

KeyUse: TypeAlias = Literal[
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
]

ISSUER_USES: Final[tuple[KeyUse, ...]] = ("key_cert_sign", "crl_sign")
"""What the key of a certificate authority is for."""


def key_usage(*granted: KeyUse) -> x509.KeyUsage:
    """The extension that grants these uses."""
    return x509.KeyUsage(**{use: use in granted for use in get_args(KeyUse)})
