"""The `netfilter_udp` way in: datagrams of unaware programs, captured by TPROXY rules.

Source: spec of the RATS-TLS transport, sections 5.4 and 7.  The egress is where a datagram was
going, and what comes back from there has that address as its source.  A program that sends to
several destinations has a session with each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tng.gateway.datagrams import Door
from tng.gateway.entries import captured_at
from tng.gateway.netfilter.datagrams import CapturedDatagrams, destination_of, is_loopback

if TYPE_CHECKING:
    from tng.config.capture import NetfilterUdp


def door(options: NetfilterUdp) -> Door:
    """What rules lead to us, and on to where it was going."""
    listen, mark = captured_at(options), options.so_mark
    return Door(
        "netfilter_udp",
        lambda: CapturedDatagrams(listen, mark, is_loopback),
        destination_of,
        mark,
    )
