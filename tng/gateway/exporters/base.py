"""What every exporter of numbers is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tng.observe.snapshot import Snapshot


class Exporter(Protocol):
    """Where numbers go."""

    @property
    def where(self) -> str:
        """Whom they are sent to, for the log; neither a path nor a query, which may be secret."""
        ...

    @property
    def attempts(self) -> int:
        """How often one snapshot is tried, 1 or more."""
        ...

    async def send(self, snapshot: Snapshot) -> None:
        """Send everything; takes `over_http.ATTEMPT_S` seconds at most.

        Raises:
            NetError: it did not arrive, or was not taken.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what is open; `send` opens it again."""
        ...
