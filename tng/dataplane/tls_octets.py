"""Octets through an established TLS connection, as few Python calls per record as possible.

In: a pyOpenSSL connection on a non-blocking descriptor.  Out: plaintext read and written, or which
direction of the descriptor to wait for.  What ends the stream is kept and reported once all octets
before it were read.

Theory of operation.  The binding takes addresses of buffers, and such an address is an export of
the memoryview it was made from.  Python 3.11 can collect a memoryview only without exports
(gh-77894), and the traceback of an error keeps the locals of a frame until the collector comes.
So no address is held where an error can be raised.

Invariant: the native object is used by one `TlsOctets` alone, and its owner drops that together
with the connection.
"""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

from tng.dataplane.tls_calls import ENDED, FASTEST, WANT_READ, WANT_WRITE, Calls
from tng.errors import NetError, TngError

RECORD_SIZE: Final = 16384
"""Octets of plaintext in the largest TLS record (RFC 8446 section 5.1)."""


class TlsOctets:
    """Reads and writes plaintext of one connection.

    Args:
        connection: handshake finished, or under way.
        label: what errors call the peer.
        calls: how to reach OpenSSL.

    Attributes:
        more: whether the next read may give something without the descriptor being readable.
        write_wants_read: whether the last blocked write waits for the descriptor to be readable.
    """

    __slots__ = (
        "_calls",
        "_connection",
        "_ending",
        "_handle",
        "_label",
        "_pending",
        "_pointer",
        "_read",
        "_write",
        "more",
        "write_wants_read",
    )

    def __init__(self, connection: SSL.Connection, label: str, calls: Calls = FASTEST) -> None:
        self._connection = connection
        self._label = label
        self._calls = calls
        self._handle = calls.handle_of(connection)
        self._pointer = calls.pointer
        self._read = calls.read
        self._write = calls.write
        self._pending = calls.pending
        self._ending: _Ending | None = None
        self.more = False
        self.write_wants_read = False

    def read(self, buffer: memoryview) -> int:
        """Fill `buffer` over as many records as are there.

        Returns:
            Octets read, 1 or more; ENDED, WANT_READ or WANT_WRITE.

        Raises:
            RemoteProtocolError: a forged record, an alert, or an end without close_notify
                (RFC 8446 section 6.1; a truncation attack looks like this).
            NetError: the connection broke.
        """
        if self._ending is not None:
            return self._end(self._ending)
        read, handle, start = self._read, self._handle, self._pointer(buffer)
        room = len(buffer)
        done = 0
        while True:
            count = read(handle, start + done, room - done)
            if count <= 0:
                del start  # see the theory of operation
                return self._stop(count, done)
            done += count
            if done == room:
                self.more = True
                return done
            # A short record ends a burst nearly always: asking again would cost a system call.
            if count < RECORD_SIZE and not self._pending(handle):
                self.more = False
                return done

    def write(self, data: memoryview) -> int:
        """Encrypt and send, record by record.

        Returns:
            Octets sent.  When fewer than all, the following octets up to RECORD_SIZE are
            encrypted already and must be the beginning of the next write.

        Raises:
            NetError: the connection broke.
            RemoteProtocolError: OpenSSL refuses to go on after what the peer sent.
        """
        write, handle, start = self._write, self._handle, self._pointer(data)
        size = len(data)
        done = 0
        while done < size:
            rest = size - done
            count = write(handle, start + done, min(RECORD_SIZE, rest))
            if count <= 0:
                del start  # see the theory of operation
                outcome = self._calls.outcome(handle, count, self._label)
                if outcome == ENDED:
                    raise NetError(f"{self._label} ended TLS and takes no more octets")
                self.write_wants_read = outcome == WANT_READ
                break
            done += count
        return done

    def say_close(self) -> bool:
        """Send close_notify; False while it does not fit into the socket."""
        try:
            self._connection.shutdown()
        except SSL.WantWriteError:
            return False
        except SSL.Error:
            return True  # the connection is broken: there is nobody left to tell
        return True

    def _stop(self, result: int, done: int) -> int:
        """Deal with a read that gave nothing after `done` octets were read."""
        try:
            outcome = self._calls.outcome(self._handle, result, self._label)
        except TngError as error:
            # Kept without its traceback, which would lead back here and keep all of it alive.
            self._ending = (type(error), str(error))
        else:
            if outcome != ENDED:
                self.more = outcome == WANT_WRITE and done > 0
                return done or outcome
            self._ending = (None, "")
        if done:
            # The end was taken off the socket together with the octets before it.
            self.more = True
            return done
        return self._end(self._ending)

    def _end(self, ending: _Ending) -> int:
        self.more = True
        kind, text = ending
        if kind is not None:
            raise kind(text)
        return ENDED


_Ending = tuple[type[TngError] | None, str]
"""Class and text of the error that ended the stream; no class for close_notify."""
