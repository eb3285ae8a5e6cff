"""What an egress remembers of the requests that it has seen, and how much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tng.tunnel.ohttp.replay import ReplayGuard

KEY = b"k" * 32


def test_a_copy_is_no_new_request_but_the_same_for_another_key_is() -> None:
    guard = ReplayGuard()
    assert guard.is_new(KEY, b"a", 10.0, 0.0)
    assert not guard.is_new(KEY, b"a", 10.0, 9.0)
    assert guard.is_new(KEY, b"b", 10.0, 0.0)
    assert guard.is_new(b"other", b"a", 10.0, 0.0)


@given(st.lists(st.integers(0, 6), max_size=40))
def test_the_last_half_of_what_fits_is_always_known(numbers: list[int]) -> None:
    guard = ReplayGuard(max_per_key=8)
    recent: list[int] = []
    for number in numbers:
        is_new = guard.is_new(KEY, bytes([number]), 10.0, 0.0)
        if number in recent[-3:]:
            assert not is_new
        if is_new:
            recent.append(number)


def test_no_key_takes_more_than_its_share() -> None:
    guard = ReplayGuard(max_per_key=8)
    for number in range(1000):
        assert guard.is_new(KEY, number.to_bytes(4, "big"), 10.0, 0.0)
    seen = guard._keys[KEY]
    assert len(seen.new) + len(seen.old) <= 8


def test_a_key_that_has_ended_is_forgotten_when_another_comes() -> None:
    guard = ReplayGuard()
    guard.is_new(KEY, b"a", 10.0, 0.0)
    guard.is_new(b"next", b"a", 20.0, 9.0)
    assert len(guard._keys) == 2
    guard.is_new(b"after", b"a", 30.0, 10.0)
    assert set(guard._keys) == {b"next", b"after"}
