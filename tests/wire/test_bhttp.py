"""Binary HTTP: every form is read however it is cut, and nothing that was cut short looks whole."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import LocalProtocolError
from tng.wire.bhttp import (
    BhttpError,
    WrongKindError,
    dump_content,
    dump_end,
    dump_request_head,
    dump_response_head,
)
from tng.wire.bhttp_decoder import (
    MAX_FIELDS,
    MAX_INFORMATIONAL,
    MAX_PADDING,
    MAX_TRAILERS,
    Content,
    Decoder,
    End,
    Event,
    Kind,
    RequestHead,
    ResponseHead,
)
from tng.wire.http1_head import MAX_HEAD_SIZE, Field
from tng.wire.varint import dump_varint

# RFC 9292, section 5.1: a request and a response in both forms.
RFC_REQUEST_HEAD = RequestHead(
    b"GET",
    b"https",
    b"",
    b"/hello.txt",
    [
        (b"user-agent", b"curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3"),
        (b"host", b"www.example.com"),
        (b"accept-language", b"en, mi"),
    ],
)
RFC_RESPONSE_HEAD = ResponseHead(
    200, [(b"date", b"Mon, 27 Jul 2009 12:28:53 GMT"), (b"server", b"Apache"), (b"etag", b'"34a"')]
)


def text(data: bytes) -> bytes:
    return dump_varint(len(data)) + data


def lines(fields: Sequence[Field]) -> bytes:
    return b"".join(text(name) + text(value) for name, value in fields)


def request_line(*parts: bytes) -> bytes:
    return b"".join(text(part) for part in parts)


def known_request(
    fields: Sequence[Field] = (), content: bytes = b"", trailers: Sequence[Field] = ()
) -> bytes:
    line = request_line(b"POST", b"", b"", b"/")
    return b"\x00" + line + text(lines(fields)) + text(content) + text(lines(trailers))


def known_response(status: int, fields: Sequence[Field] = (), content: bytes = b"") -> bytes:
    return b"\x01" + dump_varint(status) + text(lines(fields)) + text(content) + b"\x00"


def request(*fields: Field) -> bytes:
    return dump_request_head(b"POST", b"", b"", b"/", fields)


def decode(kind: Kind, *pieces: bytes) -> list[Event]:
    """All events, with neighbouring content as one."""
    decoder = Decoder(kind)
    events: list[Event] = []
    found = [event for piece in pieces for event in decoder.feed(piece)]
    for event in found + decoder.finish():
        if isinstance(event, Content):
            assert event.data
            if events and isinstance(events[-1], Content):
                events[-1] = Content(events[-1].data + event.data)
                continue
        events.append(event)
    return events


def refuse(kind: Kind, *pieces: bytes) -> str:
    with pytest.raises(BhttpError) as caught:
        decode(kind, *pieces)
    return str(caught.value)


def octets(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


HEAD = RequestHead(b"POST", b"", b"", b"/", [])
LONG: list[Field] = [(b"a" * 70, b"b" * 300), (b"c", b"")]
TRAILERS: list[Field] = [(b"x-checksum", b"0")]

SHAPES: list[tuple[Kind, bytes, list[Event]]] = [
    (
        "request",
        dump_request_head(b"GET", b"https", b"", b"/hello.txt", RFC_REQUEST_HEAD.fields)
        + dump_end(),
        [RFC_REQUEST_HEAD, End([])],
    ),
    (
        "response",
        b"\x03"
        + (b"\x40\x66" + lines([(b"running", b'"sleep 15"')]) + b"\x00")
        + (b"\x40\x67" + lines([(b"link", b"</style.css>; rel=preload")]) + b"\x00")
        + (b"\x40\xc8" + lines(RFC_RESPONSE_HEAD.fields) + b"\x00")
        + (dump_content(b"Hello World!\r\n") + dump_end()),
        [RFC_RESPONSE_HEAD, Content(b"Hello World!\r\n"), End([])],
    ),
    (
        "response",
        b"\x01" + b"\x40\x66" + text(b"") + known_response(200, LONG, b"abc")[1:],
        [ResponseHead(200, LONG), Content(b"abc"), End([])],
    ),
    ("request", known_request(), [HEAD, End([])]),
    (
        "request",
        known_request(LONG, b"x" * 100, TRAILERS),
        [RequestHead(b"POST", b"", b"", b"/", LONG), Content(b"x" * 100), End(TRAILERS)],
    ),
    (
        "request",
        request(*LONG) + dump_content(b"a") + dump_content(b"b" * 70) + dump_end(TRAILERS),
        [RequestHead(b"POST", b"", b"", b"/", LONG), Content(b"a" + b"b" * 70), End(TRAILERS)],
    ),
    (
        "request",
        request((b"content-length", b"2")) + dump_content(b"ab") + dump_end() + b"\x00" * 9,
        [
            RequestHead(b"POST", b"", b"", b"/", [(b"content-length", b"2")]),
            Content(b"ab"),
            End([]),
        ],
    ),
    # lengths longer than they need to be, terminators as well
    (
        "request",
        b"\x40\x02"
        + (b"\x40\x03GET" + b"\x40\x00" + b"\x80\x00\x00\x00" + b"\xc0" + bytes(6) + b"\x01/")
        + (b"\x40\x01a\x40\x01b" + b"\x40\x00")
        + (b"\x80\x00\x00\x01x" + b"\x40\x00" + b"\xc0" + bytes(7)),
        [RequestHead(b"GET", b"", b"", b"/", [(b"a", b"b")]), Content(b"x"), End([])],
    ),
]


class TestForms:
    @pytest.mark.parametrize(("kind", "data", "events"), SHAPES)
    def test_whole_or_cut_anywhere_the_events_are_the_same(
        self, kind: Kind, data: bytes, events: list[Event]
    ) -> None:
        assert decode(kind, data) == events
        assert decode(kind, *octets(data)) == events
        for cut in range(len(data)):
            assert decode(kind, data[:cut], data[cut:]) == events

    def test_content_is_handed_on_before_its_chunk_is_complete(self) -> None:
        for start in (request() + dump_varint(100), known_request()[:-2] + dump_varint(100)):
            decoder = Decoder("request")
            assert decoder.feed(start + b"ab") == [HEAD, Content(b"ab")]
            assert decoder.feed(b"c") == [Content(b"c")]

    def test_the_head_comes_with_its_last_octet(self) -> None:
        head = request((b"a", b"b"))
        decoder = Decoder("request")
        assert decoder.feed(head[:-1]) == []
        assert decoder.feed(head[-1:]) == [RequestHead(b"POST", b"", b"", b"/", [(b"a", b"b")])]

    def test_what_is_not_zero_after_the_message_is_padding_too_up_to_a_limit(self) -> None:
        message = request() + dump_end()
        assert decode("request", message, b"\xff" * MAX_PADDING) == [HEAD, End([])]
        assert "after the message" in refuse("request", message, b"\xff" * MAX_PADDING, b"\x00")

    def test_connect_has_an_authority_and_neither_scheme_nor_path(self) -> None:
        data = dump_request_head(b"CONNECT", b"", b"h:80", b"", []) + dump_end()
        assert decode("request", data) == [RequestHead(b"CONNECT", b"", b"h:80", b"", []), End([])]

    def test_blanks_around_a_value_are_no_part_of_it(self) -> None:
        data = request((b"a", b" \tb c\t ")) + dump_end()
        assert decode("request", data)[0] == RequestHead(b"POST", b"", b"", b"/", [(b"a", b"b c")])


class TestTruncation:
    def test_an_indeterminate_message_may_only_lack_empty_trailers_and_content(self) -> None:
        head = request((b"a", b"b"))
        data = head + dump_content(b"abc") + dump_end(TRAILERS)
        whole = {len(head), len(data) - len(dump_end(TRAILERS)) + 1, len(data)}
        for cut in range(len(data)):
            if cut not in whole:
                refuse("request", data[:cut])

    def test_a_known_length_message_may_only_lack_empty_trailers_and_content(self) -> None:
        data = known_request([(b"a", b"b")], b"abc")
        head = data[: -len(b"\x03abc\x00")]
        for cut in range(len(data) - 1):
            if cut != len(head):
                refuse("request", data[:cut])
        assert decode("request", data[:-1]) == decode("request", data)
        assert decode("request", head)[1:] == [End([])]

    @pytest.mark.parametrize(
        "field", [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")]
    )
    def test_a_request_that_speaks_of_content_is_not_whole_without_it(self, field: Field) -> None:
        assert "cut short" in refuse("request", request(field))
        assert "cut short" in refuse("request", known_request([field])[:-2])

    def test_a_request_whose_content_is_none_is_whole_after_its_head(self) -> None:
        assert decode("request", request((b"content-length", b"0")))[1:] == [End([])]

    @pytest.mark.parametrize(
        ("status", "fields"), [(204, []), (304, []), (200, [(b"content-length", b"0")])]
    )
    def test_a_response_without_content_is_whole_after_its_head(
        self, status: int, fields: list[Field]
    ) -> None:
        expected = [ResponseHead(status, fields), End([])]
        assert decode("response", dump_response_head(status, fields)) == expected

    @pytest.mark.parametrize("fields", [[], [(b"content-length", b"5")]])
    def test_any_other_response_is_not(self, fields: list[Field]) -> None:
        assert "cut short" in refuse("response", dump_response_head(200, fields))

    def test_no_message_at_all_is_cut_short(self) -> None:
        assert "cut short" in refuse("request")
        assert "cut short" in refuse("response", b"\x03")

    def test_content_without_terminator_is_cut_short(self) -> None:
        assert "content" in refuse("request", request() + dump_content(b"abc"))

    def test_the_end_of_a_message_comes_once(self) -> None:
        decoder = Decoder("request")
        assert decoder.feed(request()) == [HEAD]
        assert decoder.finish() == [End([])]
        assert decoder.finish() == []


class TestContentLength:
    @pytest.mark.parametrize("content", [b"abcd", b"abcdef", b""])
    def test_a_request_has_as_much_content_as_it_says(self, content: bytes) -> None:
        field = (b"content-length", b"5")
        assert decode("request", known_request([field], b"abcde"))
        refuse("request", known_request([field], content))
        chunk = dump_content(content) if content else b""
        refuse("request", request(field) + chunk + dump_end())

    def test_content_beyond_it_is_refused_before_it_comes(self) -> None:
        head = request((b"content-length", b"5"))
        assert "more content" in refuse("request", head + dump_content(b"abc") + dump_varint(3))

    def test_a_response_to_head_announces_what_it_leaves_out(self) -> None:
        head = dump_response_head(200, [(b"content-length", b"5")])
        assert decode("response", head + dump_end())[1:] == [End([])]
        refuse("response", head + dump_content(b"abc") + dump_end())

    @pytest.mark.parametrize(
        "fields",
        [
            [(b"content-length", b"5"), (b"content-length", b"5")],
            [(b"content-length", b"-5")],
            [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
        ],
    )
    def test_two_framings_are_refused(self, fields: list[Field]) -> None:
        refuse("request", request(*fields))


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "other"), [("request", b"\x01"), ("request", b"\x03"), ("response", b"\x00")]
    )
    def test_a_message_of_the_other_kind_is_told_apart(self, kind: Kind, other: bytes) -> None:
        with pytest.raises(WrongKindError):
            Decoder(kind).feed(other)

    @pytest.mark.parametrize("start", [b"\x04", b"\x3f", b"\x40\x04", b"\xff" * 8])
    def test_there_are_no_other_forms(self, start: bytes) -> None:
        with pytest.raises(BhttpError) as caught:
            Decoder("request").feed(start)
        assert not isinstance(caught.value, WrongKindError)

    @pytest.mark.parametrize(
        "line",
        [
            (b"", b"", b"", b"/"),
            (b"G T", b"", b"", b"/"),
            (b"GET\r\n", b"", b"", b"/"),
            (b"GET", b"1http", b"", b"/"),
            (b"GET", b"ht tp", b"", b"/"),
            (b"GET", b"", b"a b", b"/"),
            (b"GET", b"", b"u@h", b"/"),
            (b"GET", b"", b"h/x", b"/"),
            (b"GET", b"", b"h\r\n", b"/"),
            (b"GET", b"", b"", b"x"),
            (b"GET", b"", b"", b"http://h/"),
            (b"GET", b"", b"", b"**"),
            (b"GET", b"", b"", b"/a b"),
            (b"GET", b"", b"", b"/a\r\nb"),
            (b"GET", b"", b"", b"/a\x00"),
            (b"GET", b"", b"", b"/\xe9"),
        ],
    )
    def test_control_data_that_fits_no_request_line_is_refused(
        self, line: tuple[bytes, bytes, bytes, bytes]
    ) -> None:
        refuse("request", dump_request_head(*line, []) + dump_end())
        refuse("request", b"\x00" + request_line(*line) + bytes(3))

    @pytest.mark.parametrize("status", [0, 99, 101, 600, 1000])
    def test_there_is_no_such_status(self, status: int) -> None:
        assert str(status) in refuse("response", known_response(status))

    @pytest.mark.parametrize(
        "field",
        [
            (b":path", b"/"),
            (b"Host", b"h"),
            (b"a b", b"c"),
            (b"a:", b"c"),
            (b"a\n", b"c"),
            (b"a\xe9", b"c"),
            (b"a", b"b\r\nc"),
            (b"a", b"b\n"),
            (b"a", b"b\rc"),
            (b"a", b"\x00"),
            (b"a", b"\x7f"),
        ],
    )
    def test_fields_that_fit_no_field_line_are_refused(self, field: Field) -> None:
        around = [(b"x", b"y"), field, (b"z", b"")]
        refuse("request", request(*around) + dump_end())
        refuse("request", known_request(around))
        refuse("request", request() + dump_end(around))
        refuse("request", known_request([], b"", around))

    def test_a_field_without_a_name_is_refused(self) -> None:
        assert "name" in refuse("request", known_request([(b"", b"v")]))

    def test_a_field_beyond_its_section_is_refused(self) -> None:
        line = b"\x00" + request_line(b"GET", b"", b"", b"/")
        for section in (b"\x01", b"\x01a", b"\x01a\x02b", b"\x01a\x40"):
            assert "section" in refuse("request", line + text(section) + b"xxx" + bytes(9))

    @pytest.mark.parametrize("name", [b"content-length", b"transfer-encoding", b"host"])
    def test_what_frames_or_routes_comes_in_no_trailers(self, name: bytes) -> None:
        refuse("request", request() + dump_end([(name, b"5")]))
        refuse("request", known_request([], b"", [(name, b"5")]))


class TestLimits:
    def test_a_head_beyond_the_limit_is_refused_before_it_comes(self) -> None:
        room = MAX_HEAD_SIZE - len(request_line(b"POST", b"", b"", b"/")) - len(text(b"a")) - 4
        full = request((b"a", b"b" * room))
        assert decode("request", full + dump_end())
        assert "head" in refuse("request", request((b"a", b"b" * (room + 1))))
        start = request()[:-1]
        line = b"\x00" + request_line(b"POST", b"", b"", b"/")
        for claim in (
            start + dump_varint(MAX_HEAD_SIZE),
            start + text(b"a") + dump_varint(MAX_HEAD_SIZE),
            line + dump_varint(MAX_HEAD_SIZE),
            b"\x02" + dump_varint(1 << 60),
        ):
            with pytest.raises(BhttpError, match="head"):
                Decoder("request").feed(claim)

    def test_a_known_section_that_comes_in_pieces_counts_once(self) -> None:
        fields = [(b"a", b"b" * 40000)]
        data = known_request(fields)
        assert decode("request", *(data[at : at + 999] for at in range(0, len(data), 999)))

    def test_trailers_beyond_their_limit_are_refused(self) -> None:
        value = b"b" * (MAX_TRAILERS - 4)
        assert decode("request", request() + dump_end([(b"a", value)]))
        assert "trailers" in refuse("request", request() + dump_end([(b"a", value + b"b")]))

    def test_as_many_fields_as_allowed_are_read_but_not_one_more(self) -> None:
        fields = [(b"a", b"b")] * MAX_FIELDS
        assert decode("request", request(*fields) + dump_end())
        assert "fields" in refuse("request", request(*fields, (b"a", b"b")))
        assert "fields" in refuse("request", known_request([*fields, (b"a", b"b")]))

    def test_informational_responses_are_passed_over_up_to_a_limit(self) -> None:
        early = b"\x40\x67" + lines([(b"link", b"x")]) + b"\x00"
        final = dump_response_head(204, [])[1:]
        data = b"\x03" + early * MAX_INFORMATIONAL
        assert decode("response", data + final) == [ResponseHead(204, []), End([])]
        assert "informational" in refuse("response", data + early + final)

    def test_a_large_head_octet_by_octet_takes_no_longer_than_a_large_head(self) -> None:
        fields = [(b"a", b"b" * 30000), *[(b"c", b"d")] * 900]
        assert decode("request", *octets(request(*fields) + dump_end()))


class TestWriting:
    def test_nothing_ends_a_section_or_the_content_before_its_time(self) -> None:
        nameless = [(b"a", b"b"), (b"", b"c")]
        with pytest.raises(LocalProtocolError):
            dump_request_head(b"GET", b"", b"", b"/", nameless)
        with pytest.raises(LocalProtocolError):
            dump_response_head(200, nameless)
        with pytest.raises(LocalProtocolError):
            dump_end(nameless)
        with pytest.raises(LocalProtocolError):
            dump_content(b"")

    @pytest.mark.parametrize("status", [100, 199, 600])
    def test_only_final_responses_are_written(self, status: int) -> None:
        with pytest.raises(LocalProtocolError):
            dump_response_head(status, [])


TOKENS = st.text("abcxyz-0123", min_size=1, max_size=80).map(str.encode)
VALUES = st.text("abc xyz,;=\xe9", max_size=80).map(lambda value: value.strip().encode("latin-1"))
FIELDS = st.lists(st.tuples(TOKENS, VALUES), max_size=4)


@given(FIELDS, st.lists(st.binary(min_size=1, max_size=80), max_size=3), FIELDS, st.data())
def test_what_is_written_is_read_however_it_is_cut(
    fields: list[Field], chunks: list[bytes], trailers: list[Field], data: st.DataObject
) -> None:
    wire = dump_request_head(b"PUT", b"http", b"h:1", b"/x?y", fields)
    wire += b"".join(dump_content(chunk) for chunk in chunks) + dump_end(trailers)
    cut = data.draw(st.integers(0, len(wire)))
    middle: list[Event] = [Content(b"".join(chunks))] if chunks else []
    assert decode("request", wire[:cut], wire[cut:]) == [
        RequestHead(b"PUT", b"http", b"h:1", b"/x?y", fields),
        *middle,
        End(trailers),
    ]


@given(st.sampled_from(["request", "response"]), st.integers(0, 3), st.binary(max_size=60))
def test_garbage_is_read_alike_however_it_is_cut_and_raises_nothing_else(
    kind: Kind, form: int, garbage: bytes
) -> None:
    outcomes: list[list[Event] | None] = []
    starts = {0: b"\x03GET\x00\x00\x01/", 1: b"\x40\xc8"}
    data = bytes([form]) + starts[form & 1] + garbage
    for pieces in ([data], octets(data)):
        try:
            outcomes.append(decode(kind, *pieces))
        except BhttpError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


# -- recorded messages ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recorded:
    """A message, and the sizes of its content chunks."""

    kind: Kind
    wire: bytes
    chunks: list[int]


def recorded(folder: pathlib.Path) -> Iterator[Recorded]:
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text("utf-8"))
        exchanges = document.get("exchanges", []) if isinstance(document, dict) else []
        for exchange in exchanges:
            for kind in ("request", "response"):
                wire = exchange.get(f"bhttp_{kind}")
                if wire is not None:
                    chunks = exchange[f"bhttp_{kind}_parsed"]["content_chunk_lengths"]
                    yield Recorded(kind, bytes.fromhex(wire), chunks)


def encode(events: list[Event], chunks: list[int]) -> bytes:
    wire = b""
    for event in events:
        match event:
            case RequestHead(method, scheme, authority, path, fields):
                wire += dump_request_head(method, scheme, authority, path, fields)
            case ResponseHead(status, fields):
                wire += dump_response_head(status, fields)
            case Content(data):
                at = 0
                for size in chunks:
                    wire += dump_content(data[at : at + size])
                    at += size
                assert at == len(data)
            case End(trailers):
                wire += dump_end(trailers)
    return wire


def test_recorded_messages_are_read_and_written_to_the_same_octets(shared: pathlib.Path) -> None:
    messages = list(recorded(shared / "vectors" / "ohttp"))
    assert len(messages) > 40
    for message in messages:
        events = decode(message.kind, message.wire)
        assert decode(message.kind, *octets(message.wire)) == events
        assert encode(events, message.chunks) == message.wire
