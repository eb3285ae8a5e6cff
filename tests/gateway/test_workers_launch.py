"""`tng launch --workers`: a worker under a supervisor that the test plays, and processes."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import pathlib
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from stage.collector import Report, http_collector, read_falcon
from stage.gateways import free_port, listen, mapping
from stage.processes import Process, get, running
from stage.recorder import ANSWER, Recorder
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.cli import launch
from tng.cli.main import make_parser
from tng.clock import SystemClock
from tng.dataplane.listener import make_listening_socket
from tng.errors import ConfigError, LocalProtocolError, StartError, TngError
from tng.gateway.workers.link import Link
from tng.gateway.workers.ohttp_messages import dump_keyring
from tng.gateway.workers.process import starter
from tng.gateway.workers.replays import make_table
from tng.gateway.workers.reports import parse_report
from tng.gateway.workers.worker import Worker, _Inherited, run_worker
from tng.tunnel.ohttp.keyring import Keyring, make_key

# -- one worker -------------------------------------------------------------------------


async def no_answer(question: str, _carried: object) -> dict[str, object]:
    raise LocalProtocolError(f"not expected here: {question}")


@contextlib.asynccontextmanager
async def worker() -> AsyncIterator[Link]:
    """A worker in this process; gives the supervisor's end of its stream."""
    ours, theirs = trio.testing.memory_stream_pair()
    link = Link(ours, no_answer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Worker(theirs, SystemClock()).run)
        scope = trio.CancelScope()
        nursery.start_soon(_run_within, scope, link)
        yield link
        scope.cancel()


async def _run_within(scope: trio.CancelScope, link: Link) -> None:
    with scope:
        await link.run()


def plain_egress(port: int, target: int) -> dict[str, object]:
    control = {"restful": {"host": "203.0.113.1", "port": 1}}  # not ours: it must be left alone
    entry = {**mapping(port, target), "no_ra": True}
    return {"add_egress": [entry], "control_interface": control}


async def test_a_worker_serves_the_sockets_that_it_was_given() -> None:
    listening = make_listening_socket("127.0.0.1", 0)
    port: int = listening.getsockname()[1]
    descriptor = listening.detach()
    async with worker() as link:
        config = json.dumps(plain_egress(port, 1))
        await link.ask("start", config=config, sockets={f"127.0.0.1:{port}": [descriptor]})
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
        with trio.fail_after(5):
            report = parse_report(await link.ask("report"))
            while report.entries["add_egress[0]"].numbers["cx_failed"] == 0:
                report = parse_report(await link.ask("report"))
        assert report.not_ready == ()
        assert report.entries["add_egress[0]"].pool is None
        with pytest.raises(TngError, match="started once"):
            await link.ask("start", config=config, sockets={})
        await link.ask("drain")
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", port)


@pytest.mark.parametrize("descriptors", [None, [], ["5"]])
async def test_a_worker_without_a_socket_for_an_address_does_not_serve(
    descriptors: list[object] | None,
) -> None:
    sockets = {} if descriptors is None else {"127.0.0.1:5": descriptors}
    async with worker() as link:
        with pytest.raises(TngError, match="gave this worker no socket"):
            await link.ask("start", config=json.dumps(plain_egress(5, 1)), sockets=sockets)


def test_entries_that_let_the_system_choose_a_port_get_their_sockets_in_order() -> None:
    first, second = (make_listening_socket("127.0.0.1", 0) for _ in range(2))
    ports = [sock.getsockname()[1] for sock in (first, second)]
    inherited = _Inherited({"127.0.0.1:0": [first.detach(), second.detach()]})
    taken = [inherited.take("127.0.0.1", 0) for _ in ports]
    assert [sock.getsockname()[1] for sock in taken] == ports
    with pytest.raises(StartError, match="no socket"):
        inherited.take("127.0.0.1", 0)
    for sock in taken:
        sock.close()


@pytest.mark.parametrize("question", ["report", "unheard-of"])
async def test_a_worker_that_has_not_started_answers_little(question: str) -> None:
    async with worker() as link:
        with pytest.raises(TngError, match="no answer"):
            await link.ask(question)
        assert await link.ask("drain") == {}


def ohttp_egress(port: int, target: int) -> dict[str, object]:
    return {"add_egress": [{**mapping(port, target), "ohttp": {}, "no_ra": True}]}


def a_ring() -> tuple[Keyring, dict[str, object]]:
    now = SystemClock().now()
    ring = Keyring([make_key(0, X25519PrivateKey.generate(), now, 300)])
    return ring, {"entry": "add_egress[0].ohttp.key", "serial": 1, "keys": dump_keyring(ring)}


async def test_a_worker_offers_the_keys_that_it_was_told() -> None:
    listening = make_listening_socket("127.0.0.1", 0)
    port: int = listening.getsockname()[1]
    sockets = {f"127.0.0.1:{port}": [listening.detach()]}
    ring, told = a_ring()
    table = make_table(1)
    async with worker() as link:
        await link.ask("models", entry="add_ingress[0]", models=["passport"])
        await link.ask("keys", **told)
        config = json.dumps(ohttp_egress(port, 1))
        await link.ask("start", config=config, sockets=sockets, table=table)
        async with httpx.AsyncClient() as client:
            headers = {"x-tng-ohttp-api": "/tng/key-config", "content-type": "application/json"}
            body = {"attestation_request": None}
            answer = await client.post(f"http://127.0.0.1:{port}/", headers=headers, json=body)
        encoded = answer.json()["hpke_key_config"]["encoded_key_config_list"]
        [key] = ring
        assert key.public_key in base64.b64decode(encoded)
        report = parse_report(await link.ask("report", servers=True))
        assert report.entries["add_egress[0]"].servers == ()
    os.close(table)


@pytest.mark.parametrize("lacking", ["keys", "table"])
async def test_a_worker_of_an_ohttp_egress_serves_nothing_without_keys_and_table(
    lacking: str,
) -> None:
    table = make_table(1)
    async with worker() as link:
        if lacking != "keys":
            await link.ask("keys", **a_ring()[1])
        carried = {} if lacking == "table" else {"table": table}
        config = json.dumps(ohttp_egress(5, 1))
        with pytest.raises(TngError, match=f"gave this worker no {lacking}"):
            await link.ask("start", config=config, sockets={}, **carried)
    os.close(table)


async def test_a_worker_with_several_judges_hears_which_evidence_they_prefer() -> None:
    listening = make_listening_socket("127.0.0.1", 0)
    port: int = listening.getsockname()[1]
    sockets = {f"127.0.0.1:{port}": [listening.detach()]}
    check = {"as_addr": "http://127.0.0.1:1/", "policy_ids": ["default"]}
    verify = [check, {**check, "model": "passport"}]
    config = {"add_ingress": [{**mapping(port, 1), "ohttp": {}, "verify": verify}]}
    async with worker() as link:
        path = {"entry": "add_ingress[0]"}
        await link.ask("models", **path, models=["passport", "background_check"])
        await link.ask("start", config=json.dumps(config), sockets=sockets)
        await link.ask("models", **path, models=["background_check", "passport"])
        report = parse_report(await link.ask("report", servers=True))
        assert report.entries["add_ingress[0]"].servers == ()


def test_a_worker_is_not_started_by_hand() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    read, write = os.pipe()
    try:
        with pytest.raises(StartError, match="--workers N"):
            run_worker(read, SystemClock())
    finally:
        os.close(read)
        os.close(write)
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


async def test_a_program_that_is_not_there_is_a_start_error() -> None:
    with pytest.raises(StartError, match="cannot be started"):
        await starter(["/nowhere/python"])(0, [])


# -- the command line -------------------------------------------------------------------


@pytest.mark.parametrize(("word", "count"), [("1", 1), ("2", 2), ("256", 256)])
def test_the_number_of_workers(word: str, count: int) -> None:
    assert launch.worker_count(word) == count


def test_auto_is_one_worker_per_core_of_this_process() -> None:
    assert launch.worker_count("auto") == min(256, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("word", ["0", "257", "-1", "many", "", "1.5", "²", "9" * 5000])
def test_what_is_no_number_of_workers(word: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        launch.worker_count(word)


def parse(*arguments: str) -> argparse.Namespace:
    return make_parser().parse_args([*arguments, "launch", "--config-content", "{}"])


def test_workers_log_as_their_supervisor_does() -> None:
    command = launch.worker_command(parse("--log-format", "json", "--log-file", "-odd name"))
    assert command[-4:] == ["--log-file=-odd name", "--log-format=json", "launch", "--worker-link"]
    assert "{}" not in command


def test_a_log_that_rolls_over_needs_a_single_process() -> None:
    with pytest.raises(ConfigError, match="--workers 1"):
        launch.worker_command(parse("--log-rolling", "--log-file", "x"))


# -- whole processes --------------------------------------------------------------------


@contextlib.contextmanager
def launched(
    folder: pathlib.Path, config: dict[str, object], control: int, *flags: str
) -> Iterator[Process]:
    full = {**config, "control_interface": {"restful": listen(control)}}
    arguments = ["-m", "tng", "launch", "--config-content", json.dumps(full), "--workers", "2"]
    with running(folder, f"gateway-{control}", *arguments, *flags) as process:
        process.await_http(control, "/readyz")
        yield process


def worker_pids(process: Process) -> list[int]:
    lines = [line for line in process.log.splitlines() if "worker started" in line]
    return [int(line.rpartition("pid=")[2]) for line in lines]


def cx_total(control: int) -> int:
    lines = get(control, "/metrics")[1].decode().splitlines()
    return int(next(line for line in lines if line.startswith("tng_cx_total{")).split()[-1])


def ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return client.recv(65536)


def pair(
    egress: int, ingress: int, target: int, folder: pathlib.Path, judge: int
) -> dict[str, object]:
    """Ingress and egress in one gateway."""
    attest = {"aa_type": "simulated", "simulated_platform": str(folder / "platform")}
    verify = {
        "as_addr": f"http://127.0.0.1:{judge}/as/",
        "policy_ids": ["default"],
        "allow_simulated": True,
    }
    return {
        "add_egress": [{**mapping(egress, target), "attest": attest}],
        "add_ingress": [{**mapping(ingress, egress), "verify": verify}],
    }


@contextlib.contextmanager
def trustee(folder: pathlib.Path, port: int) -> Iterator[Process]:
    SimulatedPlatform.create(folder / "platform", now=int(SystemClock().now()))
    where = ["--listen", f"127.0.0.1:{port}", "--state", str(folder / "trustee")]
    simulated = ["--allow-simulated", str(folder / "platform")]
    with running(folder, "trustee", "-m", "tng", "trustee", *where, *simulated) as process:
        process.await_http(port, "/as/certificate")
        yield process


@pytest.mark.slow
def test_two_workers_one_verdict_one_sum_and_a_death_in_between(tmp_path: pathlib.Path) -> None:
    judge, egress, ingress, control = (free_port() for _ in range(4))
    with Recorder() as service, trustee(tmp_path, judge) as appraiser:
        config = pair(egress, ingress, service.port, tmp_path, judge)
        with launched(tmp_path, config, control) as gateway:
            assert [ask(ingress) for _ in range(20)] == [ANSWER] * 20
            assert cx_total(control) >= 20
            pool = json.loads(get(control, "/status/ingress/0/rats_tls/pool")[1])
            shards = pool["endpoints"][0]["shards"]
            assert {shard["worker"] for shard in shards} == {0, 1}

            os.kill(worker_pids(gateway)[0], signal.SIGKILL)
            # Its share of these waits in its queue until the next process is there.
            assert [ask(ingress) for _ in range(20)] == [ANSWER] * 20
            gateway.await_http(control, "/readyz")
            assert len(worker_pids(gateway)) == 3
            assert cx_total(control) >= 20
            assert gateway.stop() == 0
        assert appraiser.stop() == 0
        assert appraiser.log.count("appraised ") == 1


@pytest.mark.slow
def test_the_sums_of_two_workers_are_reported_by_one(tmp_path: pathlib.Path) -> None:
    ingress, egress, control = (free_port() for _ in range(3))
    with Recorder() as service, http_collector() as collector:
        exporter = {"type": "falcon", "server_url": collector.url, "endpoint": "e", "step": 1}
        config = {
            "add_ingress": [{**mapping(ingress, egress), "no_ra": True}],
            "add_egress": [{**mapping(egress, service.port), "no_ra": True}],
            "metric": {"exporters": [exporter]},
        }
        began = time.monotonic()
        with launched(tmp_path, config, control) as gateway:
            assert [ask(ingress) for _ in range(20)] == [ANSWER] * 20
            collector.wait_for(lambda report: total_told(report) == 20)
            assert gateway.stop() == 0
        steps = time.monotonic() - began
    assert total_told(collector.reports[-1]) == 20
    assert len(collector.reports) <= steps + 1


def total_told(report: Report) -> int:
    """Connections of the ingress in a report, which tells of it once."""
    told = [each for each in read_falcon(report.body) if each.name == "cx_total"]
    (value,) = [each.value for each in told if ("ingress_id", "0") in each.labels]
    assert len(told) == 2
    return value


@pytest.mark.slow
def test_the_first_signal_drains_and_the_second_cuts(tmp_path: pathlib.Path) -> None:
    port, control = free_port(), free_port()
    with socket.create_server(("127.0.0.1", 0)) as service:
        target: int = service.getsockname()[1]
        judge = free_port()
        egress = free_port()
        with trustee(tmp_path, judge):
            config = pair(egress, port, target, tmp_path, judge)
            with (
                launched(tmp_path, config, control) as gateway,
                socket.create_connection(("127.0.0.1", port), timeout=10) as client,
            ):
                client.sendall(b"x")
                served, _ = service.accept()
                with served:
                    served.settimeout(10)
                    # To the whole group, as a terminal does it.
                    for pid in [gateway.popen.pid, *worker_pids(gateway)]:
                        os.kill(pid, signal.SIGTERM)
                    _await_refusal(port)
                    served.sendall(b"in flight")
                    received = b""
                    while len(received) < 9:
                        received += client.recv(64)
                    assert received == b"in flight"
                    assert gateway.popen.poll() is None
                    began = time.monotonic()
                    assert gateway.stop() == 0
                    assert time.monotonic() - began < 8
                    assert "second signal" in gateway.log


def _await_refusal(port: int) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return
    raise AssertionError("still listening")


@pytest.mark.slow
def test_without_a_supervisor_the_workers_end(tmp_path: pathlib.Path) -> None:
    port, control = free_port(), free_port()
    config = {"add_egress": [{**mapping(port, 1), "no_ra": True}]}
    with launched(tmp_path, config, control) as gateway:
        pids = worker_pids(gateway)
        gateway.popen.kill()
        gateway.popen.wait()
        _await_refusal(port)
        end = time.monotonic() + 10
        while any(pathlib.Path(f"/proc/{pid}/fd/0").exists() for pid in pids):
            assert time.monotonic() < end


@pytest.mark.slow
def test_a_port_in_use_ends_the_start(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port: int = taken.getsockname()[1]
        config = json.dumps({"add_egress": [{**mapping(port, 1), "no_ra": True}]})
        arguments = ["-m", "tng", "launch", "--config-content", config, "--workers", "2"]
        with running(tmp_path, "gateway", *arguments) as process:
            assert process.wait() == 1
            assert "already in use" in process.log
            assert "worker started" not in process.log
