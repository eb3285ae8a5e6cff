"""One side of a byte stream, whatever carries it: a socket, TLS on a socket, a multiplexed stream.

The lower half of an `End` never waits: `read_into` and `write` do what is possible at once, and
`watch` asks to be told when more is.  The upper half, `receive` and `send`, is for coroutines and
is the same for all.  `relay` uses the lower half alone.

Invariants: bytes arrive in order and exactly once, `unread` ones first; an orderly end (0, or b"")
is reported only if the peer said so; nobody is told of readiness that was not asked for.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tng.dataplane.task import Wait
from tng.errors import LocalProtocolError

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor

BLOCKED: Final = -1
"""What `read_into` returns when nothing is there yet."""

RECEIVE_SIZE: Final = 64 * 1024
"""Octets that one `receive` returns at most unless told otherwise."""


class End(abc.ABC):
    """One side of a byte stream, owned by one task at a time in the reactor's thread.

    Args:
        reactor: whose thread all methods are called in.
        label: what logs and errors call it.

    Attributes:
        bytes_in: octets read from the peer so far.
        bytes_out: octets taken for the peer so far.
        on_readable: called without arguments while `watch` asks for it and there is something
            to read: octets, the end, or an error.
        on_writable: the same for room to write.
        on_broken: called once with what happened when the stream is found broken while `watch`
            asks for nothing that would tell, so that nobody waits for a peer that is gone; or by an
            end that reads for `on_octets`.
        on_octets: given octets in the buffer that they have just arrived in, instead of a call of
            `on_readable`, by ends that can do so; returns how many it took.  The others have to
            be read, and so has whatever is not octets: that is left to `on_readable`.
        is_ending: whether nothing but the end can follow the octets that are there already.
        is_relayed: whether a relay owns the end, and will close it.
        is_closed: whether `close` or `abort` was called.  Whoever waits at that moment is woken,
            and finds a NetError.
    """

    __slots__ = (
        "_reader",
        "_unread",
        "_writer",
        "bytes_in",
        "bytes_out",
        "is_closed",
        "is_ending",
        "is_relayed",
        "label",
        "on_broken",
        "on_octets",
        "on_readable",
        "on_writable",
        "reactor",
    )

    def __init__(self, reactor: Reactor, label: str) -> None:
        self.reactor = reactor
        self.label = label
        self.bytes_in = 0
        self.bytes_out = 0
        self.is_closed = False
        self.is_ending = False
        self.is_relayed = False
        self.on_octets: Callable[[memoryview], int] | None = None
        self.on_readable: Callable[[], object] | None = None
        self.on_writable: Callable[[], object] | None = None
        self.on_broken: Callable[[str], object] | None = None
        self._unread = b""
        self._reader: Wait[None] | None = None
        self._writer: Wait[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label}>"

    # --- the lower half: never waits ---

    @property
    def has_octets(self) -> bool:
        """Whether reading should be tried at once; where it is not, `watch` tells all the same."""
        return True

    @abc.abstractmethod
    def read_into(self, buffer: memoryview) -> int:
        """Read what is there.

        Returns:
            Octets read, 1 or more; 0 at the orderly end of the stream; BLOCKED.

        Raises:
            NetError: the connection broke, or is closed on our side.
            RemoteProtocolError: the peer ended the stream without saying so, or forged it.
        """

    @abc.abstractmethod
    def write(self, data: memoryview) -> int:
        """Take octets for the peer; those taken will be sent before any taken later.

        Returns:
            How many were taken, 0 to len(data); fewer than all means: wait for `on_writable`.

        Raises:
            NetError: the connection broke, or this direction is closed.
        """

    @abc.abstractmethod
    def shut(self) -> None:
        """End our sending direction after everything taken so far; reading goes on.  Idempotent."""

    def write_last(self, data: memoryview) -> int:
        """As `write`, then `shut` if all octets were taken."""
        taken = self.write(data)
        if taken == len(data):
            self.shut()
        return taken

    @abc.abstractmethod
    def close(self) -> None:
        """End both directions in order, after everything taken so far.  Idempotent."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Break the stream so that the peer cannot mistake it for an end.  Idempotent."""

    @abc.abstractmethod
    def watch(self, readable: bool, writable: bool) -> None:
        """Choose which callbacks may be called.  Level-triggered: unread data calls again."""

    def notify_readable(self, callback: Callable[[], object] | None) -> None:
        """Have `callback` called while there is something to read; None to stop that.

        For whoever does not read but wants to know; never beside `receive`.
        """
        self.on_readable = callback
        # Without a callback the watch may stand: an event that nobody wants ends it.
        if callback is not None and not self.is_closed:
            self.watch(True, self._writer is not None)

    def unread(self, data: bytes) -> None:
        """Hand octets back; the next reads return them first."""
        self._unread = data + self._unread

    def _take_unread(self, buffer: memoryview) -> int:
        """Move handed-back octets to `buffer`; the count.  They were counted when first read."""
        count = min(len(self._unread), len(buffer))
        buffer[:count] = self._unread[:count]
        self._unread = self._unread[count:]
        return count

    def _wake_all(self) -> None:
        """Call both callbacks a last time, for a subclass that has just closed."""
        for callback in (self.on_readable, self.on_writable):
            if callback is not None:
                self.reactor.soon(callback)
        self.on_readable = self.on_writable = None

    # --- the upper half: for coroutines ---

    async def receive(self, max_bytes: int = RECEIVE_SIZE) -> bytes:
        """Octets from the peer, 1 to `max_bytes`; b"" at the orderly end.

        Raises:
            NetError: see `read_into`.
            RemoteProtocolError: see `read_into`.
        """
        buffer = self.reactor.scratch[:max_bytes]
        while (count := self.read_into(buffer)) == BLOCKED:
            await self.wait_readable()
        return bytes(buffer[:count])

    def receive_nowait(self, max_bytes: int = RECEIVE_SIZE) -> bytes | None:
        """What `receive` would return at once; None where it would wait.  Errors as `receive`."""
        buffer = self.reactor.scratch[:max_bytes]
        count = self.read_into(buffer)
        return None if count == BLOCKED else bytes(buffer[:count])

    async def send(self, data: bytes | memoryview) -> None:
        """Return when all octets were taken.

        Raises:
            NetError: see `write`.
        """
        rest = memoryview(data)
        while rest:
            count = self.write(rest)
            rest = rest[count:]
            if rest:
                await self.wait_writable()

    async def wait_readable(self) -> None:
        """Return when reading would not block, as far as can be known without trying."""
        if self._reader is not None:
            raise LocalProtocolError(f"{self!r} is being read by another task")
        wait: Wait[None] = Wait()
        self._reader = wait
        self.on_readable = self._wake_reader
        self.watch(True, self._writer is not None)
        try:
            await wait
        finally:
            self._reader = self.on_readable = None

    async def wait_writable(self) -> None:
        """Return when writing would not block, as far as can be known without trying."""
        if self._writer is not None:
            raise LocalProtocolError(f"{self!r} is being written by another task")
        wait: Wait[None] = Wait()
        self._writer = wait
        self.on_writable = self._wake_writer
        self.watch(self.on_readable is not None, True)
        try:
            await wait
        finally:
            self._writer = self.on_writable = None

    def _wake_reader(self) -> None:
        self.on_readable = None
        if self._reader is not None:
            self._reader.set(None)

    def _wake_writer(self) -> None:
        self.on_writable = None
        if self._writer is not None:
            self._writer.set(None)
