"""What every way in shares: route, open, answer, relay, account.

The first rule of this project is kept here.  A client hears that it is connected, and its octets
move, in `Flow.hand_over` alone, which needs an `Opened`, and that exists only with a judged peer
(or, for a destination that is not tunnelled, by the operator's word).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import NamedTuple, Protocol

from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.dataplane.relay import Relay, RelayResult
from tng.endpoint import Endpoint
from tng.errors import NetError, TngError
from tng.gateway.express import Passage
from tng.gateway.farewell import farewell, leave_without_words
from tng.gateway.router import Router
from tng.observe.access_log import AccessRecord, log_access
from tng.observe.metrics import EntryMeter
from tng.tunnel.base import Opened, Tunnel
from tng.tunnel.dialer import Dialer
from tng.tunnel.express import ExpressTunnel
from tng.verdict import NoRa

log = logging.getLogger(__name__)


class Accepted(NamedTuple):
    """A client whose destination is known, and who has not been told anything yet.

    Attributes:
        client: its connection; what it sent beyond its request has been handed back (`unread`).
        destination: where it wants to go.
        answer: octets that tell it: connected.  Empty where nothing is said.
        refusal: makes the octets that tell it why not.
    """

    client: PlainEnd
    destination: Endpoint
    answer: bytes
    refusal: Callable[[TngError], bytes]


class Carrier(Protocol):
    """What a way in hands its clients to: `Flow`, or `gateway.ingress.ohttp.OhttpFlow`.

    Attributes:
        reactor: where connections live.
        meter: counts.
    """

    reactor: Reactor
    meter: EntryMeter

    async def carry(self, accepted: Accepted) -> None:
        """Serve one client; it is taken care of when this returns, though not always at its end."""
        ...

    def unrouted(self, client: PlainEnd, error: TngError) -> None:
        """Count and log a client that failed before its destination was known."""
        ...


class Flow:
    """Carries the clients of one `add_ingress` entry.

    Args:
        reactor: where connections live.
        mode: the entry's mode, for the access log.
        router: which destinations are tunnelled.
        tunnel: opens streams to egresses.
        dialer: opens plain connections for the other destinations.
        meter: counts.
    """

    def __init__(
        self,
        reactor: Reactor,
        mode: str,
        router: Router,
        tunnel: Tunnel,
        dialer: Dialer,
        meter: EntryMeter,
    ) -> None:
        self.reactor = reactor
        self.meter = meter
        self._mode = mode
        self._router = router
        self._tunnel = tunnel
        self._express = tunnel if isinstance(tunnel, ExpressTunnel) else None
        self._dialer = dialer

    async def carry(self, accepted: Accepted) -> None:
        """Serve one client; it is taken care of when this returns, though not always at its end.

        From then on it is a relay's, a passage's or closed, and the caller must leave it alone.

        Raises:
            NetError: the client went away while it was told why it is not connected.
        """
        if not self._begin_express(accepted):
            await self.carry_slowly(accepted)

    def _begin_express(self, accepted: Accepted) -> bool:
        express = self._express
        if express is None or not self._router.is_tunnelled(accepted.destination):
            return False
        return Passage(self, accepted).begin(express)

    async def carry_slowly(self, accepted: Accepted) -> None:
        """As `carry`, by the way on which everything may take its time."""
        destination = accepted.destination
        tunnelled = self._router.is_tunnelled(destination)
        try:
            opened = await (
                self._tunnel.open(destination) if tunnelled else self._open_plain(destination)
            )
        except TngError as error:
            await self.turn_away(accepted, error)
        else:
            self.hand_over(accepted, opened, tunnelled=tunnelled)

    def hand_over(self, accepted: Accepted, opened: Opened, *, tunnelled: bool) -> None:
        """Tell the client that it is connected, and relay: the only place where that is done."""
        client, answer = accepted.client, accepted.answer
        meter = self.meter
        try:
            taken = client.write(memoryview(answer)) if answer else 0
        except TngError:
            client.abort()  # it went away
            opened.end.abort()
            return
        self.connected(client, accepted.destination, opened, tunnelled=tunnelled)
        # Whoever accepted the client counts it until its coroutine ends, which may be now.
        meter.cx_active += 1
        unsent = memoryview(answer)[taken:] if taken < len(answer) else None
        session = Relay(self.reactor, client, opened.end, self._ended)
        session.start(total_timeout_s=opened.lifetime_s, unsent=unsent)

    async def turn_away(self, accepted: Accepted, error: TngError) -> None:
        """Tell the client that it is not connected, and why.

        Raises:
            NetError: it went away meanwhile.
        """
        client = accepted.client
        self.failed(client, accepted.destination, error)
        words = accepted.refusal(error)
        if words:
            await farewell(self.reactor, client, words)
        else:
            await leave_without_words(self.reactor, client)

    def spawn(self, accepted: Accepted, coroutine: Coroutine[object, None, None]) -> None:
        """Go on with a client of the express lane as a task, which counts it and owns it."""
        self.reactor.spawn(self._own(accepted.client, coroutine), accepted.client.label)

    async def _own(self, client: PlainEnd, coroutine: Coroutine[object, None, None]) -> None:
        self.meter.cx_active += 1
        try:
            await coroutine
        except NetError:
            client.abort()  # it went away
        except BaseException:
            client.abort()
            raise
        finally:
            self.meter.cx_active -= 1

    def _ended(self, result: RelayResult) -> None:
        meter = self.meter
        meter.cx_active -= 1
        meter.octets_from_client += result.left_to_right
        meter.octets_to_client += result.right_to_left

    async def open(self, destination: Endpoint) -> tuple[Opened, bool]:
        """A stream to `destination`, and whether it goes through the tunnel.

        Raises:
            TngError: nobody there, not a TNG peer, refused, or no judge.
        """
        if self._router.is_tunnelled(destination):
            return await self._tunnel.open(destination), True
        return await self._open_plain(destination), False

    async def _open_plain(self, destination: Endpoint) -> Opened:
        end = await self._dialer.connect(destination)
        return Opened(end, NoRa.NO_RA, end.local, None)

    def connected(
        self, client: PlainEnd, destination: Endpoint, opened: Opened, *, tunnelled: bool
    ) -> None:
        """Log that both ends are connected."""
        log_access(
            AccessRecord(
                *addresses_of(client),
                self._mode,
                destination,
                opened.local,
                tunnelled,
                opened.attested,
            )
        )

    def failed(self, client: PlainEnd, destination: Endpoint, error: TngError) -> None:
        """Count and log that the destination was not reached."""
        self.meter.cx_failed += 1
        tunnelled = self._router.is_tunnelled(destination)
        log_access(
            AccessRecord(*addresses_of(client), self._mode, destination, encrypted=tunnelled)
        )
        log.warning("not connected dst=%s code=%s: %s", destination, error.code, error)

    def unrouted(self, client: PlainEnd, error: TngError) -> None:
        """Count and log a client that failed before its destination was known."""
        self.meter.cx_failed += 1
        log_access(AccessRecord(*addresses_of(client), self._mode))
        log.info("request refused client=%s code=%s: %s", client.label, error.code, error)

    def cut(self, client: PlainEnd, destination: Endpoint, error: TngError) -> None:
        """Log that an exchange ended in the middle of its response."""
        log.warning(
            "cut short client=%s dst=%s code=%s: %s", client.label, destination, error.code, error
        )


def addresses_of(client: PlainEnd) -> tuple[Endpoint | str, Endpoint | str]:
    """Both addresses of a client; a connection that it has reset has none any more."""
    try:
        return client.remote, client.local
    except NetError:
        return client.label, "-"
