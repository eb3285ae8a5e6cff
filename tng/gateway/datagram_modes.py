"""From configuration to a UDP mode; imported only where one is configured, since it needs QUIC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tng.endpoint import Endpoint
from tng.gateway.egress.mapping_udp import MappingUdpEgress
from tng.gateway.ingress.mapping_udp import MappingUdpIngress
from tng.tunnel.quic.client import QuicClient

if TYPE_CHECKING:
    from tng.attest.verifier.base import Verifier
    from tng.clock import Clock
    from tng.config.model import Egress, Ingress
    from tng.gateway.datagrams import DatagramEntry
    from tng.observe.metrics import EntryMeter
    from tng.tunnel.rats_tls.identity import Identity


def make_datagram_ingress(
    entry: Ingress,
    identity: Identity | None,
    verifier: Verifier | None,
    clock: Clock,
    meter: EntryMeter,
) -> DatagramEntry:
    """The UDP mode of an `add_ingress` entry."""
    mode = entry.mapping_udp
    if mode is None:
        raise AssertionError(f"{entry.mode!r} is no UDP mode of this version")
    client = QuicClient(identity, verifier, clock, mode.idle_timeout_secs)
    return MappingUdpIngress(
        client,
        Endpoint(mode.listen.host, mode.listen.port),
        Endpoint(mode.target.host or "", mode.target.port),
        mode.idle_timeout_secs,
        entry.quic.max_datagram_size if entry.quic else None,
        meter,
    )


def make_datagram_egress(
    entry: Egress,
    identity: Identity | None,
    verifier: Verifier | None,
    clock: Clock,
    meter: EntryMeter,
) -> DatagramEntry:
    """The UDP mode of an `add_egress` entry."""
    mode = entry.mapping_udp
    if mode is None:
        raise AssertionError(f"{entry.mode!r} is no UDP mode of this version")
    return MappingUdpEgress(
        identity,
        verifier,
        clock,
        Endpoint(mode.listen.host, mode.listen.port),
        Endpoint(mode.target.host or "", mode.target.port),
        mode.idle_timeout_secs,
        entry.quic.max_datagram_size if entry.quic else None,
        meter,
    )
