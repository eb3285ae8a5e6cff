"""The same configuration and the same traffic give the same numbers at the same servers."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket

import pytest

from stage.attested import REFERENCE, gateway
from stage.collector import (
    Report,
    grpc_collector,
    http_collector,
    read_falcon,
    read_otlp_protobuf,
    read_otlp_resource,
    read_otlp_scope,
)
from stage.gateways import free_port, http_proxy, listen, mapping
from stage.octet_service import octet_service

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(
        not REFERENCE.exists(), reason="the reference is not there: tools/reference"
    ),
]

TAGS = {"env": "two words", "b": "1=2"}


def exchange(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 15) as sock:
        sock.sendall(request)
        with sock.makefile("rb") as answer:
            return answer.read()


class Scene:
    """A gateway with an entry of each kind of labels, and what happens to it."""

    def __init__(self, service: int) -> None:
        self.entrance, self.proxy = free_port(), free_port()
        tunnel = free_port()
        socks = {"socks5": {"proxy_listen": listen(free_port())}}
        ways_in = [mapping(self.entrance, tunnel), http_proxy(self.proxy), socks]
        self.config: dict[str, object] = {
            "add_ingress": [{**way, "no_ra": True} for way in ways_in],
            "add_egress": [{**mapping(tunnel, service), "no_ra": True}],
        }

    def play(self, folder: pathlib.Path, who: str, exporter: dict[str, object]) -> str:
        """Serve one request, fail to serve another one, stop; the log."""
        config = {**self.config, "metric": {"exporters": [exporter]}}
        with gateway(folder, who, f"{exporter['type']}-{who}", config) as (process, control):
            process.await_http(control, "/readyz")
            assert b" 200 " in exchange(self.entrance, b"GET /octets/1000 HTTP/1.0\r\n\r\n")
            nowhere = b"127.0.0.1:1"
            exchange(self.proxy, b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (nowhere, nowhere))
            assert process.stop() == 0
            return process.log


def test_a_collector_hears_the_same_over_grpc(tmp_path: pathlib.Path) -> None:
    seen: dict[str, Report] = {}
    with octet_service() as service:
        scene = Scene(service.port)
        for who in ("reference", "ours"):
            with grpc_collector() as collector:
                exporter = {
                    "type": "oltp",
                    "protocol": "grpc",
                    "endpoint": collector.url,
                    "headers": {"X-Key": "v"},
                    "step": 1,
                }
                scene.play(tmp_path, who, exporter)
                seen[who] = collector.reports[-1]
    reference, ours = seen["reference"], seen["ours"]
    assert ours.path == reference.path
    assert ours.headers["x-key"] == reference.headers["x-key"] == "v"
    assert read_otlp_protobuf(ours.body) == read_otlp_protobuf(reference.body)
    assert read_otlp_scope(ours.body) == read_otlp_scope(reference.body)
    same = read_otlp_resource(reference.body)
    assert read_otlp_resource(ours.body).keys() == same.keys()
    assert read_otlp_resource(ours.body)["service.name"] == same["service.name"]


def test_open_falcon_hears_the_same_and_of_every_entry(tmp_path: pathlib.Path) -> None:
    """What the reference tells is in what we tell, and we tell every label set of every name."""
    seen: dict[str, Report] = {}
    with octet_service() as service:
        scene = Scene(service.port)
        for who in ("reference", "ours"):
            with http_collector() as collector:
                exporter = {
                    "type": "falcon",
                    "server_url": collector.url,
                    "endpoint": "this-machine",
                    "tags": TAGS,
                    "step": 1,
                }
                scene.play(tmp_path, who, exporter)
                seen[who] = collector.reports[-1]
    reference, ours = seen["reference"], seen["ours"]
    assert ours.path == reference.path
    assert ours.headers["content-type"] == reference.headers["content-type"]
    assert read_falcon(ours.body) >= read_falcon(reference.body)
    assert len(read_falcon(ours.body)) == 4 * 5 + 1
    theirs = {item["metric"]: item for item in json.loads(reference.body)}
    for item in json.loads(ours.body):
        like = theirs[item["metric"]]
        assert item.keys() == like.keys()
        for name in ("endpoint", "step", "counterType"):
            assert item[name] == like[name]
        assert item["tags"].startswith("env=two words,b=1=2")
        assert like["tags"].startswith("env=two words,b=1=2")


def test_the_log_hears_of_every_name_that_the_reference_has(tmp_path: pathlib.Path) -> None:
    with octet_service() as service:
        scene = Scene(service.port)
        logs = {
            who: scene.play(tmp_path, who, {"type": "stdout", "step": 1})
            for who in ("reference", "ours")
        }
    for name in ("cx_total", "cx_active", "cx_failed", "tx_bytes_total", "rx_bytes_total", "live"):
        assert f'name: "{name}"' in logs["reference"]
        assert f" {name}=" in logs["ours"]
    for log in logs.values():
        assert " INFO " in log
        assert "current metrics" in log


@pytest.mark.parametrize("protocol", ["http/json", "http/protobuf", "grpc"])
@pytest.mark.parametrize("who", ["reference", "ours"])
def test_every_protocol_of_a_collector_starts(
    tmp_path: pathlib.Path, who: str, protocol: str
) -> None:
    exporter = {
        "type": "oltp",
        "protocol": protocol,
        "endpoint": "http://127.0.0.1:1/v1/metrics",
        "headers": {"Authorization": "Bearer of-numbers"},
        "step": 60,
    }
    config = {
        "add_ingress": [{**mapping(free_port(), 1), "no_ra": True}],
        "metric": {"exporters": [exporter]},
    }
    with contextlib.ExitStack() as stack:
        process, control = stack.enter_context(gateway(tmp_path, who, "starts", config))
        process.await_http(control, "/readyz")
        if who == "ours":
            assert process.stop() == 0
            assert "of-numbers" not in process.log
