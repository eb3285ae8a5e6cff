"""The attester of demonstrations: evidence from a simulated platform, said loudly."""

from __future__ import annotations

import logging

import pytest
import trio

from tng.attest.attester.simulated import SimulatedAttester
from tng.attest.tdx.appraisal import judge_tdx
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.clock import FixedClock
from tng.errors import EvidenceError

NOW = 1_767_225_600


async def test_its_evidence_is_that_of_the_platform_in_the_directory(tmp_path):
    platform = SimulatedPlatform.create(tmp_path / "p", now=NOW)
    attester = SimulatedAttester(tmp_path / "p", clock=FixedClock(NOW))
    answer = await attester.get_evidence(b"r" * 48)
    assert (answer.tee, answer.additional) == ("tdx", None)
    assert judge_tdx(
        answer.evidence,
        expected_report_data=b"r" * 48,
        collateral=platform.collateral(NOW),
        now=NOW,
        root_ca_der=platform.root_der,
    ).simulated


async def test_it_makes_a_platform_at_the_first_request_and_warns_once(tmp_path, caplog):
    attester = SimulatedAttester(tmp_path / "p", clock=FixedClock(NOW))
    assert not (tmp_path / "p").exists()
    with caplog.at_level(logging.WARNING):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(attester.get_evidence, b"r")
    warnings = [r for r in caplog.records if "SIMULATED" in r.getMessage()]
    assert len(warnings) == 1
    assert (tmp_path / "p" / "platform.json").exists()


async def test_too_much_report_data_gives_no_evidence(tmp_path):
    attester = SimulatedAttester(tmp_path / "p")
    with pytest.raises(EvidenceError, match="64 octets"):
        await attester.get_evidence(bytes(65))


async def test_a_directory_that_holds_something_else_is_named(tmp_path):
    (tmp_path / "other").write_text("")
    with pytest.raises(EvidenceError, match="cannot be written"):
        await SimulatedAttester(tmp_path).get_evidence(b"r")
