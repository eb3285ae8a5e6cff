"""From an entry of `add_egress` to its parts: way out, tunnel, certificate, keys and judge."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from tng.config.model import Egress
from tng.config.ohttp import EgressOhttp
from tng.endpoint import Endpoint
from tng.gateway.egress.delivery import Delivery, RouteOf, TunnelEgress
from tng.gateway.egress.routes import routes_of
from tng.gateway.entries import (
    Entry,
    Serve,
    Services,
    dialer_of,
    identity_of,
    verifier_of,
)
from tng.gateway.labels import labels_of
from tng.observe.metrics import EntryMeter
from tng.tunnel.dialer import Dialer

if TYPE_CHECKING:
    from tng.config.capture import EgressHook
    from tng.gateway.egress.ohttp import OhttpEgress

Listeners = list[tuple[Endpoint, Serve]]


def build_egress(number: int, entry: Egress, services: Services) -> Entry:
    """The parts of `add_egress[number]`."""
    if entry.mapping_udp is not None or entry.netfilter_udp is not None:
        from tng.gateway.datagrams import need_quic  # starting costs what is used

        need_quic(f"add_egress[{number}]")
        from tng.gateway.datagram_modes import datagram_entry

        return datagram_entry(number, entry, services)
    if entry.ohttp is not None:
        return _ohttp_egress(number, entry, entry.ohttp, services)
    from tng.tunnel.rats_tls.server import RatsTlsServer

    identity, verifier = identity_of(entry.attest, services), verifier_of(entry.verifiers, services)
    multiplex = entry.rats_tls.multiplex if entry.rats_tls else None
    server = RatsTlsServer(
        services.reactor, services.bridge, multiplex, identity, verifier, services.clock
    )
    meter = EntryMeter(labels_of("egress", number, entry))
    dialer = _dialer_of(entry, services)
    delivery = Delivery(services.reactor, dialer, entry.mode, meter)
    listeners: Listeners = [
        (listen, TunnelEgress(server, delivery, listen, route_of).serve)
        for listen, route_of in routes_of(entry)
    ]
    let_idle_go: Callable[[], None] = _nothing
    if entry.direct_forward:
        listeners, let_idle_go = _let_plain_in(entry, listeners, services, dialer, meter)
    if entry.hook is not None:
        listeners = _watched(entry.hook, listeners, delivery)
    return Entry(
        "egress",
        number,
        entry.mode,
        listeners,
        server,
        identity,
        verifier,
        multiplex,
        meter,
        let_idle_go,
    )


def _let_plain_in(
    entry: Egress, listeners: Listeners, services: Services, dialer: Dialer, meter: EntryMeter
) -> tuple[Listeners, Callable[[], None]]:
    """The same ports, which now also take the plain requests of `direct_forward`."""
    from tng.gateway.egress.direct_forward import DirectForward  # starting costs what is used
    from tng.gateway.egress.plain_or_tunnel import PlainOrTunnel

    rules = DirectForward([rule.http_path for rule in entry.direct_forward or ()])
    doors = [
        PlainOrTunnel(services.reactor, tunnel, rules, dialer, route_of, meter)
        for (_, tunnel), (_, route_of) in zip(listeners, routes_of(entry), strict=True)
    ]

    def let_idle_go() -> None:
        for door in doors:
            door.let_idle_go()

    return [(to, door.serve) for (to, _), door in zip(listeners, doors, strict=True)], let_idle_go


def _watched(hook: EgressHook, listeners: Listeners, delivery: Delivery) -> Listeners:
    from tng.gateway.egress.hook import watch_ports  # starting costs what is used

    return watch_ports(hook, listeners, delivery)


def _nothing() -> None:
    """For entries whose connections end with their tunnels."""


def _dialer_of(entry: Egress, services: Services) -> Dialer:
    """What connects to the service."""
    if entry.hook is not None:
        from tng.gateway.egress.hook import ProgramDialer  # starting costs what is used

        return ProgramDialer(services.reactor, services.bridge)
    return dialer_of(entry, services)


def _ohttp_egress(number: int, entry: Egress, settings: EgressOhttp, services: Services) -> Entry:
    from tng.gateway.ohttp_entries import ohttp_egress  # starting costs what is used

    verifier = verifier_of(entry.verifiers, services)
    meter = EntryMeter(labels_of("egress", number, entry))
    where = f"add_egress[{number}].ohttp.key"
    keys = services.trust.make_key_source(where, settings, services)
    dialer = _dialer_of(entry, services)
    parts = ohttp_egress(entry, settings, verifier, keys, services, dialer, meter)
    listeners: Listeners = [
        (listen, _ohttp_server(parts.egress, route_of)) for listen, route_of in routes_of(entry)
    ]
    if entry.hook is not None:
        delivery = Delivery(services.reactor, dialer, entry.mode, meter)
        listeners = _watched(entry.hook, listeners, delivery)
    return Entry(
        "egress",
        number,
        entry.mode,
        listeners,
        parts,
        None,
        verifier,
        None,
        meter,
        keys=keys,
        keys_status=lambda: keys.status(services.clock.now()),
        source=parts.source,
    )


def _ohttp_server(egress: OhttpEgress, route_of: RouteOf) -> Serve:
    def serve(accepted: socket.socket, client: Endpoint) -> Coroutine[None, None, None]:
        return egress.serve(accepted, client, route_of(accepted))

    return serve
