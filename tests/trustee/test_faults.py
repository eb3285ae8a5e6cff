"""Requests that are too much in one way or another: refused, bounded, and nobody else waits."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import time

import pytest

JSON = {"content-type": "application/json"}
PATHS = {
    "/attestation": 16 * 1024 * 1024,
    "/challenge": 64 * 1024,
    "/policy": 1024 * 1024,
    "/kbs/v0/auth": 64 * 1024,
    "/kbs/v0/attest": 16 * 1024 * 1024,
}
DEEP = [
    b"[" * 90_000,
    b'{"a":' * 90_000,
    b'{"a":' * 90_000 + b"1" + b"}" * 90_000,
    b'{"verification_requests":' + b"[" * 65 + b"]" * 65 + b"}",
    b'{"a":[' + b"1," * 200_000 + b"1]}",
    b'{"a":' + b"9" * 5000 + b"}",
    b'{"a":' + b"[[],[]]," * 40_000 + b"1}",
]


@contextlib.contextmanager
def connected(trustee, *, receive_buffer=0):
    host, port = trustee.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(10)
        client.connect((host, int(port)))
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_says_it_is_too_large_is_not_read(trustee, path):
    with connected(trustee) as client:
        client.sendall(
            b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % (path.encode(), PATHS[path] + 1)
        )
        # Not one octet of the body was sent, and there is an answer.
        assert b" 413 " in client.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", DEEP, ids=range(len(DEEP)))
def test_deep_and_wide_json_is_refused_quickly(trustee, path, body):
    begin = time.monotonic()
    answer = trustee.http.post(path, content=body, headers=JSON)
    # Evidence for no session is not even parsed.
    assert answer.status_code in ((401,) if path == "/kbs/v0/attest" else (400, 413))
    assert time.monotonic() - begin < 2
    assert trustee.http.get("/status").status_code == 200


@pytest.mark.parametrize("tee", ["tdx", "sample", "sampledevice", "nvidia"])
@pytest.mark.parametrize("evidence", [*DEEP, b"{}" * 1_000_000], ids=range(len(DEEP) + 1))
def test_deep_json_inside_evidence_is_malformed_evidence(trustee, requests, tee, evidence):
    answer = trustee.http.post("/attestation", json=requests.listed(tee, evidence))
    assert answer.status_code == 400
    assert answer.json()["tng_code"] == "evidence_malformed"


@pytest.mark.parametrize("text", ["[" * 200_000, "a := " + "(" * 11, "{" * 60, '"' * 9])
def test_a_policy_that_nests_too_deep_is_refused_before_the_engine_sees_it(trustee, text):
    policy = base64.urlsafe_b64encode(f"package policy\n{text}".encode()).rstrip(b"=").decode()
    begin = time.monotonic()
    answer = trustee.http.post("/policy", json={"policy_id": "deep", "policy": policy})
    assert answer.status_code in (400, 501)
    assert time.monotonic() - begin < 2


@pytest.mark.slow
def test_a_hundred_slow_bodies_hold_up_nobody_and_are_given_up(start):
    trustee = start(deadline_s=1.0)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connected(trustee)) for _ in range(100)]
        for client in slow:
            client.sendall(
                b"POST /attestation HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b"content-length: 1000000\r\n\r\n{"
            )
        begin = time.monotonic()
        assert trustee.http.get("/status").status_code == 200
        assert time.monotonic() - begin < 0.9
        for client in slow:
            assert b" 408 " in client.recv(4096).split(b"\r\n")[0]


@pytest.mark.slow
def test_a_client_that_reads_no_answers_is_let_go(start):
    trustee = start(idle_s=0.5)
    asked = b"GET /certificate HTTP/1.1\r\nhost: x\r\n\r\n" * 1000
    with connected(trustee, receive_buffer=4096) as client:
        client.settimeout(0.2)
        end = time.monotonic() + 15
        ended = False
        while not ended and time.monotonic() < end:
            try:
                client.sendall(asked)
            except TimeoutError:  # both directions are full: the service waits for its reader
                continue
            except OSError:
                ended = True
        assert ended


def test_the_same_body_in_one_octet_at_a_time_means_the_same(trustee):
    body = json.dumps({"tee": "tdx"}).encode()
    head = (
        b"POST /challenge HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    with connected(trustee) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in head + body:
            client.send(bytes([octet]))
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
