"""tng.wire.ohttp_chunks: bodies cut into chunks, and what must not pass for one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.hpke_aead import TAG_SIZE, DecryptionError, MessageOpener, MessageSealer, Suite
from tng.wire.ohttp_chunks import (
    MAX_CHUNK,
    MAX_PLAINTEXT,
    ChunkError,
    ChunkOpener,
    ChunkSealer,
    TruncatedError,
)

SUITE = Suite(1, 1)
KEY, NONCE = bytes(16), bytes(12)


def sealer() -> ChunkSealer:
    return ChunkSealer(MessageSealer(SUITE, KEY, NONCE))


def opener() -> ChunkOpener:
    return ChunkOpener(MessageOpener(SUITE, KEY, NONCE))


def body(*pieces: bytes) -> list[bytes]:
    """The chunks of a body, one for each piece, and the final one."""
    writer = sealer()
    return [*(writer.seal(piece) for piece in pieces), writer.finish()]


def read(*feeds: bytes) -> tuple[list[bytes], ChunkOpener, bytearray]:
    chunks, buffer, opened = opener(), bytearray(), []
    for octets in feeds:
        buffer += octets
        opened += chunks.take(buffer)
    return opened, chunks, buffer


def varint(value: int, width: int) -> bytes:
    return (value | (width.bit_length() - 1) << (8 * width - 2)).to_bytes(width, "big")


def test_a_body_is_read_as_it_was_written() -> None:
    opened, chunks, buffer = read(b"".join(body(b"one", b"two", b"three")))
    assert opened == [b"one", b"two", b"three"]
    assert chunks.is_final
    chunks.check_end(buffer)


def test_an_empty_body_is_its_final_chunk() -> None:
    assert len(sealer().finish()) == 1 + TAG_SIZE
    opened, chunks, _ = read(sealer().finish())
    assert opened == []
    assert chunks.is_final


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (0, []),
        (1, [1]),
        (MAX_PLAINTEXT - 1, [MAX_PLAINTEXT - 1]),
        (MAX_PLAINTEXT, [MAX_PLAINTEXT]),
        (MAX_PLAINTEXT + 1, [MAX_PLAINTEXT, 1]),
        (3 * MAX_PLAINTEXT, [MAX_PLAINTEXT] * 3),
    ],
)
def test_data_is_cut_into_as_few_chunks_as_possible(size: int, sizes: list[int]) -> None:
    writer, data = sealer(), bytes(range(256)) * (size // 256 + 1)
    sealed = writer.seal(memoryview(data)[:size])
    assert sealer().seal(bytearray(data[:size])) == sealed
    opened, _, _ = read(sealed)
    assert [len(plaintext) for plaintext in opened] == sizes
    assert b"".join(opened) == data[:size]


@pytest.mark.parametrize(
    ("plaintext", "prefix"),
    [
        (1, "11"),
        (47, "3f"),
        (48, "4040"),
        (16383 - 16, "7fff"),
        (16384 - 16, "80004000"),
        (16384, "80004010"),
    ],
)
def test_lengths_are_written_in_the_shortest_form(plaintext: int, prefix: str) -> None:
    assert sealer().seal(bytes(plaintext)).startswith(bytes.fromhex(prefix))


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_lengths_are_read_in_every_form(width: int) -> None:
    first, final = body(b"data")
    octets = varint(20, width) + first[1:] + varint(0, width) + final[1:]
    opened, chunks, _ = read(*(octets[at : at + 1] for at in range(len(octets))))
    assert opened == [b"data"]
    assert chunks.is_final


def test_every_split_in_two_reads_the_same() -> None:
    octets = b"".join(body(b"first", bytes(100), b"third"))
    whole, _, _ = read(octets)
    for at in range(len(octets) + 1):
        opened, chunks, _ = read(octets[:at], octets[at:])
        assert opened == whole
        assert chunks.is_final


@given(
    st.lists(st.binary(min_size=1, max_size=90), max_size=5),
    st.lists(st.integers(0, 500), max_size=6),
)
def test_every_split_reads_the_same(pieces: list[bytes], cuts: list[int]) -> None:
    octets = b"".join(body(*pieces))
    at = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    opened, chunks, buffer = read(*(octets[a:b] for a, b in itertools.pairwise(at)))
    assert opened == pieces
    assert chunks.is_final
    assert not buffer


def test_what_is_complete_is_opened_at_once_and_only_the_rest_is_kept() -> None:
    first, second, _ = body(b"first", b"second")
    opened, _, buffer = read(first + second[:-1])
    assert opened == [b"first"]
    assert buffer == second[:-1]


def test_an_empty_chunk_is_taken_and_gives_nothing() -> None:
    writer = MessageSealer(SUITE, KEY, NONCE)
    octets = b"\x10" + writer.seal(b"") + b"\x12" + writer.seal(b"ab")
    assert read(octets)[0] == [b"ab"]


@pytest.mark.parametrize(
    ("size", "widths"),
    [
        (1, [1, 2, 4, 8]),
        (15, [1, 2, 4, 8]),
        (MAX_CHUNK + 1, [4, 8]),
        ((1 << 30) - 1, [4, 8]),
        ((1 << 62) - 1, [8]),
    ],
)
def test_a_length_that_is_not_allowed_is_refused_before_its_octets_come(
    size: int, widths: list[int]
) -> None:
    for width in widths:
        with pytest.raises(ChunkError, match=f"has {size} octets, expected 16 to 16400"):
            read(varint(size, width))


def test_the_largest_chunk_is_waited_for() -> None:
    opened, _, buffer = read(varint(MAX_CHUNK, 4) + bytes(MAX_CHUNK - 1))
    assert opened == []
    assert len(buffer) == MAX_CHUNK + 3


def one(*chunks: bytes) -> bytes:
    return b"".join(chunks)


A, B, FINAL = body(b"data a", b"data b")
ONLY_FINAL = sealer().finish()
OTHER_KEY = ChunkSealer(MessageSealer(SUITE, b"\1" * 16, NONCE)).finish()


def final_with_data(data: bytes) -> bytes:
    return b"\0" + MessageSealer(SUITE, KEY, NONCE).seal(data, b"final")


@pytest.mark.parametrize(
    "octets",
    [
        one(B, A, FINAL),
        one(A, A, B, FINAL),
        one(B, FINAL),
        one(A, FINAL),
        one(A[:-1], bytes([A[-1] ^ 1]), B, FINAL),
        one(A, B, b"\0" + bytes(16)),
        one(A, B, FINAL[:-1], bytes([FINAL[-1] ^ 1])),
        one(A, B, b"\x10", FINAL[1:]),  # the final chunk as an ordinary one
        one(b"\0", A[1:17]),
        OTHER_KEY,
        final_with_data(b"x"),
        final_with_data(bytes(100)),
    ],
    ids=[
        "swapped", "repeated", "first left out", "second left out", "one bit changed",
        "final of zeros", "one bit of the final changed", "final sent as ordinary",
        "ordinary sent as final", "another key", "final with an octet", "final with data",
    ],
)  # fmt: skip
def test_what_was_not_sealed_at_this_place_is_refused_whole_and_split(octets: bytes) -> None:
    with pytest.raises(DecryptionError):
        read(octets)
    with pytest.raises(DecryptionError):
        read(*(octets[at : at + 1] for at in range(len(octets))))


def test_nothing_may_follow_the_final_chunk() -> None:
    octets = one(A, B, FINAL)
    for feeds in ((octets + b"\0",), (octets, b"\0"), (octets + octets,)):
        with pytest.raises(ChunkError, match="follow the final chunk"):
            read(*feeds)


@pytest.mark.parametrize("size", range(len(A + B + FINAL)))
def test_a_body_that_is_cut_short_is_refused(size: int) -> None:
    _, chunks, buffer = read(one(A, B, FINAL)[:size])
    assert not chunks.is_final
    with pytest.raises(TruncatedError, match=r"without its final chunk, after [012] chunks"):
        chunks.check_end(buffer)


def test_a_failure_stays_even_when_the_right_chunk_comes_later() -> None:
    chunks, buffer = opener(), bytearray(one(A, bytes([B[0]]), bytes(len(B) - 1)))
    kept = []
    for _ in range(3):
        with pytest.raises(DecryptionError, match="message 1 is forged") as caught:
            chunks.take(buffer)
        kept.append(caught)
        buffer += one(B, FINAL)
    assert not chunks.is_final
    with pytest.raises(TruncatedError):
        chunks.check_end(buffer)


def test_nothing_is_written_after_the_final_chunk() -> None:
    writer = sealer()
    writer.finish()
    for step in (writer.finish, lambda: writer.seal(b"more")):
        with pytest.raises(LocalProtocolError, match="follow the final chunk"):
            step()


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_garbage_is_refused_or_waits_for_more(feeds: list[bytes]) -> None:
    try:
        opened, chunks, _ = read(*feeds)
    except RemoteProtocolError:
        return
    assert opened == []
    assert not chunks.is_final


def test_the_rest_of_many_small_feeds_stays_small() -> None:
    octets = sealer().seal(bytes(10 * MAX_PLAINTEXT))
    chunks, buffer, most = opener(), bytearray(), 0
    for at in range(0, len(octets), 1000):
        buffer += octets[at : at + 1000]
        chunks.take(buffer)
        most = max(most, len(buffer))
    assert most < MAX_CHUNK + 8
    assert not buffer
