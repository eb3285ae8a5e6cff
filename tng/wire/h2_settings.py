"""What both sides of an HTTP/2 connection announce about themselves.

Goes in: the payload of the peer's SETTINGS frames, or our limits.  Comes out: attributes, or
the octets of our greeting.
Source: RFC 9113 section 6.5.  Invariant: every attribute is within its legal range.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from tng.wire.h2_frames import (
    DEFAULT_WINDOW,
    LARGEST_FRAME_LIMIT,
    PREFACE,
    SMALLEST_FRAME_LIMIT,
    WINDOW_LIMIT,
    H2Code,
    H2ConnectionError,
    Setting,
    make_settings,
    make_window_update,
)
from tng.wire.h2_headers import HEADER_LIST_LIMIT
from tng.wire.h2_stream import H2Limits, H2Stream

_ENTRY: Final = struct.Struct(">HL")

WIDE_WINDOW: Final = "opens a window beyond 2**31-1 octets"
"""What is said of a peer whose increments exceed the largest window."""


class PeerSettings:
    """The values in force for what we send.

    Args:
        peer_is_server: a server must not ask for pushes.

    Attributes:
        max_streams: streams that we may have open.  The RFC has no limit before the first
            SETTINGS; 100 is what it asks every peer to admit.
        initial_window: octets of a new stream's send window.
        frame: octets of the largest payload.
    """

    __slots__ = ("_peer_is_server", "frame", "initial_window", "max_streams")

    def __init__(self, *, peer_is_server: bool) -> None:
        self._peer_is_server = peer_is_server
        self.max_streams = 100
        self.initial_window = DEFAULT_WINDOW
        self.frame = SMALLEST_FRAME_LIMIT

    def update(self, payload: bytes) -> int:
        """Apply one SETTINGS frame.

        Returns:
            By how many octets the windows of open streams move, negative to shrink them.

        Raises:
            H2ConnectionError: a value outside its range, or a payload that is no list of them.
        """
        if len(payload) % _ENTRY.size:
            raise H2ConnectionError(
                H2Code.FRAME_SIZE_ERROR, f"sends SETTINGS of {len(payload)} octets"
            )
        # The last value of each counts, so that a long frame costs no more than a short one.
        values: dict[int, int] = dict(_ENTRY.iter_unpack(payload))
        push = values.get(Setting.ENABLE_PUSH, 0)
        if push > 1 or (push and self._peer_is_server):
            raise H2ConnectionError(H2Code.PROTOCOL_ERROR, f"sets ENABLE_PUSH to {push}")
        frame = values.get(Setting.MAX_FRAME_SIZE, self.frame)
        if not SMALLEST_FRAME_LIMIT <= frame <= LARGEST_FRAME_LIMIT:
            raise H2ConnectionError(H2Code.PROTOCOL_ERROR, f"sets MAX_FRAME_SIZE to {frame}")
        window = values.get(Setting.INITIAL_WINDOW_SIZE, self.initial_window)
        if window > WINDOW_LIMIT:
            raise H2ConnectionError(
                H2Code.FLOW_CONTROL_ERROR, f"sets INITIAL_WINDOW_SIZE to {window}"
            )
        change = window - self.initial_window
        self.frame = frame
        self.initial_window = window
        self.max_streams = values.get(Setting.MAX_CONCURRENT_STREAMS, self.max_streams)
        return change


def move_windows(streams: Sequence[H2Stream], change: int) -> None:
    """Apply a new INITIAL_WINDOW_SIZE to the streams that are open, RFC 9113 section 6.9.2.

    Args:
        streams: not changed by what their handlers do meanwhile.
        change: as `PeerSettings.update` returned it.

    Raises:
        H2ConnectionError: a window became too wide.
    """
    for stream in streams:
        stream.send_window += change
        if stream.send_window > WINDOW_LIMIT:
            raise H2ConnectionError(H2Code.FLOW_CONTROL_ERROR, WIDE_WINDOW)
    if change > 0:
        for stream in streams:
            if stream.can_send:
                stream.handler.window_opened()


def make_greeting(limits: H2Limits, *, is_client: bool) -> bytes:
    """What either side sends first: its settings, and the connection's window."""
    settings = {
        Setting.INITIAL_WINDOW_SIZE: limits.stream_window,
        Setting.MAX_FRAME_SIZE: limits.frame,
        Setting.MAX_HEADER_LIST_SIZE: HEADER_LIST_LIMIT,
    }
    if is_client:
        settings[Setting.ENABLE_PUSH] = 0
    else:
        settings[Setting.MAX_CONCURRENT_STREAMS] = limits.streams
    head = PREFACE if is_client else b""
    window = make_window_update(0, limits.connection_window - DEFAULT_WINDOW)
    return head + make_settings(settings) + window
