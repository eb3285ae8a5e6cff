"""From configuration to the parts of one entry whose transport is OHTTP.

In: an entry of `add_ingress` or `add_egress` with `ohttp`.  Out: what `gateway.entries` puts in the
place of a RATS-TLS tunnel: a flow or a server, and what has to run beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from tng.endpoint import Endpoint
from tng.errors import LocalProtocolError
from tng.verdict import AttestedPeer

if TYPE_CHECKING:
    from tng.attest.statement_source import StatementSource
    from tng.attest.verifier.base import StatementVerifier
    from tng.config.model import Attest, Egress, Ingress
    from tng.config.ohttp import EgressOhttp, IngressOhttp
    from tng.gateway.egress.ohttp import OhttpEgress
    from tng.gateway.entries import Services
    from tng.gateway.flow import Flow
    from tng.gateway.ingress.ohttp import OhttpFlow
    from tng.gateway.router import Router
    from tng.observe.metrics import EntryMeter
    from tng.tunnel.base import Opened
    from tng.tunnel.dialer import Dialer
    from tng.tunnel.ohttp.client import OhttpClient
    from tng.tunnel.ohttp.key_source import KeySource
    from tng.tunnel.ohttp.recipients import Recipients

_CLOSE_TIMEOUT_S: Final = 1.0
"""Seconds that closing connections to services may take at the end."""


class NoTunnel:
    """Stands where a flow of plain connections has a tunnel; it is never asked."""

    async def open(self, destination: Endpoint) -> Opened:
        """Nothing is ever opened.

        Raises:
            LocalProtocolError: always.
        """
        raise LocalProtocolError(f"{destination} is reached by OHTTP, not by a stream")


class OpenSource:
    """Keeps a source of statements until the gateway ends, and closes its connections then."""

    def __init__(self, source: StatementSource) -> None:
        self._source = source

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
                await self._source.aclose()

    @property
    def not_ready(self) -> str | None:
        """None: whether there is evidence is found out when it is asked for."""
        return None


@dataclass(frozen=True, slots=True)
class OhttpIngressParts:
    """An ingress.

    Attributes:
        flow: carries clients.
        status: what the control interface shows.
        source: has to run, where the entry attests.
        client: encrypts requests.
    """

    flow: OhttpFlow
    status: Callable[[], dict[str, object]]
    source: OpenSource | None
    client: OhttpClient

    def drain(self) -> None:
        """Close what no request uses, and the rest when it is done."""
        self.flow.let_idle_go()
        self.client.drain()


@dataclass(frozen=True, slots=True)
class OhttpEgressParts:
    """An egress.

    Attributes:
        egress: serves connections.
        keys: has to run before anything is served.
        source: has to run, where the entry attests.
    """

    egress: OhttpEgress
    keys: KeySource
    source: OpenSource | None

    def drain(self) -> None:
        """Close what no request uses, and the rest when it is done."""
        self.egress.let_idle_go()


def ohttp_ingress(
    entry: Ingress,
    settings: IngressOhttp,
    verifier: StatementVerifier | None,
    services: Services,
    dialer: Dialer,
    plain: Flow,
    router: Router,
) -> OhttpIngressParts:
    """The parts of an ingress.

    Args:
        entry: the whole entry.
        settings: its `ohttp`.
        verifier: the judge of egresses, if the operator said `verify`.
        services: what all entries share.
        dialer: makes connections.
        plain: carries clients whose destination is not tunnelled.
        router: which destinations are tunnelled.

    Raises:
        ConfigError: a file of `tls_ca_certs` cannot be used.
    """
    from tng.gateway.ingress.ohttp import OhttpFlow  # starting costs what is used
    from tng.tunnel.ohttp.client import OhttpClient
    from tng.tunnel.ohttp.key_fetch import DEFAULT_INTERVAL_S, KeyFetcher
    from tng.tunnel.ohttp.outer import OuterPath, Passthrough
    from tng.tunnel.ohttp.outer_connection import OuterConnections
    from tng.tunnel.ohttp.recipients import Recipients

    source = _source(entry.attest, services)
    tls = None
    if settings.tls:
        from tng.dataplane.web_tls import WebTls

        tls = WebTls(services.reactor, settings.tls_ca_certs, services.clock)
    outer = OuterConnections(services.reactor, dialer, tls)
    interval = DEFAULT_INTERVAL_S if entry.attest is None else float(entry.attest.refresh_interval)
    fetcher = KeyFetcher(
        services.reactor, services.bridge, outer, source, verifier, interval, services.clock
    )
    recipients = Recipients(services.reactor, services.clock, fetcher.fetch)
    client = OhttpClient(
        services.reactor,
        outer,
        recipients,
        OuterPath(settings.path_rewrites, settings.path_default),
        Passthrough(settings.header_passthrough),
    )
    flow = OhttpFlow(plain, client, router, dialer, entry.mode)
    return OhttpIngressParts(
        flow,
        lambda: _servers(recipients, outer.scheme),
        OpenSource(source) if source else None,
        client,
    )


def ohttp_egress(
    entry: Egress,
    settings: EgressOhttp,
    verifier: StatementVerifier | None,
    keys: KeySource,
    services: Services,
    dialer: Dialer,
    meter: EntryMeter,
) -> OhttpEgressParts:
    """The parts of an egress; arguments as `ohttp_ingress`, and where its keys come from."""
    from tng.gateway.egress.cors import CorsPolicy  # starting costs what is used
    from tng.gateway.egress.direct_forward import DirectForward
    from tng.gateway.egress.ohttp import OhttpEgress, OhttpRules
    from tng.tunnel.ohttp.outer import Passthrough
    from tng.tunnel.ohttp.server import Judge, OhttpServer
    from tng.tunnel.ohttp.statements import KeyStatements

    source = _source(entry.attest, services)
    interval = 0.0 if entry.attest is None else float(entry.attest.refresh_interval)
    server = OhttpServer(
        services.reactor,
        Judge(verifier, services.bridge),
        keys,
        KeyStatements(source, interval, services.clock),
        services.clock,
        services.trust.make_replays(),
    )
    patterns = [rule.http_path for rule in entry.direct_forward or ()]
    patterns += settings.allow_non_tng_traffic_regexes or []
    rules = OhttpRules(
        Passthrough(settings.header_passthrough),
        settings.forward_client_ip,
        DirectForward(patterns),
        CorsPolicy(settings.cors) if settings.cors else None,
    )
    egress = OhttpEgress(services.reactor, server, dialer, rules, entry.mode, meter)
    return OhttpEgressParts(egress, keys, OpenSource(source) if source else None)


def key_source(where: str, settings: EgressOhttp, services: Services) -> KeySource:
    """Where HPKE keys come from; peers that share theirs attest and verify as gateways do.

    Args:
        where: path of `ohttp.key` in the configuration.
        settings: the entry's `ohttp`.
        services: what all entries share.

    Raises:
        ConfigError: the list of peers cannot be read.
    """
    from tng.tunnel.ohttp.key_source import make_key_source  # starting costs what is used

    key = settings.key
    if key is None or key.source != "peer_shared":
        return make_key_source(key, services.clock, where=where)
    from tng.tunnel.ohttp.rats_tls_peers import RatsTlsPeers
    from tng.tunnel.rats_tls.identity import Identity

    identity = verifier = None
    if key.attest is not None:
        source = services.trust.make_source(key.attest, services.clock)
        identity = Identity(source, key.attest.refresh_interval, services.clock)
    if key.verify is not None:
        verifier = services.trust.make_verifier((key.verify,), services.clock)
    peers = RatsTlsPeers(
        services.reactor,
        services.bridge,
        services.dialer,
        Endpoint(key.host, key.port),
        identity,
        verifier,
        services.clock,
    )
    return make_key_source(key, services.clock, where=where, transport=peers)


def _source(attest: Attest | None, services: Services) -> StatementSource | None:
    if attest is None:
        return None
    return services.trust.make_statement_source(attest, services.clock)


def _servers(recipients: Recipients, scheme: str) -> dict[str, object]:
    """The egresses whose key is known, as the reference shows them."""
    servers: list[dict[str, object]] = []
    for url, recipient in recipients.known():
        path = url.path.decode("latin-1")
        shown: dict[str, object] = {
            "url": f"{scheme}://{url.endpoint}{path}",
            "server_public_key": recipient.config.public_key.hex(),
        }
        if isinstance(recipient.peer, AttestedPeer):
            shown["server_attestation"] = recipient.peer.token
        servers.append(shown)
    return {"servers": servers}
