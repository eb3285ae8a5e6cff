"""A gateway's start and end, as seen from inside."""

from __future__ import annotations

import json
import socket

import pytest
import trio

from stage.conversation import Line, calling, eventually, service
from stage.gateways import free_port, http_proxy, mapping, serving
from tng.clock import SystemClock
from tng.config.attest import Attest
from tng.config.loader import prepare_config
from tng.dataplane.listener import make_bound_socket
from tng.errors import RequestRejectedError, StartError, TngError
from tng.gateway import replies
from tng.gateway.app import Gateway
from tng.gateway.entries import Trust, make_source
from tng.tunnel.ohttp.keys_self_generated import SelfGeneratedKeys


async def hold(line: Line) -> None:
    await line.rest()


@pytest.mark.slow
async def test_what_does_not_end_in_time_is_cut(caplog) -> None:
    port = free_port()
    async with service(hold) as web:
        direct = {**http_proxy(port), "no_ra": True}
        direct["http_proxy"]["dst_filters"] = [{"domain": "nothing.example"}]  # type: ignore[index]
        config = {"add_ingress": [direct], "drain_timeout_secs": 1}
        async with serving(config) as gateway:
            late = await trio.open_tcp_stream("127.0.0.1", port)
            client = Line(late)
            await client.say(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % web.port)
            await client.until(b"\r\n\r\n")
            with trio.fail_after(3):
                await gateway.drain()
            assert "1 connections cut after 1 s" in caplog.text
        async with late:
            assert await client.is_cut()


async def test_a_port_in_use_leaves_no_other_port_open() -> None:
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        entries = [{**mapping(port, 1), "no_ra": True} for port in (free, taken.getsockname()[1])]
        gateway = Gateway(prepare_config(json.dumps({"add_ingress": entries})), SystemClock())
        with pytest.raises(StartError, match="cannot listen"):
            await gateway.serve()
        gateway._reactor.stop(1)
    with pytest.raises(OSError):
        await trio.open_tcp_stream("127.0.0.1", free)


class NoKeys(SelfGeneratedKeys):
    """A source that has none."""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        raise StartError("no keys today")


async def test_a_start_that_fails_leaves_no_port_open() -> None:
    entry = {**mapping(free_port(), 1), "ohttp": {}, "no_ra": True}
    bound: list[socket.socket] = []

    def bind(host: str, port: int) -> socket.socket:
        bound.append(make_bound_socket(host, port))
        return bound[-1]

    trust = Trust(make_key_source=lambda *_: NoKeys(300, SystemClock()))
    config = prepare_config(json.dumps({"add_egress": [entry]}))
    with pytest.RaisesGroup(pytest.RaisesExc(StartError, match="no keys today")):
        await Gateway(config, SystemClock(), trust, bind).serve()
    assert [sock.fileno() for sock in bound] == [-1]


async def test_a_data_plane_that_fails_ends_the_gateway() -> None:
    entry = {**mapping(free_port(), 1), "no_ra": True}
    gateway = Gateway(prepare_config(json.dumps({"add_ingress": [entry]})), SystemClock())
    failed = pytest.RaisesExc(TngError, match="data plane has failed")
    with pytest.RaisesGroup(failed, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.serve)
            assert gateway._reactor.on_crash is not None
            gateway._reactor.on_crash()


@pytest.mark.slow
async def test_idle_clients_do_not_hold_up_the_end() -> None:
    port = free_port()
    async with (
        serving({"add_ingress": [{**http_proxy(port), "no_ra": True}]}) as gateway,
        calling(port) as client,
    ):
        await eventually(lambda: gateway.entries[0].meter.cx_active == 1)
        with trio.fail_after(2):
            await gateway.drain()
        assert await client.rest() == b""


def test_the_source_of_certificates_follows_the_configuration() -> None:
    section = {"aa_type": "simulated", "simulated_platform": "unused"}
    passport = {**section, "model": "passport", "as_addr": "http://a/", "policy_ids": ["p"]}
    for members in (section, passport):
        assert make_source(Attest.model_validate(members), SystemClock()) is not None


@pytest.mark.parametrize(("status", "phrase"), [(404, "Not Found"), (599, "Error")])
def test_every_status_has_a_phrase(status: int, phrase: str) -> None:
    said = replies.error_response(RequestRejectedError("no", status=status))
    assert said.startswith(f"HTTP/1.1 {status} {phrase}\r\n".encode())


async def test_numbers_are_reported_at_the_end_and_not_when_the_start_fails(caplog) -> None:
    caplog.set_level("INFO")
    exporter = {"exporters": [{"type": "stdout", "step": 3600}]}
    config = {"add_ingress": [{**http_proxy(free_port()), "no_ra": True}], "metric": exporter}
    async with serving(config) as gateway:
        gateway.entries[0].meter.cx_total = 5
        assert "current metrics" not in caplog.text
        await gateway.drain()
        assert caplog.text.count("cx_total=5") == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config["add_ingress"] = [{**mapping(taken.getsockname()[1], 1), "no_ra": True}]
        gateway = Gateway(prepare_config(json.dumps(config)), SystemClock())
        with pytest.raises(StartError, match="cannot listen"):
            await gateway.serve()
    assert caplog.text.count("current metrics live=1") == 1


@pytest.mark.slow
async def test_an_exporter_without_a_server_disturbs_neither_traffic_nor_readiness(caplog) -> None:
    exporter = {"type": "falcon", "server_url": "http://127.0.0.1:1", "endpoint": "e", "step": 1}
    port = free_port()
    async with service(hold) as web:
        entry = {**http_proxy(port), "no_ra": True}
        entry["http_proxy"]["dst_filters"] = [{"domain": "nothing.example"}]  # type: ignore[index]
        config = {"add_ingress": [entry], "metric": {"exporters": [exporter]}}
        async with serving(config) as gateway, calling(port) as client:
            await client.say(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % web.port)
            await eventually(lambda: "metric reports do not arrive" in caplog.text)
            assert b" 200 " in await client.until(b"\r\n\r\n")
            assert gateway.not_ready() == []
