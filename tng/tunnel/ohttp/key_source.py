"""Where an egress's HPKE keys come from: the seam `KeySource`, and the choice among its kinds.

The object `ohttp.key` of the configuration in, a `KeySource` out.  A source keeps its keys
current as a trio task; the reactor thread reads `keyring`, which is always a finished snapshot.
Source: TNG 2.12, `ohttp.key`.
"""

from __future__ import annotations

from typing import Final, Protocol, assert_never

import trio

from tng.clock import Clock
from tng.config.ohttp import OhttpKey
from tng.errors import ConfigError
from tng.tunnel.ohttp.keyring import Keyring
from tng.tunnel.ohttp.keys_self_generated import SelfGeneratedKeys
from tng.tunnel.ohttp.peer_transport import PeerTransport

DEFAULT_ROTATION_INTERVAL_S: Final = 300
"""Age at which a key is replaced when the configuration says nothing, as TNG has it."""


class KeySource(Protocol):
    """Keeps the keys of one egress current."""

    @property
    def keyring(self) -> Keyring:
        """The keys of now; any thread may read it."""
        ...

    @property
    def not_ready(self) -> str | None:
        """Why no key can be offered to clients, or None when one can."""
        ...

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the keys current until cancelled; has started when the first keys are there.

        Raises:
            ConfigError: what the configuration names cannot be used.
            StartError: there is no key to begin with.
        """
        ...

    def status(self, now: float) -> dict[str, object]:
        """What the control interface shows: public keys and times.

        Args:
            now: Unix time, seconds.
        """
        ...

    async def find_elsewhere(self, public_key: bytes) -> bool:
        """Ask others for a key that a request names and `keyring` has not (trio side).

        Returns:
            Whether `keyring` has it now.
        """
        ...


def make_key_source(
    settings: OhttpKey | None,
    clock: Clock,
    *,
    where: str,
    transport: PeerTransport | None = None,
) -> KeySource:
    """The source that the configuration asks for.

    Args:
        settings: the object `ohttp.key`; None for keys made here.
        clock: the time of day, against which keys live.
        where: path of the object in the configuration, for messages.
        transport: carries keys between peers; needed for `peer_shared` alone.

    Raises:
        ConfigError: the list of peers cannot be read.
    """
    if settings is None:
        return SelfGeneratedKeys(DEFAULT_ROTATION_INTERVAL_S, clock)
    path, interval = settings.path or "", settings.rotation_interval or 0
    match settings.source:
        case "self_generated":
            return SelfGeneratedKeys(interval, clock)
        case "file":
            from tng.tunnel.ohttp.keys_file import FileKey  # starting costs what is used

            return FileKey(path, clock, f"{where}.path")
        case "directory":
            from tng.tunnel.ohttp.keys_directory import DirectoryKeys

            return DirectoryKeys(path, clock, f"{where}.path")
        case "peer_shared":
            if transport is None:
                raise ConfigError([f"{where}: keys cannot be shared here: no way to peers"])
            from tng.tunnel.ohttp.keys_peer_shared import PeerSharedKeys

            return PeerSharedKeys(settings, clock, transport, where)
        case _:
            assert_never(settings.source)
