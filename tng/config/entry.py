"""One tunnel end: an element of `add_ingress` or `add_egress`.

In: one mode (how traffic enters), one transport, and what is shown to and demanded of the peer.
Source: TNG 2.12.
Invariant: an entry has exactly one mode, at most one transport, and says what it trusts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Final

from pydantic import AliasChoices, Discriminator, Field, Tag

from tng.config.attest import Attest
from tng.config.capture import (
    EgressHook,
    EgressNetfilter,
    EgressNetfilterUdp,
    Hook,
    Netfilter,
    NetfilterUdp,
)
from tng.config.mapping import Mapping, MappingUdp
from tng.config.ohttp import EgressOhttp, IngressOhttp
from tng.config.proxy import HttpProxy, Socks5
from tng.config.strict import Fault, StrictModel
from tng.config.trust import trust_faults
from tng.config.values import Flag, Regex, Whole
from tng.config.verify import Verify

_MAX_VERIFIERS: Final = 8  # each is asked about every peer
_MAX_PATTERNS: Final = 256  # each is tried for every connection


class RatsTls(StrictModel):
    """The default transport: TLS 1.3 with evidence in the certificate."""

    multiplex: Flag | None = Field(
        default=None,
        description="Whether connections share tunnels.  Absent: they do where the peer can; "
        "true and false force one (the reference's default is false).",
    )
    multiplex_max_streams_per_connection: Annotated[int, Whole(1, 0xFFFFFFFF)] | None = Field(
        default=None, description="Ingress: connections in a tunnel before another one is opened."
    )
    multiplex_max_connections: Annotated[int, Whole(1, 0xFFFFFFFF)] | None = Field(
        default=None, description="Ingress: tunnels to one egress; each worker has as many."
    )

    @property
    def has_limits(self) -> bool:
        """Whether a limit of multiplexing is written."""
        limits = (self.multiplex_max_streams_per_connection, self.multiplex_max_connections)
        return any(limit is not None for limit in limits)

    def faults(self) -> Iterator[Fault]:
        """Limits of something that is used."""
        if self.has_limits and self.multiplex is not True:
            yield Fault(
                (),
                "`multiplex_max_streams_per_connection` and `multiplex_max_connections` "
                "require `rats_tls.multiplex: true`",
            )


class Quic(StrictModel):
    """Settings of the transport of the UDP modes."""

    max_datagram_size: Annotated[int, Whole(1, 65_535, "octets")] | None = Field(
        default=None,
        description="Larger datagrams are dropped; absent: what the network path carries.",
    )


class DirectForward(StrictModel):
    """Plain HTTP requests that an egress passes on."""

    http_path: Regex = Field(description="Pattern searched in the path; anchor it with `^`, `$`.")


def _one_or_many(value: object) -> str:
    return "<many>" if isinstance(value, list) else "<one>"


_Verifiers = Annotated[
    Annotated[Verify, Tag("<one>")]
    | Annotated[list[Verify], Field(min_length=1, max_length=_MAX_VERIFIERS), Tag("<many>")],
    Discriminator(_one_or_many),
]


class _Entry(StrictModel):
    MODES: ClassVar[tuple[str, ...]]
    WHERE: ClassVar[str]

    rats_tls: RatsTls | None = Field(
        default=None, description="Transport RATS-TLS and its settings; the default."
    )
    quic: Quic | None = Field(default=None, description="Settings of the UDP modes.")
    no_ra: Flag = Field(
        default=False, description="No remote attestation in either direction.  Not for production."
    )
    attest: Attest | None = Field(default=None, description="What this side shows of itself.")
    verify: _Verifiers | None = Field(
        default=None, description="What is demanded of the peer; a list: any one of them."
    )

    @property
    def mode(self) -> str:
        """Name of the one mode that is configured."""
        return self._modes()[0]

    @property
    def verifiers(self) -> tuple[Verify, ...]:
        """`verify` as a tuple, empty where it is absent."""
        if self.verify is None:
            return ()
        return tuple(self.verify) if isinstance(self.verify, list) else (self.verify,)

    def faults(self) -> Iterator[Fault]:
        """One mode, at most one transport, and a word about trust."""
        modes = self._modes()
        if len(modes) != 1:
            seen = " and ".join(modes) or "none"
            yield Fault((), f"expected exactly one of {', '.join(self.MODES)}, got {seen}")
        if self.rats_tls is not None and getattr(self, "ohttp", None) is not None:
            yield Fault(
                (), "cannot specify both `ohttp` and `rats_tls`: they are mutually exclusive"
            )
        yield from trust_faults(
            no_ra=self.no_ra,
            attest=self.attest is not None,
            verify=self.verify is not None,
            where=self.WHERE,
        )

    def _modes(self) -> list[str]:
        return [name for name in self.MODES if getattr(self, name) is not None]


class Ingress(_Entry):
    """The client's end of tunnels."""

    MODES: ClassVar[tuple[str, ...]] = (
        "mapping",
        "http_proxy",
        "socks5",
        "netfilter",
        "netfilter_udp",
        "hook",
        "mapping_udp",
    )
    WHERE = "add_ingress"

    mapping: Mapping | None = Field(default=None, description="Mode: fixed ports.")
    http_proxy: HttpProxy | None = Field(default=None, description="Mode: an HTTP proxy.")
    socks5: Socks5 | None = Field(default=None, description="Mode: a SOCKS5 proxy.")
    netfilter: Netfilter | None = Field(default=None, description="Mode: captured TCP connections.")
    netfilter_udp: NetfilterUdp | None = Field(
        default=None, description="Mode: captured UDP datagrams."
    )
    hook: Hook | None = Field(default=None, description="Mode: connections of one program.")
    mapping_udp: MappingUdp | None = Field(default=None, description="Mode: a fixed UDP port.")
    ohttp: IngressOhttp | None = Field(
        default=None,
        validation_alias=AliasChoices("ohttp", "encap_in_http"),
        description="Transport Oblivious HTTP and its settings, instead of `rats_tls`.",
    )


class Egress(_Entry):
    """The service's end of tunnels."""

    MODES: ClassVar[tuple[str, ...]] = (
        "mapping",
        "netfilter",
        "netfilter_udp",
        "hook",
        "mapping_udp",
    )
    WHERE = "add_egress"

    mapping: Mapping | None = Field(default=None, description="Mode: fixed ports.")
    netfilter: EgressNetfilter | None = Field(
        default=None, description="Mode: captured TCP connections."
    )
    netfilter_udp: EgressNetfilterUdp | None = Field(
        default=None, description="Mode: captured UDP datagrams."
    )
    hook: EgressHook | None = Field(default=None, description="Mode: listeners of one program.")
    mapping_udp: MappingUdp | None = Field(default=None, description="Mode: a fixed UDP port.")
    ohttp: EgressOhttp | None = Field(
        default=None,
        validation_alias=AliasChoices("ohttp", "decap_from_http"),
        description="Transport Oblivious HTTP and its settings, instead of `rats_tls`.",
    )
    direct_forward: Annotated[list[DirectForward], Field(max_length=_MAX_PATTERNS)] | None = Field(
        default=None, description="Plain HTTP requests that are passed on without a tunnel."
    )

    def faults(self) -> Iterator[Fault]:
        """The rules of every entry, and those of the egress."""
        yield from super().faults()
        if self.rats_tls is not None and self.rats_tls.has_limits:
            yield Fault(
                ("rats_tls",), "limits of multiplexing are for add_ingress; expected `multiplex`"
            )
        if (
            self.direct_forward is not None
            and self.ohttp is not None
            and self.ohttp.allow_non_tng_traffic_regexes is not None
        ):
            yield Fault(
                ("ohttp", "allow_non_tng_traffic_regexes"),
                "is the old form of `direct_forward`: give one of them",
            )
