"""tng.wire.ohttp_metadata: both dialects, limits, and messages with two readings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import LocalProtocolError
from tng.wire.ohttp_metadata import (
    MAX_METADATA,
    AttestedKey,
    Metadata,
    MetadataMalformedError,
    MetadataTooLongError,
    dump_metadata,
    frame_metadata,
    parse_metadata,
    take_metadata,
)
from tng.wire.protobuf import dump_fields

KEY = bytes(range(32))
CLIENT_KEY = bytes(range(32, 64))
HINT = (3, dump_fields([(1, KEY)]))
CLIENT = (2, dump_fields([(1, b"token"), (2, CLIENT_KEY), (3, b"coco")]))


def test_an_anonymous_client_takes_38_octets() -> None:
    encoded = bytes.fromhex("0a001a220a20") + KEY
    assert dump_metadata(Metadata(KEY, is_anonymous=True)) == encoded
    assert frame_metadata(Metadata(KEY, is_anonymous=True)) == b"\0\0\0\x26" + encoded
    assert parse_metadata(encoded) == Metadata(KEY, None, True)


def test_a_client_of_the_cohere_dialect_says_nothing_of_itself() -> None:
    encoded = bytes.fromhex("1a220a20") + KEY
    assert dump_metadata(Metadata(KEY)) == encoded
    assert parse_metadata(encoded) == Metadata(KEY, None, False)


def test_an_attested_client() -> None:
    metadata = Metadata(KEY, AttestedKey("token", CLIENT_KEY, "ita"))
    encoded = dump_metadata(metadata)
    assert encoded[0] == 0x12
    assert parse_metadata(encoded) == metadata


def test_an_empty_provider_means_coco() -> None:
    client = dump_fields([(1, b"token"), (2, CLIENT_KEY)])
    assert parse_metadata(dump_fields([(2, client), HINT])) == Metadata(
        KEY, AttestedKey("token", CLIENT_KEY, "coco")
    )


@pytest.mark.parametrize("encoded", [b"", b"\x0a\x00", b"\x1a\x00", b"\x1a\x02\x0a\x00"])
def test_a_missing_hint_is_none(encoded: bytes) -> None:
    assert parse_metadata(encoded).key_hint is None
    assert dump_metadata(Metadata(None)) == b""


def test_fields_of_newer_versions_are_passed_over() -> None:
    fields = [(1, dump_fields([(9, 1)])), (4, 7), (5, b"new"), HINT]
    assert parse_metadata(dump_fields(fields)) == Metadata(KEY, None, True)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
CLIENTS = st.builds(AttestedKey, TEXTS, st.binary(min_size=32, max_size=32), TEXTS)
HINTS = st.none() | st.binary(min_size=1, max_size=40)


@given(st.builds(Metadata, HINTS, CLIENTS) | st.builds(Metadata, HINTS, st.none(), st.booleans()))
def test_round_trip(metadata: Metadata) -> None:
    assert parse_metadata(dump_metadata(metadata)) == metadata


@pytest.mark.parametrize(
    ("encoded", "word"),
    [
        (b"\x0a", "within a number"),
        (b"\x0a\x05abc", "cut short"),
        (b"\x0b", "wire type 3"),
        (dump_fields([(1, b""), CLIENT, HINT]), "anonymous and attested"),
        (dump_fields([CLIENT, (1, b""), HINT]), "anonymous and attested"),
        (dump_fields([CLIENT, CLIENT, HINT]), "field 2 is not exactly one"),
        (dump_fields([(1, b""), (1, b"")]), "field 1 is not exactly one"),
        (dump_fields([HINT, HINT]), "field 3 is not exactly one"),
        (dump_fields([(1, 1), HINT]), "field 1 is not exactly one"),
        (dump_fields([(2, 1), HINT]), "field 2 is not exactly one"),
        (dump_fields([(3, 1)]), "field 3 is not exactly one"),
        (dump_fields([(3, b"\xff")]), "within a number"),
        (dump_fields([(3, dump_fields([(1, 5)]))]), "field 1 is a number"),
        (dump_fields([(2, b"")]), "without a token"),
        (dump_fields([(2, dump_fields([(2, CLIENT_KEY)]))]), "without a token"),
        (dump_fields([(2, dump_fields([(1, b"t")]))]), "key of 0 octets"),
        (dump_fields([(2, dump_fields([(1, b"t"), (2, KEY[1:])]))]), "key of 31 octets"),
        (dump_fields([(2, dump_fields([(1, b"\xff"), (2, KEY)]))]), "not UTF-8"),
        (dump_fields([(2, dump_fields([(1, b"t"), (2, KEY), (3, b"\xff")]))]), "not UTF-8"),
        (dump_fields([(2, dump_fields([(1, b"t"), (2, 7)]))]), "field 2 is a number"),
    ],
)
def test_what_is_no_metadata_or_can_be_read_in_two_ways_is_refused(
    encoded: bytes, word: str
) -> None:
    with pytest.raises(MetadataMalformedError, match=word):
        parse_metadata(encoded)


@given(st.binary(max_size=100))
def test_garbage_is_metadata_or_malformed(encoded: bytes) -> None:
    try:
        metadata = parse_metadata(encoded)
    except MetadataMalformedError:
        return
    assert metadata.client is None or len(metadata.client.public_key) == 32


@pytest.mark.parametrize(
    "metadata",
    [
        Metadata(KEY, AttestedKey("token", CLIENT_KEY), is_anonymous=True),
        Metadata(KEY, AttestedKey("token", CLIENT_KEY[1:])),
    ],
)
def test_what_no_egress_would_take_is_not_written(metadata: Metadata) -> None:
    with pytest.raises(LocalProtocolError):
        dump_metadata(metadata)


def test_a_token_is_in_no_repr() -> None:
    assert "SECRET" not in repr(Metadata(KEY, AttestedKey("SECRET", CLIENT_KEY)))


def attested(size: int) -> Metadata:
    """Metadata of exactly `size` octets."""
    rest = len(dump_metadata(Metadata(KEY, AttestedKey("x" * 200_000, CLIENT_KEY)))) - 200_000
    return Metadata(KEY, AttestedKey("x" * (size - rest), CLIENT_KEY))


def test_metadata_at_the_limit_is_written_and_taken_and_one_octet_more_is_neither() -> None:
    metadata = attested(MAX_METADATA)
    assert take_metadata(bytearray(frame_metadata(metadata))) == metadata
    with pytest.raises(LocalProtocolError, match="262145 octets, limit 262144"):
        frame_metadata(attested(MAX_METADATA + 1))
    with pytest.raises(MetadataTooLongError, match="262145 octets announced, limit 262144"):
        take_metadata(bytearray((MAX_METADATA + 1).to_bytes(4, "big")))


def test_metadata_is_taken_when_it_is_whole_and_the_rest_is_left() -> None:
    framed = frame_metadata(Metadata(KEY, is_anonymous=True))
    for size in range(len(framed)):
        buffer = bytearray(framed[:size])
        assert take_metadata(buffer) is None
        assert buffer == framed[:size]
    buffer = bytearray(framed + b"rest")
    assert take_metadata(buffer) == Metadata(KEY, None, True)
    assert buffer == b"rest"


def test_malformed_metadata_is_malformed_every_time() -> None:
    buffer = bytearray(b"\0\0\0\1\x0b")
    for _ in range(2):
        with pytest.raises(MetadataMalformedError):
            take_metadata(buffer)
