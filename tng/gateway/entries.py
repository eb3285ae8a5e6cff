"""What an entry of `add_ingress` or `add_egress` consists of, and what all entries share.

`ingress.entry` and `egress.entry` make entries out of the configuration.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tng.clock import Clock
from tng.config.capture import (
    EgressNetfilter,
    EgressNetfilterUdp,
    Netfilter,
    NetfilterUdp,
)
from tng.config.model import Attest, Egress, Ingress, Verify
from tng.config.ohttp import EgressOhttp
from tng.dataplane.reactor import Reactor
from tng.endpoint import Endpoint
from tng.observe.metrics import EntryMeter, Side
from tng.tunnel.bridge import Bridge
from tng.tunnel.dialer import Dialer
from tng.tunnel.rats_tls.identity import Identity, Source

if TYPE_CHECKING:
    from tng.attest.statement_source import StatementSource
    from tng.attest.verifier.base import StatementVerifier, Verifier
    from tng.gateway.datagrams import DatagramEntry
    from tng.gateway.ohttp_entries import OpenSource
    from tng.tunnel.ohttp.key_source import KeySource
    from tng.tunnel.ohttp.replay import Replays

Serve = Callable[[socket.socket, Endpoint], Coroutine[None, None, None]]
"""Serves one accepted TCP connection, given the client's address."""


# What builds a part loads the modules of that part: starting costs what is used.


def make_source(attest: Attest, clock: Clock) -> Source:
    """The source of our certificates that the configuration names."""
    from tng.attest.attester.factory import make_any_attester
    from tng.attest.credential_source import CredentialSource
    from tng.attest.passport import make_issuer

    attester, issuer = make_any_attester(attest), make_issuer(attest)
    return CredentialSource(attester, clock, issuer, attest.policy_ids)


def make_verifier(sections: tuple[Verify, ...], clock: Clock) -> StatementVerifier:
    """The judge that the configuration describes; see `attest.verifier.factory`."""
    from tng.attest.verifier.factory import make_any_verifier

    return make_any_verifier(sections, clock)


def make_statement_source(attest: Attest, clock: Clock) -> StatementSource:
    """The source of evidence and tokens over OHTTP that the configuration names."""
    from tng.attest import statement_source

    return statement_source.make_statement_source(attest, clock)


def make_key_source(where: str, settings: EgressOhttp, services: Services) -> KeySource:
    """The source of HPKE keys that the configuration names; see `ohttp_entries.key_source`."""
    from tng.gateway.ohttp_entries import key_source

    return key_source(where, settings, services)


def make_replays() -> Replays:
    """A memory of the requests that an OHTTP egress has seen."""
    from tng.tunnel.ohttp.replay import ReplayGuard

    return ReplayGuard()


@dataclass(frozen=True, slots=True)
class Trust:
    """Who makes certificates and keys and who judges; workers and tests put others in their place.

    Attributes:
        make_source: sources of certificates.
        make_verifier: judges.
        make_statement_source: sources of evidence and tokens over OHTTP.
        make_key_source: sources of HPKE keys.
        make_replays: memories of the requests that an OHTTP egress has seen.
    """

    make_source: Callable[[Attest, Clock], Source] = make_source
    make_verifier: Callable[[tuple[Verify, ...], Clock], StatementVerifier] = make_verifier
    make_statement_source: Callable[[Attest, Clock], StatementSource] = make_statement_source
    make_key_source: Callable[[str, EgressOhttp, Services], KeySource] = make_key_source
    make_replays: Callable[[], Replays] = make_replays


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
        pool_status: what the control interface shows of shared tunnels; None where none are.
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
    pool_status: Callable[[], dict[str, object]] | None = None
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


def dialer_of(entry: Ingress | Egress, services: Services) -> Dialer:
    """What connects for an entry: with the mark that keeps its rules from capturing us."""
    if entry.netfilter is None:
        return services.dialer
    return Dialer(services.reactor, services.bridge, entry.netfilter.so_mark)


def captured_at(capture: Netfilter | EgressNetfilter | NetfilterUdp) -> Endpoint:
    """Where rules lead to: at an ingress to loopback, at an egress whatever address was used."""
    is_egress = isinstance(capture, EgressNetfilter | EgressNetfilterUdp)
    host = "0.0.0.0" if is_egress else "127.0.0.1"  # noqa: S104
    return Endpoint(host, capture.listen_port or 0)


def identity_of(attest: Attest | None, services: Services) -> Identity | None:
    """Our certificate, if the operator said `attest`."""
    if attest is None:
        return None
    source = services.trust.make_source(attest, services.clock)
    return Identity(source, attest.refresh_interval, services.clock)


def verifier_of(verifiers: tuple[Verify, ...], services: Services) -> StatementVerifier | None:
    """The judge of peers, if the operator said `verify`."""
    return services.trust.make_verifier(verifiers, services.clock) if verifiers else None
