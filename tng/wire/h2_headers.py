"""HTTP/2 header blocks of CONNECT tunnels: ours as constants and literals, the peer's decoded.

Goes in: a status or a header block.  Comes out: a header block or (name, value) pairs.
Source: RFC 7541; RFC 9113 sections 8.3 and 8.5.

Our own blocks use neither the dynamic table nor Huffman coding, so they mean the same wherever
they stand.  A peer may use all of HPACK; what its decoder costs us is bounded by
`HEADER_LIST_LIMIT` octets per block, and by a table that never exceeds 4096 octets.
"""

from __future__ import annotations

import functools
from typing import Final

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from tng.wire.h2_frames import H2Code, H2ConnectionError

HEADER_LIST_LIMIT: Final = 16_384
"""Octets of one header list (RFC 9113 section 6.5.2 counts 32 more per field).

The value of TNG 2.12; a tunnel's headers are below 200.
"""

CONNECT_BLOCK: Final = b"\x02\x07CONNECT\x01\x0ctng.internal"
"""`:method CONNECT`, `:authority tng.internal`: all that a tunnel's request says."""

_STATUS_NAME: Final = 0x08  # literal without indexing, name of static entry 8
_STATUS_200: Final = 0x88  # static entry 8 as it is
_KNOWN_BLOCKS: Final = 16  # a peer's blocks differ by a date and little else

Headers = tuple[tuple[bytes, bytes], ...]
"""Fields in their order, names in lower case."""


def find_method(headers: Headers) -> bytes:
    """The method of a request; b"" when it names none, or more than one."""
    methods = [value for name, value in headers if name == b":method"]
    return methods[0] if len(methods) == 1 else b""


def find_status(headers: Headers) -> int:
    """The status of an answer, 100-599; 0 when it names none, or more than one."""
    values = [value for name, value in headers if name == b":status"]
    if len(values) != 1:
        return 0
    value = values[0]
    is_status = len(value) == 3 and value.isdigit() and value[0] in b"12345"
    return int(value) if is_status else 0


@functools.lru_cache(maxsize=16)  # answers differ by a date, which changes once a second
def make_block(status: int, headers: Headers = ()) -> bytes:
    """The header block of an answer.

    Args:
        status: 100-599.
        headers: names in lower case; names and values of at most 4096 octets.
    """
    if status == 200:
        block = bytes((_STATUS_200,))
    else:
        block = bytes((_STATUS_NAME, 3)) + str(status).encode()
    return block + b"".join(
        b"\x00" + _make_string(name) + _make_string(value) for name, value in headers
    )


def _make_string(text: bytes) -> bytes:
    """A string literal without Huffman coding, RFC 7541 sections 5.1 and 5.2."""
    length = len(text)
    if length < 127:
        return bytes((length,)) + text
    prefix = bytearray((127,))
    length -= 127
    while length >= 128:
        prefix.append(length & 127 | 128)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + text


class HeaderDecoder:
    """Reads one peer's header blocks, in the order in which they came."""

    __slots__ = ("_decoder", "_known")

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=HEADER_LIST_LIMIT)
        # Blocks met while the dynamic table was empty, and that left it empty: as long as it
        # stays so, the same octets mean the same fields.  This is the case for our own blocks.
        self._known: dict[bytes, Headers] = {}

    def decode(self, block: bytes) -> Headers:
        """The fields of one complete header block.

        Raises:
            H2ConnectionError: it is not HPACK, or larger than `HEADER_LIST_LIMIT`.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        table = self._decoder.header_table.dynamic_entries
        was_empty = not table
        try:
            fields = tuple(
                (bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)
            )
        except OversizedHeaderListError as error:
            raise H2ConnectionError(
                H2Code.ENHANCE_YOUR_CALM, f"sends headers of more than {HEADER_LIST_LIMIT} octets"
            ) from error
        except HPACKError as error:
            raise H2ConnectionError(
                H2Code.COMPRESSION_ERROR, f"sends a header block that is not HPACK: {error}"
            ) from error
        resizes_table = block[:1] and block[0] & 0xE0 == 0x20
        if table or resizes_table or len(self._known) >= _KNOWN_BLOCKS:
            self._known.clear()
        elif was_empty:
            self._known[block] = fields
        return fields
