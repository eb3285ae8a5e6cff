"""Messages between a supervisor and its workers, as octets.

In: JSON objects, or octets as they arrive in any split.  Out: octets, or JSON objects.
A frame is the length of its body (4 octets, big-endian) and the body (one JSON object, UTF-8).

Invariant: whatever arrives, the reader gives objects in order or raises RemoteProtocolError, and
never holds more than one frame of `MAX_FRAME` octets.

    reader = FrameReader()
    reader.receive_data(data)
    while (message := reader.next_message()) is not None:
        ...
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from tng.attest.strict_json import parse_object
from tng.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.strict_json import Json

MAX_FRAME: Final = 8 << 20
"""Octets of a body: the largest certificate that is judged (5 MiB) in base64, and its label."""

_HEAD: Final = 4
"""Octets of the length."""


def dump_frame(message: Mapping[str, Json]) -> bytes:
    """The frame that holds `message`.

    Raises:
        LocalProtocolError: the message is larger than the other side would take.
    """
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME:
        raise LocalProtocolError(f"message of {len(body)} octets, the limit is {MAX_FRAME}")
    return len(body).to_bytes(_HEAD, "big") + body


class FrameReader:
    """Takes a stream of frames apart."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def is_between_frames(self) -> bool:
        """Whether an end of the stream here cuts nothing off."""
        return not self._buffer

    def receive_data(self, data: bytes) -> None:
        """Take octets from the stream; call `next_message` until it has none."""
        self._buffer += data

    def next_message(self) -> dict[str, Json] | None:
        """The next whole message; None when more octets are needed.

        Raises:
            RemoteProtocolError: a frame that is too long, or whose body is no JSON object.
        """
        if len(self._buffer) < _HEAD:
            return None
        length = int.from_bytes(self._buffer[:_HEAD], "big")
        if length > MAX_FRAME:
            raise RemoteProtocolError(
                f"frame of {length} octets between processes, the limit is {MAX_FRAME}"
            )
        end = _HEAD + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_HEAD:end])
        del self._buffer[:end]
        try:
            return parse_object(body)
        except ValueError as exc:
            raise RemoteProtocolError(f"frame between processes holds no object: {exc}") from exc
