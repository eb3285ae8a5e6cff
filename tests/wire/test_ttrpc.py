"""tng.wire.ttrpc: frames in any split, messages both ways."""

from __future__ import annotations

import contextlib
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.protobuf import dump_fields
from tng.wire.ttrpc import (
    MAX_PAYLOAD,
    Frame,
    FrameReader,
    FrameType,
    Request,
    Response,
    dump_frame,
    dump_request,
    dump_response,
    parse_request,
    parse_response,
)

FRAMES = [
    Frame(1, FrameType.REQUEST, b"abc"),
    Frame(3, FrameType.RESPONSE, b""),
    Frame(5, FrameType.DATA, b"x" * 300),
]
WIRE = b"".join(dump_frame(frame) for frame in FRAMES)


def read_all(pieces: list[bytes]) -> list[Frame]:
    reader, frames = FrameReader(), []
    for piece in pieces:
        reader.receive_data(piece)
        while (frame := reader.next_frame()) is not None:
            frames.append(frame)
    return frames


def test_a_frame_is_ten_octets_and_its_payload() -> None:
    assert dump_frame(FRAMES[0]) == bytes.fromhex("00000003000000010100") + b"abc"


def test_whole_and_octet_by_octet_feeding_give_the_same_frames() -> None:
    assert read_all([WIRE]) == FRAMES
    assert read_all([WIRE[i : i + 1] for i in range(len(WIRE))]) == FRAMES


@given(st.lists(st.integers(1, len(WIRE) - 1), max_size=6))
def test_any_split_gives_the_same_frames(cuts: list[int]) -> None:
    edges = [0, *sorted(set(cuts)), len(WIRE)]
    assert read_all([WIRE[a:b] for a, b in itertools.pairwise(edges)]) == FRAMES


def test_a_frame_at_the_limit_is_read_and_one_octet_more_is_refused_by_its_header_alone() -> None:
    assert read_all([dump_frame(Frame(1, FrameType.DATA, bytes(MAX_PAYLOAD)))])
    with pytest.raises(RemoteProtocolError, match="limit"):
        read_all([struct.pack(">IIBB", MAX_PAYLOAD + 1, 1, 2, 0)])
    with pytest.raises(LocalProtocolError):
        dump_frame(Frame(1, FrameType.DATA, bytes(MAX_PAYLOAD + 1)))


@pytest.mark.parametrize("number", [0, 4, 255])
def test_an_unknown_type_is_refused(number: int) -> None:
    with pytest.raises(RemoteProtocolError, match="unknown type"):
        read_all([struct.pack(">IIBB", 0, 1, number, 0)])


def test_the_end_of_the_stream_is_an_error() -> None:
    reader = FrameReader()
    reader.receive_data(WIRE[:5])
    with pytest.raises(RemoteProtocolError, match="5 octets"):
        reader.receive_data(b"")


def test_messages_survive_the_round_trip() -> None:
    request = Request("a.B", "Get", b"\x0a\x01x", 50_000_000_000)
    assert parse_request(dump_request(request)) == request
    for response in (Response(0, "", b"\x0a\x01x"), Response(13, "no", b""), Response(0, "", b"")):
        assert parse_response(dump_response(response)) == response


def test_a_failure_carries_its_status_in_a_message_of_its_own() -> None:
    status = dump_fields([(1, 12), (2, b"unimplemented")])
    assert parse_response(dump_fields([(1, status)])) == Response(12, "unimplemented", b"")


@pytest.mark.parametrize(
    "payload", [b"\x08\x01", b"\x0a\x01\x08", b"\x12", b"\x0a\x03\x12\x01\xff"]
)
def test_a_response_of_another_shape_is_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_response(payload)


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=5))
def test_garbage_gives_frames_or_remote_protocol_errors(pieces: list[bytes]) -> None:
    with contextlib.suppress(RemoteProtocolError):
        for frame in read_all(pieces):
            parse_request(frame.payload)
            parse_response(frame.payload)
