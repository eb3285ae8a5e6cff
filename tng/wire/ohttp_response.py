"""An encapsulated response: what the egress seals and the ingress opens.

    response = nonce, chunk*, final                 (chunks: `tng.wire.ohttp_chunks`)

The keys come from a secret that both sides export from the request's HPKE context, from `enc` and
from the nonce (RFC 9458 section 4.4, with the labels of draft-ietf-ohai-chunked-ohttp).

    sealer = ResponseSealer(secret, enc, suite, nonce)
    body = sealer.prefix + sealer.seal(b"...") + sealer.finish()
    opener = ResponseOpener(secret, enc, suite)
    opener.feed(body), opener.finish()

Invariant: a response opens only for the request that it answers, and is complete only with its
verified final chunk.
"""

from __future__ import annotations

from typing import Final

from tng.errors import LocalProtocolError
from tng.wire.hkdf import hkdf_expand, hkdf_extract
from tng.wire.hpke_aead import NONCE_SIZE, MessageOpener, MessageSealer, Octets, Suite
from tng.wire.ohttp_chunks import ChunkOpener, ChunkSealer, TruncatedError

EXPORT_LABEL: Final = b"message/bhttp chunked response"
"""Label under which the response's secret is exported."""


def response_nonce_size(suite: Suite) -> int:
    """Octets of the nonce in front of a response, and of the exported secret.

    Raises:
        LocalProtocolError: the suite is not supported.
    """
    return max(suite.key_size, NONCE_SIZE)


class ResponseSealer:
    """Writes one response.

    Args:
        secret: exported from the request's context, `response_nonce_size` octets.
        enc: the request's `enc`.
        suite: the request's suite.
        nonce: `response_nonce_size` fresh random octets.

    Raises:
        LocalProtocolError: a nonce of another length.
    """

    def __init__(self, secret: bytes, enc: bytes, suite: Suite, nonce: bytes) -> None:
        expected = response_nonce_size(suite)
        if len(nonce) != expected:
            raise LocalProtocolError(f"response nonce has {len(nonce)} octets, expected {expected}")
        self._prefix = nonce
        key, base_nonce = _derive(secret, enc, suite, nonce)
        self._chunks = ChunkSealer(MessageSealer(suite, key, base_nonce))

    @property
    def prefix(self) -> bytes:
        """What the body begins with: the nonce."""
        return self._prefix

    def seal(self, data: Octets) -> bytes:
        """Chunks with this data; none for no data.

        Raises:
            LocalProtocolError: the response is finished.
        """
        return self._chunks.seal(data)

    def finish(self) -> bytes:
        """The final chunk; to be sent together with the end of the inner message.

        Raises:
            LocalProtocolError: the response is finished.
        """
        return self._chunks.finish()


class ResponseOpener:
    """Reads one response.

    Args:
        secret: exported from the request's context, `response_nonce_size` octets.
        enc: the request's `enc`.
        suite: the request's suite.
    """

    def __init__(self, secret: bytes, enc: bytes, suite: Suite) -> None:
        self._secret = secret
        self._enc = enc
        self._suite = suite
        self._buffer = bytearray()
        self._chunks: ChunkOpener | None = None

    @property
    def is_final(self) -> bool:
        """Whether the final chunk was there and verified: the plaintext is complete."""
        return self._chunks is not None and self._chunks.is_final

    def feed(self, data: Octets) -> list[bytes]:
        """Plaintext that can be opened now, none of it empty; an incomplete chunk is kept.

        Raises:
            ChunkError: a chunk has a length that is not allowed, or something follows the final
                one.
            DecryptionError: a chunk is forged or not in its place, or the final chunk has data.
        """
        self._buffer += data
        if self._chunks is None:
            size = response_nonce_size(self._suite)
            if len(self._buffer) < size:
                return []
            nonce = bytes(self._buffer[:size])
            del self._buffer[:size]
            key, base_nonce = _derive(self._secret, self._enc, self._suite, nonce)
            self._chunks = ChunkOpener(MessageOpener(self._suite, key, base_nonce))
        return self._chunks.take(self._buffer)

    def finish(self) -> None:
        """Make sure that the response may end here.

        Raises:
            TruncatedError: there was no final chunk.
        """
        if self._chunks is None:
            raise TruncatedError(
                f"OHTTP response ended after {len(self._buffer)} octets of its nonce"
            )
        self._chunks.check_end(self._buffer)


def _derive(secret: bytes, enc: bytes, suite: Suite, nonce: bytes) -> tuple[bytes, bytes]:
    key = hkdf_extract(enc + nonce, secret)
    return hkdf_expand(key, b"key", suite.key_size), hkdf_expand(key, b"nonce", NONCE_SIZE)
