"""Variable-length integers of RFC 9000 section 16, as Binary HTTP and chunked OHTTP write them.

A number in, its octets out, and back.  The two highest bits of the first octet say how many octets
there are: 1, 2, 4 or 8.  Readers take every form, also one that is longer than it need be: senders
may write a length before they know it, and the reference accepts it (2.12.0).

Invariant: what is written is the shortest form, and reads as the same number.
"""

from __future__ import annotations

from typing import Final

from tng.errors import LocalProtocolError

MAX_VARINT: Final = (1 << 62) - 1
"""The largest number that there is a form of."""

_SMALL: Final = tuple(bytes((number,)) for number in range(0x40))
_MASKS: Final = {2: 0x3FFF, 4: 0x3FFF_FFFF, 8: 0x3FFF_FFFF_FFFF_FFFF}


def dump_varint(number: int) -> bytes:
    """Write a number in its shortest form.

    Raises:
        LocalProtocolError: negative, or beyond 62 bits.
    """
    if 0 <= number < 0x40:
        return _SMALL[number]
    if 0 <= number < 0x4000:
        return (number | 0x4000).to_bytes(2, "big")
    if 0 <= number < 0x4000_0000:
        return (number | 0x8000_0000).to_bytes(4, "big")
    if 0 <= number <= MAX_VARINT:
        return (number | 0xC000_0000_0000_0000).to_bytes(8, "big")
    raise LocalProtocolError(f"no variable-length integer holds {number}")


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it.

    Where octets are missing, the position is beyond the end of the data, the number is 0, and
    another look is worth while once the data reach that far.

    Args:
        data: octets.
        at: 0 to the length of the data.
    """
    if at >= len(data):
        return 0, at + 1
    first = data[at]
    if first < 0x40:
        return first, at + 1
    size = 1 << (first >> 6)
    end = at + size
    if end > len(data):
        return 0, end
    return int.from_bytes(data[at:end], "big") & _MASKS[size], end
