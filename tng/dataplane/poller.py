"""What tells the reactor which sockets are ready: epoll on Linux, the `selectors` module elsewhere.

In: file descriptors with the events that somebody waits for; out: (descriptor, events) pairs.
Level-triggered everywhere: an event that was not dealt with is reported again.  `ERROR`
(hang-up or failure) may be reported whatever was asked for, also when nothing was.
"""

from __future__ import annotations

import select
import selectors
from collections.abc import Iterable
from typing import Final, Protocol

# The values of Linux's epoll, so that the common case translates nothing.
READ: Final = 0x01
"""There is something to read, or the end of the stream."""
WRITE: Final = 0x04
"""There is room to write."""
ERROR: Final = 0x18
"""The descriptor failed or was hung up (EPOLLERR | EPOLLHUP)."""
HANG_UP: Final = 0x2000
"""The peer has ended its direction (EPOLLRDHUP); told beside READ, by pollers that know."""


class Poller(Protocol):
    """A set of file descriptors, and the question which of them are ready."""

    def register(self, fd: int, events: int) -> None:
        """Start watching `fd` for `events`, any of READ | WRITE, or 0."""
        ...

    def modify(self, fd: int, events: int) -> None:
        """Change what `fd` is watched for."""
        ...

    def unregister(self, fd: int) -> None:
        """Stop watching `fd`; a descriptor that the kernel has dropped already is no error."""
        ...

    def forget(self, fd: int) -> None:
        """As `unregister`, for a descriptor that is closed before the next poll."""
        ...

    def poll(self, timeout_s: float) -> Iterable[tuple[int, int]]:
        """Wait at most `timeout_s` seconds; negative means without limit.  May return nothing."""
        ...

    def close(self) -> None:
        """Free the poller; the descriptors stay open."""
        ...


class EpollPoller:
    """Linux's epoll, as it is."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.poll = self._epoll.poll

    def register(self, fd: int, events: int) -> None:
        """Start watching `fd`."""
        self._epoll.register(fd, events | HANG_UP if events & READ else events)

    def modify(self, fd: int, events: int) -> None:
        """Change what `fd` is watched for."""
        self._epoll.modify(fd, events | HANG_UP if events & READ else events)

    def unregister(self, fd: int) -> None:
        """Stop watching `fd`."""
        try:
            self._epoll.unregister(fd)
        except OSError:
            return  # closed before: the kernel dropped it then

    def forget(self, fd: int) -> None:
        """Leave it to the kernel, which drops a descriptor when it is closed (epoll(7))."""

    def close(self) -> None:
        """Free the epoll descriptor."""
        self._epoll.close()


class SelectorsPoller:
    """The same over a selector of the standard library.

    Args:
        selector: the one to use; None for the best the platform has (kqueue on macOS).
    """

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selector or selectors.DefaultSelector()

    def register(self, fd: int, events: int) -> None:
        """Start watching `fd`; a selector cannot watch for nothing, so 0 is kept out of it."""
        mask = _to_selector(events)
        if mask:
            self._selector.register(fd, mask)

    def modify(self, fd: int, events: int) -> None:
        """Change what `fd` is watched for."""
        mask = _to_selector(events)
        known = fd in self._selector.get_map()
        if known and mask:
            self._selector.modify(fd, mask)
        elif known:
            self.unregister(fd)
        elif mask:
            self._selector.register(fd, mask)

    def unregister(self, fd: int) -> None:
        """Stop watching `fd`."""
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError, OSError):
            return

    def forget(self, fd: int) -> None:
        """Stop watching `fd`."""
        self.unregister(fd)

    def poll(self, timeout_s: float) -> Iterable[tuple[int, int]]:
        """Wait at most `timeout_s` seconds for events."""
        ready = self._selector.select(None if timeout_s < 0 else timeout_s)
        return [
            (
                key.fd,
                (READ if mask & selectors.EVENT_READ else 0)
                | (WRITE if mask & selectors.EVENT_WRITE else 0),
            )
            for key, mask in ready
        ]

    def close(self) -> None:
        """Free the selector."""
        self._selector.close()


def make_poller() -> Poller:
    """Make the fastest poller that this platform has."""
    return EpollPoller() if hasattr(select, "epoll") else SelectorsPoller()


def _to_selector(events: int) -> int:
    return (selectors.EVENT_READ if events & READ else 0) | (
        selectors.EVENT_WRITE if events & WRITE else 0
    )
