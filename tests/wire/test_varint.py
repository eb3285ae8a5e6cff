"""Variable-length integers: written short, read in every form, whole and cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import LocalProtocolError
from tng.wire.varint import MAX_VARINT, dump_varint, read_varint


@pytest.mark.parametrize(
    ("number", "octets"),
    [
        (0, "00"),
        (37, "25"),
        (63, "3f"),
        (64, "4040"),
        (15293, "7bbd"),
        ((1 << 14) - 1, "7fff"),
        (1 << 14, "80004000"),
        (494878333, "9d7f3e7d"),
        ((1 << 30) - 1, "bfffffff"),
        (1 << 30, "c000000040000000"),
        (151288809941952652, "c2197c5eff14e88c"),
        (MAX_VARINT, "ffffffffffffffff"),
    ],
)
def test_numbers_are_written_as_short_as_possible(number: int, octets: str) -> None:
    assert dump_varint(number).hex() == octets  # RFC 9000, appendix A.1, and the borders


@pytest.mark.parametrize("number", [-1, MAX_VARINT + 1])
def test_there_is_no_other_number(number: int) -> None:
    with pytest.raises(LocalProtocolError):
        dump_varint(number)


@pytest.mark.parametrize("octets", ["25", "4025", "80000025", "c000000000000025"])
def test_longer_forms_are_read(octets: str) -> None:
    data = bytes.fromhex(octets)
    assert read_varint(data, 0) == (37, len(data))


@given(st.integers(0, MAX_VARINT), st.binary(max_size=9), st.binary(max_size=9))
def test_what_is_written_is_read_wherever_it_stands(
    number: int, before: bytes, after: bytes
) -> None:
    written = dump_varint(number)
    end = len(before) + len(written)
    for data in (before + written + after, memoryview(before + written + after)):
        assert read_varint(data, len(before)) == (number, end)


@given(st.integers(0, MAX_VARINT), st.binary(max_size=9))
def test_a_number_that_is_cut_says_how_far_it_reaches(number: int, before: bytes) -> None:
    written = dump_varint(number)
    end = len(before) + len(written)
    assert read_varint(before, len(before)) == (0, len(before) + 1)
    for cut in range(1, len(written)):
        assert read_varint(before + written[:cut], len(before)) == (0, end)
