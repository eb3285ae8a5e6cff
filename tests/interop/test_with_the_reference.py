"""A gateway of ours at one end and the reference at the other.

Every set-up of trust over every transport: two pairs of processes run, one for each direction, and
every combination is an entry of its own in them.  Evidence is that of a simulated TDX platform,
judged by `tng trustee`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import pathlib
import socket
from collections.abc import Iterator

import pytest

from stage.attested import REFERENCE, Parts, Vouchers, gateway, vouchers
from stage.gateways import free_port, http_proxy, mapping
from stage.octet_service import EVENTS, OctetService, octet_service, octets

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(
        not REFERENCE.exists(), reason="the reference is not there: tools/reference"
    ),
]

DIRECTIONS = ("ours->ref", "ref->ours")
"""Ingress -> egress."""

SETUPS = ("no_ra", "background_check", "passport", "passport_pinned", "mutual", "reverse")

TRANSPORTS = {
    "raw": (False, False),
    "multiplexed": (True, True),
    "auto to raw": (None, False),
    "auto to multiplexed": (None, True),
}
"""What `multiplex` is at our end (None: left out) and at the reference's."""

STRANGERS = ("background_check", "reverse")
"""Set-ups that are tried with evidence of a platform that the attestation service does not know."""

LARGE = 24 << 20


def parts(trust: Vouchers, setup: str, ingress: str, egress: str, *, known: bool = True) -> Parts:
    """As `Vouchers.parts`; with `passport_pinned` the ingress knows the CA, and asks nobody."""
    if setup != "passport_pinned":
        return trust.parts(setup, ingress, egress, known=known)
    _, far = trust.parts("passport", ingress, egress, known=known)
    verify = trust.verify(ingress, model="passport", trusted_certs_paths=[str(trust.ca)])
    del verify["as_addr"]
    return {"verify": verify}, far


@dataclasses.dataclass(frozen=True)
class Lane:
    """The ports of one combination: a mapping's, and the egress's behind it."""

    entrance: int
    tunnel: int


@dataclasses.dataclass(frozen=True)
class Pair:
    """A running pair.

    Attributes:
        direction: one of `DIRECTIONS`.
        lanes: (set-up, transport, whether the platform is known) to ports.
        proxy: port of the HTTP proxy, which verifies by background check.
        service: what is behind every egress.
    """

    direction: str
    lanes: dict[tuple[str, str, bool], Lane]
    proxy: int
    service: OctetService


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("interop")


@pytest.fixture(scope="module")
def trust(folder: pathlib.Path) -> Iterator[Vouchers]:
    with vouchers(folder) as found:
        yield found


def transport_of(who: str, transport: str) -> dict[str, object]:
    ours, reference = TRANSPORTS[transport]
    multiplex = ours if who == "ours" else reference
    return {} if multiplex is None else {"rats_tls": {"multiplex": multiplex}}


@pytest.fixture(scope="module", params=DIRECTIONS)
def pair(request: pytest.FixtureRequest, folder: pathlib.Path, trust: Vouchers) -> Iterator[Pair]:
    ingress, egress = request.param.split("->")
    wanted = [(setup, transport, True) for setup in SETUPS for transport in TRANSPORTS]
    wanted += [(setup, transport, False) for setup in STRANGERS for transport in TRANSPORTS]
    lanes = {key: Lane(free_port(), free_port()) for key in wanted}
    proxy = free_port()
    ingresses, egresses = [], []
    with octet_service() as service, contextlib.ExitStack() as stack:
        for (setup, transport, known), lane in lanes.items():
            near, far = parts(trust, setup, ingress, egress, known=known)
            way_in = mapping(lane.entrance, lane.tunnel)
            ingresses.append({**way_in, **near, **transport_of(ingress, transport)})
            way_out = mapping(lane.tunnel, service.port)
            egresses.append({**way_out, **far, **transport_of(egress, transport)})
        near, _ = parts(trust, "background_check", ingress, egress)
        ingresses.append({**http_proxy(proxy), **near})
        started = [
            stack.enter_context(
                gateway(folder, egress, f"egress-{egress}", {"add_egress": egresses})
            ),
            stack.enter_context(
                gateway(folder, ingress, f"ingress-{ingress}", {"add_ingress": ingresses})
            ),
        ]
        for process, control in started:
            process.await_http(control, "/readyz")
        yield Pair(request.param, lanes, proxy, service)


def exchange(port: int, request: bytes, body: bytes = b"") -> bytes:
    """Send everything, close the sending half, and read what comes back until the end."""
    with socket.create_connection(("127.0.0.1", port), 15) as sock:
        sock.sendall(request + b"\r\n\r\n" + body)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as answer:
            return answer.read()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("setup", SETUPS)
def test_a_request_that_ends_with_its_stream_is_answered(
    pair: Pair, setup: str, transport: str
) -> None:
    """The half-close has to arrive at the service, or it would wait for the rest for ever."""
    body = octets(300_000)
    port = pair.lanes[setup, transport, True].entrance
    head, _, digest = exchange(port, b"POST /digest HTTP/1.0", body).partition(b"\r\n\r\n")
    assert b" 200 " in head
    assert digest.decode() == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("setup", STRANGERS)
def test_a_platform_that_the_attestation_service_does_not_know_is_not_served(
    pair: Pair, setup: str, transport: str
) -> None:
    port = pair.lanes[setup, transport, False].entrance
    before = pair.service.requests
    heard = b""
    with contextlib.suppress(OSError):  # a reset is a refusal, too
        heard = exchange(port, b"GET /octets/10 HTTP/1.0")
    assert heard == b""
    verifier = pair.direction.split("->")[0 if setup == "background_check" else 1]
    if verifier == "ours":
        assert pair.service.requests == before


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_large_bodies_arrive_whole_in_both_directions(pair: Pair, transport: str) -> None:
    port = pair.lanes["background_check", transport, True].entrance
    body = octets(LARGE)
    _, _, digest = exchange(port, b"POST /digest HTTP/1.0", body).partition(b"\r\n\r\n")
    assert digest.decode() == hashlib.sha256(body).hexdigest()
    _, _, answer = exchange(port, b"GET /octets/%d HTTP/1.0" % LARGE).partition(b"\r\n\r\n")
    assert hashlib.sha256(answer).digest() == hashlib.sha256(body).digest()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_events_arrive_when_they_are_sent(pair: Pair, transport: str) -> None:
    """The service sends none before the one before it has arrived here."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", pair.lanes["background_check", transport, True].entrance, timeout=15
    )
    connection.request("GET", "/events")
    answer = connection.getresponse()
    arrived = 0
    for line in answer:
        if line.startswith(b"data:"):
            arrived += 1
            pair.service.heard.release()
    connection.close()
    assert arrived == EVENTS


@pytest.mark.parametrize("tunnelled", [False, True])
def test_the_http_proxy_of_one_leads_through_the_egress_of_the_other(
    pair: Pair, tunnelled: bool
) -> None:
    target = pair.lanes["background_check", "raw", True].tunnel
    connection = http.client.HTTPConnection("127.0.0.1", pair.proxy, timeout=15)
    url = "/octets/1000"
    if tunnelled:
        connection.set_tunnel("127.0.0.1", target)
    else:
        url = f"http://127.0.0.1:{target}{url}"
    connection.request("GET", url)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, octets(1000))
    connection.close()
