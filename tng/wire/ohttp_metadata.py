"""Metadata: the unencrypted message in front of an encapsulated request.

`Metadata`  <->  protobuf, behind its length as u32, big endian:

    1 no_auth {}
    2 attested_public_key { 1 attestation_result text, 2 pk_s octets, 3 as_provider text }
    3 key_config_hint { 1 public_key octets }

The layout is the reference's (2.12.0), which sends exactly one of the fields 1 and 2; clients of
the cohere dialect send neither. Unknown fields are passed over, as protobuf wants it.

Invariant: what is parsed names at most one client, by a key of 32 octets and a token. Nothing here
is authenticated: a claimed key counts only when the request opens in HPKE's auth mode with it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.hpke import PUBLIC_KEY_SIZE
from tng.wire.protobuf import Field, dump_fields, last_bytes, last_text, parse_fields

MAX_METADATA: Final = 256 << 10
"""Octets of a message: a token of some hundred KiB (GPU evidence) fits, memory for it is small."""
LENGTH_SIZE: Final = 4
"""Octets of the length in front."""
DEFAULT_PROVIDER: Final = "coco"
"""What an empty `as_provider` means."""

_ANONYMOUS_SIZE: Final = 40  # octets: a marker and a key of 32; no token fits
_MAX_ANONYMOUS: Final = 256  # keys that one egress has in its life and its clients remember

_NO_AUTH, _ATTESTED, _HINT = 1, 2, 3
_TOKEN, _PUBLIC_KEY, _PROVIDER = 1, 2, 3
_HINTED_KEY = 1


class MetadataTooLongError(RemoteProtocolError):
    """The announced length is beyond `MAX_METADATA`."""


class MetadataTruncatedError(RemoteProtocolError):
    """The request ended before its metadata did."""


class MetadataMalformedError(RemoteProtocolError):
    """The octets are no metadata."""


@dataclass(frozen=True, slots=True)
class AttestedKey:
    """A client's own claim about its key.

    Attributes:
        token: what an attestation service said about it, a JWT; not checked here.
        public_key: X25519, 32 octets.
        provider: whose token it is.
    """

    token: str = field(repr=False)
    public_key: bytes
    provider: str = DEFAULT_PROVIDER


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a request says in the clear.

    Attributes:
        key_hint: public key of the egress that the request is encrypted to; None when not said.
            Not checked for its length: a key that does not exist is found nowhere.
        client: the attested client; None for any other.
        is_anonymous: the client says that it is not attested. False beside an attested client, and
            for clients of the cohere dialect, which say nothing.
    """

    key_hint: bytes | None
    client: AttestedKey | None = None
    is_anonymous: bool = False


def dump_metadata(metadata: Metadata) -> bytes:
    """Write a message, without its length.

    Raises:
        LocalProtocolError: a client that is anonymous and attested, or a key not of 32 octets.
    """
    fields: list[Field] = []
    if metadata.client is not None:
        if metadata.is_anonymous:
            raise LocalProtocolError("metadata of a client that is anonymous and attested")
        fields.append((_ATTESTED, _dump_client(metadata.client)))
    elif metadata.is_anonymous:
        fields.append((_NO_AUTH, b""))
    if metadata.key_hint is not None:
        fields.append((_HINT, dump_fields([(_HINTED_KEY, metadata.key_hint)])))
    return dump_fields(fields)


def frame_metadata(metadata: Metadata) -> bytes:
    """Write a message behind its length: the beginning of a request's body.

    Raises:
        LocalProtocolError: as `dump_metadata`, or more than `MAX_METADATA` octets.
    """
    encoded = dump_metadata(metadata)
    if len(encoded) > MAX_METADATA:
        raise LocalProtocolError(f"metadata has {len(encoded)} octets, limit {MAX_METADATA}")
    return len(encoded).to_bytes(LENGTH_SIZE, "big") + encoded


def parse_metadata(encoded: bytes) -> Metadata:
    """Read a message, without its length.

    Raises:
        MetadataMalformedError: no protobuf, a field of another kind or given twice, both kinds of
            client, or an attested client without a token or a key of 32 octets.
    """
    try:
        fields = parse_fields(encoded)
        anonymous = _only(fields, _NO_AUTH)
        attested = _only(fields, _ATTESTED)
        hint = _only(fields, _HINT)
        client = None if attested is None else _parse_client(attested)
        key_hint = None if hint is None else last_bytes(parse_fields(hint), _HINTED_KEY) or None
    except MetadataMalformedError:
        raise
    except RemoteProtocolError as exc:
        raise MetadataMalformedError(f"metadata is malformed: {exc}") from exc
    if anonymous is not None and client is not None:
        raise MetadataMalformedError("metadata says that the client is anonymous and attested")
    return Metadata(key_hint, client, anonymous is not None)


def take_metadata(buffer: bytearray) -> Metadata | None:
    """Read a message behind its length, and remove it from the buffer; None when it is not whole.

    Raises:
        MetadataTooLongError: its length is beyond `MAX_METADATA`.
        MetadataMalformedError: as `parse_metadata`; the buffer stays as it was.
    """
    if len(buffer) < LENGTH_SIZE:
        return None
    length = int.from_bytes(buffer[:LENGTH_SIZE], "big")
    if length > MAX_METADATA:
        raise MetadataTooLongError(f"metadata of {length} octets announced, limit {MAX_METADATA}")
    end = LENGTH_SIZE + length
    if len(buffer) < end:
        return None
    encoded = bytes(buffer[LENGTH_SIZE:end])
    # An anonymous client says the same before each of its requests to one key.
    parse = _parse_anonymous if length <= _ANONYMOUS_SIZE else parse_metadata
    metadata = parse(encoded)
    del buffer[:end]
    return metadata


@functools.lru_cache(maxsize=_MAX_ANONYMOUS)
def _parse_anonymous(encoded: bytes) -> Metadata:
    return parse_metadata(encoded)


def _dump_client(client: AttestedKey) -> bytes:
    if len(client.public_key) != PUBLIC_KEY_SIZE:
        raise LocalProtocolError(f"client's key has {len(client.public_key)} octets, expected 32")
    return dump_fields(
        [
            (_TOKEN, client.token.encode()),
            (_PUBLIC_KEY, client.public_key),
            (_PROVIDER, client.provider.encode()),
        ]
    )


def _parse_client(encoded: bytes) -> AttestedKey:
    fields = parse_fields(encoded)
    token = last_text(fields, _TOKEN)
    public_key = last_bytes(fields, _PUBLIC_KEY)
    if not token:
        raise MetadataMalformedError("metadata has an attested client without a token")
    if len(public_key) != PUBLIC_KEY_SIZE:
        raise MetadataMalformedError(
            f"metadata has a client's key of {len(public_key)} octets, expected {PUBLIC_KEY_SIZE}"
        )
    return AttestedKey(token, public_key, last_text(fields, _PROVIDER) or DEFAULT_PROVIDER)


def _only(fields: Sequence[Field], number: int) -> bytes | None:
    # Protobuf would merge or overwrite; a message that leaves room for two readings is refused.
    found = [value for key, value in fields if key == number]
    if not found:
        return None
    if len(found) > 1 or isinstance(found[0], int):
        raise MetadataMalformedError(f"metadata field {number} is not exactly one message")
    return found[0]
