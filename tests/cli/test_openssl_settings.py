"""OpenSSL is loaded once per process, so every case is a process of its own."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import subprocess
import sys

import pytest
from OpenSSL import SSL

from stage.gateways import free_port, mapping
from stage.processes import launched
from tng.dataplane.tls_context import client_context

HANDSHAKE = """
import os
from tng.cli.openssl_settings import load_openssl
if {loads}:
    load_openssl()
from OpenSSL import SSL
from tng.attest.dummy import load_dummy
from tng.dataplane.tls_context import TlsCredential, client_context, server_context

client = SSL.Connection(client_context([b"rats-tls"], None), None)
server = SSL.Connection(server_context([b"rats-tls"], TlsCredential(*load_dummy()), False), None)
client.set_connect_state()
server.set_accept_state()

def step(one, other):
    try:
        one.do_handshake()
    except SSL.WantReadError:
        pass
    try:
        octets = one.bio_read(1 << 16)
    except SSL.WantReadError:
        return 0
    other.bio_write(octets)
    return len(octets)

step(client, server)  # ClientHello
step(server, client)  # to Finished
step(client, server)  # Finished
print(step(server, client), os.environ.get("OPENSSL_CONF", "unset"))
"""
"""Prints how many octets a server sends of itself after the handshake: tickets, nothing else."""


def run(*, loads: bool, **variables: str) -> tuple[int, str]:
    environment = {key: value for key, value in os.environ.items() if key != "OPENSSL_CONF"}
    result = subprocess.run(
        [sys.executable, "-c", HANDSHAKE.format(loads=loads)],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    octets, variable = result.stdout.split()
    return int(octets), variable


def test_a_server_sends_no_tickets_and_the_variable_is_gone_afterwards() -> None:
    assert run(loads=True) == (0, "unset")


def test_without_the_settings_a_server_sends_tickets() -> None:
    octets, _ = run(loads=False)
    assert octets > 0


@pytest.mark.parametrize("content", ["", "openssl_conf = nothing\n[nothing]\n"])
def test_an_operators_own_settings_count_and_stay(tmp_path: pathlib.Path, content: str) -> None:
    own = tmp_path / "openssl.cnf"
    own.write_text(content)
    octets, variable = run(loads=True, OPENSSL_CONF=str(own))
    assert octets > 0
    assert variable == str(own)


def test_the_first_thing_that_an_egress_sends_after_the_handshake_is_the_services(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENSSL_CONF", raising=False)
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as service:
        config = {"add_egress": [{**mapping(port, service.getsockname()[1]), "no_ra": True}]}
        with (
            launched(tmp_path, "egress", config, free_port()),
            socket.create_connection(("127.0.0.1", port), 10) as client,
        ):
            connection = SSL.Connection(client_context([b"rats-tls"], None), None)
            connection.set_connect_state()
            shake_hands(connection, client)
            accepted, _ = service.accept()
            with accepted:
                accepted.sendall(b"hello")
                connection.bio_write(receive_record(client))
                assert connection.recv(100) == b"hello"


def shake_hands(connection: SSL.Connection, client: socket.socket) -> None:
    is_done = False
    while not is_done:
        try:
            connection.do_handshake()
            is_done = True
        except SSL.WantReadError:
            pass
        with contextlib.suppress(SSL.WantReadError):
            client.sendall(connection.bio_read(1 << 16))
        if not is_done:
            connection.bio_write(receive_record(client))


def receive_record(client: socket.socket) -> bytes:
    head = client.recv(5, socket.MSG_WAITALL)
    return head + client.recv(int.from_bytes(head[3:]), socket.MSG_WAITALL)
