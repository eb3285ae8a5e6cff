"""SOCKS5 server machine: RFC 1928 and RFC 1929 by example and by property."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.endpoint import Endpoint
from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.socks5 import (
    Connect,
    Credentials,
    Event,
    NeedData,
    Refused,
    Reply,
    Send,
    Socks5Server,
    dump_reply,
)

GREETING = bytes.fromhex("05 01 00")
CONNECT_DOMAIN = bytes.fromhex("05 01 00 03 0b") + b"example.org" + bytes.fromhex("01bb")
ALICE = Credentials(b"alice", b"secret")


def feed(server: Socks5Server, *pieces: bytes) -> list[Event]:
    """All events that the machine gives for these pieces, up to its last one."""
    events: list[Event] = []
    for piece in pieces:
        server.receive_data(piece)
        while not isinstance(event := server.next_event(), NeedData):
            events.append(event)
            if not isinstance(event, Send):
                return events
    return events


def request(address: str, port: str = "0050") -> bytes:
    return bytes.fromhex("05 01 00" + address + port)


def test_connect_by_name() -> None:
    assert feed(Socks5Server(None), GREETING, CONNECT_DOMAIN) == [
        Send(b"\x05\x00"),
        Connect(Endpoint("example.org", 443), b""),
    ]


def test_payload_sent_early_is_kept() -> None:
    *_, last = feed(Socks5Server(None), GREETING + CONNECT_DOMAIN + b"hello")
    assert last == Connect(Endpoint("example.org", 443), b"hello")


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("01 7f000001", "127.0.0.1"),
        ("04 20010db8 00000000 00000000 00000001", "2001:db8::1"),
        ("03 09" + b"127.0.0.1".hex(), "127.0.0.1"),
        ("03 03" + b"::1".hex(), "::1"),
        ("03 01" + b"x".hex(), "x"),
        ("03 ff" + (b"x" * 255).hex(), "x" * 255),
    ],
)
def test_connect_by_address_and_by_names_of_any_length(address: str, host: str) -> None:
    *_, last = feed(Socks5Server(None), GREETING, request(address))
    assert last == Connect(Endpoint(host, 80), b"")


@pytest.mark.parametrize(
    ("sent", "reply", "reason"),
    [
        ("04 01", "", "expected SOCKS version 5, got first octet 0x04"),
        ("47 45 54", "", "expected SOCKS version 5, got first octet 0x47"),
        ("05 00", "05 ff", "the client does not offer the method NO_AUTH"),
        ("05 01 02", "05 ff", "the client does not offer the method NO_AUTH"),
        ("05 01 00 04 01 00 01 00", "", "expected a request of version 5, got 0x04"),
        ("05 01 00 05 02 00 01 00", "05 07", "only CONNECT is served, got command 0x02"),
        ("05 01 00 05 03 00 01 00", "05 07", "only CONNECT is served, got command 0x03"),
        ("05 01 00 05 09 00 01 00", "05 07", "only CONNECT is served, got command 0x09"),
        ("05 01 00 05 01 00 09 00", "05 08", "no known address type: 0x09"),
        ("05 01 00 05 01 00 03 01 ff 00 50", "05 01", "the destination has no valid host"),
        ("05 01 00 05 01 00 03 01 20 00 50", "05 01", "the destination has no valid host"),
        ("05 01 00 05 01 00 03 00 00 50", "05 01", "the destination has no valid host"),
        ("05 01 00 05 01 00 03 01 78 00 00", "05 01", "the destination has no valid port"),
    ],
)
def test_what_is_refused_and_how(sent: str, reply: str, reason: str) -> None:
    *_, last = feed(Socks5Server(None), bytes.fromhex(sent))
    octets = bytes.fromhex(reply)
    whole = octets + bytes.fromhex("00 01 00000000 0000") if octets[1:2] < b"\xff" else octets
    assert last == Refused(whole if octets else b"", reason)


def test_the_right_password_opens_the_way_to_the_request() -> None:
    pieces = (b"\x05\x02\x00\x02", b"\x01\x05alice\x06secret", CONNECT_DOMAIN)
    assert feed(Socks5Server(ALICE), *pieces) == [
        Send(b"\x05\x02"),
        Send(b"\x01\x00"),
        Connect(Endpoint("example.org", 443), b""),
    ]


@pytest.mark.parametrize(
    "said",
    [
        b"\x01\x05alice\x05wrong",
        b"\x01\x05other\x06secret",
        b"\x01\x05alice\x00",
        b"\x01\x00\x00",
        b"\x01\x05alice\x07secretx",
    ],
)
def test_wrong_credentials_are_refused_and_never_repeated(said: bytes) -> None:
    server = Socks5Server(ALICE)
    *_, last = feed(server, b"\x05\x01\x02", said + CONNECT_DOMAIN)
    assert last == Refused(b"\x01\xff", "wrong username or password")
    assert "secret" not in repr(last) + repr(ALICE)


def test_where_a_password_is_asked_for_nobody_enters_without() -> None:
    *_, last = feed(Socks5Server(ALICE), GREETING + CONNECT_DOMAIN)
    assert last == Refused(b"\x05\xff", "the client does not offer the method PASSWORD")
    *_, last = feed(Socks5Server(ALICE), b"\x05\x02\x00\x02" + CONNECT_DOMAIN)
    assert last == Refused(b"", "expected version 1 of username/password, got 0x05")


def test_the_end_of_the_stream_within_the_handshake_is_an_error() -> None:
    with pytest.raises(RemoteProtocolError, match="closed"):
        feed(Socks5Server(None), GREETING, b"")


def test_after_the_last_event_there_is_no_other() -> None:
    server = Socks5Server(None)
    feed(server, GREETING, CONNECT_DOMAIN)
    with pytest.raises(LocalProtocolError, match="no further event"):
        server.next_event()
    with pytest.raises(LocalProtocolError, match="payload"):
        server.receive_data(b"x")


def test_replies_have_their_number_and_no_address() -> None:
    assert dump_reply(Reply.SUCCEEDED) == bytes.fromhex("05 00 00 01 00000000 0000")
    assert dump_reply(Reply.HOST_UNREACHABLE) == bytes.fromhex("05 04 00 01 00000000 0000")


@given(st.lists(st.integers(0, 40), max_size=6), st.booleans())
def test_any_split_gives_the_same_events(cuts: list[int], asks: bool) -> None:
    password = b"\x01\x05alice\x06secret" if asks else b""
    whole = (b"\x05\x01\x02" if asks else GREETING) + password + CONNECT_DOMAIN
    marks = [0, *sorted({cut for cut in cuts if 0 < cut < len(whole)}), len(whole)]
    pieces = [whole[a:b] for a, b in pairwise(marks)]
    credentials = ALICE if asks else None
    assert feed(Socks5Server(credentials), *pieces) == feed(Socks5Server(credentials), whole)


@given(st.binary(min_size=1, max_size=600), st.sampled_from([b"", GREETING, b"\x05\x01\x02"]))
def test_garbage_gives_events_or_a_remote_error_only(data: bytes, opening: bytes) -> None:
    credentials = ALICE if opening == b"\x05\x01\x02" else None
    with contextlib.suppress(RemoteProtocolError):
        feed(Socks5Server(credentials), opening + data)
