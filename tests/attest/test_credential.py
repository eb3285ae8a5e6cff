"""tng.attest.credential_source: a key of its own in every certificate, and an end to each."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.attester.base import TeeEvidence
from tng.attest.binding import pubkey_claims, report_data
from tng.attest.certificate import LIFETIME, PeerCertificate, parse_peer_certificate
from tng.attest.credential import Credential
from tng.attest.credential_source import CredentialSource
from tng.attest.evidence import CocoToken, parse_evidence
from tng.attest.token_expiry import read_expiry
from tng.clock import FixedClock
from tng.errors import AppraiserError, ErrorCode, EvidenceError
from tng.wire.dice import CocoEvidence

NOW = 1_800_000_000.75


class EchoAttester:
    """Evidence is the report data itself."""

    def __init__(self, additional: bytes | None = None) -> None:
        self.additional = additional

    async def get_evidence(self, report_data: bytes) -> TeeEvidence:
        return TeeEvidence("sample", report_data, self.additional)


class NoTee:
    async def get_evidence(self, report_data: bytes) -> TeeEvidence:
        raise EvidenceError("no TEE here")


def jwt(claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


class FakeAppraiser:
    """Returns one token whatever the evidence."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.asked: list[tuple[CocoEvidence, tuple[str, ...]]] = []

    async def appraise(self, evidence: CocoEvidence, policy_ids: Sequence[str]) -> str:
        self.asked.append((evidence, tuple(policy_ids)))
        return self.token

    async def fetch_certificates(self) -> list[object]:
        raise NotImplementedError

    async def probe(self) -> None:
        raise NotImplementedError


def source(appraiser: FakeAppraiser | None = None) -> CredentialSource:
    return CredentialSource(EchoAttester(), FixedClock(NOW), appraiser, ["default"])  # type: ignore[arg-type]


def read(credential: Credential) -> PeerCertificate:
    return parse_peer_certificate(credential.certificate.public_bytes(Encoding.DER), NOW)


async def test_the_evidence_is_over_the_key_of_the_certificate() -> None:
    credential = await source().make()
    peer = read(credential)
    evidence = parse_evidence(peer.extension)
    assert isinstance(evidence, CocoEvidence)
    assert json.loads(evidence.aa_runtime_data) == pubkey_claims(peer.spki_der)
    assert evidence.aa_evidence == report_data(evidence.aa_runtime_data.encode())
    assert (evidence.tee_type, credential.tee) == ("sample", "sample")
    assert credential.key.public_key() == credential.certificate.public_key()
    assert credential.not_after == int(NOW) + LIFETIME


async def test_every_credential_has_a_key_of_its_own() -> None:
    making = source()
    assert read(await making.make()).spki_der != read(await making.make()).spki_der


async def test_additional_evidence_is_carried() -> None:
    credential = await CredentialSource(EchoAttester(b"{}"), FixedClock(NOW)).make()
    evidence = parse_evidence(read(credential).extension)
    assert isinstance(evidence, CocoEvidence)
    assert evidence.aa_additional_evidence == b"{}"


@pytest.mark.parametrize(
    ("exp", "not_after"),
    [(NOW + 300, NOW + 300), (NOW + LIFETIME * 2, int(NOW) + LIFETIME)],
)
async def test_a_passport_holds_as_long_as_the_shorter_of_token_and_certificate(
    exp: float, not_after: float
) -> None:
    appraiser = FakeAppraiser(jwt({"exp": exp}))
    credential = await source(appraiser).make()
    peer = read(credential)
    assert parse_evidence(peer.extension) == CocoToken(appraiser.token)
    assert credential.not_after == not_after
    ((evidence, policies),) = appraiser.asked
    assert policies == ("default",)
    assert json.loads(evidence.aa_runtime_data) == pubkey_claims(peer.spki_der)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b",
        "a.b.c.d",
        "<html>.<html>.<html>",
        "e30.é.c2ln",
        jwt({}),
        jwt([]),
        jwt({"exp": "soon"}),
        jwt({"exp": True}),
        jwt({"exp": 0}),
        jwt({"exp": float("nan")}),
        jwt({"exp": 10**400}),
        jwt({"exp": NOW - 1}),
        "a." + "b" * (1 << 20) + ".c",
    ],
)
async def test_a_token_that_peers_would_refuse_makes_no_credential(token: str) -> None:
    with pytest.raises(AppraiserError) as refused:
        await source(FakeAppraiser(token)).make()
    assert refused.value.code is ErrorCode.AS_BAD_TOKEN


async def test_without_evidence_there_is_no_credential() -> None:
    with pytest.raises(EvidenceError, match="no TEE"):
        await CredentialSource(NoTee(), FixedClock(NOW)).make()


async def test_repr_shows_no_key() -> None:
    assert "PrivateKey" not in repr(await source().make())


@given(st.text(max_size=60) | st.builds("{}.{}.{}".format, st.text(), st.text(), st.text()))
def test_garbage_is_no_token(text: str) -> None:
    with pytest.raises(AppraiserError):
        read_expiry(text)
