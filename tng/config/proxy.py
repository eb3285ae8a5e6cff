"""Proxies for clients: the ingress modes `http_proxy` and `socks5`, and their destination filters.

Source: TNG 2.12.  A filter says which destinations go through the tunnel; what matches is decided
by the router, not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import AliasChoices, Field

from tng.config.secret import Secret
from tng.config.strict import Fault, StrictModel, written_keys
from tng.config.values import (
    Address,
    BindHost,
    Cidr,
    DomainPattern,
    Name,
    ObjectOrList,
    Port,
    Regex,
)

_MAX_SOCKS_TEXT: Final = 255  # RFC 1929 section 2
_MAX_FILTERS: Final = 1024  # each is tried for every connection


class Listen(StrictModel):
    """Where a proxy listens."""

    host: BindHost = Field(default="0.0.0.0", description="Address to listen on.")  # noqa: S104 - as TNG
    port: Port = Field(description="Port to listen on.")


class DstFilter(StrictModel):
    """Destinations that go through the tunnel: a host part and a port part, both must match."""

    domain: DomainPattern | None = Field(
        default=None,
        description="Domain, case-sensitive; `*` at the start or end stands for any text.  "
        "Never matches an IP literal.",
    )
    domain_regex: Regex | None = Field(
        default=None, description="Pattern searched in the domain; anchor it with `^` and `$`."
    )
    ip: Address | None = Field(default=None, description="IP literal that is equal.")
    ip_cidr: Cidr | None = Field(default=None, description="Range that contains the IP literal.")
    port: Port | None = Field(
        default=None, description="Port, or the first port; absent: any port."
    )
    port_end: Port | None = Field(default=None, description="Last port, inclusive.")

    def faults(self) -> Iterator[Fault]:
        """One host part at most, and a range that goes upwards."""
        hosts = sorted(written_keys(self) & {"domain", "domain_regex", "ip", "ip_cidr"})
        if len(hosts) > 1:
            yield Fault((), f"expected one of domain, domain_regex, ip, ip_cidr, got {_and(hosts)}")
        yield from port_faults(self.port, self.port_end)


def port_faults(port: int | None, port_end: int | None) -> Iterator[Fault]:
    """Faults of a pair `port`, `port_end` that are both optional."""
    if port_end is not None and port is None:
        yield Fault(("port_end",), "`port_end` requires `port` to be specified")
    if port_end is not None and port is not None and port_end < port:
        yield Fault(("port_end",), f"`port_end` ({port_end}) must be >= `port` ({port})")


def _and(words: list[str]) -> str:
    return " and ".join(words)


class HttpProxy(StrictModel):
    """Mode `http_proxy`: clients use the ingress as their HTTP proxy."""

    proxy_listen: Listen = Field(description="Where to listen.")
    dst_filters: Annotated[list[DstFilter], Field(max_length=_MAX_FILTERS), ObjectOrList()] = Field(
        default_factory=list,
        validation_alias=AliasChoices("dst_filters", "dst_filter"),
        description="Destinations that go through the tunnel, all others directly; "
        "absent or empty: everything goes through the tunnel.",
    )


class Socks5Auth(StrictModel):
    """Name and password that a SOCKS client must give (RFC 1929)."""

    username: Name = Field(description="User name.")
    password: Secret = Field(description="Password; never shown.")

    def faults(self) -> Iterator[Fault]:
        """The protocol has one octet for the length of each."""
        if len(self.username.encode()) > _MAX_SOCKS_TEXT:
            yield Fault(("username",), f"longer than {_MAX_SOCKS_TEXT} octets")
        if not 1 <= len(self.password.reveal().encode()) <= _MAX_SOCKS_TEXT:
            yield Fault(("password",), f"expected 1 to {_MAX_SOCKS_TEXT} octets")


class Socks5(StrictModel):
    """Mode `socks5`: clients use the ingress as their SOCKS5 proxy."""

    proxy_listen: Listen = Field(description="Where to listen.")
    dst_filters: Annotated[list[DstFilter], Field(max_length=_MAX_FILTERS)] = Field(
        default_factory=list,
        description="Destinations that go through the tunnel, all others directly; "
        "absent or empty: everything goes through the tunnel.",
    )
    auth: Socks5Auth | None = Field(default=None, description="Absent: no authentication.")
