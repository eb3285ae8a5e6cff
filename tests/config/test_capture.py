"""What captured modes may ask for."""

from __future__ import annotations

import json

import pytest

from tng.config.capture import EgressNetfilter, EgressNetfilterUdp, Netfilter, NetfilterUdp
from tng.config.loader import parse_config
from tng.errors import ConfigError

MODES = [
    ("add_ingress", "netfilter"),
    ("add_egress", "netfilter"),
    ("add_ingress", "netfilter_udp"),
    ("add_egress", "netfilter_udp"),
]


def config(side: str, mode: str, **changes: object) -> str:
    section = {"capture_dst": [{"host": "10.0.0.0/8", "port": 80}], **changes}
    return json.dumps({side: [{mode: section, "no_ra": True}]})


@pytest.mark.parametrize(("side", "mode"), MODES)
@pytest.mark.parametrize("mark", [1, 565, 0x53FFFF, 0x544000, 0xFFFFFFFF])
def test_any_other_mark_may_be_ours(side: str, mode: str, mark: int) -> None:
    assert parse_config(config(side, mode, so_mark=mark))


@pytest.mark.parametrize(("side", "mode"), MODES)
@pytest.mark.parametrize("mark", [0, 0x540000, 0x543FFF, 0x1540001])
def test_the_marks_of_captured_packets_are_not_ours(side: str, mode: str, mark: int) -> None:
    with pytest.raises(ConfigError, match=rf"{side}\[0\]\.{mode}\.so_mark: expected a mark"):
        parse_config(config(side, mode, so_mark=mark))


@pytest.mark.parametrize(("side", "mode"), MODES)
def test_addresses_of_a_family_that_no_rule_captures_are_refused(side: str, mode: str) -> None:
    where = rf"{side}\[0\]\.{mode}\.capture_dst\[0\]\.host: expected IPv4"
    with pytest.raises(ConfigError, match=where):
        parse_config(config(side, mode, capture_dst=[{"host": "fd00::/8"}]))


def test_the_manual_says_whom_control_groups_choose() -> None:
    told = {
        kind: kind.model_fields["capture_cgroup"].description or ""
        for kind in (Netfilter, EgressNetfilter, NetfilterUdp, EgressNetfilterUdp)
    }
    assert "captured" in told[Netfilter]
    assert told[NetfilterUdp] == told[Netfilter]
    assert "Senders on this machine" in told[EgressNetfilter]
    assert "Must be empty" in told[EgressNetfilterUdp]
