"""OHTTP between two processes of ours: each way of trust, rotation, files of keys, an observer."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import pathlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from stage.attested import Vouchers, gateway, vouchers
from stage.gateways import free_port, http_proxy, mapping
from stage.octet_service import EVENTS, OctetService, octet_service, octets
from stage.processes import get, launched

pytestmark = pytest.mark.slow

SETUPS = ("no_ra", "background_check", "passport", "mutual", "reverse", "reverse_passport")
CANARY = "sk-canary-4711"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("ohttp")


@pytest.fixture(scope="module")
def trust(folder: pathlib.Path) -> Iterator[Vouchers]:
    with vouchers(folder) as found:
        yield found


@pytest.fixture(scope="module")
def service() -> Iterator[OctetService]:
    with octet_service() as found:
        yield found


class Observer:
    """Listens between the gateways and keeps every octet that passes."""

    def __init__(self, target: int) -> None:
        self.seen = bytearray()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    thread = threading.Thread(target=self._copy, args=pair, daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.seen += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=15)


@contextlib.contextmanager
def pair(
    folder: pathlib.Path, name: str, near: dict[str, object], far: dict[str, object]
) -> Iterator[tuple[int, int]]:
    """An egress and an ingress; the control ports of both."""
    with (
        gateway(folder, "ours", f"{name}-egress", {"add_egress": [far]}) as (egress, behind),
        gateway(folder, "ours", f"{name}-ingress", {"add_ingress": [near]}) as (ingress, before),
    ):
        egress.await_http(behind, "/readyz")
        ingress.await_http(before, "/readyz")
        yield before, behind
        assert CANARY not in egress.log + ingress.log


@pytest.mark.parametrize("setup", SETUPS)
def test_each_way_of_trust_carries_requests_and_shows_nothing(
    folder: pathlib.Path, trust: Vouchers, service: OctetService, setup: str
) -> None:
    entrance, tunnel = free_port(), free_port()
    near, far = trust.parts(setup, "ours", "ours")
    far = {**mapping(tunnel, service.port), "ohttp": {}, **far}
    with Observer(tunnel) as observer:
        near = {**mapping(entrance, observer.port), "ohttp": {}, **near}
        with pair(folder, setup, near, far) as (before, behind):
            line = connection(entrance)
            body = octets(300_000)
            line.request("POST", "/digest", body, {"Authorization": f"Bearer {CANARY}"})
            answer = line.getresponse()
            assert answer.read().decode() == hashlib.sha256(body).hexdigest()
            line.request("GET", "/events")
            arrived = 0
            for text in line.getresponse():
                if text.startswith(b"data:"):
                    arrived += 1
                    service.heard.release()
            assert arrived == EVENTS
            line.close()
            keys = json.loads(get(behind, "/status/egress/0/ohttp/keys")[1])
            servers = json.loads(get(before, "/status/ingress/0/ohttp")[1])["servers"]
            assert servers[0]["server_public_key"] == keys["local_keys"][0]["public_key"]
            assert servers[0]["url"] == f"http://127.0.0.1:{observer.port}/"
        assert b"/tng/tunnel" in observer.seen
        for secret in (CANARY.encode(), b"/digest", b"authorization", body[:64]):
            assert secret not in observer.seen.lower()


@pytest.mark.parametrize("setup", ["background_check", "passport", "reverse", "reverse_passport"])
def test_a_platform_that_nobody_knows_gets_or_does_nothing(
    folder: pathlib.Path, trust: Vouchers, service: OctetService, setup: str
) -> None:
    entrance, tunnel = free_port(), free_port()
    near, far = trust.parts(setup, "ours", "ours", known=False)
    before = service.requests
    with (
        gateway(
            folder,
            "ours",
            f"strange-egress-{setup}",
            {"add_egress": [{**mapping(tunnel, service.port), "ohttp": {}, **far}]},
        ) as (egress, control),
        gateway(
            folder,
            "ours",
            f"strange-ingress-{setup}",
            {"add_ingress": [{**http_proxy(entrance), "ohttp": {}, **near}]},
        ) as (ingress, other),
    ):
        egress.await_http(control, "/livez")
        ingress.await_http(other, "/livez")
        egress.await_http(tunnel, "/", 403)
        line = connection(entrance)
        line.request("GET", f"http://127.0.0.1:{tunnel}/octets/10")
        answer = line.getresponse()
        assert answer.status >= 500
        assert answer.headers["x-tng-error"]
        answer.read()
        line.close()
    assert service.requests == before


def test_keys_that_change_each_second_fail_no_request(
    folder: pathlib.Path, service: OctetService
) -> None:
    entrance, tunnel = free_port(), free_port()
    key = {"key": {"source": "self_generated", "rotation_interval": 1}}
    far = {**mapping(tunnel, service.port), "ohttp": key, "no_ra": True}
    near = {**mapping(entrance, tunnel), "ohttp": {}, "no_ra": True}
    with pair(folder, "rotation", near, far):
        line = connection(entrance)
        end = time.monotonic() + 4
        while time.monotonic() < end:
            line.request("POST", "/digest", b"x" * 1000)
            assert line.getresponse().read().decode() == hashlib.sha256(b"x" * 1000).hexdigest()
            time.sleep(0.05)
        line.close()


def test_an_egress_that_restarts_with_a_new_key_fails_no_request(
    folder: pathlib.Path, service: OctetService
) -> None:
    entrance, tunnel = free_port(), free_port()
    far = {"add_egress": [{**mapping(tunnel, service.port), "ohttp": {}, "no_ra": True}]}
    near = {"add_ingress": [{**mapping(entrance, tunnel), "ohttp": {}, "no_ra": True}]}
    line = connection(entrance)
    with launched(folder, "restart-ingress", near, free_port()):
        for number in range(2):
            with launched(folder, f"restart-egress-{number}", far, free_port()):
                line.request("POST", "/digest", b"x")
                assert line.getresponse().status == 200, number
    line.close()
