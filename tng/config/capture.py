"""Captured traffic: the modes `netfilter`, `netfilter_udp` and `hook`.

Source: TNG 2.12.  Netfilter modes take traffic with iptables rules; `hook` takes the connections of
one program, and works under `tng exec` only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field

from tng.config.proxy import port_faults
from tng.config.strict import Fault, StrictModel
from tng.config.values import Address, Cidr, Flag, Name, ObjectOrList, Path, Port, Whole

_MAX_RULES: Final = 1024  # each becomes an iptables rule, tried for every packet
_MAX_MARK: Final = 0xFFFFFFFF  # a firewall mark has 32 bits
_SO_MARK: Final = 565  # the reference's value (v2.12.0), so that both exempt each other's traffic


RESERVED_MARKS: Final = 0x540000
RESERVED_MARK_MASK: Final = 0xFFC000
"""Marks with these bits are given to captured packets (`gateway.netfilter`)."""


class CaptureDst(StrictModel):
    """Destinations to capture."""

    host: Cidr | None = Field(default=None, description="Address or address range.")
    ipset: Name | None = Field(default=None, description="Name of an ipset, instead of `host`.")
    port: Port | None = Field(
        default=None, description="Port, or the first port; absent: any port."
    )
    port_end: Port | None = Field(default=None, description="Last port, inclusive.")

    def faults(self) -> Iterator[Fault]:
        """Something is named, and not two kinds of host."""
        if self.host is None and self.ipset is None and self.port is None:
            yield Fault((), "one of host, ipset, port must be specified")
        if self.host is not None and self.ipset is not None:
            yield Fault(("ipset",), "only one of host or ipset can be specified")
        yield from port_faults(self.port, self.port_end)


class _Capture(StrictModel):
    capture_dst: Annotated[list[CaptureDst], Field(max_length=_MAX_RULES), ObjectOrList()] = Field(
        default_factory=list, description="Destinations to capture."
    )
    capture_cgroup: Annotated[list[Path], Field(max_length=_MAX_RULES)] = Field(
        default_factory=list, description="Control groups whose traffic is captured."
    )
    nocapture_cgroup: Annotated[list[Path], Field(max_length=_MAX_RULES)] = Field(
        default_factory=list, description="Control groups whose traffic is left alone."
    )
    listen_port: Port | None = Field(
        default=None, description="Port that captured traffic is led to; absent: any free port."
    )
    so_mark: Annotated[int, Whole(0, _MAX_MARK)] = Field(
        default=_SO_MARK, description="Firewall mark of own connections, which are never captured."
    )


class Netfilter(_Capture):
    """Mode `netfilter` of an ingress: TCP connections taken by TPROXY rules."""

    def faults(self) -> Iterator[Fault]:
        """Something is captured, of a family that is served, and our own mark is one."""
        yield from _something_captured(self)
        yield from _rule_faults(self)


class EgressNetfilter(_Capture):
    """Mode `netfilter` of an egress: TCP connections taken by REDIRECT rules."""

    capture_dst: Annotated[list[CaptureDst], Field(max_length=_MAX_RULES), ObjectOrList()] = Field(
        default_factory=list,
        description="Addresses and ports of this machine to capture; absent: connections from "
        "elsewhere are not captured.",
    )
    capture_cgroup: Annotated[list[Path], Field(max_length=_MAX_RULES)] = Field(
        default_factory=list,
        description="Senders on this machine whose connections are captured, by control group; "
        "senders elsewhere have none, and are chosen by `capture_dst` alone.",
    )
    nocapture_cgroup: Annotated[list[Path], Field(max_length=_MAX_RULES)] = Field(
        default_factory=list,
        description="Senders on this machine whose connections are left alone, by control group.",
    )
    capture_local_traffic: Flag = Field(
        default=False,
        description="Whether connections from this machine are captured as well; with "
        "`capture_cgroup` those of its groups are, in any case.",
    )

    def faults(self) -> Iterator[Fault]:
        """Something is captured, of a family that is served, and our own mark is one."""
        yield from _something_captured(self)
        yield from _rule_faults(self)


def _something_captured(capture: _Capture) -> Iterator[Fault]:
    if not capture.capture_dst and not capture.capture_cgroup:
        yield Fault((), "at least one of capture_dst, capture_cgroup must be set and not empty")


def _rule_faults(capture: _Capture) -> Iterator[Fault]:
    """What no rule can express."""
    if capture.so_mark == 0 or capture.so_mark & RESERVED_MARK_MASK == RESERVED_MARKS:
        yield Fault(
            ("so_mark",),
            "expected a mark other than 0 and 0x540000 to 0x543fff, which captured packets have, "
            f"got {capture.so_mark:#x}",
        )
    for number, rule in enumerate(capture.capture_dst):
        if rule.host is not None and ":" in rule.host:
            yield Fault(
                ("capture_dst", number, "host"), "expected IPv4: IPv6 is not captured by rules"
            )


class NetfilterUdp(_Capture):
    """Mode `netfilter_udp`: UDP datagrams taken by TPROXY rules; empty captures everything."""

    idle_timeout_secs: Annotated[int, Whole(1, 86_400, "seconds")] = Field(
        default=30, description="A session without datagrams for so long is closed."
    )

    def faults(self) -> Iterator[Fault]:
        """Rules can express it, and the listener does not capture itself."""
        yield from _rule_faults(self)
        for number, rule in enumerate(self.capture_dst):
            last = rule.port_end or rule.port
            if self.listen_port and rule.port and last and rule.port <= self.listen_port <= last:
                yield Fault(
                    ("listen_port",),
                    f"`listen_port` ({self.listen_port}) must not overlap "
                    f"capture_dst[{number}] ({rule.port}-{last}): it would take its own traffic",
                )


class EgressNetfilterUdp(NetfilterUdp):
    """Mode `netfilter_udp` of an egress."""

    capture_cgroup: Annotated[list[Path], Field(max_length=_MAX_RULES)] = Field(
        default_factory=list,
        description="Must be empty: where datagrams arrive, no rule knows the control group of "
        "their sender.",
    )
    nocapture_cgroup: Annotated[list[Path], Field(max_length=_MAX_RULES)] = Field(
        default_factory=list, description="Must be empty; see `capture_cgroup`."
    )
    capture_local_traffic: Flag = Field(
        default=False, description="Whether datagrams from this machine are captured as well."
    )

    def faults(self) -> Iterator[Fault]:
        """Nothing is asked for that no rule can do."""
        yield from super().faults()
        for name in ("capture_cgroup", "nocapture_cgroup"):
            if getattr(self, name):
                yield Fault(
                    (name,),
                    "expected none at an egress: where datagrams arrive, no rule knows the control "
                    "group of their sender; use capture_dst",
                )


class HookDst(StrictModel):
    """Destinations of the program to capture."""

    host: Cidr | None = Field(default=None, description="Address or address range; absent: any.")
    port: Port | None = Field(default=None, description="Port, or the first port.  Required.")
    port_end: Port | None = Field(default=None, description="Last port, inclusive.")

    def faults(self) -> Iterator[Fault]:
        """A port is named."""
        if self.port is None:
            yield Fault(("port",), "'port' is required")
        yield from port_faults(self.port, self.port_end)


class Hook(StrictModel):
    """Mode `hook` of an ingress: connections of one program, under `tng exec`."""

    capture_dst: Annotated[list[HookDst], Field(max_length=_MAX_RULES), ObjectOrList()] = Field(
        default_factory=list, description="Destinations to capture."
    )
    proxy_listen: Address | None = Field(
        default=None, description="Address of the private proxy; absent: 127.0.0.1."
    )
    proxy_port: Port | None = Field(
        default=None, description="Port of the private proxy; absent: any free port."
    )
    capture_local_traffic: Flag = Field(
        default=False, description="Whether connections to this machine are captured as well."
    )

    def faults(self) -> Iterator[Fault]:
        """Something is captured."""
        if not self.capture_dst:
            yield Fault((), "'hook' mode but no capture_dst entries")


class HookListen(StrictModel):
    """Ports of the program that are moved behind the egress."""

    host: Address | None = Field(
        default=None, description="Address the program listens on; absent: any."
    )
    ifname: Name | None = Field(default=None, description="Network interface; absent: any.")
    port: Port | None = Field(default=None, description="Port, or the first port.  Required.")
    port_end: Port | None = Field(default=None, description="Last port, inclusive.")
    redirect_to_port: Port | None = Field(
        default=None, description="Where the program really listens; absent: any free port."
    )
    redirect_to_port_end: Port | None = Field(
        default=None, description="Last such port, inclusive."
    )

    def faults(self) -> Iterator[Fault]:
        """A port is named, and both ranges have the same size."""
        if self.port is None:
            yield Fault(("port",), "'port' is required")
        yield from port_faults(self.port, self.port_end)
        start, end = self.redirect_to_port, self.redirect_to_port_end
        if start is None and end is not None:
            yield Fault(("redirect_to_port_end",), "requires 'redirect_to_port' to be specified")
        if start is None or self.port is None:
            return
        if end is None and self.port_end is not None:
            yield Fault(
                ("redirect_to_port_end",),
                "'redirect_to_port_end' must be set when 'redirect_to_port' is set "
                "with a port range (port_end is present)",
            )
            return
        length, redirected = (self.port_end or self.port) - self.port, (end or start) - start
        if length != redirected:
            yield Fault(
                ("redirect_to_port_end",),
                f"port range length ({length + 1}) must match "
                f"redirect range length ({redirected + 1})",
            )


class EgressHook(StrictModel):
    """Mode `hook` of an egress: listeners of one program, under `tng exec`."""

    capture_listen: Annotated[list[HookListen], Field(max_length=_MAX_RULES), ObjectOrList()] = (
        Field(default_factory=list, description="Ports to capture.")
    )
    capture_local_traffic: Flag = Field(
        default=False, description="Whether connections from this machine are captured as well."
    )
