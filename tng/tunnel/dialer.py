"""Outgoing TCP connections by name or address."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

import trio

from tng.dataplane import dial
from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.endpoint import Endpoint, is_ip_literal
from tng.errors import NetError
from tng.tunnel.bridge import Bridge

CONNECT_TIMEOUT_S: Final = 10.0
"""Seconds for all addresses of one name together: kernels alone would wait two minutes."""

RESOLVE_TIMEOUT_S: Final = 10.0
"""Seconds for name resolution."""

Address = tuple[int, tuple[str, int] | tuple[str, int, int, int]]
"""Address family and socket address, as `socket.connect` takes it."""


class Dialer:
    """Connects to endpoints from within the reactor.

    Args:
        reactor: where the connections live.
        bridge: through which names are resolved.
        mark: firewall mark of the connections, 1 or more, so that no rule captures them (Linux);
            None for none.
    """

    def __init__(self, reactor: Reactor, bridge: Bridge, mark: int | None = None) -> None:
        self._reactor = reactor
        self._bridge = bridge
        self._mark = mark

    async def connect_socket(self, endpoint: Endpoint) -> socket.socket:
        """A connected, non-blocking socket, to be owned by the caller.

        Raises:
            NetError: the name has no address, or no address answers within `CONNECT_TIMEOUT_S`.
        """
        addresses: Sequence[Address]
        if is_ip_literal(endpoint.host):
            addresses = (literal_address(endpoint),)
        else:
            addresses = await self._bridge.ask(resolve, endpoint)
        return await dial.connect_socket(
            self._reactor, addresses, CONNECT_TIMEOUT_S, mark=self._mark
        )

    async def connect(self, endpoint: Endpoint) -> PlainEnd:
        """A plain connection, to be closed by the caller.

        Raises:
            NetError: see `connect_socket`.
        """
        return PlainEnd(self._reactor, await self.connect_socket(endpoint))


def literal_address(endpoint: Endpoint) -> Address:
    """The socket address of an endpoint whose host is an IP literal."""
    if ":" in endpoint.host:
        return (socket.AF_INET6, (endpoint.host, endpoint.port, 0, 0))
    return (socket.AF_INET, (endpoint.host, endpoint.port))


async def resolve(endpoint: Endpoint) -> list[Address]:
    """All TCP addresses of a name, in the system resolver's order (trio side).

    Raises:
        NetError: the name does not resolve, or not within `RESOLVE_TIMEOUT_S`.
    """
    try:
        with trio.fail_after(RESOLVE_TIMEOUT_S):
            found = await trio.socket.getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_STREAM
            )
    except trio.TooSlowError as exc:
        raise NetError(f"{endpoint.host} was not resolved within {RESOLVE_TIMEOUT_S:g} s") from exc
    except (OSError, UnicodeError) as exc:
        raise NetError(f"cannot resolve {endpoint.host!r}: {exc}") from exc
    return [(int(family), address) for family, _, _, _, address in found]  # type: ignore[misc]
