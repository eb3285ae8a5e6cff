"""What Open-Falcon is sent."""

from __future__ import annotations

import json

from tng.observe.falcon import dump_push
from tng.observe.metrics import EntryMeter
from tng.observe.snapshot import take_snapshot

METERS = [
    EntryMeter({"ingress_type": "socks5", "ingress_id": "0"}, cx_total=3, cx_active=1),
    EntryMeter({"egress_id": "0"}, cx_total=4),
]


def pushed(**tags: str) -> list[dict[str, object]]:
    snapshot = take_snapshot(METERS, started_at=1.0, taken_at=1_795_324_640.9)
    body = dump_push(snapshot, endpoint="mé", tags=tags, step=7)
    found: list[dict[str, object]] = json.loads(body)
    return found


def test_an_item_is_what_the_reference_sends() -> None:
    first = pushed(env="two words")[0]
    assert list(first.items()) == [
        ("endpoint", "mé"),
        ("metric", "cx_total"),
        ("value", 3),
        ("step", 7),
        ("counterType", "COUNTER"),
        ("tags", "env=two words,ingress_type=socks5,ingress_id=0"),
        ("timestamp", 1_795_324_640),
    ]


def test_every_label_set_is_sent() -> None:
    items = pushed()
    assert len(items) == 2 * 5 + 1
    tags = {item["tags"] for item in items if item["metric"] == "cx_total"}
    assert tags == {"ingress_type=socks5,ingress_id=0", "egress_id=0"}


def test_only_being_alive_is_a_gauge() -> None:
    types = {item["metric"]: item["counterType"] for item in pushed()}
    assert {name for name, kind in types.items() if kind == "GAUGE"} == {"live"}
    assert set(types.values()) == {"GAUGE", "COUNTER"}


def test_a_number_without_labels_has_the_tags_of_the_exporter() -> None:
    assert pushed(env="x")[-1]["tags"] == "env=x"
    assert pushed()[-1]["tags"] == ""
