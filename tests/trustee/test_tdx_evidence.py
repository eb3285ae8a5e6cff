from __future__ import annotations

import asyncio
import base64
import json

import pytest

from tng.attest.tdx.collateral import Collateral
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.attest.tdx.simulator.spoil import Spoil
from tng.clock import FixedClock
from tng.errors import AppraiserError, ErrorCode, UntrustedPeerError
from tng.trustee.dialects import RuntimeData, VerificationRequest
from tng.trustee.init_data import InitData
from tng.trustee.tdx_evidence import TdxVerifier

NOW = 1_795_000_000
REAL_AT = 1_751_328_000  # 2025-07-01, when this quote's collateral held


class Shelf:
    """A collateral source that has one item, or none."""

    def __init__(self, item: Collateral | None) -> None:
        self.item = item
        self.asked = 0

    async def collateral_for(self, quote: object) -> Collateral:
        self.asked += 1
        if self.item is None:
            raise AppraiserError("none", code=ErrorCode.COLLATERAL_UNAVAILABLE)
        return self.item


def _verify(verifier, evidence, report_data=None):
    runtime_data = None if report_data is None else RuntimeData(report_data, None)
    (appraised,) = asyncio.run(
        verifier.verify(VerificationRequest("tdx", evidence, runtime_data, None))
    )
    return appraised


@pytest.fixture(scope="module")
def real(shared):
    folder = shared / "vectors" / "attestation" / "quotes"
    quote = (folder / "phala_tdx_quote.bin").read_bytes()
    collateral = (folder / "phala_tdx_quote_collateral.json").read_text()
    evidence = {"cc_eventlog": None, "quote": base64.b64encode(quote).decode()}
    return json.dumps(evidence).encode(), Collateral.from_json(collateral)


def test_a_real_quote_is_judged_under_intels_root_even_beside_a_simulated_platform(real, platform):
    evidence, collateral = real
    verifier = TdxVerifier(
        Shelf(collateral), platform, frozenset({"UpToDate"}), FixedClock(REAL_AT)
    )
    appraised = _verify(verifier, evidence)
    assert not appraised.simulated
    assert "simulated_platform" not in appraised.claims["tdx"]
    assert appraised.claims["tdx"]["tcb_verification"]["tcb_status"] == "UpToDate"


def test_a_real_quote_is_refused_when_its_collateral_is_old(real):
    evidence, collateral = real
    verifier = TdxVerifier(Shelf(collateral), None, frozenset({"UpToDate"}), FixedClock(NOW))
    with pytest.raises(UntrustedPeerError) as caught:
        _verify(verifier, evidence)
    assert caught.value.code is ErrorCode.COLLATERAL_EXPIRED


def test_a_real_quote_without_collateral_is_not_judged(real):
    verifier = TdxVerifier(Shelf(None), None, frozenset({"UpToDate"}), FixedClock(REAL_AT))
    with pytest.raises(AppraiserError) as caught:
        _verify(verifier, real[0])
    assert caught.value.retryable


def test_a_simulated_quote_never_asks_for_collateral(platform):
    shelf = Shelf(None)
    evidence = platform.evidence(b"x")
    allowed = TdxVerifier(shelf, platform, frozenset({"UpToDate"}), FixedClock(NOW))
    assert _verify(allowed, evidence, b"x").simulated
    forbidden = TdxVerifier(shelf, None, frozenset({"UpToDate"}), FixedClock(NOW))
    with pytest.raises(UntrustedPeerError) as caught:
        _verify(forbidden, evidence, b"x")
    assert caught.value.code is ErrorCode.SIMULATED_EVIDENCE
    assert shelf.asked == 0


def test_init_data_must_be_in_the_register(platform):
    digest = b"i" * 48
    fitting = SimulatedPlatform.build(now=NOW, init_data_digest=digest)
    for machine, accepted in ((fitting, True), (platform, False)):
        verifier = TdxVerifier(Shelf(None), machine, frozenset({"UpToDate"}), FixedClock(NOW))
        request = VerificationRequest("tdx", machine.evidence(b""), None, InitData(digest, None))
        if accepted:
            claims = asyncio.run(verifier.verify(request))[0].claims
            assert claims["init_data"] == digest.hex()
            continue
        with pytest.raises(UntrustedPeerError) as caught:
            asyncio.run(verifier.verify(request))
        assert caught.value.code is ErrorCode.BINDING_MISMATCH


def test_another_tcb_status_is_accepted_only_by_name(platform):
    evidence = platform.spoiled(Spoil.OUT_OF_DATE).evidence(b"x")
    strict = TdxVerifier(Shelf(None), platform, frozenset({"UpToDate"}), FixedClock(NOW))
    with pytest.raises(UntrustedPeerError) as caught:
        _verify(strict, evidence)
    assert caught.value.code is ErrorCode.TCB_NOT_ACCEPTED
    lax = TdxVerifier(Shelf(None), platform, frozenset({"OutOfDate"}), FixedClock(NOW))
    assert _verify(lax, evidence).claims["tdx"]["tcb_verification"]["tcb_status"] == "OutOfDate"


@pytest.mark.parametrize(
    ("evidence", "failed"),
    [(b"", 0), (b"[]", 0), (b'{"quote":"AAAA"}', 1), (b'{"quote":""}', 1)],
)
def test_unreadable_evidence_is_refused_with_numbered_checks(platform, evidence, failed):
    verifier = TdxVerifier(Shelf(None), platform, frozenset({"UpToDate"}), FixedClock(NOW))
    with pytest.raises(UntrustedPeerError) as caught:
        _verify(verifier, evidence)
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED
    outcomes = [check.outcome.value for check in caught.value.checks]
    assert outcomes == ["pass"] * failed + ["fail"] + ["skip"] * (9 - failed)
