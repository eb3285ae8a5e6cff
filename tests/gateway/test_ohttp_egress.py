"""One port for requests of TNG, plain ones that were exempted, and browsers of other origins."""

from __future__ import annotations

import json

import pytest
import trio

from stage.conversation import Line, calling, eventually, service
from stage.encapsulation import Encapsulated, answering, ask_key, hear, tunnel
from stage.gateways import ohttp_egress
from tng.gateway.egress import ohttp as egress_module
from tng.wire.http1_head import parse_request_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nok"
DIRECT = {"direct_forward": [{"http_path": "^/public/.*"}]}
CORS = {
    "allow_origins": ["https://app.example"],
    "allow_methods": ["POST"],
    "allow_headers": ["X-A", "X-B"],
    "expose_headers": ["X-C"],
    "allow_credentials": True,
}


def get(path: bytes, more: bytes = b"") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n"


async def test_each_request_of_a_connection_is_decided_upon_by_itself() -> None:
    seen: list[bytes] = []
    async with (
        service(answering(OK, seen)) as web,
        ohttp_egress(web.port, **DIRECT) as (_, port),
    ):
        async with calling(port) as line:
            await line.say(get(b"/public/a"))
            status, fields, body = await hear(line)
            assert (status, body) == (200, b"ok")
            assert [value for name, value in fields if name == b"set-cookie"] == [b"a", b"b"]
            sealed = Encapsulated(await ask_key(line))
            await line.say(tunnel(sealed.whole(path=b"/inner")))
            assert sealed.opened((await hear(line))[2])[0] == 200
            await line.say(get(b"/secret"))
            status, _, body = await hear(line)
            assert (status, json.loads(body)["code"]) == (403, "RejectNonTngRequest")
            assert await line.rest() == b""
        assert [parse_request_head(head).target for head in seen] == [b"/public/a", b"/inner"]


async def test_requests_sent_at_once_are_decided_upon_one_by_one() -> None:
    seen: list[bytes] = []
    async with (
        service(answering(OK, seen)) as web,
        ohttp_egress(web.port, **DIRECT) as (_, port),
        calling(port) as line,
    ):
        await line.say(get(b"/public/a") + get(b"/secret") + get(b"/public/b"))
        assert [(await hear(line))[0] for _ in range(2)] == [200, 403]
        assert await line.rest() == b""
        assert len(seen) == 1


@pytest.mark.parametrize(
    ("body", "framing"),
    [
        (b"hello", b"Content-Length: 5\r\n"),
        (b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", b"Transfer-Encoding: chunked\r\n"),
    ],
)
async def test_a_body_is_passed_on_octet_by_octet_too(body: bytes, framing: bytes) -> None:
    seen: list[bytes] = []
    async with (
        service(answering(OK, seen)) as web,
        ohttp_egress(web.port, **DIRECT) as (_, port),
        calling(port) as line,
    ):
        head = b"POST /public/a HTTP/1.1\r\nHost: a\r\nConnection: x-hop\r\nX-Hop: 1\r\n" + framing
        await line.say(head + b"\r\n")
        for octet in body:
            await line.say(bytes([octet]))
        assert (await hear(line))[0] == 200
    assert seen[0].endswith(b"hello")
    assert b"x-hop" not in seen[0].lower()


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"CONNECT /public/x HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (get(b"/public/a", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"), 501),
        (get(b"/public/../secret"), 403),
        (get(b"/public/%2e%2E/secret"), 403),
        (get(b"/secret?/public/a"), 403),
        (get(b"http://a/public/a"), 403),
        (get(b"/public/a", b"X-Tng-Ohttp-Api: x\r\n"), 400),
        (b"nonsense\r\n\r\n", 400),
        (
            get(b"/public/a", b"Content-Length: 1\r\nContent-Length: 1\r\n") + b"x",
            400,
        ),
    ],
)
async def test_what_was_not_exempted_is_refused(octets: bytes, status: int) -> None:
    async with (
        service(answering(OK)) as web,
        ohttp_egress(web.port, **DIRECT) as (_, port),
        calling(port) as line,
    ):
        await line.say(octets)
        assert (await hear(line))[0] == status
        assert web.connections == 0


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_a_service_that_fails_is_told_or_the_answer_is_cut(answer: bytes) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(answer)

    async with (
        service(script) as web,
        ohttp_egress(web.port, **DIRECT) as (_, port),
        calling(port) as line,
    ):
        await line.say(get(b"/public/a"))
        if answer:
            assert await line.is_cut()
        else:
            status, fields, _ = await hear(line)
            assert (status, dict(fields)[b"x-tng-error"]) == (502, b"upstream_unreachable")


async def test_a_client_that_leaves_ends_its_plain_request_too() -> None:
    ended = trio.Event()

    async def script(line: Line) -> None:
        await line.is_cut()
        ended.set()

    async with service(script) as web, ohttp_egress(web.port, **DIRECT) as (_, port):
        async with calling(port) as line:
            await line.say(b"POST /public/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
            await eventually(lambda: web.connections == 1)
        with trio.fail_after(2):
            await ended.wait()


# -- browsers ------------------------------------------------------------------------------

PREFLIGHT = (
    b"OPTIONS /public/a HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\n"
    b"Access-Control-Request-Method: POST\r\n\r\n"
)


async def test_a_preflight_goes_nowhere_without_cors() -> None:
    async with service(answering(OK)) as web, ohttp_egress(web.port) as (_, port):
        async with calling(port) as line:
            await line.say(PREFLIGHT)
            assert (await hear(line))[0] == 403
        assert web.connections == 0


async def test_a_preflight_is_answered_here_and_says_what_was_configured() -> None:
    async with (
        service(answering(OK)) as web,
        ohttp_egress(web.port, ohttp={"cors": CORS}, **DIRECT) as (_, port),
        calling(port) as line,
    ):
        await line.say(PREFLIGHT)
        status, fields, body = await hear(line)
        assert (status, body, web.connections) == (200, b"", 0)
        told = dict(fields)
        assert told[b"access-control-allow-origin"] == b"https://app.example"
        assert told[b"access-control-allow-methods"] == b"POST"
        assert told[b"access-control-allow-headers"] == b"X-A,X-B"
        assert told[b"access-control-expose-headers"] == b"X-C"
        assert told[b"access-control-allow-credentials"] == b"true"
        await line.say(get(b"/secret", b"Origin: https://app.example\r\n"))
        status, fields, _ = await hear(line)
        assert status == 403
        assert dict(fields)[b"access-control-allow-origin"] == b"https://app.example"
    assert web.connections == 0


# -- connections ---------------------------------------------------------------------------


async def test_octets_are_counted_by_their_direction() -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
    async with (
        service(answering(long, [])) as web,
        ohttp_egress(web.port, **DIRECT) as (gateway, port),
    ):
        request = get(b"/public/a")
        async with calling(port) as line:
            await line.say(request)
            assert (await hear(line))[0] == 200
        meter = gateway.entries[0].meter
        await eventually(lambda: meter.octets_from_client == len(request))
        assert meter.octets_to_client > 5000


async def test_a_connection_that_says_nothing_is_let_go(monkeypatch) -> None:
    monkeypatch.setattr(egress_module, "FIRST_REQUEST_S", 0.02)
    async with ohttp_egress(1) as (gateway, port), calling(port) as line:
        assert await line.rest() == b""
        assert gateway.entries[0].meter.cx_failed == 0


async def test_draining_ends_idle_connections_and_finishes_requests() -> None:
    go = trio.Event()

    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await go.wait()
        await line.say(OK)

    async with (
        service(script) as web,
        ohttp_egress(web.port) as (gateway, port),
        calling(port) as idle,
        calling(port) as busy,
    ):
        sealed = Encapsulated(await ask_key(busy))
        await ask_key(idle)
        await busy.say(tunnel(sealed.whole()))
        await eventually(lambda: web.connections == 1)
        entry = gateway.entries[0]
        gateway._reactor.call(entry.tunnel.drain)  # type: ignore[union-attr]
        assert await idle.rest() == b""
        go.set()
        status, _, body = await hear(busy)
        assert (status, sealed.opened(body)[0]) == (200, 200)


async def test_the_status_page_shows_keys_and_no_secret() -> None:
    async with ohttp_egress(1) as (gateway, port), calling(port) as line:
        config = await ask_key(line)
        status = gateway.entries[0].keys_status()  # type: ignore[misc]
        assert status["key_manager_type"] == "self_generated"
        (key,) = status["local_keys"]  # type: ignore[misc]
        assert key["public_key"] == config.public_key.hex()
        assert set(key) == {
            "key_id",
            "public_key",
            "status",
            "actived_at",
            "stale_at",
            "expire_at",
        }
