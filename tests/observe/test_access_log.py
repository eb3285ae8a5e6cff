"""The access log keeps the three shapes of line to the letter."""

from __future__ import annotations

import logging

import pytest

from tng.endpoint import Endpoint
from tng.observe.access_log import AccessRecord, log_access

CLIENT = Endpoint("127.0.0.1", 50654)
LISTENER = Endpoint("127.0.0.1", 41000)


def test_a_connected_line_names_all_four_addresses() -> None:
    record = AccessRecord(
        CLIENT,
        LISTENER,
        "http_proxy",
        upstream_remote=Endpoint("::1", 8080),
        upstream_local=Endpoint("::1", 40000),
        encrypted=True,
        attested=True,
    )
    assert str(record) == (
        "downstream_remote=127.0.0.1:50654 -> downstream_local=127.0.0.1:41000(http_proxy)"
        " -> upstream_local=[::1]:40000 -> upstream_remote=[::1]:8080"
        " \u2014 encrypted=true attested=true"
    )


def test_a_line_without_an_upstream_connection_says_not_connected() -> None:
    record = AccessRecord(CLIENT, LISTENER, "mapping", upstream_remote="model:1", encrypted=True)
    assert str(record) == (
        "downstream_remote=127.0.0.1:50654 -> downstream_local=127.0.0.1:41000(mapping)"
        " -> (..) -> upstream_remote=model:1 \u2014 not connected encrypted=true"
    )


def test_a_line_without_a_destination_says_accepted_only() -> None:
    assert str(AccessRecord(CLIENT, LISTENER, "mapping")) == (
        "downstream_remote=127.0.0.1:50654 -> downstream_local=127.0.0.1:41000(mapping)"
        " \u2014 accepted only"
    )


@pytest.mark.parametrize(
    ("record", "level"),
    [
        (AccessRecord(CLIENT, LISTENER, "mapping", "a:1", "b:2"), logging.INFO),
        (AccessRecord(CLIENT, LISTENER, "mapping", "a:1"), logging.ERROR),
        (AccessRecord(CLIENT, LISTENER, "mapping"), logging.ERROR),
    ],
)
def test_only_a_connected_line_is_no_error(
    record: AccessRecord, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        log_access(record)
    assert [(entry.name, entry.levelno, entry.getMessage()) for entry in caplog.records] == [
        ("tng.access", level, str(record))
    ]


def test_a_line_that_nobody_wants_is_never_made(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="tng.access"):
        log_access(AccessRecord(CLIENT, LISTENER, "mapping", "a:1", "b:2"))
    assert caplog.records == []
