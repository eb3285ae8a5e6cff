"""The `mapping_udp` way out: every session of one UDP port goes to one service.

Source: spec of the RATS-TLS transport, section 7.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tng.endpoint import Endpoint
from tng.gateway.datagrams import Door
from tng.tunnel.quic.sockets import forbid_fragments, make_udp_socket

if TYPE_CHECKING:
    from tng.config.mapping import MappingUdp


def door(options: MappingUdp) -> Door:
    """Ingresses send to the one address, and the service is at the other."""
    listen = Endpoint(options.listen.host, options.listen.port)
    target = Endpoint(options.target.host or "", options.target.port)

    def make_socket() -> socket.socket:
        sock = make_udp_socket(listen)
        forbid_fragments(sock)
        return sock

    return Door("mapping_udp", make_socket, lambda _: target)
