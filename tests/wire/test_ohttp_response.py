"""tng.wire.ohttp_response: responses that open for one request only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.hpke_aead import DecryptionError, Suite
from tng.wire.ohttp_chunks import ChunkError, TruncatedError
from tng.wire.ohttp_response import ResponseOpener, ResponseSealer, response_nonce_size

AES, CHACHA = Suite(1, 1), Suite(1, 3)
SUITES = pytest.mark.parametrize("suite", [AES, CHACHA], ids=["aes", "chacha"])
ENC = bytes(range(32))


def secret(suite: Suite) -> bytes:
    return b"s" * response_nonce_size(suite)


def sealer(suite: Suite, nonce: bytes | None = None) -> ResponseSealer:
    size = response_nonce_size(suite)
    return ResponseSealer(secret(suite), ENC, suite, bytes(size) if nonce is None else nonce)


def body(suite: Suite, *pieces: bytes) -> bytes:
    writer = sealer(suite)
    return writer.prefix + b"".join(map(writer.seal, pieces)) + writer.finish()


def opener(suite: Suite) -> ResponseOpener:
    return ResponseOpener(secret(suite), ENC, suite)


def read(reader: ResponseOpener, *feeds: bytes | bytearray) -> list[bytes]:
    """Everything of a whole response."""
    opened = [part for octets in feeds for part in reader.feed(octets)]
    reader.finish()
    return opened


def test_the_nonce_has_the_size_of_the_key_but_at_least_of_an_aead_nonce() -> None:
    assert response_nonce_size(AES) == 16
    assert response_nonce_size(CHACHA) == 32
    with pytest.raises(LocalProtocolError):
        response_nonce_size(Suite(1, 2))


@SUITES
def test_a_response_is_read_as_it_was_written_whole_and_octet_by_octet(suite: Suite) -> None:
    octets = body(suite, b"head", b"data: 1\n\n", bytes(40_000))
    whole, split = opener(suite), opener(suite)
    opened = whole.feed(octets)
    assert b"".join(opened) == b"head" + b"data: 1\n\n" + bytes(40_000)
    assert [part for octet in octets for part in split.feed(bytes([octet]))] == opened
    for reader in (whole, split):
        assert reader.is_final
        reader.finish()


@SUITES
def test_an_event_is_opened_before_the_next_one_comes(suite: Suite) -> None:
    writer, reader = sealer(suite), opener(suite)
    assert reader.feed(writer.prefix) == []
    for event in (b"one", b"two"):
        assert reader.feed(writer.seal(event)) == [event]
    assert not reader.is_final
    assert reader.feed(writer.finish()) == []
    assert reader.is_final


@SUITES
def test_every_cut_is_noticed(suite: Suite) -> None:
    octets = body(suite, b"head", b"body")
    for size in range(len(octets)):
        reader = opener(suite)
        reader.feed(octets[:size])
        assert not reader.is_final
        with pytest.raises(TruncatedError):
            reader.finish()


@SUITES
def test_a_response_to_another_request_does_not_open(suite: Suite) -> None:
    octets = body(suite, b"head")
    other = [
        ResponseOpener(b"t" * response_nonce_size(suite), ENC, suite),
        ResponseOpener(secret(suite), ENC[::-1], suite),
    ]
    for reader in other:
        with pytest.raises(DecryptionError):
            reader.feed(octets)
        assert not reader.is_final


@SUITES
def test_every_octet_of_a_response_counts(suite: Suite) -> None:
    octets = bytearray(body(suite, b"head"))
    for at in range(len(octets)):
        octets[at] ^= 1
        reader = opener(suite)
        with pytest.raises(RemoteProtocolError):
            read(reader, octets)
        octets[at] ^= 1


def test_a_forged_or_missing_final_chunk_is_refused() -> None:
    octets = body(AES, b"head")
    missing = opener(AES)
    assert missing.feed(octets[:-17]) == [b"head"]
    with pytest.raises(TruncatedError):
        missing.finish()
    with pytest.raises(DecryptionError):
        opener(AES).feed(octets[:-16] + bytes(16))
    with pytest.raises(ChunkError, match="follow the final chunk"):
        opener(AES).feed(octets + b"\0")


@pytest.mark.parametrize("size", [0, 12, 15, 17, 32])
def test_a_nonce_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"has {size} octets, expected 16"):
        sealer(AES, bytes(size))


def test_nothing_is_written_after_the_end() -> None:
    writer = sealer(AES)
    writer.finish()
    with pytest.raises(LocalProtocolError):
        writer.seal(b"more")
    with pytest.raises(LocalProtocolError):
        writer.finish()


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_garbage_opens_nothing(feeds: list[bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        read(opener(AES), *feeds)
