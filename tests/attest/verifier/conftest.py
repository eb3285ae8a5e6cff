"""An attestation service in memory, peers with certificates, and a clock that stands still."""

from __future__ import annotations

import json

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tng.attest.binding import pubkey_claims, runtime_data_for
from tng.attest.certificate import make_certificate
from tng.attest.evidence import CocoToken, dump_evidence
from tng.clock import FixedClock
from tng.wire.dice import CocoEvidence, HashAlgorithm


class Service:
    """An attestation service in memory; `error` is raised instead of an answer."""

    def __init__(self, signer):
        self.signer = signer
        self.policy = "default"
        self.error = None
        self.delay = 0.01
        self.calls = self.probes = self.challenges = 0
        self.is_closed = False
        self.change = lambda claims: None

    async def appraise(self, evidence, policy_ids):
        self.calls += 1
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        claims = self.signer.claims(
            json.loads(evidence.aa_runtime_data), **{"ear.appraisal-policy-id": self.policy}
        )
        self.change(claims)
        return self.signer.sign(claims)

    async def challenge(self):
        self.challenges += 1
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return f"c.{self.signer.name.encode().hex()}.{self.challenges}"

    async def fetch_certificates(self):
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return [self.signer.leaf, self.signer.ca]

    async def probe(self):
        self.probes += 1
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error

    async def aclose(self):
        self.is_closed = True


class Peer:
    """A key and the certificates it can make."""

    def __init__(self, now):
        self.now = now
        self.key = ec.generate_private_key(ec.SECP256R1())
        public = self.key.public_key()
        self.spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def certificate(self, extension):
        return make_certificate(self.key, extension, self.now).public_bytes(Encoding.DER)

    def evidence(self, runtime_data=None):
        text = runtime_data if runtime_data is not None else runtime_data_for(self.spki)
        evidence = CocoEvidence("tdx", b"{}", None, text, HashAlgorithm.SHA384)
        return self.certificate(dump_evidence(evidence))

    def passport(self, signer, **changes):
        claims = {**signer.claims(pubkey_claims(self.spki)), **changes}
        return self.certificate(dump_evidence(CocoToken(signer.sign(claims))))


@pytest.fixture
def make_service():
    """The class of the service."""
    return Service


@pytest.fixture
def make_peer():
    """The class of the peers."""
    return Peer


@pytest.fixture
def service(signer):
    """A service that accepts all evidence."""
    return Service(signer)


@pytest.fixture
def peer(signer):
    """A peer at the time of the service."""
    return Peer(signer.now)


@pytest.fixture
def clock(signer):
    """The time at which tokens are valid."""
    return FixedClock(float(signer.now))
