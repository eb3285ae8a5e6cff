"""Requests of HTTP/2 as heads of HTTP/1.1: each has one reading, or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import RemoteProtocolError
from tng.wire.h2_headers import Headers
from tng.wire.h2_requests import request_as_http1, request_trailers
from tng.wire.http1_head import parse_request_head

GET = (
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"model.example:8000"),
    (b":path", b"/v1/models?x=1"),
)


def with_more(*fields: tuple[bytes, bytes]) -> Headers:
    return (*GET, *fields)


def replaced(name: bytes, value: bytes) -> Headers:
    return tuple((name, value) if field[0] == name else field for field in GET)


def without(name: bytes) -> Headers:
    return tuple(field for field in GET if field[0] != name)


def test_a_request_reads_as_the_same_in_http1() -> None:
    headers = with_more((b"accept", b"*/*"), (b"te", b"trailers"))
    request = request_as_http1(headers, ends=True)
    head = parse_request_head(request.head)
    assert (head.method, head.target, head.version) == (b"GET", b"/v1/models?x=1", b"1.1")
    assert head.fields == [
        (b"host", b"model.example:8000"),
        (b"accept", b"*/*"),
        (b"te", b"trailers"),
    ]
    assert request.length == 0


def test_a_body_without_a_length_comes_in_chunks_and_one_with_a_length_does_not() -> None:
    chunked = request_as_http1(GET, ends=False)
    assert parse_request_head(chunked.head).is_chunked
    assert chunked.length is None
    sized = request_as_http1(with_more((b"content-length", b"5")), ends=False)
    assert parse_request_head(sized.head).content_length == sized.length == 5


def test_crumbs_of_a_cookie_are_put_together() -> None:
    head = request_as_http1(with_more((b"cookie", b"a=1"), (b"cookie", b"b=2")), ends=True).head
    assert parse_request_head(head).fields[-1] == (b"cookie", b"a=1; b=2")


def test_the_host_field_stands_in_for_a_missing_authority() -> None:
    headers = (*without(b":authority"), (b"host", b"h"))
    assert parse_request_head(request_as_http1(headers, ends=True).head).fields == [(b"host", b"h")]
    same = with_more((b"host", b"model.example:8000"))
    assert request_as_http1(same, ends=True).head.count(b"host") == 1


def test_an_asterisk_is_a_target_of_options_alone() -> None:
    headers = ((b":method", b"OPTIONS"), (b":scheme", b"http"), (b":path", b"*"))
    assert request_as_http1(headers, ends=True).head.startswith(b"OPTIONS * HTTP/1.1\r\n")
    with pytest.raises(RemoteProtocolError, match="path"):
        request_as_http1(replaced(b":path", b"*"), ends=True)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        without(b":method"),
        without(b":scheme"),
        without(b":path"),
        with_more((b":path", b"/other")),
        with_more((b":protocol", b"websocket")),
        with_more((b"a", b"b"), (b":authority", b"late")),
        ((b"a", b"b"), *GET),
        replaced(b":path", b""),
        replaced(b":path", b"secret"),
        replaced(b":path", b"http://other.example/"),
        replaced(b":path", b"/a b"),
        replaced(b":path", b"/a\r\nx: y"),
        replaced(b":scheme", b"ftp"),
        replaced(b":method", b"CONNECT"),
        replaced(b":method", b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\nGET"),
        replaced(b":method", b""),
        replaced(b":authority", b"a\r\nx: y"),
        with_more((b"host", b"other.example")),
        with_more((b"connection", b"close")),
        with_more((b"transfer-encoding", b"chunked")),
        with_more((b"upgrade", b"websocket")),
        with_more((b"keep-alive", b"1")),
        with_more((b"proxy-connection", b"close")),
        with_more((b"te", b"gzip")),
        with_more((b"Accept", b"a")),
        with_more((b"a", b" b")),
        with_more((b"a", b"b\t")),
        with_more((b"a", b"b\nc: d")),
        with_more((b"a", b"b\0")),
        with_more((b"a: b\r\nc", b"d")),
        with_more((b"", b"a")),
        with_more((b"content-length", b"5")),
        with_more((b"content-length", b"x")),
        with_more((b"content-length", b"0"), (b"content-length", b"0")),
    ],
)
def test_what_could_be_read_otherwise_is_malformed(headers: Headers) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        request_as_http1(headers, ends=True)
    assert "secret" not in str(caught.value)


def test_trailers_are_fields_and_nothing_else() -> None:
    assert request_trailers(((b"x-sum", b"1"),)) == [(b"x-sum", b"1")]


@pytest.mark.parametrize(
    "field",
    [
        (b":path", b"/"),
        (b"content-length", b"1"),
        (b"host", b"h"),
        (b"transfer-encoding", b"chunked"),
        (b"X-Sum", b"1"),
        (b"x-sum", b"1\r\n\r\nGET / HTTP/1.1"),
    ],
)
def test_trailers_neither_frame_nor_route(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        request_trailers((field,))


_PIECES = st.sampled_from([b"/", b"a", b"\r\n", b" ", b":", b"\0", b"%", b"host", b"A", b"\xff"])
_TEXT = st.lists(_PIECES, max_size=4).map(b"".join)


@given(st.lists(st.tuples(st.one_of(_TEXT, st.sampled_from([n for n, _ in GET])), _TEXT)))
def test_garbage_is_malformed_or_one_head(fields: list[tuple[bytes, bytes]]) -> None:
    try:
        head = request_as_http1((*GET[:2], *fields), ends=True).head
    except RemoteProtocolError:
        return
    assert head.count(b"\r\n\r\n") == 1
    assert head.endswith(b"\r\n\r\n")
