"""How long a session of a UDP mode lasts."""

from __future__ import annotations

import math

import pytest
import trio

from tng.gateway.datagrams import KEEP_ALIVE_S, watch

IDLE_S = 30.0


class Session:
    """What `watch` looks at."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.reason = "the peer has gone"
        self.last_datagram_at = trio.current_time()
        self.kept_alive = 0

    def keep_alive(self) -> None:
        self.kept_alive += 1

    async def stay_busy(self) -> None:
        while True:
            await trio.sleep(1)
            self.last_datagram_at = trio.current_time()


async def reason_and_seconds(session: Session, lifetime_s: float | None) -> tuple[str, float]:
    began = trio.current_time()
    reason = await watch(session, IDLE_S, lifetime_s)  # type: ignore[arg-type]
    return reason, trio.current_time() - began


@pytest.mark.parametrize("lifetime_s", [0.0, 1.0, 100.5, 3600.0])
async def test_a_busy_session_ends_with_the_verdict_on_its_peer(lifetime_s, autojump_clock) -> None:
    session = Session()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.stay_busy)
        reason, seconds = await reason_and_seconds(session, lifetime_s)
        nursery.cancel_scope.cancel()
    assert reason == "the verdict on the peer has ended"
    assert seconds == pytest.approx(lifetime_s)


@pytest.mark.parametrize("lifetime_s", [None, math.inf, 3600.0])
async def test_a_silent_session_ends_before_its_verdict(lifetime_s, autojump_clock) -> None:
    session = Session()
    reason, seconds = await reason_and_seconds(session, lifetime_s)
    assert (reason, seconds) == ("idle", pytest.approx(IDLE_S))
    assert session.kept_alive == IDLE_S // KEEP_ALIVE_S - 1


async def test_a_session_that_ends_by_itself_says_why(autojump_clock) -> None:
    session = Session()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.stay_busy)
        with trio.move_on_after(7):
            await watch(session, IDLE_S, None)  # type: ignore[arg-type]
            pytest.fail("a busy session without a bound goes on")
        session.ended.set()
        reason, seconds = await reason_and_seconds(session, None)
        nursery.cancel_scope.cancel()
    assert (reason, seconds) == ("the peer has gone", pytest.approx(0))
