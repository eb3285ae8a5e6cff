"""OHTTP between two processes of ours: each way of trust, rotation, files of keys, an observer."""

from __future__ import annotations

import contextlib
import dataclasses
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
from stage.gateways import free_port, mapping
from stage.octet_service import EVENTS, OctetService, octet_service, octets
from stage.processes import get, launched

pytestmark = pytest.mark.slow

STRANGERS = ("background_check", "passport", "reverse")
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
    folder: pathlib.Path,
    name: str,
    nears: list[dict[str, object]],
    fars: list[dict[str, object]],
) -> Iterator[tuple[int, int]]:
    """Egresses and ingresses; the control ports of both processes."""
    with (
        gateway(folder, "ours", f"{name}-egress", {"add_egress": fars}) as (egress, behind),
        gateway(folder, "ours", f"{name}-ingress", {"add_ingress": nears}) as (ingress, before),
    ):
        egress.await_http(behind, "/readyz")
        ingress.await_http(before, "/readyz")
        yield before, behind
        assert CANARY not in egress.log + ingress.log


@dataclasses.dataclass(frozen=True)
class Lane:
    """One set-up in the running pair: the way in, who watches between, its place in the lists."""

    entrance: int
    observer: Observer
    number: int


@dataclasses.dataclass(frozen=True)
class Stage:
    """A pair with an entry for each set-up, and its control ports."""

    lanes: dict[tuple[str, bool], Lane]
    before: int
    behind: int


@pytest.fixture(scope="module")
def stage(folder: pathlib.Path, trust: Vouchers, service: OctetService) -> Iterator[Stage]:
    wanted = [(setup, True) for setup in SETUPS] + [(setup, False) for setup in STRANGERS]
    lanes, nears, fars = {}, [], []
    with contextlib.ExitStack() as stack:
        for number, key in enumerate(wanted):
            entrance, tunnel = free_port(), free_port()
            observer = stack.enter_context(Observer(tunnel))
            near, far = trust.parts(key[0], "ours", "ours", known=key[1])
            fars.append({**mapping(tunnel, service.port), "ohttp": {}, **far})
            nears.append({**mapping(entrance, observer.port), "ohttp": {}, **near})
            lanes[key] = Lane(entrance, observer, number)
        before, behind = stack.enter_context(pair(folder, "stage", nears, fars))
        yield Stage(lanes, before, behind)


@pytest.mark.parametrize("setup", SETUPS)
def test_each_way_of_trust_carries_requests_and_shows_nothing(
    stage: Stage, service: OctetService, setup: str
) -> None:
    lane = stage.lanes[setup, True]
    body = octets(300_000)
    with contextlib.closing(connection(lane.entrance)) as line:
        line.request("POST", "/digest", body, {"Authorization": f"Bearer {CANARY}"})
        assert line.getresponse().read().decode() == hashlib.sha256(body).hexdigest()
        line.request("GET", "/events")
        arrived = 0
        for text in line.getresponse():
            if text.startswith(b"data:"):
                arrived += 1
                service.heard.release()
        assert arrived == EVENTS
    keys = json.loads(get(stage.behind, f"/status/egress/{lane.number}/ohttp/keys")[1])
    known = json.loads(get(stage.before, f"/status/ingress/{lane.number}/ohttp/keys")[1])["servers"]
    assert known[0]["server_public_key"] == keys["local_keys"][0]["public_key"]
    assert known[0]["url"] == f"http://127.0.0.1:{lane.observer.port}/"
    assert b"/tng/tunnel" in lane.observer.seen
    for secret in (CANARY.encode(), b"/digest", b"authorization", body[:64]):
        assert secret not in lane.observer.seen


@pytest.mark.parametrize("setup", STRANGERS)
def test_a_platform_that_nobody_knows_gets_or_does_nothing(
    stage: Stage, service: OctetService, setup: str
) -> None:
    lane = stage.lanes[setup, False]
    before = service.requests
    with contextlib.closing(connection(lane.entrance)) as line:
        line.request("POST", "/digest", b"x", {"Authorization": f"Bearer {CANARY}"})
        answer = line.getresponse()
        assert answer.status >= 500
        assert answer.headers["x-tng-error"]
        answer.read()
    assert service.requests == before
    assert CANARY.encode() not in lane.observer.seen


def test_keys_that_change_each_second_fail_no_request(
    folder: pathlib.Path, service: OctetService
) -> None:
    entrance, tunnel = free_port(), free_port()
    key = {"key": {"source": "self_generated", "rotation_interval": 1}}
    far = {**mapping(tunnel, service.port), "ohttp": key, "no_ra": True}
    near = {**mapping(entrance, tunnel), "ohttp": {}, "no_ra": True}
    with pair(folder, "rotation", [near], [far]), contextlib.closing(connection(entrance)) as line:
        end = time.monotonic() + 4
        while time.monotonic() < end:
            line.request("POST", "/digest", b"x" * 1000)
            assert line.getresponse().read().decode() == hashlib.sha256(b"x" * 1000).hexdigest()
            time.sleep(0.05)


def test_an_egress_that_restarts_with_a_new_key_fails_no_request(
    folder: pathlib.Path, service: OctetService
) -> None:
    entrance, tunnel = free_port(), free_port()
    far = {"add_egress": [{**mapping(tunnel, service.port), "ohttp": {}, "no_ra": True}]}
    near = {"add_ingress": [{**mapping(entrance, tunnel), "ohttp": {}, "no_ra": True}]}
    with (
        launched(folder, "restart-ingress", near, free_port()),
        contextlib.closing(connection(entrance)) as line,
    ):
        for number in range(2):
            with launched(folder, f"restart-egress-{number}", far, free_port()):
                line.request("POST", "/digest", b"x")
                assert line.getresponse().read().decode() == hashlib.sha256(b"x").hexdigest()
