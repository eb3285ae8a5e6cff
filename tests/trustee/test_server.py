from __future__ import annotations

import contextlib
import socket
import stat
import time

import httpx
import pytest

from tng.clock import FixedClock
from tng.endpoint import Endpoint
from tng.errors import StartError
from tng.trustee.server import MAX_CONNECTIONS, TrusteeSettings, dangers

NOW = 1_795_000_000


def _connect(trustee):
    host, port = trustee.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_a_restart_keeps_the_ca_the_signer_and_the_challenges(start, requests):
    first = start(allow_sample=True)
    chain = first.http.get("/certificate").content
    challenge = first.http.post("/challenge", json={}).json()["extra-params"]["jwt"]
    first.stop()
    second = start(FixedClock(NOW + 100), allow_sample=True)
    assert second.http.get("/certificate").content == chain
    requests.claims["challenge_token"] = challenge
    body = requests.listed("sample", requests.sample())
    assert second.http.post("/attestation", json=body).status_code == 200


def test_the_files_of_the_state_are_private(start):
    state = start().settings.state
    modes = {stat.S_IMODE(path.stat().st_mode) for path in state.rglob("*") if path.is_file()}
    assert modes == {0o600}


def test_a_second_service_on_one_state_directory_does_not_start(start):
    start()
    with pytest.raises(StartError, match="in use"):
        start()


def test_a_taken_port_is_a_start_error_and_frees_the_state(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match="cannot listen"):
            start(listen=Endpoint("127.0.0.1", port))
    start()


def test_an_ipv6_address_is_shown_in_brackets(start):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    trustee = start(listen=Endpoint("::1", 0))
    assert trustee.url.startswith("http://[::1]:")
    assert trustee.http.get("/status").status_code == 200


@pytest.mark.slow
def test_a_body_over_16_mib_is_refused_and_one_of_16_mib_is_read(start):
    trustee = start()
    headers = {"content-type": "application/json"}
    limit = 16 * 1024 * 1024
    over = trustee.http.post("/attestation", content=b" " * (limit + 1), headers=headers)
    assert over.status_code == 413
    assert over.json()["code"] == "AS.REQUEST.TOO_LARGE"
    whole = trustee.http.post("/attestation", content=b" " * limit, headers=headers)
    assert whole.status_code == 400


def test_a_chunked_body_is_bounded_as_well(start):
    def chunks():
        for _ in range(5):
            yield b" " * 16_384

    headers = {"content-type": "application/json"}
    answer = start().http.post("/challenge", content=chunks(), headers=headers)
    assert answer.status_code == 413


@pytest.mark.slow
def test_a_body_that_never_ends_is_given_up(start):
    with _connect(start(deadline_s=0.2)) as client:
        client.sendall(
            b"POST /attestation HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 1000\r\n\r\n{"
        )
        assert b" 408 " in client.recv(4096).split(b"\r\n")[0]


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"GET /status HTTP/1.1\r\nhost: x\r\n"])
def test_a_client_that_sends_no_whole_head_is_let_go(start, sent):
    with _connect(start(idle_s=0.3)) as client:
        client.sendall(sent)
        assert client.recv(1) == b""


def test_garbage_instead_of_http_is_answered_and_closed(start):
    with _connect(start()) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.")


@pytest.mark.slow
def test_clients_above_the_limit_are_closed_at_once(start):
    trustee = start()
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            stack.enter_context(_connect(trustee))
        extra = stack.enter_context(_connect(trustee))
        assert extra.recv(1) == b""
    assert _status_once_there_is_room(trustee) == 200


def _status_once_there_is_room(trustee):
    """The service hears one by one that the others have left; until then it refuses."""
    end = time.monotonic() + 10
    while True:
        try:
            return trustee.http.get("/status").status_code
        except httpx.TransportError:
            if time.monotonic() > end:
                raise


def test_every_dangerous_switch_is_named(tmp_path):
    harmless = TrusteeSettings(Endpoint("127.0.0.1", 1), tmp_path)
    assert dangers(harmless) == []
    assert dangers(TrusteeSettings(Endpoint("localhost", 1), tmp_path)) == []
    assert dangers(TrusteeSettings(Endpoint("::1", 1), tmp_path)) == []
    dangerous = TrusteeSettings(
        Endpoint("0.0.0.0", 1),
        tmp_path,
        simulated=tmp_path,
        allow_sample=True,
        allowed_tcb_status=frozenset({"UpToDate", "OutOfDate"}),
    )
    text = "\n".join(dangers(dangerous))
    for word in ("SIMULATED", "sample", "0.0.0.0:1", "OutOfDate"):
        assert word in text
    assert dangers(TrusteeSettings(Endpoint("host.example", 1), tmp_path)) != []


def test_the_dangers_are_logged_at_start(start, caplog):
    start(allow_sample=True)
    assert "anybody can make it" in caplog.text
