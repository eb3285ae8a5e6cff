"""A host and a port, and how people write them."""

from __future__ import annotations

import functools
import ipaddress
from typing import NamedTuple


class Endpoint(NamedTuple):
    """Where a connection goes.

    Attributes:
        host: a name, an IPv4 or an IPv6 address without brackets.
        port: 1-65535; 0 only where a listener asks for any free port.
    """

    host: str
    port: int

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP literal, so that nothing has to be resolved."""
        return is_ip_literal(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@functools.lru_cache(maxsize=4096)  # asked for every connection, mostly about the same few
def is_ip_literal(host: str) -> bool:
    """Whether `host` is an IPv4 or IPv6 address, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_authority(text: str, default_port: int | None = None) -> Endpoint:
    """Parse `host`, `host:port` or `[v6]:port` (RFC 3986 section 3.2, without userinfo).

    Args:
        text: the authority.
        default_port: port of an authority that names none; None to refuse those.

    Raises:
        ValueError: not an authority, no port where one is needed, or a port outside 1-65535.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [address]:port")
        ipaddress.IPv6Address(host)
        port_text = rest[1:]
    else:
        host, _, port_text = text.partition(":")
    if not host or not all(c.isalnum() or c in "-._" for c in host.replace(":", "")):
        raise ValueError(f"{text!r} has no valid host")
    if not port_text:
        if default_port is None:
            raise ValueError(f"{text!r} names no port")
        return Endpoint(host, default_port)
    if not (port_text.isascii() and port_text.isdigit() and 1 <= int(port_text[:6]) <= 65535):
        raise ValueError(f"port in {text!r} is not an integer 1-65535")
    return Endpoint(host, int(port_text))
