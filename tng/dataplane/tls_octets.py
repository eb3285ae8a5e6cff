"""Octets over TLS: the lower half of a TLS end, as few Python calls per record as possible.

In: a pyOpenSSL connection on a non-blocking descriptor.  Out: plaintext read and written.

Theory of operation.  OpenSSL encrypts a record before it tries to send it; a write that did not fit
must be repeated with the same octets.  Therefore those octets, one record at most, count as taken
and are held here until the socket takes them, so that callers are free to go on with other data.
Reading takes whole records off the socket, so octets, or the end, may wait inside OpenSSL without
the descriptor being readable: `_has_more` says so, and `on_readable` is called again.
`close` goes on in the background until what is held and close_notify are out: `SocketEnd.close`.

The binding takes addresses of buffers, and such an address is an export of the memoryview it was
made from.  Python 3.11 can collect a memoryview only without exports (gh-77894), and the traceback
of an error keeps the locals of a frame until the collector comes.  So no address is held where an
error can be raised.

Invariants: nothing reaches the native object after `close` or `abort` has released it; what ends
the stream is reported once all octets before it were read, and then again and again; the orderly
end is reported only for close_notify.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from OpenSSL import SSL

from tng.dataplane.ends import BLOCKED
from tng.dataplane.poller import ERROR, HANG_UP, READ, WRITE
from tng.dataplane.reactor import SCRATCH_SIZE
from tng.dataplane.socket_end import SocketEnd
from tng.dataplane.tls_calls import ENDED, WANT_READ, WANT_WRITE, Calls
from tng.errors import NetError, TngError

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor

RECORD_SIZE: Final = 16384
"""Octets of plaintext in the largest TLS record (RFC 8446 section 5.1)."""

CORK_FROM: Final = 32 * 1024
"""Writes of more octets than this are sent as full packets (TCP_CORK); smaller ones never wait."""

_READABLE: Final = READ | ERROR

_TCP_CORK: Final[int | None] = getattr(socket, "TCP_CORK", None)


class TlsOctets(SocketEnd):
    """A socket end that speaks TLS, for the subclass that gives it a connection.

    Args:
        reactor: see `End`.
        sock: see `SocketEnd`.
        label: see `SocketEnd`.
        calls: how to reach OpenSSL.
    """

    __slots__ = (
        "_calls",
        "_connection",
        "_ending",
        "_handle",
        "_held",
        "_is_established",
        "_read_wants_write",
        "_shut_is_sent",
        "_write_failure",
        "_write_wants_read",
    )

    def __init__(self, reactor: Reactor, sock: socket.socket, label: str, calls: Calls) -> None:
        super().__init__(reactor, sock, label)
        self._calls = calls
        self._connection: SSL.Connection | None = None
        self._handle: object | None = None
        self._ending: _Ending | None = None
        self._held = b""
        self._is_established = False
        self._shut_is_sent = False
        self._read_wants_write = False
        self._write_wants_read = False
        self._write_failure = ""

    def read_into(self, buffer: memoryview) -> int:
        """Decrypt what is there; see `End.read_into`.

        Raises:
            RemoteProtocolError: a forged record, an alert, or an end without close_notify
                (RFC 8446 section 6.1; a truncation attack looks like this).
            NetError: the connection broke, or is closed on our side.
        """
        if self._unread:
            return self._take_unread(buffer)
        handle = self._handle
        if handle is None or self.is_closed:
            raise self._closed_error()
        if self._ending is not None:
            return self._end(self._ending)
        calls = self._calls
        room = len(buffer)
        count = calls.read(handle, calls.pointer(buffer), room)
        # A short record ends a burst nearly always: asking again would cost a system call.
        if 0 < count < RECORD_SIZE and count < room and not calls.pending(handle):
            self._has_more = False
        else:
            count = self._read_on(handle, buffer, count)
            if count <= 0:
                return count
        self.bytes_in += count
        return count

    def write(self, data: memoryview) -> int:
        """Encrypt and send; see `End.write`."""
        handle = self._handle
        if handle is None or self.is_closed:
            raise self._closed_error()
        if self._is_shut:
            raise NetError(f"our sending direction to {self.label} is ended already")
        if self._write_failure:
            raise NetError(self._write_failure)
        if self._held and not self._flush():
            return 0
        size = len(data)
        if size > CORK_FROM:
            self._cork(1)
            taken = self._send(handle, data)
            self._cork(0)
        elif 0 < size <= RECORD_SIZE:
            calls = self._calls
            taken = calls.write(handle, calls.pointer(data), size)  # all of it, or nothing
            if taken != size:
                taken = self._not_sent(handle, taken)
        else:
            taken = self._send(handle, data)
        if taken < size:
            self._held = bytes(data[taken : taken + RECORD_SIZE])
            taken += len(self._held)
            self._reconsider()
        self.bytes_out += taken
        return taken

    def shut(self) -> None:
        """Send close_notify after what was taken; reading goes on (RFC 8446 section 6.1)."""
        if self.is_closed or self._is_shut:
            return
        self._is_shut = True
        if self._held or not self._is_established or not self._say_close():
            self._flush_or_note()

    # --- records ---

    def _read_on(self, handle: object | None, buffer: memoryview, count: int) -> int:
        """Go on where the first read gave `count`; returns what `read_into` returns."""
        calls, room, done = self._calls, len(buffer), 0
        if count > 0:
            read, start = calls.read, calls.pointer(buffer)
            while count > 0:
                done += count
                if done == room:
                    self._has_more = True
                    return done
                if count < RECORD_SIZE and not calls.pending(handle):
                    self._has_more = False
                    return done
                count = read(handle, start + done, room - done)
            del start  # see the theory of operation
        try:
            outcome = calls.outcome(handle, count, self.label)
        except TngError as error:
            # Kept without its traceback, which would lead back here and keep all of it alive.
            self._ending = (type(error), str(error))
        else:
            if outcome != ENDED:
                self._has_more = outcome == WANT_WRITE and done > 0
                if not done and (outcome == WANT_WRITE) is not self._read_wants_write:
                    self._read_wants_write = outcome == WANT_WRITE
                    self._reconsider()
                return done or BLOCKED
            self._ending = (None, "")
        if done:
            # The end was taken off the socket together with the octets before it.
            self._has_more = True
            return done
        return self._end(self._ending)

    def _end(self, ending: _Ending) -> int:
        self._has_more = True
        kind, text = ending
        if kind is not None:
            raise kind(text)
        self._saw_end = True
        if self._read_wants_write:
            self._read_wants_write = False
            self._reconsider()
        return 0

    def _send(self, handle: object, data: memoryview) -> int:
        """Encrypt and send, record by record.

        Returns:
            Octets sent.  When fewer than all, the following octets up to RECORD_SIZE are
            encrypted already and must be the beginning of the next write.

        Raises:
            NetError: the connection broke.
            RemoteProtocolError: OpenSSL refuses to go on after what the peer sent.
        """
        calls = self._calls
        write, start = calls.write, calls.pointer(data)
        size, done = len(data), 0
        while done < size:
            count = write(handle, start + done, min(RECORD_SIZE, size - done))
            if count <= 0:
                del start  # see the theory of operation
                return done + self._not_sent(handle, count)
            done += count
        return done

    def _not_sent(self, handle: object, result: int) -> int:
        """Deal with a write that took nothing: 0, once it is known what it waits for."""
        outcome = self._calls.outcome(handle, result, self.label)
        if outcome == ENDED:
            raise NetError(f"{self.label} ended TLS and takes no more octets")
        self._write_wants_read = outcome == WANT_READ
        return 0

    def _say_close(self) -> bool:
        """Send close_notify; False while it does not fit into the socket."""
        if self._connection is not None:
            try:
                self._connection.shutdown()
            except SSL.WantWriteError:
                return False
            except SSL.Error:
                pass  # the connection is broken: there is nobody left to tell
        self._shut_is_sent = True
        return True

    # --- what OpenSSL wants from the socket ---

    def _has_output(self) -> bool:
        """Whether octets that count as taken, or close_notify, still have to be sent."""
        return bool(self._held) or (self._is_shut and not self._shut_is_sent)

    def _reconsider(self) -> None:
        """Note whether OpenSSL waits for anything itself, and ask the poller for it."""
        self._asks_otherwise = self._read_wants_write or self._has_output()
        self._update()

    def _mask(self) -> int:
        events = super()._mask()
        if self._read_wants_write and events & READ:
            events = (events & ~READ) | WRITE
        if self._has_output():
            if self.is_closed:
                events = 0  # what the peer sends has to wait for our last octets
            if self._handle is not None and self._write_wants_read:
                events = (events & ~WRITE) | READ
            else:
                events |= WRITE
        return events

    def _on_event(self, events: int) -> None:
        if self._asks_otherwise:
            events = self._settle(events)
        if self._wanted == READ and self.on_readable is not None:
            # What happens nearly always, without the detour over the base class.
            if events & _READABLE:
                take = self.on_octets
                if take is None or self._unread or self._ending is not None:
                    self.on_readable()
                else:
                    # As in `read_into`: two calls fewer for the record that comes alone.
                    calls, handle, scratch = self._calls, self._handle, self.reactor.scratch
                    count = calls.read(handle, calls.pointer(scratch), SCRATCH_SIZE)
                    if 0 < count < RECORD_SIZE and not calls.pending(handle):
                        self._has_more = False
                        self.bytes_in += count
                        if (taken := take(scratch[:count])) < count:
                            self.unread(bytes(scratch[taken:count]))
                    else:
                        self._pass_on(take, scratch, count)
        elif events:
            super()._on_event(events & ~HANG_UP)  # TCP's end says nothing about that of TLS
        if self._has_more and self._wanted & READ and not self._saw_end:
            self._fire_next_turn()

    def _pass_on(self, take: Callable[[memoryview], int], buffer: memoryview, count: int) -> None:
        """Go on where the first read of `_on_event` gave `count`: more records, an end, nothing."""
        handle = self._handle
        try:
            count = self._read_on(handle, buffer, count)
            if count == BLOCKED and not self.bytes_in:
                # A session ticket came alone, and servers send two: a turn of the loop fewer.
                first = self._calls.read(handle, self._calls.pointer(buffer), len(buffer))
                count = self._read_on(handle, buffer, first)
        except TngError:
            count = 0  # kept: whoever reads now is told
        if count > 0:
            self.bytes_in += count
            if (taken := take(buffer[:count])) < count:
                self.unread(bytes(buffer[taken:count]))
        if (count == 0 or count == len(buffer)) and self.on_readable is not None:
            self.on_readable()

    def _settle(self, events: int) -> int:
        """Do what OpenSSL waited for; the events that are left for others."""
        if self._has_output():
            self._flush_or_note()
            if self.is_closed:
                self._go_on_closing()
                return 0
            if self._has_output():
                events &= ~WRITE  # there is no room for anybody else yet
        if self._read_wants_write and events & WRITE:
            events |= READ
        return events

    def _flush(self) -> bool:
        """Send what is held, then close_notify if asked for; False while the socket is full."""
        handle = self._handle
        if handle is None:
            return True
        if self._held:
            self._held = self._held[self._send(handle, memoryview(self._held)) :]
            if self._held:
                return False
        if self._is_shut and not self._shut_is_sent:
            if self._is_established:
                return self._say_close()
            self._shut_is_sent = True
        return True

    def _flush_or_note(self) -> None:
        """Flush; a failure is kept for the next write, since nobody is there to catch it."""
        try:
            self._flush()
        except TngError as error:
            self._write_failure = str(error)
            self._held = b""
            self._shut_is_sent = True
        self._reconsider()

    def _cork(self, switch: int) -> None:
        if _TCP_CORK is not None:
            with contextlib.suppress(OSError):  # a broken connection; the write tells
                self._sock.setsockopt(socket.IPPROTO_TCP, _TCP_CORK, switch)

    def _release(self) -> None:
        self._handle = self._connection = None
        self._held = b""
        super()._release()


_Ending = tuple[type[TngError] | None, str]
"""Class and text of the error that ended the stream; no class for close_notify."""
