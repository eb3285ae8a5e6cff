"""Lines for operators: safe to print, and with the nearest known word."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tng.config.loader import parse_config
from tng.config.problems import closest, describe, dump_path, problem_lines, quote
from tng.config.strict import StrictModel
from tng.errors import ConfigError


@given(st.text(max_size=300))
def test_a_quoted_text_is_short_and_printable_ascii(text: str) -> None:
    shown = quote(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 6 * 2 * 70


@pytest.mark.parametrize(
    "text",
    [
        "http://user:pa55@host/",
        "user:pa55@host",
        "//pa55@",
        "http://a/pa55@h",
        "http:/u:pa55@h",
        "x" * 10 + "//pa55" + "y" * 500 + "@h",
        "pa55@//",
    ],
)
def test_what_stands_before_an_at_sign_may_be_a_password(text: str) -> None:
    assert "pa55" not in quote(text)


def test_a_path_quotes_keys_that_are_not_plain() -> None:
    assert dump_path(()) == "configuration"
    assert dump_path(("a", 0, "b", 1)) == "a[0].b[1]"
    assert dump_path(("a", "b\nc")) == 'a["b\\nc"]'


def test_a_value_is_described_with_its_type() -> None:
    values = [None, True, False, 1, 1.5, "x", [], {}, {"a": 1}]
    assert list(map(describe, values)) == [
        "null", "true", "false", "the integer 1", "the number 1.5", 'the string "x"', "a list",
        "an object", "an object",
    ]  # fmt: skip


def test_a_word_far_from_all_known_ones_has_no_hint() -> None:
    assert closest("zzzz", ["as_addr"]) == ""
    assert closest("as_address", ["as_addr", "aa_addr"]) == ', did you mean "as_addr"?'


class _Loose(StrictModel):
    number: int
    api_key: int


def test_an_error_without_words_of_its_own_is_told_in_those_of_the_library() -> None:
    data = {"number": "x", "api_key": "hush"}
    with pytest.raises(ValidationError) as caught:
        _Loose.model_validate(data)
    first, second = problem_lines(caught.value, data, _Loose)
    assert first.startswith("number: input should be a valid integer")
    assert first.endswith('got the string "x"')
    assert second.endswith("got ***")


def test_a_key_from_outside_cannot_forge_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(json.dumps({"x\nERROR all is lost \u202e": 1}))
    (line,) = caught.value.problems
    assert line.isprintable()
    assert line.startswith('configuration: unknown key "x\\nERROR all is lost \\u202e"')


def test_the_value_of_an_unknown_key_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(json.dumps({"api_kye": "hush"}))
    assert "hush" not in str(caught.value)
