from __future__ import annotations

import base64

import jwt
import pytest
from cryptography import x509
from jwcrypto import jwk

NOW = 1_795_000_000


@pytest.mark.parametrize("path", ["/jwks", "/.well-known/jwks.json", "/as/jwks"])
def test_the_signers_key_is_published_and_verifies_tokens(trustee, platform, requests, path):
    published = trustee.http.get(path).json()
    (key,) = published["keys"]
    token = trustee.http.post(
        "/attestation", json=requests.listed("tdx", platform.evidence(requests.digest))
    ).text
    found = jwt.PyJWKSet.from_dict(published)[key["kid"]]
    jwt.decode(token, found, ["ES256"], options={"verify_exp": False})
    assert key["kid"] == jwk.JWK(**{k: key[k] for k in ("kty", "crv", "x", "y")}).thumbprint()
    leaf, ca = (x509.load_der_x509_certificate(base64.b64decode(item)) for item in key["x5c"])
    leaf.verify_directly_issued_by(ca)
    assert "d" not in key
