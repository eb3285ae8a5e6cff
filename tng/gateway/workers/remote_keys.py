"""A worker's HPKE keys: those that the supervisor tells it.

In: keyrings from the supervisor, before the worker listens and whenever they change.  Out: a
`KeySource`, the same for an egress as one that makes its own keys.

Invariant: a key that any worker has offered opens requests in this one: it was told, or is asked
for when a request names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tng.attest.user_data import PUBLIC_KEY_SIZE
from tng.errors import TngError
from tng.gateway.workers.messages import dump_octets, member
from tng.gateway.workers.ohttp_messages import parse_keyring
from tng.tunnel.ohttp.keyring import Keyring

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.strict_json import Json
    from tng.clock import Clock
    from tng.gateway.workers.link import Link


class RemoteKeys:
    """A `KeySource` whose keys are the supervisor's.

    Args:
        link: to the supervisor.
        path: of the keys, e.g. "add_egress[0].ohttp.key".
        clock: the time of day.
    """

    def __init__(self, link: Link, path: str, clock: Clock) -> None:
        self._link = link
        self._path = path
        self._clock = clock
        self._keyring = Keyring()
        self._serial = 0
        self._finding = trio.Lock()

    @property
    def keyring(self) -> Keyring:
        """See `KeySource.keyring`."""
        return self._keyring

    @property
    def not_ready(self) -> str | None:
        """See `KeySource.not_ready`."""
        if self._keyring.active(self._clock.now()) is None:
            return "no OHTTP key is active"
        return None

    def take(self, told: Mapping[str, Json]) -> None:
        """Use these keys from now on, and no others; those that were overtaken are passed over.

        Args:
            told: what `workers.shared_keys` said of the keys.

        Raises:
            RemoteProtocolError: they cannot be read; the earlier ones stay.
        """
        serial, keyring = member(told, "serial", int), parse_keyring(member(told, "keys", list))
        if serial > self._serial:
            self._serial, self._keyring = serial, keyring

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `KeySource.run`; the supervisor tells the first keys before it says start."""
        task_status.started()
        await trio.sleep_forever()

    def status(self, now: float) -> dict[str, object]:
        """The keys as they are here; the control interface asks the supervisor's source."""
        return {"local_keys": self._keyring.status_json(now)}

    async def find_elsewhere(self, public_key: bytes) -> bool:
        """See `KeySource.find_elsewhere`.

        One question at a time: anybody may name keys that nobody has, and the link is for judging
        too.
        """
        if len(public_key) != PUBLIC_KEY_SIZE:
            return False
        async with self._finding:
            if not self._has(public_key):
                try:
                    key = dump_octets(public_key)
                    answer = await self._link.ask("find_key", entry=self._path, key=key)
                except TngError:
                    return False  # the supervisor has ended: so do we
                if answer:
                    self.take(answer)
        return self._has(public_key)

    def _has(self, public_key: bytes) -> bool:
        return self._keyring.find(public_key, self._clock.now()) is not None
