"""What an ingress sends to an egress, what it takes for an answer, and when it tries once more."""

from __future__ import annotations

import json

import pytest
import trio

from stage.conversation import Line, calling, eventually
from stage.encapsulation import ScriptedEgress, Taken, hear, response
from stage.gateways import ohttp_ingress
from tng.tunnel.ohttp import client as client_module
from tng.wire import bhttp

GET = b"GET /v1/models?x=y HTTP/1.1\r\nHost: model.example\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n"


async def ok(taken: Taken, line: Line) -> None:
    await line.say(response(taken.answer(200, [(b"x-seen", taken.head.path)], b"ok")))


def posting(size: int, more: bytes = b"") -> bytes:
    head = b"POST /v1 HTTP/1.1\r\nHost: m\r\n%sContent-Length: %d\r\n\r\n" % (more, size)
    return head + b"p" * size


async def test_a_request_travels_whole_and_shows_nothing_on_the_outside() -> None:
    seen: list[Taken] = []

    async def script(taken: Taken, line: Line) -> None:
        seen.append(taken)
        answer = [(b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"connection", b"x"), (b"x", b"y")]
        await line.say(response(taken.answer(201, answer, b"made")))

    egress = ScriptedEgress(script)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        await line.say(GET)
        status, fields, body = await hear(line)
        assert (status, body) == (201, b"made")
        assert [value for name, value in fields if name == b"set-cookie"] == [b"a", b"b"]
        assert b"x" not in dict(fields)
        await line.say(GET)  # keep-alive
        assert (await hear(line))[0] == 201
    inner, outer = seen[0].head, seen[0].outer
    assert (inner.method, inner.path, inner.scheme, inner.authority) == (
        b"GET",
        b"/v1/models?x=y",
        b"",
        b"",
    )
    assert inner.fields == [(b"host", b"model.example"), (b"cookie", b"a=1"), (b"cookie", b"b=2")]
    assert (outer.method, outer.target) == (b"POST", b"/")
    names = {name for name, _ in outer.fields}
    assert names == {
        b"host",
        b"x-tng-ohttp-api",
        b"content-type",
        b"transfer-encoding",
        b"accept",
        b"accept-encoding",
        b"user-agent",
    }
    assert dict(outer.fields)[b"host"] == b"127.0.0.1:%d" % web.port
    assert egress.asked == ["/tng/key-config", "/tng/tunnel", "/tng/tunnel"]


async def test_operators_choose_what_is_shown_and_where() -> None:
    egress = ScriptedEgress(ok)
    ohttp = {
        "path_rewrites": [{"match_regex": "/(v\\d)/.*", "substitution": "/api/$1"}],
        "header_passthrough": {
            "request_headers": ["X-Model", "User-Agent"],
            "response_headers": ["Date"],
        },
    }
    async with (
        egress.serving() as web,
        ohttp_ingress(web.port, ohttp=ohttp) as (_, port),
        calling(port) as line,
    ):
        head = b"GET /v1/chat HTTP/1.1\r\nHost: m\r\nX-Model: a\r\nX-Model: b\r\nUser-Agent: me\r\n"
        await line.say(head + b"Connection: x-model-not\r\nX-Secret: s\r\n\r\n")
        await hear(line)
    outer = egress.outer[-1]
    assert outer.target == b"/api/v1"
    assert [value for name, value in outer.fields if name == b"x-model"] == [b"a", b"b"]
    assert dict(outer.fields)[b"user-agent"] == b"me"
    assert b"x-secret" not in dict(outer.fields)
    assert b"x-model" not in dict(egress.outer[0].fields), "control calls show nothing"


async def test_trailers_and_chunks_travel_and_hop_fields_do_not() -> None:
    seen: list[Taken] = []

    async def script(taken: Taken, line: Line) -> None:
        seen.append(taken)
        await line.say(response(taken.answer(200)))

    egress = ScriptedEgress(script)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        head = b"POST / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c\r\n\r\n"
        await line.say(head + b"3\r\nabc\r\n")
        await line.say(b"2\r\nde\r\n0\r\nX-Sum: 1\r\nX-Tng-Http-Forward: true\r\n\r\n")
        await hear(line)
    assert seen[0].content == b"abcde"
    assert seen[0].trailers == [(b"x-sum", b"1")]
    assert not {b"transfer-encoding", b"upgrade"} & dict(seen[0].head.fields).keys()


# -- answers that are none -----------------------------------------------------------------


def spoiled(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


ANSWERS = {
    "an error": (lambda _: response(b'{"code":"X"}', 500), 502, "HttpCipherTextBadResponse"),
    "no content": (lambda _: response(b"", 204), 502, "HttpCipherTextBadResponse"),
    "another type": (
        lambda t: response(t.answer(), 200, b"text/html"),
        400,
        "InvalidOHttpResponse",
    ),
    "a parameter": (
        lambda t: response(t.answer(), 200, b"message/ohttp-chunked-res; x=1"),
        400,
        "InvalidOHttpResponse",
    ),
    "garbage": (lambda _: response(bytes(200)), 500, "BhttpError"),
    "nothing": (lambda _: response(b""), 500, "BhttpError"),
    "a request": (
        lambda t: response(t.sealer.prefix + t.sealer.seal(b"\x02\x03GET") + t.sealer.finish()),
        400,
        "InvalidHttpResponse",
    ),
    "no HTTP": (lambda _: b"nonsense\r\n\r\n", 502, "HttpCipherTextBadResponse"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_is_no_answer_becomes_the_error_of_the_table(name: str) -> None:
    make, status, code = ANSWERS[name]

    async def script(taken: Taken, line: Line) -> None:
        await line.say(make(taken))

    egress = ScriptedEgress(script)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        await line.say(GET)
        heard, fields, body = await hear(line)
        assert (heard, json.loads(body)["code"]) == (status, code)
        assert dict(fields)[b"connection"] == b"close"
        assert await line.rest() == b""


@pytest.mark.parametrize("name", ["no end", "no final", "forged final", "more", "dies"])
async def test_an_answer_cut_short_never_looks_complete(name: str) -> None:
    heard = trio.Event()

    async def script(taken: Taken, line: Line) -> None:
        sealer = taken.sealer
        head = sealer.prefix + sealer.seal(bhttp.dump_response_head(200, []))
        head += sealer.seal(bhttp.dump_content(b"part"))
        end, final = sealer.seal(bhttp.dump_end()), sealer.finish()
        rest = {
            "no end": b"",
            "no final": end,
            "forged final": spoiled(end + final),
            "more": end + final + b"x",
            "dies": None,
        }[name]
        begin = b"HTTP/1.1 200 OK\r\nContent-Type: message/ohttp-chunked-res\r\n"
        begin += b"Transfer-Encoding: chunked\r\n\r\n"
        await line.say(begin + b"%x\r\n%s\r\n" % (len(head), head))
        await heard.wait()
        if rest is None:
            await line.stream.aclose()
            return
        await line.say((b"%x\r\n%s\r\n" % (len(rest), rest) if rest else b"") + b"0\r\n\r\n")

    egress = ScriptedEgress(script)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        await line.say(GET)
        await line.until(b"part")
        heard.set()
        assert await line.is_cut()


# -- once more -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 100, 300_000])
async def test_a_new_key_is_fetched_and_the_application_does_not_notice(size: int) -> None:
    contents: list[bytes] = []

    async def script(taken: Taken, line: Line) -> None:
        contents.append(taken.content)
        await ok(taken, line)

    egress = ScriptedEgress(script)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        await line.say(GET)
        assert (await hear(line))[0] == 200
        egress.new_key()
        await line.say(posting(size))
        assert (await hear(line))[0] == 200
    assert contents[-1] == b"p" * size
    assert egress.asked == [
        "/tng/key-config",
        "/tng/tunnel",
        "/tng/tunnel",
        "/tng/key-config",
        "/tng/tunnel",
    ]


async def test_an_egress_that_never_knows_the_key_is_asked_twice_and_no_more() -> None:
    egress = ScriptedEgress(ok)
    offered = egress.key_answer()
    egress.control = lambda _: (200, offered)
    egress.new_key()
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        await line.say(posting(10))
        status, _, body = await hear(line)
        answer = json.loads(body)
        assert (status, answer["code"]) == (500, "ShouldRequestNewKeyConfigFromServerError")
        assert "same key" in answer["message"]
    assert egress.asked.count("/tng/tunnel") == 2


async def test_a_body_too_large_to_be_kept_is_not_sent_twice(monkeypatch) -> None:
    monkeypatch.setattr(client_module, "MAX_REPLAY", 1000)
    egress = ScriptedEgress(ok)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        await line.say(GET)
        await hear(line)
        egress.new_key()
        await line.say(posting(1001))
        status, _, body = await hear(line)
        assert (status, b"send it again" in body) == (500, True)


@pytest.mark.parametrize(("method", "status"), [(b"GET", 200), (b"PUT", 200), (b"POST", 502)])
async def test_a_connection_that_has_ended_is_replaced_where_repeating_is_safe(
    method: bytes, status: int
) -> None:
    """The egress takes the second request of each connection and leaves."""
    served = 0

    async def script(taken: Taken, line: Line) -> None:
        nonlocal served
        served += 1
        if served != 2:
            await ok(taken, line)
        else:
            await line.stream.aclose()

    egress = ScriptedEgress(script)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        await line.say(GET)
        await hear(line)
        await line.say(method + b" / HTTP/1.1\r\nHost: m\r\nContent-Length: 1\r\n\r\nx")
        assert (await hear(line))[0] == status


async def test_a_key_that_was_known_and_an_egress_that_is_gone_is_a_504() -> None:
    egress = ScriptedEgress(ok)
    async with trio.open_nursery() as nursery:
        stop = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[int]) -> None:
            with stop:
                async with egress.serving() as web:
                    task_status.started(web.port)
                    await trio.sleep_forever()

        target = await nursery.start(run)
        async with ohttp_ingress(target) as (_, port), calling(port) as line:
            await line.say(GET)
            await hear(line)
            stop.cancel()
            await trio.testing.wait_all_tasks_blocked()
            await line.say(posting(1))
            status, _, body = await hear(line)
            assert (status, b"HttpCipherTextForwardError" in body) == (504, True)


# -- both directions -----------------------------------------------------------------------


async def test_events_are_delivered_one_by_one() -> None:
    go = trio.Semaphore(0)

    async def script(taken: Taken, line: Line) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: message/ohttp-chunked-res\r\n"
        await line.say(head + b"Transfer-Encoding: chunked\r\n\r\n")
        sealer = taken.sealer
        parts = [sealer.prefix + sealer.seal(bhttp.dump_response_head(200, []))]
        parts += [sealer.seal(bhttp.dump_content(b"data: %d\n\n" % at)) for at in range(3)]
        for part in [*parts, sealer.seal(bhttp.dump_end()) + sealer.finish()]:
            await line.say(b"%x\r\n%s\r\n" % (len(part), part))
            if part is not parts[0]:
                await go.acquire()
        await line.say(b"0\r\n\r\n")

    egress = ScriptedEgress(script)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        await line.say(GET)
        for at in range(3):
            await line.until(b"data: %d\n\n" % at)
            go.release()
        go.release()
        await line.until(b"0\r\n\r\n")


@pytest.mark.parametrize("when", ["before the answer", "within the answer", "within the upload"])
async def test_a_client_that_leaves_ends_the_request_at_the_egress(when: str) -> None:
    ended = trio.Event()
    begun = trio.Event()

    class Egress(ScriptedEgress):
        async def _serve(self, line: Line) -> None:
            while not begun.is_set():
                said = await line.until(b"\r\n\r\n")
                if b"/tng/tunnel" not in said:
                    await line.until(b"null}")
                    await line.say(response(self.key_answer(), 200, b"application/json"))
                    continue
                begun.set()
            if when == "within the answer":
                await line.say(
                    b"HTTP/1.1 200 OK\r\nContent-Type: message/ohttp-chunked-res\r\n\r\nx"
                )
            await line.is_cut()
            ended.set()

    egress = Egress(ok)
    async with egress.serving() as web, ohttp_ingress(web.port) as (gateway, port):
        async with calling(port) as line:
            await line.say(posting(10)[:-5] if when == "within the upload" else GET)
            await begun.wait()
        with trio.fail_after(2):
            await ended.wait()
        await eventually(lambda: gateway.entries[0].meter.cx_active == 0)


async def test_a_client_is_asked_for_the_body_that_it_holds_back() -> None:
    egress = ScriptedEgress(ok)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        head, body = posting(4, b"Expect: 100-continue\r\n").split(b"\r\n\r\n")
        await line.say(head + b"\r\n\r\n")
        assert await line.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await line.say(body)
        assert (await hear(line))[0] == 200


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        (b"HEAD", 200, [(b"content-length", b"5")]),
        (b"GET", 204, []),
        (b"GET", 304, [(b"content-length", b"5")]),
    ],
)
async def test_answers_without_content_leave_the_connection_usable(method, status, fields) -> None:
    async def script(taken: Taken, line: Line) -> None:
        await line.say(response(taken.answer(status, fields)))

    egress = ScriptedEgress(script)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        for _ in range(2):
            await line.say(method + b" / HTTP/1.1\r\nHost: m\r\n\r\n")
            heard, got, body = await hear(line, method)
            assert (heard, body) == (status, b"")
            assert dict(got).get(b"content-length") == dict(fields).get(b"content-length")


async def test_an_old_client_gets_no_chunks_and_the_end_of_the_connection() -> None:
    egress = ScriptedEgress(ok)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        await line.say(b"GET / HTTP/1.0\r\n\r\n")
        answer = await line.rest()
        assert answer.endswith(b"\r\n\r\nok")
        assert b"chunked" not in answer


async def test_requests_sent_at_once_are_answered_in_their_order() -> None:
    egress = ScriptedEgress(ok)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        await line.say(b"".join(b"GET /%d HTTP/1.1\r\nHost: m\r\n\r\n" % at for at in range(3)))
        for at in range(3):
            assert dict((await hear(line))[1])[b"x-seen"] == b"/%d" % at


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: m\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
async def test_what_is_no_single_message_is_a_501(head: bytes) -> None:
    egress = ScriptedEgress(ok)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        await line.say(head)
        assert (await hear(line))[0] == 501
        assert egress.asked == []
