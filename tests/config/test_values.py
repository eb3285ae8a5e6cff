"""Single values: the nearest wrong one is refused, and nothing is converted."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tng.config.values import Host, Port, Url


@pytest.mark.parametrize(
    "host", ["localhost", "a", "a.b-c.example", "x_y", "1.2.3.4", "::1", "host.", "1a", "a" * 63]
)
def test_names_and_addresses_are_hosts(host: str) -> None:
    assert TypeAdapter(Host).validate_python(host) == host


@pytest.mark.parametrize(
    "host",
    [
        *("", ".", "a..b", "-a", "a-", "[::1]", "1.2.3", "256.1.1.1", "a b", "a/b", "a:1", "é"),
        *("a\n", "a" * 64, ".".join(["a" * 60] * 5), 5, None, b"a"),
    ],
)
def test_what_is_neither_a_name_nor_an_address_is_no_host(host: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Host).validate_python(host)


@pytest.mark.parametrize(
    "url",
    ["http://h", "https://h/", "http://h:1/a/b", "http://[::1]:8080/as/", "http://1.2.3.4"],
)
def test_urls_of_services_are_taken_unchanged(url: str) -> None:
    assert TypeAdapter(Url).validate_python(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *("h", "ftp://h", "http://", "http:///x", "//h", "http://h:0", "http://h:65536"),
        *("http://h:x", "http://h?q", "http://h?", "http://h#f", "http://h#", "http://u@h"),
        *("http://u:p@h", "http://[::1", "http://h /x", "http://1.2.3/", "http://:1/"),
        *("http://a\u2100b/", 5),
    ],
)
def test_what_is_no_url_of_a_service_is_refused(url: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Url).validate_python(url)


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.binary() | st.none())
def test_a_port_is_an_integer_in_range_and_nothing_else(value: object) -> None:
    try:
        assert TypeAdapter(Port).validate_python(value) is value
    except ValidationError:
        assert type(value) is not int or not 1 <= value <= 65535
    else:
        assert type(value) is int


@given(st.text())
def test_any_text_is_a_url_or_a_validation_error(text: str) -> None:
    for candidate in (text, f"http://{text}", f"http://h{text}"):
        with contextlib.suppress(ValidationError):
            assert TypeAdapter(Url).validate_python(candidate) == candidate
