from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.trustee.json_body import parse_body, refuse_unknown, text_member
from tng.trustee.problems import ProblemCode, TrusteeRequestError


def test_an_object_is_read():
    assert parse_body('{"a":[1,null,true,"ä"]}'.encode()) == {"a": [1, None, True, "ä"]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"1",
        b"true",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b"[" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'{"a":[' + b"1," * 100_001 + b"1]}",
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_one_clear_object_is_refused(data):
    with pytest.raises(TrusteeRequestError) as caught:
        parse_body(data)
    assert caught.value.problem is ProblemCode.INVALID_JSON
    assert len(str(caught.value)) < 400


@given(st.binary(max_size=200))
def test_garbage_gives_a_refusal(data):
    with contextlib.suppress(TrusteeRequestError):
        parse_body(data)


def test_members_are_named_in_refusals():
    with pytest.raises(TrusteeRequestError, match="a: unknown member 'x', known: y"):
        refuse_unknown({"x": 1}, frozenset({"y"}), "a")
    with pytest.raises(TrusteeRequestError, match=r"^a\.x: expected a string, got null"):
        text_member({}, "x", "a")
    with pytest.raises(TrusteeRequestError, match="expected a string, got a number"):
        text_member(json.loads('{"x":1.5}'), "x")
