"""Which plain requests an egress passes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.gateway.egress.direct_forward import DirectForward
from tng.wire.http1_head import Fields, RequestHead


def head(target: bytes, fields: Fields | None = None) -> RequestHead:
    return RequestHead(b"GET", target, b"1.1", fields or [], None, is_chunked=False)


@pytest.mark.parametrize(
    "target",
    [b"/public/x", b"/a/public/x", b"/public/x?y=/../z", b"/public/..x/y", b"/public/a..b"],
)
def test_a_pattern_is_searched_in_the_path(target: bytes) -> None:
    assert DirectForward(["/never", "/public/.*"]).takes(head(target))


@pytest.mark.parametrize(
    "target",
    [
        b"/secret",
        b"/secret?x=/public/x",
        b"*",
        b"http://h/public/x",
        b"h:1",
        b"/public/../secret",
        b"/public/..",
        b"/public/./x",
        b"/public/%2e%2e/secret",
        b"/public/.%2E/secret",
        b"/public/..%2fsecret",
        b"/public/..\\secret",
        b"/public\\..\\secret",
        b"/public/..;/secret",
    ],
)
def test_what_does_not_match_or_could_lead_elsewhere_stays_out(target: bytes) -> None:
    assert not DirectForward(["/public/.*", "public"]).takes(head(target))


def test_a_request_of_tng_is_never_a_plain_one() -> None:
    assert not DirectForward([".*"]).takes(head(b"/", [(b"x-tng-ohttp-api", b"")]))


def test_nothing_is_exempted_where_nothing_is_configured() -> None:
    assert not DirectForward([]).takes(head(b"/"))


@given(st.text(alphabet="./%2eE\\;ap", max_size=12))
def test_no_dot_segment_passes(rest: str) -> None:
    import urllib.parse

    path = "/public/" + rest
    taken = DirectForward(["/public/"]).takes(head(path.encode()))
    segments = urllib.parse.unquote(path).replace("\\", "/").split("/")
    if any(segment.split(";")[0] in (".", "..") for segment in segments):
        assert not taken
