"""Counters come out as Prometheus reads them."""

from __future__ import annotations

import re

import pytest

from tng.endpoint import Endpoint
from tng.observe.metrics import EntryMeter, entry_labels, render_prometheus

LISTEN = Endpoint("127.0.0.1", 41000)
TARGET = Endpoint("10.0.0.7", 8080)


@pytest.mark.parametrize(
    ("side", "mode", "labels"),
    [
        ("ingress", "http_proxy", {"ingress_proxy_listen": "127.0.0.1:41000"}),
        ("ingress", "socks5", {"ingress_proxy_listen": "127.0.0.1:41000"}),
        (
            "ingress",
            "mapping",
            {"ingress_in": "127.0.0.1:41000", "ingress_out": "10.0.0.7:8080"},
        ),
        ("ingress", "netfilter", {"ingress_listen_port": "41000"}),
        ("egress", "mapping", {"egress_in": "127.0.0.1:41000", "egress_out": "10.0.0.7:8080"}),
        ("egress", "mapping_udp", {}),
        ("egress", "hook", {"egress_in": "127.0.0.1:41000", "egress_out": "10.0.0.7:8080"}),
        ("egress", "netfilter", {"egress_listen_port": "41000"}),
    ],
)
def test_each_mode_has_the_labels_of_the_reference(side, mode, labels) -> None:
    listen, target = (LISTEN, TARGET) if labels else (None, None)
    made = entry_labels(side, mode, 3, listen=listen, target=target)
    assert made == {f"{side}_type": mode, f"{side}_id": "3", **labels}


def test_an_entry_of_many_ports_has_its_type_and_number_only() -> None:
    assert entry_labels("ingress", "mapping", 0) == {
        "ingress_type": "mapping",
        "ingress_id": "0",
    }


def test_every_entry_has_every_series_with_its_labels() -> None:
    first = EntryMeter({"ingress_id": "0"})
    second = EntryMeter({"egress_id": "0"})
    first.cx_total += 2
    text = render_prometheus([first, second])
    assert 'tng_cx_total{ingress_id="0"} 2\n' in text
    assert 'tng_cx_total{egress_id="0"} 0\n' in text
    assert "tng_live 1\n" in text


def test_bytes_are_told_as_the_client_side_sees_them() -> None:
    meter = EntryMeter()
    meter.octets_from_client += 79
    meter.octets_to_client += 1160
    text = render_prometheus([meter])
    assert "tng_rx_bytes_total 79\n" in text
    assert "tng_tx_bytes_total 1160\n" in text


def test_the_text_is_well_formed_and_declares_each_name_once() -> None:
    text = render_prometheus([EntryMeter({"a": 'quote " slash \\ line \n end'}), EntryMeter()])
    declared = re.findall(r"^# TYPE (\S+) (?:counter|gauge)$", text, re.MULTILINE)
    assert len(declared) == len(set(declared))
    assert text.endswith("\n")
    for line in text.splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r'(\w+)(\{\w+="(?:[^"\\\n]|\\.)*"(?:,\w+="[^"]*")*\})? \d+', line)
            assert match, line
            assert match[1] in declared
