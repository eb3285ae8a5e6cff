"""Spoiled copies of good messages: a few edits, none of which knows what it is doing.

In: messages that a parser accepts.  Out: a hypothesis strategy of octets, most of them one of the
messages after up to five edits, the others random.  Edits insert, among other things, what parsers
stumble over: deep nesting, huge numbers, half characters, lengths that promise more than comes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

MAX_RANDOM: Final = 300
"""Octets of a random message: the lengths and tags that matter stand at its front."""

MAX_EDITS: Final = 5

AWKWARD: Final = (
    b"\0",
    b"\0" * 8,
    b"\xff",
    b"\xff" * 4,
    b"\xff" * 9,
    b"\x7f\xff\xff\xff",
    b"\x80" * 10,
    b"[" * 3000,
    b'{"a":' * 300,
    b"\x81" * 1500,
    b"\xc1" * 1500,
    b"\x9f\xff",
    b"\xfb\x7f\xf0" + bytes(6),
    b"\x30\x84\xff\xff\xff\xff",
    b"9" * 5000,
    b"1e999",
    b"-0.0",
    b"NaN",
    b"null",
    b"true",
    b"{}",
    b'""',
    b'"\\ud800"',
    b"\xed\xa0\x80",
    b"\r\n",
    b"\r\n\r\n",
    b"=",
    b".",
    b"%00",
    b"18446744073709551616",
)
"""What parsers of JSON, CBOR, DER, protobuf and text stumble over."""


class Edit(enum.Enum):
    """One way to spoil a message at a place."""

    REPLACE = "write over"
    INSERT = "insert"
    AWKWARD = "insert something awkward"
    FLIP = "flip a bit"
    CUT = "leave out a piece"
    REPEAT = "repeat a piece"
    END = "end here"


_RECORD: Final = 8
"""Octets of a programme that make one edit: which, three for the place, four for the value."""

_EDITS: Final = tuple(Edit)


def messages(good: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Octets like those of a hostile peer.

    Edits are drawn as one string of octets: that is much faster than to draw each of their parts.

    Args:
        good: messages that the parser accepts; one or more.
    """
    programmes = st.binary(min_size=_RECORD, max_size=_RECORD * MAX_EDITS)
    spoiled = st.builds(spoil, st.sampled_from(good), programmes)
    return st.one_of(spoiled, spoiled, spoiled, st.binary(max_size=MAX_RANDOM))


def spoil(message: bytes, programme: bytes) -> bytes:
    """The message after the edits of a programme, eight octets each, in their order."""
    for start in range(0, len(programme) - _RECORD + 1, _RECORD):
        edit = _EDITS[programme[start] % len(_EDITS)]
        place = int.from_bytes(programme[start + 1 : start + 4], "big")
        value = programme[start + 4 : start + _RECORD]
        message = _apply(message, edit, place % (len(message) + 1), value)
    return message


def _apply(message: bytes, edit: Edit, at: int, value: bytes) -> bytes:
    size = 1 + value[0] % 64
    match edit:
        case Edit.REPLACE:
            return message[:at] + value + message[at + len(value) :]
        case Edit.INSERT:
            return message[:at] + value + message[at:]
        case Edit.AWKWARD:
            return message[:at] + AWKWARD[value[0] % len(AWKWARD)] + message[at:]
        case Edit.FLIP:
            flipped = bytes(octet ^ 1 << value[0] % 8 for octet in message[at : at + 1])
            return message[:at] + flipped + message[at + 1 :]
        case Edit.CUT:
            return message[:at] + message[at + size :]
        case Edit.REPEAT:
            return message[:at] + message[at : at + size] * (1 + value[-1] % 8) + message[at:]
        case Edit.END:
            return message[:at]
