"""tng.wire.protobuf: round trips, and bounded refusals."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.protobuf import (
    MAX_FIELDS,
    dump_fields,
    last_bytes,
    last_number,
    last_text,
    parse_fields,
)

NUMBERS = st.integers(1, 2**29 - 1)
VALUES = st.integers(0, 2**64 - 1) | st.binary(max_size=50)


def test_the_example_of_the_format_description() -> None:
    assert dump_fields([(1, 150)]) == bytes.fromhex("089601")
    assert dump_fields([(2, b"testing")]) == bytes.fromhex("120774657374696e67")


def test_fixed_width_fields_come_as_octets() -> None:
    assert parse_fields(b"\x09" + bytes(8) + b"\x15" + bytes(4)) == [(1, bytes(8)), (2, bytes(4))]


@given(st.lists(st.tuples(NUMBERS, VALUES), max_size=10))
def test_round_trip(fields: list[tuple[int, int | bytes]]) -> None:
    assert parse_fields(dump_fields(fields)) == fields


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x08", "within a number"),
        (b"\x08\x80", "within a number"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "64 bits"),
        (b"\x0a\x05abc", "cut short"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7fabc", "cut short"),
        (b"\x09abc", "cut short"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x00\x01", "number 0"),
        (b"\x08\x01" * (MAX_FIELDS + 1), "more than"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, word: str) -> None:
    with pytest.raises(RemoteProtocolError, match=word):
        parse_fields(data)


def test_as_many_fields_as_allowed_are_read() -> None:
    assert len(parse_fields(b"\x08\x01" * MAX_FIELDS)) == MAX_FIELDS


@pytest.mark.parametrize("field", [(0, 1), (2**29, 1), (1, -1), (1, 2**64)])
def test_what_protobuf_cannot_say_is_our_own_bug(field: tuple[int, int]) -> None:
    with pytest.raises(LocalProtocolError):
        dump_fields([field])


def test_the_last_value_of_a_field_counts_and_an_absent_one_is_empty() -> None:
    fields = parse_fields(dump_fields([(1, b"a"), (2, 3), (1, b"b"), (2, 4)]))
    assert (last_bytes(fields, 1), last_text(fields, 1), last_number(fields, 2)) == (b"b", "b", 4)
    assert (last_bytes(fields, 9), last_text(fields, 9), last_number(fields, 9)) == (b"", "", 0)


def test_a_field_of_another_kind_is_refused() -> None:
    fields = parse_fields(dump_fields([(1, b"\xff"), (2, 3)]))
    with pytest.raises(RemoteProtocolError, match="expected octets"):
        last_bytes(fields, 2)
    with pytest.raises(RemoteProtocolError, match="expected a number"):
        last_number(fields, 1)
    with pytest.raises(RemoteProtocolError, match="UTF-8"):
        last_text(fields, 1)


@given(st.binary(max_size=200))
def test_garbage_gives_fields_or_remote_protocol_errors(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        parse_fields(data)
