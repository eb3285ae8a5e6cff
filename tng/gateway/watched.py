"""What the control interface tells about: one gateway, or a supervisor of several.

Implementations: `gateway.app.Gateway` and `gateway.workers.supervisor.Supervisor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tng.gateway.entries import Entry


class Watched(Protocol):
    """Something that serves the entries of one configuration."""

    @property
    def entries(self) -> Sequence[Entry]:
        """Every entry, with its meter; see `refresh`."""
        ...

    @property
    def dangers(self) -> list[str]:
        """What the configuration leaves unchecked, in words."""
        ...

    def not_ready(self) -> list[str]:
        """Why traffic cannot be served, one reason per entry; empty when it can."""
        ...

    def pool_status(self, entry: Entry) -> dict[str, object] | None:
        """The tunnels that the connections of an ingress share; None where there is no pool."""
        ...

    def keys_status(self, entry: Entry) -> dict[str, object] | None:
        """The HPKE keys of an entry whose transport is OHTTP; None for the others."""
        ...

    async def refresh(self) -> None:
        """Bring what the others tell up to date; takes half a second at most."""
        ...
