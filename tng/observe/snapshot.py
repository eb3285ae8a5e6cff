"""All numbers of a gateway at one moment, in the form from which every exporter makes its own.

In: meters, and two times.  Out: a `Snapshot`.  Source: names, kinds and order of TNG 2.12, without
the prefix that `observe.metrics` gives them.  Invariant: a series has one point per entry, so that
no label set hides another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from tng.observe.metrics import SERIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tng.observe.metrics import EntryMeter

Kind = Literal["counter", "up_down", "gauge"]
"""A sum that only grows, a sum that also falls, or a value that is no sum."""

_UNITS: Final = {"tx_bytes_total": "bytes", "rx_bytes_total": "bytes"}


@dataclass(frozen=True, slots=True)
class Point:
    """One number.

    Attributes:
        labels: whose number it is; empty for the whole process.
        value: 0 or more.
    """

    labels: Mapping[str, str]
    value: int


@dataclass(frozen=True, slots=True)
class Series:
    """All numbers of one name.

    Attributes:
        name: as TNG 2.12 has it.
        kind: how it moves.
        meaning: for people.
        unit: "bytes", or "" for a plain number.
        points: one per label set.
    """

    name: str
    kind: Kind
    meaning: str
    unit: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is counted.

    Attributes:
        started_at: Unix time in seconds since which the sums have grown.
        taken_at: Unix time in seconds.
        series: every name once.
    """

    started_at: float
    taken_at: float
    series: tuple[Series, ...]


def take_snapshot(meters: Iterable[EntryMeter], *, started_at: float, taken_at: float) -> Snapshot:
    """The numbers of `meters` now, and `live`.

    Args:
        meters: one per entry.
        started_at: see `Snapshot`.
        taken_at: see `Snapshot`.
    """
    known = list(meters)
    series = [
        Series(
            name,
            "up_down" if prometheus_type == "gauge" else "counter",
            meaning,
            _UNITS.get(name, ""),
            tuple(Point(meter.labels, getattr(meter, attribute)) for meter in known),
        )
        for name, attribute, prometheus_type, meaning in SERIES
    ]
    series.append(Series("live", "gauge", "The process runs.", "", (Point({}, 1),)))
    return Snapshot(started_at, taken_at, tuple(series))


def snapshot_lines(snapshot: Snapshot) -> list[str]:
    """The numbers as `key=value`, one line per label set, whose labels stand in front."""
    lines: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for series in snapshot.series:
        for point in series.points:
            labels = tuple(point.labels.items())
            line = lines.setdefault(labels, [f"{name}={value}" for name, value in labels])
            line.append(f"{series.name}={point.value}")
    return [" ".join(line) for line in lines.values()]
