"""A number that one instance in a network namespace has, and no other.

In: a number.  Out: a lock on it, held by a name in the abstract namespace of Unix sockets.
Those names belong to a network namespace as rules do, also between containers that see nothing of
each other's processes, and the kernel frees them when their holder dies, however it dies.

Invariant: only the holder of a slot touches the rules that carry its number.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from tng.errors import StartError
from tng.gateway.netfilter.rules import SLOTS

_NAME: Final = "\0tng-gateway/netfilter/{}"


class Slot:
    """A slot that is held until `release`.

    Attributes:
        number: 0 to SLOTS - 1.
    """

    def __init__(self, number: int, lock: socket.socket) -> None:
        self.number = number
        self._lock = lock

    def release(self) -> None:
        """Let somebody else have it.  Idempotent."""
        self._lock.close()


def take_slot(number: int) -> Slot | None:
    """Hold one slot; None when its holder is alive.

    Raises:
        StartError: the system gives no sockets.
    """
    try:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as exc:
        raise StartError(f"cannot make a socket for netfilter slots: {exc.strerror}") from exc
    try:
        lock.bind(_NAME.format(number))
    except OSError as exc:
        lock.close()
        if exc.errno == errno.EADDRINUSE:
            return None
        raise StartError(f"cannot hold netfilter slot {number}: {exc.strerror}") from exc
    return Slot(number, lock)


def take_free_slot() -> Slot:
    """Hold the lowest slot that nobody has.

    Raises:
        StartError: all are taken.
    """
    for number in range(SLOTS):
        slot = take_slot(number)
        if slot is not None:
            return slot
    raise StartError(
        f"{SLOTS} gateways with netfilter modes run in this network namespace already"
        " (ss -xa | grep tng-gateway shows them); stop one of them"
    )
