"""The fixed certificate of a server that does not attest.

TLS wants a certificate from every server.  One without `attest` presents this certificate, the
same in every copy of TNG and of this package; a client that verifies refuses it, for it carries
no evidence.

THE PRIVATE KEY BELOW IS PUBLIC.  It stands here in clear text, as in every other copy.  It
proves nothing about its holder, signs nothing of worth, and must never be used for anything
else.  A tunnel to its holder keeps out those who only listen, nobody else.

Source: constant of the wire format (TNG 2.12.0, unchanged since 2.x).
"""

from __future__ import annotations

import functools
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

DUMMY_CERTIFICATE_PEM: Final = b"""\
-----BEGIN CERTIFICATE-----
MIIBtzCCAV2gAwIBAgIUO8UB+rxCFvLTcFsZQv6bTXIhRZswCgYIKoZIzj0EAwIw
MDEuMCwGA1UEAwwlVE5HIER1bW15IENlcnQsTz1JbmNsYXZhcmUgQ29udGFpbmVy
czAgFw0yNDA2MTIxMzEwMzVaGA8zMDIzMTAxNDEzMTAzNVowMDEuMCwGA1UEAwwl
VE5HIER1bW15IENlcnQsTz1JbmNsYXZhcmUgQ29udGFpbmVyczBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABMtpx/UPqAHfURWR870zcc7NmtbfinnnB39S2Y4nG0Eg
+1U5qf9danTG7CrictaELBgnmKpV8zZuBcTWeMFKGqGjUzBRMB0GA1UdDgQWBBRM
xHzmeVF822zs0Zo9sfcWfM/dGzAfBgNVHSMEGDAWgBRMxHzmeVF822zs0Zo9sfcW
fM/dGzAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIC/ajnRy2wyL
655w14SDYD69fYrloBwToKSiBftLJouYAiEA55PFYwh6VlUUwqi8nfssqz2+KlXZ
DbM2OdpOJTp0pjo=
-----END CERTIFICATE-----
"""
"""P-256, self-signed, CN="TNG Dummy Cert,O=Inclavare Containers", valid 2024 to 3023."""

DUMMY_KEY_PEM: Final = b"""\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIEZHWALEHAVY3AMQ9UMF4YUCnRzg2rwmF0WXf3MSqYgCoAoGCCqGSM49
AwEHoUQDQgAEy2nH9Q+oAd9RFZHzvTNxzs2a1t+KeecHf1LZjicbQSD7VTmp/11q
dMbsKuJy1oQsGCeYqlXzNm4FxNZ4wUoaoQ==
-----END EC PRIVATE KEY-----
"""
"""Its key, which everybody knows."""


@functools.cache
def load_dummy() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """The dummy key, which is public, and the dummy certificate."""
    key = load_pem_private_key(DUMMY_KEY_PEM, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key, x509.load_pem_x509_certificate(DUMMY_CERTIFICATE_PEM)
