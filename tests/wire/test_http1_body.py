"""HTTP/1 bodies: the same content however it is cut, and none that only looks complete."""

from __future__ import annotations

import contextlib

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import LocalProtocolError, RemoteProtocolError, RequestRejectedError
from tng.wire.http1_body import (
    MAX_CHUNK_EXTENSIONS,
    MAX_TRAILERS,
    BodyReader,
    dump_chunk,
    dump_last_chunk,
    request_body,
    response_body,
)
from tng.wire.http1_head import Field, parse_request_head, parse_response_head

CHUNKED = b"Transfer-Encoding: chunked\r\n"
NEXT = b"GET /next"


def of_request(fields: bytes) -> BodyReader:
    head = b"POST / HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n"
    return request_body(parse_request_head(head))


def of_response(fields: bytes, *, status: int = 200, method: bytes = b"GET") -> BodyReader:
    head = b"HTTP/1.1 %d\r\n%b\r\n" % (status, fields)
    return response_body(parse_response_head(head), method)


def content(reader: BodyReader, *pieces: bytes) -> bytes:
    parts = [part for piece in pieces for part in reader.feed(piece)]
    assert all(parts), "no part is empty"
    return b"".join(parts)


SHAPES: list[tuple[bytes, bytes, bytes, list[Field]]] = [
    (b"Content-Length: 5\r\n", b"hello", b"hello", []),
    (CHUNKED, b"0\r\n\r\n", b"", []),
    (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n", b"hello", []),
    (CHUNKED, b"1\r\na\r\n2\r\nbc\r\n000\r\n\r\n", b"abc", []),
    (CHUNKED, b"A\r\n0123456789\r\nb\r\n0123456789X\r\n0\r\n\r\n", b"0123456789" * 2 + b"X", []),
    (CHUNKED, b"2;a=b\r\n\r\n\r\n0 ; c\r\n\r\n", b"\r\n", []),
    (CHUNKED, b"1\r\na\r\n0\r\nX: y\r\nz:\r\n\r\n", b"a", [(b"x", b"y"), (b"z", b"")]),
]


class TestSplitting:
    @pytest.mark.parametrize(("fields", "wire", "expected", "trailers"), SHAPES)
    def test_cut_anywhere_the_content_is_the_same(
        self, fields: bytes, wire: bytes, expected: bytes, trailers: list[Field]
    ) -> None:
        data = wire + NEXT
        for cut in range(len(data) + 1):
            reader = of_request(fields)
            assert content(reader, data[:cut], data[cut:]) == expected
            assert (reader.is_done, reader.trailers, reader.rest) == (True, trailers, NEXT)

    @pytest.mark.parametrize(("fields", "wire", "expected", "trailers"), SHAPES)
    def test_octet_by_octet_it_is_done_with_the_last_one_and_no_sooner(
        self, fields: bytes, wire: bytes, expected: bytes, trailers: list[Field]
    ) -> None:
        reader = of_response(fields)
        gathered = b""
        for at in range(len(wire)):
            assert not reader.is_done
            gathered += content(reader, wire[at : at + 1])
        assert gathered == expected
        assert (reader.is_done, reader.trailers, reader.rest) == (True, trailers, b"")
        reader.at_eof()

    @pytest.mark.parametrize(("fields", "wire", "expected", "trailers"), SHAPES)
    def test_cut_short_anywhere_it_is_refused(
        self, fields: bytes, wire: bytes, expected: bytes, trailers: list[Field]
    ) -> None:
        for cut in range(len(wire)):
            to_server, to_client = of_request(fields), of_response(fields)
            to_server.feed(wire[:cut])
            to_client.feed(wire[:cut])
            with pytest.raises(RequestRejectedError):
                to_server.at_eof()
            with pytest.raises(RemoteProtocolError):
                to_client.at_eof()

    def test_content_is_handed_on_before_its_chunk_is_complete(self) -> None:
        reader = of_response(CHUNKED)
        assert reader.feed(b"ffff\r\nabc") == [b"abc"]
        assert reader.feed(b"d") == [b"d"]

    def test_hundreds_of_small_chunks_come_at_once(self) -> None:
        reader = of_response(CHUNKED)
        assert content(reader, dump_chunk(b"x") * 5000 + dump_last_chunk()) == b"x" * 5000
        assert reader.is_done


class TestFraming:
    def test_a_request_without_framing_has_no_body(self) -> None:
        reader = of_request(b"")
        assert reader.is_done
        assert reader.feed(NEXT) == []
        assert reader.feed(b"!") == []
        assert (reader.rest, reader.ends_at_close) == (NEXT + b"!", False)
        reader.at_eof()

    @pytest.mark.parametrize(
        ("status", "method"),
        [
            (200, b"HEAD"),
            (404, b"HEAD"),
            (100, b"GET"),
            (101, b"GET"),
            (204, b"GET"),
            (304, b"GET"),
            (200, b"CONNECT"),
        ],
    )
    @pytest.mark.parametrize("fields", [b"", CHUNKED, b"Content-Length: 5\r\n"])
    def test_some_responses_have_no_body_whatever_they_say(
        self, status: int, method: bytes, fields: bytes
    ) -> None:
        assert of_response(fields, status=status, method=method).is_done

    @pytest.mark.parametrize(("status", "method"), [(200, b"head"), (403, b"CONNECT")])
    def test_others_have_one(self, status: int, method: bytes) -> None:
        assert not of_response(b"Content-Length: 5\r\n", status=status, method=method).is_done

    def test_an_empty_body_is_done_at_once(self) -> None:
        assert of_response(b"Content-Length: 0\r\n").is_done

    def test_a_response_without_framing_ends_with_the_connection(self) -> None:
        reader = of_response(b"")
        assert reader.ends_at_close
        assert content(reader, b"abc", b"", b"0\r\n\r\n") == b"abc0\r\n\r\n"
        assert not reader.is_done
        reader.at_eof()
        assert (reader.is_done, reader.trailers, reader.rest) == (True, [], b"")
        with pytest.raises(LocalProtocolError):
            reader.feed(b"x")

    def test_what_follows_a_body_in_chunks_is_kept_for_the_next_message(self) -> None:
        reader = of_request(CHUNKED)
        reader.feed(b"0\r\n\r\n")
        assert reader.feed(NEXT) == []
        assert reader.rest == NEXT


class TestRefusals:
    @pytest.mark.parametrize(
        "wire",
        [
            b"\r\n",
            b"\n",
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\na",
            b"0x1\r\na",
            b" 1\r\na",
            b"1 \r\na",
            b"1\na",
            b"1\r\r\na",
            b"1 2\r\na",
            b"1_0\r\na",
            b"1;a\x00\r\na",
            b"1;a\rb\r\na",
            b"1;a\n0\r\n\r\n",
            b"f" * 17 + b"\r\n",
            b"1\r\nab",
            b"1\r\na\n0\r\n\r\n",
            b"1\r\na\r0\r\n\r\n",
            b"1\r\na0\r\n\r\n",
            b"5\r\nhello\r\n\r\n",
            b"0\r\nX : y\r\n\r\n",
            b"0\r\n X: y\r\n\r\n",
            b"0\r\nX: y\n\r\n\r\n",
            b"0\r\nX: \x00\r\n\r\n",
            b"0\r\nContent-Length: 5\r\n\r\n",
            b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"0\r\nHost: h\r\n\r\n",
        ],
    )
    def test_what_are_no_chunks_is_refused_whole_and_octet_by_octet(self, wire: bytes) -> None:
        with pytest.raises(RequestRejectedError) as caught:
            of_request(CHUNKED).feed(wire)
        assert caught.value.http_status == 400
        reader = of_response(CHUNKED)
        with pytest.raises(RemoteProtocolError):
            content(reader, *(wire[at : at + 1] for at in range(len(wire))))

    def test_extensions_are_read_over_up_to_a_limit_altogether(self) -> None:
        extended = b"1;" + b"x" * 1023 + b"\r\na\r\n"
        reader = of_response(CHUNKED)
        assert content(reader, extended * (MAX_CHUNK_EXTENSIONS // 1024)) == b"aaaa"
        with pytest.raises(RemoteProtocolError, match="extensions"):
            reader.feed(b"1;\r\na\r\n")

    def test_a_line_without_end_is_not_kept_for_ever(self) -> None:
        reader = of_response(CHUNKED)
        with pytest.raises(RemoteProtocolError, match="beyond"):
            content(reader, *[b"0;xx"] * MAX_CHUNK_EXTENSIONS)

    def test_trailers_of_the_full_size_are_read_but_not_an_octet_more(self) -> None:
        section = b"x: " + b"y" * (MAX_TRAILERS - 7) + b"\r\n\r\n"
        assert len(section) == MAX_TRAILERS
        reader = of_response(CHUNKED)
        reader.feed(b"0\r\n" + section)
        assert reader.is_done
        with pytest.raises(RemoteProtocolError, match="trailers"):
            of_response(CHUNKED).feed(b"0\r\nx" + section)

    def test_trailers_without_end_are_not_kept_for_ever(self) -> None:
        reader = of_response(CHUNKED)
        reader.feed(b"0\r\n")
        with pytest.raises(RemoteProtocolError, match="trailers"):
            content(reader, *[b"x: y\r\n"] * MAX_TRAILERS)


class TestWriting:
    def test_what_is_written_is_read(self) -> None:
        wire = dump_chunk(b"hello") + dump_chunk(b"x" * 300) + dump_last_chunk([(b"a", b"b")])
        assert wire.startswith(b"5\r\nhello\r\n12c\r\nx")
        reader = of_request(CHUNKED)
        assert content(reader, wire) == b"hello" + b"x" * 300
        assert (reader.is_done, reader.trailers) == (True, [(b"a", b"b")])

    def test_a_chunk_that_would_end_the_body_is_not_written(self) -> None:
        with pytest.raises(LocalProtocolError):
            dump_chunk(b"")

    def test_no_trailer_ends_the_message_before_its_time(self) -> None:
        with pytest.raises(LocalProtocolError):
            dump_last_chunk([(b"a", b"b\r\n\r\nHTTP/1.1 200 OK")])


# -- another implementation as an oracle ---------------------------------------------------

Body = tuple[bytes, list[Field]] | None
"""Content and trailers, or None where the body is refused or unfinished."""


def ours(wire: bytes) -> Body:
    reader = of_request(CHUNKED)
    try:
        data = content(reader, wire)
    except RequestRejectedError:
        return None
    return (data, reader.trailers) if reader.is_done else None


def theirs(wire: bytes) -> Body:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: h\r\n" + CHUNKED + b"\r\n" + wire)
    connection.next_event()
    data = b""
    with contextlib.suppress(h11.RemoteProtocolError):
        while isinstance(event := connection.next_event(), h11.Data | h11.EndOfMessage):
            if isinstance(event, h11.EndOfMessage):
                return data, list(event.headers)
            data += bytes(event.data)
    return None


@pytest.mark.parametrize("wire", [wire for fields, wire, _, _ in SHAPES if fields == CHUNKED])
def test_h11_reads_the_same(wire: bytes) -> None:
    if wire == b"2;a=b\r\n\r\n\r\n0 ; c\r\n\r\n":  # h11 takes no blanks before an extension
        wire = b"2;a=b\r\n\r\n\r\n0; c\r\n\r\n"
    assert ours(wire) == theirs(wire) != None  # noqa: E711 - neither refuses


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"1 \r\na\r\n0\r\n\r\n", "blanks after a size"),
        (b"1;a\x00\r\na\r\n0\r\n\r\n", "control in an extension"),
        (b"0\r\nX: y\n\r\n", "LF alone"),
        (b"0\r\nX: y\r\n z\r\n\r\n", "folded line"),
        (b"0\r\nContent-Length: 5\r\n\r\n", "a length after the body"),
    ],
)
def test_what_h11_lets_pass_is_refused(wire: bytes, reason: str) -> None:
    assert theirs(wire) is not None, reason
    assert ours(wire) is None, reason


PIECES = st.sampled_from(
    [b"0\r\n", b"\r\n", b"1\r\na", b"2\r\nbc", b"a", b"\r", b"\n", b";x", b"X: y\r\n", b"fff\r\n"]
)


@given(st.lists(PIECES, max_size=8))
def test_what_is_accepted_h11_reads_alike(pieces: list[bytes]) -> None:
    wire = b"".join(pieces)
    accepted = ours(wire)
    assert accepted is None or accepted == theirs(wire)


@given(st.lists(st.one_of(PIECES, st.binary(max_size=6)), max_size=8))
def test_any_split_gives_the_same_content_or_the_same_refusal(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    outcomes = set()
    for cuts in ([whole], pieces, [whole[at : at + 1] for at in range(len(whole))]):
        reader = of_response(CHUNKED)
        try:
            outcomes.add((content(reader, *cuts), reader.is_done, reader.rest))
        except RemoteProtocolError:
            outcomes.add((b"refused", False, b""))
    assert len(outcomes) == 1
