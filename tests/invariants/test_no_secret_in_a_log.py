"""What passes through is nobody's business: neither prompts nor keys appear in any log line."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest
import trio

from stage.conversation import Line, calling, service
from stage.gateways import free_port, http_proxy, mapping, serving
from stage.identities import Vouching
from stage.judges import Judge, Refusing
from tng.config.loader import parse_config

PROMPT = b"prompt-canary-7d1f"
KEY = b"sk-canary-93ab"
VERIFY = {
    "as_addr": "http://127.0.0.1:9/as",
    "policy_ids": ["default"],
    "as_headers": {"Authorization": "Bearer as-canary-55"},
}

ATTEST = {"aa_type": "simulated", "simulated_platform": "unused"}


def request(way: str, port: int) -> bytes:
    authority = b"127.0.0.1:%d" % port
    origin = b"http://" + authority if way == "absolute" else b""
    plain = b"POST %s/v1/%s HTTP/1.1\r\nHost: %s\r\n" % (origin, PROMPT, authority)
    plain += b"Authorization: Bearer " + KEY + b"\r\nProxy-Authorization: Basic " + KEY
    plain += b"\r\nContent-Length: %d\r\n\r\n%s" % (len(PROMPT), PROMPT)
    if way == "connect":
        head = b"CONNECT %s HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic %s\r\n\r\n"
        return head % (authority, KEY) + plain
    return plain


async def answer(line: Line) -> None:
    await line.until(PROMPT)
    await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PROMPT), PROMPT))
    await line.rest()


async def break_off(line: Line) -> None:
    await line.until(PROMPT)
    await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + PROMPT)


async def nonsense(line: Line) -> None:
    await line.until(PROMPT)
    await line.say(PROMPT + KEY + b"\r\n\r\n")


@pytest.mark.parametrize("script", [answer, break_off, nonsense])
@pytest.mark.parametrize("judge", [Judge, Refusing])
@pytest.mark.parametrize("transport", ["rats_tls", "ohttp"])
@pytest.mark.parametrize("way", ["mapping", "connect", "absolute"])
async def test_at_the_finest_level_no_line_holds_what_passed(
    caplog, way, transport, judge, script
) -> None:
    way_in, tunnel = free_port(), free_port()
    over: dict[str, object] = {transport: {}}
    key_holder = {"attest": ATTEST} if transport == "ohttp" else {"no_ra": True}
    mode = mapping(way_in, tunnel) if way == "mapping" else http_proxy(way_in)
    with caplog.at_level(1, logger="tng"):
        async with (
            service(script) as web,
            serving(
                {"add_egress": [{**mapping(tunnel, web.port), **over, **key_holder}]},
                statements=Vouching(),
            ),
            serving({"add_ingress": [{**mode, **over, "verify": VERIFY}]}, judge()),
            calling(way_in) as client,
        ):
            # A mapping asks nothing before it refuses: the reset may come first.
            with suppress(trio.BrokenResourceError):
                await client.say(request(way, tunnel))
            if script is answer and judge is Judge:
                await client.until(PROMPT)
            else:
                await client.is_cut()
    lines = [logging.Formatter().format(record) for record in caplog.records]
    assert lines
    assert not [line for line in lines if "canary" in line]


@pytest.mark.parametrize(
    "broken",
    [
        b"GET " + PROMPT + b" HTTP/1.1\r\nHost: x\r\nAuthorization: " + KEY + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: " + b"x" * 10 + b" y\r\nAuthorization: " + KEY + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nAuthorization " + KEY + b"\r\n\r\n",
        b"POST / HTTP/9.1\r\nAuthorization: " + KEY + b"\r\n\r\n" + PROMPT,
        b"CONNECT a:b HTTP/1.1\r\nProxy-Authorization: " + KEY + b"\r\n\r\n",
    ],
)
async def test_broken_requests_leave_no_key_in_a_line(caplog, broken: bytes) -> None:
    port = free_port()
    with caplog.at_level(1, logger="tng"):
        async with (
            serving({"add_ingress": [{**http_proxy(port), "no_ra": True}]}),
            calling(port) as client,
        ):
            await client.say(broken)
            assert KEY not in await client.rest()
    assert caplog.records
    assert KEY.decode() not in caplog.text


def test_a_configuration_shows_no_header_value() -> None:
    config = parse_config(
        '{"add_ingress": [{"mapping": {"in": {"port": 1}, "out": {"host": "a", "port": 2}},'
        ' "verify": {"as_addr": "http://a/", "policy_ids": ["d"],'
        ' "as_headers": {"Authorization": "Bearer as-canary-55"}}}]}'
    )
    assert "as-canary" not in repr(config)
    assert "as-canary" not in config.model_dump_json()
