"""Listeners: a task for each connection, and patience when resources run out."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tng.dataplane.listener import (
    ACCEPTS_PER_TURN,
    PAUSE_S,
    Listener,
    make_listening_socket,
)
from tng.dataplane.task import Wait
from tng.errors import StartError


async def pause(reactor, seconds=0.0):
    wait = Wait()
    reactor.call_later(seconds, wait.set, None)
    await wait


async def greet(sock, address):
    with sock:
        sock.send(f"hello {address[1]}".encode())


async def open_listener(reactor, sock):
    return Listener(reactor, sock, greet, "greeter")


def test_every_connection_gets_its_own_task(reactor, run):
    sock = make_listening_socket("127.0.0.1", 0)
    address = sock.getsockname()
    listener = run(reactor, open_listener, reactor, sock)
    clients = [socket.create_connection(address, timeout=5) for _ in range(100)]
    for client in clients:
        assert client.recv(100) == f"hello {client.getsockname()[1]}".encode()
        client.close()
    reactor.call(listener.close)
    reactor.call(listener.close)
    run(reactor, pause, reactor)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_stopping_the_reactor_closes_the_listener(reactor, run):
    sock = make_listening_socket("127.0.0.1", 0)
    run(reactor, open_listener, reactor, sock)
    reactor.stop(5)
    assert sock.fileno() == -1


def test_nothing_is_accepted_while_stopping(reactor, run):
    sock = make_listening_socket("127.0.0.1", 0)
    served = []

    async def serve(sock, address):
        served.append(address)
        sock.close()

    async def open_it():
        return Listener(reactor, sock, serve, "name")

    listener = run(reactor, open_it)

    async def talk():
        reactor.is_stopping = True
        client = socket.create_connection(sock.getsockname(), timeout=5)
        with client:
            listener._on_event(1)
            assert client.recv(1) == b""
        reactor.is_stopping = False

    run(reactor, talk)
    assert not served


class ShortSocket(socket.socket):
    """A listening socket that fails as often as it is told to."""

    failures: list[int]

    def _accept(self):
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, os.strerror(number))
        return super()._accept()


def short_socket(failures):
    sock = ShortSocket()
    sock.failures = failures
    sock.bind(("127.0.0.1", 0))
    sock.listen(5)
    return sock


class Queue(socket.socket):
    """A listening socket whose queue the test fills."""

    waiting = 0
    asked = 0

    def _accept(self):
        self.asked += 1
        if not self.waiting:
            raise BlockingIOError
        self.waiting -= 1
        return socket.socket().detach(), ("192.0.2.1", 1)


def test_as_many_are_accepted_at_once_as_came_together_lately(reactor, run):
    async def serve(sock, address):
        sock.close()

    async def talk():
        queue = Queue()
        queue.bind(("127.0.0.1", 0))
        listener = Listener(reactor, queue, serve, "name")
        asked = []
        for waiting in (1, 1, 1, 1, 1000, *[0] * 20):
            queue.waiting += waiting
            before = queue.asked
            listener._on_event(1)
            asked.append(queue.asked - before)
        left = queue.waiting
        queue.waiting = 0
        listener._on_event(1)  # nobody is left
        queue.waiting = 100
        before = queue.asked
        listener._on_event(1)
        listener.close()
        return asked, left, queue.asked - before

    asked, left, afterwards = run(reactor, talk)
    assert asked[:5] == [1, 1, 1, 2, 1]  # asking in vain brings it down to what there was
    assert max(asked) == asked[-1] == ACCEPTS_PER_TURN
    assert left < 1000 - 3 * ACCEPTS_PER_TURN
    assert afterwards == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_running_out_of_descriptors_pauses_and_is_logged_once(reactor, run, caplog, number):
    sock = short_socket([number, number])
    run(reactor, open_listener, reactor, sock)
    with socket.create_connection(sock.getsockname(), timeout=5) as client:
        assert client.recv(100).startswith(b"hello")
    assert caplog.text.count("accepting pauses") == 1
    assert PAUSE_S == 0.1


def test_closing_while_accepting_is_paused_is_fine(reactor, run):
    sock = short_socket([errno.EMFILE] * 100)
    listener = run(reactor, open_listener, reactor, sock)
    with socket.create_connection(sock.getsockname(), timeout=5):
        run(reactor, pause, reactor, 0.03)
        assert listener._pause is not None
        reactor.call(listener.close)
        run(reactor, pause, reactor, 0.12)


def test_a_peer_that_gave_up_does_not_stop_the_others(reactor, run):
    sock = short_socket([errno.ECONNABORTED, errno.EPROTO])
    run(reactor, open_listener, reactor, sock)
    with socket.create_connection(sock.getsockname(), timeout=5) as client:
        assert client.recv(100).startswith(b"hello")


def test_accepted_sockets_inherit_the_keepalive_settings(reactor, run):
    seen = Wait()

    async def serve(sock, address):
        with sock:
            seen.set(
                [
                    sock.getblocking(),
                    sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                ]
            )

    async def talk():
        sock = make_listening_socket("127.0.0.1", 0)
        listener = Listener(reactor, sock, serve, "name")
        with socket.create_connection(sock.getsockname(), timeout=5):
            options = await seen
        listener.close()
        return options

    assert run(reactor, talk) == [False, 1, 10, 10, 3]


def test_a_port_in_use_is_named_with_what_to_do():
    with make_listening_socket("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(StartError, match=rf"127.0.0.1:{port}: Address already in use; stop"):
            make_listening_socket("127.0.0.1", port)


def test_a_port_may_be_shared_if_both_ask_for_it():
    with make_listening_socket("127.0.0.1", 0, reuse_port=True) as sock:
        port = sock.getsockname()[1]
        with make_listening_socket("127.0.0.1", port, reuse_port=True) as other:
            assert other.getsockname()[1] == port


@pytest.mark.parametrize(
    ("host", "text"),
    [("192.0.2.1", r"192.0.2.1:0: .*no interface"), ("no such host", r"cannot listen on")],
)
def test_an_address_that_is_not_ours_is_a_start_error(host, text):
    with pytest.raises(StartError, match=text):
        make_listening_socket(host, 0)


def test_ipv6_and_names_can_be_listened_on():
    with make_listening_socket("localhost", 0) as sock:
        assert sock.getsockname()[1] > 0
