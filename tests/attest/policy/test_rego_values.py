from __future__ import annotations

import pytest

from tng.attest.policy.rego_values import (
    UNDEFINED,
    count_of,
    elements,
    holds,
    is_in,
    look_up,
    same,
    text_of,
)
from tng.errors import UntrustedPeerError


def test_a_reference_ends_at_its_value_or_is_undefined() -> None:
    value = {"a": [{"b": None}], "c": "text"}
    assert look_up(value, "a", 0, "b") is None
    for path in (("x",), ("a", 1), ("a", "0"), ("c", 0), ("a", 0, "b", "c"), ("c", "c")):
        assert look_up(value, *path) is UNDEFINED


@pytest.mark.parametrize("value", [True, None, 0, "", [], {}])
def test_everything_but_false_and_undefined_holds(value: object) -> None:
    assert holds(value)


@pytest.mark.parametrize("value", [False, UNDEFINED])
def test_false_and_undefined_do_not_hold(value: object) -> None:
    assert not holds(value)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (True, True, True),
        ("1", 1, False),
        ([1, True], [1, True], True),
        ([1, True], [1, 1], False),
        ([1], [1, 1], False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1}, {"b": 1}, False),
        (None, None, True),
        (None, False, False),
    ],
)
def test_equality_tells_truth_from_numbers(one: object, other: object, equal: bool) -> None:
    assert same(one, other) is equal
    assert same(other, one) is equal


def test_membership_looks_at_values_of_arrays_and_objects_only() -> None:
    assert is_in("a", ["b", "a"])
    assert is_in("a", {"k": "a"})
    assert not is_in("k", {"k": "a"})
    assert not is_in("a", "a")
    assert not is_in("a", None)
    assert not is_in(UNDEFINED, [UNDEFINED])
    assert elements(3) == []


def test_a_string_function_gets_text_or_nothing() -> None:
    assert text_of("t", "x") == "t"
    assert text_of(UNDEFINED, "x") is None
    with pytest.raises(UntrustedPeerError, match="expected text at x, got NoneType"):
        text_of(None, "x")


def test_a_count_is_of_what_has_a_length() -> None:
    assert [count_of(value, "x") for value in ([1], {"a": 1}, "ab", UNDEFINED)] == [1, 1, 2, 0]
    with pytest.raises(UntrustedPeerError, match="expected an array at x, got int"):
        count_of(3, "x")
