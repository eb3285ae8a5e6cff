"""A plain TCP (or Unix) socket as an `End`.

In and out: bytes as they are.  The orderly end of the peer is its FIN; a reset is a NetError.
"""

from __future__ import annotations

import socket

from tng.dataplane.ends import BLOCKED
from tng.dataplane.poller import READ
from tng.dataplane.socket_end import SocketEnd
from tng.errors import NetError


class PlainEnd(SocketEnd):
    """A connected socket without any protocol of its own.  Arguments as `SocketEnd`."""

    __slots__ = ()

    _ENDS_WITH_ITS_SOCKET = True

    def read_into(self, buffer: memoryview) -> int:
        """Read what is there; see `End.read_into`."""
        if self._unread:
            return self._take_unread(buffer)
        if self.is_closed:
            raise self._closed_error()
        try:
            count = self._sock.recv_into(buffer)
        except BlockingIOError:
            return BLOCKED
        except OSError as error:
            raise self._broken("reading from", error) from error
        if count == 0:
            self._saw_end = True
        self.bytes_in += count
        return count

    def write(self, data: memoryview) -> int:
        """Take octets; see `End.write`."""
        if self.is_closed:
            raise self._closed_error()
        try:
            count = self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._broken("writing to", error) from error
        self.bytes_out += count
        return count

    def shut(self) -> None:
        """Send FIN after what was written; reading goes on."""
        if self.is_closed or self._is_shut:
            return
        self._is_shut = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the peer reset the connection: reading will tell

    def _on_event(self, events: int) -> None:
        take, on_broken = self.on_octets, self.on_broken
        if (
            events != READ  # a hang-up or a failure, which the reader has to see
            or self._wanted != READ
            or take is None
            or on_broken is None
            or self._unread
        ):
            super()._on_event(events)
            return
        # As a reader would do it: two calls fewer for every chunk.
        scratch = self.reactor.scratch
        try:
            count = self._sock.recv_into(scratch)
        except BlockingIOError:
            return
        except OSError as error:
            on_broken(str(self._broken("reading from", error)))  # the socket tells it only once
            return
        self.bytes_in += count
        if count > 0 and (taken := take(scratch[:count])) < count:
            self.unread(bytes(scratch[taken:count]))
        if (count == 0 or count == len(scratch)) and self.on_readable is not None:
            self.on_readable()

    def _shut_socket(self) -> None:
        """It was shut before it was closed."""

    def _broken(self, doing: str, error: OSError) -> NetError:
        return NetError(f"{doing} {self.label} failed: {error.strerror}")
