"""Numbers as OpenTelemetry collectors take them: `ExportMetricsServiceRequest`.

In: a `Snapshot`.  Out: octets, in Protocol Buffers or in JSON.  Source: OTLP 1.x and
`opentelemetry/proto/metrics/v1/metrics.proto`; names, scope and temporality as TNG 2.12 sends
them.  Sums are cumulative: a request that is lost takes no count with it.

Invariant: both forms say the same, field by field in the order of field numbers.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Final

from tng import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tng.observe.snapshot import Point, Series, Snapshot

PATH: Final = "/v1/metrics"
"""Path of the interface over HTTP, where an endpoint has none (OTLP, "OTLP/HTTP Request")."""

METHOD: Final = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
"""The gRPC method."""

RESOURCE: Final = {
    "service.name": "tng",
    "service.version": __version__,
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "tng-gateway",
    "telemetry.sdk.version": __version__,
}
"""Who counts."""

SCOPE: Final = "tng"
"""Name of the instrumentation scope."""

_CUMULATIVE: Final = 2
"""AGGREGATION_TEMPORALITY_CUMULATIVE."""

_VARINT, _FIXED64, _LENGTH = 0, 1, 2


def dump_json(snapshot: Snapshot) -> bytes:
    """The request as JSON: 64-bit numbers are strings, enumerations numbers (OTLP, "JSON")."""
    scope_metrics = {
        "scope": {"name": SCOPE},
        "metrics": [_json_metric(series, snapshot) for series in snapshot.series],
    }
    resource = {"attributes": _json_attributes(RESOURCE)}
    request = {"resourceMetrics": [{"resource": resource, "scopeMetrics": [scope_metrics]}]}
    return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()


def dump_protobuf(snapshot: Snapshot) -> bytes:
    """The request in Protocol Buffers."""
    metrics = [_octets(2, _protobuf_metric(series, snapshot)) for series in snapshot.series]
    scope_metrics = _octets(1, _text(1, SCOPE)) + b"".join(metrics)
    resource = b"".join(_protobuf_attributes(1, RESOURCE))
    return _octets(1, _octets(1, resource) + _octets(2, scope_metrics))


# -- JSON ----------------------------------------------------------------------------


def _json_metric(series: Series, snapshot: Snapshot) -> dict[str, object]:
    metric: dict[str, object] = {"name": series.name, "description": series.meaning}
    if series.unit:
        metric["unit"] = series.unit
    points = [_json_point(point, snapshot) for point in series.points]
    if series.kind == "gauge":
        return {**metric, "gauge": {"dataPoints": points}}
    sum_of: dict[str, object] = {"dataPoints": points, "aggregationTemporality": _CUMULATIVE}
    if series.kind == "counter":
        sum_of["isMonotonic"] = True
    return {**metric, "sum": sum_of}


def _json_point(point: Point, snapshot: Snapshot) -> dict[str, object]:
    return {
        "startTimeUnixNano": str(_nanoseconds(snapshot.started_at)),
        "timeUnixNano": str(_nanoseconds(snapshot.taken_at)),
        "asInt": str(point.value),
        "attributes": _json_attributes(point.labels),
    }


def _json_attributes(attributes: Mapping[str, str]) -> list[dict[str, object]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]


# -- Protocol Buffers ----------------------------------------------------------------


def _protobuf_metric(series: Series, snapshot: Snapshot) -> bytes:
    metric = _text(1, series.name) + _text(2, series.meaning)
    if series.unit:
        metric += _text(3, series.unit)
    data = b"".join(_octets(1, _protobuf_point(point, snapshot)) for point in series.points)
    if series.kind == "gauge":
        return metric + _octets(5, data)
    data += _number(2, _CUMULATIVE)
    if series.kind == "counter":
        data += _number(3, 1)  # is_monotonic
    return metric + _octets(7, data)


def _protobuf_point(point: Point, snapshot: Snapshot) -> bytes:
    return b"".join(
        [
            _fixed64(2, _nanoseconds(snapshot.started_at)),
            _fixed64(3, _nanoseconds(snapshot.taken_at)),
            _fixed64(6, point.value),
            *_protobuf_attributes(7, point.labels),
        ]
    )


def _protobuf_attributes(field: int, attributes: Mapping[str, str]) -> Iterable[bytes]:
    for key, value in attributes.items():
        yield _octets(field, _text(1, key) + _octets(2, _text(1, value)))


def _text(field: int, text: str) -> bytes:
    return _octets(field, text.encode())


def _octets(field: int, octets: bytes) -> bytes:
    return _varint(field << 3 | _LENGTH) + _varint(len(octets)) + octets


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _fixed64(field: int, value: int) -> bytes:
    return _varint(field << 3 | _FIXED64) + struct.pack("<Q", value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _nanoseconds(seconds: float) -> int:
    """A time in nanoseconds; a float of today tells microseconds apart, no more."""
    return round(seconds * 1e6) * 1000
