"""What is measured, between whom it is compared, and what is expected of it.

Each workload has a kind (how it is run), a number of connections, and rows: a quantity, the two
systems it is compared between, and a target where there is one.  Targets are ratios to the
reference in the same run, except where the row says that ours alone is meant.
Invariant: every row names systems that its own workload measures.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.systems import System


class Kind(enum.Enum):
    """How a workload is run."""

    DOWNLOAD = "download"
    UPLOAD = "upload"
    CHURN = "churn"
    KEEP_ALIVE = "keepalive"
    FIRST = "first"
    SSE = "sse"
    IDLE = "idle"
    START = "start"


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that a run measures.

    Attributes:
        key: name in a sample.
        label: for the table.
        digits: decimals worth showing.
        more_is_better: otherwise less is.
    """

    key: str
    label: str
    digits: int
    more_is_better: bool = False


SPEED: Final = Quantity("gb_per_s", "GB/s", 2, more_is_better=True)
CPU_PER_GB: Final = Quantity("cpu_s_per_gb", "CPU s/GB", 3)
RATE: Final = Quantity("per_s", "requests/s", 0, more_is_better=True)
CPU_PER_REQUEST: Final = Quantity("cpu_us", "CPU us/request", 1)
INGRESS_CPU: Final = Quantity("ingress_cpu_us", "ingress CPU us/request", 1)
EGRESS_CPU: Final = Quantity("egress_cpu_us", "egress CPU us/request", 1)
P50: Final = Quantity("p50_us", "p50 us", 0)
P99: Final = Quantity("p99_us", "p99 us", 0)
ADDED_P50: Final = Quantity("added_p50_us", "added p50 us", 1)
CPU_PER_1000: Final = Quantity("cpu_ms_per_1000", "CPU ms/1000 tokens", 1)
DELIVERED: Final = Quantity("delivered", "tokens delivered, %", 1, more_is_better=True)
MEMORY: Final = Quantity("memory_mb", "memory MB", 0)
TUNNEL_MEMORY: Final = Quantity("kb_per_tunnel", "KB/tunnel", 1)
"""Resident memory that one more idle connection adds: the base is taken when others have come and
gone, so what only the first ones cost is not in it."""
IDLE_CPU: Final = Quantity("idle_cpu", "CPU while idle, %", 1)
START: Final = Quantity("start_s", "start to ready s", 2)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        quantity: what is compared.
        ours: one of our systems; the bare forwarder, to tell how far a target is from what can be.
        reference: what it is compared with.
        target: the ratio, or the value, that has to be reached; None for information only.
        aim: what we would like beyond it.
        is_absolute: target and aim are values of ours, not ratios.
    """

    quantity: Quantity
    ours: System
    reference: System
    target: float | None = None
    aim: float | None = None
    is_absolute: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload.

    Attributes:
        name: for the command line.
        title: for people.
        kind: how it is run.
        count: connections at the same time.
        rows: what the table shows of it.
        needs_direct: also run it without any gateway, to tell what a gateway adds.
        is_quick: part of a quick run.
    """

    name: str
    title: str
    kind: Kind
    count: int
    rows: tuple[Row, ...]
    needs_direct: bool = False
    is_quick: bool = True

    def systems(self) -> list[System]:
        """Everything that has to run for it, each once, in the order of the rows."""
        named = [system for row in self.rows for system in (row.ours, row.reference)]
        return list(dict.fromkeys(([System.DIRECT] if self.needs_direct else []) + named))


_OURS: Final = System.OURS
_RAW: Final = System.OURS_RAW
_REFERENCE: Final = System.REFERENCE
_MULTIPLEXED: Final = System.REFERENCE_MULTIPLEXED
_FORWARDER: Final = System.FORWARDER


def _bulk(
    name: str, kind: Kind, count: int, speed: Row, cpu: Row, *, is_quick: bool = True
) -> Workload:
    streams = "1 stream" if count == 1 else f"{count} streams"
    rows = (speed, cpu, Row(MEMORY, _RAW, _REFERENCE))
    return Workload(name, f"{kind.value}, {streams}, raw", kind, count, rows, is_quick=is_quick)


def _all_bulk() -> Iterator[Workload]:
    speed, cpu = Row(SPEED, _RAW, _REFERENCE), Row(CPU_PER_GB, _RAW, _REFERENCE)
    bounded = Row(CPU_PER_GB, _RAW, _REFERENCE, 1.2, 1.0)
    yield _bulk("down1", Kind.DOWNLOAD, 1, speed, bounded)
    yield _bulk("up1", Kind.UPLOAD, 1, speed, bounded)
    yield _bulk("down8", Kind.DOWNLOAD, 8, Row(SPEED, _RAW, _REFERENCE, 0.85, 1.0), cpu)
    yield _bulk("up8", Kind.UPLOAD, 8, speed, cpu, is_quick=False)


def _requests(reference: System = _REFERENCE, ours: System = _OURS) -> tuple[Row, ...]:
    quantities = (CPU_PER_REQUEST, P50, P99, MEMORY)
    return tuple(Row(quantity, ours, reference) for quantity in quantities)


def _keep_alive() -> Iterator[Workload]:
    yield Workload(
        "keepalive1",
        "keep-alive, 1 client",
        Kind.KEEP_ALIVE,
        1,
        (
            Row(ADDED_P50, _OURS, _REFERENCE, 1.1, 1.0),
            Row(ADDED_P50, _RAW, _REFERENCE),
            Row(ADDED_P50, _FORWARDER, _REFERENCE),
            Row(RATE, _OURS, _REFERENCE),
            *_requests(),
        ),
        needs_direct=True,
    )
    yield Workload(
        "keepalive64",
        "keep-alive, 64 clients",
        Kind.KEEP_ALIVE,
        64,
        (
            Row(RATE, _OURS, _REFERENCE, 1.0, 1.3),
            Row(RATE, _RAW, _REFERENCE),
            *_requests(),
        ),
    )


def _churn() -> Iterator[Workload]:
    for count, against_raw, against_multiplexed, raw in (
        (1, (None, None), (None, None), (None, None)),
        (16, (None, None), (None, None), (0.8, 1.0)),
        (64, (4.0, 6.0), (2.0, 3.0), (None, None)),
    ):
        yield Workload(
            f"churn{count}",
            "new connections, " + ("1 client" if count == 1 else f"{count} clients"),
            Kind.CHURN,
            count,
            (
                Row(RATE, _OURS, _REFERENCE, *against_raw),
                Row(RATE, _OURS, _MULTIPLEXED, *against_multiplexed),
                Row(RATE, _RAW, _REFERENCE, *raw),
                Row(RATE, _FORWARDER, _REFERENCE),
                Row(RATE, _FORWARDER, _MULTIPLEXED),
                *_requests(),
                Row(CPU_PER_REQUEST, _OURS, _MULTIPLEXED),
                Row(CPU_PER_REQUEST, _RAW, _REFERENCE),
                Row(CPU_PER_REQUEST, _FORWARDER, _REFERENCE),
            ),
            is_quick=count != 1,
        )
    ours, reference = System.OURS_ATTESTED, System.REFERENCE_ATTESTED
    yield Workload(
        "attested16",
        "new connections, attested, 16 clients",
        Kind.CHURN,
        16,
        (
            Row(RATE, ours, reference, 4.0, 6.0),
            Row(RATE, ours, System.REFERENCE_ATTESTED_MULTIPLEXED),
            Row(RATE, _FORWARDER, reference),
            *_requests(reference, ours),
        ),
    )


def _sse() -> Iterator[Workload]:
    for count in (100, 500, 1000):
        has_target = count == 1000
        yield Workload(
            f"sse{count}",
            f"server-sent events, {count} streams of 50 tokens/s",
            Kind.SSE,
            count,
            (
                Row(ADDED_P50, _OURS, _REFERENCE, *((0.8, 0.6) if has_target else ())),
                Row(CPU_PER_1000, _OURS, _REFERENCE, *((0.9, 0.7) if has_target else ())),
                Row(DELIVERED, _OURS, _REFERENCE, 99.0, 99.9, is_absolute=True),
                Row(P99, _OURS, _REFERENCE),
                Row(MEMORY, _OURS, _REFERENCE),
            ),
            needs_direct=True,
            is_quick=has_target,
        )


def _idle() -> Iterator[Workload]:
    for count in (1000, 5000):
        yield Workload(
            f"idle{count}",
            f"{count} idle tunnels",
            Kind.IDLE,
            count,
            (
                Row(TUNNEL_MEMORY, _OURS, _REFERENCE, 8.0, 4.0, is_absolute=True),
                Row(TUNNEL_MEMORY, _RAW, _REFERENCE),
                Row(IDLE_CPU, _OURS, _REFERENCE),
                Row(MEMORY, _OURS, _REFERENCE),
            ),
            is_quick=count == 1000,
        )


def _ohttp() -> Iterator[Workload]:
    """Mapping in, mapping out, and between them each request encrypted by itself."""
    ours, workers, reference = System.OURS_OHTTP, System.OURS_OHTTP_WORKERS, System.REFERENCE_OHTTP
    for count, rate, p50 in ((1, None, 2.5), (64, 0.35, None)):
        clients = "1 client" if count == 1 else f"{count} clients"
        yield Workload(
            f"ohttp{count}",
            f"OHTTP, {clients}",
            Kind.KEEP_ALIVE,
            count,
            (
                Row(RATE, ours, reference, rate),
                *((Row(RATE, workers, reference),) if count > 1 else ()),
                Row(P50, ours, reference, p50),
                *((Row(P50, workers, reference),) if count > 1 else ()),
                Row(P99, ours, reference),
                Row(INGRESS_CPU, ours, reference),
                Row(EGRESS_CPU, ours, reference),
                Row(MEMORY, ours, reference),
            ),
        )
    yield Workload(
        "ohttp-first",
        "OHTTP, first token on a new connection",
        Kind.FIRST,
        1,
        (Row(ADDED_P50, ours, reference, 2000.0, is_absolute=True), Row(P99, ours, reference)),
        needs_direct=True,
    )
    for count in (100, 500):
        yield Workload(
            f"ohttp-sse{count}",
            f"OHTTP, server-sent events, {count} streams of 50 tokens/s",
            Kind.SSE,
            count,
            (
                Row(ADDED_P50, ours, reference),
                Row(P99, ours, reference),
                Row(CPU_PER_1000, ours, reference),
                Row(DELIVERED, ours, reference),
                Row(MEMORY, ours, reference),
            ),
            needs_direct=True,
            is_quick=count == 100,
        )


_START = Workload(
    "start",
    "start of one gateway",
    Kind.START,
    1,
    (
        Row(START, _OURS, _REFERENCE, 0.6, 0.3, is_absolute=True),
        Row(MEMORY, _OURS, _REFERENCE),
    ),
)

WORKLOADS: Final = {
    workload.name: workload
    for workload in (
        *(*_all_bulk(), *_keep_alive(), *_churn(), *_sse(), *_idle()),
        *(*_ohttp(), _START),
    )
}
"""Every workload by name, in the order of the table."""

GROUPS: Final = {"ohttp": tuple(name for name in WORKLOADS if name.startswith("ohttp"))}
"""Workloads that can be asked for by one name."""
