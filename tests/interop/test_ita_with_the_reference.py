"""Intel Trust Authority, faked, between a gateway of ours and the reference, in both directions."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import pathlib
from collections.abc import Iterator

import pytest

from stage.attested import REFERENCE, gateway
from stage.fake_ita import KEY, FakeIta, fake_guest, fake_ita
from stage.gateways import free_port, mapping
from stage.octet_service import OctetService, octet_service, octets

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(
        not REFERENCE.exists(), reason="the reference is not there: tools/reference"
    ),
]

SETUPS = ("background_check", "passport", "mutual", "reverse", "reverse_passport", "gpu")
REFUSED = ("other_policy", "forged_quote", "forged_quote_reverse")
TRANSPORTS: dict[str, dict[str, object]] = {"rats_tls": {}, "ohttp": {"ohttp": {}}}


@dataclasses.dataclass(frozen=True)
class Pair:
    """A running pair: set-up and transport, to the mapping's port."""

    direction: str
    ports: dict[tuple[str, str], int]
    service: OctetService
    ita: FakeIta


@dataclasses.dataclass(frozen=True)
class Guests:
    """URLs of guests' REST servers: honest, with a GPU, and one whose quotes are over nothing."""

    honest: str
    gpu: str
    forger: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("interop-ita")


@pytest.fixture(scope="module")
def ita(folder: pathlib.Path) -> Iterator[FakeIta]:
    with fake_ita(folder) as service, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(service.ca))  # for the portal, of both makes
        yield service


@pytest.fixture(scope="module")
def guests() -> Iterator[Guests]:
    with fake_guest() as honest, fake_guest() as gpu, fake_guest() as forger:
        gpu.gpu = True
        forger.change = lambda data: hashlib.sha512(data).digest()
        yield Guests(honest.url, gpu.url, forger.url)


def parts(setup: str, ita: FakeIta, guests: Guests) -> tuple[dict[str, object], dict[str, object]]:
    """What an ingress and an egress say about trust."""
    guest = {"gpu": guests.gpu}.get(setup, guests.honest)
    if setup.startswith("forged"):
        guest = guests.forger
    service = {"as_provider": "ita", "as_addr": ita.api, "api_key": KEY}
    policies = ["other"] if setup == "other_policy" else ["p1"]
    attest: dict[str, object] = {"aa_provider": "ita_asr", "asr_addr": guest}
    verify: dict[str, object] = {**service, "ita_jwks_addr": ita.portal, "policy_ids": policies}
    if setup.endswith("passport"):
        attest |= {"model": "passport", **service, "policy_ids": ["p1"]}
        verify = {"model": "passport", "as_provider": "ita", "policy_ids": policies}
        verify["ita_jwks_addr"] = ita.portal
    if setup == "mutual":
        return {"attest": attest, "verify": verify}, {"attest": attest, "verify": verify}
    if "reverse" in setup:
        return {"attest": attest}, {"verify": verify}
    return {"verify": verify}, {"attest": attest}


@pytest.fixture(scope="module", params=["ours->ref", "ref->ours"])
def pair(
    request: pytest.FixtureRequest, folder: pathlib.Path, ita: FakeIta, guests: Guests
) -> Iterator[Pair]:
    ingress, egress = request.param.split("->")
    wanted = [(setup, transport) for setup in SETUPS + REFUSED for transport in TRANSPORTS]
    ports, ingresses, egresses = {}, [], []
    with octet_service() as service, contextlib.ExitStack() as stack:
        for setup, transport in wanted:
            ports[setup, transport], tunnel = free_port(), free_port()
            near, far = parts(setup, ita, guests)
            over = TRANSPORTS[transport]
            ingresses.append({**mapping(ports[setup, transport], tunnel), **over, **near})
            egresses.append({**mapping(tunnel, service.port), **over, **far})
        for who, name, side, entries in (
            (egress, "egress", "add_egress", egresses),
            (ingress, "ingress", "add_ingress", ingresses),
        ):
            process, control = stack.enter_context(
                gateway(folder, who, f"{name}-{who}", {side: entries})
            )
            process.await_http(control, "/readyz")
        yield Pair(request.param, ports, service, ita)


def ask(port: int) -> tuple[int, bytes]:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        line.request("GET", "/octets/1000")
        answer = line.getresponse()
        return answer.status, answer.read()
    finally:
        line.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("setup", SETUPS)
def test_a_request_is_answered(pair: Pair, setup: str, transport: str) -> None:
    assert ask(pair.ports[setup, transport]) == (200, octets(1000))


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("setup", REFUSED)
def test_a_peer_that_the_service_refuses_is_not_served(
    pair: Pair, setup: str, transport: str
) -> None:
    before = pair.service.requests
    status, body = 0, b""
    with contextlib.suppress(OSError, http.client.HTTPException):  # a reset is a refusal, too
        status, body = ask(pair.ports[setup, transport])
    assert status != 200
    assert octets(1000) not in body
    verifier = pair.direction.split("->")[1 if setup.endswith("reverse") else 0]
    if verifier == "ours":
        assert pair.service.requests == before
