"""An attestation service's signer for tests: keys, a chain, and tokens of every shape."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = 1_800_000_000
PROFILE = "tag:github.com,2024:confidential-containers/Trustee"
_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int, size: int | None = None) -> str:
    return b64url(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class TokenSigner:
    """Signs tokens as a Trustee service would; everything about them can be spoiled.

    Attributes:
        now: the time at which certificates and tokens are valid.
        anchors: what a verifier has to trust.
    """

    now = NOW

    def __init__(self, name: str = "test AS", now: float = NOW) -> None:
        self.now = now
        self.name = name
        self.ca_key = ec.generate_private_key(ec.SECP256R1())
        self.key: Any = ec.generate_private_key(ec.SECP256R1())
        self.ca = self.certificate(f"{name} CA", self.ca_key, ca=True)
        self.leaf = self.certificate(name, self.key)
        self.anchors = [self.ca]

    def certificate(
        self,
        subject: str,
        key: Any,
        *,
        ca: bool | None = False,
        issuer: str | None = None,
        issuer_key: Any = None,
        begins: float = -86400,
        ends: float = 86400 * 365,
        path_length: int | None = None,
        hash_: hashes.HashAlgorithm | None = None,
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    ) -> x509.Certificate:
        """A certificate by this CA unless another issuer is given; dates relative to `now`."""
        start = dt.datetime.fromtimestamp(self.now, dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer or f"{self.name} CA"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start + dt.timedelta(seconds=begins))
            .not_valid_after(start + dt.timedelta(seconds=ends))
        )
        if ca is not None:
            constraints = x509.BasicConstraints(ca, path_length if ca else None)
            builder = builder.add_extension(constraints, critical=True)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(issuer_key or self.ca_key, hash_ or hashes.SHA256())

    def claims(
        self, runtime_data: Mapping[str, Any] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Claims of an EAR that passes; `changes` replace members of submod cpu0."""
        cpu = {
            "ear.status": "affirming",
            "ear.trustworthiness-vector": {"hardware": 2, "configuration": 2},
            "ear.appraisal-policy-id": "default",
            "ear.veraison.annotated-evidence": {
                "report_data": "00",
                "runtime_data_claims": dict(runtime_data or {"pubkey-hash": "abc"}),
                "tdx": {"quote": {}},
            },
            **changes,
        }
        return {
            "eat_profile": PROFILE,
            "iat": self.now,
            "exp": self.now + 300,
            "submods": {"cpu0": cpu},
        }

    def simple_claims(self, runtime_data: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Claims of a simple token that passes."""
        return {
            "iss": "CoCo-Attestation-Service",
            "exp": self.now + 300,
            "tee": "tdx",
            "tcb-status": '{"tdx.quote.body.mr_td":"00"}',
            "evaluation-reports": [{"policy-id": "default", "policy-hash": "00"}],
            "customized_claims": {"runtime_data": dict(runtime_data or {"pubkey-hash": "abc"})},
        }

    def header(self, algorithm: str | None = None) -> dict[str, Any]:
        """The JOSE header for the signer's key."""
        algorithm = algorithm or self.algorithm
        public = self.key.public_key()
        numbers = public.public_numbers()
        if isinstance(public, rsa.RSAPublicKey):
            jwk = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
        else:
            size = (public.key_size + 7) // 8
            curve = {"secp256r1": "P-256", "secp384r1": "P-384"}.get(public.curve.name, "P-521")
            jwk = {"kty": "EC", "crv": curve, "x": _number(numbers.x, size)}
            jwk["y"] = _number(numbers.y, size)
        chain = [b64url(item.public_bytes(Encoding.DER)) for item in (self.leaf, self.ca)]
        return {"typ": "JWT", "alg": algorithm, "jwk": {**jwk, "alg": algorithm, "x5c": chain}}

    @property
    def algorithm(self) -> str:
        """The usual algorithm for the signer's key."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return "RS384"
        return {256: "ES256", 384: "ES384"}.get(self.key.curve.key_size, "ES512")

    def sign(self, claims: Any, header: dict[str, Any] | None = None) -> str:
        """The token; `claims` may be any JSON value, or the octets of the payload."""
        header = header or self.header()
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        text = f"{b64url(json.dumps(header).encode())}.{b64url(payload)}"
        return f"{text}.{b64url(self._signature(text.encode(), str(header['alg'])))}"

    def _signature(self, data: bytes, algorithm: str) -> bytes:
        digest = _HASHES.get(algorithm[2:], hashes.SHA256())
        if isinstance(self.key, rsa.RSAPrivateKey):
            scheme: Any = padding.PKCS1v15()
            if algorithm.startswith("PS"):
                scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
            return self.key.sign(data, scheme, digest)
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(digest)))
        size = (self.key.curve.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def with_key(self, key: Any, **certificate: Any) -> TokenSigner:
        """The same service with another signing key."""
        twin = copy.copy(self)
        twin.key = key
        twin.leaf = self.certificate(self.name, key, **certificate)
        return twin

    def with_leaf(self, leaf: x509.Certificate) -> TokenSigner:
        """The same service presenting another certificate."""
        twin = copy.copy(self)
        twin.leaf = leaf
        return twin

    @property
    def chain_pem(self) -> bytes:
        """What the service publishes."""
        return b"".join(item.public_bytes(Encoding.PEM) for item in (self.leaf, self.ca))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@pytest.fixture(scope="session")
def signer() -> TokenSigner:
    """An attestation service's signer at the time `signer.now`."""
    return TokenSigner()


@pytest.fixture(scope="session")
def make_signer() -> type[TokenSigner]:
    """The class, for tests that need another service."""
    return TokenSigner


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    """One RSA key of 2048 bits; making them is slow."""
    return rsa.generate_private_key(65537, 2048)
