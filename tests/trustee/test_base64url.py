from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.base64_text import dump_base64url
from tng.trustee.base64url import parse_base64url
from tng.trustee.problems import TrusteeRequestError


@given(st.binary(max_size=100))
def test_what_is_dumped_is_parsed_with_and_without_padding(data):
    assert parse_base64url(dump_base64url(data), "f") == data
    assert parse_base64url(base64.urlsafe_b64encode(data).decode(), "f") == data


@pytest.mark.parametrize(
    "text",
    ["A", "AAAAA", "AA=", "AAA==", "A===", "AA===", "+/AA", "AA\n", " AAAA", "AA=A", "ä", "="],
)
def test_anything_else_is_refused(text):
    with pytest.raises(TrusteeRequestError, match="f: not base64url") as caught:
        parse_base64url(text, "f")
    assert caught.value.http_status == 400
