"""Evidence for Intel Trust Authority: what is asked, in which order, and over what."""

from __future__ import annotations

import base64
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from stage.fake_ita import REPORT_DATA, FakeGuest, fake_guest, fake_quote
from tng.attest.attester.agent import AgentAttester
from tng.attest.attester.asr import AsrAttester
from tng.attest.attester.base import TeeEvidence
from tng.attest.attester.factory import make_any_attester
from tng.attest.attester.ita import ItaAttester
from tng.attest.binding import canonical_json
from tng.config.model import Attest
from tng.errors import ConfigError, EvidenceError
from tng.wire.protobuf import dump_fields, last_bytes, parse_fields
from tng.wire.ttrpc import Response

if TYPE_CHECKING:
    from tests.attest.attester.conftest import FakeAgent

NONCE = '{"val":"VlZW","iat":"MjAyNg==","signature":"U1NT"}'
RUNTIME = '{"pubkey-hash":"x"}'


@pytest.fixture
def guest() -> Iterator[FakeGuest]:
    with fake_guest() as running:
        yield running


async def test_a_certificates_quote_is_over_its_claims(guest: FakeGuest) -> None:
    evidence = await ItaAttester(AsrAttester(guest.url)).collect(RUNTIME)
    assert evidence.runtime_data == RUNTIME.encode()
    assert (evidence.nonce, evidence.gpu) == (None, None)
    assert evidence.tdx_quote[REPORT_DATA] == hashlib.sha512(RUNTIME.encode()).digest()
    assert [path for path, _ in guest.asked] == ["/aa/additional-evidence", "/info", "/aa/evidence"]


async def test_the_nonce_goes_before_the_claims(guest: FakeGuest) -> None:
    claims = canonical_json({"challenge_token": NONCE, "pk_s": "x"})
    evidence = await ItaAttester(AsrAttester(guest.url)).collect(claims.decode())
    assert evidence.nonce is not None
    assert evidence.tdx_quote[REPORT_DATA] == hashlib.sha512(b"VVV2026" + claims).digest()
    assert guest.asked[0] == ("/aa/additional-evidence", hashlib.sha256(b"VVV2026").digest())


async def test_a_gpus_evidence_is_among_the_claims_of_the_quote(guest: FakeGuest) -> None:
    guest.gpu = True
    attester = ItaAttester(AsrAttester(guest.url))
    evidence = await attester.collect(RUNTIME)
    assert evidence.gpu is not None
    nonce = evidence.gpu.nonce
    assert guest.asked[0] == ("/aa/additional-evidence", nonce)
    assert base64.b64decode(evidence.gpu.evidence) == (b"gpu:" + nonce).hex().encode()
    claims = json.loads(evidence.runtime_data)
    assert base64.b64decode(claims["additional_evidence"]) == guest.devices(nonce)
    assert claims["pubkey-hash"] == "x"
    assert evidence.tdx_quote[REPORT_DATA] == hashlib.sha512(evidence.runtime_data).digest()
    again = await attester.collect(RUNTIME)
    assert again.gpu is not None
    assert again.gpu.nonce != nonce


async def test_the_agent_is_asked_the_same(agent: FakeAgent) -> None:
    quote = base64.b64encode(fake_quote(b"")).decode()
    said = json.dumps({"quote": quote}).encode()
    agent.answers["GetEvidence"] = Response(0, "", dump_fields([(1, said)]))
    agent.answers["GetTeeType"] = Response(0, "", dump_fields([(1, b"tdx")]))
    evidence = await ItaAttester(AgentAttester(agent.path)).collect(RUNTIME)
    assert evidence.tdx_quote == fake_quote(b"")
    methods = [request.method for _, request in agent.requests]
    assert methods == ["GetAdditionalEvidence", "GetEvidence", "GetTeeType"]
    given = [last_bytes(parse_fields(request.payload), 1) for _, request in agent.requests]
    assert len(given[0]) == 32
    assert given[1] == hashlib.sha512(RUNTIME.encode()).digest()


class Inner:
    """Says what it is told to say."""

    def __init__(self, tee: str = "tdx", evidence: object = None, devices: object = None) -> None:
        self.tee, self.evidence, self.devices = tee, evidence, devices

    async def get_primary(self, report_data: bytes) -> TeeEvidence:
        said = {"quote": "AAAA"} if self.evidence is None else self.evidence
        return TeeEvidence(self.tee, json.dumps(said).encode(), None)

    async def get_additional(self, runtime_data: bytes) -> bytes:
        return b"" if self.devices is None else json.dumps(self.devices).encode()


@pytest.mark.parametrize(
    "devices", [None, {}, {"nvidia": {}}, {"nvidia": {"device_evidence_list": []}}]
)
async def test_without_a_gpu_there_is_no_evidence_of_one(devices: object) -> None:
    assert (await ItaAttester(Inner(devices=devices)).collect("{}")).gpu is None


@pytest.mark.parametrize(
    ("inner", "word"),
    [
        (Inner(tee="sample"), "sample"),
        (Inner(evidence=[]), "object"),
        (Inner(evidence={}), "quote"),
        (Inner(evidence={"quote": "!"}), "base64"),
        (Inner(evidence={"quote": ""}), "tdx_quote"),
        (Inner(devices={"nvidia": {"device_evidence_list": [{}]}}), "GPU"),
        (
            Inner(devices={"nvidia": {"device_evidence_list": [{"evidence": "AA=="}]}}),
            "certificate",
        ),
    ],
)
async def test_evidence_of_another_form_is_an_error_of_ours(inner: Inner, word: str) -> None:
    with pytest.raises(EvidenceError, match=word):
        await ItaAttester(inner).collect("{}")


async def test_a_challenge_of_another_service_is_refused() -> None:
    with pytest.raises(EvidenceError, match="as_provider"):
        await ItaAttester(Inner()).collect('{"challenge_token":"a.b.c"}')


def test_each_section_gives_its_attester(tmp_path: pathlib.Path) -> None:
    over_http = {"aa_provider": "ita_asr", "asr_addr": "http://127.0.0.1:8006"}
    for section in (over_http, {"aa_provider": "ita", "aa_addr": "unix:///run/aa.sock"}):
        assert isinstance(make_any_attester(Attest.model_construct(**section)), ItaAttester)
    coco = Attest.model_construct(aa_addr="unix:///run/aa.sock")
    assert isinstance(make_any_attester(coco), AgentAttester)
    with pytest.raises(ConfigError, match="no evidence source"):
        make_any_attester(Attest.model_construct(aa_provider="ita", aa_type="tsm"))


@pytest.mark.parametrize(("aa", "service"), [("coco_asr", "ita"), ("ita_asr", "coco")])
def test_evidence_for_one_service_is_not_sent_to_the_other(aa: str, service: str) -> None:
    section = Attest.model_construct(
        model="passport", aa_provider=aa, asr_addr="http://127.0.0.1:1", as_provider=service
    )
    with pytest.raises(ConfigError, match="as_provider"):
        make_any_attester(section)
