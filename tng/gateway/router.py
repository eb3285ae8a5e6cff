"""Which destinations go through the tunnel, and which go out plain.

Source: spec of the RATS-TLS transport, section 5.2 (`dst_filters`).  Without filters everything is
tunnelled; with filters, what any of them matches.  Names are never resolved to decide.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from tng.config.model import DstFilter
from tng.endpoint import Endpoint

_Matcher = Callable[[Endpoint], bool]


class Router:
    """Decides for one `add_ingress` entry.

    Args:
        filters: as configured and checked; empty to tunnel everything.
    """

    def __init__(self, filters: Sequence[DstFilter] = ()) -> None:
        self._matchers = [_matcher(entry) for entry in filters]

    def is_tunnelled(self, destination: Endpoint) -> bool:
        """Whether a connection to `destination` goes through the tunnel."""
        return not self._matchers or any(matches(destination) for matches in self._matchers)


def _matcher(entry: DstFilter) -> _Matcher:
    host, port = _host_matcher(entry), _port_matcher(entry)
    return lambda destination: host(destination) and port(destination)


def _host_matcher(entry: DstFilter) -> _Matcher:
    # The first key present decides, in this order.
    if entry.domain is not None:
        return _domain_matcher(entry.domain)
    if entry.domain_regex is not None:
        import re2  # here, because only patterns need it and it is slow to load

        pattern = re2.compile(entry.domain_regex)
        return lambda to: not to.is_address and pattern.search(to.host) is not None
    if entry.ip is not None:
        address = ipaddress.ip_address(entry.ip)
        return lambda to: to.is_address and ipaddress.ip_address(to.host) == address
    if entry.ip_cidr is not None:
        network = ipaddress.ip_network(entry.ip_cidr)
        return lambda to: to.is_address and ipaddress.ip_address(to.host) in network
    return lambda _: True


def _domain_matcher(pattern: str) -> _Matcher:
    """Names only, case-sensitive; `*` alone, in front or at the end stands for anything."""
    if pattern == "*":
        return lambda to: not to.is_address
    if pattern.startswith("*"):
        return lambda to: not to.is_address and to.host.endswith(pattern[1:])
    if pattern.endswith("*"):
        return lambda to: not to.is_address and to.host.startswith(pattern[:-1])
    return lambda to: not to.is_address and to.host == pattern


def _port_matcher(entry: DstFilter) -> _Matcher:
    first = entry.port
    if first is None:
        return lambda _: True
    last = first if entry.port_end is None else entry.port_end
    return lambda to: first <= to.port <= last
