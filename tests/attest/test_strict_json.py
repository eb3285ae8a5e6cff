"""JSON with one meaning."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.strict_json import MAX_DEPTH, parse_json, parse_object, same_json


def test_plain_values_are_read():
    assert parse_json(b' {"a":[1,2.5,null,true,"\\u00e9"]} ') == {"a": [1, 2.5, None, True, "é"]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{} {}",
        b'{"a":1,"a":1}',
        b'[{"a":{"b":1,"b":2}}]',
        b"NaN",
        b"-Infinity",
        b"[" * 100_000,
        b"1" * 5000,
    ],
)
def test_ambiguous_or_broken_text_is_an_error(data):
    with pytest.raises(ValueError):
        parse_json(data)


def test_depth_is_limited_exactly():
    parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(ValueError, match="deeper"):
        parse_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize("data", [b"[]", b"1", b'"x"', b"null"])
def test_only_objects_are_objects(data):
    with pytest.raises(ValueError, match="object"):
        parse_object(data)


def test_equality_is_that_of_json():
    assert same_json({"a": 1, "b": [2]}, {"b": [2], "a": 1})
    assert not same_json(True, 1)
    assert not same_json(1, 1.0)
    assert not same_json("1", 1)


@given(st.binary(max_size=100))
def test_garbage_gives_a_value_or_a_value_error(data):
    try:
        value = parse_json(data)
    except ValueError:
        return
    assert same_json(value, json.loads(data))
