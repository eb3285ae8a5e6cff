"""One record is one line, in text and in JSON."""

from __future__ import annotations

import json
import logging
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.observe.lines import MAX_MESSAGE, JsonLine, TextLine


def make_record(message: object, *args: object, level: int = logging.INFO) -> logging.LogRecord:
    record = logging.LogRecord("tng.tunnel", level, "file.py", 7, message, args, None)  # type: ignore[arg-type]
    record.created = 1_795_300_800.25
    return record


def test_a_text_line_has_time_level_target_and_message() -> None:
    line = TextLine().format(make_record("tunnel open dst=%s", "model:8080"))
    assert line == "2026-11-21T22:40:00.250000Z  INFO tng.tunnel: tunnel open dst=model:8080"


@pytest.mark.parametrize(
    ("level", "word"),
    [(5, "TRACE"), (10, "DEBUG"), (20, " INFO"), (30, " WARN"), (40, "ERROR"), (50, "ERROR")],
)
def test_level_names_are_five_wide_and_those_of_the_reference(level: int, word: str) -> None:
    assert f"Z {word} tng.tunnel: x" in TextLine().format(make_record("x", level=level))


def test_a_json_line_is_an_object_of_four_members() -> None:
    line = JsonLine().format(make_record('said "%s"', "\u4f60\u597d"))
    assert json.loads(line) == {
        "timestamp": "2026-11-21T22:40:00.250000Z",
        "level": "INFO",
        "fields": {"message": 'said "\u4f60\u597d"'},
        "target": "tng.tunnel",
    }


@pytest.mark.parametrize("formatter", [TextLine(), JsonLine()])
def test_a_time_just_below_a_second_keeps_six_digits(formatter: logging.Formatter) -> None:
    record = make_record("x")
    record.created = 1_795_300_799.9999999
    assert re.search(r"2026-11-21T22:40:00\.000000Z", formatter.format(record))


@given(st.text(max_size=80))
def test_no_message_makes_a_second_line_or_moves_the_cursor(message: str) -> None:
    for formatter in (TextLine(), JsonLine()):
        line = formatter.format(make_record("%s", message))
        assert len(line.splitlines()) == 1
        assert "\x1b" not in line


def test_a_message_without_end_is_cut() -> None:
    line = TextLine().format(make_record("x" * (MAX_MESSAGE * 2)))
    assert len(line) < MAX_MESSAGE + 200
    assert f"({MAX_MESSAGE * 2} characters)" in line


def test_a_traceback_follows_and_is_redacted_too() -> None:
    try:
        int("Authorization: Bearer secret-value")
    except ValueError:
        trouble = sys.exc_info()
    record = make_record("it broke")
    record.exc_info = trouble
    text, fields = TextLine().format(record), json.loads(JsonLine().format(record))["fields"]
    assert "\nTraceback (most recent call last):" in text
    assert "secret-value" not in text
    assert fields["exception"].endswith("Authorization: Bearer ***'")
