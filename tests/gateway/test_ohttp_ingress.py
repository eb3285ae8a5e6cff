"""The ways into OHTTP: mapping, proxy, CONNECT, SOCKS5, and what is not tunnelled."""

from __future__ import annotations

import logging
import resource

import pytest
import trio

from stage.conversation import Line, calling, eventually, service
from stage.encapsulation import ScriptedEgress, Taken, answering, hear, response
from stage.gateways import free_port, http_proxy, listen, ohttp_egress, ohttp_ingress, serving
from stage.identities import Vouching
from stage.judges import Judge
from tng.endpoint import Endpoint
from tng.errors import NetError
from tng.gateway.ingress import answered
from tng.verdict import NoRa
from tng.wire import bhttp

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def entering(mode: dict[str, object]):
    return serving({"add_ingress": [{**mode, "ohttp": {}, "no_ra": True}]})


@pytest.mark.parametrize("way", ["absolute", "connect", "socks5"])
async def test_a_proxy_carries_each_request_to_the_egress_that_it_names(way: str) -> None:
    seen: list[bytes] = []
    proxy = free_port()
    mode = {"socks5": {"proxy_listen": listen(proxy)}} if way == "socks5" else http_proxy(proxy)
    async with (
        service(answering(OK, seen)) as web,
        ohttp_egress(web.port) as (_, egress),
        entering(mode),
        calling(proxy) as line,
    ):
        origin = b""
        if way == "connect":
            await line.say(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % egress)
            assert b" 200 " in await line.until(b"\r\n\r\n")
        elif way == "socks5":
            address = b"\x7f\0\0\x01" + egress.to_bytes(2, "big")
            await line.say(b"\x05\x01\x00\x05\x01\x00\x01" + address)
            await line.until(b"\x05\x00\x05\x00\x00\x01" + bytes(6))
        else:
            origin = b"http://127.0.0.1:%d" % egress
        for _ in range(2):
            head = b"GET %s/v1 HTTP/1.1\r\nHost: h\r\nProxy-Connection: x\r\n\r\n" % origin
            await line.say(head)
            assert (await hear(line))[2] == b"ok"
    assert all(b"GET /v1 HTTP/1.1\r\n" in head for head in seen)
    assert b"proxy-connection" not in seen[0].lower()


async def test_one_connection_of_a_proxy_may_name_several_destinations() -> None:
    proxy = free_port()
    mode = http_proxy(proxy)
    mode["http_proxy"]["dst_filters"] = [{"domain": "localhost"}]  # type: ignore[index]
    plain_seen: list[bytes] = []
    async with (
        service(answering(OK)) as web,
        service(answering(OK, plain_seen)) as plain,
        ohttp_egress(web.port) as (_, egress),
        entering(mode),
        calling(proxy) as line,
    ):
        for _ in range(2):
            for host, port in ((b"localhost", egress), (b"127.0.0.1", plain.port)):
                await line.say(b"GET http://%s:%d/ HTTP/1.1\r\nHost: h\r\n\r\n" % (host, port))
                assert (await hear(line))[:1] == (200,)
    assert len(plain_seen) == 2
    assert b"x-tng-http-forward: true" in plain_seen[0].lower()


def lines_of(caplog) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "tng.access"]


@pytest.mark.parametrize("is_judged", [False, True])
async def test_a_connection_has_one_line_for_each_destination_that_answered(
    is_judged: bool, caplog
) -> None:
    caplog.set_level(logging.INFO, logger="tng.access")
    trust = {"attest": {"aa_addr": "unix:///x"}} if is_judged else {}
    check = {"verify": {"as_addr": "http://127.0.0.1:1", "policy_ids": ["default"]}}
    way_in = check if is_judged else {"no_ra": True}
    statements, judge = (Vouching(), Judge()) if is_judged else (None, None)
    proxy = free_port()
    entry = {**http_proxy(proxy), "ohttp": {}, **way_in}
    async with (
        service(answering(OK)) as web,
        ohttp_egress(web.port, statements=statements, **trust) as (_, one),
        ohttp_egress(web.port, statements=statements, **trust) as (_, other),
        serving({"add_ingress": [entry]}, judge),
        calling(proxy) as line,
    ):
        for egress in (one, one, other, one):
            await line.say(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: h\r\n\r\n" % egress)
            assert (await hear(line))[0] == 200
        ours = [text for text in lines_of(caplog) if "(http_proxy)" in text]
    assert len(ours) == 2
    for text, egress in zip(ours, (one, other), strict=True):
        assert f"downstream_local=127.0.0.1:{proxy}(http_proxy) -> upstream_local=" in text
        told = str(is_judged).lower()
        assert text.endswith(
            f"upstream_remote=127.0.0.1:{egress} \N{EM DASH} encrypted=true attested={told}"
        )


async def test_a_destination_that_never_answered_has_a_line_that_says_so(caplog) -> None:
    caplog.set_level(logging.INFO, logger="tng.access")
    async with ohttp_ingress(free_port()) as (_, port), calling(port) as line:
        await line.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await hear(line))[0] == 500
    [text] = lines_of(caplog)
    assert text.endswith("not connected encrypted=true")


async def test_a_failure_after_an_answer_has_no_line_of_its_own(caplog) -> None:
    caplog.set_level(logging.INFO, logger="tng.access")

    async def half(taken: Taken, line: Line) -> None:
        whole = response(taken.answer())
        await line.say(whole[:-8])
        await line.stream.aclose()

    async with (
        ScriptedEgress(half).serving() as web,
        ohttp_ingress(web.port) as (_, port),
        calling(port) as line,
    ):
        await line.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await line.is_cut()
    assert len(lines_of(caplog)) == 1


def test_the_memory_for_destinations_is_bounded() -> None:
    notes = answered.AccessNotes(Left(), "http_proxy")  # type: ignore[arg-type]
    here = Endpoint("127.0.0.1", 1)
    for port in range(1, 200):
        notes._answered(Endpoint("127.0.0.1", port), here, NoRa.NO_RA)
        assert Endpoint("127.0.0.1", port) in notes._noted
        assert len(notes._noted) <= answered._MAX_REMEMBERED


class Left:
    """A client's connection that is gone."""

    label = "gone"

    @property
    def remote(self) -> Endpoint:
        raise NetError("no peer")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT a:b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: h\r\n\r\n", 500),
        (b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: h\r\n\r\n", 500),
        (b"GET http://a/ HTTP/1.1\r\nHost: h\r\nX-Tng-Http-Forward: true\r\n\r\n", 508),
        (b"GET http://a/ HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n", 501),
    ],
)
async def test_what_cannot_be_carried_is_told(said: bytes, status: int) -> None:
    proxy = free_port()
    async with entering(http_proxy(proxy)) as gateway, calling(proxy) as line:
        await line.say(said)
        heard, fields, _ = await hear(line)
        assert heard == status or (status == 508 and heard >= 400)
        assert b"x-tng-error" in dict(fields)
        assert await line.rest() == b""
        assert gateway.entries[0].meter.cx_failed == 1


async def test_the_status_page_shows_whose_keys_are_known() -> None:
    async def ok(taken: Taken, line: Line) -> None:
        await line.say(response(taken.answer()))

    egress = ScriptedEgress(ok)
    async with (
        egress.serving() as web,
        ohttp_ingress(web.port) as (gateway, port),
        calling(port) as line,
    ):
        entry = gateway.entries[0]
        assert entry.keys_status is not None
        assert entry.keys_status() == {"servers": []}
        await line.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await hear(line)
        url = f"http://127.0.0.1:{web.port}/"
        key = egress.config.public_key.hex()
        assert entry.keys_status() == {"servers": [{"url": url, "server_public_key": key}]}


async def test_the_memory_for_a_stalled_reader_is_bounded_here_too() -> None:
    sent = 0

    async def flood(taken: Taken, line: Line) -> None:
        nonlocal sent
        sealer = taken.sealer
        head = b"HTTP/1.1 200 OK\r\nContent-Type: message/ohttp-chunked-res\r\n\r\n"
        await line.say(head + sealer.prefix + sealer.seal(bhttp.dump_response_head(200, [])))
        while sent < 96 << 20:
            data = sealer.seal(bhttp.dump_content(bytes(1 << 20)))
            await line.say(data)
            sent += len(data)

    egress = ScriptedEgress(flood)
    async with egress.serving() as web, ohttp_ingress(web.port) as (_, port), calling(port) as line:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await line.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await eventually(lambda: sent > 0)
        last = -1
        while sent != last:
            last = sent
            await trio.sleep(0.1)
        assert sent < 48 << 20, "the egress was not held back"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


async def test_an_upload_is_held_back_by_a_service_that_does_not_read() -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await trio.sleep_forever()

    taken = 0
    async with (
        service(script) as web,
        ohttp_egress(web.port) as (_, egress),
        ohttp_ingress(egress) as (_, port),
        calling(port) as line,
    ):
        await line.say(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (96 << 20))
        block = bytes(1 << 18)
        while taken < 96 << 20:
            with trio.move_on_after(0.3) as limit:
                await line.say(block)
            if limit.cancelled_caught:
                break
            taken += len(block)
    assert taken < 48 << 20
