"""From an entry in a UDP mode to its parts; imported only where there is one: it needs QUIC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tng.config.model import Egress
from tng.gateway.egress import mapping_udp as mapping_out
from tng.gateway.egress import netfilter_udp as netfilter_out
from tng.gateway.egress.datagram_sessions import DatagramEgress
from tng.gateway.entries import Entry, identity_of, verifier_of
from tng.gateway.ingress import mapping_udp as mapping_in
from tng.gateway.ingress import netfilter_udp as netfilter_in
from tng.gateway.ingress.datagram_clients import DatagramIngress
from tng.gateway.labels import labels_of
from tng.observe.metrics import EntryMeter, Side
from tng.tunnel.quic.client import QuicClient

if TYPE_CHECKING:
    from tng.config.model import Ingress
    from tng.gateway.datagrams import DatagramEntry, Door
    from tng.gateway.entries import Services


def datagram_entry(number: int, entry: Ingress | Egress, services: Services) -> Entry:
    """The parts of an entry in a UDP mode.

    Args:
        number: its position in `add_ingress` or `add_egress`.
        entry: the entry.
        services: what all entries share.
    """
    side: Side = "egress" if isinstance(entry, Egress) else "ingress"
    identity, verifier = identity_of(entry.attest, services), verifier_of(entry.verifiers, services)
    meter = EntryMeter(labels_of(side, number, entry))
    largest = entry.quic.max_datagram_size if entry.quic else None
    idle_s, door, clock = _idle_s(entry), _door(entry), services.clock
    mode: DatagramEntry
    if side == "egress":
        mode = DatagramEgress(door, identity, verifier, clock, idle_s, largest, meter)
    else:
        client = QuicClient(identity, verifier, clock, idle_s, door.mark)
        mode = DatagramIngress(door, client, idle_s, largest, meter)
    return Entry(
        side, number, entry.mode, [], None, identity, verifier, None, meter, datagrams=mode
    )


def _idle_s(entry: Ingress | Egress) -> int:
    options = entry.mapping_udp or entry.netfilter_udp
    if options is None:
        raise AssertionError(f"{entry.mode!r} is no UDP mode")
    return options.idle_timeout_secs


def _door(entry: Ingress | Egress) -> Door:
    if isinstance(entry, Egress):
        if entry.mapping_udp is not None:
            return mapping_out.door(entry.mapping_udp)
        if entry.netfilter_udp is not None:
            return netfilter_out.door(entry.netfilter_udp)
    else:
        if entry.mapping_udp is not None:
            return mapping_in.door(entry.mapping_udp)
        if entry.netfilter_udp is not None:
            return netfilter_in.door(entry.netfilter_udp)
    raise AssertionError(f"{entry.mode!r} is no UDP mode")
