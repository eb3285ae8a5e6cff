"""The first rule with several workers: their judge sits in another process, and the rule holds."""

from __future__ import annotations

import json
import pathlib
import socket

import pytest

from stage.certificates import self_signed, write_pem
from stage.gateways import free_port, http_proxy
from stage.processes import running
from stage.recorder import Recorder

pytestmark = pytest.mark.slow

SECRET = b"Bearer sk-never-to-be-seen"
TRIES = 6
"""Enough that both workers serve some of them."""


def ask(proxy: int, target: int, *, tunnelled: bool) -> bytes:
    """Send a whole request at once, as an eager client does; all that comes back."""
    authority = b"127.0.0.1:%d" % target
    origin = b"" if tunnelled else b"http://" + authority
    request = b"GET " + origin + b"/v1/models HTTP/1.1\r\nHost: " + authority
    request += b"\r\nAuthorization: " + SECRET + b"\r\n\r\n"
    if tunnelled:
        request = b"CONNECT " + authority + b" HTTP/1.1\r\nHost: x\r\n\r\n" + request
    heard = b""
    with socket.create_connection(("127.0.0.1", proxy), 10) as sock:
        sock.sendall(request)
        while not heard.endswith(b"}}") and (more := sock.recv(65536)):
            heard += more
    return heard


@pytest.mark.parametrize("tunnelled", [False, True], ids=["absolute", "connect"])
def test_workers_send_nothing_to_a_peer_without_evidence(
    tunnelled: bool, tmp_path: pathlib.Path
) -> None:
    proxy, control = free_port(), free_port()
    verify = {"as_addr": f"http://127.0.0.1:{free_port()}", "policy_ids": ["default"]}
    config = {
        "add_ingress": [{**http_proxy(proxy), "verify": verify}],
        "control_interface": {"restful": {"host": "127.0.0.1", "port": control}},
    }
    launch = ["-m", "tng", "launch", "--workers", "2", "--config-content", json.dumps(config)]
    with (
        Recorder(write_pem(tmp_path, *self_signed())) as peer,
        running(tmp_path, "ingress", *launch) as ingress,
    ):
        ingress.await_http(control, "/livez")
        heard = [ask(proxy, peer.port, tunnelled=tunnelled) for _ in range(TRIES)]
        assert peer.accepted == TRIES, "the peer was not met each time: this proves nothing"
        assert bytes(peer.recorded) == b""
        assert all(answer.startswith(b"HTTP/1.1 502") for answer in heard), heard
        assert all(b"evidence_missing" in answer for answer in heard)
        assert SECRET.decode() not in ingress.log
