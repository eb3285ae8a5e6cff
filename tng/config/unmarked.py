"""Attestation services whose connections a rule of the same configuration would capture.

In: a `TngConfig`.  Out: lines for the operator.  Own connections carry the firewall mark `so_mark`
and are never captured; those of gRPC are made by a library that cannot mark them, so that the
question about a peer would be led into the tunnel that waits for its answer.

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
from tng.config.model import TngConfig
from tng.config.problems import dump_path
from tng.config.verify import Verify
from tng.config.walk import Path, walk

_PORTS: Final = {"http": 80, "https": 443}


def captured_services(config: TngConfig) -> Iterator[str]:
    """Problems: services over gRPC that a netfilter rule captures."""
    captures = [
        (path, model)
        for path, model in walk(config)
        if isinstance(model, Netfilter | EgressNetfilter) and _takes_ours(model)
    ]
    for path, model in walk(config):
        if not isinstance(model, Attest | Verify) or model.as_type != "grpc" or not model.as_addr:
            continue
        for at, capture in captures:
            if number := _rule_for(capture, model.as_addr):
                rule = dump_path((*at, "capture_dst", number - 1))
                yield (
                    f"{dump_path((*path, 'as_addr'))}: {rule} captures connections to it, and "
                    "those of gRPC cannot be marked as our own: narrow the rule, name the "
                    'gateway\'s control group in nocapture_cgroup, or use "as_type": "restful"'
                )
