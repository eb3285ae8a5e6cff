"""HPKE keys of an egress and what each is good for at a moment: `Key` and `Keyring`.

    Pending    usable, not yet offered      until actived_at
    Active     offered and usable           until stale_at
    Stale      usable, not offered          until expire_at
    Expired    neither

Source: TNG 2.12, where the four words and the rule for the offered key are those of the control
interface and of `peer_shared`.

Invariant: both are immutable.  A source of keys publishes a new `Keyring` in one assignment, so
that any thread may read the one before, and no private key shows in a repr.
"""

from __future__ import annotations

import datetime as dt
import enum
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.errors import LocalProtocolError

MAX_KEYS: Final = 255
"""Keys of one ring: as many as there are key ids to give out (0 to 254)."""

_NANOSECONDS: Final = 1_000_000_000
_LAST_SECOND: Final = 253402300799  # 9999-12-31T23:59:59Z


class KeyStatus(enum.StrEnum):
    """What a key is good for; the words are those of the control interface."""

    PENDING = "Pending"
    ACTIVE = "Active"
    STALE = "Stale"
    EXPIRED = "Expired"


@dataclass(frozen=True, slots=True)
class Key:
    """One HPKE key pair and the times of its life.

    Attributes:
        key_id: octet by which a request names the key beside the hint, 0 to 255.
        private: X25519 private key; in no repr.
        public_key: the other half, 32 octets.
        actived_at: Unix time from which the key is offered, seconds.
        stale_at: Unix time from which it is offered no more, seconds.
        expire_at: Unix time from which requests with it are refused, seconds.
    """

    key_id: int
    private: X25519PrivateKey = field(repr=False, compare=False)
    public_key: bytes
    actived_at: float
    stale_at: float
    expire_at: float

    def status(self, now: float) -> KeyStatus:
        """What the key is good for at a Unix time."""
        if now >= self.expire_at:
            return KeyStatus.EXPIRED
        if now >= self.stale_at:
            return KeyStatus.STALE
        return KeyStatus.ACTIVE if now >= self.actived_at else KeyStatus.PENDING

    def status_json(self, now: float) -> dict[str, object]:
        """The key as the control interface shows it."""
        return {
            "key_id": self.key_id,
            "public_key": self.public_key.hex(),
            "status": self.status(now).value,
            "actived_at": dump_time(self.actived_at),
            "stale_at": dump_time(self.stale_at),
            "expire_at": dump_time(self.expire_at),
        }

    def __repr__(self) -> str:
        return f"Key(key_id={self.key_id}, public_key={short_name(self.public_key)})"


def make_key(key_id: int, private: X25519PrivateKey, begins: float, interval: float) -> Key:
    """A key that is offered for one interval and stays usable for another.

    Args:
        key_id: see Key.
        private: X25519 private key.
        begins: Unix time from which it is offered, seconds.
        interval: seconds.
    """
    public = private.public_key().public_bytes_raw()
    return Key(key_id, private, public, begins, begins + interval, begins + 2 * interval)


class Keyring:
    """Keys of an egress at one moment, by public key.

    Args:
        keys: at most `MAX_KEYS`; the last of several with one public key counts.

    Raises:
        LocalProtocolError: more keys than that.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = {key.public_key: key for key in keys}
        if len(self._keys) > MAX_KEYS:
            raise LocalProtocolError(f"a ring holds {MAX_KEYS} keys, got {len(self._keys)}")

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"Keyring({list(self)!r})"

    def active(self, now: float) -> Key | None:
        """The key to offer to clients: the active one that expires last, then the largest.

        Several egresses that share keys offer the same one by this rule.
        """
        offered = (key for key in self if key.status(now) is KeyStatus.ACTIVE)
        return max(offered, key=lambda key: (key.expire_at, key.public_key), default=None)

    def find(self, public_key: bytes, now: float) -> Key | None:
        """The key that a request names, if it may still (or already) be used."""
        key = self._keys.get(public_key)
        return None if key is None or key.status(now) is KeyStatus.EXPIRED else key

    def unexpired(self, now: float) -> list[Key]:
        """Every key that may be used, the one that expires last first."""
        usable = (key for key in self if key.status(now) is not KeyStatus.EXPIRED)
        return sorted(usable, key=lambda key: (-key.expire_at, key.public_key))

    def status_json(self, now: float) -> list[dict[str, object]]:
        """Every usable key as the control interface shows it, the one that expires last first."""
        return [key.status_json(now) for key in self.unexpired(now)]


def short_name(public_key: bytes) -> str:
    """How logs call a key: the first eight octets in hex."""
    return public_key[:8].hex()


def dump_time(unix_time: float) -> str:
    """RFC 3339 with nanoseconds and Z; what a calendar of four-digit years cannot hold is cut.

    Args:
        unix_time: seconds.
    """
    unix_time = max(0.0, min(unix_time, _LAST_SECOND))
    seconds = math.floor(unix_time)
    carry, nanoseconds = divmod(round((unix_time - seconds) * _NANOSECONDS), _NANOSECONDS)
    moment = dt.datetime.fromtimestamp(seconds + carry, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
