"""Numbers as Open-Falcon takes them: the body of `POST /v1/push`.

In: a `Snapshot`.  Out: JSON octets.  Source: what TNG 2.12 sends, in its order of keys and tags;
all label sets of a name are sent.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.observe.snapshot import Snapshot

PATH: Final = "/v1/push"
"""Path of the interface, below the server's URL."""

_COUNTER_TYPES: Final = {"counter": "COUNTER", "up_down": "COUNTER", "gauge": "GAUGE"}
"""By kind of series.  A series of Open-Falcon keeps its type, so `cx_active` is what it is in the
reference."""


def dump_push(snapshot: Snapshot, *, endpoint: str, tags: Mapping[str, str], step: int) -> bytes:
    """The list of all numbers.

    Args:
        snapshot: what to tell.
        endpoint: name of this machine.
        tags: further labels, which stand in front of the series' own.
        step: seconds between two reports.
    """
    items = [
        {
            "endpoint": endpoint,
            "metric": series.name,
            "value": point.value,
            "step": step,
            "counterType": _COUNTER_TYPES[series.kind],
            "tags": ",".join(f"{name}={value}" for name, value in {**tags, **point.labels}.items()),
            "timestamp": int(snapshot.taken_at),
        }
        for series in snapshot.series
        for point in series.points
    ]
    return json.dumps(items, ensure_ascii=False, separators=(",", ":")).encode()
