"""From configuration to the parts of one entry: its mode, tunnel, certificate and judge."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from tng import __version__
from tng.attest.appraiser.base import Appraiser
from tng.attest.appraiser.trustee_rest import TrusteeRestAppraiser
from tng.attest.attester.factory import make_attester
from tng.attest.credential import CredentialSource
from tng.attest.statement_source import StatementSource, make_statement_source
from tng.attest.verifier.base import StatementVerifier, Verifier
from tng.attest.verifier.factory import make_any_verifier
from tng.clock import Clock
from tng.config.capture import EgressHook, EgressNetfilter, Netfilter
from tng.config.model import Attest, DstFilter, Egress, Ingress, RatsTls, Verify
from tng.config.ohttp import EgressOhttp, IngressOhttp
from tng.config.proxy import Socks5
from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.endpoint import Endpoint
from tng.errors import NetError
from tng.gateway.datagrams import DatagramEntry, need_quic
from tng.gateway.egress.hook import HookEgress, moved_port
from tng.gateway.egress.mapping import MappingEgress
from tng.gateway.egress.netfilter import NetfilterEgress
from tng.gateway.egress.ohttp import OhttpEgress
from tng.gateway.flow import Carrier, Flow
from tng.gateway.ingress.hook import HookIngress, proxy_endpoint
from tng.gateway.ingress.http_proxy import HttpProxyIngress
from tng.gateway.ingress.mapping import MappingIngress
from tng.gateway.ingress.netfilter import NetfilterIngress
from tng.gateway.ingress.ohttp import OhttpFlow
from tng.gateway.ingress.socks5 import Socks5Ingress
from tng.gateway.netfilter.sockets import MarkedDialer
from tng.gateway.ohttp_entries import NoTunnel, OpenSource, ohttp_egress, ohttp_ingress
from tng.gateway.router import Router
from tng.observe.metrics import EntryMeter, Side, entry_labels
from tng.tunnel.bridge import Bridge
from tng.tunnel.dialer import Dialer
from tng.tunnel.ohttp.key_source import KeySource, make_key_source
from tng.tunnel.ohttp.rats_tls_peers import RatsTlsPeers
from tng.tunnel.rats_tls.client import ClientOptions, RatsTlsClient
from tng.tunnel.rats_tls.identity import Identity, Source
from tng.tunnel.rats_tls.pool import PoolLimits
from tng.tunnel.rats_tls.server import RatsTlsServer
from tng.wire.socks5 import Credentials

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
    make_verifier: Callable[[tuple[Verify, ...], Clock], StatementVerifier] = make_any_verifier
    make_statement_source: Callable[[Attest, Clock], StatementSource] = make_statement_source


@dataclass(frozen=True, slots=True)
class Services:
    """What all entries share."""

    reactor: Reactor
    bridge: Bridge
    dialer: Dialer
    clock: Clock
    trust: Trust


class Drainable(Protocol):
    """The client or server end of tunnels."""

    def drain(self) -> None:
        """Take nothing new, and close what is not in use (in the reactor)."""
        ...


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
        tunnel: the client or server end of the tunnels; None in UDP modes.
        identity: our certificate, if the entry attests.
        verifier: the judge, if the entry verifies.
        multiplex: as configured.
        meter: counts.
        let_idle_go: ends the connections of clients that have not asked for anything.
        datagrams: serves a UDP mode; None in the others.
        keys: the egress's HPKE keys, where its transport is OHTTP.
        keys_status: what the control interface shows of HPKE keys; None for other transports.
        source: asks our TEE for OHTTP, where the entry attests.
    """

    side: Side
    number: int
    mode: str
    listeners: list[tuple[Endpoint, Serve]]
    tunnel: Drainable | None
    identity: Identity | None
    verifier: Verifier | None
    multiplex: bool | None
    meter: EntryMeter
    let_idle_go: Callable[[], None] = field(default=lambda: None)
    datagrams: DatagramEntry | None = None
    keys: KeySource | None = None
    keys_status: Callable[[], dict[str, object]] | None = None
    source: OpenSource | None = None

    @property
    def attests(self) -> bool:
        """Whether peers are shown evidence."""
        return self.identity is not None or self.source is not None

    @property
    def path(self) -> str:
        """The entry in the words of the configuration."""
        return f"add_{self.side}[{self.number}]"

    @property
    def background(self) -> list[Background]:
        """What has to run beside the traffic."""
        parts = (self.identity, self.verifier, self.source)
        return [part for part in parts if part is not None]


def build_ingress(number: int, entry: Ingress, services: Services) -> Entry:
    """The parts of `add_ingress[number]`."""
    if entry.mapping_udp is not None:
        return _datagram_ingress(number, entry, services)
    if entry.ohttp is not None:
        return _ohttp_ingress(number, entry, entry.ohttp, services)
    identity, verifier = _identity(entry.attest, services), _verifier(entry.verifiers, services)
    rats_tls = entry.rats_tls or RatsTls.model_validate({})
    limits = PoolLimits(
        rats_tls.multiplex_max_streams_per_connection, rats_tls.multiplex_max_connections
    )
    options = ClientOptions(rats_tls.multiplex, limits)
    client = RatsTlsClient(
        services.reactor,
        services.bridge,
        _dialer(entry, services),
        options,
        identity,
        verifier,
        services.clock,
    )
    meter = EntryMeter(_labels("ingress", number, entry))
    router = Router(_filters(entry))
    flow = Flow(services.reactor, entry.mode, router, client, services.dialer, meter)
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
    if entry.mapping_udp is not None:
        return _datagram_egress(number, entry, services)
    if entry.ohttp is not None:
        return _ohttp_egress(number, entry, entry.ohttp, services)
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
    if entry.hook is not None:
        listeners += _moved_listeners(entry.hook, services, server, meter)
    if entry.netfilter is not None:
        listen = _captured_at(entry.netfilter)
        captured = NetfilterEgress(
            services.reactor, server, _dialer(entry, services), listen, meter
        )
        listeners.append((listen, captured.serve))
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


def _ohttp_ingress(
    number: int, entry: Ingress, settings: IngressOhttp, services: Services
) -> Entry:
    verifier = _verifier(entry.verifiers, services)
    meter = EntryMeter(_labels("ingress", number, entry))
    router, dialer = Router(_filters(entry)), _dialer(entry, services)
    plain = Flow(services.reactor, entry.mode, router, NoTunnel(), services.dialer, meter)
    parts = ohttp_ingress(entry, settings, verifier, services, dialer, plain, router)
    listeners, let_idle_go = _ingress_listeners(entry, parts.flow)
    return Entry(
        "ingress",
        number,
        entry.mode,
        listeners,
        parts,
        None,
        verifier,
        None,
        meter,
        let_idle_go,
        keys_status=parts.status,
        source=parts.source,
    )


def _ohttp_egress(number: int, entry: Egress, settings: EgressOhttp, services: Services) -> Entry:
    verifier = _verifier(entry.verifiers, services)
    meter = EntryMeter(_labels("egress", number, entry))
    keys = _key_source(f"add_egress[{number}].ohttp.key", settings, services)
    parts = ohttp_egress(entry, settings, verifier, keys, services, _dialer(entry, services), meter)
    listeners: list[tuple[Endpoint, Serve]] = []
    if entry.mapping is not None:
        for rule in entry.mapping.rules:
            for listen, target in rule.pairs():
                listeners.append((listen, _ohttp_server(parts.egress, listen, target)))
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


def _ohttp_server(egress: OhttpEgress, listen: Endpoint, target: Endpoint) -> Serve:
    def serve(accepted: socket.socket, client: Endpoint) -> Coroutine[None, None, None]:
        return egress.serve(accepted, client, listen, target)

    return serve


def _key_source(where: str, settings: EgressOhttp, services: Services) -> KeySource:
    """Where HPKE keys come from; peers that share theirs attest and verify as gateways do."""
    key = settings.key
    if key is None or key.source != "peer_shared":
        return make_key_source(key, services.clock, where=where)
    peers = RatsTlsPeers(
        services.reactor,
        services.bridge,
        services.dialer,
        Endpoint(key.host, key.port),
        _identity(key.attest, services),
        _verifier((key.verify,), services) if key.verify else None,
        services.clock,
    )
    return make_key_source(key, services.clock, where=where, transport=peers)


def _filters(entry: Ingress) -> Sequence[DstFilter]:
    proxy = entry.http_proxy or entry.socks5
    return proxy.dst_filters if proxy else ()


def _datagram_ingress(number: int, entry: Ingress, services: Services) -> Entry:
    need_quic(f"add_ingress[{number}]")
    from tng.gateway.datagram_modes import make_datagram_ingress

    identity, verifier = _identity(entry.attest, services), _verifier(entry.verifiers, services)
    meter = EntryMeter(_labels("ingress", number, entry))
    mode = make_datagram_ingress(entry, identity, verifier, services.clock, meter)
    return Entry(
        "ingress", number, entry.mode, [], None, identity, verifier, None, meter, datagrams=mode
    )


def _datagram_egress(number: int, entry: Egress, services: Services) -> Entry:
    need_quic(f"add_egress[{number}]")
    from tng.gateway.datagram_modes import make_datagram_egress

    identity, verifier = _identity(entry.attest, services), _verifier(entry.verifiers, services)
    meter = EntryMeter(_labels("egress", number, entry))
    mode = make_datagram_egress(entry, identity, verifier, services.clock, meter)
    return Entry(
        "egress", number, entry.mode, [], None, identity, verifier, None, meter, datagrams=mode
    )


def _moved_listeners(
    hook: EgressHook, services: Services, server: RatsTlsServer, meter: EntryMeter
) -> list[tuple[Endpoint, Serve]]:
    listeners: list[tuple[Endpoint, Serve]] = []
    for rule in hook.capture_listen:
        moved, local = moved_port(rule), hook.capture_local_traffic
        mode = HookEgress(
            services.reactor, server, services.dialer, moved, captures_local=local, meter=meter
        )
        listeners.append((moved.listen, mode.serve))
    return listeners


def _ingress_listeners(
    entry: Ingress, flow: Flow | OhttpFlow
) -> tuple[list[tuple[Endpoint, Serve]], Callable[[], None]]:
    if entry.http_proxy is not None and isinstance(flow, OhttpFlow):
        listen = entry.http_proxy.proxy_listen
        serve = _client_server(flow, flow.serve_proxy)
        return [(Endpoint(listen.host, listen.port), serve)], lambda: None
    if entry.http_proxy is not None:
        proxy = HttpProxyIngress(flow)
        listen = entry.http_proxy.proxy_listen
        serve = _client_server(flow, proxy.serve)
        return [(Endpoint(listen.host, listen.port), serve)], proxy.let_idle_go
    if entry.socks5 is not None:
        listen = entry.socks5.proxy_listen
        serve = _client_server(flow, Socks5Ingress(flow, _credentials(entry.socks5)).serve)
        return [(Endpoint(listen.host, listen.port), serve)], lambda: None
    if entry.netfilter is not None:
        serve = _client_server(flow, NetfilterIngress(flow).serve)
        return [(_captured_at(entry.netfilter), serve)], lambda: None
    if entry.hook is not None:
        hook = HookIngress(flow, entry.hook.capture_dst)
        return [(proxy_endpoint(entry.hook), _client_server(flow, hook.serve))], lambda: None
    if entry.mapping is None:
        raise AssertionError(f"mode {entry.mode!r} has passed the availability check unbuilt")
    listeners = [
        (listen, _client_server(flow, MappingIngress(flow, target).serve))
        for rule in entry.mapping.rules
        for listen, target in rule.pairs()
    ]
    return listeners, lambda: None


def _client_server(
    flow: Carrier, serve_client: Callable[[PlainEnd], Awaitable[None]]
) -> Serve:
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


def _credentials(socks5: Socks5) -> Credentials | None:
    if socks5.auth is None:
        return None
    auth = socks5.auth
    return Credentials(auth.username.encode(), auth.password.reveal().encode())


def _dialer(entry: Ingress | Egress, services: Services) -> Dialer:
    """What connects for an entry: with the mark that keeps its rules from capturing us."""
    if entry.netfilter is None:
        return services.dialer
    return MarkedDialer(services.reactor, services.bridge, entry.netfilter.so_mark)


def _captured_at(capture: Netfilter | EgressNetfilter) -> Endpoint:
    """Where rules lead to: TPROXY to loopback, REDIRECT to whatever address the client used."""
    host = "127.0.0.1" if isinstance(capture, Netfilter) else "0.0.0.0"  # noqa: S104
    return Endpoint(host, capture.listen_port or 0)


def _identity(attest: Attest | None, services: Services) -> Identity | None:
    if attest is None:
        return None
    source = services.trust.make_source(attest, services.clock)
    return Identity(source, attest.refresh_interval, services.clock)


def _verifier(verifiers: tuple[Verify, ...], services: Services) -> StatementVerifier | None:
    return services.trust.make_verifier(verifiers, services.clock) if verifiers else None


def _labels(side: Side, number: int, entry: Ingress | Egress) -> dict[str, str]:
    listen = target = None
    proxy = (entry.http_proxy or entry.socks5) if isinstance(entry, Ingress) else None
    if proxy is not None:
        listen = Endpoint(proxy.proxy_listen.host, proxy.proxy_listen.port)
    elif isinstance(entry, Ingress) and entry.hook is not None:
        listen = proxy_endpoint(entry.hook)
    elif isinstance(entry, Egress) and entry.hook is not None and entry.hook.capture_listen:
        _, listen, target = moved_port(entry.hook.capture_listen[0])
    elif entry.mapping is not None:
        listen, target = entry.mapping.rules[0].pairs()[0]
    elif entry.netfilter is not None and entry.netfilter.listen_port is not None:
        listen = _captured_at(entry.netfilter)
    elif entry.mapping_udp is not None:
        udp = entry.mapping_udp
        listen = Endpoint(udp.listen.host, udp.listen.port)
        target = Endpoint(udp.target.host or "", udp.target.port)
    return entry_labels(side, entry.mode, number, listen=listen, target=target)
