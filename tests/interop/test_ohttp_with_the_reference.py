"""OHTTP between a gateway of ours and the reference, in both directions and every way of trust."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import importlib.util
import pathlib
from collections.abc import Iterator

import pytest

from stage.attested import REFERENCE, Vouchers, gateway, vouchers
from stage.gateways import free_port, http_proxy, mapping
from stage.octet_service import EVENTS, OctetService, octet_service, octets

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(
        not REFERENCE.exists(), reason="the reference is not there: tools/reference"
    ),
]

SETUPS = (
    "no_ra",
    "background_check",
    "passport",
    "mutual",
    "reverse",
    "reverse_passport",
)
STRANGERS = ("background_check", "reverse")
LARGE = 8 << 20


@dataclasses.dataclass(frozen=True)
class Pair:
    """A running pair: set-up and whether the platform is known, to the mapping's port."""

    direction: str
    ports: dict[tuple[str, bool], int]
    tunnels: dict[tuple[str, bool], int]
    proxy: int
    service: OctetService


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("interop-ohttp")


@pytest.fixture(scope="module")
def trust(folder: pathlib.Path) -> Iterator[Vouchers]:
    with vouchers(folder) as found:
        yield found


@pytest.fixture(scope="module", params=["ours->ref", "ref->ours"])
def pair(request: pytest.FixtureRequest, folder: pathlib.Path, trust: Vouchers) -> Iterator[Pair]:
    ingress, egress = request.param.split("->")
    wanted = [(setup, True) for setup in SETUPS] + [(setup, False) for setup in STRANGERS]
    ports = {key: free_port() for key in wanted}
    tunnels = {key: free_port() for key in wanted}
    ingresses, egresses = [], []
    with octet_service() as service, contextlib.ExitStack() as stack:
        for key in wanted:
            near, far = trust.parts(key[0], ingress, egress, known=key[1])
            ingresses.append({**mapping(ports[key], tunnels[key]), "ohttp": {}, **near})
            egresses.append({**mapping(tunnels[key], service.port), "ohttp": {}, **far})
        proxy = free_port()
        near, _ = trust.parts("background_check", ingress, egress)
        ingresses.append({**http_proxy(proxy), "ohttp": {}, **near})
        for who, name, side, entries in (
            (egress, "egress", "add_egress", egresses),
            (ingress, "ingress", "add_ingress", ingresses),
        ):
            process, control = stack.enter_context(
                gateway(folder, who, f"{name}-{who}", {side: entries})
            )
            process.await_http(control, "/readyz")
        yield Pair(request.param, ports, tunnels, proxy, service)


def connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=15)


@pytest.mark.parametrize("setup", SETUPS)
def test_requests_are_answered_on_one_connection(pair: Pair, setup: str) -> None:
    line = connection(pair.ports[setup, True])
    body = octets(40_000)
    for _ in range(2):
        line.request("GET", "/octets/1000")
        answer = line.getresponse()
        assert (answer.status, answer.read()) == (200, octets(1000))
        line.request("POST", "/digest", body)
        answer = line.getresponse()
        assert answer.read().decode() == hashlib.sha256(body).hexdigest()
    line.close()


@pytest.mark.parametrize("setup", STRANGERS)
def test_a_platform_that_nobody_knows_is_not_served(pair: Pair, setup: str) -> None:
    before = pair.service.requests
    line = connection(pair.ports[setup, False])
    line.request("GET", "/octets/10")
    answer = line.getresponse()
    assert answer.status >= 500
    assert octets(10) not in answer.read()
    line.close()
    assert pair.service.requests == before


def test_large_bodies_arrive_whole(pair: Pair) -> None:
    line = connection(pair.ports["background_check", True])
    body = octets(LARGE)
    line.request("POST", "/digest", body)
    assert line.getresponse().read().decode() == hashlib.sha256(body).hexdigest()
    line.request("GET", f"/octets/{LARGE}")
    assert hashlib.sha256(line.getresponse().read()).digest() == hashlib.sha256(body).digest()
    line.close()


def test_events_arrive_when_they_are_sent(pair: Pair) -> None:
    line = connection(pair.ports["background_check", True])
    line.request("GET", "/events")
    arrived = 0
    for text in line.getresponse():
        if text.startswith(b"data:"):
            arrived += 1
            pair.service.heard.release()
    line.close()
    assert arrived == EVENTS


@pytest.mark.parametrize("tunnelled", [False, True])
def test_a_proxy_of_one_leads_through_the_egress_of_the_other(pair: Pair, tunnelled: bool) -> None:
    target = pair.tunnels["background_check", True]
    line = connection(pair.proxy)
    url = "/octets/1000"
    if tunnelled:
        line.set_tunnel("127.0.0.1", target)
    else:
        url = f"http://127.0.0.1:{target}{url}"
    line.request("GET", url)
    answer = line.getresponse()
    assert (answer.status, answer.read()) == (200, octets(1000))
    line.close()


@pytest.mark.skipif(
    importlib.util.find_spec("cohere_tng") is None,
    reason="cohere-tng is not installed: pip install cohere-tng==1.2.0",
)
def test_the_client_in_the_other_dialect_is_served(folder: pathlib.Path) -> None:
    import httpx
    from cohere_tng.httpx import Transport  # type: ignore[import-not-found]

    tunnel = free_port()
    with octet_service() as service:
        entry = {**mapping(tunnel, service.port), "ohttp": {}, "no_ra": True}
        with gateway(folder, "ours", "egress-cohere", {"add_egress": [entry]}) as (
            process,
            control,
        ):
            process.await_http(control, "/readyz")
            with httpx.Client(transport=Transport()) as client:
                answer = client.get(f"http://127.0.0.1:{tunnel}/octets/10")
                assert answer.content == octets(10)
