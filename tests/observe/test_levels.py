"""Directives for log levels are read as RUST_LOG's are, and refused where they make no sense."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import ConfigError, TngError
from tng.observe.levels import DEFAULT_DIRECTIVES, MAX_DIRECTIVES, OFF, TRACE, parse_levels


@pytest.mark.parametrize(
    ("text", "default", "by_name"),
    [
        ("debug", logging.DEBUG, {}),
        ("INFO,tng=Debug", logging.INFO, {"tng": logging.DEBUG}),
        ("warn, tng::tunnel=trace ,", logging.WARNING, {"tng.tunnel": TRACE}),
        ("tng", logging.ERROR, {"tng": TRACE}),
        ("tng=warning", logging.ERROR, {"tng": logging.WARNING}),
        ("off,tng=off", OFF, {"tng": OFF}),
        ("info,debug", logging.DEBUG, {}),
        ("tng=info,tng=debug", logging.ERROR, {"tng": logging.DEBUG}),
    ],
)
def test_directives_set_a_default_and_levels_by_name(text, default, by_name) -> None:
    levels = parse_levels(text)
    assert levels.default == default
    assert dict(levels.by_name) == by_name


@pytest.mark.parametrize("text", ["", "  ", ",,"])
def test_no_directive_means_the_default_ones(text) -> None:
    assert parse_levels(text) == parse_levels(DEFAULT_DIRECTIVES)
    assert parse_levels(text).default == logging.INFO


@pytest.mark.parametrize(
    "text", ["tng=loud", "=info", "tng=", "tng[span]=info", "a b", "tng=info=debug", "tng..x"]
)
def test_a_directive_that_is_not_understood_is_named(text) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_levels(f"info,{text}")
    assert repr(text) in str(caught.value)


def test_all_wrong_directives_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_levels("a=b,c=d")
    assert len(caught.value.problems) == 2


def test_too_many_directives_are_refused() -> None:
    parse_levels(",".join(["tng=info"] * MAX_DIRECTIVES))
    with pytest.raises(ConfigError):
        parse_levels(",".join(["tng=info"] * (MAX_DIRECTIVES + 1)))


@given(st.text(max_size=60))
def test_garbage_gives_levels_or_a_defined_error(text: str) -> None:
    try:
        parse_levels(text)
    except TngError:
        return
