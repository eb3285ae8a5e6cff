"""An encapsulated request, as the egress reads it; the ingress's side is `ohttp_request`.

Octets of the body in, in pieces of any size; metadata, header, plaintext out:

    reader = RequestReader()
    reader.feed(octets)                     # until reader.header is there
    reader.open(private_key, config)        # found by reader.metadata and reader.header
    plaintext = reader.read()               # after each feed
    reader.finish()                         # at the end of the body

Invariant: what `read` returns was sealed to the given key, in auth mode by the owner of the key
that the metadata claims; the request is complete only with its verified final chunk. One answer
is sealed to it.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.hpke import KEM_X25519, RecipientContext, setup_recipient
from tng.wire.hpke_aead import Octets
from tng.wire.ohttp_chunks import ChunkOpener
from tng.wire.ohttp_keys import KeyConfig
from tng.wire.ohttp_metadata import Metadata, MetadataTruncatedError, take_metadata
from tng.wire.ohttp_request import HEADER_SIZE, RequestHeader, parse_request_header
from tng.wire.ohttp_response import EXPORT_LABEL, ResponseSealer, response_nonce_size

MAX_UNREAD: Final = 1 << 20
"""Octets that may wait for `read`: more than metadata and a chunk, so a caller that reads after
each feed never meets it."""


class OhttpHeaderError(RemoteProtocolError):
    """The request ended before its header did."""


class KeyMismatchError(RemoteProtocolError):
    """The header names a key id, KEM or suite that the key does not have."""


class RequestReader:
    """Reads one request: metadata, header, and, once `open` was called, plaintext."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._metadata: Metadata | None = None
        self._header: RequestHeader | None = None
        self._context: RecipientContext | None = None
        self._chunks: ChunkOpener | None = None
        self._is_answered = False

    @property
    def metadata(self) -> Metadata | None:
        """The metadata; None until it is complete."""
        return self._metadata

    @property
    def header(self) -> RequestHeader | None:
        """The header; None until it is complete."""
        return self._header

    @property
    def is_final(self) -> bool:
        """Whether the final chunk was read and verified: the plaintext is complete."""
        return self._chunks is not None and self._chunks.is_final

    def feed(self, data: Octets) -> None:
        """Take octets of the body, in pieces of any size.

        Raises:
            MetadataTooLongError: more metadata is announced than allowed.
            MetadataMalformedError: the metadata is none.
            LocalProtocolError: `MAX_UNREAD` octets wait for `open` and `read`.
        """
        if len(self._buffer) > MAX_UNREAD:
            raise LocalProtocolError(f"{len(self._buffer)} octets of a request were not read")
        self._buffer += data
        if self._metadata is None:
            self._metadata = take_metadata(self._buffer)
        if self._metadata is not None and self._header is None:
            self._take_header()

    def open(
        self,
        private_key: X25519PrivateKey,
        config: KeyConfig,
        sender_public: bytes | None = None,
    ) -> None:
        """Prepare to decrypt.

        Args:
            private_key: the key that the metadata hints at.
            config: its configuration.
            sender_public: the client's key in the metadata, once its token was judged; None
                exactly when the metadata has no attested client.

        Raises:
            KeyMismatchError: the header is not for this configuration.
            PublicKeyError: the client's ephemeral or attested key is a point of low order.
            LocalProtocolError: the header is not complete, `open` was called before, or
                `sender_public` is not what the metadata claims.
        """
        if self._metadata is None or self._header is None or self._context is not None:
            raise LocalProtocolError("a request is opened once, when its header is complete")
        client = self._metadata.client
        if sender_public != (None if client is None else client.public_key):
            raise LocalProtocolError("a request is opened with the client's key in its metadata")
        header = self._header
        _check_key(header, config)
        self._context = setup_recipient(
            header.suite, private_key, header.enc, header.info, sender_public
        )
        self._chunks = ChunkOpener(self._context)

    def read(self) -> list[bytes]:
        """Plaintext that can be opened now, none of it empty; an incomplete chunk is kept.

        Raises:
            ChunkError: a chunk has a length that is not allowed, or something follows the final
                one.
            DecryptionError: a chunk is forged or not in its place, or the final chunk has data.
            LocalProtocolError: before `open`.
        """
        return self._opened().take(self._buffer)

    def finish(self) -> None:
        """Make sure that the request may end here; all of it was read.

        Raises:
            MetadataTruncatedError: the metadata is not complete.
            OhttpHeaderError: the header is not complete.
            TruncatedError: there was no final chunk.
            LocalProtocolError: before `open`, or plaintext was left unread.
        """
        if self._metadata is None:
            raise MetadataTruncatedError(
                f"request ended after {len(self._buffer)} octets, within its metadata"
            )
        if self._header is None:
            raise OhttpHeaderError(
                f"request ended after {len(self._buffer)} of {HEADER_SIZE} octets of its header"
            )
        chunks = self._opened()
        if chunks.take(self._buffer):
            raise LocalProtocolError("a request was finished before all of it was read")
        chunks.check_end(self._buffer)

    def response_sealer(self, nonce: bytes) -> ResponseSealer:
        """What seals the answer to this request; at any time after `open`, once.

        Args:
            nonce: `response_nonce_size(header.suite)` fresh random octets.

        Raises:
            LocalProtocolError: before `open`, a second time, or a nonce of another length.
        """
        if self._context is None or self._header is None or self._is_answered:
            raise LocalProtocolError("a request is answered once, after it was opened")
        suite = self._header.suite
        secret = self._context.export(EXPORT_LABEL, response_nonce_size(suite))
        sealer = ResponseSealer(secret, self._header.enc, suite, nonce)
        self._is_answered = True
        return sealer

    def _opened(self) -> ChunkOpener:
        if self._chunks is None:
            raise LocalProtocolError("a request is read after it was opened")
        return self._chunks

    def _take_header(self) -> None:
        if len(self._buffer) >= HEADER_SIZE:
            self._header = parse_request_header(bytes(self._buffer[:HEADER_SIZE]))
            del self._buffer[:HEADER_SIZE]


def _check_key(header: RequestHeader, config: KeyConfig) -> None:
    if (header.key_id, header.kem) != (config.key_id, KEM_X25519):
        raise KeyMismatchError(
            f"request is for key id {header.key_id} with KEM {header.kem:#06x}, "
            f"expected {config.key_id} with {KEM_X25519:#06x}"
        )
    if header.suite not in config.suites:
        raise KeyMismatchError(
            f"request has KDF {header.kdf} and AEAD {header.aead}, "
            f"which key {config.key_id} does not offer"
        )
