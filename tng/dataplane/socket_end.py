"""What plain and TLS ends share: a non-blocking socket, its registration, its addresses.

In: a connected socket, which the end owns from then on.  Out: the `End` interface, with reading and
writing left to the subclass.

Invariant: the descriptor is watched for exactly what somebody waits for.  A callback that is None
when its event comes switches that event off, so that nobody has to do so after every read; a
descriptor that reports a hang-up while nobody waits leaves the poller until somebody does.
A failure that comes meanwhile is told to `on_broken`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, ClassVar, Final

from tng.dataplane.accepted import AcceptedSocket
from tng.dataplane.ends import End
from tng.dataplane.poller import ERROR, HANG_UP, READ, WRITE
from tng.endpoint import Endpoint
from tng.errors import NetError

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor
    from tng.dataplane.timers import Timer

LINGER_S: Final = 5.0
"""How long a closed connection may take to accept our last octets and to end its own side."""

LINGER_OCTETS: Final = 16 * 1024 * 1024
"""What a peer may still send meanwhile: one that goes on without end is reset."""

_READABLE: Final = READ | ERROR
_WRITABLE: Final = WRITE | ERROR
_UNREGISTERED: Final = -1
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
_close: Final = socket.SocketType.close
# Without the count of files made of a socket, which no end makes.


class SocketEnd(End):
    """An end that is a socket.

    Args:
        reactor: see `End`.
        sock: connected stream socket; owned by the end from now on.
        label: what logs call it; by default the peer's address.
    """

    __slots__ = (
        "_asks_otherwise",
        "_discarded",
        "_events",
        "_fd",
        "_has_more",
        "_is_firing_next_turn",
        "_is_shut",
        "_linger",
        "_saw_end",
        "_sock",
        "_wanted",
    )

    _ENDS_WITH_ITS_SOCKET: ClassVar[bool] = False
    """Whether there is nothing to say before the descriptor is closed."""

    def __init__(self, reactor: Reactor, sock: socket.socket, label: str = "") -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._wanted = 0
        self._asks_otherwise = False
        """Whether `_mask` has to be asked, since it is not what is wanted.  Never of plain ends."""
        self._has_more = False
        """Whether octets that no event will announce wait above the socket."""
        self._is_firing_next_turn = False
        self._linger: Timer | None = None
        self._is_shut = False
        self._saw_end = False
        self._discarded = 0
        self._events = _UNREGISTERED
        super().__init__(reactor, label or f"socket {self._fd}")
        if not isinstance(sock, AcceptedSocket):
            if sock.gettimeout() != 0:
                sock.setblocking(False)
            set_no_delay(sock)

    @property
    def local(self) -> Endpoint:
        """Our address of the connection.

        Raises:
            NetError: the connection is closed.
        """
        try:
            return to_endpoint(self._sock.getsockname())
        except OSError as error:
            raise NetError(f"{self.label} has no local address: {error.strerror}") from error

    @property
    def remote(self) -> Endpoint:
        """The peer's address of the connection.

        Raises:
            NetError: the connection is closed, and the address was not known before.
        """
        sock = self._sock
        if isinstance(sock, AcceptedSocket):
            return sock.peer
        try:
            return to_endpoint(sock.getpeername())
        except OSError as error:
            raise NetError(f"{self.label} has no peer: {error.strerror}") from error

    def watch(self, readable: bool, writable: bool) -> None:
        """Choose which callbacks may be called; see `End.watch`."""
        if self.is_closed:
            return
        self._wanted = wanted = (READ if readable else 0) | (WRITE if writable else 0)
        if wanted != self._events or self._asks_otherwise:
            self._update()
        if readable and (self._unread or self._has_more):
            self._fire_next_turn()

    def close(self) -> None:
        """Send what is left, end our side, and close once the peer has ended its own.

        A socket closed with unread octets is reset by the system, and what was sent last is lost.
        So a peer that has not ended yet is listened to for at most `LINGER_S` more.
        """
        if self.is_closed:
            return
        if not (self._saw_end and self._ENDS_WITH_ITS_SOCKET):
            self.shut()
        self.is_closed = True
        if self._saw_end and not (self._asks_otherwise and self._has_output()):
            self._release()  # which ends our direction as well, with nothing of the peer's unread
            return
        self._wanted = 0
        self._wake_all()
        self._linger = self.reactor.call_later(LINGER_S, self._give_up)
        self.reactor.at_stop.add(self._give_up)
        self._go_on_closing()

    def abort(self) -> None:
        """Reset the connection: the peer sees an error, not an end."""
        if not self.is_closed:
            self.is_closed = True
            self._reset()

    @property
    def has_octets(self) -> bool:
        """Whether octets wait that are not the system's: for those there are events."""
        return bool(self._unread) or self._has_more

    def _has_output(self) -> bool:
        """Whether octets that count as taken still wait above the socket."""
        return False

    def _mask(self) -> int:
        """The events to ask the poller for."""
        return READ if self.is_closed else self._wanted

    def _update(self) -> None:
        """Ask the poller for what `_mask` says, if that has changed."""
        events = self._mask() if self._asks_otherwise or self.is_closed else self._wanted
        if events == self._events:
            return
        if self._events != _UNREGISTERED:
            self.reactor.modify(self._fd, events)
        elif events or self.on_broken is not None:
            self.reactor.add(self._fd, events, self._on_event)
        else:
            return
        self._events = events

    def _on_event(self, events: int) -> None:
        wanted = self._wanted
        if events & HANG_UP:
            self.is_ending = True
        if wanted & READ and events & _READABLE:
            callback = self.on_readable
            if callback is not None:
                callback()
            else:
                self._stop_wanting(READ)
        if wanted & WRITE and events & _WRITABLE and self._wanted & WRITE:
            callback = self.on_writable
            if callback is not None:
                callback()
            else:
                self._stop_wanting(WRITE)
        if not wanted:
            self._on_unwanted(events)

    def _on_unwanted(self, events: int) -> None:
        if self.is_closed:
            self._discard()
        elif events & ERROR:
            self._unregister()
            on_broken = self.on_broken
            # Asking takes the failure off the socket: only where somebody hears the answer.
            if on_broken is not None and (number := _take_failure(self._sock)):
                on_broken(f"connection to {self.label} broke: {os.strerror(number)}")

    def _stop_wanting(self, events: int) -> None:
        self._wanted &= ~events
        self._update()

    def _fire_next_turn(self) -> None:
        """Call `on_readable` without an event; other sockets have their turn before."""
        if not self._is_firing_next_turn:
            self._is_firing_next_turn = True
            self.reactor.next_turn(self._fire_queued)

    def _fire_queued(self) -> None:
        self._is_firing_next_turn = False
        if self._wanted & READ:
            self._on_event(READ)

    def _go_on_closing(self) -> None:
        """All output is sent, or some of it waits for the socket; what comes next."""
        if not self._has_output():
            if self._saw_end:
                self._release()
                return
            self._shut_socket()
        self._update()

    def _shut_socket(self) -> None:
        """Send FIN after everything else."""
        with contextlib.suppress(OSError):  # reset by the peer: reading will tell
            self._sock.shutdown(socket.SHUT_WR)

    def _discard(self) -> None:
        """Take what the peer of a closed end still sends off the socket."""
        try:
            count = self._sock.recv_into(self.reactor.scratch)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        self._discarded += count
        if count == 0:
            self._release()
        elif self._discarded > LINGER_OCTETS:
            self._reset()

    def _give_up(self) -> None:
        """The time for closing in order is over."""
        if self._has_output():
            self._reset()
        else:
            self._release()

    def _unregister(self) -> None:
        if self._events != _UNREGISTERED:
            self._events = _UNREGISTERED
            self.reactor.remove(self._fd)

    def _reset(self) -> None:
        with contextlib.suppress(OSError):  # the peer was faster
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._release()

    def _release(self) -> None:
        """Give the descriptor back to the system; nothing may use it afterwards."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
            self.reactor.at_stop.discard(self._give_up)
        self._wanted = 0
        if self._events != _UNREGISTERED:
            self._events = _UNREGISTERED
            self.reactor.forget(self._fd)
        if self.on_readable is not None or self.on_writable is not None:
            self._wake_all()
        _close(self._sock)

    def _closed_error(self) -> NetError:
        return NetError(f"{self.label} was closed on our side")


def _take_failure(sock: socket.socket) -> int:
    """The errno of a connection that broke, 0 when it has ended in order."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def set_no_delay(sock: socket.socket) -> None:
    """Send small writes at once (TCP_NODELAY): a relay must not add the kernel's waiting time."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        return  # a Unix socket; or reset by the peer already: reading will tell


def to_endpoint(address: object) -> Endpoint:
    """The host and port of a socket address; a Unix socket counts as host "unix", port 0."""
    if isinstance(address, tuple):
        return Endpoint(address[0], address[1])
    return Endpoint("unix", 0)
