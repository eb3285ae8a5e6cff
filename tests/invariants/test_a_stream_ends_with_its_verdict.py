"""A stream outlives its verdict for a bounded time, whatever way it came in; then it is cut."""

from __future__ import annotations

import pytest
import trio

from stage.conversation import Line, calling, service
from stage.gateways import free_port, http_proxy, mapping, serving
from stage.judges import Judge, verdict
from tng.clock import SystemClock
from tng.tunnel.rats_tls import judging
from tng.verdict import AttestedPeer

VERIFY = {"as_addr": "http://127.0.0.1:9/as", "policy_ids": ["default"]}
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"


class Brief(Judge):
    """Its verdicts end at once; streams that are open by then may drain."""

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        self.asked += 1
        ends = SystemClock().now() + 0.1
        return AttestedPeer(verdict(accepted=True, valid_until=ends), "token")


def request(way: str, port: int) -> bytes:
    authority = b"127.0.0.1:%d" % port
    if way == "connect":
        return b"CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\nhello" % authority
    if way == "mapping":
        return b"hello"
    fields = b"Connection: upgrade\r\nUpgrade: x\r\n" if way == "upgrade" else b""
    return b"GET http://%s/ HTTP/1.1\r\nHost: x\r\n%s\r\n" % (authority, fields)


@pytest.mark.parametrize("multiplex", [False, True])
@pytest.mark.parametrize("way", ["mapping", "connect", "absolute", "begun", "upgrade"])
async def test_no_stream_goes_on_forever_after_its_verdict(monkeypatch, way, multiplex) -> None:
    monkeypatch.setattr(judging, "DRAIN_AFTER_VERDICT_S", 0.1)
    cut = trio.Event()

    async def script(line: Line) -> None:
        said = await line.stream.receive_some()
        if way == "begun":
            await line.say(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        elif b"pgrade" in said:
            await line.say(SWITCH)
        if await line.is_cut():
            cut.set()

    way_in, tunnel = free_port(), free_port()
    mode = mapping(way_in, tunnel) if way == "mapping" else http_proxy(way_in)
    rats_tls = {"rats_tls": {"multiplex": multiplex}}
    async with (
        service(script) as web,
        serving({"add_egress": [{**mapping(tunnel, web.port), "no_ra": True}]}),
        serving({"add_ingress": [{**mode, **rats_tls, "verify": VERIFY}]}, Brief()),
        calling(way_in) as client,
    ):
        await client.say(request(way, tunnel))
        if way == "absolute":
            answer = await client.rest()
            assert b" 502 " in answer.split(b"\r\n")[0]
            assert b"X-Tng-Error: stale" in answer
        else:
            assert await client.is_cut()
        with trio.fail_after(2):
            await cut.wait()
