"""From configuration to the parts of one entry: its mode, tunnel, certificate and judge."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Final, Protocol

from tng import __version__
from tng.attest.appraiser.base import Appraiser
from tng.attest.appraiser.trustee_rest import TrusteeRestAppraiser
from tng.attest.attester.factory import make_attester
from tng.attest.credential import CredentialSource
from tng.attest.verifier.base import Verifier
from tng.attest.verifier.factory import make_verifier
from tng.clock import Clock
from tng.config.model import Attest, Egress, Ingress, RatsTls, Verify
from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.endpoint import Endpoint
from tng.errors import NetError
from tng.gateway.egress.mapping import MappingEgress
from tng.gateway.flow import Flow
from tng.gateway.ingress.http_proxy import HttpProxyIngress
from tng.gateway.ingress.mapping import MappingIngress
from tng.gateway.router import Router
from tng.observe.metrics import EntryMeter, Side, entry_labels
from tng.tunnel.bridge import Bridge
from tng.tunnel.dialer import Dialer
from tng.tunnel.rats_tls.client import ClientOptions, RatsTlsClient
from tng.tunnel.rats_tls.identity import Identity, Source
from tng.tunnel.rats_tls.pool import PoolLimits
from tng.tunnel.rats_tls.server import RatsTlsServer

USER_AGENT: Final = f"tng-gateway/{__version__}"

Serve = Callable[[socket.socket, Endpoint], Coroutine[None, None, None]]
"""Serves one accepted TCP connection, given the client's address."""


def make_source(attest: Attest, clock: Clock) -> Source:
    """The source of our certificates that the configuration names."""
    appraiser: Appraiser | None = None
    if attest.model == "passport":
        if attest.as_addr is None:
            raise AssertionError("a passport without as_addr has passed the check of the model")
        headers = {name: value.reveal() for name, value in attest.as_headers.items()}
        appraiser = TrusteeRestAppraiser(attest.as_addr, headers, user_agent=USER_AGENT)
    return CredentialSource(make_attester(attest), clock, appraiser, attest.policy_ids)


@dataclass(frozen=True, slots=True)
class Trust:
    """Who makes certificates and who judges them; tests and the demo put others in their place."""

    make_source: Callable[[Attest, Clock], Source] = make_source
    make_verifier: Callable[[Verify, Clock], Verifier] = make_verifier


@dataclass(frozen=True, slots=True)
class Services:
    """What all entries share."""

    reactor: Reactor
    bridge: Bridge
    dialer: Dialer
    clock: Clock
    trust: Trust


class Background(Protocol):
    """Something that keeps itself up to date in trio while the gateway runs."""

    async def run(self) -> None:
        """Run until cancelled."""
        ...

    @property
    def not_ready(self) -> str | None:
        """Why traffic cannot be served right now, None when it can."""
        ...


@dataclass(slots=True)
class Entry:
    """One entry of `add_ingress` or `add_egress`, ready to serve.

    Attributes:
        side: "ingress" or "egress".
        number: position in its list, from 0.
        mode: e.g. "mapping".
        listeners: addresses, and who serves the connections made to each.
        tunnel: the client or server end of the tunnels.
        identity: our certificate, if the entry attests.
        verifier: the judge, if the entry verifies.
        multiplex: as configured.
        meter: counts.
        let_idle_go: ends the connections of clients that have not asked for anything.
    """

    side: Side
    number: int
    mode: str
    listeners: list[tuple[Endpoint, Serve]]
    tunnel: RatsTlsClient | RatsTlsServer
    identity: Identity | None
    verifier: Verifier | None
    multiplex: bool | None
    meter: EntryMeter
    let_idle_go: Callable[[], None] = field(default=lambda: None)

    @property
    def path(self) -> str:
        """The entry in the words of the configuration."""
        return f"add_{self.side}[{self.number}]"

    @property
    def background(self) -> list[Background]:
        """What has to run beside the traffic."""
        return [part for part in (self.identity, self.verifier) if part is not None]


def build_ingress(number: int, entry: Ingress, services: Services) -> Entry:
    """The parts of `add_ingress[number]`."""
    identity, verifier = _identity(entry.attest, services), _verifier(entry.verifiers, services)
    rats_tls = entry.rats_tls or RatsTls.model_validate({})
    limits = PoolLimits(
        rats_tls.multiplex_max_streams_per_connection, rats_tls.multiplex_max_connections
    )
    options = ClientOptions(rats_tls.multiplex, limits)
    client = RatsTlsClient(
        services.reactor,
        services.bridge,
        services.dialer,
        options,
        identity,
        verifier,
        services.clock,
    )
    meter = EntryMeter(_labels("ingress", number, entry))
    filters = entry.http_proxy.dst_filters if entry.http_proxy else ()
    flow = Flow(services.reactor, entry.mode, Router(filters), client, services.dialer, meter)
    listeners, let_idle_go = _ingress_listeners(entry, flow)
    return Entry(
        "ingress",
        number,
        entry.mode,
        listeners,
        client,
        identity,
        verifier,
        rats_tls.multiplex,
        meter,
        let_idle_go,
    )


def build_egress(number: int, entry: Egress, services: Services) -> Entry:
    """The parts of `add_egress[number]`."""
    identity, verifier = _identity(entry.attest, services), _verifier(entry.verifiers, services)
    multiplex = entry.rats_tls.multiplex if entry.rats_tls else None
    server = RatsTlsServer(
        services.reactor, services.bridge, multiplex, identity, verifier, services.clock
    )
    meter = EntryMeter(_labels("egress", number, entry))
    listeners: list[tuple[Endpoint, Serve]] = []
    if entry.mapping is not None:
        for rule in entry.mapping.rules:
            for listen, target in rule.pairs():
                mode = MappingEgress(
                    services.reactor, server, services.dialer, listen, target, meter
                )
                listeners.append((listen, mode.serve))
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
    )


def _ingress_listeners(
    entry: Ingress, flow: Flow
) -> tuple[list[tuple[Endpoint, Serve]], Callable[[], None]]:
    if entry.http_proxy is not None:
        proxy = HttpProxyIngress(flow)
        listen = entry.http_proxy.proxy_listen
        serve = _client_server(flow, proxy.serve)
        return [(Endpoint(listen.host, listen.port), serve)], proxy.let_idle_go
    if entry.mapping is None:
        raise AssertionError(f"mode {entry.mode!r} has passed the availability check unbuilt")
    listeners = [
        (listen, _client_server(flow, MappingIngress(flow, target).serve))
        for rule in entry.mapping.rules
        for listen, target in rule.pairs()
    ]
    return listeners, lambda: None


def _client_server(flow: Flow, serve_client: Callable[[PlainEnd], Awaitable[None]]) -> Serve:
    """What every way in does with a connection, whatever its protocol."""

    async def serve(accepted: socket.socket, address: Endpoint) -> None:
        client = PlainEnd(flow.reactor, accepted, str(address))
        flow.meter.cx_total += 1
        flow.meter.cx_active += 1
        try:
            await serve_client(client)
        except NetError:
            client.abort()  # the client went away, or its stream broke: logged where it happened
        except BaseException:
            client.abort()
            raise
        finally:
            flow.meter.cx_active -= 1

    return serve


def _identity(attest: Attest | None, services: Services) -> Identity | None:
    if attest is None:
        return None
    source = services.trust.make_source(attest, services.clock)
    return Identity(source, attest.refresh_interval, services.clock)


def _verifier(verifiers: tuple[Verify, ...], services: Services) -> Verifier | None:
    return services.trust.make_verifier(verifiers[0], services.clock) if verifiers else None


def _labels(side: Side, number: int, entry: Ingress | Egress) -> dict[str, str]:
    listen = target = None
    if isinstance(entry, Ingress) and entry.http_proxy is not None:
        proxy = entry.http_proxy.proxy_listen
        listen = Endpoint(proxy.host, proxy.port)
    elif entry.mapping is not None:
        listen, target = entry.mapping.rules[0].pairs()[0]
    return entry_labels(side, entry.mode, number, listen=listen, target=target)
