"""The HTTP/2 frame layout: numbers, limits of the format, and frames as octets.

Goes in: the fields of one frame.  Comes out: its octets.  Source: RFC 9113 sections 4, 6, 7.
Nothing here has state; what a frame means is in `tng.wire.h2`.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

from tng.errors import RemoteProtocolError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first, RFC 9113 section 3.4."""

FRAME_HEADER: Final = struct.Struct(">HBBBL")
"""Length (upper 16 bits, lower 8), type, flags, stream id (its top bit is reserved)."""

HEADER_SIZE: Final = 9
"""Octets before a frame's payload."""

WINDOW_LIMIT: Final = (1 << 31) - 1
"""The largest flow-control window, and the largest stream id."""

DEFAULT_WINDOW: Final = 65_535
"""Every window until a SETTINGS frame or a WINDOW_UPDATE says otherwise, section 6.9.2."""

SMALLEST_FRAME_LIMIT: Final = 16_384
"""SETTINGS_MAX_FRAME_SIZE where none was sent, and its lower bound."""

LARGEST_FRAME_LIMIT: Final = (1 << 24) - 1
"""Upper bound of SETTINGS_MAX_FRAME_SIZE."""

END_STREAM: Final = 0x01
"""Flag of DATA and HEADERS: the sender's half of the stream ends here."""
ACK: Final = 0x01
"""Flag of SETTINGS and PING: this is the answer."""
END_HEADERS: Final = 0x04
"""Flag of HEADERS and CONTINUATION: the header block is complete."""
PADDED: Final = 0x08
"""Flag of DATA and HEADERS: one octet of pad length leads, that many octets trail."""
PRIORITY_FLAG: Final = 0x20
"""Flag of HEADERS: five octets of (deprecated) priority lead."""


class Frame(enum.IntEnum):
    """Frame types, section 6."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


# Python 3.11 looks an enum's member up in a function of its own, which costs as much as packing a
# frame's head: what every frame needs has a name in this module.
DATA: Final = Frame.DATA
"""`Frame.DATA`, for what is done per frame."""
WINDOW_UPDATE: Final = Frame.WINDOW_UPDATE
"""`Frame.WINDOW_UPDATE`, likewise."""
RST_STREAM: Final = Frame.RST_STREAM
"""`Frame.RST_STREAM`, likewise."""


class H2Code(enum.IntEnum):
    """Error codes of RST_STREAM and GOAWAY, section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(enum.IntEnum):
    """Identifiers in a SETTINGS frame, section 6.5.2."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class H2ConnectionError(RemoteProtocolError):
    """The peer broke HTTP/2 in a way that ends the connection.

    Args:
        h2_code: the error code for the GOAWAY.
        problem: what the peer does, as in "sends a frame of ...".
    """

    def __init__(self, h2_code: H2Code, problem: str) -> None:
        super().__init__(f"HTTP/2 peer {problem}")
        self.h2_code = h2_code
        self.problem = problem


def code_name(code: int) -> str:
    """The word for an error code; unknown ones stay numbers (they mean INTERNAL_ERROR)."""
    try:
        return H2Code(code).name
    except ValueError:
        return f"{code:#x}"


def make_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame as octets.

    Args:
        kind: a `Frame`.
        flags: 0-255.
        stream_id: 0 for the connection itself.
        payload: at most the receiver's SETTINGS_MAX_FRAME_SIZE.
    """
    length = len(payload)
    return FRAME_HEADER.pack(length >> 8, length & 255, kind, flags, stream_id) + payload


def make_settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(struct.pack(">HL", name, value) for name, value in values.items())
    return make_frame(Frame.SETTINGS, 0, 0, payload)


def make_reset(stream_id: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return make_frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def make_window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; `increment` is 1 to `WINDOW_LIMIT` octets."""
    return make_frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def make_goaway(last_stream_id: int, code: int, reason: str = "") -> bytes:
    """A GOAWAY frame; `reason` is for the other side's log and holds no secret."""
    head = struct.pack(">LL", last_stream_id, code)
    return make_frame(Frame.GOAWAY, 0, 0, head + reason.encode()[:256])


def parse_increment(payload: bytes) -> int:
    """The increment of a WINDOW_UPDATE frame, 0 to `WINDOW_LIMIT`.

    Raises:
        H2ConnectionError: it has another size (RFC 9113 section 6.9).
    """
    if len(payload) != 4:
        raise H2ConnectionError(H2Code.FRAME_SIZE_ERROR, "sends no 4 octets of increment")
    return int.from_bytes(payload, "big") & WINDOW_LIMIT


def parse_reset(payload: bytes) -> int:
    """The error code of a RST_STREAM frame.

    Raises:
        H2ConnectionError: it has another size (RFC 9113 section 6.4).
    """
    if len(payload) != 4:
        raise H2ConnectionError(H2Code.FRAME_SIZE_ERROR, "sends no 4 octets of error code")
    return int.from_bytes(payload, "big")


def parse_goaway(stream_id: int, payload: bytes) -> tuple[int, int, str]:
    """Last stream, error code and reason of a GOAWAY frame; the reason is cut at 256 octets.

    Raises:
        H2ConnectionError: it is too short, or on a stream (RFC 9113 section 6.8).
    """
    if stream_id or len(payload) < 8:
        raise H2ConnectionError(H2Code.PROTOCOL_ERROR, "sends a malformed GOAWAY")
    last_id, code = struct.unpack_from(">LL", payload)
    return last_id & WINDOW_LIMIT, code, payload[8:264].decode("ascii", "replace")


def check_ping(stream_id: int, payload: bytes) -> None:
    """Refuse a PING frame that is not 8 octets on stream 0 (RFC 9113 section 6.7)."""
    if stream_id or len(payload) != 8:
        code = H2Code.PROTOCOL_ERROR if stream_id else H2Code.FRAME_SIZE_ERROR
        raise H2ConnectionError(code, f"sends a malformed PING on stream {stream_id}")


def append_data(
    output: bytearray, stream_id: int, data: memoryview, largest: int, last_flags: int = 0
) -> None:
    """Append DATA frames with payloads of at most `largest` octets each.

    Args:
        output: what is going to be sent.
        stream_id: 1 or more.
        data: 1 octet or more.
        largest: 16,384 or more.
        last_flags: END_STREAM, or 0, for the last frame.
    """
    count = len(data)
    at = 0
    while count - at > largest:
        output += FRAME_HEADER.pack(largest >> 8, largest & 255, DATA, 0, stream_id)
        output += data[at : at + largest]
        at += largest
    size = count - at
    output += FRAME_HEADER.pack(size >> 8, size & 255, DATA, last_flags, stream_id)
    output += data[at:] if at else data
