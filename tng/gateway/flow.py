"""What every way in shares: route, open, answer, relay, account.

The order in `Flow.carry` is the first rule of this project.  A client hears that it is connected,
and its octets move, only after `Tunnel.open` has returned, which it does only with a judged peer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.dataplane.relay import relay
from tng.endpoint import Endpoint
from tng.errors import NetError, TngError
from tng.gateway.farewell import farewell
from tng.gateway.router import Router
from tng.observe.access_log import AccessRecord, log_access
from tng.observe.metrics import EntryMeter
from tng.tunnel.base import Opened, Tunnel
from tng.tunnel.dialer import Dialer
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
        """Serve one client from its request to the end of both directions."""
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
        self._dialer = dialer

    async def carry(self, accepted: Accepted) -> None:
        """Serve one client from its request to the end of both directions."""
        client, destination = accepted.client, accepted.destination
        try:
            opened, tunnelled = await self.open(destination)
        except TngError as error:
            self.failed(client, destination, error)
            words = accepted.refusal(error)
            if words:
                await farewell(self.reactor, client, words)
            else:
                client.abort()
            return
        try:
            if accepted.answer:
                await client.send(accepted.answer)
            self.connected(client, destination, opened, tunnelled=tunnelled)
        except BaseException:
            opened.end.abort()
            raise
        result = await relay(self.reactor, client, opened.end, total_timeout_s=opened.lifetime_s)
        self.meter.tx_bytes_total += result.left_to_right
        self.meter.rx_bytes_total += result.right_to_left

    async def open(self, destination: Endpoint) -> tuple[Opened, bool]:
        """A stream to `destination`, and whether it goes through the tunnel.

        Raises:
            TngError: nobody there, not a TNG peer, refused, or no judge.
        """
        if self._router.is_tunnelled(destination):
            return await self._tunnel.open(destination), True
        end = await self._dialer.connect(destination)
        return Opened(end, NoRa.NO_RA, end.local, None), False

    def connected(
        self, client: PlainEnd, destination: Endpoint, opened: Opened, *, tunnelled: bool
    ) -> None:
        """Log that both ends are connected."""
        log_access(
            AccessRecord(
                *_addresses(client),
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
        log_access(AccessRecord(*_addresses(client), self._mode, destination, encrypted=tunnelled))
        log.warning("not connected dst=%s code=%s: %s", destination, error.code, error)

    def unrouted(self, client: PlainEnd, error: TngError) -> None:
        """Count and log a client that failed before its destination was known."""
        self.meter.cx_failed += 1
        log_access(AccessRecord(*_addresses(client), self._mode))
        log.info("request refused client=%s code=%s: %s", client.label, error.code, error)

    def cut(self, client: PlainEnd, destination: Endpoint, error: TngError) -> None:
        """Log that an exchange ended in the middle of its response."""
        log.warning(
            "cut short client=%s dst=%s code=%s: %s", client.label, destination, error.code, error
        )


def _addresses(client: PlainEnd) -> tuple[Endpoint | str, Endpoint | str]:
    """Both addresses of a client; a connection that it has reset has none any more."""
    try:
        return client.remote, client.local
    except NetError:
        return client.label, "-"
