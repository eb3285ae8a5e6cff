"""Services over gRPC whose connections a rule of the same configuration would capture.

In: a `TngConfig`.  Out: lines for the operator.  Own connections carry the firewall mark `so_mark`
and are never captured; those of gRPC are made by a library that cannot mark them, so that the
question about a peer would be led into the tunnel that waits for its answer, and numbers to
where they do not belong.

Invariant: a service is named only where its address is written as one, and no control group says
who is captured.  Names, ipsets and groups are for the operator to know.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from tng.config.attest import Attest
from tng.config.capture import CaptureDst, EgressNetfilter, Netfilter
from tng.config.control import MetricExporter
from tng.config.model import TngConfig
from tng.config.problems import dump_path
from tng.config.verify import Verify
from tng.config.walk import Path, walk

_PORTS: Final = {"http": 80, "https": 443}

_Address = tuple[ipaddress.IPv4Address, int]


def captured_services(config: TngConfig) -> Iterator[str]:
    """Problems: services over gRPC that a netfilter rule captures."""
    objects = list(walk(config))
    services = [found for path, model in objects for found in _service(path, model)]
    for at, model in objects:
        if not isinstance(model, Netfilter | EgressNetfilter) or not _may_take_ours(model):
            continue
        for number, rule in enumerate(model.capture_dst):
            for path, (host, port), instead in services:
                # An ingress takes what leaves this machine, an egress what stays on it.
                reached = host.is_loopback == isinstance(model, EgressNetfilter)
                if reached and _has(rule, host, port):
                    yield (
                        f"{dump_path(path)}: {dump_path((*at, 'capture_dst', number))} captures "
                        "connections to it, and those of gRPC cannot be marked as our own: narrow "
                        "the rule, name the gateway's control group in nocapture_cgroup, or use "
                        f"{instead}"
                    )


def _service(path: Path, model: object) -> Iterator[tuple[Path, _Address, str]]:
    """The service over gRPC that a section names, and what else than gRPC it could be asked by.

    Nothing for one whose address is not written as one.
    """
    match model:
        case Attest(as_type="grpc", as_addr=str(url)) | Verify(as_type="grpc", as_addr=str(url)):
            key, instead = "as_addr", '"as_type": "restful"'
        case MetricExporter(protocol="grpc", endpoint=str(url)):
            key, instead = "endpoint", '"protocol": "http/protobuf"'
        case _:
            return
    parts = urlsplit(url)
    try:
        host = ipaddress.IPv4Address(parts.hostname or "")  # IPv6 is not captured by rules
    except ValueError:
        return
    yield (*path, key), (host, parts.port or _PORTS[parts.scheme.lower()]), instead


def _may_take_ours(capture: Netfilter | EgressNetfilter) -> bool:
    """Whether the rules are about every program of this machine, and so about this one."""
    if isinstance(capture, EgressNetfilter) and not capture.capture_local_traffic:
        return False
    return not capture.capture_cgroup and not capture.nocapture_cgroup


def _has(rule: CaptureDst, host: ipaddress.IPv4Address, port: int) -> bool:
    if rule.port is not None and not rule.port <= port <= (rule.port_end or rule.port):
        return False
    if rule.ipset is not None:
        return False
    return rule.host is None or host in ipaddress.ip_network(rule.host)
