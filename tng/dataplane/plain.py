"""A plain TCP (or Unix) socket as an `End`.

In and out: bytes as they are.  The orderly end of the peer is its FIN; a reset is a NetError.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tng.dataplane.ends import BLOCKED
from tng.dataplane.socket_end import SocketEnd
from tng.errors import NetError

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor


class PlainEnd(SocketEnd):
    """A connected socket without any protocol of its own.  Arguments as `SocketEnd`."""

    __slots__ = ("_receive_octets", "_send_octets")

    def __init__(self, reactor: Reactor, sock: socket.socket, label: str = "") -> None:
        super().__init__(reactor, sock, label)
        self._receive_octets = sock.recv_into
        self._send_octets = sock.send

    def read_into(self, buffer: memoryview) -> int:
        """Read what is there; see `End.read_into`."""
        if self._unread:
            return self._take_unread(buffer)
        if self.is_closed:
            raise self._closed_error()
        try:
            count = self._receive_octets(buffer)
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
            count = self._send_octets(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._broken("writing to", error) from error
        self.bytes_out += count
        return count

    def shut(self) -> None:
        """Send FIN after what was written; reading goes on."""
        if self.is_closed:
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the peer reset the connection: reading will tell

    def _broken(self, doing: str, error: OSError) -> NetError:
        return NetError(f"{doing} {self.label} failed: {error.strerror}")
