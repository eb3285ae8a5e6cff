"""Plain HTTP/1 requests through the proxy: framing both ways, and what becomes of broken ones."""

from __future__ import annotations

import json

import pytest
import trio

from stage.conversation import Line, calling, eventually, service

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SOON_S = 1.0


def get(port: int, *fields: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    authority = b"127.0.0.1:%d" % port
    lines = [method + b" http://" + authority + b"/v1?q=1 HTTP/" + version, b"Host: " + authority]
    return b"\r\n".join([*lines, *fields, b"", b""])


def post(port: int, *fields: bytes) -> bytes:
    return get(port, *fields, method=b"POST")


async def answer_ok(line: Line) -> None:
    await line.until(b"\r\n\r\n")
    await line.say(OK)
    await line.rest()


async def test_a_request_and_its_response_pass(through) -> None:
    heads = []

    async def script(line: Line) -> None:
        heads.append(await line.until(b"\r\n\r\n"))
        await line.say(OK)
        await line.rest()

    async with (
        service(script) as web,
        through(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(get(port, b"X-Case: Kept"))
        assert await client.until(b"ok") == OK
    assert heads[0].startswith(b"GET /v1?q=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-Case: Kept\r\n" in heads[0]


async def test_one_connection_serves_different_destinations(direct) -> None:
    async def second(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n")

    async with (
        service(answer_ok) as one,
        service(second) as two,
        direct(one.port) as (_, proxy, _),
        calling(proxy) as client,
    ):
        for _ in range(2):
            await client.say(get(one.port))
            assert await client.until(b"ok") == OK
            await client.say(get(two.port))
            assert b"404 Gone" in await client.until(b"\r\n\r\n")
    assert (one.connections, two.connections) == (2, 2)


async def test_pipelined_requests_are_answered_in_order(direct) -> None:
    async def echo_path(line: Line) -> None:
        path = (await line.until(b"\r\n\r\n")).split(b" ")[1]
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))

    async with (
        service(echo_path) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        requests = [get(port).replace(b"/v1?q=1", b"/%d" % i) for i in range(3)]
        await client.say(b"".join(requests))
        for i in range(3):
            assert (await client.until(b"\r\n\r\n/%d" % i)).count(b"HTTP/1.1 200") == 1


async def test_chunks_pass_both_ways_as_they_come(through) -> None:
    async def script(line: Line) -> None:
        assert b"ransfer-" in await line.until(b"\r\n\r\n")
        await line.until(b"3\r\none\r\n")
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await line.until(b"3\r\ntwo\r\n")
        await line.until(b"0\r\n\r\n")
        await line.say(b"6\r\nsecond\r\n0\r\nX-Trailer: yes\r\n\r\n")

    async with (
        service(script) as web,
        through(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(post(port, b"Transfer-Encoding: chunked") + b"3\r\none\r\n")
        await client.until(b"5\r\nfirst\r\n")  # before the body has ended
        await client.say(b"3\r\ntwo\r\n0\r\n\r\n")
        await client.until(b"6\r\nsecond\r\n0\r\nX-Trailer: yes\r\n\r\n")


async def test_expect_100_continue_waits_for_the_service(through) -> None:
    async def script(line: Line) -> None:
        assert b"100-continue" in await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await line.until(b"body")
        await line.say(OK)

    async with (
        service(script) as web,
        through(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(post(port, b"Content-Length: 4", b"Expect: 100-continue"))
        assert b" 100 " in await client.until(b"\r\n\r\n")
        await client.say(b"body")
        await client.until(OK)


async def test_an_early_hint_passes_and_not_to_http_1_0(direct) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)

    async with service(script) as web, direct(web.port) as (_, proxy, port):
        async with calling(proxy) as client:
            await client.say(get(port))
            assert b" 103 " in await client.until(b"\r\n\r\n")
            assert await client.until(b"ok") == OK
        async with calling(proxy) as client:
            await client.say(get(port, version=b"1.0"))
            assert b" 103 " not in await client.rest()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"),
    ],
)
async def test_responses_without_a_body_leave_the_connection_usable(
    direct, method: bytes, answer: bytes
) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(answer)
        await line.rest()

    async with (
        service(script) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        for _ in range(2):
            await client.say(get(port, method=method))
            assert await client.until(b"\r\n\r\n") == answer


async def test_http_1_0_gets_a_body_that_ends_with_the_connection(direct) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await line.say(b"4\r\nbody\r\n0\r\nX-Trailer: lost\r\n\r\n")

    async with (
        service(script) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(get(port, version=b"1.0"))
        said = await client.rest()
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b"body"


async def test_a_response_without_a_length_is_framed_anew(direct) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")

    async with (
        service(script) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(get(port))
        assert b"chunked" in await client.until(b"\r\n\r\n")
        await client.until(b"until the end")
        await client.until(b"0\r\n\r\n")


async def test_a_service_may_answer_before_the_body_has_ended(through) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await line.stream.send_eof()
        await line.rest()

    async with (
        service(script) as web,
        through(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(post(port, b"Content-Length: 100000000") + b"x" * 100_000)
        assert b"413 Too Large" in await client.until(b"no")
        assert await client.rest() == b""


async def test_an_answer_arrives_although_the_body_cannot_be_sent_any_more(direct) -> None:
    """The service answers and closes with unread octets, which resets its connection."""

    async def script(line: Line) -> None:
        await line.until(b"xxxx")
        await line.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    async with (
        service(script) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(post(port, b"Content-Length: 900000") + b"x" * 300_000)
        assert b"413 Too Large" in await client.until(b"no")


@pytest.mark.parametrize("moment", ["upload", "waiting", "download"])
async def test_a_client_that_leaves_ends_the_request_at_the_service(through, moment: str) -> None:
    reached, left = trio.Event(), trio.Event()

    async def script(line: Line) -> None:
        await line.until(b"part")
        if moment == "download":
            await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        reached.set()
        if await line.is_cut() or moment != "upload":
            left.set()

    fields = [b"Content-Length: 1000" if moment == "upload" else b"Content-Length: 4"]
    async with (
        service(script) as web,
        through(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(post(port, *fields) + b"part")
        await reached.wait()
        if moment == "download":
            await client.until(b"1\r\na\r\n")
        client.reset()
        with trio.fail_after(SOON_S):
            await left.wait()


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
async def test_a_response_cut_short_never_looks_complete(through, begun: bytes) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(begun)

    async with service(script) as web, through(web.port) as (_, proxy, port):
        for version in (b"1.1", b"1.0"):
            async with calling(proxy) as client:
                await client.say(get(port, version=version))
                await client.until(b"half")
                assert await client.is_cut()


async def test_a_reset_ends_even_a_response_that_the_connection_delimits(through) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await trio.sleep(0.02)  # octets that the kernel still holds would be lost with the reset
        line.reset()

    async with (
        service(script) as web,
        through(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(get(port, version=b"1.0"))
        await client.until(b"half")
        assert await client.is_cut()


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 101 No\r\n\r\n"])
async def test_a_service_that_gives_no_answer_is_a_502(through, said: bytes) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(said)

    async with (
        service(script) as web,
        through(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(get(port, b"Authorization: Bearer sk-canary"))
        answer = await client.rest()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"Connection: close" in head
    problem = json.loads(body)["error"]
    assert problem["type"] == "tng_error"
    assert problem["param"] is None
    assert f"X-Tng-Error: {problem['code']}".encode() in head
    assert b"sk-canary" not in answer


async def test_nobody_there_is_a_502_that_says_try_again(direct) -> None:
    async with direct(1) as (_, proxy, _), calling(proxy) as client:
        await client.say(get(1))
        answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"Retry-After: 1" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["retryable"] is True


async def test_the_answer_survives_a_client_that_goes_on_talking(direct) -> None:
    """Closing with unread octets would reset the connection, and lose the answer."""
    async with direct(1) as (_, proxy, _), calling(proxy) as client:
        await client.say(post(1, b"Content-Length: 900000"))
        await client.say(b"x" * 900_000)
        assert b" 502 " in await client.until(b"\r\n\r\n")
        await client.rest()


UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


async def test_after_101_octets_move_raw_both_ways(through) -> None:
    async def script(line: Line) -> None:
        assert b"pgrade: websocket" in await line.until(b"\r\n\r\n")
        await line.say(SWITCH + b"early from the service")
        await line.until(b"early from the client")
        await line.until(b"later\0")
        await line.say(b"last\0")

    async with (
        service(script) as web,
        through(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(get(port, *UPGRADE) + b"early from the client")
        head = await client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"pgrade: websocket" in head
        await client.until(b"early from the service")
        await client.say(b"later\0")
        await client.until(b"last\0")
        assert await client.rest() == b""


async def test_an_upgrade_that_the_service_declines_is_a_plain_request(through) -> None:
    async with (
        service(answer_ok) as web,
        through(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        for _ in range(2):
            await client.say(get(port, *UPGRADE))
            assert await client.until(b"ok") == OK


async def test_a_client_that_leaves_before_101_is_noticed(direct) -> None:
    reached, left = trio.Event(), trio.Event()

    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        reached.set()
        await line.is_cut()
        left.set()

    async with service(script) as web, direct(web.port) as (_, proxy, port):
        async with calling(proxy) as client:
            await client.say(get(port, *UPGRADE))
            await reached.wait()
        with trio.fail_after(SOON_S):
            await left.wait()


@pytest.mark.parametrize(
    "request_of",
    [
        lambda port: get(port, *UPGRADE, version=b"1.0"),
        lambda port: post(port, *UPGRADE, b"Content-Length: 100") + b"part",
    ],
    ids=["HTTP/1.0", "request not ended"],
)
async def test_a_service_may_not_switch_where_it_makes_no_sense(direct, request_of) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(SWITCH)
        await line.rest()

    async with (
        service(script) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(request_of(port))
        assert b" 502 " in await client.until(b"\r\n")


async def test_fields_of_this_hop_stay_here(through) -> None:
    heads = []

    async def script(line: Line) -> None:
        heads.append((await line.until(b"\r\n\r\n")).lower())
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: 5\r\n\r\n")

    fields = (
        b"Proxy-Authorization: Basic c2VjcmV0",
        b"Proxy-Connection: keep-alive",
        b"Connection: X-Only-Here",
        b"X-Only-Here: 1",
        b"Authorization: Bearer kept",
    )
    async with (
        service(script) as web,
        through(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(get(port, *fields))
        assert b"keep-alive" not in (await client.until(b"\r\n\r\n")).lower()
    assert b"proxy-" not in heads[0]
    assert b"x-only-here" not in heads[0]
    assert b"authorization: bearer kept" in heads[0]


async def test_a_loop_is_refused(direct) -> None:
    async with (
        service(answer_ok) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(get(port, b"X-Tng-Http-Forward: true"))
        answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"recursion is detected" in answer
    assert web.connections == 0


async def test_a_malformed_body_ends_the_request(direct) -> None:
    cut = trio.Event()

    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        if await line.is_cut():
            cut.set()

    async with (
        service(script) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(post(port, b"Transfer-Encoding: chunked") + b"nonsense\r\n")
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 400 ")
        with trio.fail_after(SOON_S):
            await cut.wait()


async def test_a_malformed_body_after_the_response_began_cuts_it(direct) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await line.rest()

    async with (
        service(script) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(post(port, b"Transfer-Encoding: chunked"))
        await client.until(b"half")
        await client.say(b"nonsense\r\n")
        assert await client.is_cut()


@pytest.mark.parametrize(
    "smuggled",
    [
        (b"Content-Length: 4", b"Content-Length: 5"),
        (b"Content-Length: +4",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding : chunked",),
        (b"Transfer-Encoding: \x0bchunked",),
        (b"X: a\r\n\tfolded",),
        (b"Bad Name: x",),
        (b"X: \0",),
    ],
)
async def test_ambiguous_requests_are_refused_or_made_plain(direct, smuggled) -> None:
    """At most one request reaches the service, and its framing is one that all readers share."""
    heard = bytearray()

    async def script(line: Line) -> None:
        heard.extend(await line.until(b"\r\n\r\n"))
        await line.say(OK)
        await line.rest()

    async with (
        service(script) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(post(port, *smuggled) + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")
        status = (await client.until(b"\r\n")).split(b" ")[1]
    if status == b"200":
        assert heard.count(b"\r\n\r\n") == 1
        assert b"\t" not in heard
        assert b"smuggled" not in heard
    else:
        assert status in (b"400", b"501")
        assert heard == b""


async def test_a_length_beside_chunks_does_not_travel_on(direct) -> None:
    heads = []

    async def script(line: Line) -> None:
        heads.append((await line.until(b"\r\n\r\n")).lower())
        await line.until(b"0\r\n\r\n")
        await line.say(OK)

    async with (
        service(script) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        fields = (b"Content-Length: 3", b"Transfer-Encoding: chunked")
        await client.say(post(port, *fields) + b"4\r\nbody\r\n0\r\n\r\n")
        await client.until(b"ok")
    assert b"content-length" not in heads[0]
    assert b"transfer-encoding: chunked" in heads[0]


async def test_octets_are_counted(direct) -> None:
    async with service(answer_ok) as web, direct(web.port) as (gateway, proxy, port):
        async with calling(proxy) as client:
            await client.say(get(port))
            await client.until(b"ok")
            meter = gateway.entries[0].meter
            await eventually(lambda: meter.octets_to_client == len(OK))
            assert meter.octets_from_client > 50
            assert (meter.cx_total, meter.cx_active, meter.cx_failed) == (1, 1, 0)
        await eventually(lambda: meter.cx_active == 0)
