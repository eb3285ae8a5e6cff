"""A gateway captures what its configuration says, and otherwise nothing at all."""

from __future__ import annotations

import json
import socket

import pytest

from stage.gateways import http_proxy
from tng.config.loader import parse_config
from tng.errors import ConfigError
from tng.gateway.netfilter.capturing import Captures
from tng.gateway.netfilter.factory import NoCaptures, make_captures


def captures_for(**config: object) -> Captures | NoCaptures:
    return make_captures(parse_config(json.dumps(config)))


@pytest.mark.parametrize(
    ("side", "mode", "rule"),
    [
        ("add_ingress", "netfilter", {"port": 443}),
        ("add_egress", "netfilter", {"port": 443}),
        ("add_ingress", "netfilter_udp", {"port": 443}),
        ("add_egress", "netfilter_udp", {"port": 443}),
    ],
)
def test_each_netfilter_mode_captures(side: str, mode: str, rule: dict[str, object]) -> None:
    plain = {**http_proxy(4001), "no_ra": True}
    entry = {mode: {"capture_dst": rule, "so_mark": 77}, "no_ra": True}
    captures = captures_for(**{"add_ingress": [plain], side: [entry]})
    assert isinstance(captures, Captures)
    assert captures.own_mark == 77


def test_what_cannot_be_captured_is_refused() -> None:
    entry = {"netfilter": {"capture_dst": {"host": "fd00::/8"}}, "no_ra": True}
    with pytest.raises(ConfigError, match="IPv6 is not captured"):
        captures_for(add_ingress=[entry])


async def test_without_a_netfilter_mode_nothing_is_allowed_prepared_or_changed() -> None:
    captures = captures_for(add_ingress=[{**http_proxy(4001), "no_ra": True}])
    assert isinstance(captures, NoCaptures)
    assert captures.own_mark is None
    captures.check()
    with socket.socket() as listener:
        before = listener.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT)
        captures.led_to("add_ingress[0].http_proxy", listener)
        assert listener.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT) == before == 0
    await captures.apply()
    await captures.remove()
