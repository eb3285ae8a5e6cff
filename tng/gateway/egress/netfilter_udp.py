"""The `netfilter_udp` way out: sessions with services of this machine, captured by TPROXY rules.

Source: spec of the RATS-TLS transport, sections 6.2 and 7.  A session arrives at the address of a
service, and is answered from there; the service gets its datagrams from a socket of ours that no
rule captures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tng.gateway.datagrams import Door
from tng.gateway.entries import captured_at
from tng.gateway.netfilter.datagrams import CapturedDatagrams, destination_of, is_own_port

if TYPE_CHECKING:
    from tng.config.capture import EgressNetfilterUdp


def door(options: EgressNetfilterUdp) -> Door:
    """What rules lead to us, and on to the service that it was meant for."""
    listen, mark = captured_at(options), options.so_mark
    return Door(
        "netfilter_udp",
        lambda: CapturedDatagrams(listen, mark, is_own_port),
        destination_of,
        mark,
    )
