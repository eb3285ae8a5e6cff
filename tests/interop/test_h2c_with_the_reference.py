"""HTTP/2 with prior knowledge at an OHTTP ingress, with the reference at either end."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import httpx
import pytest

from stage.attested import REFERENCE, gateway
from stage.gateways import free_port, mapping
from stage.octet_service import EVENTS, OctetService, octet_service, octets

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(
        not REFERENCE.exists(), reason="the reference is not there: tools/reference"
    ),
]

LARGE = 4 << 20


@pytest.fixture(scope="module", params=["ours->ref", "ref->ours"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OctetService, httpx.Client]]:
    """The service, and a client of the ingress."""
    folder = tmp_path_factory.mktemp("interop-h2c")
    ingress, egress = request.param.split("->")
    port, tunnel = free_port(), free_port()
    way = {"ohttp": {}, "no_ra": True}
    with octet_service() as service, contextlib.ExitStack() as stack:
        for who, name, config in (
            (egress, "egress", {"add_egress": [{**mapping(tunnel, service.port), **way}]}),
            (ingress, "ingress", {"add_ingress": [{**mapping(port, tunnel), **way}]}),
        ):
            process, control = stack.enter_context(gateway(folder, who, f"{name}-{who}", config))
            process.await_http(control, "/readyz")
        client = httpx.Client(
            http1=False, http2=True, base_url=f"http://127.0.0.1:{port}", timeout=15
        )
        with client:
            yield service, client


def test_requests_of_one_connection_are_answered(pair: tuple[OctetService, httpx.Client]) -> None:
    _, client = pair
    body = octets(LARGE)
    for _ in range(2):
        answer = client.get("/octets/1000")
        assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
        assert answer.content == octets(1000)
        assert client.post("/digest", content=body).text == hashlib.sha256(body).hexdigest()
    assert client.get(f"/octets/{LARGE}").content == body


def test_events_arrive_when_they_are_sent(pair: tuple[OctetService, httpx.Client]) -> None:
    service, client = pair
    heard = b""
    with client.stream("GET", "/events") as answer:
        for part in answer.iter_raw():
            for _ in range(part.count(b"\n\n")):
                service.heard.release()
            heard += part
    assert heard == b"".join(b"data: %d\n\n" % number for number in range(EVENTS))
