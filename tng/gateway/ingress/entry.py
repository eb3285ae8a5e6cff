"""From an entry of `add_ingress` to its parts: way in, flow, tunnel, certificate and judge."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from tng.config.model import DstFilter, Ingress, RatsTls
from tng.config.ohttp import IngressOhttp
from tng.config.proxy import HttpProxy, Socks5
from tng.dataplane.plain import PlainEnd
from tng.endpoint import Endpoint
from tng.errors import NetError
from tng.gateway.entries import (
    Entry,
    Serve,
    Services,
    captured_at,
    dialer_of,
    identity_of,
    verifier_of,
)
from tng.gateway.flow import Carrier, Flow
from tng.gateway.labels import labels_of
from tng.gateway.router import Router
from tng.observe.metrics import EntryMeter

if TYPE_CHECKING:
    from tng.wire.socks5 import Credentials

Listeners = list[tuple[Endpoint, Serve]]


def build_ingress(number: int, entry: Ingress, services: Services) -> Entry:
    """The parts of `add_ingress[number]`."""
    if entry.mapping_udp is not None or entry.netfilter_udp is not None:
        from tng.gateway.datagrams import need_quic  # starting costs what is used

        need_quic(f"add_ingress[{number}]")
        from tng.gateway.datagram_modes import datagram_entry

        return datagram_entry(number, entry, services)
    if entry.ohttp is not None:
        return _ohttp_ingress(number, entry, entry.ohttp, services)
    from tng.tunnel.rats_tls.client import ClientOptions, RatsTlsClient
    from tng.tunnel.rats_tls.pool import PoolLimits

    identity, verifier = identity_of(entry.attest, services), verifier_of(entry.verifiers, services)
    rats_tls = entry.rats_tls or RatsTls.model_validate({})
    limits = PoolLimits(
        rats_tls.multiplex_max_streams_per_connection, rats_tls.multiplex_max_connections
    )
    options = ClientOptions(rats_tls.multiplex, limits)
    client = RatsTlsClient(
        services.reactor,
        services.bridge,
        dialer_of(entry, services),
        options,
        identity,
        verifier,
        services.clock,
    )
    meter = EntryMeter(labels_of("ingress", number, entry))
    router = Router(_filters(entry))
    flow = Flow(services.reactor, entry.mode, router, client, services.dialer, meter)
    listeners, let_idle_go = _ways_in(entry, flow)
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
        pool_status=lambda: client.pool.status(rats_tls.multiplex),
    )


def _ohttp_ingress(
    number: int, entry: Ingress, settings: IngressOhttp, services: Services
) -> Entry:
    from tng.gateway.ohttp_entries import NoTunnel, ohttp_ingress  # starting costs what is used

    verifier = verifier_of(entry.verifiers, services)
    meter = EntryMeter(labels_of("ingress", number, entry))
    router, dialer = Router(_filters(entry)), dialer_of(entry, services)
    plain = Flow(services.reactor, entry.mode, router, NoTunnel(), services.dialer, meter)
    parts = ohttp_ingress(entry, settings, verifier, services, dialer, plain, router)
    listeners = (
        _listeners(entry, parts.flow)
        if entry.http_proxy is None
        else _proxy_listeners(entry.http_proxy, parts.flow, parts.flow.serve_proxy)
    )
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
        keys_status=parts.status,
        source=parts.source,
    )


def _ways_in(entry: Ingress, flow: Flow) -> tuple[Listeners, Callable[[], None]]:
    """Listeners, and what ends the connections of clients that have not asked for anything."""
    if entry.http_proxy is None:
        return _listeners(entry, flow), _nothing
    from tng.gateway.ingress.http_proxy import HttpProxyIngress  # starting costs what is used

    proxy = HttpProxyIngress(flow)
    return _proxy_listeners(entry.http_proxy, flow, proxy.serve), proxy.let_idle_go


def _nothing() -> None:
    """For ways in whose clients ask once, at once."""


def _proxy_listeners(
    http_proxy: HttpProxy, flow: Carrier, serve: Callable[[PlainEnd], Awaitable[None]]
) -> Listeners:
    listen = http_proxy.proxy_listen
    return [(Endpoint(listen.host, listen.port), _client_server(flow, serve))]


def _listeners(entry: Ingress, flow: Carrier) -> Listeners:
    """Those of every mode but `http_proxy`; the module of another mode is not loaded."""
    if entry.socks5 is not None:
        from tng.gateway.ingress.socks5 import Socks5Ingress

        listen = entry.socks5.proxy_listen
        serve = _client_server(flow, Socks5Ingress(flow, _credentials(entry.socks5)).serve)
        return [(Endpoint(listen.host, listen.port), serve)]
    if entry.netfilter is not None:
        from tng.gateway.ingress.netfilter import NetfilterIngress

        serve = _client_server(flow, NetfilterIngress(flow).serve)
        return [(captured_at(entry.netfilter), serve)]
    if entry.hook is not None:
        from tng.gateway.ingress.hook import HookIngress, proxy_endpoint

        hook = HookIngress(flow, entry.hook.capture_dst)
        return [(proxy_endpoint(entry.hook), _client_server(flow, hook.serve))]
    if entry.mapping is None:
        raise AssertionError(f"mode {entry.mode!r} has passed the availability check unbuilt")
    from tng.gateway.ingress.mapping import MappingIngress

    return [
        (listen, _client_server(flow, MappingIngress(flow, target).serve))
        for rule in entry.mapping.rules
        for listen, target in rule.pairs()
    ]


def _client_server(flow: Carrier, serve_client: Callable[[PlainEnd], Awaitable[None]]) -> Serve:
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
    from tng.wire.socks5 import Credentials

    auth = socks5.auth
    return Credentials(auth.username.encode(), auth.password.reveal().encode())


def _filters(entry: Ingress) -> Sequence[DstFilter]:
    proxy = entry.http_proxy or entry.socks5
    return proxy.dst_filters if proxy else ()
