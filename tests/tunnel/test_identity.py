"""Our certificate: made, renewed, kept, waited for."""

from __future__ import annotations

import pytest
import trio

from stage.certificates import self_signed
from tng.attest.credential import Credential
from tng.errors import EvidenceError
from tng.tunnel.rats_tls import identity
from tng.tunnel.rats_tls.identity import Identity

DAY_S = 86400.0


class TrioClock:
    """The time of day follows trio's clock, which tests make jump."""

    def now(self) -> float:
        return trio.current_time()


class Planned:
    """Fails or succeeds as planned, and notes when it was asked."""

    def __init__(self, *plan: bool, life_s: float = DAY_S, takes_s: float = 0.0) -> None:
        self.plan = list(plan)
        self.life_s = life_s
        self.takes_s = takes_s
        self.asked_at: list[float] = []

    async def make(self) -> Credential:
        self.asked_at.append(trio.current_time())
        await trio.sleep(self.takes_s)
        if self.plan and not self.plan.pop(0):
            raise EvidenceError("the agent is away")
        key, certificate = self_signed()
        return Credential(key, certificate, trio.current_time() + self.life_s, tee="tdx")

    @property
    def gaps(self) -> list[float]:
        return [round(b - a, 3) for a, b in zip(self.asked_at, self.asked_at[1:], strict=False)]


async def run_for(ours: Identity, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await ours.run()


async def test_the_certificate_is_renewed_at_the_interval(autojump_clock) -> None:
    source = Planned()
    ours = Identity(source, 600, TrioClock())
    assert not ours.per_connection
    await run_for(ours, 1900)
    assert source.gaps == [600, 600, 600]
    assert ours.not_ready is None


async def test_a_short_token_is_renewed_before_it_ends(autojump_clock) -> None:
    source = Planned(life_s=100)
    ours = Identity(source, 600, TrioClock())
    await run_for(ours, 185)
    assert source.gaps == [90, 90]


async def test_a_token_that_has_hardly_any_life_does_not_make_us_spin(autojump_clock) -> None:
    source = Planned(life_s=0.001)
    await run_for(Identity(source, 600, TrioClock()), 3.5)
    assert min(source.gaps) >= identity.SHORTEST_INTERVAL_S


async def test_without_a_certificate_we_try_again_later_and_later(autojump_clock) -> None:
    source = Planned(*[False] * 6)
    ours = Identity(source, 600, TrioClock())
    assert "no certificate has been made yet" in str(ours.not_ready)
    await run_for(ours, 1)
    assert "the agent is away" in str(ours.not_ready)
    await run_for(ours, 20)
    assert source.gaps[-6:-1] != []
    assert max(source.gaps[:8]) <= identity.LAST_RETRY_S
    assert ours.not_ready is None


async def test_attempts_back_off_to_a_ceiling(autojump_clock) -> None:
    source = Planned(*[False] * 6)
    await run_for(Identity(source, 600, TrioClock()), 12)
    assert source.gaps == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0]


async def test_an_older_certificate_stays_while_renewal_fails(autojump_clock, caplog) -> None:
    source = Planned(True, False, False, True)
    ours = Identity(source, 60, TrioClock())
    with trio.move_on_after(75):
        await ours.run()
    first = ours.current
    assert first is not None
    assert ours.not_ready is None
    assert source.gaps == [60, identity.RENEWAL_RETRY_S]
    assert "stays in use" in caplog.text


async def test_a_certificate_that_has_ended_is_not_ready(autojump_clock) -> None:
    source = Planned(True, *[False] * 100, life_s=10)
    ours = Identity(source, 60, TrioClock())
    await run_for(ours, 9.5)
    assert ours.not_ready is None
    await run_for(ours, 15)
    assert "has ended" in str(ours.not_ready)
    assert ours.current is not None


async def test_a_machine_that_slept_renews_soon_after(autojump_clock) -> None:
    class Slept:
        ahead = 0.0

        def now(self) -> float:
            return trio.current_time() + self.ahead

    source, clock = Planned(life_s=3600), Slept()
    ours = Identity(source, 100_000, clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.run)
        await trio.sleep(10)
        clock.ahead, source.life_s = 7200, 100_000
        await trio.sleep(identity.LONGEST_SLEEP_S)
        assert len(source.asked_at) == 2
        nursery.cancel_scope.cancel()


async def test_interval_zero_makes_one_per_connection(autojump_clock) -> None:
    source = Planned()
    ours = Identity(source, 0, TrioClock())
    assert ours.per_connection
    one, two = await ours.fresh(), await ours.fresh()
    assert one.key is not two.key
    await run_for(ours, DAY_S)
    assert len(source.asked_at) == 4, "one to prove that we can, and its renewal"


async def test_a_connection_waits_for_the_first_certificate(autojump_clock) -> None:
    ours = Identity(Planned(takes_s=2), 600, TrioClock())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.run)
        assert (await ours.first()).tee == "tdx"
        assert trio.current_time() > 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("source", [Planned(False, takes_s=1), Planned(takes_s=1000)])
async def test_it_does_not_wait_for_long(autojump_clock, source: Planned) -> None:
    ours = Identity(source, 600, TrioClock())
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.run)
        with pytest.raises(EvidenceError, match="no attested certificate"):
            await ours.first()
        assert trio.current_time() - began <= identity.FIRST_WAIT_S
        nursery.cancel_scope.cancel()
