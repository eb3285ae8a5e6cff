"""What a worker tells about itself, and what all workers come to together.

In: a worker's `Gateway` there, its report as JSON here.  Out: sums in the meters of the
supervisor's entries, pools merged by endpoint, and egresses whose keys are known by URL.

Invariant: counters never go down: what a worker had counted when it was last heard of stays in
the sums after its death, and only its open connections leave them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.strict_json import parse_object
from tng.errors import RemoteProtocolError
from tng.gateway.workers.messages import member

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tng.attest.strict_json import Json
    from tng.gateway.entries import Entry
    from tng.gateway.watched import Watched

COUNTERS: Final = ("cx_total", "cx_failed", "octets_from_client", "octets_to_client")
"""Numbers of an `EntryMeter` that only grow."""

GAUGES: Final = ("cx_active",)
"""Numbers of an `EntryMeter` that hold for the moment."""

MAX_SERVERS: Final = 256
"""Egresses that one worker tells of, all entries together; with `MAX_TOKEN` they fit in a frame."""

MAX_TOKEN: Final = 16 << 10
"""Characters of the token that is told with an egress; a longer one is left out."""

Fields = dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class EntryReport:
    """One entry in one worker.

    Attributes:
        numbers: value of each of `COUNTERS` and `GAUGES`.
        pool: its tunnels as the status page shows them; None where it has none.
        servers: egresses whose HPKE key it knows, as the status page shows them.
    """

    numbers: Mapping[str, int]
    pool: Fields | None
    servers: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """One worker.

    Attributes:
        not_ready: why it cannot serve, one reason per entry.
        entries: by path.
    """

    not_ready: tuple[str, ...]
    entries: Mapping[str, EntryReport]


def dump_report(gateway: Watched, *, servers: bool = False) -> Fields:
    """The report of the worker that runs `gateway`.

    Args:
        gateway: of this worker.
        servers: whether to tell of the egresses whose keys are known; there may be many.
    """
    known = _servers(gateway) if servers else {}
    report: dict[str, object] = {
        "not_ready": gateway.not_ready(),
        "entries": {
            entry.path: {
                "numbers": {name: getattr(entry.meter, name) for name in (*COUNTERS, *GAUGES)},
                "pool": gateway.pool_status(entry),
                "servers": known.get(entry.path, []),
            }
            for entry in gateway.entries
        },
    }
    # What the status page shows is JSON already; only its type does not say so.
    return parse_object(json.dumps(report).encode())


def parse_report(fields: Mapping[str, Json]) -> Report:
    """The report that `dump_report` made.

    Raises:
        RemoteProtocolError: not the fields of a report.
    """
    reasons = member(fields, "not_ready", list)
    return Report(
        tuple(str(reason) for reason in reasons),
        {path: _parse_entry(entry) for path, entry in member(fields, "entries", dict).items()},
    )


class Totals:
    """Adds up workers, dead ones included."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, int]] = {}

    def retire(self, report: Report) -> None:
        """Keep the counters of a worker that has died."""
        for path, entry in report.entries.items():
            kept = self._kept.setdefault(path, dict.fromkeys(COUNTERS, 0))
            for name in COUNTERS:
                kept[name] += entry.numbers[name]

    def write_to(self, entries: Iterable[Entry], reports: Iterable[Report]) -> None:
        """Set the meters of `entries` to the sums over dead workers and `reports`."""
        living = list(reports)
        for entry in entries:
            parts = [
                report.entries[entry.path] for report in living if entry.path in report.entries
            ]
            kept = self._kept.get(entry.path, {})
            for name in (*COUNTERS, *GAUGES):
                living_sum = sum(part.numbers[name] for part in parts)
                setattr(entry.meter, name, kept.get(name, 0) + living_sum)


def merge_pools(empty: Mapping[str, object], pools: Mapping[int, Fields]) -> dict[str, object]:
    """One pool status out of those of several workers.

    Args:
        empty: status of a pool that has never been used; gives the limits, which hold per worker.
        pools: by number of the worker; each shard says whose it is.
    """
    endpoints: dict[str, dict[str, object]] = {}
    for worker, pool in pools.items():
        for part in member(pool, "endpoints", list):
            if isinstance(part, dict):
                _merge_endpoint(endpoints, worker, part)
    overflowed = sum(member(pool, "overflowed_streams", int) for pool in pools.values())
    return {**empty, "overflowed_streams": overflowed, "endpoints": list(endpoints.values())}


def merge_servers(parts: Iterable[Iterable[Json]]) -> dict[str, object]:
    """The egresses that any worker knows: each once, by its URL; of two the later counts."""
    servers = {
        str(server.get("url")): server
        for part in parts
        for server in part
        if isinstance(server, dict)
    }
    return {"servers": list(servers.values())}


def _servers(gateway: Watched) -> dict[str, list[object]]:
    told: dict[str, list[object]] = {}
    left = MAX_SERVERS
    for entry in gateway.entries:
        status = gateway.keys_status(entry) if entry.side == "ingress" else None
        known = (status or {}).get("servers")
        if isinstance(known, list):
            told[entry.path] = [_short(server) for server in known[:left]]
            left -= len(told[entry.path])
    return told


def _short(server: dict[str, object]) -> dict[str, object]:
    token = server.get("server_attestation")
    if isinstance(token, str) and len(token) > MAX_TOKEN:
        return {name: value for name, value in server.items() if name != "server_attestation"}
    return server


def _merge_endpoint(endpoints: dict[str, dict[str, object]], worker: int, part: Fields) -> None:
    name = member(part, "endpoint", str)
    shards: list[object] = [
        {**shard, "worker": worker}
        for shard in member(part, "shards", list)
        if isinstance(shard, dict)
    ]
    count, cooling = member(part, "shard_count", int), member(part, "cooling_shards", int)
    before = endpoints.get(name)
    if before is not None:
        earlier = before["shards"]
        assert isinstance(earlier, list)
        shards = [*earlier, *shards]
        count += int(str(before["shard_count"]))
        cooling += int(str(before["cooling_shards"]))
    endpoints[name] = {
        "endpoint": name,
        "shard_count": count,
        "cooling_shards": cooling,
        "shards": shards,
    }


def _parse_entry(fields: Json) -> EntryReport:
    if not isinstance(fields, dict):
        raise RemoteProtocolError("report of a worker: an entry that is no object")
    numbers = member(fields, "numbers", dict)
    pool = fields.get("pool")
    return EntryReport(
        {name: member(numbers, name, int) for name in (*COUNTERS, *GAUGES)},
        pool if isinstance(pool, dict) else None,
        tuple(member(fields, "servers", list)),
    )
