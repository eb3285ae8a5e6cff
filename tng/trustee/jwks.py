"""The token signer's public key as a JWK Set (RFC 7517), for readers that look keys up by URL.

A `SignerIdentity` goes in, a JSON object comes out.  `kid` is the key's thumbprint (RFC 7638).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from tng.attest.base64_text import dump_base64url, dump_standard
from tng.attest.ear_token import public_jwk

if TYPE_CHECKING:
    from cryptography import x509

    from tng.attest.signer_identity import SignerIdentity


def jwk_set(identity: SignerIdentity) -> dict[str, object]:
    """The set: one key."""
    required = public_jwk(identity.key.public_key())
    # RFC 7638 section 3: the required members alone, in their order, without blanks.
    canonical = json.dumps(required, separators=(",", ":")).encode("ascii")
    chain = [_der(item) for item in identity.chain]
    kid = dump_base64url(hashlib.sha256(canonical).digest())
    return {"keys": [{**required, "alg": "ES256", "use": "sig", "kid": kid, "x5c": chain}]}


def _der(certificate: x509.Certificate) -> str:
    return dump_standard(certificate.public_bytes(Encoding.DER))
