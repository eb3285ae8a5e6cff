"""The `mapping_udp` way in: a UDP port that stands for one egress.

Source: spec of the RATS-TLS transport, section 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tng.endpoint import Endpoint
from tng.gateway.datagrams import Door
from tng.tunnel.quic.sockets import make_udp_socket

if TYPE_CHECKING:
    from tng.config.mapping import MappingUdp


def door(options: MappingUdp) -> Door:
    """Clients send to the one address, and are served by an egress at the other."""
    listen = Endpoint(options.listen.host, options.listen.port)
    target = Endpoint(options.target.host or "", options.target.port)
    return Door("mapping_udp", lambda: make_udp_socket(listen), lambda _: target)
