"""Keys and rings: what a key is good for at a moment, and which one is offered."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.errors import LocalProtocolError
from tng.tunnel.ohttp.keyring import (
    MAX_KEYS,
    Key,
    Keyring,
    KeyStatus,
    dump_time,
    make_key,
    short_name,
)

PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))


def key(seed: int, begins: float = 100.0, interval: float = 10.0, key_id: int = 0) -> Key:
    return make_key(
        key_id,
        X25519PrivateKey.from_private_bytes((seed << 8).to_bytes(32, "little")),
        begins,
        interval,
    )


@pytest.mark.parametrize(
    ("now", "status"),
    [
        (99.999, KeyStatus.PENDING),
        (100.0, KeyStatus.ACTIVE),
        (109.999, KeyStatus.ACTIVE),
        (110.0, KeyStatus.STALE),
        (119.999, KeyStatus.STALE),
        (120.0, KeyStatus.EXPIRED),
    ],
)
def test_a_key_lives_through_its_four_states(now: float, status: KeyStatus) -> None:
    one = key(1)
    ring = Keyring([one])
    assert one.status(now) is status
    assert (ring.find(one.public_key, now) is one) == (status is not KeyStatus.EXPIRED)
    assert (ring.active(now) is one) == (status is KeyStatus.ACTIVE)


def test_the_active_key_that_expires_last_is_offered() -> None:
    older, newer, pending = key(1, 95.0), key(2, 100.0), key(3, 110.0)
    assert Keyring([newer, older, pending]).active(101.0) is newer
    assert Keyring([older, pending]).active(101.0) is older
    assert Keyring([older, newer, pending]).active(115.0) is pending
    assert Keyring().active(101.0) is None


def test_of_two_keys_that_expire_together_the_larger_public_key_is_offered() -> None:
    pair = [key(1), key(2)]
    largest = max(pair, key=lambda one: one.public_key)
    assert Keyring(pair).active(101.0) is largest
    assert Keyring(reversed(pair)).active(101.0) is largest


def test_a_key_that_is_not_in_the_ring_is_not_found() -> None:
    assert Keyring([key(1)]).find(bytes(32), 101.0) is None


def test_a_ring_takes_as_many_keys_as_there_are_ids_and_no_more() -> None:
    keys = [key(number + 1) for number in range(MAX_KEYS + 1)]
    assert len(Keyring(keys[:-1])) == MAX_KEYS
    with pytest.raises(LocalProtocolError, match="holds 255 keys, got 256"):
        Keyring(keys)


def test_no_repr_shows_a_private_key() -> None:
    one = Key(7, PRIVATE, PRIVATE.public_key().public_bytes_raw(), 1.0, 2.0, 3.0)
    assert repr(one) == f"Key(key_id=7, public_key={short_name(one.public_key)})"
    assert repr(Keyring([one])) == f"Keyring([{one!r}])"


def test_the_status_shows_usable_keys_the_newest_first() -> None:
    expired, older, newer = key(1, 70.0), key(2, 90.0, key_id=1), key(3, 100.0)
    assert Keyring([expired, older, newer]).status_json(100.5) == [
        {
            "key_id": 0,
            "public_key": newer.public_key.hex(),
            "status": "Active",
            "actived_at": "1970-01-01T00:01:40.000000000Z",
            "stale_at": "1970-01-01T00:01:50.000000000Z",
            "expire_at": "1970-01-01T00:02:00.000000000Z",
        },
        {
            "key_id": 1,
            "public_key": older.public_key.hex(),
            "status": "Stale",
            "actived_at": "1970-01-01T00:01:30.000000000Z",
            "stale_at": "1970-01-01T00:01:40.000000000Z",
            "expire_at": "1970-01-01T00:01:50.000000000Z",
        },
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000000Z"),
        (1795311622.8125, "2026-11-22T01:40:22.812500000Z"),
        (1.9999999999, "1970-01-01T00:00:02.000000000Z"),
        (-5.0, "1970-01-01T00:00:00.000000000Z"),
        (1e15, "9999-12-31T23:59:59.000000000Z"),
    ],
)
def test_times_have_nanoseconds_and_a_calendar_of_four_digits(seconds: float, text: str) -> None:
    assert dump_time(seconds) == text
