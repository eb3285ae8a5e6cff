"""One set of HPKE keys for all workers: the supervisor's side of `workers.remote_keys`.

In: the source of an egress's keys, of whatever kind.  Out: what workers are told of them.  Sources
run here alone: files are read once, and peers that share keys see one node.

A telling is a JSON object: {"serial": 7, "keys": [...]}.  A worker may get two in the wrong order,
and keeps the one with the higher serial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from tng.errors import TngError
from tng.gateway.workers.ohttp_messages import dump_keyring

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.clock import Clock
    from tng.gateway.entries import Services
    from tng.gateway.workers.link import Object
    from tng.tunnel.ohttp.key_source import KeySource
    from tng.tunnel.ohttp.keyring import Keyring

_STOP_TIMEOUT_S: Final = 5.0
"""Seconds for exchanges with peers to be cancelled at the end."""


class SharedKeys:
    """The keys of one egress.

    Args:
        source: keeps them current.
        clock: the time of day.
    """

    def __init__(self, source: KeySource, clock: Clock) -> None:
        self.source = source
        self._clock = clock
        self._told: Keyring | None = None
        self._serial = 0

    @property
    def serial(self) -> int:
        """A number that grows whenever the keys change."""
        keyring = self.source.keyring
        if keyring is not self._told:
            self._told = keyring
            self._serial += 1
        return self._serial

    def telling(self) -> Object:
        """The keys of now, private halves included: for the stream to a worker alone."""
        return {"serial": self.serial, "keys": dump_keyring(self.source.keyring)}

    async def find(self, public_key: bytes) -> Object:
        """A telling that has the key, or an empty object if nobody has it."""
        is_here = self.source.keyring.find(public_key, self._clock.now()) is not None
        if is_here or await self.source.find_elsewhere(public_key):
            return self.telling()
        return {}


async def run_sources(
    keys: Mapping[str, SharedKeys],
    services: Services | None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep all keys current until cancelled; has started when the first of each are there.

    Args:
        keys: by path.
        services: of the gateway that never serves; its reactor carries keys between peers.  None
            where no source needs it.
        task_status: told of the start.

    Raises:
        ConfigError: what the configuration names cannot be used.
        StartError: there is no key to begin with.
        TngError: the reactor ended by a bug of ours.
    """
    crashed = trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            if services is not None:
                token = trio.lowlevel.current_trio_token()
                services.reactor.on_crash = lambda: token.run_sync_soon(crashed.set)
                await nursery.start(services.bridge.run)
                services.reactor.start()
            for shared in keys.values():
                await nursery.start(shared.source.run)
            task_status.started()
            await crashed.wait()
            raise TngError("the way to peers that share keys has failed; the log says why")
    finally:
        if services is not None:
            services.reactor.stop(_STOP_TIMEOUT_S)
