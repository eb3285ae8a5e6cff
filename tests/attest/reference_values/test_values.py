from __future__ import annotations

import pytest

from tng.attest.reference_values.values import (
    MAX_NAME,
    MAX_VALUE,
    MAX_VALUES,
    check_values,
    merge,
)
from tng.errors import ConfigError


def test_lists_are_joined_once_each_and_other_values_are_replaced() -> None:
    old = {"list": ["a", "b"], "text": "old", "was list": ["a"], "kept": 1}
    new = {"list": ["b", "c"], "text": "new", "was list": "a", "added": [True]}
    assert merge(old, new, "here") == {
        "list": ["a", "b", "c"],
        "text": "new",
        "was list": "a",
        "kept": 1,
        "added": [True],
    }


def test_one_and_true_are_two_values() -> None:
    assert merge({"a": [1]}, {"a": [True]}, "here") == {"a": [1, True]}


def test_values_at_the_limits_are_taken() -> None:
    values = {"n" * MAX_NAME: "x" * (MAX_VALUE - 2)}
    assert check_values(values, "here") == values
    assert len(check_values({str(n): 1 for n in range(MAX_VALUES)}, "here")) == MAX_VALUES


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"": 1}, "expected names of 1 to 256"),
        ({"n" * (MAX_NAME + 1): 1}, "expected names of 1 to 256"),
        ({"a\n": 1}, "expected names of 1 to 256"),
        ({"a": "x" * MAX_VALUE}, "more than 65536 characters"),
        ({str(n): 1 for n in range(MAX_VALUES + 1)}, "more than 10000"),
    ],
    ids=["empty", "long", "line", "value", "many"],
)
def test_values_beyond_the_limits_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"here: .*{message}"):
        check_values(values, "here")


def test_two_sets_are_bounded_together() -> None:
    half = {str(n): 1 for n in range(MAX_VALUES)}
    with pytest.raises(ConfigError, match="more than 10000"):
        merge(half, {"one more": 1}, "here")
