"""Which encapsulated requests an egress has seen, so that none is served twice.

`Replays` is the seam, `ReplayGuard` the memory of one process; that of several is
`gateway.workers.replays`.  In: the egress's key and a request's ephemeral key.  Out: whether they
came together before.  Both are part of what is encrypted, so that a copy of a request has the
same; a client that repeats a request on purpose encrypts it anew.

The memory of `ReplayGuard` is bounded: per key of the egress, `MAX_PER_KEY` requests, two
generations of half as many each.  A key that sees more than that within its life forgets the
oldest; a copy of those is then refused no longer (docs: limits of replay protection).  Keys that
have ended are forgotten with their requests, which cannot be opened any more.
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

MAX_PER_KEY: Final = 1 << 20
"""Requests remembered per key: about 100 MiB, reached by 3500 requests/s in the 300 s in which a
key is offered."""

_MARK: Final = 16
"""Octets of a hash that stand for a request: two of a million meet once in 10**26."""


class Replays(Protocol):
    """Remembers requests; asked in the reactor, which it must not hold up."""

    def is_new(self, public_key: bytes, enc: bytes, expires: float, now: float) -> bool:
        """Remember a request; False if it was remembered before.

        Args:
            public_key: the egress's.
            enc: the request's.
            expires: Unix time in seconds at which the egress's key ends.
            now: Unix time in seconds.
        """
        ...


class _Seen:
    """Requests to one key."""

    __slots__ = ("expires", "new", "old")

    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.new: set[bytes] = set()
        self.old: set[bytes] = set()


class ReplayGuard:
    """Remembers requests.

    Args:
        max_per_key: requests remembered per key, 2 or more.
    """

    def __init__(self, max_per_key: int = MAX_PER_KEY) -> None:
        self._generation = max_per_key // 2
        self._keys: dict[bytes, _Seen] = {}

    def is_new(self, public_key: bytes, enc: bytes, expires: float, now: float) -> bool:
        """See `Replays.is_new`."""
        seen = self._keys.get(public_key)
        if seen is None:
            self._forget_ended(now)
            seen = self._keys[public_key] = _Seen(expires)
        mark = hashlib.blake2b(enc, digest_size=_MARK).digest()
        if mark in seen.new or mark in seen.old:
            return False
        seen.new.add(mark)
        if len(seen.new) >= self._generation:
            seen.old, seen.new = seen.new, set()
        return True

    def _forget_ended(self, now: float) -> None:
        for key, seen in list(self._keys.items()):
            if seen.expires <= now:
                del self._keys[key]
