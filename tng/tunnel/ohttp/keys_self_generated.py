"""Keys made in this process and replaced at an interval: the source `self_generated`.

An interval and a clock in, keys with ids 0 to 254 out.  Source: TNG 2.12, `self_generated`.

Invariant: from `started` on there is always a key to offer.  A key is replaced shortly before it
gets stale, and both may be used meanwhile; a clock that is set, or a machine that slept, costs
at most the time between two looks.
"""

from __future__ import annotations

import logging
from typing import Final

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.clock import Clock
from tng.tunnel.ohttp.keyring import MAX_KEYS, Key, Keyring, make_key, short_name

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""Seconds between two looks at the time of day."""

_LOOKS_AHEAD: Final = 1.5  # a key is replaced before a further look would find it stale
_LOOKS: Final = 4  # in an interval, at least: one of a second needs more than a look per second


class SelfGeneratedKeys:
    """The source of keys that this process makes.

    Args:
        interval: seconds from a key's beginning until it is stale, and from then until it expires.
        clock: the time of day.
    """

    def __init__(self, interval: int, clock: Clock) -> None:
        self._interval = interval
        self._clock = clock
        self._look_s = min(LOOK_S, interval / _LOOKS)
        self._keyring = Keyring()

    @property
    def keyring(self) -> Keyring:
        """The keys of now; any thread may read it."""
        return self._keyring

    @property
    def not_ready(self) -> str | None:
        """Why no key can be offered to clients, or None when one can."""
        if self._keyring.active(self._clock.now()) is None:
            return "no OHTTP key is active"
        return None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Make a key, and another one whenever it is about to get stale, until cancelled."""
        self._keep_current()
        task_status.started()
        while True:
            await trio.sleep(self._look_s)
            self._keep_current()

    def status(self, now: float) -> dict[str, object]:
        """What the control interface shows: public keys and times."""
        return {
            "key_manager_type": "self_generated",
            "local_keys": self._keyring.status_json(now),
        }

    async def find_elsewhere(self, _public_key: bytes) -> bool:
        """Nobody else has our keys."""
        await trio.lowlevel.checkpoint()
        return False

    def _keep_current(self) -> None:
        now = self._clock.now()
        usable, active = self._keyring.unexpired(now), self._keyring.active(now)
        if active is None or active.stale_at <= now + _LOOKS_AHEAD * self._look_s:
            del usable[MAX_KEYS - 1 :]  # a clock that is set back again and again fills the ring
            usable.append(self._make(now, usable))
        elif len(usable) == len(self._keyring):
            return
        self._keyring = Keyring(usable)

    def _make(self, now: float, others: list[Key]) -> Key:
        taken = {key.key_id for key in others}
        key_id = next(number for number in range(MAX_KEYS) if number not in taken)
        key = make_key(key_id, X25519PrivateKey.generate(), now, self._interval)
        log.info("OHTTP key made key_id=%d public_key=%s", key_id, short_name(key.public_key))
        return key
