"""An encapsulated request, as the ingress seals it; the egress's side is `ohttp_request_reader`.

    request = metadata, header, chunk*, final
    header  = u8 key id, u16 KEM, u16 KDF, u16 AEAD, enc         (39 octets)

Metadata is in `tng.wire.ohttp_metadata`, chunks are in `tng.wire.ohttp_chunks`; keys and labels
are those of RFC 9458 section 4.3 and draft-ietf-ohai-chunked-ohttp.

    sealer = RequestSealer(config, suite, ephemeral)
    body = frame_metadata(metadata) + sealer.header + sealer.seal(b"...") + sealer.finish()
    opener = sealer.response_opener()

Invariant: only the owner of the configuration's key can read the request, and only an answer to
this very request opens.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.errors import LocalProtocolError
from tng.wire.hpke import KEM_X25519, PUBLIC_KEY_SIZE, setup_sender
from tng.wire.hpke_aead import Octets, Suite
from tng.wire.ohttp_chunks import ChunkSealer
from tng.wire.ohttp_keys import KeyConfig
from tng.wire.ohttp_response import EXPORT_LABEL, ResponseOpener, response_nonce_size

_NUMBERS: Final = struct.Struct(">BHHH")
HEADER_SIZE: Final = _NUMBERS.size + PUBLIC_KEY_SIZE
"""Octets of a header."""
_INFO_LABEL: Final = b"message/bhttp chunked request\x00"


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """How a request is encrypted, in its own words.

    Attributes:
        key_id: 0-255.
        kem: 0-65535.
        kdf: 0-65535.
        aead: 0-65535.
        enc: the client's ephemeral key, 32 octets; another one for each request.
    """

    key_id: int
    kem: int
    kdf: int
    aead: int
    enc: bytes

    @property
    def suite(self) -> Suite:
        """KDF and AEAD."""
        return Suite(self.kdf, self.aead)

    @property
    def info(self) -> bytes:
        """What the HPKE context is bound to."""
        return _INFO_LABEL + self._numbers()

    def dump(self) -> bytes:
        """The header on the wire, `HEADER_SIZE` octets."""
        return self._numbers() + self.enc

    def _numbers(self) -> bytes:
        return _NUMBERS.pack(self.key_id, self.kem, self.kdf, self.aead)


def parse_request_header(encoded: bytes) -> RequestHeader:
    """Read a header; any `HEADER_SIZE` octets are one.

    Raises:
        LocalProtocolError: another number of octets.
    """
    if len(encoded) != HEADER_SIZE:
        raise LocalProtocolError(f"OHTTP header of {len(encoded)} octets, expected {HEADER_SIZE}")
    key_id, kem, kdf, aead = _NUMBERS.unpack_from(encoded)
    return RequestHeader(key_id, kem, kdf, aead, encoded[_NUMBERS.size :])


class RequestSealer:
    """Writes one request.

    Args:
        config: the egress's key.
        suite: one of its suites, supported here.
        ephemeral: a fresh key, used for this request alone.
        sender: the client's attested key, for auth mode.

    Raises:
        PublicKeyError: the egress's key is not 32 octets, or a point of low order.
        LocalProtocolError: the suite is not supported.
    """

    def __init__(
        self,
        config: KeyConfig,
        suite: Suite,
        ephemeral: X25519PrivateKey,
        sender: X25519PrivateKey | None = None,
    ) -> None:
        enc = ephemeral.public_key().public_bytes_raw()
        header = RequestHeader(config.key_id, KEM_X25519, suite.kdf, suite.aead, enc)
        self._header = header
        _, self._context = setup_sender(suite, config.public_key, header.info, ephemeral, sender)
        self._chunks = ChunkSealer(self._context)

    @property
    def header(self) -> bytes:
        """What follows the metadata; the reference wants its first 7 octets in one piece."""
        return self._header.dump()

    def seal(self, data: Octets) -> bytes:
        """Chunks with this data; none for no data.

        Raises:
            LocalProtocolError: the request is finished.
        """
        return self._chunks.seal(data)

    def finish(self) -> bytes:
        """The final chunk; to be sent together with the end of the inner message.

        Raises:
            LocalProtocolError: the request is finished.
        """
        return self._chunks.finish()

    def response_opener(self) -> ResponseOpener:
        """What opens the answer to this request; at any time, also before `finish`."""
        secret = self._context.export(EXPORT_LABEL, response_nonce_size(self._header.suite))
        return ResponseOpener(secret, self._header.enc, self._header.suite)
