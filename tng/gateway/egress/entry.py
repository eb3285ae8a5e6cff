"""From an entry of `add_egress` to its parts: way out, tunnel, certificate, keys and judge."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from tng.config.model import Egress
from tng.config.ohttp import EgressOhttp
from tng.endpoint import Endpoint
from tng.gateway.datagrams import need_quic
from tng.gateway.egress.hook import hook_listeners, moved_port
from tng.gateway.egress.mapping import MappingEgress
from tng.gateway.egress.netfilter import NetfilterEgress
from tng.gateway.entries import (
    Entry,
    Serve,
    Services,
    TargetOf,
    captured_at,
    dialer_of,
    identity_of,
    verifier_of,
)
from tng.gateway.labels import labels_of
from tng.gateway.netfilter.sockets import original_destination
from tng.observe.metrics import EntryMeter
from tng.tunnel.rats_tls.server import RatsTlsServer

if TYPE_CHECKING:
    from tng.gateway.egress.ohttp import OhttpEgress


def build_egress(number: int, entry: Egress, services: Services) -> Entry:
    """The parts of `add_egress[number]`."""
    if entry.mapping_udp is not None or entry.netfilter_udp is not None:
        return _datagram_egress(number, entry, services)
    if entry.ohttp is not None:
        return _ohttp_egress(number, entry, entry.ohttp, services)
    identity, verifier = identity_of(entry.attest, services), verifier_of(entry.verifiers, services)
    multiplex = entry.rats_tls.multiplex if entry.rats_tls else None
    server = RatsTlsServer(
        services.reactor, services.bridge, multiplex, identity, verifier, services.clock
    )
    meter = EntryMeter(labels_of("egress", number, entry))
    listeners: list[tuple[Endpoint, Serve]] = []
    if entry.mapping is not None:
        for rule in entry.mapping.rules:
            for listen, target in rule.pairs():
                mode = MappingEgress(
                    services.reactor, server, services.dialer, listen, target, meter
                )
                listeners.append((listen, mode.serve))
    if entry.hook is not None:
        listeners += hook_listeners(entry.hook, services.reactor, server, services.dialer, meter)
    if entry.netfilter is not None:
        listen = captured_at(entry.netfilter)
        captured = NetfilterEgress(
            services.reactor, server, dialer_of(entry, services), listen, meter
        )
        listeners.append((listen, captured.serve))
    let_idle_go: Callable[[], None] = _nothing
    if entry.direct_forward:
        listeners, let_idle_go = _let_plain_in(entry, listeners, services, meter)
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
    entry: Egress,
    listeners: list[tuple[Endpoint, Serve]],
    services: Services,
    meter: EntryMeter,
) -> tuple[list[tuple[Endpoint, Serve]], Callable[[], None]]:
    """The same ports, which now also take the plain requests of `direct_forward`."""
    from tng.gateway.egress.direct_forward import DirectForward  # starting costs what is used
    from tng.gateway.egress.plain_or_tunnel import PlainOrTunnel

    rules = DirectForward([rule.http_path for rule in entry.direct_forward or ()])
    targets = dict(_targets(entry))
    dialer = dialer_of(entry, services)
    doors = [
        PlainOrTunnel(services.reactor, tunnel, rules, dialer, targets[listen], listen, meter)
        for listen, tunnel in listeners
    ]
    opened = [(listen, door.serve) for (listen, _), door in zip(listeners, doors, strict=True)]

    def let_idle_go() -> None:
        for door in doors:
            door.let_idle_go()

    return list(opened), let_idle_go


def _nothing() -> None:
    """For entries whose connections end with their tunnels."""


def _targets(entry: Egress) -> list[tuple[Endpoint, TargetOf]]:
    """Listening addresses of an egress, and how to find the service of a connection to each."""
    if entry.netfilter is not None:
        return [(captured_at(entry.netfilter), original_destination)]
    if entry.hook is not None:
        moved = [moved_port(rule) for rule in entry.hook.capture_listen]
        return [(port.listen, _always(port.target)) for port in moved]
    rules = entry.mapping.rules if entry.mapping else ()
    return [(listen, _always(target)) for rule in rules for listen, target in rule.pairs()]


def _always(target: Endpoint) -> TargetOf:
    return lambda _accepted: target


def _ohttp_egress(number: int, entry: Egress, settings: EgressOhttp, services: Services) -> Entry:
    from tng.gateway.ohttp_entries import ohttp_egress  # starting costs what is used

    verifier = verifier_of(entry.verifiers, services)
    meter = EntryMeter(labels_of("egress", number, entry))
    where = f"add_egress[{number}].ohttp.key"
    keys = services.trust.make_key_source(where, settings, services)
    parts = ohttp_egress(
        entry, settings, verifier, keys, services, dialer_of(entry, services), meter
    )
    listeners = [
        (listen, _ohttp_server(parts.egress, listen, target_of))
        for listen, target_of in _targets(entry)
    ]
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


def _ohttp_server(egress: OhttpEgress, listen: Endpoint, target_of: TargetOf) -> Serve:
    def serve(accepted: socket.socket, client: Endpoint) -> Coroutine[None, None, None]:
        return egress.serve(accepted, client, listen, target_of(accepted))

    return serve


def _datagram_egress(number: int, entry: Egress, services: Services) -> Entry:
    need_quic(f"add_egress[{number}]")
    from tng.gateway.datagram_modes import make_datagram_egress

    identity, verifier = identity_of(entry.attest, services), verifier_of(entry.verifiers, services)
    meter = EntryMeter(labels_of("egress", number, entry))
    mode = make_datagram_egress(entry, identity, verifier, services.clock, meter)
    return Entry(
        "egress", number, entry.mode, [], None, identity, verifier, None, meter, datagrams=mode
    )
