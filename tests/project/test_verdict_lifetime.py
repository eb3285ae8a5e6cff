"""How long streams last is a matter of the verdict on their peer."""

from __future__ import annotations

import pytest

from tng.tunnel.rats_tls import DRAIN_AFTER_VERDICT_S
from tng.tunnel.rats_tls.judging import lifetime_s, remaining_s
from tng.verdict import AttestedPeer, NoRa, Verdict


def peer(valid_until: float) -> AttestedPeer:
    verdict = Verdict(True, None, (), "tdx", False, (), "", 0.0, valid_until)
    return AttestedPeer(verdict, "token")


@pytest.mark.parametrize(("now", "remaining"), [(900.0, 100.0), (1000.0, 0.0), (1100.0, 0.0)])
def test_a_stream_lasts_as_long_as_its_verdict_and_an_hour_at_most(now, remaining) -> None:
    assert remaining_s(peer(1000.0), now) == remaining
    assert lifetime_s(peer(1000.0), now) == remaining + DRAIN_AFTER_VERDICT_S
    assert DRAIN_AFTER_VERDICT_S <= 3600


def test_without_a_verdict_by_the_operator_s_wish_nothing_ends() -> None:
    assert remaining_s(NoRa.NO_RA, 0.0) is None
    assert lifetime_s(NoRa.NO_RA, 0.0) is None
