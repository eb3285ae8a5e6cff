"""HTTP/1 heads: what has one reading is read, everything else is refused, nothing is injected."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tng.errors import LocalProtocolError, RemoteProtocolError, RequestRejectedError
from tng.wire.http1_head import (
    MAX_FIELDS,
    MAX_HEAD_SIZE,
    Field,
    dump_fields,
    dump_request_head,
    dump_response_head,
    find_head_end,
    is_persistent,
    parse_content_length,
    parse_request_head,
    parse_response_head,
    parse_trailers,
)

REQUEST = (
    b"POST /v1/chat/completions?x=1 HTTP/1.1\r\n"
    b"Host: 127.0.0.1:27241\r\n"
    b"X-Empty:\r\n"
    b"x-blanks: \t a  b\t \r\n"
    b"X-Latin: caf\xe9\r\n"
    b"Content-Length: 57\r\n\r\n"
)
RESPONSE = b"HTTP/1.1 200 OK\r\nServer: s\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\n"


def request(*lines: bytes, first: bytes = b"POST / HTTP/1.1") -> bytes:
    return b"\r\n".join([first, *lines]) + b"\r\n\r\n"


def response(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return request(*lines, first=first)


class TestRequests:
    def test_the_parts_of_a_request_are_read(self) -> None:
        head = parse_request_head(REQUEST)
        assert (head.method, head.target, head.version) == (
            b"POST",
            b"/v1/chat/completions?x=1",
            b"1.1",
        )
        assert head.fields == [
            (b"host", b"127.0.0.1:27241"),
            (b"x-empty", b""),
            (b"x-blanks", b"a  b"),
            (b"x-latin", b"caf\xe9"),
            (b"content-length", b"57"),
        ]
        assert (head.content_length, head.is_chunked) == (57, False)

    def test_a_body_in_chunks_is_noticed_in_any_case_of_letters(self) -> None:
        head = parse_request_head(request(b"Host: h", b"Transfer-Encoding: Chunked"))
        assert (head.content_length, head.is_chunked) == (None, True)

    def test_an_older_client_needs_no_host_field(self) -> None:
        head = parse_request_head(request(first=b"GET / HTTP/1.0"))
        assert (head.version, head.fields, head.content_length) == (b"1.0", [], None)

    def test_the_host_field_can_be_left_to_the_caller(self) -> None:
        assert parse_request_head(request(), needs_host=False).fields == []

    @pytest.mark.parametrize("host", [b"", b"h", b"h:80", b"[::1]:80", b"xn--a.b-c_d"])
    def test_hosts_of_every_shape_are_accepted(self, host: bytes) -> None:
        assert parse_request_head(request(b"Host: " + host)).fields == [(b"host", host)]

    def test_as_many_fields_as_allowed_are_read_but_not_one_more(self) -> None:
        lines = [b"Host: h"] + [b"a: b"] * (MAX_FIELDS - 1)
        assert len(parse_request_head(request(*lines)).fields) == MAX_FIELDS
        with pytest.raises(RequestRejectedError) as caught:
            parse_request_head(request(*lines, b"a: b"))
        assert caught.value.http_status == 431

    def test_a_head_of_the_full_size_is_read_but_not_an_octet_more(self) -> None:
        empty = request(b"Host: h", b"a: ")
        full = request(b"Host: h", b"a: " + b"b" * (MAX_HEAD_SIZE - len(empty)))
        assert len(full) == MAX_HEAD_SIZE
        parse_request_head(full)
        with pytest.raises(RequestRejectedError) as caught:
            parse_request_head(full.replace(b"bb", b"bbb", 1))
        assert caught.value.http_status == 431

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            (b"", 400),
            (b"\r\n\r\n", 400),
            (b"\r\n" + request(b"Host: h"), 400),
            (REQUEST[:-2], 400),
            (REQUEST[:-1], 400),
            (REQUEST + b"x", 400),
            (REQUEST + REQUEST, 400),
            # the request line
            (request(b"Host: h", first=b"GET /"), 400),
            (request(b"Host: h", first=b"GET  / HTTP/1.1"), 400),
            (request(b"Host: h", first=b"GET / HTTP/1.1 "), 400),
            (request(b"Host: h", first=b" GET / HTTP/1.1"), 400),
            (request(b"Host: h", first=b"GET\t/ HTTP/1.1"), 400),
            (request(b"Host: h", first=b"GET /a b HTTP/1.1"), 400),
            (request(b"Host: h", first=b"GET /a\x00 HTTP/1.1"), 400),
            (request(b"Host: h", first=b"GET /\xc3\xa9 HTTP/1.1"), 400),
            (request(b"Host: h", first=b"G(T / HTTP/1.1"), 400),
            (request(b"Host: h", first=b"GET / http/1.1"), 400),
            (request(b"Host: h", first=b"GET / HTTP/1.11"), 400),
            (request(b"Host: h", first=b"GET / HTTP/0.9"), 505),
            (request(b"Host: h", first=b"GET / HTTP/1.2"), 505),
            (request(b"Host: h", first=b"GET / HTTP/2"), 505),
            (request(b"Host: h", first=b"GET / HTTP/3.0"), 505),
            (b"PRI * HTTP/2.0\r\n\r\n", 505),
            # line ends
            (b"GET / HTTP/1.1\nHost: h\n\n", 400),
            (b"GET / HTTP/1.1\nHost: h\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: h\r\n\n", 400),
            (b"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", 400),
            # field lines
            (request(b"Host: h", b"X : y"), 400),
            (request(b"Host: h", b" X: y"), 400),
            (request(b"Host: h", b"X: y", b" folded"), 400),
            (request(b"Host: h", b"X: y", b"\tfolded"), 400),
            (request(b" Host: h"), 400),
            (request(b"Host: h", b": y"), 400),
            (request(b"Host: h", b"X"), 400),
            (request(b"Host: h", b"X Y: z"), 400),
            (request(b"Host: h", b"X\x00: y"), 400),
            (request(b"Host: h", b"X\x0b: y"), 400),
            (request(b"Host: h", b"X\xe9: y"), 400),
            (request(b"Host: h", b"X: a\x00b"), 400),
            (request(b"Host: h", b"X: a\x01b"), 400),
            (request(b"Host: h", b"X: a\x0bb"), 400),
            (request(b"Host: h", b"X: a\x7fb"), 400),
            (request(b"Host: h", b"", b"X: y"), 400),
            # hosts
            (request(), 400),
            (request(b"Hosts: h"), 400),
            (request(b"Host: h", b"Host: h"), 400),
            (request(b"Host: h", b"hOST: i", first=b"GET / HTTP/1.0"), 400),
            (request(b"Host: a b"), 400),
            (request(b"Host: a/b"), 400),
            (request(b"Host: u@h"), 400),
            (request(b"Host: caf\xe9"), 400),
            # framing
            (request(b"Host: h", b"Content-Length:"), 400),
            (request(b"Host: h", b"Content-Length: -1"), 400),
            (request(b"Host: h", b"Content-Length: +5"), 400),
            (request(b"Host: h", b"Content-Length: 5 5"), 400),
            (request(b"Host: h", b"Content-Length: 5, 5"), 400),
            (request(b"Host: h", b"Content-Length: 0x5"), 400),
            (request(b"Host: h", b"Content-Length: 5_0"), 400),
            (request(b"Host: h", b"Content-Length: \xb2"), 400),
            (request(b"Host: h", b"Content-Length: " + b"1" * 19), 400),
            (request(b"Host: h", b"Content-Length: 5", b"Content-Length: 5"), 400),
            (request(b"Host: h", b"Content-Length: 5", b"content-length: 6"), 400),
            (request(b"Host: h", b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
            (request(b"Host: h", b"Transfer-Encoding: chunked", b"Content-Length: 5"), 400),
            (request(b"Host: h", b"Transfer-Encoding: gzip", b"Content-Length: 5"), 400),
            (request(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0"), 400),
            (request(b"Host: h", b"Transfer-Encoding: gzip"), 501),
            (request(b"Host: h", b"Transfer-Encoding: gzip, chunked"), 501),
            (request(b"Host: h", b"Transfer-Encoding: chunked, chunked"), 501),
            (request(b"Host: h", b"Transfer-Encoding: chunked;q=1"), 501),
            (request(b"Host: h", b"Transfer-Encoding: xchunked"), 501),
            (request(b"Host: h", b"Transfer-Encoding: identity"), 501),
            (request(b"Host: h", b"Transfer-Encoding:"), 501),
            (request(b"Host: h", b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"), 501),
        ],
    )
    def test_what_is_no_head_or_has_two_readings_is_refused(self, head: bytes, status: int) -> None:
        with pytest.raises(RequestRejectedError) as caught:
            parse_request_head(head)
        assert caught.value.http_status == status

    def test_a_client_that_begins_http_2_is_told_so(self) -> None:
        with pytest.raises(RequestRejectedError, match="HTTP/2"):
            parse_request_head(b"PRI * HTTP/2.0\r\n\r\n")

    def test_an_error_names_the_line_and_quotes_nothing(self) -> None:
        with pytest.raises(RequestRejectedError) as caught:
            parse_request_head(request(b"Host: h", b"Authorization : secret"))
        assert str(caught.value) == "line 3 of the head is no header field"

    @pytest.mark.parametrize(
        "lines", [b"a" * 65000, b"a:b\n" * 16000, b"a" + b" a" * 32000 + b"\x00", b"\n" * 65000]
    )
    def test_garbage_of_the_full_size_is_refused_in_linear_time(self, lines: bytes) -> None:
        with pytest.raises(RequestRejectedError):
            parse_request_head(request(b"Host: h", lines))


class TestResponses:
    def test_the_parts_of_a_response_are_read(self) -> None:
        head = parse_response_head(RESPONSE)
        assert (head.status, head.version, head.content_length, head.is_chunked) == (
            200,
            b"1.1",
            None,
            False,
        )
        assert head.fields == [(b"server", b"s"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]

    @pytest.mark.parametrize(
        ("first", "status"),
        [
            (b"HTTP/1.1 204", 204),
            (b"HTTP/1.1 204 ", 204),
            (b"HTTP/1.0 404 Not \xe9 Found", 404),
            (b"HTTP/1.1 599 x", 599),
            (b"HTTP/1.1 100 Continue", 100),
        ],
    )
    def test_any_reason_phrase_or_none_will_do(self, first: bytes, status: int) -> None:
        assert parse_response_head(response(first=first)).status == status

    def test_the_framing_is_read(self) -> None:
        assert parse_response_head(response(b"Content-Length: 007")).content_length == 7
        assert parse_response_head(response(b"transfer-encoding: CHUNKED")).is_chunked

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            RESPONSE[:-2],
            RESPONSE + b"x",
            REQUEST,
            response(first=b"HTTP/1.1 20 OK"),
            response(first=b"HTTP/1.1 2000 OK"),
            response(first=b"HTTP/1.1  200 OK"),
            response(first=b"HTTP/1.1 200OK"),
            response(first=b"HTTP/1.1 099 x"),
            response(first=b"HTTP/1.1 600 x"),
            response(first=b"HTTP/1.2 200 OK"),
            response(first=b"HTTP/2 200 OK"),
            response(first=b"HTTP/1.1 200 O\x00K"),
            response(first=b"HTTP/1.1 200 O\rK"),
            b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
            response(b"A : b"),
            response(b"A: b", b" c"),
            response(b"Content-Length: 5", b"Content-Length: 5"),
            response(b"Content-Length: five"),
            response(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            response(b"Transfer-Encoding: gzip"),
            response(b"Transfer-Encoding: chunked", first=b"HTTP/1.0 200 OK"),
            response(*[b"a: b"] * (MAX_FIELDS + 1)),
            response(b"a: " + b"b" * MAX_HEAD_SIZE),
        ],
    )
    def test_what_is_no_head_or_has_two_readings_is_refused(self, head: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            parse_response_head(head)


class TestFindingTheEnd:
    def test_the_end_is_found_however_the_head_is_cut(self) -> None:
        data = REQUEST + b"body\r\n\r\n"
        buffer = bytearray()
        for size in range(len(data)):
            start = max(0, len(buffer) - 3)
            buffer += data[size : size + 1]
            expected = len(REQUEST) if len(buffer) >= len(REQUEST) else -1
            assert find_head_end(buffer) == expected
            if size < len(REQUEST):
                assert find_head_end(buffer, start) == expected

    def test_nothing_yet_is_not_the_end(self) -> None:
        assert find_head_end(b"") == -1

    @pytest.mark.parametrize(
        "data", [b"\x16\x03\x01", b"\r\nGET", b" ", b"\x00", b"GET / HTTP/1.1\n", b"GET\nx\r\nx"]
    )
    def test_what_can_become_no_head_is_not_waited_for(self, data: bytes) -> None:
        assert find_head_end(data) == len(data)
        with pytest.raises(RequestRejectedError):
            parse_request_head(data)
        with pytest.raises(RemoteProtocolError):
            parse_response_head(data)

    @given(st.binary(max_size=64))
    def test_a_head_that_is_not_waited_for_is_refused(self, data: bytes) -> None:
        if find_head_end(data) == len(data) and not data.endswith(b"\r\n\r\n"):
            with pytest.raises(RequestRejectedError):
                parse_request_head(data)


class TestPersistence:
    @pytest.mark.parametrize(
        ("first", "lines", "persistent"),
        [
            (b"GET / HTTP/1.1", [], True),
            (b"GET / HTTP/1.1", [b"Connection: x,  Keep-Alive"], True),
            (b"GET / HTTP/1.1", [b"Connection: Close"], False),
            (b"GET / HTTP/1.1", [b"Connection: te", b"connection: a ,close\t, b"], False),
            (b"GET / HTTP/1.1", [b"Connection: closed"], True),
            (b"GET / HTTP/1.0", [], False),
            (b"GET / HTTP/1.0", [b"Connection: keep-alive"], True),
            (b"GET / HTTP/1.0", [b"Connection: keep-alive, close"], False),
        ],
    )
    def test_version_and_options_decide(
        self, first: bytes, lines: list[bytes], persistent: bool
    ) -> None:
        head = parse_request_head(request(b"Host: h", *lines, first=first))
        assert is_persistent(head) is persistent

    def test_responses_have_the_same_rule(self) -> None:
        assert is_persistent(parse_response_head(RESPONSE))
        assert not is_persistent(parse_response_head(response(b"connection: close")))


class TestWriting:
    def test_a_request_is_written(self) -> None:
        fields = [(b"host", b"h"), (b"x", b"")]
        assert dump_request_head(b"GET", b"/a?b", fields) == (
            b"GET /a?b HTTP/1.1\r\nhost: h\r\nx: \r\n\r\n"
        )

    def test_a_response_is_written_with_its_registered_reason(self) -> None:
        assert dump_response_head(404, []) == b"HTTP/1.1 404 Not Found\r\n\r\n"
        assert dump_response_head(599, [(b"a", b"b")]) == b"HTTP/1.1 599 \r\na: b\r\n\r\n"

    def test_what_was_read_is_written_and_read_alike(self) -> None:
        head = parse_request_head(REQUEST)
        assert parse_request_head(dump_request_head(head.method, head.target, head.fields)) == head
        answer = parse_response_head(RESPONSE)
        assert parse_response_head(dump_response_head(answer.status, answer.fields)) == answer

    @pytest.mark.parametrize(
        ("method", "target"),
        [
            (b"", b"/"),
            (b"GET", b""),
            (b"GET ", b"/"),
            (b"GET /x HTTP/1.1\r\nA:", b"/"),
            (b"GET", b"/ b"),
            (b"GET", b"/ HTTP/1.1\r\nA: b\r\n\r\nGET /"),
            (b"GET", b"/\n"),
            (b"GET", b"/\x7f"),
        ],
    )
    def test_no_request_line_holds_another_one(self, method: bytes, target: bytes) -> None:
        with pytest.raises(LocalProtocolError):
            dump_request_head(method, target, [])

    @pytest.mark.parametrize(
        "field",
        [
            (b"", b"v"),
            (b" a", b"v"),
            (b"a ", b"v"),
            (b"a:", b"v\x00"),
            (b"a: b\r\nc", b"v"),
            (b"a", b"v\r\nb: c"),
            (b"a", b"v\r\n"),
            (b"a", b"v\n"),
            (b"a", b"v\r"),
            (b"a", b"v\r\n\r\nGET / HTTP/1.1"),
            (b"a", b"\x00"),
        ],
    )
    def test_no_field_line_holds_another_one(self, field: Field) -> None:
        with pytest.raises(LocalProtocolError):
            dump_fields([(b"x", b"y"), field])

    @pytest.mark.parametrize("status", [0, 99, 600, 1000, -1])
    def test_there_is_no_other_status(self, status: int) -> None:
        with pytest.raises(LocalProtocolError):
            dump_response_head(status, [])

    @given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=4))
    def test_whatever_is_written_is_read_as_the_same_fields(self, fields: list[Field]) -> None:
        try:
            written = dump_response_head(200, fields)
        except LocalProtocolError:
            return
        assert parse_response_head(written).fields == [
            (name.lower(), value.strip(b" \t")) for name, value in fields
        ]


class TestTrailers:
    def test_fields_are_read(self) -> None:
        assert parse_trailers(b"A: b\r\nc:d\r\n\r\n", RemoteProtocolError) == [
            (b"a", b"b"),
            (b"c", b"d"),
        ]

    @pytest.mark.parametrize(
        "section",
        [
            b"",
            b"A: b\r\n",
            b"A : b\r\n\r\n",
            b"A: b\n\r\n",
            b"Content-Length: 5\r\n\r\n",
            b"a: b\r\ntransfer-encoding: chunked\r\n\r\n",
            b"Host: h\r\n\r\n",
            b"a: b\r\n" * (MAX_FIELDS + 1) + b"\r\n",
        ],
    )
    def test_what_is_no_section_or_belongs_before_the_body_is_refused(self, section: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            parse_trailers(section, RemoteProtocolError)


def test_no_length_field_is_no_length() -> None:
    assert parse_content_length([(b"host", b"h")], RemoteProtocolError) is None


# -- another implementation as an oracle ---------------------------------------------------

Verdict = list[Field] | None
"""The fields as read, or None for a refusal."""


def ours(head: bytes) -> Verdict:
    try:
        return parse_request_head(head).fields
    except RequestRejectedError:
        return None


def theirs(head: bytes) -> Verdict:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_SIZE)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    return list(event.headers) if isinstance(event, h11.Request) else None


SAME = [
    request(b"Host: h"),
    request(b"Host: h", b"Content-Length: 5"),
    request(b"Host: h", b"Transfer-Encoding: chunked"),
    request(b"Host: h", b"X:  a b  "),
    request(b"Host: h", b"X: \xff"),
    request(b"Host: h", b"X : y"),
    request(b"Host: h", b"X: a\x00b"),
    request(b"Host: h", b"Content-Length: 5", b"Content-Length: 6"),
    request(b"Host: h", b"Content-Length: x"),
    request(b"Host: h", b"Transfer-Encoding: gzip"),
    request(b"Host: h", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    request(b"Host: h", b"Host: h"),
    request(),
    request(first=b"GET / HTTP/1.0"),
    request(b"Host: h", first=b"GET /a b HTTP/1.1"),
    request(b"Host: h", first=b"GET /"),
    b"\r\n" + request(b"Host: h"),
]
STRICTER = [
    (request(b"Host: h", b"X: y", b" folded"), "folded line"),
    (b"GET / HTTP/1.1\nHost: h\n\n", "LF alone"),
    (b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", "LF alone"),
    (request(b"Host: h", b"X: a\x01b"), "control in a value"),
    (request(b"Host: h", b"X: a\x7fb"), "DEL in a value"),
    (request(b"Host: a b"), "no host"),
    (request(b"Host: h", b"Content-Length: 5", b"Content-Length: 5"), "two lengths"),
    (request(b"Host: h", b"Content-Length: 5, 5"), "two lengths"),
    (request(b"Host: h", b"Content-Length: 5", b"Transfer-Encoding: chunked"), "two framings"),
    (request(b"Transfer-Encoding: chunked", first=b"GET / HTTP/1.0"), "chunks in HTTP/1.0"),
    (request(b"Host: h", first=b"GET / HTTP/1.2"), "no such version"),
]


@pytest.mark.parametrize("head", SAME)
def test_h11_gives_the_same_verdict(head: bytes) -> None:
    assert ours(head) == theirs(head)


@pytest.mark.parametrize(("head", "reason"), STRICTER)
def test_what_h11_lets_pass_is_refused(head: bytes, reason: str) -> None:
    assert theirs(head) is not None, reason
    assert ours(head) is None, reason


PIECES = st.sampled_from(
    [
        *(b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b",", b"\x00", b"\x0b", b"\x7f", b"\xff", b"5"),
        *(b"Host: h\r\n", b"X: y\r\n", b"Content-Length: 5\r\n", b"content-length: 6\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"transfer-encoding: gzip\r\n", b"HTTP/1.1", b"a"),
    ]
)


@given(st.lists(st.tuples(st.integers(0, 90), PIECES), max_size=4))
@example([(16, b"Transfer-Encoding: chunked\r\n")])
def test_what_is_accepted_h11_reads_alike(insertions: list[tuple[int, bytes]]) -> None:
    head = request(b"Host: h", b"A: b", b"Connection: keep-alive")
    for at, piece in insertions:
        head = head[:at] + piece + head[at:]
    end = find_head_end(head)
    if end < 0:
        return
    verdict = ours(head[:end])
    assert verdict is None or verdict == theirs(head[:end])


@pytest.mark.parametrize("parse", [parse_request_head, parse_response_head])
@given(st.data())
def test_garbage_is_refused_and_nothing_else_happens(
    parse: Callable[[bytes], object], data: st.DataObject
) -> None:
    prefix = data.draw(st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n"]))
    suffix = data.draw(st.sampled_from([b"", b"\r\n\r\n"]))
    with contextlib.suppress(RequestRejectedError, RemoteProtocolError):
        parse(prefix + data.draw(st.binary(max_size=80)) + suffix)
