"""Judgements that still hold, by certificate.

In: the fingerprint of a leaf certificate.  Out: the `AttestedPeer` of an earlier pass, as long as
it may be used again.  Only passes are kept; a refusal is judged anew each time.

Written by one thread, read by any: entries are immutable, and a read is one dictionary look-up.

Invariant: an entry is given out only between its judgement and its end, by the wall clock, so
that a clock that was set back gives no second life.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tng.clock import Clock
    from tng.verdict import AttestedPeer

MAX_AGE_S: Final = 60.0
"""Seconds for which a judgement is used again; the reference's value."""

MAX_ENTRIES: Final = 1024
"""Certificates remembered; the reference's value.  The oldest makes room."""

_CLOCK_STEP_S: Final = 5.0
"""Seconds by which a clock is set back in ordinary operation."""


@dataclass(frozen=True, slots=True)
class _Entry:
    peer: AttestedPeer
    begins: float
    ends: float


def fingerprint(certificate_der: bytes) -> bytes:
    """SHA-256 of the certificate, 32 octets."""
    return hashlib.sha256(certificate_der).digest()


class VerdictCache:
    """A bounded memory of passes.

    Args:
        clock: tells when an entry ends.
        max_entries: certificates remembered, 1 or more.
    """

    def __init__(self, clock: Clock, max_entries: int = MAX_ENTRIES) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._entries: dict[bytes, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> AttestedPeer | None:
        """The pass under that fingerprint, if it may be used now.  Safe in every thread."""
        entry = self._entries.get(key)
        if entry is None or not entry.begins <= self._clock.now() < entry.ends:
            return None
        return entry.peer

    def put(self, key: bytes, peer: AttestedPeer) -> None:
        """Remember a pass until the verdict ends, at most for `MAX_AGE_S`."""
        now = self._clock.now()
        ends = min(peer.verdict.valid_until, now + MAX_AGE_S)
        self._entries.pop(key, None)
        while len(self._entries) >= self._max_entries:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = _Entry(peer, now - _CLOCK_STEP_S, ends)
