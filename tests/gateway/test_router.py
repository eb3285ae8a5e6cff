"""`dst_filters`: which destinations are tunnelled."""

from __future__ import annotations

import pytest

from tng.config.model import DstFilter
from tng.endpoint import Endpoint
from tng.gateway.router import Router


def test_without_filters_everything_is_tunnelled() -> None:
    assert Router([]).is_tunnelled(Endpoint("example.org", 1))


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ({"domain": "*"}, "a.example:1", "127.0.0.1:1"),
        ({"domain": "*.example"}, "a.example:1", "example:1"),
        ({"domain": "*.example"}, "b.a.example:1", "a.examples:1"),
        ({"domain": "api*"}, "api.example:1", "my-api.example:1"),
        ({"domain": "a.example"}, "a.example:1", "A.example:1"),
        ({"domain_regex": "^a+$"}, "aaa:1", "aab:1"),
        ({"domain_regex": "am"}, "example:1", "exemple:1"),
        ({"domain_regex": "."}, "example:1", "127.0.0.1:1"),
        ({"ip": "127.0.0.1"}, "127.0.0.1:1", "127.0.0.2:1"),
        ({"ip": "127.0.0.1"}, "127.0.0.1:9", "localhost:9"),
        ({"ip_cidr": "10.0.0.0/8"}, "10.255.0.1:1", "11.0.0.1:1"),
        ({"port": 80}, "anything:80", "anything:81"),
        ({"port": 80, "port_end": 90}, "anything:90", "anything:91"),
        ({"domain": "a", "port": 80}, "a:80", "a:81"),
        ({"domain": "a", "port": 80}, "a:80", "b:80"),
    ],
)
def test_a_filter_tells_inside_from_outside(
    entry: dict[str, object], inside: str, outside: str
) -> None:
    router = Router([DstFilter.model_validate(entry)])
    assert router.is_tunnelled(endpoint(inside))
    assert not router.is_tunnelled(endpoint(outside))


def test_any_of_several_filters_is_enough() -> None:
    router = Router([DstFilter.model_validate({"domain": d}) for d in ("a", "b")])
    assert router.is_tunnelled(Endpoint("b", 1))
    assert not router.is_tunnelled(Endpoint("c", 1))


def endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(host, int(port))
