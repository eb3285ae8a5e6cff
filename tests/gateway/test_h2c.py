"""HTTP/2 with prior knowledge wherever HTTP/1 is served: the same rules, request by request."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio

from stage.conversation import Line, calling, service
from stage.encapsulation import Encapsulated, ask_key, tunnel
from stage.gateways import free_port, http_proxy, mapping, ohttp_egress, ohttp_ingress, serving
from stage.h2_client import Http2Line
from stage.octet_service import octets
from tng.wire.http1_body import dump_chunk, dump_last_chunk, request_body
from tng.wire.http1_head import parse_request_head

EXEMPT = {"direct_forward": [{"http_path": "^/public/"}]}
LARGE = 10 << 20
CURL = shutil.which("curl")

Port = Callable[[int], AbstractAsyncContextManager[int]]
"""Called with the service's port: the port to ask."""


@asynccontextmanager
async def _beside_tunnels(target: int) -> AsyncIterator[int]:
    port = free_port()
    config = {**mapping(port, target), "no_ra": True, **EXEMPT}
    async with serving({"add_egress": [config]}):
        yield port


@asynccontextmanager
async def _beside_ohttp(target: int) -> AsyncIterator[int]:
    async with ohttp_egress(target, **EXEMPT) as (_, port):
        yield port


@asynccontextmanager
async def _through_ohttp(target: int) -> AsyncIterator[int]:
    async with ohttp_egress(target) as (_, egress), ohttp_ingress(egress) as (_, port):
        yield port


@asynccontextmanager
async def asking(port: int, **options: bool | int | None) -> AsyncIterator[Http2Line]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield Http2Line(stream, **options)


@pytest.fixture(params=[_beside_tunnels, _beside_ohttp, _through_ohttp])
def way(request: pytest.FixtureRequest) -> Port:
    """Every port that serves HTTP."""
    return request.param


@pytest.fixture(params=[_beside_tunnels, _beside_ohttp])
def exempting(request: pytest.FixtureRequest) -> Port:
    """Every port where `direct_forward` decides."""
    return request.param


def echo(seen: list[bytes] | None = None) -> Callable[[Line], Awaitable[None]]:
    """Answers with the request's method, body and trailers; `/public/octets` with octets."""

    async def script(line: Line) -> None:
        while True:
            try:
                octets_of_head = await line.until(b"\r\n\r\n")
            except AssertionError:
                return
            head = parse_request_head(octets_of_head)
            if seen is not None:
                seen.append(head.target)
            reader, body = request_body(head), b""
            while not reader.is_done:
                data = bytes(line.ahead) or await line.stream.receive_some()
                line.ahead.clear()
                body += b"".join(reader.feed(data))
            if head.target.endswith(b"/octets"):
                body = octets(LARGE)
            answer = b"HTTP/1.1 200 OK\r\nX-Method: " + head.method
            answer += b"\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n"
            if head.method != b"HEAD":
                if body:
                    answer += dump_chunk(body)
                answer += dump_last_chunk([*reader.trailers, (b"x-sum", b"1")])
            await line.say(answer)

    return script


async def test_requests_of_one_connection_are_served_with_body_and_trailers(way: Port) -> None:
    async with service(echo()) as web, way(web.port) as port, asking(port) as line:
        got = await line.answer(line.ask(path=b"/public/a"))
        assert (got.status, got.body, got.has_ended) == (200, b"", True)
        assert (b"x-method", b"GET") in got.fields
        assert not {b"connection", b"transfer-encoding"} & dict(got.fields).keys()
        assert got.trailers == [(b"x-sum", b"1")]
        stream = line.ask(b"POST", b"/public/b", ends=False)
        line.h2.send_data(stream, b"hello")
        line.h2.send_headers(stream, [(b"x-own", b"2")], end_stream=True)
        got = await line.answer(stream)
        assert got.body == b"hello"
        assert got.trailers == [(b"x-own", b"2"), (b"x-sum", b"1")]
        stream = line.ask(b"POST", b"/public/b", [(b"content-length", b"5")], ends=False)
        await line.send_body(stream, b"there")
        assert (await line.answer(stream)).body == b"there"
        got = await line.answer(line.ask(b"HEAD", b"/public/a"))
        assert (got.status, got.body, got.has_ended) == (200, b"", True)


@pytest.mark.slow
async def test_ten_megabytes_arrive_whole_both_ways(way: Port) -> None:
    async with service(echo()) as web, way(web.port) as port, asking(port) as line:
        stream = line.ask(b"POST", b"/public/b", ends=False)
        await line.send_body(stream, octets(LARGE))
        assert (await line.answer(stream)).body == octets(LARGE)
        assert (await line.answer(line.ask(path=b"/public/octets"))).body == octets(LARGE)


async def test_a_hundred_requests_are_served_at_once(way: Port) -> None:
    async with service(echo()) as web, way(web.port) as port, asking(port) as line:
        await line.until(lambda: line.h2.remote_settings.max_concurrent_streams == 100)
        streams = [line.ask(b"POST", b"/public/b", ends=False) for _ in range(100)]
        for stream in reversed(streams):
            line.h2.send_data(stream, b"%d" % stream, end_stream=True)
        for stream in streams:
            assert (await line.answer(stream)).body == b"%d" % stream


async def test_events_arrive_when_they_are_sent(way: Port) -> None:
    heard = trio.Event()

    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await line.say(dump_chunk(b"data: 0\n\n"))
        await heard.wait()
        await line.say(dump_chunk(b"data: 1\n\n") + dump_last_chunk())

    async with service(script) as web, way(web.port) as port, asking(port) as line:
        stream = line.ask(path=b"/public/events")
        await line.until(lambda: line.answers[stream].body == b"data: 0\n\n")
        heard.set()
        assert (await line.answer(stream)).body == b"data: 0\n\ndata: 1\n\n"


@pytest.mark.parametrize("whole", [False, True])
async def test_a_client_that_leaves_is_left_by_the_service_at_once(way: Port, whole: bool) -> None:
    left = trio.Event()

    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await line.say(dump_chunk(b"data: 0\n\n"))
        await line.is_cut()
        left.set()

    async with service(script) as web, way(web.port) as port, asking(port) as line:
        stream = line.ask(path=b"/public/events")
        await line.until(lambda: bool(line.answers[stream].body))
        if whole:
            await line.stream.aclose()
        else:
            line.h2.reset_stream(stream, error_code=8)
            await line.flush()
        with trio.fail_after(5):
            await left.wait()


async def test_an_answer_that_is_cut_short_never_looks_complete(way: Port) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")

    async with service(script) as web, way(web.port) as port, asking(port) as line:
        got = await line.answer(line.ask(path=b"/public/a"))
        # Through a tunnel, the break may overtake the beginning of the answer.
        assert got.status == 502 or (got.reset is not None and not got.has_ended)


async def test_each_request_is_decided_upon_by_itself(exempting: Port) -> None:
    seen: list[bytes] = []
    async with service(echo(seen)) as web, exempting(web.port) as port, asking(port) as line:
        for path in (b"/public/a", b"/secret", b"/public/../secret", b"/public/b", b"/secret"):
            got = await line.answer(line.ask(path=path))
            assert got.status == (200 if path in (b"/public/a", b"/public/b") else 403), path
        got = await line.answer(line.ask(path=b"/public/c", more=[(b"x-tng-ohttp-api", b"/x")]))
        assert got.status >= 400
        got = await line.answer(line.ask(b"CONNECT", b"/public/d"))
        assert got.status == 501
    assert seen == [b"/public/a", b"/public/b"]


@pytest.mark.parametrize(
    "more",
    [
        [(b"connection", b"close")],
        [(b"transfer-encoding", b"chunked")],
        [(b"host", b"other.example")],
        [(b"content-length", b"1")],
    ],
)
async def test_malformed_requests_reach_no_service(
    exempting: Port, more: list[tuple[bytes, bytes]]
) -> None:
    seen: list[bytes] = []
    async with service(echo(seen)) as web, exempting(web.port) as port, asking(port) as line:
        got = await line.answer(line.ask(path=b"/public/a", more=more))
        assert (got.status, got.reset) == (0, 1)
        assert (await line.answer(line.ask(path=b"/public/b"))).status == 200
    assert seen == [b"/public/b"]


async def test_requests_of_tng_are_served_over_http2_too() -> None:
    async with service(echo()) as web, ohttp_egress(web.port, **EXEMPT) as (_, port):
        async with calling(port) as plain:
            sealed = Encapsulated(await ask_key(plain))
        outer = tunnel(b"")
        fields = [
            (name, value)
            for name, value in parse_request_head(outer).fields
            if name not in (b"host", b"content-length")
        ]
        async with asking(port) as line:
            stream = line.ask(b"POST", b"/public/x", fields, ends=False)
            await line.send_body(stream, sealed.whole(b"POST", path=b"/secret", content=b"hello"))
            got = await line.answer(stream)
            assert got.status == 200
            assert sealed.opened(bytes(got.body))[2] == b"hello"


async def test_requests_to_a_proxy_go_where_their_authority_says() -> None:
    seen: list[bytes] = []
    port = free_port()
    async with (
        service(echo(seen)) as web,
        ohttp_egress(web.port) as (_, egress),
        serving({"add_ingress": [{**http_proxy(port), "ohttp": {}, "no_ra": True}]}),
        asking(port) as line,
    ):
        authority = b"127.0.0.1:%d" % egress
        assert (await line.answer(line.ask(path=b"/a", authority=authority))).status == 200
        assert (await line.answer(line.ask(path=b"/b", authority=b"a:b:c"))).status == 400
        no_host = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/c")]
        assert (await line.answer(line.say(no_host))).status == 400
        assert (await line.answer(line.ask(path=b"/d", authority=authority))).status == 200
    assert seen == [b"/a", b"/d"]


async def test_http2_begins_a_connection_or_is_not_served(exempting: Port) -> None:
    async with service(echo()) as web, exempting(web.port) as port:
        async with asking(port) as line:  # octet by octet
            stream = line.ask(path=b"/public/a")
            for octet in line.h2.data_to_send():
                await line.stream.send_all(bytes((octet,)))
            assert (await line.answer(stream)).status == 200
        async with calling(port) as line1:
            await line1.say(b"GET /public/a HTTP/1.1\r\nHost: h\r\n\r\n")
            await line1.until(b"x-sum: 1\r\n\r\n")
            await line1.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert (await line1.rest()).startswith(b"HTTP/1.1 505 ")


async def test_nothing_passes_where_nothing_is_exempted() -> None:
    seen: list[bytes] = []
    async with (
        service(echo(seen)) as web,
        ohttp_egress(web.port) as (_, port),
        asking(port) as line,
    ):
        got = await line.answer(line.ask(path=b"/public/a"))
        assert (got.status, json.loads(got.body)["code"]) == (403, "RejectNonTngRequest")
    assert not seen


@pytest.mark.slow
async def test_a_draining_gateway_ends_the_request_under_way() -> None:
    go_on = trio.Event()

    async def script(line: Line) -> None:
        if b"/public/b" in await line.until(b"\r\n\r\n"):
            await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhe")
        await go_on.wait()
        await line.say(b"re")

    async with (
        service(script) as web,
        ohttp_egress(web.port, **EXEMPT) as (gateway, port),
        asking(port) as line,
        trio.open_nursery() as nursery,
    ):
        stream = line.ask(path=b"/public/a")
        await line.until(lambda: line.answers[stream].body == b"he")
        nursery.start_soon(gateway.drain)
        while (refused := await line.answer(line.ask(path=b"/public/b"))).reset is None:
            assert refused.status == 200  # drained a moment later
        assert refused.reset == 7  # REFUSED_STREAM: it may be asked elsewhere
        assert line.goaway is None
        go_on.set()
        assert (await line.answer(stream)).body == b"here"
        await line.until(lambda: line.goaway is not None)
        assert line.goaway == 0
        await line.until(lambda: False)  # to the end of the connection
        assert line.has_ended


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
async def test_curl_is_served(way: Port) -> None:
    async with service(echo()) as web, way(web.port) as port:
        done = await trio.run_process(
            [
                str(CURL), "-sS", "-m", "10", "--http2-prior-knowledge", "-d", "hello",
                "-w", " %{http_version}", f"http://127.0.0.1:{port}/public/a",
            ],
            capture_stdout=True,
        )  # fmt: skip
        assert done.stdout == b"hello 2"
