"""What stands on the outside of an encapsulated request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.config.ohttp import HeaderPassthrough, PathRewrite
from tng.endpoint import Endpoint
from tng.tunnel.ohttp.outer import OuterPath, Passthrough, overwrite
from tng.tunnel.ohttp.outer_connection import chunk_of, post_head
from tng.tunnel.ohttp.recipients import OuterUrl
from tng.wire.http1_head import parse_request_head


def paths(*rules: tuple[str, str], default: str = "root") -> OuterPath:
    made = [PathRewrite(match_regex=match, substitution=text) for match, text in rules]
    return OuterPath(made, default)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "target", "outer"),
    [
        (("/foo/(.*)/idx", "/foo/$1"), b"/foo/bar/u/idx?q=1", b"/foo/bar/u"),
        (("/b/(.*)", "z/\\1"), b"/b/cc", b"/z/cc"),
        (("/b/(?P<x>.*)", "/${x}!"), b"/b/cc", b"/cc!"),
        (("/b/(.*)", "/$$1"), b"/b/cc", b"/$1"),
        (("/b/(.*)", "/\\\\1"), b"/b/cc", b"/\\\\1"),
        (("/b/(.*)", "/$2$x$1a"), b"/b/cc", b"/"),
        (("/b/(a)?.*", "/x$1"), b"/b/cc", b"/x"),
        (("/b", "/x"), b"/b/cc", b"/"),
        (("/b.*", "/a b?c#d"), b"/b", b"/a%20b%3Fc%23d"),
        ((".*", "/x"), b"*", b"/x"),
    ],
)
def test_the_outer_path_follows_the_rules(rule, target: bytes, outer: bytes) -> None:
    assert paths(rule).of(target) == outer


def test_the_first_rule_that_matches_counts_and_then_the_default() -> None:
    rules = (("/a.*", "/1"), ("/.*b", "/2"))
    assert paths(*rules).of(b"/ab") == b"/1"
    assert paths(*rules).of(b"/xb") == b"/2"
    assert paths(*rules).of(b"/x?b") == b"/"
    assert paths(*rules, default="original").of(b"/x%20y?b") == b"/x%20y"
    assert paths(default="original").of(b"*") == b"/"
    assert paths().of(b"/secret") == b"/"


@given(st.text(max_size=20), st.binary(max_size=20))
def test_whatever_the_rule_and_the_path_the_outer_path_can_be_written(text, path) -> None:
    try:
        rule = PathRewrite(match_regex="(?s)(.*)", substitution=text)
    except ValueError:
        return
    outer = OuterPath([rule], "root").of(b"/" + path)
    url = OuterUrl(Endpoint("h", 80), outer)
    assert parse_request_head(post_head(url, "/tng/tunnel", b"x", [], [])).target == outer


def test_only_named_fields_are_shown_and_some_never() -> None:
    fields = [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3"), (b"host", b"h"), (b"te", b"x")]
    named = Passthrough(HeaderPassthrough(request_headers=["X-A", "Host"], response_headers="all"))
    assert named.of_request(fields) == [(b"x-a", b"1"), (b"x-a", b"3")]
    assert named.of_response(fields) == fields[:3]
    assert Passthrough(None).of_request(fields) == []
    assert Passthrough(None).of_response(fields) == []


def test_a_copied_field_takes_the_place_of_those_with_its_name() -> None:
    fields = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    assert overwrite(fields, []) is fields
    assert overwrite(fields, [(b"a", b"x"), (b"a", b"y")]) == [(b"b", b"2"), (b"a", b"y")]


def test_fields_of_ours_are_left_out_where_the_operator_shows_others() -> None:
    url = OuterUrl(Endpoint("::1", 80), b"/x")
    more = [(b"accept", b"1"), (b"accept-encoding", b"2"), (b"user-agent", b"3")]
    head = parse_request_head(post_head(url, "/tng/tunnel", b"x", [], more))
    assert head.target == b"/x"
    assert [name for name, _ in head.fields] == [
        b"host",
        b"x-tng-ohttp-api",
        b"content-type",
        *(name for name, _ in more),
    ]
    assert head.fields[0] == (b"host", b"[::1]:80")
    assert chunk_of(b"a", b"", b"b") == b"2\r\nab\r\n"
