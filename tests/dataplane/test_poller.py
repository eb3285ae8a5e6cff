"""Both pollers behave alike."""

from __future__ import annotations

import selectors
import socket

import pytest

from tng.dataplane.poller import (
    ERROR,
    HANG_UP,
    READ,
    WRITE,
    EpollPoller,
    Poller,
    SelectorsPoller,
    make_poller,
)


@pytest.fixture(params=["epoll", "selectors", "poll"])
def poller(request):
    made: Poller = {
        "epoll": EpollPoller,
        "selectors": SelectorsPoller,
        "poll": lambda: SelectorsPoller(selectors.PollSelector()),
    }[request.param]()
    yield made
    made.close()


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_events_are_reported_until_they_are_dealt_with(poller, pair):
    near, far = pair
    poller.register(near.fileno(), READ)
    assert list(poller.poll(0)) == []
    far.send(b"x")
    assert list(poller.poll(1)) == [(near.fileno(), READ)]
    assert list(poller.poll(1)) == [(near.fileno(), READ)]
    near.recv(1)
    assert list(poller.poll(0)) == []


def test_interest_can_be_nothing_and_come_back(poller, pair):
    near, far = pair
    far.send(b"x")
    poller.register(near.fileno(), 0)
    poller.modify(near.fileno(), 0)
    assert list(poller.poll(0)) == []
    poller.modify(near.fileno(), READ | WRITE)
    assert list(poller.poll(1)) == [(near.fileno(), READ | WRITE)]
    poller.modify(near.fileno(), WRITE)
    assert list(poller.poll(1)) == [(near.fileno(), WRITE)]
    poller.modify(near.fileno(), 0)
    assert list(poller.poll(0)) == []


def test_a_hang_up_is_reported_to_a_reader(poller, pair):
    near, far = pair
    poller.register(near.fileno(), READ)
    far.close()
    [(fd, events)] = poller.poll(-1)
    assert fd == near.fileno()
    assert events & (READ | ERROR)


def test_unregistering_what_is_closed_or_unknown_is_no_error(poller, pair):
    near, _ = pair
    fd = near.fileno()
    poller.unregister(fd)
    poller.register(fd, READ)
    near.close()
    poller.unregister(fd)
    assert list(poller.poll(0)) == []


def test_the_platform_gets_its_best():
    poller = make_poller()
    assert isinstance(poller, EpollPoller)
    poller.close()


def test_a_forgotten_descriptor_may_be_closed_and_its_number_used_again(poller):
    near, far = socket.socketpair()
    with far:
        number = near.fileno()
        poller.register(number, READ)
        poller.forget(number)
        near.close()
        far.close()
        assert list(poller.poll(0)) == []
        again, other = socket.socketpair()
        with again, other:
            other.send(b"x")
            poller.register(again.fileno(), READ)
            assert [fd for fd, _ in poller.poll(1)] == [again.fileno()]


def test_the_end_of_the_peer_is_told_beside_its_last_octets():
    poller = EpollPoller()
    near, far = socket.socketpair()
    with near, far:
        poller.register(near.fileno(), READ)
        far.send(b"x")
        assert list(poller.poll(1)) == [(near.fileno(), READ)]
        far.shutdown(socket.SHUT_WR)
        assert list(poller.poll(1)) == [(near.fileno(), READ | HANG_UP)]
        poller.modify(near.fileno(), 0)
        assert list(poller.poll(0)) == []
    poller.close()
