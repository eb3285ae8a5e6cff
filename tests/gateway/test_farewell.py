"""How clients are left that cannot be served."""

from __future__ import annotations

import socket
import time

import pytest

from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.gateway import farewell
from tng.gateway.farewell import leave_without_words


@pytest.fixture
def reactor():
    reactor = Reactor()
    reactor.start()
    yield reactor
    reactor.stop(timeout_s=5)


@pytest.fixture
def connected():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=5)
        accepted, _ = listener.accept()
        with client:
            yield client, accepted


def leave(reactor: Reactor, accepted: socket.socket):
    async def talk() -> None:
        await leave_without_words(reactor, PlainEnd(reactor, accepted))

    return reactor.spawn_threadsafe(talk(), "leaving")


def test_a_client_is_reset_where_it_reads_and_not_where_it_sends(reactor, connected) -> None:
    client, accepted = connected
    leaving = leave(reactor, accepted)
    time.sleep(0.05)  # a client that is slow to speak
    assert not leaving.done()
    client.sendall(b"hello")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    leaving.result(5)


def test_a_client_that_says_nothing_is_reset_all_the_same(
    reactor, connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewell, "_SPEAK_S", 0.02)
    client, accepted = connected
    leave(reactor, accepted).result(5)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_client_that_goes_away_meanwhile_is_let_go(reactor, connected) -> None:
    client, accepted = connected
    leaving = leave(reactor, accepted)
    client.close()
    leaving.result(5)
    assert accepted.fileno() == -1
