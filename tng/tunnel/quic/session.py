"""One QUIC connection in its life cycle: handshake, verdict, datagrams, end.

In: packets and the time, from a `QuicPort`; datagrams, from whoever serves the session.  Out:
packets to send, datagrams delivered.

Invariants: before `open`, which takes the judged peer, no datagram is sent and none is delivered;
whatever a peer sends, only its own session ends.

    await session.wait_handshake()
    peer = await judge(session, verifier)
    session.open(peer, deliver)
    session.send(b"...")
    await session.ended.wait()
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio
from aioquic.quic import events

from tng.errors import LocalProtocolError, NetError, RemoteProtocolError
from tng.tunnel.quic import MAX_HANDSHAKE_OCTETS, MAX_HELD, SILENCE_S
from tng.tunnel.quic.connection import SMALLEST_PACKET

if TYPE_CHECKING:
    from tng.tunnel.base import Peer
    from tng.tunnel.quic.connection import DatagramConnection
    from tng.tunnel.quic.sockets import Address

log = logging.getLogger(__name__)

Deliver = Callable[[bytes], None]
"""Takes one datagram of the peer; never blocks, never raises."""

Packets = list[tuple[bytes, "Address"]]
"""UDP payloads and where they go."""

_PROTOCOL_VIOLATION: Final = 0x0A  # RFC 9000 section 20.1
_REFUSED: Final = 0x02  # CONNECTION_REFUSED, RFC 9000 section 20.1


class Session:
    """One connection, without its socket.

    Args:
        connection: the library's.
        label: the peer in words.
        transmit: called when there may be something to send; see `QuicPort`.
        number: see the attribute.
        now: monotonic time, seconds.

    Attributes:
        label: the peer in words.
        number: no other session of the port has it.
        handshaken: set once the handshake is done.
        ended: set once no datagram will come or go any more.
        sent: datagrams sent.
        received: datagrams delivered.
        dropped: datagrams that were too large, or had waited too long.
        last_datagram_at: when the last datagram went either way, monotonic seconds.
        cids: our connection IDs, by which packets find this session; they change with packets.
        alarms: when the port will look at this session, monotonic seconds; the port's own.
    """

    def __init__(
        self,
        connection: DatagramConnection,
        label: str,
        transmit: Callable[[Session], None],
        number: int,
        now: float,
    ) -> None:
        self.label = label
        self.number = number
        self.handshaken = trio.Event()
        self.ended = trio.Event()
        self.sent = 0
        self.received = 0
        self.dropped = 0
        self.last_datagram_at = now
        self.cids: set[bytes] = {connection.host_cid}
        self.alarms: list[float] = []
        self._connection = connection
        self._transmit = transmit
        self._deliver: Deliver | None = None
        self._held: collections.deque[bytes] = collections.deque()
        self._handshake_octets = 0
        self._is_terminated = False
        self._is_disposed = False
        self._asked_at: float | None = None

    # -- for whoever serves the session ---------------------------------------------

    @property
    def certificate(self) -> bytes | None:
        """The peer's leaf certificate as DER, once the handshake is done; None if it has none."""
        return self._connection.peer_certificate

    @property
    def largest_datagram(self) -> int:
        """Octets of the largest datagram that can be sent now."""
        return self._connection.largest_datagram

    @property
    def reason(self) -> str:
        """Why the session has ended, in words; empty while it has not."""
        ending = self._connection.ending
        if ending is None:
            return "abandoned" if self.ended.is_set() else ""
        return ending.reason_phrase or f"closed with code {ending.error_code:#x}"

    async def wait_handshake(self, timeout_s: float) -> None:
        """Return once the handshake is done.

        Raises:
            NetError: nobody answered within `timeout_s`.
            RemoteProtocolError: the peer refused, or does not speak our protocol.
        """
        with trio.move_on_after(timeout_s) as limit:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, self.handshaken, nursery.cancel_scope)
                nursery.start_soon(_cancel_after, self.ended, nursery.cancel_scope)
        if self.ended.is_set():
            raise RemoteProtocolError(f"{self.label} refused the QUIC handshake: {self.reason}")
        if limit.cancelled_caught or not self.handshaken.is_set():
            self.close("handshake timed out")
            raise NetError(f"{self.label} did not finish a QUIC handshake within {timeout_s:g} s")
        if not self._connection.takes_datagrams:
            self.close("datagrams are not supported", _PROTOCOL_VIOLATION)
            raise RemoteProtocolError(f"{self.label} takes no QUIC datagrams")

    def open(self, peer: Peer, deliver: Deliver, packet_size: int) -> None:
        """Let datagrams pass: the peer has been judged, or the operator asked for no judgement.

        Args:
            peer: the verdict.
            deliver: takes what the peer sends, beginning with what it has sent already.
            packet_size: octets of UDP payload that the path to the peer carries.
        """
        if not self.handshaken.is_set() or self._deliver is not None:
            raise LocalProtocolError(f"a session is opened once, after its handshake, not {peer!r}")
        self._connection.use_packet_size(packet_size)
        self._deliver = deliver
        while self._held:
            self._pass_on(self._held.popleft())

    def send(self, datagram: bytes) -> bool:
        """Send one datagram.

        Returns:
            Whether it was taken; one that is too large for a packet is dropped and counted.
        """
        if self.ended.is_set():
            return False
        if self._deliver is None:
            raise LocalProtocolError("a datagram is sent after the verdict")
        if len(datagram) > self._connection.largest_datagram:
            self.dropped += 1
            return False
        if self._connection.waiting >= MAX_HELD:
            self._connection.drop_oldest()
            self.dropped += 1
        now = trio.current_time()
        self._connection.send_datagram_frame(datagram)
        self.sent += 1
        self.last_datagram_at = now
        if self._asked_at is None:
            self._asked_at = now
        self._transmit(self)
        return True

    def close(self, reason: str, code: int = 0) -> None:
        """End the session and tell the peer; harmless when it has ended."""
        self._end(reason, code)
        self._transmit(self)

    def refuse(self) -> None:
        """End the session of a peer that was judged and refused."""
        self.close("peer refused", _REFUSED)

    def keep_alive(self) -> None:
        """Keep a session that is silent by intention from timing out at either end."""
        if not self.ended.is_set():
            self._connection.send_ping(0)
            self._transmit(self)

    # -- for the port -----------------------------------------------------------------

    @property
    def is_terminated(self) -> bool:
        """Whether nothing is left to be done, not even to answer late packets."""
        return self._is_terminated

    @property
    def has_begun(self) -> bool:
        """Whether any packet of the peer could be opened."""
        return self._connection.has_begun

    def receive(self, data: bytes, address: Address, now: float) -> None:
        """Take one packet of the peer."""
        self._asked_at = None
        if not self.handshaken.is_set():
            self._handshake_octets += len(data)
            if self._handshake_octets > MAX_HANDSHAKE_OCTETS:
                self._end("handshake is too long", _PROTOCOL_VIOLATION)
                return
        self._guarded(lambda: self._connection.receive_datagram(data, address, now))

    def wake(self, now: float) -> None:
        """Do what is due."""
        due = self.next_alarm()
        if due is not None and due <= now:
            self._guarded(lambda: self._connection.handle_timer(now))
        if self._asked_at is not None and now - self._asked_at >= SILENCE_S:
            self._end("no answer")

    def packets(self, now: float) -> Packets:
        """What is to be sent now; what was received so far has been dealt with then."""
        self._guarded(self._handle_events)
        found: Packets = []
        if not self._is_terminated and self._connection.get_peer_address() is not None:
            self._guarded(lambda: found.extend(self._connection.datagrams_to_send(now)))
        return found

    def next_alarm(self) -> float | None:
        """When `wake` is to be called, monotonic seconds."""
        if self._is_terminated or self._connection.get_peer_address() is None:
            return None
        return self._connection.get_timer()

    def shrink(self) -> None:
        """Send small packets from now on: the path has refused a larger one."""
        self._connection.use_packet_size(SMALLEST_PACKET)

    def abandon(self) -> None:
        """End at once, without a word to the peer."""
        self._is_terminated = True
        self._stop()

    # -- inside -----------------------------------------------------------------------

    def _handle_events(self) -> None:
        while (event := self._connection.next_event()) is not None:
            match event:
                case events.DatagramFrameReceived(data=datagram):
                    self._take(datagram)
                case events.HandshakeCompleted():
                    self.handshaken.set()
                case events.ConnectionIdIssued(connection_id=cid):
                    self.cids.add(cid)
                case events.ConnectionIdRetired(connection_id=cid):
                    self.cids.discard(cid)
                case events.ConnectionTerminated():
                    self.abandon()
                case events.StreamDataReceived() | events.StreamReset():
                    self._end("streams are not available", _PROTOCOL_VIOLATION)
                case _:
                    pass
        if self._connection.ending is not None:
            self._stop()

    def _take(self, datagram: bytes) -> None:
        if self.ended.is_set():
            return
        if self._deliver is not None:
            self._pass_on(datagram)
            return
        if len(self._held) >= MAX_HELD:
            self._held.popleft()
            self.dropped += 1
        self._held.append(datagram)

    def _pass_on(self, datagram: bytes) -> None:
        if self._deliver is not None:
            self.received += 1
            self.last_datagram_at = trio.current_time()
            self._deliver(datagram)

    def _end(self, reason: str, code: int = 0) -> None:
        self._connection.close(error_code=code, reason_phrase=reason)
        self._stop()

    def _stop(self) -> None:
        self.ended.set()
        self._held.clear()
        self._deliver = None
        if self._is_terminated and not self._is_disposed:
            self._is_disposed = True
            self._connection.dispose()

    def _guarded(self, step: Callable[[], None]) -> None:
        """A step of the library; what it did not foresee ends this session alone."""
        try:
            step()
        except Exception:
            log.exception("quic session broken off by an unexpected error peer=%s", self.label)
            self.abandon()


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
