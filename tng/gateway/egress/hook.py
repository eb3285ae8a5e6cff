"""The `hook` way out: ports of one program, which really listens on loopback.

Source: spec of the RATS-TLS transport, section 6.3 (TNG 2.12).  The gateway listens where the
program meant to; the library that `tng exec` preloads has moved the program to another port of
127.0.0.1.  Connections from this machine (unless `capture_local_traffic`) and those to an address
that the configuration does not name are passed on as they are; all others go to the entry's
transport, RATS-TLS or OHTTP.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

from tng.config.capture import EgressHook, HookListen
from tng.dataplane.socket_end import to_endpoint
from tng.endpoint import Endpoint
from tng.errors import NetError
from tng.gateway.egress.delivery import Delivery, Route
from tng.gateway.egress.own_addresses import interface_addresses, is_own_address
from tng.gateway.entries import Serve
from tng.tunnel.dialer import Dialer

_LOOPBACK: Final = ("127.0.0.1", "::1")
"""Where the library moves a socket to; the second one where the socket takes IPv6 alone."""


class Moved(NamedTuple):
    """One port of the program.

    Attributes:
        rule: the line of the configuration, with one port and where it is moved.
        listen: where the gateway listens instead of the program.
        target: where the program listens.
    """

    rule: HookListen
    listen: Endpoint
    target: Endpoint


def moved_port(rule: HookListen) -> Moved:
    """The port of a line that `tng exec` has completed."""
    if rule.port is None or rule.redirect_to_port is None:
        raise AssertionError("tng exec names every port before the gateway is built")
    host = "::" if rule.host is not None and ":" in rule.host else "0.0.0.0"  # noqa: S104 - as TNG
    return Moved(rule, Endpoint(host, rule.port), Endpoint(_LOOPBACK[0], rule.redirect_to_port))


def watch_ports(
    hook: EgressHook, listeners: Sequence[tuple[Endpoint, Serve]], delivery: Delivery
) -> list[tuple[Endpoint, Serve]]:
    """The same ports, at which only what is captured is taken for a tunnel.

    Args:
        hook: as `tng exec` has completed it.
        listeners: for each line of `capture_listen`, in this order, who serves what is captured.
        delivery: passes the rest on.
    """
    local = hook.capture_local_traffic
    return [
        (listen, HookEgress(moved_port(rule), serve, delivery, captures_local=local).serve)
        for rule, (listen, serve) in zip(hook.capture_listen, listeners, strict=True)
    ]


class HookEgress:
    """Serves one port of the program.

    Args:
        moved: the port.
        serve_captured: serves the connections that have to be tunnels.
        delivery: passes the others on.
        captures_local: whether connections from this machine have to be tunnels too.
    """

    def __init__(
        self, moved: Moved, serve_captured: Serve, delivery: Delivery, *, captures_local: bool
    ) -> None:
        self._moved = moved
        self._serve_captured = serve_captured
        self._delivery = delivery
        self._captures_local = captures_local

    async def serve(self, accepted: socket.socket, client: Endpoint) -> None:
        """Serve one TCP connection."""
        if self.is_captured(client.host, _local_host(accepted)):
            await self._serve_captured(accepted, client)
        else:
            route = Route(self._moved.listen, self._moved.target)
            await self._delivery.pass_on(accepted, client, route)

    def is_captured(self, client: str, local: str) -> bool:
        """Whether a connection from `client` to our address `local` has to be a tunnel."""
        rule = self._moved.rule
        if not self._captures_local and is_own_address(client):
            return False
        if rule.host is not None and not _is_same(rule.host, local):
            return False
        return rule.ifname is None or local in interface_addresses(rule.ifname)


class ProgramDialer(Dialer):
    """Finds a moved program where it listens: on one loopback address, or on the other."""

    async def connect_socket(self, endpoint: Endpoint) -> socket.socket:
        """See `Dialer.connect_socket`; errors are those of the first address."""
        first, second = _LOOPBACK
        try:
            return await super().connect_socket(endpoint)
        except NetError as error:
            if endpoint.host != first:
                raise
            try:
                return await super().connect_socket(Endpoint(second, endpoint.port))
            except NetError:
                raise error from None


def _local_host(accepted: socket.socket) -> str:
    """The address that a client came to; IPv4 as such, also on a socket for both families."""
    return to_endpoint(accepted.getsockname()).host.removeprefix("::ffff:")


def _is_same(one: str, other: str) -> bool:
    configured = ipaddress.ip_address(one)
    return configured.is_unspecified or configured == ipaddress.ip_address(other.partition("%")[0])
