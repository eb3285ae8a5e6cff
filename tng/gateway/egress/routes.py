"""Which ports an egress entry listens on, and where the connections to each go.

In: an entry of `add_egress` in a TCP mode.  Out: addresses, each with its `RouteOf`.  Source: spec
of the RATS-TLS transport, sections 6.1 to 6.3.  A mapped port and a port of a program lead to one
service; a captured connection goes where it was going before it was redirected, which the kernel
remembers.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tng.gateway.egress.delivery import Route, RouteOf
from tng.gateway.entries import captured_at
from tng.gateway.netfilter.sockets import original_destination

if TYPE_CHECKING:
    from tng.config.model import Egress
    from tng.endpoint import Endpoint


def routes_of(entry: Egress) -> list[tuple[Endpoint, RouteOf]]:
    """Listening addresses of an entry; those of mode `hook` in the order of `capture_listen`."""
    if entry.netfilter is not None:
        return [(captured_at(entry.netfilter), captured_route)]
    if entry.hook is not None:
        from tng.gateway.egress.hook import moved_port  # starting costs what is used

        moved = [moved_port(rule) for rule in entry.hook.capture_listen]
        return [(port.listen, _always(port.listen, port.target)) for port in moved]
    rules = entry.mapping.rules if entry.mapping else ()
    return [(listen, _always(listen, to)) for rule in rules for listen, to in rule.pairs()]


def captured_route(accepted: socket.socket) -> Route | None:
    """Where a redirected connection was going; None for one that was made to our listener."""
    service = original_destination(accepted)
    return None if service is None else Route(service, service)


def _always(listen: Endpoint, target: Endpoint) -> RouteOf:
    route = Route(listen, target)
    return lambda _accepted: route
