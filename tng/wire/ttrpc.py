"""The ttrpc protocol (containerd/ttrpc, PROTOCOL.md): frames, and the unary messages inside them.

Octets in, `Frame`s out; the caller owns the socket:

    frames = FrameReader()
    frames.receive_data(await stream.receive_some())
    while (frame := frames.next_frame()) is not None:
        response = parse_response(frame.payload)

A frame is u32 length, u32 stream, u8 type, u8 flags (big endian), then the payload.

Invariant: no more than one frame's worth of octets (`MAX_PAYLOAD`) waits for its end.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.protobuf import dump_fields, last_bytes, last_number, last_text, parse_fields

MAX_PAYLOAD: Final = 4 << 20
"""Octets of a payload; the limit that the protocol itself sets."""

_HEADER: Final = struct.Struct(">IIBB")


class FrameType(enum.IntEnum):
    """What a frame carries.  Data frames belong to streaming calls, which are not used here."""

    REQUEST = 1
    RESPONSE = 2
    DATA = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        stream: number of the call; odd, chosen by the client.
        type: what the payload is.
        payload: a protobuf message.
    """

    stream: int
    type: FrameType
    payload: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A call.

    Attributes:
        service: full name of the service, with its package.
        method: name of the method.
        payload: the method's own message.
        timeout: nanoseconds that the server may take; 0 for no limit.
    """

    service: str
    method: str
    payload: bytes
    timeout: int


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a call.

    Attributes:
        code: status as gRPC numbers them; 0 is success.
        message: what the server says about a failure.
        payload: the method's own message; empty on failure.
    """

    code: int
    message: str
    payload: bytes


class FrameReader:
    """Takes a stream of octets apart into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> None:
        """Take what came from the socket.

        Raises:
            RemoteProtocolError: end of file (b"").
        """
        if not data:
            raise RemoteProtocolError(
                f"ttrpc peer closed with {len(self._buffer)} octets of an unfinished frame"
            )
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """The next frame; None when more octets are needed.

        Raises:
            RemoteProtocolError: a payload longer than `MAX_PAYLOAD`, or an unknown type.
        """
        if len(self._buffer) < _HEADER.size:
            return None
        length, stream, type_number, _flags = _HEADER.unpack_from(self._buffer)
        if length > MAX_PAYLOAD:
            raise RemoteProtocolError(f"ttrpc frame of {length} octets, the limit is {MAX_PAYLOAD}")
        if type_number not in FrameType.__members__.values():
            raise RemoteProtocolError(f"ttrpc frame of unknown type {type_number}")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return Frame(stream, FrameType(type_number), payload)


def dump_frame(frame: Frame) -> bytes:
    """The octets of a frame; flags are zero.

    Raises:
        LocalProtocolError: a payload longer than `MAX_PAYLOAD`.
    """
    if len(frame.payload) > MAX_PAYLOAD:
        raise LocalProtocolError(f"ttrpc payload of {len(frame.payload)} octets is too long")
    return _HEADER.pack(len(frame.payload), frame.stream, frame.type, 0) + frame.payload


def dump_request(request: Request) -> bytes:
    """The payload of a request frame; fields that are empty or zero are left out (proto3)."""
    return _dump(
        (1, request.service.encode()),
        (2, request.method.encode()),
        (3, request.payload),
        (4, request.timeout),
    )


def parse_request(payload: bytes) -> Request:
    """Take the payload of a request frame apart.

    Raises:
        RemoteProtocolError: not such a message.
    """
    fields = parse_fields(payload)
    return Request(
        last_text(fields, 1), last_text(fields, 2), last_bytes(fields, 3), last_number(fields, 4)
    )


def dump_response(response: Response) -> bytes:
    """The payload of a response frame."""
    status = _dump((1, response.code), (2, response.message.encode()))
    return _dump((1, status), (2, response.payload))


def parse_response(payload: bytes) -> Response:
    """Take the payload of a response frame apart.

    Raises:
        RemoteProtocolError: not such a message.
    """
    fields = parse_fields(payload)
    status = parse_fields(last_bytes(fields, 1))
    return Response(last_number(status, 1), last_text(status, 2), last_bytes(fields, 2))


def _dump(*fields: tuple[int, int | bytes]) -> bytes:
    return dump_fields(field for field in fields if field[1])
