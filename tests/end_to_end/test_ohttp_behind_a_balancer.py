"""nginx before two egresses with one key: no request is lost, repeated or readable on the way."""

from __future__ import annotations

import pathlib
import sys

import pytest

from stage.balanced_pair import CIPHERTEXT, CLIENTS, WATCHED, Report, run_balanced
from stage.balancer import EXAMPLE, nginx
from stage.capture import Capture, may_capture
from stage.numbered_requests import PLACES

REQUESTS = 1000
"""Each way; `tools/balancer` sends ten times as many."""

needs_nginx = pytest.mark.skipif(nginx() is None, reason="needs nginx (apt-get install nginx)")
needs_packets = pytest.mark.skipif(
    not may_capture(), reason="needs the right to open packet sockets (CAP_NET_RAW, Linux)"
)


def check(report: Report) -> None:
    """What must hold however many requests there were."""
    assert report.lost()[:3] == []
    assert len(report.tally.failures) <= CLIENTS * len(report.kills)
    assert report.repeated() == []
    assert len(report.keys) > 2
    assert len(report.used) > 1, "the ingress never had to take another key"
    assert report.returned, "nobody was killed"
    assert report.capture.dropped == 0
    assert report.plaintext() == []
    for port in WATCHED:
        assert report.capture.found[port, CIPHERTEXT] > 0, "nothing was seen: this proves nothing"
    for place in PLACES:
        for port in ("ingress", "service"):
            assert report.capture.found[port, place] > 0, "the search does not find what is there"


@pytest.mark.slow
@needs_nginx
@needs_packets
@pytest.mark.parametrize("is_shared", [False, True], ids=["file", "peer_shared"])
async def test_requests_survive_new_keys_and_a_killed_egress(
    is_shared: bool, tmp_path: pathlib.Path
) -> None:
    report = await run_balanced(tmp_path, is_shared=is_shared, requests=REQUESTS, kills=1)
    sys.stdout.write(report.describe() + "\n")
    assert report.tally.answered >= REQUESTS
    check(report)


def test_the_example_never_sends_an_encapsulated_request_twice() -> None:
    lines = [line.strip() for line in EXAMPLE.read_text(encoding="utf-8").splitlines()]
    directives = [line for line in lines if line and not line.startswith("#")]
    assert "proxy_next_upstream error timeout;" in directives
    assert not any("non_idempotent" in line for line in directives)
    for name in ("proxy_request_buffering", "proxy_buffering"):
        assert f"{name} off;" in directives


def packet(data: bytes, *, source: int = 40000, target: int = 8443) -> bytes:
    """An Ethernet frame with IPv4 and TCP around `data`."""
    tcp = source.to_bytes(2) + target.to_bytes(2) + bytes(8) + bytes([5 << 4]) + bytes(7)
    size = 20 + len(tcp) + len(data)
    ip = bytes([0x45, 0]) + size.to_bytes(2) + bytes(5) + bytes([6]) + bytes(10)
    return bytes(12) + b"\x08\x00" + ip + tcp + data


def test_the_search_finds_what_lies_across_two_packets_once() -> None:
    capture = Capture({"name": b"needle"}, {"port": 8443})
    for data in (b"--nee", b"dle--", b"--", b"needle", b"need"):
        capture.take(packet(data))
    capture.take(packet(b"le", source=40001))
    assert capture.found == {("port", "name"): 2}
    capture.take(packet(b"needle", target=8444))
    capture.take(packet(b"needle", source=8443, target=40000))
    assert capture.found == {("port", "name"): 3}
