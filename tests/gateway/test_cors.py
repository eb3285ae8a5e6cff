"""What browsers of other origins are told."""

from __future__ import annotations

from tng.config.ohttp import Cors
from tng.gateway.egress.cors import CorsPolicy

ORIGIN = (b"origin", b"https://a.example")


def policy(**settings: object) -> CorsPolicy:
    return CorsPolicy(Cors.model_validate(settings))


def test_a_star_allows_every_origin() -> None:
    fields = dict(policy(allow_origins=["*"]).fields([], is_preflight=False))
    assert fields[b"access-control-allow-origin"] == b"*"


def test_an_origin_is_repeated_only_if_it_is_listed() -> None:
    cors = policy(allow_origins=["https://a.example"])
    told = dict(cors.fields([ORIGIN], is_preflight=False))
    assert told[b"access-control-allow-origin"] == b"https://a.example"
    for other in (b"https://a.example.evil", b"http://a.example", b"null", b""):
        told = dict(cors.fields([(b"origin", other)], is_preflight=False))
        assert b"access-control-allow-origin" not in told
        assert b"origin" in told[b"vary"]


def test_methods_and_headers_are_told_in_preflights_alone() -> None:
    cors = policy(allow_methods=["GET", "POST"], allow_headers=["*"], expose_headers=["X"])
    assert dict(cors.fields([], is_preflight=True))[b"access-control-allow-methods"] == b"GET,POST"
    told = dict(cors.fields([], is_preflight=False))
    assert b"access-control-allow-methods" not in told
    assert b"access-control-allow-headers" not in told
    assert told[b"access-control-expose-headers"] == b"X"


def test_credentials_are_allowed_only_by_name() -> None:
    assert b"access-control-allow-credentials" not in dict(policy().fields([], is_preflight=True))
