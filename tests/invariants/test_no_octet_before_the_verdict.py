"""The first rule: without a verdict no application octet moves, and nobody hears a success.

Held over every way in x transport x way of failing, against peers that record what they are given.
"""

from __future__ import annotations

import pathlib

import pytest
import trio

from stage.certificates import self_signed, write_pem
from stage.conversation import Line, eventually, service
from stage.encapsulation import ScriptedEgress, Taken, response
from stage.gateways import free_port, http_proxy, mapping, ohttp_egress, serving
from stage.h2_client import Http2Line
from stage.identities import Ordinary
from stage.judges import Absent, Broken, Judge, Refusing, Undecided
from stage.recorder import Recorder

VERIFY = {"as_addr": "http://127.0.0.1:9/as", "policy_ids": ["default"]}
ATTEST = {"aa_type": "simulated", "simulated_platform": "unused"}
SECRET = b"Bearer sk-never-to-be-seen"
TRANSPORTS = {"raw": False, "multiplexed": True, "auto": None}
WAYS_IN = ("mapping", "connect", "absolute")
JUDGES = {"refused": Refusing, "no judge": Absent, "judge breaks": Broken, "no verdict": Undecided}
STATUS = {"refused": b"502", "no judge": b"503", "judge breaks": b"500", "no verdict": b""}


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_pem(tmp_path_factory.mktemp("pem"), *self_signed())


def entry(way: str, port: int, target: int, multiplex: bool | None) -> dict[str, object]:
    mode = mapping(port, target) if way == "mapping" else http_proxy(port)
    return {**mode, "rats_tls": {"multiplex": multiplex}, "verify": VERIFY}


def request(way: str, target: int) -> bytes:
    authority = b"127.0.0.1:%d" % target
    url = b"http://" + authority + b"/v1/completions" if way == "absolute" else b"/v1/completions"
    head = b"POST " + url + b" HTTP/1.1\r\nHost: " + authority + b"\r\nAuthorization: " + SECRET
    request = head + b"\r\nContent-Length: 6\r\n\r\nprompt"
    if way == "connect":
        return b"CONNECT " + authority + b" HTTP/1.1\r\nHost: x\r\n\r\n" + request
    return request


async def talk(port: int, data: bytes, enough: bytes = b"") -> bytes:
    """Send everything at once, as an eager client does; all that comes back, or until `enough`."""
    heard = b""
    with trio.fail_after(10):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            try:
                await stream.send_all(data)
                while more := await stream.receive_some():
                    heard += more
                    if enough and enough in heard:
                        break
            except trio.BrokenResourceError:
                pass
    return heard


async def talk_in_vain(port: int, data: bytes, judge: Judge) -> bytes:
    """As `talk`, to a gateway whose judge is asked and never answers: what comes meanwhile."""
    heard = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(data)
        await eventually(lambda: judge.asked > 0)
        with trio.move_on_after(0.05):
            heard = await stream.receive_some()
    return heard


@pytest.mark.parametrize("failure", JUDGES)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("way", WAYS_IN)
async def test_a_peer_without_a_verdict_gets_no_octet(
    way: str, transport: str, failure: str, pem: pathlib.Path
) -> None:
    judge = JUDGES[failure]()
    with Recorder(pem) as peer:
        port = free_port()
        config = {"add_ingress": [entry(way, port, peer.port, TRANSPORTS[transport])]}
        async with serving(config, judge):
            if failure == "no verdict":
                heard = await talk_in_vain(port, request(way, peer.port), judge)
            else:
                heard = await talk(port, request(way, peer.port))
        assert judge.asked == 1, "the peer was never met: this proves nothing"
        assert bytes(peer.recorded) == b""
        assert b" 200 " not in heard
        if way != "mapping" and STATUS[failure]:
            assert heard.split(b" ")[1] == STATUS[failure]
            assert b"x-tng-error" in heard.lower()
            assert SECRET not in heard


@pytest.mark.parametrize("way", WAYS_IN)
async def test_after_a_verdict_the_octets_move(way: str, pem: pathlib.Path) -> None:
    with Recorder(pem, ["rats-tls"]) as peer:
        port = free_port()
        config = {"add_ingress": [entry(way, port, peer.port, False)]}
        async with serving(config, Judge()):
            heard = await talk(port, request(way, peer.port), enough=b"forged")
        assert SECRET in peer.recorded
        assert b"forged" in heard


@pytest.mark.parametrize("way", WAYS_IN)
async def test_a_peer_that_is_not_tls_gets_no_octet_of_the_request(way: str) -> None:
    recorded = bytearray()

    async def web_server(line: Line) -> None:
        recorded.extend(await line.stream.receive_some())
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        recorded.extend(await line.rest())

    async with service(web_server) as peer:
        port = free_port()
        config = {"add_ingress": [entry(way, port, peer.port, None)]}
        async with serving(config, Judge()):
            heard = await talk(port, request(way, peer.port))
            await eventually(lambda: recorded != b"")
        assert recorded.startswith(b"\x16\x03"), "a ClientHello, and nothing else"
        assert SECRET not in recorded
        assert b" 200 " not in heard


@pytest.mark.parametrize("failure", [name for name in JUDGES if name != "no verdict"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_without_a_verdict_never_reaches_the_service(
    transport: str, failure: str
) -> None:
    """The egress verifies: its backend is not even connected to."""
    judge = JUDGES[failure]()
    with Recorder() as backend:
        way_in, tunnel = free_port(), free_port()
        multiplex = {"rats_tls": {"multiplex": TRANSPORTS[transport]}}
        client = {**mapping(way_in, tunnel), **multiplex, "attest": ATTEST}
        server = {**mapping(tunnel, backend.port), **multiplex, "verify": VERIFY}
        async with (
            serving({"add_egress": [server]}, judge),
            serving({"add_ingress": [client]}, source=Ordinary()),
        ):
            heard = await talk(way_in, request("mapping", tunnel))
        assert judge.asked >= 1
        assert backend.accepted == 0
        assert b" 200 " not in heard


EVIDENCE = {
    "model": "background_check",
    "evidence": {
        "aa_tee_type": "sample",
        "aa_evidence": "e30=",
        "aa_runtime_data": "{}",
        "aa_runtime_data_hash_algo": "sha384",
    },
}


@pytest.mark.parametrize("shown", ["evidence", "nothing"])
@pytest.mark.parametrize("failure", JUDGES)
@pytest.mark.parametrize("way", WAYS_IN)
async def test_no_request_is_encrypted_to_a_key_without_a_verdict(
    way: str, failure: str, shown: str
) -> None:
    """Over OHTTP the peer gets a question about its key, and nothing of the request."""
    judge = JUDGES[failure]()
    served: list[Taken] = []

    async def serve(taken: Taken, line: Line) -> None:
        served.append(taken)
        await line.say(response(taken.answer(200, [], b"forged")))

    peer = ScriptedEgress(serve)
    peer.info = EVIDENCE if shown == "evidence" else None
    async with peer.serving() as egress:
        port = free_port()
        mode = mapping(port, egress.port) if way == "mapping" else http_proxy(port)
        config = {"add_ingress": [{**mode, "ohttp": {}, "verify": VERIFY}]}
        async with serving(config, judge):
            if failure == "no verdict" and shown == "evidence":
                heard = await talk_in_vain(port, request(way, egress.port), judge)
            else:
                heard = await talk(port, request(way, egress.port))
    assert judge.asked == (1 if shown == "evidence" else 0)
    assert peer.asked == ["/tng/key-config"], "it was asked for its key, and nothing else"
    assert served == []
    assert SECRET not in b"".join(peer.bodies)
    assert b" 200 " not in heard
    if shown == "nothing":
        assert heard.split(b" ")[1] == b"502"
        assert b"evidence_missing" in heard
    elif STATUS[failure]:
        assert heard.split(b" ")[1] == STATUS[failure]


@pytest.mark.parametrize("way", WAYS_IN)
async def test_after_a_verdict_a_request_is_encrypted_to_the_judged_key(way: str) -> None:
    served: list[Taken] = []

    async def serve(taken: Taken, line: Line) -> None:
        served.append(taken)
        await line.say(response(taken.answer(200, [], b"forged")))

    peer = ScriptedEgress(serve)
    peer.info = EVIDENCE
    async with peer.serving() as egress:
        port = free_port()
        mode = mapping(port, egress.port) if way == "mapping" else http_proxy(port)
        config = {"add_ingress": [{**mode, "ohttp": {}, "verify": VERIFY}]}
        async with serving(config, Judge()):
            heard = await talk(port, request(way, egress.port), enough=b"forged")
    assert b"forged" in heard
    assert dict(served[0].head.fields)[b"authorization"] == SECRET
    assert not [value for head in peer.outer for _, value in head.fields if SECRET in value]


async def test_an_ohttp_egress_that_verifies_connects_to_nothing_for_a_stranger() -> None:
    judge = Refusing()
    with Recorder() as backend:
        async with ohttp_egress(backend.port, judge, verify=VERIFY) as (_, tunnel):
            way_in = free_port()
            config = {"add_ingress": [{**mapping(way_in, tunnel), "ohttp": {}, "no_ra": True}]}
            async with serving(config):
                heard = await talk(way_in, request("mapping", tunnel))
        assert backend.accepted == 0
        assert b" 200 " not in heard


@pytest.mark.parametrize("ohttp", [False, True], ids=["rats_tls", "ohttp"])
@pytest.mark.parametrize("failure", [name for name in JUDGES if name != "no verdict"])
async def test_a_socks_client_hears_no_success_and_gives_no_octet_without_a_verdict(
    failure: str, ohttp: bool, pem: pathlib.Path
) -> None:
    """An eager client: greeting, request and prompt in one write."""
    judge = JUDGES[failure]()
    port = free_port()
    scripted = ScriptedEgress(refuse_to_be_asked)
    scripted.info = EVIDENCE
    async with scripted.serving() as egress:
        with Recorder(pem) as peer:
            target = egress.port if ohttp else peer.port
            mode = {"socks5": {"proxy_listen": {"host": "127.0.0.1", "port": port}}}
            transport = {"ohttp": {}} if ohttp else {}
            config = {"add_ingress": [{**mode, **transport, "verify": VERIFY}]}
            greeting = b"\x05\x01\x00" + b"\x05\x01\x00\x01\x7f\x00\x00\x01"
            said = greeting + target.to_bytes(2, "big") + request("mapping", target)
            async with serving(config, judge):
                heard = await talk(port, said)
            assert bytes(peer.recorded) == b""
    assert judge.asked == 1, "the peer was never met: this proves nothing"
    assert heard[:3] == b"\x05\x00\x05"
    assert heard[3] != 0, "success was told"
    assert SECRET not in b"".join(scripted.bodies)


@pytest.mark.parametrize("failure", [name for name in JUDGES if name != "no verdict"])
async def test_a_client_of_http2_is_not_encrypted_for_without_a_verdict(failure: str) -> None:
    judge = JUDGES[failure]()
    peer = ScriptedEgress(refuse_to_be_asked)
    peer.info = EVIDENCE
    async with peer.serving() as egress:
        port = free_port()
        config = {"add_ingress": [{**mapping(port, egress.port), "ohttp": {}, "verify": VERIFY}]}
        async with (
            serving(config, judge),
            await trio.open_tcp_stream("127.0.0.1", port) as stream,
        ):
            line = Http2Line(stream)
            asked = line.ask(b"GET", b"/v1/models", [(b"authorization", SECRET)])
            answer = await line.answer(asked)
    assert judge.asked == 1
    assert answer.status == int(STATUS[failure])
    assert peer.asked == ["/tng/key-config"]
    assert SECRET not in b"".join(peer.bodies)


async def refuse_to_be_asked(taken: Taken, line: Line) -> None:
    raise AssertionError("a request was encrypted to a key without a verdict")
