"""Servers that take numbers, and what they were told."""

from __future__ import annotations

import contextlib
import http.server
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tng.wire.protobuf import Field, parse_fields

if TYPE_CHECKING:
    import grpc

START_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Report:
    """One request.

    Attributes:
        path: of the URL, with its query; or the gRPC method.
        headers: names in lower case.
        body: as it came.
    """

    path: str
    headers: dict[str, str | bytes]
    body: bytes


@dataclass
class Collector:
    """A running server.

    Attributes:
        port: on loopback.
        reports: what arrived.
        statuses: what the next requests are answered with, then 200.
        answer: body of every answer over HTTP.
    """

    port: int = 0
    reports: list[Report] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    answer: bytes = b"success"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, wanted: Callable[[Report], bool]) -> Report:
        """The first report of that kind, sooner or later."""
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            for report in list(self.reports):
                if wanted(report):
                    return report
            time.sleep(0.02)
        raise AssertionError(f"no such report among {len(self.reports)}")


@contextlib.contextmanager
def http_collector() -> Iterator[Collector]:
    """A server that takes every POST for the block."""
    collector = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            collector.reports.append(Report(self.path, headers, body))
            self.send_response(collector.statuses.pop(0) if collector.statuses else 200)
            self.send_header("Content-Length", str(len(collector.answer)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(collector.answer)

        def log_message(self, *_: object) -> None:
            """Nothing: the reports are there to be looked at."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def grpc_collector(status: grpc.StatusCode | None = None) -> Iterator[Collector]:
    """A server that takes every call for the block, or refuses each with a status."""
    import grpc  # an extra, which other tests need not have

    collector = Collector()

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
            def take(message: bytes, context: grpc.ServicerContext) -> bytes:
                metadata = {item.key: item.value for item in details.invocation_metadata or ()}
                collector.reports.append(Report(details.method, metadata, message))
                if status is not None:
                    context.abort(status, "words of the other side")
                return b""

            return grpc.unary_unary_rpc_method_handler(take)

    server = grpc.server(futures.ThreadPoolExecutor(2), (Handler(),))
    collector.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


# -- what was told -------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """One number.

    Attributes:
        name: of the series.
        kind: type, temporality and unit, as its form has them.
        labels: names and values.
        value: the number.
    """

    name: str
    kind: str
    labels: frozenset[tuple[str, str]]
    value: int


def read_falcon(body: bytes) -> set[Told]:
    """The numbers of a push to Open-Falcon; tags are those of the series and of the exporter."""
    return {
        Told(
            item["metric"],
            item["counterType"],
            frozenset(tuple(tag.split("=", 1)) for tag in item["tags"].split(",") if tag),
            item["value"],
        )
        for item in json.loads(body)
    }


def read_otlp_json(body: bytes) -> set[Told]:
    """The numbers of a request to a collector, in JSON."""
    (resource,) = json.loads(body)["resourceMetrics"]
    (scope,) = resource["scopeMetrics"]
    told = set()
    for metric in scope["metrics"]:
        data = metric.get("sum", metric.get("gauge"))
        kind = _kind(
            "sum" in metric,
            data.get("aggregationTemporality", 0),
            data.get("isMonotonic", False),
            metric.get("unit", ""),
        )
        for point in data["dataPoints"]:
            assert int(point["startTimeUnixNano"]) <= int(point["timeUnixNano"])
            labels = {(each["key"], each["value"]["stringValue"]) for each in point["attributes"]}
            told.add(Told(metric["name"], kind, frozenset(labels), int(point["asInt"])))
    return told


def read_otlp_protobuf(body: bytes) -> set[Told]:
    """The numbers of a request to a collector, in Protocol Buffers."""
    told = set()
    for metric in (_members(each) for each in _members(_scope_metrics(body))[2]):
        is_sum = 7 in metric
        data = _members(metric[7 if is_sum else 5][0])
        kind = _kind(
            is_sum,
            int(data.get(2, [0])[0]),
            bool(data.get(3, [0])[0]),
            _octets(metric.get(3, [b""])[0]).decode(),
        )
        for point in (_members(each) for each in data.get(1, [])):
            start, now, value = (
                struct.unpack("<q", _octets(point[number][0]))[0] for number in (2, 3, 6)
            )
            assert start <= now
            labels = frozenset(_attributes(point.get(7, [])).items())
            told.add(Told(_octets(metric[1][0]).decode(), kind, labels, value))
    return told


def read_otlp_scope(body: bytes) -> str:
    """The name of the scope."""
    scope = _members(_members(_scope_metrics(body))[1][0])
    return _octets(scope[1][0]).decode()


def read_otlp_resource(body: bytes) -> dict[str, str]:
    """The attributes of the resource."""
    (resource_metrics,) = _members(body)[1]
    (resource,) = _members(resource_metrics)[1]
    return _attributes(_members(resource)[1])


def _scope_metrics(body: bytes) -> bytes:
    (resource_metrics,) = _members(body)[1]
    (scope_metrics,) = _members(resource_metrics)[2]
    return _octets(scope_metrics)


def _kind(is_sum: bool, temporality: int, is_monotonic: bool, unit: str) -> str:
    return f"{'sum' if is_sum else 'gauge'} {temporality} {is_monotonic} {unit}"


def _attributes(pairs: list[int | bytes]) -> dict[str, str]:
    found = {}
    for pair in map(_members, pairs):
        value = _members(pair[2][0])
        found[_octets(pair[1][0]).decode()] = _octets(value[1][0]).decode()
    return found


def _members(message: int | bytes) -> dict[int, list[int | bytes]]:
    members: dict[int, list[int | bytes]] = {}
    fields: list[Field] = parse_fields(_octets(message))
    for number, value in fields:
        members.setdefault(number, []).append(value)
    return members


def _octets(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value
