"""Credentials do not survive in a log message; everything else does."""

from __future__ import annotations

import time

import pytest

from tng.observe.redaction import redact

SECRET = "c2VjcmV0LXZhbHVl-123456"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ0ZXN0In0.c2lnbmF0dXJlLXNpZ25hdHVyZQ"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization: Basic {SECRET}",
        f"Proxy-Authorization: Basic {SECRET}",
        f"headers={{'Authorization': 'Bearer {SECRET}', 'a': 'b'}}",
        f"[(b'Authorization', b'Bearer {SECRET}')]",
        f'{{"authorization":"{SECRET}"}}',
        f"got bearer {SECRET} here",
        f"x-api-key: {SECRET}",
        f"api_key={SECRET}",
        f"Set-Cookie: {SECRET}",
        f"http://user:{SECRET}@host/path",
        f"token {JWT} refused",
        f"key sk-{SECRET} used",
        f"password={SECRET}",
    ],
)
def test_a_credential_is_masked(text: str) -> None:
    masked = redact(text)
    assert SECRET not in masked
    assert JWT[8:] not in masked
    assert "***" in masked


@pytest.mark.parametrize(
    "text",
    [
        "downstream_remote=127.0.0.1:1 -> downstream_local=127.0.0.1:2(mapping)",
        "the bearer of news",
        "GET http://host:8080/v1/models",
        "policy default, eyJ is how tokens begin",
        "no authorization here",
        "risk-averse task-forces",
    ],
)
def test_text_without_a_credential_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_the_rest_of_a_line_stays() -> None:
    assert redact(f"a Authorization: Bearer {SECRET} b") == "a Authorization: Bearer *** b"
    assert redact(f"to http://u:{SECRET}@host/x") == "to http://***@host/x"


@pytest.mark.parametrize("unit", ["eyJa", "http://", "authorization", "bearer ", "a", "-", "sk-"])
def test_a_long_hostile_line_costs_linear_time(unit: str) -> None:
    started = time.perf_counter()
    redact(unit * (16_384 // len(unit)))
    assert time.perf_counter() - started < 0.25
