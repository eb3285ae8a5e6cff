"""Fetching a certificate from peers that do not give one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from stage.certificates import self_signed
from tng.cli.peer_certificate import fetch_certificate
from tng.endpoint import Endpoint
from tng.errors import NetError, RemoteProtocolError

Serve = Callable[[socket.socket], None]


@pytest.fixture
def served() -> Iterator[Callable[[Serve], Endpoint]]:
    """Serves one connection on a port of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def start(serve: Serve) -> Endpoint:
        def run() -> None:
            accepted, _ = listening.accept()
            with accepted:
                serve(accepted)

        threads.append(threading.Thread(target=run))
        threads[0].start()
        return Endpoint("127.0.0.1", listening.getsockname()[1])

    yield start
    for thread in threads:
        thread.join(10)
    listening.close()


def test_the_certificate_is_the_one_that_was_shown(served: Callable[[Serve], Endpoint]) -> None:
    key, certificate = self_signed()
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_privatekey(key)
    context.use_certificate(certificate)
    context.set_alpn_select_callback(lambda _, offered: offered[-1])

    def serve(plain: socket.socket) -> None:
        connection = SSL.Connection(context, plain)
        connection.set_accept_state()
        connection.do_handshake()

    assert fetch_certificate(served(serve)) == certificate.public_bytes(Encoding.DER)


@pytest.fixture
def done(served: Callable[[Serve], Endpoint]) -> Iterator[threading.Event]:
    """Set when the test is over, before anybody waits for the server."""
    event = threading.Event()
    yield event
    event.set()


def test_a_peer_that_says_nothing_is_given_up_on(
    served: Callable[[Serve], Endpoint], done: threading.Event
) -> None:
    endpoint = served(lambda _: done.wait(10) and None)
    with pytest.raises(NetError):
        fetch_certificate(endpoint, timeout_s=0.05)


def test_a_peer_that_speaks_octet_by_octet_is_given_up_on(
    served: Callable[[Serve], Endpoint], done: threading.Event
) -> None:
    def drip(plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            plain.sendall(b"\x16\x03\x03\x40\x00")
            while not done.wait(0.01):
                plain.sendall(b"\x02")

    endpoint = served(drip)
    with pytest.raises(NetError):
        fetch_certificate(endpoint, timeout_s=0.1)


def test_a_peer_that_ends_is_no_peer(served: Callable[[Serve], Endpoint]) -> None:
    with pytest.raises(RemoteProtocolError, match="ended"):
        fetch_certificate(served(lambda plain: plain.recv(4096) and None))


def test_a_peer_that_refuses_is_quoted(served: Callable[[Serve], Endpoint]) -> None:
    def alert(plain: socket.socket) -> None:
        plain.recv(4096)
        plain.sendall(b"\x15\x03\x03\x00\x02\x02\x78")

    with pytest.raises(RemoteProtocolError, match="no application protocol"):
        fetch_certificate(served(alert))


def test_nobody_there_is_a_network_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(NetError, match="refused"):
        fetch_certificate(Endpoint("127.0.0.1", port))
