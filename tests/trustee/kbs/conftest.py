"""A client of the key broker, written from the protocol's description alone.

It shares no code with the package: requests are built here, keys and sealed secrets are jwcrypto's.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwcrypto import jwe, jwk

from tng.trustee.kbs.resource_policy import AFFIRMING_TEXT

NOW = 1_795_000_000
PATH = "/kbs/v0/resource/default/aliyun/model-decryption-key"
SECRET = b"alibaba@1688"


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Stranger:
    """One TEE's handshake."""

    def __init__(self, url: str, evidence: Callable[[bytes], bytes], kind: str = "EC") -> None:
        self.http = httpx.Client(base_url=url, timeout=20, trust_env=False)
        self.evidence = evidence
        if kind == "EC":
            self.key = jwk.JWK.generate(kty="EC", crv="P-256")
            self.public = {"alg": "ECDH-ES+A256KW", **self.key.export_public(as_dict=True)}
        else:
            self.key = jwk.JWK.generate(kty="RSA", size=2048)
            self.public = {"alg": kind, **self.key.export_public(as_dict=True)}
        self.public = {k: v for k, v in self.public.items() if k != "kid"}
        self.nonce = ""

    def auth(self, version: str = "0.4.0", tee: str = "tdx") -> httpx.Response:
        body = {"version": version, "tee": tee, "extra-params": ""}
        answer = self.http.post("/kbs/v0/auth", json=body)
        if answer.status_code == 200:
            self.nonce = answer.json()["nonce"]
        return answer

    def new_body(self, additional: str = "", **changes: object) -> dict:
        bound = {
            "additional-evidence": additional,
            "nonce": self.nonce,
            "tee-pubkey": self.public,
        }
        evidence = json.loads(self.evidence(hashlib.sha384(canonical(bound)).digest()))
        return {
            "init-data": None,
            "runtime-data": {"nonce": self.nonce, "tee-pubkey": self.public},
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": additional},
            **changes,
        }

    def old_body(self, *, as_text: bool = False) -> dict:
        bound = {"nonce": self.nonce, "tee-pubkey": self.public}
        evidence = self.evidence(hashlib.sha384(canonical(bound)).digest()).decode()
        return {
            "tee-pubkey": self.public,
            "tee-evidence": evidence if as_text else json.loads(evidence),
        }

    def attest(self, body: dict | None = None) -> httpx.Response:
        return self.http.post("/kbs/v0/attest", json=self.new_body() if body is None else body)

    def get(self, path: str = PATH, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers)

    def open(self, answer: httpx.Response) -> bytes:
        assert answer.status_code == 200, answer.text
        sealed = jwe.JWE(algs=["RSA1_5", "RSA-OAEP-256", "ECDH-ES+A256KW", "A256GCM"])
        sealed.deserialize(answer.text, self.key)
        return sealed.payload


@dataclasses.dataclass
class Admin:
    """The administrator's key, and requests with it."""

    key: ed25519.Ed25519PrivateKey

    @property
    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def token(self, **changes: object) -> str:
        claims = {"iat": NOW, "exp": NOW + 7200, **changes}
        return jwt.encode({k: v for k, v in claims.items() if v is not None}, self.key, "EdDSA")

    def headers(self, **changes: object) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token(**changes)}"}


@pytest.fixture(scope="session")
def admin() -> Admin:
    return Admin(ed25519.Ed25519PrivateKey.generate())


@pytest.fixture(scope="session")
def admin_key(tmp_path_factory, admin):
    path = tmp_path_factory.mktemp("admin") / "admin-public.pem"
    path.write_bytes(admin.public_pem)
    return path


@pytest.fixture(scope="module")
def service(start_for_module, platform_directory, admin_key):
    return start_for_module(
        simulated=platform_directory,
        allow_sample=True,
        admin_key=admin_key,
        release_to_simulated=True,
    )


@pytest.fixture
def broker(service, admin):
    """A service with one secret that gives it to the simulated platform's guest."""
    headers = admin.headers()
    service.http.cookies.clear()
    service.http.post(PATH, content=SECRET, headers=headers)
    policy = base64.urlsafe_b64encode(AFFIRMING_TEXT.encode()).rstrip(b"=").decode()
    answer = service.http.post("/kbs/v0/resource-policy", json={"policy": policy}, headers=headers)
    assert answer.status_code == 200, answer.text
    return service


@pytest.fixture(scope="module")
def closed(start_for_module, platform_directory):
    """A service without an administrator."""
    return start_for_module(simulated=platform_directory, release_to_simulated=True)


@pytest.fixture(scope="module")
def strict(start_for_module, platform_directory, admin_key, admin):
    """A service that appraises the simulated platform and gives it no secrets."""
    running = start_for_module(simulated=platform_directory, admin_key=admin_key)
    running.http.post(PATH, content=SECRET, headers=admin.headers())
    return running


@pytest.fixture
def stranger_class():
    return Stranger


@pytest.fixture
def stranger(broker, platform):
    made = []

    def make(evidence=platform.evidence, kind="EC", url=None):
        made.append(Stranger(url or broker.url, evidence, kind))
        return made[-1]

    yield make
    for one in made:
        one.http.close()
