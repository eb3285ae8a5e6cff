"""A secret is shown by nothing but `reveal`."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from tng.config.secret import Secret


class Holder(BaseModel):
    key: Secret


def test_nothing_that_prints_by_itself_shows_a_secret() -> None:
    secret = Secret("hush")
    holder = Holder.model_validate({"key": "hush"})
    shown = f"{secret} {secret!r} {[secret]} {holder} {holder!r} {holder.model_dump_json()}"
    assert "hush" not in shown
    assert str(secret) == "***"
    assert holder.key.reveal() == "hush"


def test_secrets_are_equal_when_their_texts_are() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("\ud800")}) == 2


@pytest.mark.parametrize("value", ["", "x" * 16_385, "a\0b", 5, None, ["hush"]])
def test_what_is_no_text_is_refused_without_being_shown(value: object) -> None:
    with pytest.raises(ValidationError, match=r"got \*\*\*"):
        Holder.model_validate({"key": value})


def test_a_secret_may_be_handed_over_as_one() -> None:
    assert Holder(key=Secret("a")).key.reveal() == "a"
