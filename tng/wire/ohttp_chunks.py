"""Chunks of chunked OHTTP (draft-ietf-ohai-chunked-ohttp): a body that is sealed piece by piece.

    chunk = varint(length of the ciphertext), ciphertext      associated data ""
    final = varint(0), ciphertext up to the end of the body   associated data "final"

Octets go into a `ChunkSealer`, come out of the `ChunkOpener` with the same keys. The final chunk
carries no data: the reference refuses it otherwise (2.12.0), and so the end can be verified as
soon as its 16 octets are there.

Invariant: the plaintext handed out is a prefix of what was sealed; `is_final` says that it is all
of it. No more than one incomplete chunk (`MAX_CHUNK` and 8 octets) is left in a buffer.
"""

from __future__ import annotations

from typing import Final

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.hpke_aead import TAG_SIZE, MessageOpener, MessageSealer, Octets
from tng.wire.varint import dump_varint, read_varint

MAX_PLAINTEXT: Final = 16384
"""Octets of plaintext in one chunk: what the reference takes, and one TLS record."""
MAX_CHUNK: Final = MAX_PLAINTEXT + TAG_SIZE
"""Octets of ciphertext in one chunk."""

_FINAL_AAD: Final = b"final"
_FINAL_MARK: Final = b"\x00"


class ChunkError(RemoteProtocolError):
    """A chunk has a length that is not allowed, or something follows the final chunk."""


class TruncatedError(RemoteProtocolError):
    """The body ended without its final chunk."""


class ChunkSealer:
    """Writes the chunks of one body.

    Args:
        sealer: at its first message; used for nothing else.
    """

    def __init__(self, sealer: MessageSealer) -> None:
        self._sealer = sealer
        self._is_finished = False

    def seal(self, data: Octets) -> bytes:
        """Chunks with this data, as many as it needs; none for no data.

        Raises:
            LocalProtocolError: the final chunk was written.
        """
        self._check_open()
        if len(data) <= MAX_PLAINTEXT:
            return self._chunk(data) if data else b""
        with memoryview(data) as view:
            pieces = range(0, len(view), MAX_PLAINTEXT)
            return b"".join(self._chunk(view[at : at + MAX_PLAINTEXT]) for at in pieces)

    def finish(self) -> bytes:
        """The final chunk; the body ends with it.

        Raises:
            LocalProtocolError: it was written already.
        """
        self._check_open()
        self._is_finished = True
        return _FINAL_MARK + self._sealer.seal(b"", _FINAL_AAD)

    def _chunk(self, data: Octets) -> bytes:
        sealed = self._sealer.seal(data)
        return dump_varint(len(sealed)) + sealed

    def _check_open(self) -> None:
        if self._is_finished:
            raise LocalProtocolError("nothing can follow the final chunk of an OHTTP body")


class ChunkOpener:
    """Reads the chunks of one body from the front of a buffer.

    Args:
        opener: at its first message; used for nothing else.
    """

    def __init__(self, opener: MessageOpener) -> None:
        self._opener = opener
        self._chunks = 0
        self._is_final = False

    @property
    def is_final(self) -> bool:
        """Whether the final chunk was there and verified: the plaintext is complete."""
        return self._is_final

    def take(self, buffer: bytearray) -> list[bytes]:
        """Plaintext of all complete chunks, none of them empty; they are removed from the buffer.

        After a failure the same failure comes again: nothing behind it is ever opened.

        Raises:
            ChunkError: a chunk of 1 to 15 or more than `MAX_CHUNK` octets, or octets after the
                final one.
            DecryptionError: a chunk is forged or not in its place, or the final chunk has data.
        """
        opened: list[bytes] = []
        at = 0
        try:
            with memoryview(buffer) as view:
                while not self._is_final:
                    size, start = read_varint(view, at)
                    self._check_size(size)
                    end = start + (size or TAG_SIZE)
                    if len(view) < end:
                        break
                    with view[start:end] as sealed:  # released even when an error is kept
                        plaintext = self._opener.open(sealed, b"" if size else _FINAL_AAD)
                    at = end
                    self._chunks += 1
                    self._is_final = not size
                    if plaintext:
                        opened.append(plaintext)
        finally:
            del buffer[:at]
        if self._is_final and buffer:
            raise ChunkError(f"{len(buffer)} octets follow the final chunk of an OHTTP body")
        return opened

    def check_end(self, buffer: bytearray) -> None:
        """Make sure that the body may end here.

        Args:
            buffer: what `take` left.

        Raises:
            TruncatedError: there was no final chunk.
        """
        if not self._is_final:
            raise TruncatedError(
                f"OHTTP body ended without its final chunk, after {self._chunks} chunks and "
                f"{len(buffer)} octets of the next"
            )

    def _check_size(self, size: int) -> None:
        if size > MAX_CHUNK or 0 < size < TAG_SIZE:
            raise ChunkError(
                f"chunk {self._chunks} of an OHTTP body has {size} octets, "
                f"expected {TAG_SIZE} to {MAX_CHUNK}"
            )
