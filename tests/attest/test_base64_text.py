"""Base64 in either alphabet, and nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.base64_text import (
    decode_base64,
    decode_standard,
    dump_base64url,
    dump_standard,
)


@given(st.binary(max_size=100))
def test_what_any_encoder_writes_is_read(data: bytes) -> None:
    assert decode_base64(dump_base64url(data)) == data
    assert decode_base64(base64.urlsafe_b64encode(data).decode()) == data
    assert decode_base64(base64.b64encode(data).decode()) == data


def test_what_is_written_is_of_the_url_safe_alphabet_without_padding() -> None:
    assert dump_base64url(b"\xfb\xff\xfe\xff") == "-__-_w"


@pytest.mark.parametrize("text", ["A", "AA===", "A=A", "-_+/", "AA\n", " AAAA", "ä", "AAAA,"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not base64"):
        decode_base64(text)


@given(st.binary(max_size=100))
def test_the_standard_spelling_is_read_back(data: bytes) -> None:
    assert dump_standard(data) == base64.b64encode(data).decode()
    assert decode_standard(dump_standard(data)) == data


@pytest.mark.parametrize(
    "text", ["A", "AA", "AA=", "AB==", "AAAA=", "-_==", "AAA=\n", " AA==", "ä"]
)
def test_the_standard_spelling_is_the_only_one(text: str) -> None:
    with pytest.raises(ValueError, match="not"):
        decode_standard(text)
