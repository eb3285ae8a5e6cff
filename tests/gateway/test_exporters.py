"""What goes out over HTTP and gRPC, and what is said when it does not arrive."""

from __future__ import annotations

import importlib.util
import json
import logging
import socket
import subprocess
import sys

import grpc
import pytest
import trio

from stage.collector import (
    Collector,
    grpc_collector,
    http_collector,
    read_falcon,
    read_otlp_json,
    read_otlp_protobuf,
)
from stage.gateways import mapping
from tng.clock import FixedClock
from tng.config.control import MetricExporter
from tng.config.loader import prepare_config
from tng.errors import ConfigError, NetError
from tng.gateway.exporters import factory, over_grpc, over_http
from tng.gateway.exporters.base import Exporter
from tng.gateway.exporters.factory import make_exporter, make_reporter
from tng.observe.metrics import EntryMeter
from tng.observe.snapshot import take_snapshot

SECRET = "tell-nobody-4711"
SNAPSHOT = take_snapshot(
    [EntryMeter({"ingress_id": "0"}, cx_total=3)], started_at=1000.0, taken_at=2000.0
)


def oltp(endpoint: str, protocol: str = "http/json", **more: object) -> Exporter:
    section = {"type": "oltp", "protocol": protocol, "endpoint": endpoint, "step": 5, **more}
    return make_exporter(MetricExporter.model_validate(section))


def falcon(server_url: str, **more: object) -> Exporter:
    section = {"type": "falcon", "server_url": server_url, "endpoint": "me", **more}
    return make_exporter(MetricExporter.model_validate(section))


async def send(exporter: Exporter) -> None:
    try:
        await exporter.send(SNAPSHOT)
    finally:
        await exporter.aclose()


async def refused(exporter: Exporter) -> str:
    with pytest.raises(NetError) as caught:
        await send(exporter)
    return str(caught.value)


@pytest.fixture
def collector():
    with http_collector() as running:
        yield running


# -- HTTP ----------------------------------------------------------------------------


async def test_open_falcon_is_pushed_to_below_its_url(collector: Collector) -> None:
    for url in (collector.url, f"{collector.url}/", f"{collector.url}/below"):
        await send(falcon(url, tags={"env": "x"}))
    assert [report.path for report in collector.reports] == [
        "/v1/push",
        "/v1/push",
        "/below/v1/push",
    ]
    report = collector.reports[0]
    assert report.headers["content-type"] == "application/json"
    assert str(report.headers["user-agent"]).startswith("tng/")
    assert {dict(told.labels)["env"] for told in read_falcon(report.body)} == {"x"}


@pytest.mark.parametrize(
    ("protocol", "media_type", "read"),
    [
        ("http/json", "application/json", read_otlp_json),
        ("http/protobuf", "application/x-protobuf", read_otlp_protobuf),
    ],
)
async def test_a_collector_gets_the_form_that_the_protocol_names(
    collector: Collector, protocol, media_type, read
) -> None:
    await send(oltp(collector.url, protocol, headers={"X-Key": SECRET}))
    (report,) = collector.reports
    assert report.headers["content-type"] == media_type
    assert report.headers["x-key"] == SECRET
    assert {told.value for told in read(report.body) if told.name == "cx_total"} == {3}


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("", "/v1/metrics"),
        ("/", "/v1/metrics"),
        ("/v1/metrics", "/v1/metrics"),
        ("/own/path", "/own/path"),
        ("/own/", "/own/"),
        ("/p?key=1", "/p?key=1"),
        ("/?key=1", "/?key=1"),
    ],
)
async def test_a_path_is_taken_as_it_is_and_added_where_there_is_none(
    collector: Collector, written: str, path: str
) -> None:
    await send(oltp(collector.url + written))
    assert collector.reports[0].path == path


async def test_headers_of_the_operator_may_say_who_we_are_but_not_what_the_body_is(
    collector: Collector,
) -> None:
    await send(oltp(collector.url, headers={"User-Agent": "me", "Content-Type": "text/plain"}))
    (report,) = collector.reports
    assert report.headers["user-agent"] == "me"
    assert report.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (302, "a redirect, which is not followed"),
        (401, "check the headers"),
        (404, "is this the path"),
        (500, "answered 500"),
    ],
)
async def test_a_status_that_is_no_success_is_said_without_the_words_of_the_answer(
    collector: Collector, status: int, words: str
) -> None:
    collector.statuses = [status]
    collector.answer = f"you said {SECRET}".encode()
    said = await refused(oltp(f"{collector.url}/{SECRET}", headers={"X-Key": SECRET}))
    assert f"answered {status}" in said
    assert words in said
    assert SECRET not in said


async def test_an_answer_beyond_the_limit_is_not_read(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_http, "MAX_ANSWER", 10)
    collector.answer = bytes(11)
    assert "at most 10 are allowed" in await refused(falcon(collector.url))
    collector.answer = bytes(10)
    await send(falcon(collector.url))


async def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_http, "ATTEMPT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert await refused(falcon(url)) == "no answer within 0.05 s"


async def test_a_server_that_is_not_there_is_a_network_error() -> None:
    said = await refused(oltp(f"http://127.0.0.1:1/{SECRET}", headers={"X-Key": SECRET}))
    assert said
    assert SECRET not in said


@pytest.mark.parametrize("protocol", ["http/json", "grpc"])
def test_an_exporter_shows_neither_headers_nor_path(protocol: str) -> None:
    exporter = oltp(f"HTTPS://c:1/{SECRET}?{SECRET}", protocol, headers={"X-Key": SECRET})
    assert exporter.where == "https://c:1"
    assert SECRET not in repr(exporter)
    if isinstance(exporter, over_http.HttpExporter):
        assert SECRET not in repr(exporter._destination)


async def test_a_collector_with_an_unknown_certificate_is_told_nothing(
    collector: Collector,
) -> None:
    url = collector.url.replace("http:", "https:")
    assert "TLS" in await refused(oltp(url))
    assert collector.reports == []


# -- gRPC ----------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_collector_is_called_over_grpc() -> None:
    with grpc_collector() as collector:
        await send(oltp(f"{collector.url}/", "grpc", headers={"X-Key": SECRET}))
    (report,) = collector.reports
    assert report.path == "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
    assert report.headers["x-key"] == SECRET
    assert str(report.headers["user-agent"]).startswith("tng/")
    assert {t.value for t in read_otlp_protobuf(report.body) if t.name == "cx_total"} == {3}


@pytest.mark.slow
async def test_a_refusal_over_grpc_is_said_by_its_status() -> None:
    with grpc_collector(grpc.StatusCode.UNAUTHENTICATED) as collector:
        said = await refused(oltp(collector.url, "grpc", headers={"X-Key": SECRET}))
    assert said == "answered UNAUTHENTICATED; check the headers"


@pytest.mark.slow
async def test_a_path_that_grpc_cannot_use_is_told_of_and_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with grpc_collector() as collector:
        await send(oltp(f"{collector.url}/{SECRET}", "grpc"))
    assert "gRPC has no paths" in caplog.text
    assert SECRET not in caplog.text
    assert len(collector.reports) == 1


@pytest.mark.slow
async def test_nobody_at_the_address_is_unavailable() -> None:
    assert "answered UNAVAILABLE; is the address right" in await refused(
        oltp("http://127.0.0.1:1", "grpc")
    )


async def test_a_system_without_root_certificates_is_a_network_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tng.errors import AppraiserError

    def none(*_: object, **__: object) -> None:
        raise AppraiserError("no root certificates")

    monkeypatch.setattr(over_grpc, "GrpcExchange", none)
    assert await refused(oltp("https://c:1", "grpc")) == "no root certificates"


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("http://c", "http://c:80"),
        ("https://c", "https://c:443"),
        ("http://[::1]:4317", "http://[::1]:4317"),
    ],
)
def test_a_port_that_is_left_out_is_that_of_the_scheme(url: str, where: str) -> None:
    assert oltp(url, "grpc").where == where


def test_grpc_without_its_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"metric.exporters\[0\].protocol: grpc needs the extra"):
        oltp("http://c:1", "grpc")
    oltp("http://c:1", "http/protobuf")


def test_a_header_that_grpc_has_no_place_for_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"metric.exporters\[0\].headers: 'X!A'") as caught:
        oltp("http://c:1", "grpc", headers={"X!A": SECRET})
    assert SECRET not in str(caught.value)
    oltp("http://c:1", headers={"X!A": SECRET})


# -- the log, and none ---------------------------------------------------------------


async def test_the_log_has_a_line_per_label_set(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await send(make_exporter(MetricExporter.model_validate({"type": "stdout"})))
    assert [record.getMessage() for record in caplog.records] == [
        "current metrics ingress_id=0 cx_total=3 cx_active=0 cx_failed=0"
        " tx_bytes_total=0 rx_bytes_total=0",
        "current metrics live=1",
    ]


def test_attempts_are_those_of_the_reference_for_open_falcon() -> None:
    assert falcon("http://c").attempts == factory.FALCON_ATTEMPTS == 5
    assert oltp("http://c").attempts == oltp("http://c", "grpc").attempts == 1


CONFIG = {"add_ingress": [{**mapping(9, 9), "no_ra": True}]}


@pytest.mark.parametrize("metric", [{}, {"metric": None}, {"metric": {"exporters": []}}])
def test_without_an_exporter_nothing_reports(metric: dict[str, object]) -> None:
    config = prepare_config(json.dumps({**CONFIG, **metric}))
    assert make_reporter(config, object(), FixedClock(0)) is None


@pytest.mark.slow
@pytest.mark.parametrize("exporters", [[], [{"type": "stdout"}]])
def test_clients_are_loaded_for_those_who_send(exporters: list[object]) -> None:
    config = {**CONFIG, "metric": {"exporters": exporters}}
    program = (
        "import json, sys\n"
        "from tng.clock import SystemClock\n"
        "from tng.config.loader import prepare_config\n"
        "from tng.gateway.app import Gateway\n"
        f"Gateway(prepare_config({json.dumps(config)!r}), SystemClock())\n"
        "sys.exit(int('httpx' in sys.modules or 'grpc' in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_sending_can_be_called_off(collector: Collector) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        exporter = falcon(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with trio.move_on_after(0.05) as limit:
            await send(exporter)
    assert limit.cancelled_caught
