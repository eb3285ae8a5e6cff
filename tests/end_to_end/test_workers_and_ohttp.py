"""OHTTP with several workers: one set of keys, one judge, one memory of requests."""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import json
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from stage.gateways import free_port, listen, mapping
from stage.processes import Process, get, running
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.clock import SystemClock
from tng.tunnel.ohttp.control_messages import Api, dump_wanted, parse_key_config_answer
from tng.wire import bhttp
from tng.wire.bhttp_decoder import Content, Decoder, ResponseHead
from tng.wire.ohttp_keys import choose, parse_key_config_list
from tng.wire.ohttp_metadata import Metadata, frame_metadata
from tng.wire.ohttp_request import RequestSealer
from tng.wire.ohttp_response import ResponseOpener

pytestmark = pytest.mark.slow


class Service:
    """Answers every request, and counts them."""

    def __init__(self) -> None:
        self.served = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.served += 1
                self.send_response(200)
                self.send_header("Content-Length", "5")
                self.end_headers()
                self.wfile.write(b"hello")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.port: int = self.server.server_address[1]

    @contextlib.contextmanager
    def running(self) -> Iterator[Service]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


def post(port: int, api: Api, body: bytes, kind: str) -> tuple[int, bytes]:
    """A request on a connection of its own, which falls to any worker."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"content-type": kind, "x-tng-ohttp-api": api.value, "connection": "close"}
        connection.request("POST", "/", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def encapsulate(port: int) -> tuple[bytes, ResponseOpener]:
    """A GET, encrypted to the key that some worker offers."""
    status, answer = post(port, Api.KEY_CONFIG, dump_wanted(None, None), "application/json")
    assert status == 200, answer
    encoded = parse_key_config_answer(answer).key.encoded_key_config_list
    config, suite = choose(parse_key_config_list(base64.b64decode(encoded)))
    sealer = RequestSealer(config, suite, X25519PrivateKey.generate(), None)
    metadata = frame_metadata(Metadata(config.public_key, None, is_anonymous=True))
    head = bhttp.dump_request_head(b"GET", b"", b"", b"/x", [(b"host", b"service")])
    body = metadata + sealer.header + sealer.seal(head + bhttp.dump_end()) + sealer.finish()
    return body, sealer.response_opener()


def tunnel(port: int, body: bytes) -> tuple[int, bytes]:
    return post(port, Api.TUNNEL, body, "message/ohttp-chunked-req")


def opened(opener: ResponseOpener, body: bytes) -> tuple[int, bytes]:
    """Status and content of an encapsulated response."""
    decoder, status, content = Decoder("response"), 0, b""
    for plain in opener.feed(body):
        for event in decoder.feed(plain):
            if isinstance(event, ResponseHead):
                status = event.status
            elif isinstance(event, Content):
                content += event.data
    opener.finish()
    return status, content


@contextlib.contextmanager
def launched(folder: pathlib.Path, control: int, config: dict[str, object]) -> Iterator[Process]:
    full = {**config, "control_interface": {"restful": listen(control)}}
    arguments = ["-m", "tng", "launch", "--config-content", json.dumps(full), "--workers", "2"]
    with running(folder, f"gateway-{control}", *arguments) as process:
        process.await_http(control, "/readyz")
        yield process


def plain_egress(port: int, target: int, rotation: int) -> dict[str, object]:
    key = {"source": "self_generated", "rotation_interval": rotation}
    return {"add_egress": [{**mapping(port, target), "ohttp": {"key": key}, "no_ra": True}]}


def cx_by_worker(control: int) -> int:
    lines = get(control, "/metrics")[1].decode().splitlines()
    return int(next(line for line in lines if line.startswith("tng_cx_total{")).split()[-1])


def worker_pids(process: Process) -> list[int]:
    lines = [line for line in process.log.splitlines() if "worker started" in line]
    return [int(line.rpartition("pid=")[2]) for line in lines]


def test_a_key_of_any_worker_opens_requests_in_all_while_keys_rotate(
    tmp_path: pathlib.Path,
) -> None:
    port, control = free_port(), free_port()
    with Service().running() as service:
        config = plain_egress(port, service.port, rotation=1)
        with launched(tmp_path, control, config) as gateway:

            def one(_: int) -> tuple[int, bytes]:
                body, opener = encapsulate(port)
                status, answer = tunnel(port, body)
                assert status == 200, answer
                return opened(opener, answer)

            offered: set[str] = set()
            with ThreadPoolExecutor(8) as clients:
                count, end = 0, time.monotonic() + 3.2
                while time.monotonic() < end:
                    assert set(clients.map(one, range(32))) == {(200, b"hello")}
                    count += 32
                    status = json.loads(get(control, "/status/egress/0/ohttp/keys")[1])
                    offered |= {key["public_key"] for key in status["local_keys"]}
            assert service.served == count
            assert len(offered) >= 4
            assert status["key_manager_type"] == "self_generated"

            os.kill(worker_pids(gateway)[0], signal.SIGKILL)
            with ThreadPoolExecutor(8) as clients:  # one of them gets its keys before it listens
                outcomes = [_outcome(one) for _ in range(40)]
            assert outcomes.count((200, b"hello")) >= 39, outcomes


def _outcome(one: object) -> object:
    try:
        return one(0)  # type: ignore[operator]
    except OSError as exc:  # a connection that the killed worker had just taken
        return exc


def test_a_copy_of_a_request_is_refused_by_every_worker_even_by_a_later_one(
    tmp_path: pathlib.Path,
) -> None:
    port, control = free_port(), free_port()
    with Service().running() as service:
        config = plain_egress(port, service.port, rotation=300)
        with launched(tmp_path, control, config) as gateway:
            body, opener = encapsulate(port)
            status, answer = tunnel(port, body)
            assert (status, opened(opener, answer)) == (200, (200, b"hello"))
            copies = [tunnel(port, body) for _ in range(20)]
            assert {status for status, _ in copies} == {409}
            assert {json.loads(answer)["code"] for _, answer in copies} == {"ReplayedRequest"}

            for pid in worker_pids(gateway):
                os.kill(pid, signal.SIGKILL)
            assert {tunnel(port, body)[0] for _ in range(20)} == {409}
            assert service.served == 1

            another, opener = encapsulate(port)  # nothing else is refused
            status, answer = tunnel(port, another)
            assert (status, opened(opener, answer)) == (200, (200, b"hello"))


def test_copies_sent_at_the_same_time_are_served_once(tmp_path: pathlib.Path) -> None:
    port, control = free_port(), free_port()
    with Service().running() as service:
        config = plain_egress(port, service.port, rotation=300)
        with launched(tmp_path, control, config), ThreadPoolExecutor(16) as clients:
            for turn in range(1, 11):
                body, _ = encapsulate(port)
                statuses = list(clients.map(lambda _, copy=body: tunnel(port, copy)[0], range(16)))
                assert sorted(statuses) == [200] + [409] * 15
                assert service.served == turn


@contextlib.contextmanager
def trustee(folder: pathlib.Path, port: int) -> Iterator[Process]:
    SimulatedPlatform.create(folder / "platform", now=int(SystemClock().now()))
    where = ["--listen", f"127.0.0.1:{port}", "--state", str(folder / "trustee")]
    simulated = ["--allow-simulated", str(folder / "platform")]
    with running(folder, "trustee", "-m", "tng", "trustee", *where, *simulated) as process:
        process.await_http(port, "/as/certificate")
        yield process


def attested_pair(
    folder: pathlib.Path, model: str, judge: int, egress: int, ingress: int, target: int
) -> dict[str, object]:
    """Two gateways in one, which attest to each other by the same model."""
    address = f"http://127.0.0.1:{judge}/as/"
    attest = {"aa_type": "simulated", "simulated_platform": str(folder / "platform")}
    verify = {"model": model, "as_addr": address, "policy_ids": ["default"]}
    verify["allow_simulated"] = True  # type: ignore[assignment]
    if model == "passport":
        attest |= {"model": model, "as_addr": address, "policy_ids": ["default"]}  # type: ignore[dict-item]
    trust = {"attest": attest}
    return {
        "add_egress": [{**mapping(egress, target), "ohttp": {}, **trust}],
        "add_ingress": [{**mapping(ingress, egress), "ohttp": {}, "verify": verify}],
    }


@pytest.mark.parametrize(
    ("model", "appraisals"), [("passport", 1), ("background_check", 2)], ids=["passport", "check"]
)
def test_the_attestation_service_is_asked_once_however_many_workers_there_are(
    model: str, appraisals: int, tmp_path: pathlib.Path
) -> None:
    """Once about a key; by background check once for each ingress worker that asks for the key."""
    judge, egress, ingress, control = (free_port() for _ in range(4))
    with Service().running() as service, trustee(tmp_path, judge) as appraiser:
        config = attested_pair(tmp_path, model, judge, egress, ingress, service.port)
        with launched(tmp_path, control, config):
            for _ in range(24):
                assert get(ingress, "/v1/models") == (200, b"hello")
            assert service.served == 24
            known = json.loads(get(control, "/status/ingress/0/ohttp/keys")[1])
            [server] = known["servers"]
            assert server["url"] == f"http://127.0.0.1:{egress}/"
            assert server["server_attestation"].count(".") == 2
            offered = json.loads(get(control, "/status/egress/0/ohttp/keys")[1])
            public = offered["local_keys"][0]["public_key"]
            assert server["server_public_key"] == public
            peers = json.loads(get(control, "/status/attestation")[1])
            assert "accepted" in json.dumps(peers)
    assert 1 <= appraiser.log.count("appraised ") <= appraisals
