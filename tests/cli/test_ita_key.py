"""The API key in the environment reaches the sections that need one, and no others."""

from __future__ import annotations

import json

import pytest

from tng.cli.ita_key import with_ita_key

KEY = {"ITA_API_KEY": "s3cret"}


def test_sections_without_a_key_get_it() -> None:
    section = {"as_provider": "ita"}
    text = json.dumps({"add_ingress": [{"verify": [section, {"as_provider": "coco"}]}]})
    filled = json.loads(with_ita_key(text, KEY))
    assert filled["add_ingress"][0]["verify"] == [
        {"as_provider": "ita", "api_key": "s3cret"},
        {"as_provider": "coco"},
    ]


def test_a_key_that_was_written_stays() -> None:
    text = json.dumps({"verify": {"as_provider": "ita", "api_key": "mine"}})
    assert with_ita_key(text, KEY) == text


@pytest.mark.parametrize("text", ["{", '{"a":1,"a":"ita"}', "{}", '{"as_provider":"ita"}'])
def test_other_texts_come_out_as_they_are(text: str) -> None:
    assert with_ita_key(text, {}) == text
    if "as_provider" not in text:
        assert with_ita_key(text, KEY) == text
