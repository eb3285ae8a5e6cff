"""The control interface: what it tells, and that nobody can hold it up."""

from __future__ import annotations

import json

import pytest
import trio

from stage.conversation import calling
from stage.gateways import free_port, http_proxy, listen, mapping, serving
from stage.identities import Ordinary
from stage.judges import Judge, verdict
from tng.attest.credential import Credential
from tng.clock import SystemClock
from tng.config.loader import prepare_config
from tng.errors import EvidenceError
from tng.gateway import control
from tng.gateway.app import Gateway
from tng.gateway.entries import Trust
from tng.verdict import Verdict

VERIFY = {"as_addr": "http://127.0.0.1:9/as", "policy_ids": ["default"]}
ATTEST = {"aa_type": "simulated", "simulated_platform": "unused"}


class Failing(Ordinary):
    """Has no evidence."""

    async def make(self) -> Credential:
        raise EvidenceError("the agent is away")


class Knowing(Judge):
    """Has judged one peer before."""

    def verdicts(self) -> dict[str, Verdict]:
        return {"10.0.0.1:443": verdict(accepted=False)}


def config(port: int, **entry: object) -> dict[str, object]:
    limits = {"multiplex": True, "multiplex_max_connections": 2}
    return {
        "control_interface": {"restful": listen(port)},
        "add_ingress": [
            {**http_proxy(free_port()), "rats_tls": limits, **(entry or {"verify": VERIFY})}
        ],
        "add_egress": [{**mapping(free_port(), 9), "no_ra": True}],
    }


async def ask(port: int, path: str, method: str = "GET") -> tuple[int, bytes, bytes]:
    """Status, head and body."""
    async with calling(port) as client:
        await client.say(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), head, body


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_alive_and_ready(path: str) -> None:
    port = free_port()
    async with serving(config(port), Judge()):
        status, head, body = await ask(port, path)
        assert (status, body) == (200, b"ok")
        assert b"server: tng/" in head.lower()
        status, head, body = await ask(port, path, "HEAD")
        assert (status, body) == (200, b"")
        assert b"content-length: 2" in head.lower()
        status, head, _ = await ask(port, path, "POST")
        assert status == 405
        assert b"allow: get, head" in head.lower()


async def test_not_ready_says_why_and_is_alive() -> None:
    port, source = free_port(), Failing()
    made = Gateway(
        prepare_config(json.dumps(config(port, attest=ATTEST))),
        SystemClock(),
        Trust(make_source=lambda _attest, _clock: source),
    )
    async with trio.open_nursery() as nursery:
        assert made.not_ready() == ["starting"]
        await nursery.start(made.serve)
        with trio.fail_after(5):
            while b"agent is away" not in (answer := await ask(port, "/readyz"))[2]:
                await trio.sleep(0.01)
        assert answer[0] == 503
        assert answer[2].startswith(b"not ok\nadd_ingress[0]: ")
        assert (await ask(port, "/livez"))[0] == 200
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/status/", 200, ["egress", "ingress"]),
        ("/status/ingress", 200, ["0"]),
        ("/status/egress/", 200, ["0"]),
        ("/status/ingress/0", 200, ["rats_tls"]),
        ("/status/ingress/0/rats_tls/", 200, ["pool"]),
        ("/status/egress/0/rats_tls", 404, {"error": "not found"}),
        ("/status/ingress/1", 404, {"error": "not found"}),
        ("/status/ingress/0/ohttp", 404, {"error": "not found"}),
        (
            "/status/ingress/0/rats_tls/pool?x",
            200,
            {
                "multiplex": True,
                "multiplex_max_streams_per_connection": None,
                "multiplex_max_connections": 2,
                "overflowed_streams": 0,
                "endpoints": [],
            },
        ),
    ],
)
async def test_the_status_tree(path: str, status: int, told: object) -> None:
    port = free_port()
    async with serving(config(port), Judge()):
        found, head, body = await ask(port, path)
    assert found == status
    assert b"application/json" in head
    assert json.loads(body) == told


async def test_the_status_of_attestation_shows_verdicts_and_dangers() -> None:
    port = free_port()
    async with serving(config(port), Knowing()):
        told = json.loads((await ask(port, "/status/attestation"))[2])
    assert told["ready"] is True
    assert told["ingress"][0]["verifies"] is True
    assert told["ingress"][0]["peers"]["10.0.0.1:443"]["accepted"] is False
    assert told["egress"][0] == {"id": 0, "verifies": False, "attests": False, "peers": {}}
    assert any("no_ra" in danger for danger in told["dangers"])


@pytest.mark.parametrize("path", ["/", "/status", "/nothing", "/livez/x", "*"])
async def test_other_paths_are_not_found(path: str) -> None:
    port = free_port()
    async with serving(config(port), Judge()):
        status, _, body = await ask(port, path)
    assert (status, body) == (404, b"")


async def test_metrics_count_every_entry() -> None:
    port = free_port()
    async with serving(config(port), Judge()):
        status, head, body = await ask(port, "/metrics")
    assert status == 200
    assert b"text/plain; version=0.0.4" in head
    assert body.count(b"\ntng_cx_total{") == 2


@pytest.mark.parametrize("said", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a", b""])
async def test_who_speaks_no_http_is_dropped(said: bytes) -> None:
    port = free_port()
    async with serving(config(port), Judge()):
        async with calling(port) as client:
            if said:
                await client.say(said)
            await client.stream.send_eof()
            await client.is_cut()
        async with calling(port) as client:
            client.reset()
        assert (await ask(port, "/livez"))[0] == 200


async def test_slow_clients_hold_nobody_up_for_long(monkeypatch) -> None:
    monkeypatch.setattr(control, "_REQUEST_TIMEOUT_S", 0.1)
    monkeypatch.setattr(control, "_MAX_CONNECTIONS", 2)
    port = free_port()
    async with serving(config(port), Judge()), calling(port), calling(port), calling(port) as late:
        assert await late.is_cut() in (True, False)
        assert (await ask(port, "/livez"))[0] == 200


async def test_an_error_of_ours_in_the_control_interface_leaves_traffic_alone(caplog) -> None:
    class Wrong(Judge):
        def verdicts(self) -> dict[str, Verdict]:
            raise ZeroDivisionError

    port = free_port()
    async with serving(config(port), Wrong()):
        async with calling(port) as client:
            await client.say(b"GET /status/attestation HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.is_cut()
        assert (await ask(port, "/livez"))[0] == 200
    assert "unexpected error in the control interface" in caplog.text
