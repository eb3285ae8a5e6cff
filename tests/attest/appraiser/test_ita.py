"""The client of Intel Trust Authority before a fake of it."""

from __future__ import annotations

import base64
import hashlib
import json
import pathlib
from collections.abc import Iterator

import pytest

from stage.fake_ita import KEY, FakeIta, fake_ita, fake_quote
from tng.attest.appraiser.ita import ItaAppraiser, attest_body
from tng.attest.evidence import CocoToken, ItaToken
from tng.attest.ita_json import parse_nonce_text
from tng.attest.passport import issuer_provider, make_issuer, obtain_token
from tng.config.model import Attest
from tng.config.secret import Secret
from tng.errors import (
    AppraiserError,
    ConfigError,
    ErrorCode,
    LocalProtocolError,
    UntrustedPeerError,
)
from tng.wire.dice import CocoEvidence
from tng.wire.ita_evidence import GpuEvidence, ItaEvidence, ItaNonce

ATTEST = "/appraisal/v2/attest"
RUNTIME = b'{"pubkey-hash":"x"}'
EVIDENCE = ItaEvidence(fake_quote(hashlib.sha512(RUNTIME).digest()), RUNTIME)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeIta]:
    with fake_ita(tmp_path_factory.mktemp("ita")) as running:
        yield running


@pytest.fixture
def ita(service: FakeIta) -> Iterator[FakeIta]:
    yield service
    service.answers.clear()
    service.requests.clear()


def client(ita: FakeIta, key: str = KEY, **settings: float) -> ItaAppraiser:
    return ItaAppraiser(ita.api + "/", Secret(key), user_agent="tng-test/1", **settings)


async def test_evidence_becomes_a_token(ita: FakeIta) -> None:
    asking = client(ita)
    token = await asking.appraise(EVIDENCE, ["p1"])
    assert token.count(".") == 2
    path, headers, body = ita.requests[-1]
    assert (path, headers["x-api-key"], headers["user-agent"]) == (ATTEST, KEY, "tng-test/1")
    assert body == attest_body(EVIDENCE, ["p1"])
    await asking.aclose()
    await asking.aclose()


async def test_a_nonce_answers_for_evidence(ita: FakeIta) -> None:
    asking = client(ita)
    nonce = parse_nonce_text(await asking.challenge())
    digest = hashlib.sha512(nonce.octets + RUNTIME).digest()
    await asking.appraise(ItaEvidence(fake_quote(digest), RUNTIME, nonce), [])
    stranger = ItaNonce("AAAA", nonce.iat, nonce.signature)
    with pytest.raises(UntrustedPeerError, match="not one of ours"):
        await asking.appraise(ItaEvidence(fake_quote(digest), RUNTIME, stranger), [])
    await asking.probe()
    await asking.aclose()


def test_the_body_is_the_references(shared: pathlib.Path) -> None:
    lines = (shared / "vectors/ratls/ita_attest_requests.txt").read_text().splitlines()
    for line in lines:
        recorded = json.loads(line[line.index('{"policy_ids"') :])
        tdx, nvgpu = recorded["tdx"], recorded.get("nvgpu")
        gpu = nvgpu and GpuEvidence(
            nvgpu["evidence"],
            nvgpu["certificate"],
            nvgpu["arch"],
            bytes.fromhex(nvgpu["gpu_nonce"]),
        )
        evidence = ItaEvidence(
            base64.b64decode(tdx["quote"]), base64.b64decode(tdx["runtime_data"]), None, gpu
        )
        made = attest_body(evidence, recorded["policy_ids"])
        assert made.replace(b", ", b",").replace(b": ", b":").decode() in line


def test_nonces_go_beside_every_kind_of_evidence() -> None:
    nonce = ItaNonce("VlZW", "MjAyNg==", "U1NT")
    gpu = GpuEvidence("ZQ==", "Yw==", "HOPPER", bytes(32))
    body = json.loads(attest_body(ItaEvidence(b"q", b"{}", nonce, gpu), []))
    assert body["tdx"]["verifier_nonce"] == body["nvgpu"]["verifier_nonce"]
    assert "policy_ids" not in body
    assert "policy_must_match" not in body


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (400, UntrustedPeerError, ErrorCode.AS_REJECTED),
        (422, UntrustedPeerError, ErrorCode.AS_REJECTED),
        (301, AppraiserError, ErrorCode.AS_REJECTED),
        (401, AppraiserError, ErrorCode.AS_REJECTED),
        (404, AppraiserError, ErrorCode.AS_REJECTED),
        (429, AppraiserError, ErrorCode.AS_UNREACHABLE),
    ],
)
async def test_a_status_says_whose_fault_it_is(
    ita: FakeIta, status: int, error: type[Exception], code: ErrorCode
) -> None:
    ita.answers[ATTEST] = (status, b"words")
    asking = client(ita)
    with pytest.raises(error) as refused:
        await asking.appraise(EVIDENCE, [])
    assert refused.value.code is code
    assert KEY not in str(refused.value)
    assert len(ita.requests) == 1
    await asking.aclose()


@pytest.mark.parametrize(
    "answer", [(500, b""), (503, b"later"), (400, b"x Failed to verify GPU evidence y")]
)
async def test_what_may_pass_by_itself_is_tried_again(
    ita: FakeIta, answer: tuple[int, bytes]
) -> None:
    ita.answers[ATTEST] = answer
    asking = client(ita, pause_s=0.001)
    with pytest.raises((AppraiserError, UntrustedPeerError)):
        await asking.appraise(EVIDENCE, [])
    assert len(ita.requests) == 5
    await asking.aclose()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token":1}', b'{"token":"a.b"}'])
async def test_an_answer_without_a_token_is_none(ita: FakeIta, body: bytes) -> None:
    ita.answers[ATTEST] = (200, body)
    asking = client(ita)
    with pytest.raises(AppraiserError) as refused:
        await asking.appraise(EVIDENCE, [])
    assert refused.value.code is ErrorCode.AS_REJECTED
    await asking.aclose()


@pytest.mark.parametrize("answer", [(200, b"{}"), (200, b"x"), (403, b"no"), (200, b" " * 9000)])
async def test_an_answer_without_a_nonce_is_none(ita: FakeIta, answer: tuple[int, bytes]) -> None:
    ita.answers["/appraisal/v2/nonce"] = answer
    asking = client(ita)
    with pytest.raises(AppraiserError):
        await asking.challenge()
    await asking.aclose()


async def test_nobody_there_and_nobody_answering_are_said(ita: FakeIta) -> None:
    gone = ItaAppraiser("http://127.0.0.1:1", None, user_agent="t")
    with pytest.raises(AppraiserError, match="as_addr") as refused:
        await gone.challenge()
    assert refused.value.code is ErrorCode.AS_UNREACHABLE
    await gone.aclose()
    slow = client(ita, total_s=0.05)
    ita.answers[ATTEST] = (500, b"")
    with pytest.raises(AppraiserError, match="did not answer"):
        await slow.appraise(EVIDENCE, [])
    await slow.aclose()
    assert KEY not in repr(slow)


async def test_a_passports_service_is_of_the_evidences_provider(ita: FakeIta) -> None:
    section = Attest.model_construct(
        model="passport", as_provider="ita", as_addr=ita.api, api_key=Secret(KEY)
    )
    issuer = make_issuer(section)
    assert issuer is not None
    assert issuer_provider(issuer) == "ita"
    assert isinstance(await obtain_token(issuer, EVIDENCE, []), ItaToken)
    with pytest.raises(LocalProtocolError):
        await obtain_token(issuer, CocoEvidence("tdx", b"{}", None, "{}"), [])
    await issuer.aclose()


class Trustee:
    async def appraise(self, evidence: CocoEvidence, policy_ids: list[str]) -> str:
        return "a.b.c"


async def test_trustee_gets_evidence_of_its_own_kind_alone() -> None:
    token = await obtain_token(Trustee(), CocoEvidence("tdx", b"{}", None, "{}"), [])
    assert token == CocoToken("a.b.c")
    assert issuer_provider(Trustee()) == "coco"
    with pytest.raises(LocalProtocolError):
        await obtain_token(Trustee(), EVIDENCE, [])


def test_only_a_passport_has_an_issuer_and_needs_its_address() -> None:
    assert make_issuer(Attest.model_construct()) is None
    with pytest.raises(ConfigError, match="as_addr"):
        make_issuer(Attest.model_construct(model="passport"))
    members = {"model": "passport", "as_provider": "ita", "api_key": Secret(KEY)}
    assert make_issuer(Attest.model_construct(**members)) is not None
