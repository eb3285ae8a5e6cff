"""Dialling: the first address that answers, or an error that names the last."""

from __future__ import annotations

import pathlib
import socket

import pytest

from tng.dataplane.dial import connect_socket, dial
from tng.errors import NetError


def refused_address():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return (socket.AF_INET, sock.getsockname())


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def silent_address():
    """An address whose queue is full, so that connecting to it does not come to an end."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
            fillers.append(filler)
        yield (socket.AF_INET, sock.getsockname())
        for filler in fillers:
            filler.close()


# To the system 0.0.0.0 is this machine as well, but nothing here says so.
@pytest.mark.parametrize(
    ("host", "probes"),
    [("0.0.0.0", [1, 10, 10, 3]), ("127.0.0.1", [0])],
    ids=["elsewhere", "on this machine, whose system tells of every end"],
)
def test_an_end_comes_out_with_the_socket_options_of_the_project(
    reactor, run, server, host, probes
):
    async def talk():
        end = await dial(reactor, [(socket.AF_INET, (host, server.getsockname()[1]))], 5)
        sock = end._sock
        options = [
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
            sock.getblocking(),
        ]
        await end.send(b"x")
        end.close()
        return options

    options = run(reactor, talk)
    assert options[4:] == [1, False]
    assert options[0] == probes[0]
    if probes[0]:  # else the system's own values, whatever they are
        assert options[:4] == probes
    accepted, _ = server.accept()
    with accepted:
        assert accepted.recv(2) == b"x"


def test_the_second_address_is_used_when_the_first_refuses(reactor, run, server):
    good = (socket.AF_INET, server.getsockname())

    async def talk():
        with await connect_socket(reactor, [refused_address(), good], 5) as sock:
            return sock.getpeername()

    assert run(reactor, talk) == server.getsockname()


def test_a_silent_first_address_leaves_time_for_the_second(reactor, run, server, silent_address):
    good = (socket.AF_INET, server.getsockname())

    async def talk():
        with await connect_socket(reactor, [silent_address, good], 0.1) as sock:
            return sock.getpeername()

    assert run(reactor, talk) == server.getsockname()


def test_refusal_and_silence_name_the_address_and_leak_nothing(reactor, run, silent_address):
    refused = refused_address()
    before = descriptors()
    with pytest.raises(NetError, match=rf"127.0.0.1:{refused[1][1]}: Connection refused"):
        run(reactor, connect_socket, reactor, [refused], 5)
    port = silent_address[1][1]
    with pytest.raises(NetError, match=rf"127.0.0.1:{port}: no answer in 0.02 s"):
        run(reactor, connect_socket, reactor, [silent_address], 0.02)
    assert descriptors() == before


def test_cancelling_closes_the_socket(reactor, run, silent_address):
    before = descriptors()

    async def talk():
        with reactor.deadline(0.02, lambda: NetError("outer limit")):
            await connect_socket(reactor, [silent_address], 60)

    with pytest.raises(NetError, match="outer limit"):
        run(reactor, talk)
    assert descriptors() == before


def test_no_address_a_wrong_family_and_a_wrong_kind_are_errors_too(reactor, run):
    with pytest.raises(NetError, match="no address"):
        run(reactor, connect_socket, reactor, [], 5)
    with pytest.raises(NetError, match=r"cannot connect to 127\.0\.0\.1:9"):
        run(reactor, connect_socket, reactor, [(9999, ("127.0.0.1", 9))], 5)
    with pytest.raises(NetError, match=r"cannot connect to 255\.255\.255\.255:9"):
        run(reactor, connect_socket, reactor, [(socket.AF_INET, ("255.255.255.255", 9))], 5)


def test_a_mark_is_set_or_its_refusal_is_told(reactor, run, server):
    """SO_MARK needs CAP_NET_ADMIN."""

    async def talk():
        address = (socket.AF_INET, server.getsockname())
        with await connect_socket(reactor, [address], 5, mark=565) as sock:
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)

    try:
        assert run(reactor, talk) == 565
    except NetError as error:
        assert "not permitted" in str(error)  # noqa: PT017 - which of both depends on the user


def descriptors():
    return len(list(pathlib.Path("/proc/self/fd").iterdir()))
