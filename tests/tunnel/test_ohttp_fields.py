"""Which header fields travel on."""

from __future__ import annotations

import pytest

from tng.tunnel.ohttp.fields import asks_upgrade, end_to_end
from tng.wire.http1_head import Fields


def test_fields_of_one_hop_stay_and_the_others_keep_their_order() -> None:
    fields: Fields = [
        (b"set-cookie", b"1"),
        (b"connection", b"close, X-Hop ,"),
        (b"x-hop", b"1"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"1"),
        (b"expect", b"100-continue"),
        (b"x-tng-http-forward", b"true"),
        (b"trailer", b"x-sum"),
        (b"set-cookie", b"2"),
    ]
    assert end_to_end(fields, keep_host=True) == [
        (b"set-cookie", b"1"),
        (b"trailer", b"x-sum"),
        (b"set-cookie", b"2"),
    ]


@pytest.mark.parametrize("name", [b"content-length", b"host"])
def test_what_frames_or_addresses_a_message_cannot_be_named_away(name: bytes) -> None:
    fields = [(b"connection", name), (name, b"1")]
    assert end_to_end(fields, keep_host=True) == [(name, b"1")]


def test_a_host_is_of_requests_alone() -> None:
    assert end_to_end([(b"host", b"a")], keep_host=False) == []


@pytest.mark.parametrize(
    ("value", "kept"), [(b"trailers", True), (b"deflate, Trailers", True), (b"gzip", False)]
)
def test_of_te_only_the_wish_for_trailers_travels(value: bytes, kept: bool) -> None:
    expected = [(b"te", b"trailers")] if kept else []
    assert end_to_end([(b"te", value)], keep_host=True) == expected


@pytest.mark.parametrize(
    ("fields", "asks"),
    [
        ([], False),
        ([(b"upgrade", b"h2c")], False),
        ([(b"upgrade", b"H2C, ")], False),
        ([(b"upgrade", b"websocket")], True),
        ([(b"upgrade", b"h2c"), (b"upgrade", b"h2c, x")], True),
        ([(b"x-upgrade", b"websocket")], False),
    ],
)
def test_only_what_cannot_be_left_counts_as_an_upgrade(fields: Fields, asks: bool) -> None:
    assert asks_upgrade(fields) is asks
