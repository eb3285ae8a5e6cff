"""The whole configuration, and the names that the rest of the package uses of it.

In: JSON, through `config.loader`.  Out: `TngConfig`.
Source: the grammar of TNG 2.12; extensions are marked in `docs/CONFIG.md`.
Invariant: whoever holds a `TngConfig` holds one that obeys every rule of its objects; rules about
the machine and between entries are in `config.check`.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from tng.config.attest import Attest
from tng.config.control import ControlInterface, Metric, Restful, Trace
from tng.config.entry import DirectForward, Egress, Ingress, Quic, RatsTls
from tng.config.mapping import Mapping, MappingRule, MappingUdp, PortRange, TargetRange
from tng.config.ohttp import EgressOhttp, IngressOhttp
from tng.config.proxy import DstFilter, HttpProxy, Listen, Socks5
from tng.config.secret import Secret
from tng.config.strict import StrictModel
from tng.config.values import Duration
from tng.config.verify import Verify

__all__ = [
    "Attest",
    "ControlInterface",
    "DirectForward",
    "DstFilter",
    "Egress",
    "EgressOhttp",
    "HttpProxy",
    "Ingress",
    "IngressOhttp",
    "Listen",
    "Mapping",
    "MappingRule",
    "MappingUdp",
    "Metric",
    "PortRange",
    "Quic",
    "RatsTls",
    "Restful",
    "Secret",
    "Socks5",
    "TargetRange",
    "TngConfig",
    "Trace",
    "Verify",
]

_MAX_ENTRIES: Final = 256  # of each kind; every one has listeners and tunnels of its own


class TngConfig(StrictModel):
    """Everything that `tng launch` is told."""

    control_interface: ControlInterface | None = Field(
        default=None, description="Where probes and status are served; absent: nowhere."
    )
    metric: Metric | None = Field(default=None, description="Where numbers are sent.")
    trace: Trace | None = Field(default=None, description="Where traces are sent.")
    add_ingress: Annotated[list[Ingress], Field(max_length=_MAX_ENTRIES)] = Field(
        default_factory=list, description="Client's ends of tunnels."
    )
    add_egress: Annotated[list[Egress], Field(max_length=_MAX_ENTRIES)] = Field(
        default_factory=list, description="Service's ends of tunnels."
    )
    admin_bind: Listen | None = Field(default=None, description="Ignored; use `control_interface`.")
    drain_timeout_secs: Annotated[float, Duration(3600)] = Field(
        default=10.0,
        description="How long open connections may go on after SIGTERM.",
        json_schema_extra={"x-tng-extension": True},
    )
