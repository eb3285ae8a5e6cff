"""Judges of one device."""

from __future__ import annotations

import base64
import datetime as dt
import json

import pytest

from stage.pccs import Network
from tng.attest.appraiser.devices import SampleJudge, TdxJudge
from tng.attest.policy.factory import make_policy
from tng.attest.tdx.appraisal import TdxRefused
from tng.attest.tdx.collateral import Collateral
from tng.attest.tdx.collateral_settings import CollateralSettings
from tng.attest.tdx.pccs import PccsCollateral
from tng.attest.tdx.quote import parse_quote
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.clock import FixedClock
from tng.errors import AppraiserError, ErrorCode, UntrustedPeerError

NOW = 1_800_000_000
DATA = b"d" * 48


class Absent:
    """A source that has no collateral."""

    async def collateral_for(self, quote):
        raise AppraiserError("none", code=ErrorCode.COLLATERAL_UNAVAILABLE)


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    return SimulatedPlatform.create(tmp_path_factory.mktemp("p") / "platform", now=NOW)


def tdx(platform=None, source=None, **options):
    return TdxJudge(source or Absent(), FixedClock(NOW), platform=platform, **options)


async def test_the_platform_that_is_trusted_passes_and_is_marked(platform):
    judged = await tdx(platform).judge(platform.evidence(DATA), DATA)
    assert judged.simulated
    assert judged.claims["tdx"]["simulated_platform"] is True
    assert (await tdx(platform).judge(platform.evidence(DATA), None)).simulated


async def test_a_platform_that_nobody_named_is_refused(platform, tmp_path):
    other = SimulatedPlatform.create(tmp_path / "other", now=NOW)
    for judge in (tdx(), tdx(other)):
        with pytest.raises(UntrustedPeerError) as caught:
            await judge.judge(platform.evidence(DATA), DATA)
        assert caught.value.code in {ErrorCode.SIMULATED_EVIDENCE, ErrorCode.UNKNOWN_ROOT}


async def test_evidence_about_something_else_is_refused_with_its_checks(platform):
    with pytest.raises(TdxRefused) as caught:
        await tdx(platform).judge(platform.evidence(DATA), b"e" * 48)
    assert caught.value.code is ErrorCode.BINDING_MISMATCH
    assert len(caught.value.checks) == 10


async def test_the_status_must_be_one_that_is_accepted(platform):
    with pytest.raises(UntrustedPeerError) as caught:
        await tdx(platform, statuses=frozenset({"OutOfDate"})).judge(platform.evidence(DATA), DATA)
    assert caught.value.code is ErrorCode.TCB_NOT_ACCEPTED


async def test_octets_that_are_no_evidence_are_refused():
    with pytest.raises(UntrustedPeerError) as caught:
        await tdx().judge(b"{}", DATA)
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


async def test_a_real_machine_passes_in_its_time_and_is_bound_to_its_report_data(shared):
    quotes = shared / "vectors" / "attestation" / "quotes"
    quote = (quotes / "phala_tdx_quote.bin").read_bytes()
    collateral = Collateral.from_json((quotes / "phala_tdx_quote_collateral.json").read_bytes())
    evidence = json.dumps({"quote": base64.b64encode(quote).decode(), "cc_eventlog": None}).encode()
    data = parse_quote(quote).body.report_data
    clock = FixedClock(dt.datetime(2025, 7, 1, tzinfo=dt.UTC).timestamp())
    client = Network(one=collateral).client()
    source = PccsCollateral(CollateralSettings(("https://one.example",)), clock, client=client)
    judged = await TdxJudge(source, clock).judge(evidence, data)
    assert not judged.simulated
    assert make_policy(None).evaluate(judged.claims, {}).status == "affirming"
    with pytest.raises(TdxRefused) as caught:
        await TdxJudge(source, clock).judge(evidence, bytes(64))
    assert caught.value.code is ErrorCode.BINDING_MISMATCH
    with pytest.raises(AppraiserError) as absent:
        await TdxJudge(Absent(), clock).judge(evidence, data)
    assert absent.value.code is ErrorCode.COLLATERAL_UNAVAILABLE
    await source.aclose()


def sample(**changes):
    text = base64.b64encode(DATA).decode()
    members = {"svn": "1", "report_data": text, "measure_register": "0f" * 32, **changes}
    return json.dumps({k: v for k, v in members.items() if v != "absent"}).encode()


async def test_sample_evidence_is_taken_at_its_word():
    for expected in (DATA, None):
        judged = await SampleJudge().judge(sample(cc_eventlog=None), expected)
        assert judged.claims["sample"]["measure_register"] == "0f" * 32
        assert judged.claims["report_data"] == base64.b64encode(DATA).decode()
        assert not judged.simulated  # the name of the TEE says it; the verifier shows it


@pytest.mark.parametrize("expected", [b"", DATA + b"\0", DATA[:-1], b"e" * 48])
async def test_sample_evidence_about_something_else_is_refused(expected):
    with pytest.raises(UntrustedPeerError) as caught:
        await SampleJudge().judge(sample(), expected)
    assert caught.value.code is ErrorCode.BINDING_MISMATCH


@pytest.mark.parametrize(
    "evidence",
    [
        b"",
        b"[]",
        sample(more=1),
        sample(cc_eventlog="!"),
        sample(svn="2"),
        sample(svn=1),
        sample(measure_register="0F" * 32),
        sample(measure_register=5),
        sample(report_data="absent"),
        sample(report_data="!"),
        sample(report_data=base64.b64encode(b"x" * 65).decode()),
    ],
)
async def test_what_is_no_sample_evidence_is_refused(evidence):
    with pytest.raises(UntrustedPeerError) as caught:
        await SampleJudge().judge(evidence, None)
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED
