"""What judgements tell whoever keeps records: every examination once, before it is acted on."""

from __future__ import annotations

import pytest
import trio

from tng.attest.checks import Findings, Step
from tng.attest.verifier.judgements import Judged, Judgements
from tng.clock import FixedClock
from tng.errors import AppraiserError, ErrorCode, UntrustedPeerError
from tng.verdict import AttestedPeer

KEY = bytes(range(32))


async def accept(findings: Findings) -> AttestedPeer:
    await trio.sleep(1)
    findings.passed(Step.CERTIFICATE, "fine")
    return AttestedPeer(findings.verdict(valid_until=1000.0), "token")


async def refuse(findings: Findings) -> AttestedPeer:
    await trio.sleep(1)
    raise findings.refusal(Step.POLICY, ErrorCode.POLICY_DENIED, "another policy")


async def fail(findings: Findings) -> AttestedPeer:
    await trio.sleep(1)
    findings.failed(Step.APPRAISAL, "away")
    raise AppraiserError("away")


async def test_one_examination_for_many_is_told_once(autojump_clock: object) -> None:
    told: list[Judged] = []
    judgements = Judgements(FixedClock(100.0), told.append)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(judgements.judge, KEY, "10.0.0.7:443", accept)
    await judgements.judge(KEY, "10.0.0.7:443", accept)
    (judged,) = told
    assert (judged.shown, judged.peer, judged.reason) == (KEY, "10.0.0.7:443", "")
    assert judged.verdict.accepted


async def test_a_pass_is_told_before_it_can_be_used(autojump_clock: object) -> None:
    held: list[object] = []
    judgements = Judgements(FixedClock(100.0), lambda _: held.append(judgements.held(KEY)))
    await judgements.judge(KEY, "a", accept)
    assert held == [None]
    assert judgements.held(KEY) is not None


@pytest.mark.parametrize(
    ("examine", "error", "code"),
    [
        (refuse, UntrustedPeerError, ErrorCode.POLICY_DENIED),
        (fail, AppraiserError, ErrorCode.AS_UNREACHABLE),
    ],
)
async def test_refusals_and_the_want_of_a_judge_are_told_each_time(
    autojump_clock: object, examine: object, error: type[Exception], code: ErrorCode
) -> None:
    told: list[Judged] = []
    judgements = Judgements(FixedClock(100.0), told.append)
    for _ in range(2):
        with pytest.raises(error):
            await judgements.judge(KEY, "a", examine)
    assert [judged.verdict.code for judged in told] == [code, code]
    assert all(judged.reason and judged.verdict.checks for judged in told)


async def test_a_judgement_that_was_cancelled_is_none(autojump_clock: object) -> None:
    told: list[Judged] = []
    judgements = Judgements(FixedClock(100.0), told.append)
    with trio.move_on_after(0.5):
        await judgements.judge(KEY, "a", accept)
    assert told == []
