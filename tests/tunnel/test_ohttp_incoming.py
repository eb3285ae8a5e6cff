"""The inside of an encapsulated request, however it is cut into pieces."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from stage.encapsulation import HOST, Encapsulated
from tng.dataplane.http_server import IncomingBody
from tng.tunnel.ohttp.incoming import IncomingRequest
from tng.tunnel.ohttp.problems import OhttpError
from tng.wire.bhttp_decoder import Content, End, Event
from tng.wire.http1_body import request_body
from tng.wire.http1_head import RequestHead
from tng.wire.ohttp_keys import ADVERTISED_SUITES, KeyConfig
from tng.wire.ohttp_response import response_nonce_size

T = TypeVar("T")
PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
CONFIG = KeyConfig(0, PRIVATE.public_key().public_bytes_raw(), ADVERTISED_SUITES)


def now(work: Coroutine[object, None, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    with pytest.raises(StopIteration) as end:
        work.send(None)
    return end.value.value


def incoming(pieces: list[bytes]) -> IncomingRequest:
    """A request whose outer body has come, in these pieces."""
    size = sum(map(len, pieces))
    reader = request_body(RequestHead(b"POST", b"/", b"1.1", [], size, is_chunked=False))
    for piece in pieces:
        reader.feed(piece)
    return IncomingRequest(IncomingBody(None, reader, pieces, expects_continue=False))


def read(pieces: list[bytes]) -> list[Event]:
    """All events of a request."""
    request = incoming(pieces)
    _, header = now(request.envelope())
    request.open(PRIVATE, CONFIG, None, b"n" * response_nonce_size(header.suite))
    events: list[Event] = [now(request.head())]
    events += request.read_nowait()
    while not request.is_whole:
        events += now(request.read())
    return events


def summary(events: list[Event]) -> tuple[object, bytes, object]:
    content = b"".join(event.data for event in events if isinstance(event, Content))
    assert isinstance(events[-1], End)
    return events[0], content, events[-1].trailers


def cut(body: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[begin:end] for begin, end in itertools.pairwise(at)]


def make_body() -> bytes:
    request = Encapsulated(CONFIG)
    parts = [request.begin, request.head(b"POST"), request.content(b"hello ")]
    parts += [request.content(b"world" * 100), request.end([(b"x-sum", b"1")])]
    return b"".join(parts)


@given(st.lists(st.integers(0, 2000), max_size=8))
def test_any_cut_gives_the_same_message(places: list[int]) -> None:
    head, content, trailers = summary(read(cut(make_body(), places)))
    assert (head.method, head.fields) == (b"POST", HOST)  # type: ignore[attr-defined]
    assert content == b"hello " + b"world" * 100
    assert trailers == [(b"x-sum", b"1")]


@given(st.integers(0, 2000), st.lists(st.integers(0, 2000), max_size=3))
def test_no_part_of_a_message_is_a_whole_one(length: int, places: list[int]) -> None:
    body = make_body()
    short = body[: length % len(body)]
    with pytest.raises(OhttpError):
        read(cut(short, places))


@given(st.integers(0, 2000), st.integers(1, 255))
def test_no_octet_can_be_another_one(at: int, change: int) -> None:
    body = bytearray(make_body())
    begin = len(Encapsulated(CONFIG).metadata)
    body[begin + at % (len(body) - begin)] ^= change
    with pytest.raises(OhttpError):
        read([bytes(body)])
