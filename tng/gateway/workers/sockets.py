"""Listening sockets that several processes share: one per worker and address.

In: addresses.  Out: for each worker its sockets, open in the supervisor for as long as it serves,
so that a worker's death closes no queue and loses no connection that waits in one.

The system spreads connections over all sockets of a port that carry SO_REUSEPORT (socket(7)).  The
same option would let a second gateway of the same user slip in beside us unnoticed.  So the first
socket of an address is bound without it, which fails if anybody is there, and gets the option
while it holds the address; the others follow.
"""

from __future__ import annotations

import itertools
import socket
from typing import TYPE_CHECKING

from tng.dataplane.listener import make_listening_socket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tng.endpoint import Endpoint

Listening = dict["Endpoint", list[socket.socket]]
"""The sockets of one worker, by the address that the configuration names; as many for one address
as entries that let the system choose a port (0), in the order of the entries."""


def bind_for_workers(endpoints: Iterable[Endpoint], workers: int) -> list[Listening]:
    """Bind and listen on every address, once per worker.

    Args:
        endpoints: where to listen; no two the same, but for those with port 0.
        workers: 1 or more.

    Raises:
        StartError: an address is in use, forbidden, or not of this machine; nothing stays open.
    """
    bound: list[Listening] = [{} for _ in range(workers)]
    try:
        for endpoint in endpoints:
            first = make_listening_socket(endpoint.host, endpoint.port)
            bound[0].setdefault(endpoint, []).append(first)
            port: int = first.getsockname()[1]
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            for sockets in bound[1:]:
                shared = make_listening_socket(endpoint.host, port, reuse_port=True)
                sockets.setdefault(endpoint, []).append(shared)
    except BaseException:
        close_all(bound)
        raise
    return bound


def close_all(bound: Iterable[Listening]) -> None:
    """Close every socket."""
    for sockets in bound:
        for sock in itertools.chain.from_iterable(sockets.values()):
            sock.close()
        sockets.clear()
