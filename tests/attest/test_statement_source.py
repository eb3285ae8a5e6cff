"""tng.attest.statement_source: our TEE vouches for an HPKE key."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import pytest

from tng.attest.attester.base import TeeEvidence
from tng.attest.binding import canonical_json, report_data
from tng.attest.statement_source import StatementSource, make_statement_source
from tng.attest.user_data import ClientUserData, ServerUserData, claims_of
from tng.clock import FixedClock
from tng.config.model import Attest
from tng.errors import AppraiserError, ConfigError, ErrorCode, EvidenceError, LocalProtocolError
from tng.wire.dice import CocoEvidence

NOW = 1_800_000_000.0
SERVER = ServerUserData("AAAA", 1_900_000_000)
CLIENT = ClientUserData(bytes(range(32)), "ours.c.s")


class EchoAttester:
    """Evidence is the report data itself."""

    async def get_evidence(self, report_data: bytes) -> TeeEvidence:
        return TeeEvidence("sample", report_data, b"{}")


class NoTee:
    async def get_evidence(self, report_data: bytes) -> TeeEvidence:
        raise EvidenceError("no TEE here")


class FakeAppraiser:
    """Returns one token whatever the evidence."""

    def __init__(self, exp: object = NOW + 300) -> None:
        payload = base64.urlsafe_b64encode(json.dumps({"exp": exp}).encode()).rstrip(b"=")
        self.token = f"e30.{payload.decode()}.c2ln"
        self.asked: list[tuple[CocoEvidence, tuple[str, ...]]] = []
        self.is_closed = False
        self.error: AppraiserError | None = None

    async def challenge(self) -> str:
        if self.error is not None:
            raise self.error
        return "theirs.c.s"

    async def appraise(self, evidence: CocoEvidence, policy_ids: Sequence[str]) -> str:
        self.asked.append((evidence, tuple(policy_ids)))
        return self.token

    async def aclose(self) -> None:
        self.is_closed = True


def source(appraiser: FakeAppraiser | None = None) -> StatementSource:
    return StatementSource(EchoAttester(), FixedClock(NOW), appraiser, ["default"])  # type: ignore[arg-type]


async def test_evidence_is_over_the_canonical_claims_with_the_peers_challenge() -> None:
    evidence = await source().evidence(CLIENT)
    assert evidence.aa_runtime_data.encode() == canonical_json(claims_of(CLIENT))
    assert evidence.aa_evidence == report_data(evidence.aa_runtime_data.encode())
    assert (evidence.tee_type, evidence.aa_additional_evidence) == ("sample", b"{}")
    assert source().model == "background_check"


async def test_evidence_without_a_challenge_is_not_made() -> None:
    with pytest.raises(LocalProtocolError, match="challenge"):
        await source().evidence(SERVER)


@pytest.mark.parametrize("user_data", [SERVER, CLIENT])
async def test_a_passport_answers_the_challenge_of_our_own_service(
    user_data: ServerUserData | ClientUserData,
) -> None:
    appraiser = FakeAppraiser()
    making = source(appraiser)
    passport = await making.passport(user_data)
    assert (passport.token, passport.expires_at) == (appraiser.token, NOW + 300)
    assert passport.token not in repr(passport)
    assert making.model == "passport"
    ((evidence, policies),) = appraiser.asked
    assert policies == ("default",)
    claims = {"challenge_token": "theirs.c.s", **user_data.key_claims}
    assert json.loads(evidence.aa_runtime_data) == claims


@pytest.mark.parametrize("exp", [NOW, NOW - 1, "soon", None])
async def test_a_token_that_peers_would_refuse_is_no_passport(exp: object) -> None:
    with pytest.raises(AppraiserError) as refused:
        await source(FakeAppraiser(exp)).passport(SERVER)
    assert refused.value.code is ErrorCode.AS_BAD_TOKEN


async def test_without_challenge_or_tee_or_service_there_is_no_passport() -> None:
    appraiser = FakeAppraiser()
    appraiser.error = AppraiserError("absent")
    with pytest.raises(AppraiserError, match="absent"):
        await source(appraiser).passport(SERVER)
    with pytest.raises(EvidenceError, match="no TEE"):
        await StatementSource(NoTee(), FixedClock(NOW), FakeAppraiser()).passport(SERVER)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="background_check"):
        await source().passport(SERVER)


async def test_closing_closes_the_service() -> None:
    appraiser = FakeAppraiser()
    await source(appraiser).aclose()
    assert appraiser.is_closed
    await source().aclose()


async def test_the_configuration_chooses_model_and_service() -> None:
    members = {"aa_addr": "unix:///run/aa.sock"}
    passport = {**members, "model": "passport", "as_addr": "http://127.0.0.1:1"}
    clock = FixedClock(NOW)
    for given, model in ((members, "background_check"), (passport, "passport")):
        making = make_statement_source(Attest.model_validate(given), clock)
        assert making.model == model
        await making.aclose()


@pytest.mark.parametrize(
    "changes", [{"as_addr": None}, {"as_provider": "ita"}, {"as_type": "builtin"}]
)
def test_a_passport_of_a_service_that_is_not_known_is_refused(changes: dict[str, object]) -> None:
    members = {
        "model": "passport",
        "aa_provider": "coco",
        "aa_type": "tsm",
        "asr_addr": None,
        "as_addr": "http://127.0.0.1:1",
        "as_provider": "coco",
        "as_type": "restful",
    }
    with pytest.raises(ConfigError):
        make_statement_source(Attest.model_construct(**{**members, **changes}), FixedClock(NOW))
