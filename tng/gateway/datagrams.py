"""What the UDP modes share: what the gateway sees of them, and how long a session lasts.

In: sessions of `tunnel.quic`.  Out: the reason why each has ended.  The library for QUIC is an
extra, so that everything that needs it is imported through `datagram_modes` alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from tng.endpoint import Endpoint
from tng.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tng.tunnel.quic.session import Session
    from tng.tunnel.quic.sockets import Address, PacketSocket

log = logging.getLogger(__name__)

KEEP_ALIVE_S: Final = 10.0
"""Seconds of silence after which a peer is told that a session still lives: a third of the idle
timeout that the reference announces (v2.12.0)."""

PATIENCE_S: Final = 10.0
"""Seconds that an egress waits longer than its idle timeout: the side that has the clients closes,
and it can open another session for a datagram that meets the end of one."""

QUIET_S: Final = 0.5
"""Seconds without a datagram after which a session may be closed when the gateway stops: there is
nothing in a flow of datagrams that says that it is complete."""

_DRAIN_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Door:
    """Where the datagrams of a UDP mode come in, and where they are to go.

    Attributes:
        mode: e.g. "mapping_udp".
        make_socket: binds the port; raises StartError where that cannot be.
        target_of: the target for a client.
        mark: firewall mark of our own sockets beside that port; None for none.
    """

    mode: str
    make_socket: Callable[[], PacketSocket]
    target_of: Callable[[Address], Endpoint]
    mark: int | None = None


class DatagramEntry(Protocol):
    """An entry in a UDP mode, in the trio thread."""

    def bind(self) -> PacketSocket:
        """Bind the port; the socket stays the entry's.

        Raises:
            StartError: the address is in use, forbidden, or not of this machine.
        """
        ...

    def unbind(self) -> None:
        """Close the port again, if `run` will not be called."""
        ...

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; peers are told then."""
        ...

    async def drain(self) -> None:
        """Take no further client, and close sessions as they fall silent; return without any."""
        ...


class HasDoor:
    """The part of a `DatagramEntry` that both sides share: a door, and its port.

    Args:
        door: the door.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._sock: PacketSocket | None = None
        self._listen = Endpoint("", 0)

    def bind(self) -> PacketSocket:
        """See `DatagramEntry.bind`."""
        self._sock = self._door.make_socket()
        self._listen = Endpoint(*self._sock.getsockname()[:2])
        return self._sock

    def unbind(self) -> None:
        """See `DatagramEntry.unbind`.  Idempotent."""
        if self._sock is not None:
            self._sock.close()


def need_quic(path: str) -> None:
    """Make sure that QUIC is installed.

    Args:
        path: the entry that needs it, in the words of the configuration.

    Raises:
        ConfigError: it is not; the message says how to install it.
    """
    try:
        import aioquic  # noqa: F401 - only whether it is there
    except ModuleNotFoundError as exc:
        raise ConfigError(
            [f"{path}: UDP modes need QUIC, run: pip install 'tng-gateway[quic]'"]
        ) from exc


async def watch(session: Session, idle_s: float, lifetime_s: float | None) -> str:
    """Wait for the end of a session, and keep it from timing out before it is idle.

    Args:
        session: open.
        idle_s: seconds without a datagram that end it.
        lifetime_s: seconds that it may last in all, None for no bound.

    Returns:
        Why it ends, in words.
    """
    with trio.move_on_after(math.inf if lifetime_s is None else lifetime_s):
        while True:
            silent = trio.current_time() - session.last_datagram_at
            if silent >= idle_s:
                return "idle"
            if silent >= KEEP_ALIVE_S:
                session.keep_alive()
            with trio.move_on_after(min(idle_s - silent, KEEP_ALIVE_S)):
                await session.ended.wait()
                return session.reason
    return "the verdict on the peer has ended"


async def close_as_they_fall_silent(sessions: Callable[[], Iterable[Session]]) -> None:
    """Close sessions once they have been silent for `QUIET_S`; return when there are none."""
    while living := [session for session in sessions() if not session.ended.is_set()]:
        for session in living:
            if trio.current_time() - session.last_datagram_at >= QUIET_S:
                session.close("shutting down")
        await trio.sleep(_DRAIN_POLL_S)


def log_end(session: Session, client: object, reason: str) -> None:
    """One line about a session that has ended."""
    log.info(
        "session ended client=%s peer=%s sent=%d received=%d dropped=%d: %s",
        client,
        session.label,
        session.sent,
        session.received,
        session.dropped,
        reason,
    )
