"""What the service behind an egress sees of a request, when, and what becomes of its answer."""

from __future__ import annotations

import resource

import pytest
import trio

from stage.conversation import Line, calling, eventually, service
from stage.encapsulation import HOST, Encapsulated, answering, ask_key, hear, post, tunnel
from stage.gateways import ohttp_egress
from stage.recorder import Recorder
from tng.wire import bhttp
from tng.wire.bhttp_decoder import Content, Decoder
from tng.wire.http1_head import RequestHead, parse_request_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OPEN = post("/tng/tunnel", "message/ohttp-chunked-req")


def chunk(*parts: bytes) -> bytes:
    data = b"".join(parts)
    return b"%x\r\n%s\r\n" % (len(data), data)


def head_of(seen: list[bytes]) -> RequestHead:
    """The head of the first request."""
    return parse_request_head(seen[0].partition(b"\r\n\r\n")[0] + b"\r\n\r\n")


async def exchange(answer: bytes, *, ohttp=None, seen=None, **request):
    """Status, fields, content and trailers of the inner answer to one request."""
    async with (
        service(answering(answer, seen)) as web,
        ohttp_egress(web.port, ohttp=ohttp) as (_, port),
        calling(port) as line,
    ):
        sealed = Encapsulated(await ask_key(line))
        await line.say(tunnel(sealed.whole(**request)))
        status, _, body = await hear(line)
        assert status == 200, body
        return sealed.opened(body)


async def test_the_service_gets_the_message_and_nothing_of_one_hop() -> None:
    seen: list[bytes] = []
    fields = [
        (b"connection", b"x-mine, content-length, host"),
        (b"x-mine", b"1"),
        (b"keep-alive", b"1"),
        (b"te", b"trailers, deflate"),
        (b"proxy-authorization", b"Basic x"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        *HOST,
    ]
    await exchange(OK, seen=seen, path=b"/v1?x=y", fields=fields)
    head = head_of(seen)
    assert (head.method, head.target) == (b"GET", b"/v1?x=y")
    assert head.fields == [
        (b"te", b"trailers"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"host", b"model.example"),
        (b"x-real-ip", b"127.0.0.1"),
        (b"x-forwarded-for", b"127.0.0.1"),
    ]


async def test_a_connection_field_cannot_take_the_framing_away() -> None:
    """Else the body would be read as another request."""
    inner = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    fields = [(b"content-length", b"%d" % len(inner)), (b"connection", b"content-length"), *HOST]
    seen: list[bytes] = []
    await exchange(OK, seen=seen, method=b"POST", fields=fields, content=inner)
    assert head_of(seen).content_length == len(inner)


async def test_addresses_are_told_after_those_told_before_or_not_at_all() -> None:
    told = [*HOST, (b"x-forwarded-for", b"10.0.0.9"), (b"x-real-ip", b"10.0.0.9")]
    seen: list[bytes] = []
    await exchange(OK, seen=seen, fields=told)
    fields = dict(head_of(seen).fields)
    assert fields[b"x-forwarded-for"] == b"10.0.0.9, 127.0.0.1"
    assert fields[b"x-real-ip"] == b"127.0.0.1"
    seen.clear()
    await exchange(OK, seen=seen, ohttp={"forward_client_ip": False}, fields=told)
    assert dict(head_of(seen).fields)[b"x-real-ip"] == b"10.0.0.9"


@pytest.mark.parametrize("is_named", [False, True])
async def test_a_host_is_always_given_and_never_decides_where_to(is_named: bool) -> None:
    seen: list[bytes] = []
    async with (
        service(answering(OK, seen)) as web,
        ohttp_egress(web.port) as (_, port),
        calling(port) as line,
    ):
        sealed = Encapsulated(await ask_key(line))
        authority = b"elsewhere.example:81" if is_named else b""
        head = sealed.sealer.seal(bhttp.dump_request_head(b"GET", b"http", authority, b"", []))
        await line.say(tunnel(sealed.begin + head + sealed.end()))
        assert (await hear(line))[0] == 200
        head = head_of(seen)
        assert head.target == b"/"
        assert dict(head.fields)[b"host"] == authority or b"127.0.0.1:%d" % web.port


async def test_repeated_fields_and_trailers_come_back() -> None:
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2"
        b"\r\nTransfer-Encoding: chunked\r\nKeep-Alive: 5\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n"
    )
    status, fields, content, trailers = await exchange(answer)
    assert (status, content, trailers) == (201, b"abc", [(b"x-sum", b"9")])
    assert fields == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_an_answer_without_content_is_complete(method: bytes, answer: bytes) -> None:
    status, fields, content, _ = await exchange(answer, method=method)
    assert status == int(answer.split()[1])
    assert content == b""
    if b"5" in answer.split(b"\r\n")[1]:
        assert (b"content-length", b"5") in fields


async def test_passed_through_fields_cross_both_ways() -> None:
    seen: list[bytes] = []
    ohttp = {"header_passthrough": {"request_headers": "all", "response_headers": ["X-Model"]}}
    async with (
        service(
            answering(
                b"HTTP/1.1 200 OK\r\nX-Model: m\r\nX-No: n\r\nContent-Length: 0\r\n\r\n", seen
            )
        ) as web,
        ohttp_egress(web.port, ohttp=ohttp) as (_, port),
        calling(port) as line,
    ):
        sealed = Encapsulated(await ask_key(line))
        octets = tunnel(sealed.whole(fields=[*HOST, (b"x-a", b"inner")]))
        more = b"\r\nX-A: outer\r\nExpect: x\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n"
        await line.say(octets.replace(b"\r\n\r\n", more, 1))
        _, fields, _ = await hear(line)
    assert (b"x-model", b"m") in fields
    assert b"x-no" not in dict(fields)
    inner = dict(head_of(seen).fields)
    assert inner[b"x-a"] == b"outer"
    assert inner[b"host"] == b"model.example"
    assert not {b"expect", b"x-hop", b"x-tng-ohttp-api", b"connection"} & inner.keys()


# -- completeness --------------------------------------------------------------------------


async def begun(line: Line, port: int, *parts: bytes) -> None:
    await line.say(OPEN + chunk(*parts))


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        (b"GET", HOST),
        (b"POST", HOST),
        (b"POST", [*HOST, (b"content-length", b"0")]),
        (b"DELETE", [*HOST, (b"content-length", b"0")]),
    ],
)
async def test_a_request_without_content_leaves_only_when_it_is_verified(method, fields) -> None:
    with Recorder() as web:
        async with ohttp_egress(web.port) as (_, port), calling(port) as line:
            sealed = Encapsulated(await ask_key(line))
            head = sealed.head(method, fields=fields)
            inner_end = sealed.sealer.seal(bhttp.dump_end())
            await line.say(OPEN + chunk(sealed.begin, head) + chunk(inner_end))
            await trio.sleep(0.03)
            assert bytes(web.recorded) == b""
            await line.say(chunk(sealed.sealer.finish()) + b"0\r\n\r\n")
            assert (await hear(line))[0] == 200
        assert bytes(web.recorded).count(b"HTTP/1.1") == 1
        assert b"chunked" not in web.recorded


@pytest.mark.parametrize("length", [None, 10])
@pytest.mark.parametrize("spoil", ["forged", "missing"])
async def test_a_request_whose_end_is_not_verified_never_completes(length, spoil) -> None:
    fields = HOST if length is None else [*HOST, (b"content-length", b"%d" % length)]
    with Recorder() as web:
        async with ohttp_egress(web.port) as (_, port), calling(port) as line:
            sealed = Encapsulated(await ask_key(line))
            begin = [sealed.begin, sealed.head(b"POST", fields=fields)]
            begin += [sealed.content(b"01234"), sealed.content(b"56789")]
            end = sealed.sealer.seal(bhttp.dump_end())
            final = sealed.sealer.finish()
            if spoil == "forged":
                end += final[:-1] + bytes([final[-1] ^ 1])
            await line.say(OPEN + chunk(*begin) + chunk(end) + b"0\r\n\r\n")
            status, _, body = await hear(line)
            assert status == 502 or (spoil == "forged" and b"BhttpError" in body)
        _, _, content = bytes(web.recorded).partition(b"\r\n\r\n")
        if length is None:
            assert b"0\r\n\r\n" not in content
        else:
            assert len(content) < length


@pytest.mark.parametrize(
    ("length", "expected"), [(b"3", 502), (b"9", 502), (b"x", 500), (b"5, 5", 500)]
)
async def test_content_of_another_length_than_announced_is_refused(length, expected) -> None:
    async with (
        service(answering(OK)) as web,
        ohttp_egress(web.port) as (_, port),
        calling(port) as line,
    ):
        sealed = Encapsulated(await ask_key(line))
        fields = [*HOST, (b"content-length", length)]
        await line.say(tunnel(sealed.whole(b"POST", fields=fields, content=b"12345")))
        assert (await hear(line))[0] == expected


@pytest.mark.parametrize(
    "request_",
    [{"method": b"CONNECT", "path": b""}, {"fields": [*HOST, (b"upgrade", b"websocket")]}],
)
async def test_what_is_no_single_message_is_a_501(request_) -> None:
    async with (
        service(answering(OK)) as web,
        ohttp_egress(web.port) as (_, port),
        calling(port) as line,
    ):
        sealed = Encapsulated(await ask_key(line))
        await line.say(tunnel(sealed.whole(**request_)))
        status, _, body = await hear(line)
        assert (status, b"UpgradeNotSupported" in body) == (501, True)
        assert web.connections == 0


# -- both directions at once ---------------------------------------------------------------


async def test_a_piece_goes_out_when_it_comes_in_both_directions() -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            await line.until(b"ping%d\r\n" % number)
            await line.say(b"5\r\npong%d\r\n" % number)
        await line.until(b"0\r\n\r\n")
        await line.say(b"0\r\n\r\n")

    async with service(script) as web, ohttp_egress(web.port) as (_, port), calling(port) as line:
        sealed = Encapsulated(await ask_key(line))
        await line.say(OPEN + chunk(sealed.begin, sealed.head(b"POST")))
        decoder, heard = Decoder("response"), b""
        for number in range(3):
            await line.say(chunk(sealed.content(b"ping%d" % number)))
            if number == 0:
                await line.until(b"\r\n\r\n")
            while b"pong%d" % number not in heard:
                size = int((await line.until(b"\r\n"))[:-2], 16)
                data = (await line.until(b"\r\n"))[:-2] if size == 0 else b""
                while len(line.ahead) < size + 2:
                    line.ahead += await line.stream.receive_some()
                data = bytes(line.ahead[:size])
                del line.ahead[: size + 2]
                for plain in sealed.opener.feed(data):
                    for event in decoder.feed(plain):
                        heard += event.data if isinstance(event, Content) else b""
        await line.say(chunk(sealed.end()) + b"0\r\n\r\n")
        await line.until(b"0\r\n\r\n")


async def test_an_early_answer_ends_the_upload_and_neither_connection_is_used_again() -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await line.is_cut()

    async with service(script) as web, ohttp_egress(web.port) as (_, port):
        for _ in range(2):
            async with calling(port) as line:
                sealed = Encapsulated(await ask_key(line))
                await line.say(
                    OPEN + chunk(sealed.begin, sealed.head(b"POST"), sealed.content(b"x"))
                )
                status, fields, body = await hear(line)
                assert (status, sealed.opened(body)[0]) == (200, 413)
                assert (b"connection", b"close") not in fields
                await line.say(chunk(b"more"))
                assert await line.rest() == b""
        assert web.connections == 2, "half a request was left on the connection"


@pytest.mark.parametrize("when", ["before", "within"])
async def test_a_client_that_leaves_ends_the_request_at_the_service(when: str) -> None:
    ended = trio.Event()

    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        if when == "within":
            await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\npart")
        await line.is_cut()
        ended.set()

    async with service(script) as web, ohttp_egress(web.port) as (_, port):
        async with calling(port) as line:
            sealed = Encapsulated(await ask_key(line))
            await line.say(tunnel(sealed.whole()))
            await eventually(lambda: web.connections == 1)
            if when == "within":
                await line.until(b"\r\n\r\n")
        with trio.fail_after(2):
            await ended.wait()


async def test_a_client_that_leaves_its_upload_ends_the_request_at_the_service() -> None:
    async def script(line: Line) -> None:
        await line.until(b"part\r\n")
        assert await line.is_cut()
        ended.set()

    ended = trio.Event()
    async with service(script) as web, ohttp_egress(web.port) as (_, port):
        async with calling(port) as line:
            sealed = Encapsulated(await ask_key(line))
            await line.say(
                OPEN + chunk(sealed.begin, sealed.head(b"POST"), sealed.content(b"part"))
            )
            await eventually(lambda: web.connections == 1)
        with trio.fail_after(2):
            await ended.wait()


@pytest.mark.parametrize(
    "half",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nnonsense",
    ],
)
async def test_a_service_that_dies_in_its_answer_never_looks_complete(half: bytes) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(half)

    async with service(script) as web, ohttp_egress(web.port) as (_, port), calling(port) as line:
        sealed = Encapsulated(await ask_key(line))
        await line.say(tunnel(sealed.whole()))
        assert await line.is_cut()


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 101 Switching\r\n\r\n", b"HTTP/1.1 100 C\r\n\r\n" * 40],
)
async def test_a_service_without_an_answer_is_a_502(answer: bytes) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(answer)

    async with service(script) as web, ohttp_egress(web.port) as (_, port), calling(port) as line:
        sealed = Encapsulated(await ask_key(line))
        await line.say(tunnel(sealed.whole()))
        status, fields, body = await hear(line)
        assert (status, b"HttpPlainTextForwardError" in body) == (502, True)
        assert (b"x-tng-error", b"upstream_unreachable") in fields


async def test_no_service_is_a_502() -> None:
    async with ohttp_egress(1) as (_, port), calling(port) as line:
        sealed = Encapsulated(await ask_key(line))
        await line.say(tunnel(sealed.whole()))
        assert (await hear(line))[0] == 502


# -- connections to the service ------------------------------------------------------------


async def test_connections_to_the_service_are_shared_and_replaced_when_they_close() -> None:
    async def script(line: Line) -> None:
        for _ in range(2):
            await line.until(b"\r\n\r\n")
            await line.say(OK)

    async with service(script) as web, ohttp_egress(web.port) as (_, port):
        for number in range(6):
            async with calling(port) as line:
                sealed = Encapsulated(await ask_key(line))
                await line.say(tunnel(sealed.whole(b"POST")))
                assert (await hear(line))[0] == 200, number
        assert web.connections == 3


async def test_a_repeatable_request_meets_a_closing_connection_and_is_sent_again() -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(OK)
        await line.until(b"\r\n\r\n")  # and leaves without an answer

    async with service(script) as web, ohttp_egress(web.port) as (_, port), calling(port) as line:
        config = await ask_key(line)
        for method, status in ((b"GET", 200), (b"GET", 200), (b"POST", 502)):
            sealed = Encapsulated(config)
            await line.say(tunnel(sealed.whole(method)))
            assert (await hear(line))[0] == status
        assert web.connections == 2


async def test_the_memory_for_a_stalled_reader_is_bounded() -> None:
    """The service offers 96 MiB at once to a client that does not read."""
    size = 96 << 20
    sent = 0

    async def script(line: Line) -> None:
        nonlocal sent
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = bytes(1 << 20)
        while sent < size:
            await line.stream.send_all(block)
            sent += len(block)

    async with service(script) as web, ohttp_egress(web.port) as (_, port), calling(port) as line:
        sealed = Encapsulated(await ask_key(line))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await line.say(tunnel(sealed.whole()))
        await eventually(lambda: sent > 0)
        last = -1
        while sent != last:
            last = sent
            await trio.sleep(0.1)
        assert sent < size // 2, "the service was not held back"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 32 << 10, f"{grown} KiB for one stalled client"
