"""tng.wire.ohttp_request_reader: an egress reads, whole and split, and refuses step by step."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.hpke import PublicKeyError
from tng.wire.hpke_aead import DecryptionError
from tng.wire.ohttp_chunks import MAX_CHUNK, ChunkError, TruncatedError
from tng.wire.ohttp_keys import KeyConfig, Suite
from tng.wire.ohttp_metadata import (
    MAX_METADATA,
    AttestedKey,
    Metadata,
    MetadataMalformedError,
    MetadataTooLongError,
    MetadataTruncatedError,
    frame_metadata,
)
from tng.wire.ohttp_request import RequestHeader, RequestSealer
from tng.wire.ohttp_request_reader import (
    MAX_UNREAD,
    KeyMismatchError,
    OhttpHeaderError,
    RequestReader,
)

EPHEMERAL, RECIPIENT, SENDER, OTHER = (
    X25519PrivateKey.from_private_bytes(bytes([octet]) * 32) for octet in (1, 2, 3, 4)
)
AES, CHACHA = Suite(1, 1), Suite(1, 3)


def public(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


CONFIG = KeyConfig(5, public(RECIPIENT))
ANONYMOUS = Metadata(CONFIG.public_key, is_anonymous=True)
ATTESTED = Metadata(CONFIG.public_key, AttestedKey("token", public(SENDER)))
FRAMED = frame_metadata(ANONYMOUS)
PIECES = [b"head", b"x" * 100, b"end"]


def request(
    metadata: Metadata = ANONYMOUS,
    sender: X25519PrivateKey | None = None,
    suite: Suite = AES,
    config: KeyConfig = CONFIG,
) -> bytes:
    sealer = RequestSealer(config, suite, EPHEMERAL, sender)
    chunks = b"".join(map(sealer.seal, PIECES)) + sealer.finish()
    return frame_metadata(metadata) + sealer.header + chunks


def read(
    *feeds: bytes | bytearray,
    key: X25519PrivateKey = RECIPIENT,
    config: KeyConfig = CONFIG,
) -> list[bytes]:
    """What an egress makes of a whole body, in these pieces."""
    reader, opened, is_open = RequestReader(), [], False
    for octets in feeds:
        reader.feed(octets)
        if reader.header is not None and not is_open:
            client = reader.metadata and reader.metadata.client
            reader.open(key, config, client.public_key if client else None)
            is_open = True
        if is_open:
            opened += reader.read()
    reader.finish()
    assert reader.is_final
    return opened


def octets_of(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize("suite", [AES, CHACHA], ids=["aes", "chacha"])
@pytest.mark.parametrize(
    ("metadata", "sender"),
    [(ANONYMOUS, None), (Metadata(CONFIG.public_key), None), (ATTESTED, SENDER)],
    ids=["anonymous", "cohere", "attested"],
)
def test_a_request_is_read_whole_and_octet_by_octet(
    metadata: Metadata, sender: X25519PrivateKey | None, suite: Suite
) -> None:
    body = request(metadata, sender, suite)
    assert read(body) == PIECES
    assert read(*octets_of(body)) == PIECES


def test_every_split_in_two_reads_the_same() -> None:
    body = request()
    for at in range(len(body) + 1):
        assert read(body[:at], body[at:]) == PIECES


def test_metadata_and_header_are_there_as_soon_as_they_are_complete() -> None:
    body, reader = request(), RequestReader()
    reader.feed(body[: len(FRAMED) - 1])
    assert reader.metadata is None
    reader.feed(body[len(FRAMED) - 1 : len(FRAMED)])
    assert reader.metadata == ANONYMOUS
    assert reader.header is None
    reader.feed(body[len(FRAMED) : len(FRAMED) + 38])
    assert reader.header is None
    reader.feed(body[len(FRAMED) + 38 : len(FRAMED) + 39])
    assert reader.header == RequestHeader(5, 0x20, 1, 1, public(EPHEMERAL))
    assert not reader.is_final


def opened(body: bytes) -> RequestReader:
    reader = RequestReader()
    reader.feed(body)
    reader.open(RECIPIENT, CONFIG)
    return reader


def test_the_end_of_the_body_is_refused_by_what_was_missing() -> None:
    body = request()
    for size in range(len(body)):
        reader = RequestReader()
        reader.feed(body[:size])
        expected: type[RemoteProtocolError] = MetadataTruncatedError
        if reader.metadata is not None:
            expected = OhttpHeaderError
        if reader.header is not None:
            expected = TruncatedError
            reader.open(RECIPIENT, CONFIG)
            reader.read()
        with pytest.raises(expected):
            reader.finish()


def test_an_empty_body_has_no_metadata() -> None:
    with pytest.raises(MetadataTruncatedError, match="after 0 octets"):
        RequestReader().finish()


def test_too_much_metadata_is_refused_when_its_length_is_there() -> None:
    reader = RequestReader()
    reader.feed((MAX_METADATA + 1).to_bytes(4, "big")[:3])
    with pytest.raises(MetadataTooLongError):
        reader.feed((MAX_METADATA + 1).to_bytes(4, "big")[3:])
    with pytest.raises(MetadataTooLongError):
        reader.feed(b"more")


def test_metadata_of_the_greatest_length_can_come_in_small_pieces() -> None:
    rest = len(frame_metadata(Metadata(CONFIG.public_key, AttestedKey("x" * 200_000, bytes(32)))))
    token = "x" * (MAX_METADATA + 4 - rest + 200_000)
    framed = frame_metadata(Metadata(CONFIG.public_key, AttestedKey(token, bytes(32))))
    assert len(framed) == MAX_METADATA + 4
    reader = RequestReader()
    for at in range(0, len(framed), 1000):
        assert reader.metadata is None
        reader.feed(framed[at : at + 1000])
    assert reader.metadata is not None


def test_malformed_metadata_is_refused() -> None:
    with pytest.raises(MetadataMalformedError):
        RequestReader().feed(b"\0\0\0\1\xff")


@pytest.mark.parametrize(
    "config",
    [
        KeyConfig(6, CONFIG.public_key),
        KeyConfig(5, CONFIG.public_key, (CHACHA,)),
        KeyConfig(5, CONFIG.public_key, (Suite(1, 2),)),
    ],
    ids=["key id", "AEAD", "unusable AEAD"],
)
def test_a_header_that_is_not_for_the_key_is_refused(config: KeyConfig) -> None:
    with pytest.raises(KeyMismatchError):
        read(request(), config=config)


@pytest.mark.parametrize(("at", "octet"), [(0, 9), (2, 0x21), (1, 1), (4, 2), (6, 2), (6, 3)])
def test_a_header_that_was_changed_is_refused(at: int, octet: int) -> None:
    body = bytearray(request())
    body[len(FRAMED) + at] = octet
    with pytest.raises((KeyMismatchError, DecryptionError)):
        read(body)


def test_another_private_key_opens_nothing() -> None:
    with pytest.raises(DecryptionError):
        read(request(), key=OTHER)


def test_an_ephemeral_key_of_low_order_is_refused() -> None:
    body = bytearray(request())
    body[len(FRAMED) + 7 : len(FRAMED) + 39] = bytes(32)
    with pytest.raises(PublicKeyError):
        read(body)


@pytest.mark.parametrize("sender", [None, OTHER], ids=["base mode", "another key"])
def test_a_client_that_does_not_own_the_key_it_claims_is_refused(
    sender: X25519PrivateKey | None,
) -> None:
    with pytest.raises(DecryptionError):
        read(request(ATTESTED, sender))


def test_auth_mode_does_not_open_for_a_client_that_claims_nothing() -> None:
    with pytest.raises(DecryptionError):
        read(request(ANONYMOUS, SENDER))


@pytest.mark.parametrize(
    ("metadata", "sender_public"),
    [(ANONYMOUS, public(SENDER)), (ATTESTED, None), (ATTESTED, public(OTHER))],
)
def test_a_request_is_only_opened_for_the_client_in_its_metadata(
    metadata: Metadata, sender_public: bytes | None
) -> None:
    reader = RequestReader()
    reader.feed(request(metadata, SENDER))
    with pytest.raises(LocalProtocolError, match="client's key in its metadata"):
        reader.open(RECIPIENT, CONFIG, sender_public)


def test_every_octet_after_the_metadata_counts() -> None:
    body = bytearray(request())
    for at in range(len(FRAMED), len(body)):
        body[at] ^= 1
        with pytest.raises(RemoteProtocolError):
            read(body)
        body[at] ^= 1
    assert read(body) == PIECES


def test_a_forged_missing_or_filled_final_chunk_is_refused() -> None:
    sealer = RequestSealer(CONFIG, AES, EPHEMERAL)
    body = FRAMED + sealer.header + sealer.seal(b"data")
    filled = b"\0" + sealer._context.seal(b"data", b"final")
    with pytest.raises(TruncatedError):
        read(body)
    with pytest.raises(DecryptionError):
        read(body + filled)
    with pytest.raises(DecryptionError):
        read(body + b"\0" + bytes(16))
    with pytest.raises(ChunkError):
        read(request() + b"\0")


def test_an_oversized_chunk_is_refused_before_it_is_there() -> None:
    sealer = RequestSealer(CONFIG, AES, EPHEMERAL)
    with pytest.raises(ChunkError):
        read(FRAMED + sealer.header + (MAX_CHUNK + 1 | 2 << 30).to_bytes(4, "big"))


def test_an_answer_can_begin_before_the_request_has_ended() -> None:
    sealer, reader = RequestSealer(CONFIG, AES, EPHEMERAL), RequestReader()
    opener = sealer.response_opener()
    reader.feed(FRAMED + sealer.header)
    reader.open(RECIPIENT, CONFIG)
    answer = reader.response_sealer(bytes(16))
    for event in (b"one", b"two"):
        reader.feed(sealer.seal(event))
        assert reader.read() == [event]
        prefix = answer.prefix if event == b"one" else b""
        assert opener.feed(prefix + answer.seal(event)) == [event]
    reader.feed(sealer.finish())
    assert reader.read() == []
    reader.finish()
    opener.feed(answer.finish())
    opener.finish()


def test_an_answer_opens_for_its_own_request_only() -> None:
    reader = opened(request())
    answer = reader.response_sealer(bytes(16))
    octets = answer.prefix + answer.seal(b"secret")
    other = RequestSealer(CONFIG, AES, OTHER).response_opener()
    with pytest.raises(DecryptionError):
        other.feed(octets)


def test_steps_out_of_order_are_our_own_fault() -> None:
    reader = RequestReader()
    for step in (reader.read, lambda: reader.open(RECIPIENT, CONFIG)):
        with pytest.raises(LocalProtocolError):
            step()
    reader.feed(request())
    for early in (reader.read, reader.finish, lambda: reader.response_sealer(bytes(16))):
        with pytest.raises(LocalProtocolError):
            early()
    reader.open(RECIPIENT, CONFIG)
    with pytest.raises(LocalProtocolError, match="opened once"):
        reader.open(RECIPIENT, CONFIG)
    with pytest.raises(LocalProtocolError, match="before all of it was read"):
        reader.finish()


def test_one_answer_is_sealed_and_a_bad_nonce_is_none() -> None:
    reader = opened(request())
    with pytest.raises(LocalProtocolError, match="expected 16"):
        reader.response_sealer(bytes(12))
    reader.response_sealer(bytes(16))
    with pytest.raises(LocalProtocolError, match="answered once"):
        reader.response_sealer(bytes(15) + b"\1")


def test_what_is_not_read_does_not_pile_up() -> None:
    reader = RequestReader()
    reader.feed(request() + bytes(MAX_UNREAD))
    with pytest.raises(LocalProtocolError, match="were not read"):
        reader.feed(b"x")


def test_a_large_body_leaves_no_more_than_a_chunk() -> None:
    sealer, reader = RequestSealer(CONFIG, AES, EPHEMERAL), RequestReader()
    reader.feed(FRAMED + sealer.header)
    reader.open(RECIPIENT, CONFIG)
    data, total = bytes(1 << 20), 0
    for _ in range(10):
        sealed = sealer.seal(data)
        for at in range(0, len(sealed), 65536):
            reader.feed(sealed[at : at + 65536])
            total += sum(map(len, reader.read()))
            assert len(reader._buffer) < MAX_CHUNK + 8
    assert total == 10 << 20


PREFIX = FRAMED + RequestSealer(CONFIG, AES, EPHEMERAL).header
GARBAGE = st.binary(max_size=80)


@given(st.lists(GARBAGE, max_size=4) | st.lists(GARBAGE, max_size=4).map(lambda f: [PREFIX, *f]))
def test_garbage_ends_in_a_refusal(feeds: list[bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        read(*feeds)


def test_a_zero_length_of_metadata_says_nothing_at_all() -> None:
    reader = RequestReader()
    reader.feed(bytes(4) + bytes(39))
    assert reader.metadata == Metadata(None)
    assert reader.header == RequestHeader(0, 0, 0, 0, bytes(32))
