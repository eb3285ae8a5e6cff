"""From configuration to a UDP mode; imported only where one is configured, since it needs QUIC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tng.gateway.egress import mapping_udp as mapping_out
from tng.gateway.egress import netfilter_udp as netfilter_out
from tng.gateway.egress.datagram_sessions import DatagramEgress
from tng.gateway.ingress import mapping_udp as mapping_in
from tng.gateway.ingress import netfilter_udp as netfilter_in
from tng.gateway.ingress.datagram_clients import DatagramIngress
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
    if entry.mapping_udp is not None:
        idle_s, door = entry.mapping_udp.idle_timeout_secs, mapping_in.door(entry.mapping_udp)
    elif entry.netfilter_udp is not None:
        idle_s, door = entry.netfilter_udp.idle_timeout_secs, netfilter_in.door(entry.netfilter_udp)
    else:
        raise AssertionError(f"{entry.mode!r} is no UDP mode")
    client = QuicClient(identity, verifier, clock, idle_s, door.mark)
    largest = entry.quic.max_datagram_size if entry.quic else None
    return DatagramIngress(door, client, idle_s, largest, meter)


def make_datagram_egress(
    entry: Egress,
    identity: Identity | None,
    verifier: Verifier | None,
    clock: Clock,
    meter: EntryMeter,
) -> DatagramEntry:
    """The UDP mode of an `add_egress` entry."""
    if entry.mapping_udp is not None:
        idle_s, door = entry.mapping_udp.idle_timeout_secs, mapping_out.door(entry.mapping_udp)
    elif entry.netfilter_udp is not None:
        idle_s = entry.netfilter_udp.idle_timeout_secs
        door = netfilter_out.door(entry.netfilter_udp)
    else:
        raise AssertionError(f"{entry.mode!r} is no UDP mode")
    largest = entry.quic.max_datagram_size if entry.quic else None
    return DatagramEgress(door, identity, verifier, clock, idle_s, largest, meter)
