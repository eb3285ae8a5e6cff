"""OpenSSL is loaded once per process, so every case is a process of its own."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pathlib
import socket
import subprocess
import sys

import pytest
from OpenSSL import SSL

from stage.gateways import free_port, mapping
from stage.processes import launched
from tng.cli.openssl_settings import has_own_copy
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
import ssl
interpreters = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
print(step(server, client), interpreters.num_tickets, os.environ.get("OPENSSL_CONF", "unset"))
"""
"""Prints how many octets a server sends of itself after the handshake, which are those of tickets,
and how many tickets a server of the interpreter's own OpenSSL sends."""

DEFAULT_TICKETS = 2

with_own_copy = pytest.mark.skipif(
    not has_own_copy(importlib.metadata.distribution("cryptography").read_text("WHEEL")),
    reason="this cryptography is linked with the system's OpenSSL, whose settings are the system's",
)


def run(*, loads: bool, **variables: str) -> tuple[int, int, str]:
    environment = {key: value for key, value in os.environ.items() if key != "OPENSSL_CONF"}
    result = subprocess.run(
        [sys.executable, "-c", HANDSHAKE.format(loads=loads)],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    octets, tickets, variable = result.stdout.split()
    return int(octets), int(tickets), variable


@with_own_copy
def test_our_servers_alone_send_no_tickets_and_the_variable_is_gone_afterwards() -> None:
    assert run(loads=True) == (0, DEFAULT_TICKETS, "unset")


def test_without_the_settings_a_server_sends_tickets() -> None:
    octets, tickets, _ = run(loads=False)
    assert octets > 0
    assert tickets == DEFAULT_TICKETS


@pytest.mark.parametrize("content", ["", "openssl_conf = nothing\n[nothing]\n"])
def test_an_operators_own_settings_count_and_stay(tmp_path: pathlib.Path, content: str) -> None:
    own = tmp_path / "openssl.cnf"
    own.write_text(content)
    octets, _, variable = run(loads=True, OPENSSL_CONF=str(own))
    assert octets > 0
    assert variable == str(own)


@pytest.mark.parametrize(
    ("wheel", "expected"),
    [
        ("Wheel-Version: 1.0\nTag: cp311-abi3-manylinux_2_34_x86_64\n", True),
        ("Tag: cp311-abi3-musllinux_1_2_aarch64\n", True),
        ("Tag: cp311-abi3-macosx_10_12_universal2\n", True),
        ("Tag: cp311-abi3-linux_x86_64\n", False),
        ("Tag: cp311-abi3-manylinux_2_34_x86_64\nTag: cp311-abi3-linux_x86_64\n", False),
        ("Wheel-Version: 1.0\n", False),
        ("", False),
        (None, False),
    ],
)
def test_an_openssl_of_the_system_keeps_the_systems_settings(
    wheel: str | None, expected: bool
) -> None:
    assert has_own_copy(wheel) is expected


@with_own_copy
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
