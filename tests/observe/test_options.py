"""Log options come from flags, and variables override them."""

from __future__ import annotations

import pathlib

import pytest

from tng.errors import ConfigError
from tng.observe.options import LogFlags, LogFormat, LogOptions, log_options


def test_nothing_said_gives_text_on_standard_output() -> None:
    assert log_options(LogFlags(), {}) == LogOptions()


def test_flags_are_taken() -> None:
    flags = LogFlags("a.log", "json", "e.log", True, "1MB", "7")
    assert log_options(flags, {}) == LogOptions(
        levels="",
        format=LogFormat.JSON,
        file=pathlib.Path("a.log"),
        error_file=pathlib.Path("e.log"),
        rolling=True,
        max_size=1 << 20,
        max_backups=7,
    )


def test_variables_override_flags() -> None:
    environment = {
        "RUST_LOG": "info",
        "TNG_LOG": "debug",
        "TNG_LOG_FORMAT": "json",
        "TNG_LOG_ERROR_FILE": "other.log",
        "TNG_LOG_ROLLING": "true",
        "TNG_LOG_MAX_SIZE": "2GB",
        "TNG_LOG_MAX_BACKUPS": "0",
    }
    flags = LogFlags("a.log", "text", "e.log", False, "1MB", "7")
    assert log_options(flags, environment) == LogOptions(
        "debug",
        LogFormat.JSON,
        pathlib.Path("a.log"),
        pathlib.Path("other.log"),
        True,
        2 << 30,
        0,
    )


def test_a_variable_can_switch_rolling_off() -> None:
    flags = LogFlags("a.log", rolling=True)
    assert log_options(flags, {"TNG_LOG_ROLLING": "false"}).rolling is False


def test_rust_log_is_heard_where_tng_log_is_silent() -> None:
    assert log_options(LogFlags(), {"RUST_LOG": "tng=debug"}).levels == "tng=debug"


@pytest.mark.parametrize(("text", "octets"), [("1", 1), ("64MB", 64 << 20), ("3 kb", 3 << 10)])
def test_sizes_have_units(text: str, octets: int) -> None:
    assert log_options(LogFlags(max_size=text), {}).max_size == octets


@pytest.mark.parametrize(
    ("flags", "environment", "word"),
    [
        (LogFlags(format="xml"), {}, "xml"),
        (LogFlags(), {"TNG_LOG_FORMAT": "pretty"}, "pretty"),
        (LogFlags(max_size="0"), {}, "'0'"),
        (LogFlags(max_size="64 parsecs"), {}, "parsecs"),
        (LogFlags(max_size="-1"), {}, "-1"),
        (LogFlags(max_backups="many"), {}, "many"),
        (LogFlags(max_backups="1001"), {}, "1001"),
        (LogFlags(rolling=True), {}, "--log-file"),
        (LogFlags("a"), {"TNG_LOG_ROLLING": "perhaps"}, "perhaps"),
    ],
)
def test_a_value_that_is_not_understood_is_refused_by_its_name(flags, environment, word) -> None:
    with pytest.raises(ConfigError, match=word):
        log_options(flags, environment)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        log_options(LogFlags(format="xml", max_size="x", max_backups="y"), {})
    assert len(caught.value.problems) == 3
